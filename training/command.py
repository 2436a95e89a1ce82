"""How every command reads its options and ends: an error is one line, its exit code 2."""

import argparse
import difflib
import json
import logging
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from kg_targets.errors import printable
from training.errors import ConfigError, KGTargetsError

USER_ERROR = 2
INTERRUPTED = 130
"""128 + SIGINT, as other programs exit on Ctrl-C."""
BROKEN_PIPE = 141
"""128 + SIGPIPE, as other programs exit whose reader has gone."""
Work = Callable[[argparse.Namespace], int | None]
"""Does a command's work on its options; returns an exit code, None for 0."""


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which raises instead of printing its usage and leaving, and keeps a description's lines."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong.

        Raises:
            ConfigError: always.
        """
        flag = re.search(r"unrecognized arguments: (--[^ =]+)", message)
        close = difflib.get_close_matches(flag[1], self._option_string_actions, n=1) if flag else []
        raise ConfigError(
            f"{message}{f' (did you mean {close[0]}?)' if close else ''}: see {self.prog} --help"
        )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json`` to a command that reports."""
    parser.add_argument("--json", action="store_true", help="print JSON instead")


def print_json(content: Any) -> None:
    """Print what a command reports as JSON, in the order of its keys."""
    sys.stdout.write(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_line(line: str) -> None:
    """Write a line on standard error."""
    sys.stderr.write(f"{line}\n")


def exit_code(
    work: Callable[[], int | None],
    interrupted: str = "interrupted: run the same command again",
    say: Callable[[str], None] = write_line,
) -> int:
    """Do a command's work and turn what it raises into an exit code.

    Args:
        work: returns an exit code, or ``None`` for 0.
        interrupted: what Ctrl-C is answered with.
        say: writes the line that ends the command.

    Returns:
        The work's own code; 2 for a user's error, 130 when interrupted, 141 when nobody reads on.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        code = work()
        sys.stdout.flush()
    except KGTargetsError as error:
        say(f"error: {printable(str(error))}")
        return USER_ERROR
    except KeyboardInterrupt:
        say(interrupted)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes once more when it ends, and would print a traceback then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code or 0
