"""Text files of the Med-VQA commands: whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.folders import writing


def write_text(path: Path, text: str, option: str = "--out") -> None:
    """Write a UTF-8 file by atomic rename, its folder made if missing.

    Raises:
        ConfigError: the path names no file.
        CheckpointError: it cannot be written.
    """
    if not path.name:
        raise ConfigError(f"{option} {path} names no file")
    partial = path.with_name(path.name + ".partial")
    with writing(path, option):
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(text, encoding="utf-8", newline="")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def json_text(content: Any) -> str:
    """As every JSON file here is written: keys in order, no NaN."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
