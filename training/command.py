"""How every command reads its options and ends: an error is one line, its exit code 2."""

import argparse
import difflib
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
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


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps a description's lines, and adds the default to the help of an option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        told, given = action.help or "", action.default
        if (
            not action.option_strings
            or isinstance(given, bool)
            or not isinstance(given, int | float | str | Path)
        ):
            return told
        return (
            told
            if given in ("", argparse.SUPPRESS) or "default:" in told
            else f"{told} (default: %(default)s)"
        )


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which raises instead of printing its usage and leaving, and tells an option's typing error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def parse_args(self, args: Sequence[str], namespace: None = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse the arguments, an unknown option being told before one that is required and missing.

        Options behind a rest that a command takes as it is are that rest's own.
        """
        takes_rest = any(action.nargs == argparse.REMAINDER for action in self._actions)
        for flag in (one.partition("=")[0] for one in itertools.takewhile("--".__ne__, args)):
            if (
                not takes_rest
                and re.fullmatch(r"--[a-z][a-z-]*", flag)
                and flag not in self._option_string_actions
            ):
                self.error(f"unrecognized arguments: {flag}")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong.

        Raises:
            ConfigError: always.
        """
        flag = re.search(r"unrecognized arguments: (--[^ =]+)", message)
        names = [name.removeprefix("--") for name in self._option_string_actions]
        close = difflib.get_close_matches(flag[1].removeprefix("--"), names, n=1) if flag else []
        hint = f" (did you mean --{close[0]}?)" if close else ""
        raise ConfigError(f"{message}{hint}: see {self.prog} --help")


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
