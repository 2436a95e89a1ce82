"""Command-line arguments whose errors are told like all others: on one line."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from training.errors import ConfigError, KGTargetsError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which raises instead of printing its usage and leaving."""

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
    """Do a command's work; its exit code: 0, 2 for a user's error, 130 when interrupted."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        work(parser.parse_args(arguments))
    except KGTargetsError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: run the same command again\n")
        return 130
    return 0
