"""The configuration of a pre-training: which pairs, what they are taught to look like, and which parts learn when."""

from dataclasses import dataclass, field

from kg_targets.losses import registry
from training.checks import all_within, given, one_of, within
from training.data.config import CaptionedImagesConfig
from training.engine.config import OptimConfig, RunConfig
from training.errors import ConfigError
from training.med_vqa.model.config import VQAModelConfig, check_cached

STAGES = ("one", "two")
VIEWS = ("augment", "study")
TEXTS = ("dropout", "sentences")
SPACES = ("logit", "cosine")
"""Spaces in which λ can be added; see soft_labels.py."""
EQ5 = "eq5"
POLICIES = (EQ5, *(n for n, of in registry.POLICIES.items() if not of.within_case and n != "identity"))
"""AMiF's Eq. 5, and the soft ones of kg_targets/losses that do not contradict the mask of one case."""


@dataclass(frozen=True)
class PretrainModelConfig(VQAModelConfig):
    """A Med-VQA model and the heads that only pre-training needs."""

    embed_dim: int | None = None
    """Width of the space in which images and texts are compared, in [2, 8192]; null: hidden_size."""
    freeze_batch_norm: bool = False
    """BatchNorm of a learning image tower keeps its statistics; several processes need it for equal gradients."""
    grad_checkpointing: bool = False
    """Keep no activations of towers and of a learning co-attention, compute them again in the backward pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        all_within("model.", self, embed_dim=(2, 8192))


@dataclass(frozen=True)
class PretrainDataConfig(CaptionedImagesConfig):
    """Captioned images of a target store, and how an item gets its two views and its two texts."""

    store: str = ""
    """Folder of the target store, of either kind, whose images and captions are the data; required."""
    exclude: str | None = None
    """File of cases (group_id, one a line) to leave out, as leaks --exclude-out writes it; null: none."""
    dev_share: float = 0.1
    """Share of the cases that choose the epoch and do not train, the same for every seed, in [0, 0.5]; 0: none."""
    views: str = "augment"
    """augment: two augmentations of an image; study: its second view is another image of its case, if it has one."""
    texts: str = "dropout"
    """A caption's second text: dropout (itself, under other dropout) or sentences (a random half of its sentences)."""
    max_text_tokens: int = 64
    """Word pieces of a caption, both special ones included, in [4, 512]; longer ones are truncated and counted."""
    batch_size: int = 64
    """Images per optimizer step, summed over all processes; at least 2."""
    cached_mb: int = 4096
    """Memory that the image tokens of cached_views may take, MB per process, >= 1; more is an error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("data.views", self.views, VIEWS)
        one_of("data.texts", self.texts, TEXTS)
        all_within("data.", self, dev_share=(0, 0.5), max_text_tokens=(4, 512), cached_mb=(1, None))
        if self.exclude == "":
            raise ConfigError("data.exclude is empty: name a file, or leave it out")
        if self.in_memory is False and (self.cached_views or self.views == "study"):
            raise ConfigError(
                "data.cached_views and data.views study need all images in memory: set --data.in_memory true"
            )
        if self.cached_views == 1:
            raise ConfigError("data.cached_views: 1 view cannot be two different ones: keep at least 2, or 0")


@dataclass(frozen=True)
class SoftLabelConfig:
    """One source of soft labels."""

    store: str | None = None
    """Folder of a target store of the same images and captions: the knowledge graph's, or a teacher's."""
    teacher: str | None = None
    """In place of a store: a teacher that is asked at each step, named as for make targets, such as open_clip:NAME."""
    weight: float = 1.0
    """Share of this source among all, before they are normalised to sum to 1, >= 0."""
    policy: str | None = field(default=None, metadata={"choices": POLICIES})
    """Null: eq5 (AMiF) for a teacher, evidence for knowledge; else one of these."""
    temperature: float | None = None
    """Units of cosine, > 0; null: the teacher's own for eq5, 1 for softmax, 0.05 for both fixed_mass."""
    alpha: float = 0.7
    """Probability the true pair keeps: at least (fixed_mass, evidence) or exactly (the others), in (0, 1]."""
    threshold: float | None = None
    """Similarity up to which an image takes nothing, in [-1, 1); null: 0 (fixed_mass), the store's p95 (evidence)."""
    saturation: float = 1.0
    """evidence: summed weight of soft positives at which a row is as soft as it gets, > 0."""

    def __post_init__(self) -> None:
        if bool(self.store) == bool(self.teacher):
            raise ConfigError("soft_labels: each entry names either a store or a teacher")
        if self.policy is not None:
            one_of("soft_labels.policy", self.policy, POLICIES)
        all_within("soft_labels.", self, weight=(0, 1e6), temperature=(1e-6, None), alpha=(1e-6, 1))
        all_within("soft_labels.", self, threshold=(-1, 0.999999), saturation=(1e-6, None))


@dataclass(frozen=True)
class PretrainLossConfig:
    """The terms: image-text, view-view and text-text in both stages; transport and matching in stage two."""

    lambda_weight: float = 0.01
    """Eq. 5's λ, what the true pair's similarity is raised by in a teacher's labels, >= 0."""
    lambda_space: str = "logit"
    """Space that λ is added in: the teacher's logit (the authors' code), or its cosine before the scale."""
    tau_image_text: float = 0.07
    """Temperature τ1, units of cosine, in [0.001, 10]."""
    tau_views: float = 0.07
    """Temperature τ2, likewise."""
    tau_texts: float = 0.07
    """Temperature τ3, likewise."""
    learn_temperatures: bool = False
    """Let the temperatures learn, from these values on and within [0.01, 1]."""
    views_weight: float = 1.0
    """Weight of the view-view term, >= 0; 0 leaves it and the second view out."""
    texts_weight: float = 1.0
    """Weight of the text-text term, >= 0; 0 leaves it and the second text out."""
    transport_weight: float = 3.0
    """Stage two: weight of optimal transport between words and places, >= 0; 0 leaves it out."""
    matching_weight: float = 1.0
    """Stage two: weight of image-text matching with hard negatives, >= 0; 0 leaves it out."""
    match_share: float = 0.5
    """A pair with so large a share of the true pair's probability is no negative, in (0, 1000]."""
    mining_tau: float | None = None
    """Hard negatives are drawn by softmax(cosine / this), in [0.001, 1000]: the larger, the easier; null: τ1."""
    beta: float = 0.5
    """Transport: step of the proximal point method, units of cost, in [0.03, 100]."""
    outer: int = 50
    """Transport: proximal steps, in [1, 10000]."""
    inner: int = 1
    """Transport: scaling steps in each of them, in [1, 1000]."""
    device_factors_mb: int = 2048
    """On a GPU: memory for a knowledge store's factors, MB, >= 0; if they need more, the CPU computes similarities."""

    def __post_init__(self) -> None:
        one_of("loss.lambda_space", self.lambda_space, SPACES)
        for name in ("tau_image_text", "tau_views", "tau_texts"):
            within(f"loss.{name}", getattr(self, name), 0.001, 10)
            if self.learn_temperatures:
                within(f"loss.{name} with loss.learn_temperatures", getattr(self, name), 0.01, 1)
        for name in ("lambda_weight", "views_weight", "texts_weight", "transport_weight", "matching_weight"):
            within(f"loss.{name}", getattr(self, name), 0, 1e6)
        all_within("loss.", self, match_share=(1e-6, 1000), mining_tau=(0.001, 1000), beta=(0.03, 100))
        all_within("loss.", self, outer=(1, 10_000), inner=(1, 1000), device_factors_mb=(0, None))


@dataclass(frozen=True)
class PretrainConfig(RunConfig):
    """One stage of a pre-training."""

    task: str = "med_vqa_pretrain"
    stage: str = "one"
    """one: towers and projections learn; two: continues a pre-training by model.init_from; the co-attention learns."""
    validate_every: int = 1
    """Epochs between two looks at the dev part, >= 1; the last epoch is looked at in any case."""
    model: PretrainModelConfig = field(default_factory=PretrainModelConfig)
    data: PretrainDataConfig = field(default_factory=PretrainDataConfig)
    soft_labels: tuple[SoftLabelConfig, ...] = ()
    """Sources of soft labels, mixed by weight; none: hard labels, the true pair alone."""
    loss: PretrainLossConfig = field(default_factory=PretrainLossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("stage", self.stage, STAGES)
        within("validate_every", self.validate_every, 1, None)
        given("data.store", self.data.store)
        given("data.data_root", self.data.data_root)
        if self.soft_labels and not any(source.weight for source in self.soft_labels):
            raise ConfigError(
                "soft_labels: no source has a weight above 0: leave soft_labels out for hard labels"
            )
        if self.stage == "one":
            check_cached(self.data, self.model)
        elif self.model.init_from is None:
            raise ConfigError(
                "stage two continues stage one (or two): name its run by --model.init_from FOLDER"
            )
        elif not self.loss.transport_weight and not self.loss.matching_weight:
            raise ConfigError(
                "stage two with loss.transport_weight 0 and loss.matching_weight 0 has nothing for the co-attention to "
                "learn: set one of them above 0"
            )
