"""Command-line arguments whose errors are told like all others: on one line."""

import argparse
from typing import NoReturn

from training.errors import ConfigError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which raises instead of printing its usage and leaving."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse with what is wrong.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{' '.join(message.split())} (--help lists the options)")
