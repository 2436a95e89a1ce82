"""Starting from a trained Med-VQA model: what is taken from it, whether it fits, and what a run's starts are told by.

A pre-training leaves a record of the parts that it trained; they are taken, and no others. A model without a record was
fine-tuned: everything but its decoder is taken. Decoder and tokenizer are always those of ``model.text``.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedConfig

from training.clip.config import ModelConfig
from training.clip.starts import weights_digest
from training.errors import CheckpointError, ConfigError
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.presets import PRESETS
from training.med_vqa.model.saving import folder_digest, model_folder, read_json

if TYPE_CHECKING:
    from training.med_vqa.model.build import MedVQA

RECORD = "pretraining.json"
"""Of a pre-trained model's folder: stage, the parts that are trained, and the heads' settings."""
TOWERS = ("vision", "text", "image_projection", "text_projection")
"""What stage one trains."""
FUSION = ("co_attention",)
"""What stage two adds."""
GATE = ("knowledge_projection", "gate")
_COMPARED = (
    "clip", "text", "hidden_size", "co_attention_layers", "co_attention_heads", "co_attention_ffn", "gate_heads",
    "gate_ffn",
)  # fmt: skip
_NO_ARCHITECTURE = ("hidden_dropout_prob", "attention_probs_dropout_prob", "timm_model_pretrained")


@dataclass(frozen=True)
class Start:
    """A trained model to start from."""

    folder: Path
    """Where its files are."""
    med_vqa: "MedVQA"

    @property
    def record(self) -> dict[str, Any]:
        """What the pre-training wrote of itself; empty where the folder is no pre-training's.

        Raises:
            CheckpointError: it is damaged.
        """
        return read_record(self.folder)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of ``MedVQAModel`` that are taken from it.

        Raises:
            CheckpointError: the record is damaged.
        """
        everything = (*TOWERS, *FUSION, *GATE)
        trained = self.record.get("trained", list(everything))
        if not isinstance(trained, list) or not set(trained) <= set(everything):
            raise CheckpointError(f'{self.folder / RECORD} is damaged: "trained" does not list parts')
        return tuple(name for name in everything if name in trained)

    def give(self, to: "MedVQA") -> None:
        """Copy its parts' weights.

        Raises:
            CheckpointError: the other model has another architecture or vocabulary; names the first difference.
        """
        where = f"model.start {self.folder}"
        for name, theirs, ours in _differences(self.med_vqa.model.config, to.model.config):
            raise CheckpointError(
                f"{where}: its {name} is {theirs}, that of this model {ours}: set model.preset and its sizes as in the "
                "pre-training"
            )
        if self.med_vqa.tokenizer.get_vocab() != to.tokenizer.get_vocab():
            raise CheckpointError(
                f"{where}: its words are not those of this model's tokenizer: set model.text alike"
            )
        for name in self.parts:
            part: Any = getattr(self.med_vqa.model, name)
            getattr(to.model, name).load_state_dict(part.state_dict())


def read_record(folder: Path) -> dict[str, Any]:
    """What the pre-training wrote of itself into a model folder; empty where the folder is no pre-training's.

    Raises:
        CheckpointError: it is damaged.
    """
    return read_json(folder, RECORD) if (folder / RECORD).is_file() else {}


def _differences(theirs: PreTrainedConfig, ours: PreTrainedConfig) -> Iterator[tuple[str, Any, Any]]:
    """Name and values of what the shared parts' computation depends on and is not the same."""
    one, other = ({name: getattr(config, name) for name in _COMPARED} for config in (theirs, ours))
    first, second = dict(_leaves(one)), dict(_leaves(other))
    for name in dict.fromkeys((*first, *second)):
        if first.get(name) != second.get(name):
            yield name, first.get(name), second.get(name)


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        elif name not in _NO_ARCHITECTURE:
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def start_digests(model: VQAModelConfig) -> list[str]:
    """Of the local files that the weights come from; a start that is not there is told when the model is built.

    Raises:
        CheckpointError: ``model.start`` is neither a finished run nor a model folder.
    """
    vision = partial(
        ModelConfig,
        name=model.vision or PRESETS[model.preset].vision,
        pretrained=model.vision_pretrained,
        image_weights=model.vision_weights,
    )
    text = partial(ModelConfig, text_weights=model.text or model.tokenizer)
    digests = []
    for start in (vision, text):
        digest = ""
        with suppress(ConfigError):
            digest = weights_digest(start())
        digests.append(digest)
    return digests if model.start is None else [*digests, folder_digest(model_folder(Path(model.start)))]
