"""Command-line arguments whose errors are told like all others: on one line."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from training.errors import ConfigError, KGTargetsError

BROKEN_PIPE = 141
"""128 + SIGPIPE, as other programs exit whose reader has gone."""


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which raises instead of printing its usage and leaving, and keeps a description's lines."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{' '.join(message.split())} (--help lists the options)")


def answer(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Do a command's work; its exit code: 0, 2 for a user's error, 130 when interrupted, 141 when nobody reads on."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        work(parser.parse_args(arguments))
        sys.stdout.flush()
    except KGTargetsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: run the same command again\n")
        return 130
    except BrokenPipeError:
        # Python flushes once more when it ends, and would print a traceback then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return 0
