"""A Med-VQA model with its tokenizer, and the folder that holds it.

config.json, model.safetensors, tokenizer   transformers' files
answers.json                                candidates and knowledge
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kg_targets.store.digest import files_sha256
from training.engine.checkpoint import CHECKPOINT, FINISHED
from training.engine.checkpoint import CONFIG as RUN_CONFIG
from training.errors import CheckpointError, ConfigError
from training.folders import write_json
from training.med_vqa.model.modeling import MedVQAConfig, MedVQAModel
from training.weights import LOAD_ERRORS, explain, quiet_loading

T = TypeVar("T")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
ANSWERS = "answers.json"
# Where the files came from, and options of that call.
_OF_THIS_MACHINE = (
    *("_name_or_path", "name_or_path", "local_files_only", "is_local"),
    *("vocab_file", "tokenizer_file"),
)


@dataclass(frozen=True)
class MedVQA:
    """A model with all that belongs to it."""

    model: MedVQAModel
    """The five parts."""
    tokenizer: PreTrainedTokenizerBase
    """Tokenizer of questions and answers; adds [CLS] and [SEP] by default."""

    @property
    def clip_config(self) -> dict[str, Any]:
        """``model_cfg`` and ``preprocess_cfg`` of the image tower."""
        content: dict[str, Any] = self.model.config.clip
        return content

    @property
    def size(self) -> int:
        """Side of the square input, pixels."""
        return self.model.vision.image_size

    @property
    def mean(self) -> Tensor:
        """Per-channel mean of the preprocessing, [3, 1, 1]."""
        return torch.tensor(self.clip_config["preprocess_cfg"]["mean"]).view(3, 1, 1)

    @property
    def std(self) -> Tensor:
        """Per-channel standard deviation of the preprocessing, [3, 1, 1]."""
        return torch.tensor(self.clip_config["preprocess_cfg"]["std"]).view(3, 1, 1)

    @property
    def preprocess(self) -> Callable[[Image.Image], Tensor]:
        """open_clip's evaluation transform: PIL image to float32 [3, size, size]."""
        settings = PreprocessCfg(**self.clip_config["preprocess_cfg"])
        transform: Callable[[Image.Image], Tensor] = image_transform_v2(settings, is_train=False)
        return transform


@dataclass(frozen=True)
class Answers:
    """Answers that a model ranks, and those whose words its gate knows."""

    candidates: list[str]
    """Normalised answers that ranking chooses from."""
    knowledge: list[str]
    """Normalised answers whose words inform the gate."""
    protocol: str
    """Protocol that both were taken by, such as strict."""
    dataset: str
    """Data set, such as vqa_rad."""
    source: str
    """Split that the candidates came from, in words."""


def save_med_vqa(
    folder: Path, model: MedVQAModel, tokenizer: PreTrainedTokenizerBase, answers: Answers
) -> None:
    """Write config.json, model.safetensors, the tokenizer's files and answers.json; no path of this machine.

    The caller replaces a former folder atomically (``training.folders``). Files are readable as the umask says.

    Args:
        folder: a new or empty folder.
        model: unwrapped, on any device.
        tokenizer: of its questions and answers.
        answers: what it ranks and knows.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with quiet_loading():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except SafetensorError as error:  # how a full disk comes out of safetensors
        raise OSError(str(error)) from error
    # safetensors lets nobody else read its file, whatever the umask: the folder is made to be shared.
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)
    for name in (CONFIG, TOKENIZER_CONFIG):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        kept = {key: value for key, value in content.items() if key not in _OF_THIS_MACHINE}
        write_json(folder / name, kept)
    write_json(folder / ANSWERS, asdict(answers))


def load_med_vqa(folder: Path) -> MedVQA:
    """A saved model in eval mode, on the CPU, from the folder's files alone.

    Raises:
        CheckpointError: a file is missing or damaged, or the weights are of another configuration.
    """
    kind = read_json(folder, CONFIG).get("model_type")
    if kind != MedVQAConfig.model_type:
        raise CheckpointError(
            f'{folder} holds a model of type "{kind}", not {MedVQAConfig.model_type}: name the checkpoint of a '
            "Med-VQA run"
        )
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder} is not a Med-VQA model folder: it has no {WEIGHTS}")
    try:
        with quiet_loading():
            loaded: Any = MedVQAModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ConfigError, *LOAD_ERRORS) as error:
        raise CheckpointError(f"{folder} cannot be loaded: {explain(error)}") from error
    model, info = loaded
    _must_fit(folder, info)
    if len(tokenizer) > model.text.config.vocab_size:
        raise CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} words and the model {model.text.config.vocab_size}"
        )
    return MedVQA(model.eval(), tokenizer)


def _must_fit(folder: Path, info: dict[str, Any]) -> None:
    """transformers goes on with random weights for what is missing or of another shape."""
    other = f"{folder} cannot be loaded: the weights are of another configuration: parameter"
    for name, found, expected in sorted(info["mismatched_keys"]):
        raise CheckpointError(
            f'{other} "{name}" is {list(found)} in the file and {list(expected)} in the model'
        )
    for name in sorted(info["missing_keys"]):
        raise CheckpointError(f'{other} "{name}" is missing from the file')
    for name in sorted(info["unexpected_keys"]):
        raise CheckpointError(f'{other} "{name}" of the file is not in the model')


def load_answers(folder: Path) -> Answers:
    """The answers of a saved model.

    Raises:
        CheckpointError: answers.json is missing or damaged.
    """
    return parsed(Answers, read_json(folder, ANSWERS), f"{folder / ANSWERS} is damaged")


def model_folder(folder: Path) -> Path:
    """``folder`` itself, or the checkpoint of the run in it.

    Raises:
        CheckpointError: there is no such folder, or the run in it has not finished.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder: name a run of training/run.py or its checkpoint")
    if not (folder / RUN_CONFIG).is_file():
        return folder
    if not (folder / FINISHED).is_file():
        raise CheckpointError(
            f"{folder} is an unfinished run (no {FINISHED}): run its training again, it goes on where it was"
        )
    return folder / CHECKPOINT


def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of a model folder's files."""
    return files_sha256(path for path in sorted(folder.iterdir()) if path.is_file())


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder.

    Raises:
        CheckpointError: it is missing or is not one.
    """
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is not a Med-VQA model folder: it has no {name}") from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder / name} is damaged ({reason})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder / name} is damaged: it is not a JSON object")
    return content


def parsed(kind: type[T], content: Any, where: str) -> T:
    """JSON values as a dataclass, or another type that pydantic reads; keys that it does not have are left aside.

    Args:
        kind: the type.
        content: the values.
        where: begins the message of an error, such as ``FILE is damaged``.

    Raises:
        CheckpointError: one is missing, or of another type.
    """
    try:
        return TypeAdapter(kind).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise CheckpointError(f'{where}: "{".".join(map(str, first["loc"]))}": {first["msg"]}') from error
