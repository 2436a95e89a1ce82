"""Which local weights a model starts from, by their content: two runs from different files are different runs."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from training.clip.config import ModelConfig
from training.clip.starts import image_weights_file, text_weights_path


def weights_digest(config: ModelConfig) -> str:
    """sha256 over the local files that the weights come from; empty if there are none.

    Tags and hub names are not looked up: they stand in the configuration.

    Raises:
        ConfigError: a named start is not installed.
    """
    digest = hashlib.sha256()
    files = list(_files(config))
    for path in files:
        digest.update(f"{path.name}\n".encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest() if files else ""


def _files(config: ModelConfig) -> Iterator[Path]:
    """In a fixed order; what does not exist is told when the model is built."""
    folders = []
    if config.name.startswith("local-dir:"):
        folders.append(Path(config.name.removeprefix("local-dir:")))
    if config.text_weights is not None:
        folders.append(text_weights_path(config.text_weights))
    for folder in folders:
        yield from sorted(path for path in folder.glob("*") if path.is_file())
    if config.pretrained is not None and Path(config.pretrained).is_file():
        yield Path(config.pretrained)
    if config.image_weights is not None:
        path = image_weights_file(config.image_weights)
        if path.is_file():
            yield path
