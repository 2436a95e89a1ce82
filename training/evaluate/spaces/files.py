"""The files of a comparison of spaces: all of them or none, and whether they are there already."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training.engine.checkpoint import write_json
from training.evaluate.outputs import Writers, _plain, evaluation_key
from training.evaluate.runs import RunGroup
from training.evaluate.spaces.config import SpacesConfig

RESULT, MARKDOWN = "spaces.json", "spaces.md"
SIMILARITY, WINS, LOSSES = "similarity.png", "wins.png", "losses.png"
NAMES = (MARKDOWN, SIMILARITY, WINS, LOSSES, RESULT)
_FORMAT = 1
"""Of RESULT; a comparison in another one is done again."""


def spaces_key(
    store: str, targets: str, images: str, groups: Sequence[RunGroup], config: SpacesConfig
) -> str:
    """Tells one comparison from another: stores, images, finished runs and options, each by its content."""
    evaluation = evaluation_key(store, images, groups, config.evaluation)
    options = json.dumps(asdict(config), sort_keys=True)
    return hashlib.sha256(f"{_FORMAT}\n{evaluation}\n{targets}\n{options}".encode()).hexdigest()


def is_current(out: Path, key: str) -> bool:
    """Whether ``out`` holds this very comparison with all its files."""
    try:
        written = json.loads((out / RESULT).read_text(encoding="utf-8"))
        return bool(written["key"] == key) and all((out / name).is_file() for name in NAMES)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_files(out: Path, writers: Writers, result: dict[str, Any], key: str) -> None:
    """Write the files beside ``out`` and move them in once all are there; RESULT goes first and comes back last.

    Args:
        out: folder, made if missing; other files in it stay.
        writers: every file but RESULT.
        result: content of RESULT.
        key: see ``spaces_key``.
    """
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".spaces-", dir=out.absolute().parent) as made_in:
        made = Path(made_in)
        for name, write in writers.items():
            write(made / name)
        write_json(made / RESULT, {**_plain(result), "key": key})
        out.mkdir(exist_ok=True)
        (out / RESULT).unlink(missing_ok=True)
        for name in NAMES:
            os.replace(made / name, out / name)
