"""A process of a run, without torch: requests to stop (SIGTERM of batch systems, Ctrl-C) and its share of the cores.

A request is taken note of when it comes and obeyed after the step. Threads are fixed because sums split over another
number of them round otherwise.
"""

import atexit
import ctypes
import hashlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from training.cores import own_cores

_LAUNCHERS = (b"accelerate", b"torchrun", b"torch.distributed")
_PR_SET_PDEATHSIG = 1


_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Get a SIGTERM when the parent process ends in whatever way, on Linux."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def follow_launcher() -> None:
    """Get a SIGTERM when the launcher ends, on Linux: ``accelerate launch`` dies of one and leaves its child at work.

    Only under a launcher: a process that its shell started in the background must outlive the shell.
    """
    if _launcher():
        die_with_parent()


def end_process(code: int) -> NoReturn:
    """Leave with an exit code; one of several processes leaves without Python's own teardown.

    Threads of gloo and autograd may still let go of tensors then, and abort a process whose work is done ("terminate
    called without an active exception", pytorch issue 190489). What was registered to run at exit runs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def tell_last(line: str) -> None:
    """Write a line on standard error, below what a launcher prints when its process fails (Linux).

    ``accelerate launch`` and ``torchrun`` end a failed run with a traceback of their own. A child that outlives this
    process waits for the launcher's end, at most 20 seconds; under ``--quiet`` the line is written at once. What
    several processes of one launcher say alike is written once.
    """
    command = _launcher()
    if not command or {b"--quiet", b"-q"} & set(command) or not _say_later(line, os.getppid()):
        sys.stderr.write(f"{line}\n")


def _say_later(line: str, launcher: int) -> bool:
    """Leave a child that writes the line once the launcher has ended; False where the system does not let us."""
    import fcntl  # not on every system, as launchers' command lines are not

    name = f"kg-targets-{launcher}-{hashlib.sha256(line.encode()).hexdigest()[:16]}"
    try:
        said = Path(tempfile.gettempdir()) / name
        held = os.open(said, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the child keeps it
    except BlockingIOError:
        return True  # a child of another process will write it
    try:
        if os.fork():
            return True
    except OSError:
        return False
    try:
        os.setsid()  # torchrun kills the whole group of a process, a Ctrl-C that of the terminal
        until = time.monotonic() + 20
        while Path(f"/proc/{launcher}").exists() and time.monotonic() < until:
            time.sleep(0.02)
        os.write(2, f"{line}\n".encode())
        said.unlink()
    finally:
        os._exit(0)


def _launcher() -> list[bytes]:
    """The command line of the launcher that started this process; empty if none did, or not on Linux."""
    command = Path(f"/proc/{os.getppid()}/cmdline")
    words = command.read_bytes().split(b"\0") if command.is_file() else []
    return words if any(name in word for name in _LAUNCHERS for word in words) else []


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is remembered; a second SIGINT interrupts at once.

    Outside the main thread, where Python delivers no signals, it remembers nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs ignore SIGINT
                    self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


def resolve_threads(asked: int) -> int:
    """CPU threads of this process: as asked, or for 0 its share of the cores that it may use.

    ``accelerate launch`` sets OMP_NUM_THREADS=1 and plain ``python`` does not: left alone, the same configuration
    and seed would give two curves. The cores are shared by the processes of this machine.
    """
    return asked or own_cores()
