"""The files of an evaluation: all of them or none, and whether they are there already."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.engine.checkpoint import write_json
from training.retrieval.config import EvalConfig
from training.retrieval.runs import RunGroup
from training.statistics.intervals import nan_to_null

RESULT = "retrieval.json"
TABLE = "retrieval.txt"
MARKDOWN = "retrieval.md"
IMAGES = "contact_sheet.png"
TEXTS = "image_to_text.png"
FROM_TEXTS = "text_to_image.png"
BLOCK = "target_block.png"
OUTPUTS = (RESULT, MARKDOWN, TABLE, IMAGES, TEXTS, FROM_TEXTS, BLOCK)
"""Everything that an evaluation may write; which pictures it does depends on its directions."""

FORMAT = 2
"""Of RESULT; an evaluation in another one is done again."""

Writers = Mapping[str, Callable[[Path], None]]
"""File name to what writes the file at a path."""


def evaluation_key(
    store_fingerprint: str, images: str, groups: Sequence[RunGroup], config: EvalConfig
) -> str:
    """Tells one evaluation from another: store, images, finished runs and options, each by its content."""
    digest = hashlib.sha256(f"{FORMAT}\n{store_fingerprint}\n{images}".encode())
    for group in groups:
        for run_key in group.keys:
            digest.update(f"\n{group.name}\n{run_key}".encode())
    digest.update(json.dumps(asdict(config), sort_keys=True).encode())
    return digest.hexdigest()


def is_current(out: Path, key: str, result: str = RESULT) -> bool:
    """Whether ``out`` holds this very evaluation, described in its file ``result``, with all its files."""
    try:
        written = json.loads((out / result).read_text(encoding="utf-8"))
        return bool(written["key"] == key) and all((out / name).is_file() for name in written["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_outputs(
    out: Path,
    writers: Writers,
    result: dict[str, Any],
    key: str,
    name: str = RESULT,
    ours: Sequence[str] = OUTPUTS,
) -> list[str]:
    """Write the files and the result's: made in a folder beside ``out``, and moved in once all are there.

    Args:
        out: folder, made if missing; files of ours from another evaluation go away, others stay.
        writers: every file but the result's.
        result: its content.
        key: see ``evaluation_key``.
        name: of the result's file.
        ours: every name that such an evaluation may write.

    Returns:
        The names written.
    """
    names = [*writers, name]
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{Path(name).stem}-", dir=out.absolute().parent) as made_in:
        made = Path(made_in)
        for file, write in writers.items():
            write(made / file)
        write_json(made / name, {**nan_to_null(result), "files": names, "key": key})
        out.mkdir(exist_ok=True)
        # Away first and back last: its presence says that everything else is there and of the same evaluation.
        (out / name).unlink(missing_ok=True)
        for file in ours:
            if file not in names:
                (out / file).unlink(missing_ok=True)
        for file in names:
            shutil.move(made / file, out / file)
    return names
