"""Files that appear whole or not at all."""

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def at_once(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of ``path`` when the block ends well; several processes may do the same.

    Raises:
        OSError: the folder cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    partial = Path(name)
    try:
        partial.chmod(0o644)  # others may read the store or the cache, too
        yield partial
        sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def exchanged(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that at no moment either name is missing; False where the system cannot.

    Linux's ``renameat2`` with ``RENAME_EXCHANGE``, which most of its file systems have.
    """
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    here, exchange = -100, 2  # AT_FDCWD: paths count from the present folder; RENAME_EXCHANGE
    return swap is not None and swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk before anything that relies on it: power may fail.

    Disks that cannot do so for a folder are left alone.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
