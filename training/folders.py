"""Folders that a command writes to: found unusable before the work, and told on one line when they fail."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import CheckpointError


@contextmanager
def writing(folder: Path, option: str) -> Iterator[None]:
    """Turn the system's errors about ``folder``, given as ``option``, into one line.

    Raises:
        CheckpointError: the folder cannot be made, read or written.
    """
    try:
        yield
    except OSError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{option} {folder} cannot be written ({reason}): choose another folder"
        ) from error


def check_writable(folder: Path, option: str) -> None:
    """Refuse a folder that cannot be written, before hours of work rather than after.

    Raises:
        CheckpointError: it, or what it would have to be made in, is a file or not writable.
    """
    with writing(folder, option):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise CheckpointError(
                f"{option} {folder}: {there} is a file, not a folder: choose another folder"
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise CheckpointError(
                f"{option} {folder}: no permission to write in {there}: choose another folder"
            )


def replace_folder(fresh: Path, current: Path, old: Path) -> None:
    """Let ``fresh`` take the place of ``current``; until it does, ``current`` or ``old`` is the former one, whole.

    Args:
        fresh: a complete folder beside ``current``.
        current: what it replaces; need not exist.
        old: name under which the former one stays for the moment between the two renames.

    Raises:
        OSError: the folders cannot be moved.
    """
    if current.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(current, old)
    os.replace(fresh, current)
    shutil.rmtree(old, ignore_errors=True)
