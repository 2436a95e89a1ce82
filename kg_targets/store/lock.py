"""Lock of an output folder: one process at a time writes it and says who it is, also on disks without ``flock``.

The lock is a hidden file beside the output that names its holder. Where the disk has ``flock`` the system lets go of it
when the last process of a build has ended. Elsewhere the file itself is the lock, and its holder touches it: one that
was not touched for a minute, or whose process of this machine is gone, is taken over.
"""

import json
import os
import socket
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Self

from kg_targets.errors import StoreError

HEARTBEAT, STALE = 10.0, 60.0
"""Seconds between two touches of a lock, and after which one that was not touched is taken over."""
_LAST_WORKERS = 10.0
"""Seconds that workers of a killed build get to notice it: they hold its lock until then."""


class FolderLock:
    """Context manager that holds the lock of one output.

    Raises:
        StoreError: another process has it; names that process.
        OSError: the folder around the output cannot be written.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.parent / f".{target.name}.lock"
        self._descriptor = -1
        self._mine = ""
        self._done = threading.Event()

    def __enter__(self) -> Self:
        take = self._take_flock if _has_flock(self.target.parent) else self._take_file
        until = time.monotonic() + _LAST_WORKERS
        while not take():
            if not _gone(self.holder()) or time.monotonic() > until:
                raise StoreError(
                    f"another build is writing {self.target}{_told(self.holder())}: wait for it, or choose another OUT"
                )
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        try:
            if self.path.read_text(encoding="utf-8") == self._mine:
                self.path.unlink(missing_ok=True)
        except OSError:  # the folder is gone, and the lock with it
            pass
        finally:
            os.close(self._descriptor)

    def holder(self) -> dict[str, object]:
        """Process, host and begin of who holds the lock; empty if nobody does or it cannot be read."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _take_flock(self) -> bool:
        import fcntl  # not on every system; reading a store must not need it

        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = self.path.exists() and os.stat(self.path).st_ino == os.fstat(descriptor).st_ino
        except OSError:
            os.close(descriptor)
            return False
        if not same:  # its holder has just removed it
            os.close(descriptor)
            return self._take_flock()
        os.ftruncate(descriptor, 0)
        self._sign(descriptor)
        return True

    def _take_file(self) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            return self._abandoned() and self._take_file()
        self._sign(descriptor)
        threading.Thread(target=self._beat, daemon=True).start()
        return True

    def _sign(self, descriptor: int) -> None:
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        content = {"process": os.getpid(), "host": socket.gethostname(), "since": began}
        self._mine = json.dumps(content) + "\n"
        os.write(descriptor, self._mine.encode())
        self._descriptor = descriptor

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT):
            try:
                os.utime(self._descriptor)
            except OSError:
                return

    def _abandoned(self) -> bool:
        """Move a lock away that nobody holds any more, and say so."""
        holder = self.holder()
        try:
            seen = self.path.read_bytes()
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=f"{self.path.name}.") as now:
                silent = os.stat(now.name).st_mtime - self.path.stat().st_mtime  # both by the disk's clock
            if not (_gone(holder) or silent > STALE):
                return False
            moved = self.path.with_name(f"{self.path.name}.{os.getpid()}")
            os.rename(self.path, moved)
        except FileNotFoundError:
            return True
        try:
            if moved.read_bytes() != seen:  # someone else took it over in between
                os.link(moved, self.path)
                return False
        finally:
            moved.unlink(missing_ok=True)
        warnings.warn(f"{self.path}: taken over, its holder{_told(holder)} is gone", stacklevel=4)
        return True


def _has_flock(folder: Path) -> bool:
    """Whether the disk of a folder has ``flock``; some network disks do not, nor has Windows."""
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, PermissionError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _gone(holder: dict[str, object]) -> bool:
    """Whether the holder was a process of this machine and has ended."""
    process = holder.get("process")
    if holder.get("host") != socket.gethostname() or not isinstance(process, int) or process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def _told(holder: dict[str, object]) -> str:
    if not holder:
        return ""
    return " (process {process} on {host}, since {since})".format(
        **{key: holder.get(key, "?") for key in ("process", "host", "since")}
    )
