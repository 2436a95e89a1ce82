"""The configuration of a Med-VQA fine-tuning run: which questions, how they are shown, and how often they select."""

from dataclasses import dataclass, field

from training.checks import all_within, given, one_of, within
from training.data.config import ViewsConfig
from training.engine.config import RunConfig
from training.med_vqa.model.config import VQAModelConfig, check_cached

IMAGES = ("real", "blank")
PROTOCOLS = ("paper", "strict", "image_disjoint")
"""Those of training/vqa/protocols.py, which would load numpy before a run has set its threads."""


@dataclass(frozen=True)
class VQADataConfig(ViewsConfig):
    """Questions, their images and the answers that the model may know of."""

    dataset: str = ""
    """Med-VQA data set: a name of data_manifests, such as vqa_rad, or a manifest's path; required."""
    data_root: str = ""
    """Folder that the manifest's files and the questions' image paths are relative to; required."""
    protocol: str = "strict"
    """paper (knows the test answers, keeps the last epoch), strict or image_disjoint; see docs/vqa_data.md."""
    split_seed: int = 0
    """Seed of the splits by image, >= 0; keep it over the seeds of a comparison."""
    validation_share: float = 0.1
    """Share of training questions that choose the epoch, split by image, in (0, 0.5]; the paper protocol has none."""
    batch_size: int = 64
    """Questions per optimizer step, summed over all processes; at least 1."""
    micro_batch: int | None = None
    """Gradient accumulation: questions per forward pass and process, >= 1, same gradient; null: the local batch."""
    images: str = "real"
    """real, or blank: every image is the mean colour, in training and validation (question-only baseline)."""
    max_question_tokens: int = 64
    """Word pieces of a question, both special ones included, in [3, 512]; longer ones are truncated and counted."""
    max_answer_tokens: int = 32
    """Word pieces of an answer that is learnt, both special ones included, in [3, 512]; longer ones likewise."""
    max_unknown: float = 0.2
    """Largest share of the tokens of questions and answers that the text model may not know, in [0, 1]."""
    knowledge: bool = True
    """Show the gate the answers that the protocol lets it know; false: the model goes without its gate."""
    cached_mb: int = 4096
    """Memory that the image tokens of cached_views may take, MB per process, >= 1; more is an error."""
    max_broken: int = 0
    """Images that may be missing or unreadable; their questions are skipped and counted; more is an error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("data.protocol", self.protocol, PROTOCOLS)
        one_of("data.images", self.images, IMAGES)
        all_within(
            "data.", self, split_seed=(0, 2**31 - 1), validation_share=(1e-6, 0.5), batch_size=(1, None)
        )
        all_within("data.", self, micro_batch=(1, None))
        all_within("data.", self, max_question_tokens=(3, 512), max_answer_tokens=(3, 512))
        all_within("data.", self, cached_mb=(1, None), max_broken=(0, None), max_unknown=(0, 1))


@dataclass(frozen=True)
class FinetuneConfig(RunConfig):
    """One fine-tuning of a Med-VQA model."""

    task: str = "med_vqa_finetune"
    validate_every: int = 1
    """Epochs between two looks at the validation part, >= 1; the last epoch is looked at in any case."""
    model: VQAModelConfig = field(default_factory=VQAModelConfig)
    data: VQADataConfig = field(default_factory=VQADataConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        within("validate_every", self.validate_every, 1, None)
        given("data.dataset", self.data.dataset)
        given("data.data_root", self.data.data_root)
        check_cached(self.data, self.model)
