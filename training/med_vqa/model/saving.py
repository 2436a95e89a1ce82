"""The folder of a Med-VQA model: transformers' files for model and tokenizer, and the answers that belong to it."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from training.engine.checkpoint import CHECKPOINT, FINISHED
from training.engine.checkpoint import CONFIG as RUN_CONFIG
from training.errors import CheckpointError
from training.med_vqa.model.modeling import MedVQAModel
from training.weights import quiet_loading

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
ANSWERS = "answers.json"
# Where the files came from, and options of that call.
_OF_THIS_MACHINE = (
    "_name_or_path",
    "name_or_path",
    "local_files_only",
    "is_local",
    "vocab_file",
    "tokenizer_file",
)


@dataclass(frozen=True)
class Answers:
    """What a model was taught to answer with."""

    candidates: list[str]
    """Normalised answers that ranking chooses from."""
    knowledge: list[str]
    """Normalised answers whose words inform the gate."""
    protocol: str
    """Protocol that both were taken by, such as strict."""
    dataset: str
    """Data set, such as vqa_rad."""
    source: str
    """Which split the candidates came from, in words."""


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
        write_json(
            folder / name, {key: value for key, value in content.items() if key not in _OF_THIS_MACHINE}
        )
    write_json(folder / ANSWERS, asdict(answers))


def load_answers(folder: Path) -> Answers:
    """The answers of a saved model.

    Raises:
        CheckpointError: answers.json is missing or damaged.
    """
    content = read_json(folder, ANSWERS)
    for field in fields(Answers):
        value = content.get(field.name)
        lists = field.name in ("candidates", "knowledge")
        right = (
            isinstance(value, list) and all(isinstance(answer, str) for answer in value)
            if lists
            else isinstance(value, str)
        )
        if not right:
            kind = "a list of strings" if lists else "a string"
            raise CheckpointError(f'{folder / ANSWERS} is damaged: "{field.name}" is not {kind}')
    return Answers(**{field.name: content[field.name] for field in fields(Answers)})


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
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            digest.update(f"{path.name}\n".encode())
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


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


def plain_fields(kind: type[Any], content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Those fields of a dataclass that are strings or numbers, from a JSON object.

    Args:
        kind: the dataclass.
        content: the object.
        where: begins the message of an error, such as ``FILE is damaged``.

    Raises:
        CheckpointError: one is missing, or of another type.
    """
    names = {field.name: field.type for field in fields(kind) if field.type in _KINDS}
    for name, wanted in names.items():
        value = content.get(name)
        kinds: Any = (int, float) if wanted is float else wanted
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise CheckpointError(f'{where}: "{name}" is not {_KINDS[wanted]}')
    return {name: content[name] for name in names}


_KINDS: dict[Any, str] = {str: "a string", int: "a whole number", float: "a number"}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A JSON file of the folder.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
