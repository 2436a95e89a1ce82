"""Folders and files that a command writes to: found unusable before the work, and told on one line when they fail."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.errors import CheckpointError, ConfigError

_NEXT_TO_NOTHING = 1 << 24  # bytes


@contextmanager
def writing(folder: Path, option: str) -> Iterator[None]:
    """Turn the system's errors about ``folder``, given as ``option``, into one line.

    Raises:
        CheckpointError: the folder cannot be made, read or written.
    """
    try:
        yield
    except OSError as error:
        if _is_full(folder, error):
            raise CheckpointError(
                f"{option} {folder} cannot be written, the disk is full: free space and repeat the command"
            ) from error
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{option} {folder} cannot be written ({reason}): choose another folder"
        ) from error


def _is_full(folder: Path, error: OSError) -> bool:
    """Whether there is no room left; safetensors and torch say so in words of their own, or not at all."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "no space" in str(error).lower():
        return True
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return error.errno is None and shutil.disk_usage(there).free < _NEXT_TO_NOTHING


@contextmanager
def fresh_folder(folder: Path) -> Iterator[None]:
    """An empty folder to write into, which goes away again if that fails."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def whole_file(path: Path, option: str) -> Iterator[Path]:
    """A file to write into, which takes the place of ``path``, given as ``option``, once it is whole.

    The folder is made if missing.

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
            yield partial
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, option: str = "--out") -> None:
    """Write a UTF-8 file by atomic rename.

    Raises:
        ConfigError: the path names no file.
        CheckpointError: it cannot be written.
    """
    with whole_file(path, option) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def json_text(content: Any) -> str:
    """As the JSON files of reports are written: keys in order, no NaN."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file of a run or model by atomic rename.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


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
