"""Files that appear whole or not at all."""

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
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
