"""A request to stop, taken note of when it comes and obeyed after the step: by SIGTERM (batch systems) or Ctrl-C."""

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

_LAUNCHERS = (b"accelerate", b"torchrun", b"torch.distributed")
_PR_SET_PDEATHSIG = 1


def follow_launcher() -> None:
    """Get a SIGTERM when the launcher ends, on Linux: ``accelerate launch`` dies of one and leaves its child at work.

    Only under a launcher: a process that its shell started in the background must outlive the shell.
    """
    if not sys.platform.startswith("linux"):
        return
    command = Path(f"/proc/{os.getppid()}/cmdline")
    if command.is_file() and any(name in command.read_bytes() for name in _LAUNCHERS):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
