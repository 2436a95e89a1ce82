"""What open_clip, torch and transformers raise when a model cannot be built, told on one line."""

import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

# What open_clip lets through when a file that it takes for weights is something else; StopIteration: an empty dict.
LOAD_ERRORS = (
    pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError, AttributeError,
    AssertionError, ImportError, StopIteration, SafetensorError,
)  # fmt: skip

_SIZE = re.compile(
    r"size mismatch for (\S+): .*?torch\.Size\((\[.*?\])\).*?torch\.Size\((\[.*?\])\)", re.DOTALL
)
_MISSING = re.compile(r'Missing key\(s\) in state_dict: "([^"]+)"')
_UNEXPECTED = re.compile(r'Unexpected key\(s\) in state_dict: "([^"]+)"')


def explain(error: BaseException) -> str:
    """The reason, one line, at most about 300 characters; weights that do not fit are told by their first parameter."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            "not a file of weights; it takes .safetensors or a torch state_dict, and no other pickled object is "
            "loaded"
        )
    text = str(error)
    if isinstance(error, SafetensorError):
        return f"the .safetensors file is truncated or damaged ({_one_line(text)})"
    other = "the weights are of another architecture"
    if match := _SIZE.search(text):
        name, found, expected = match.groups()
        return f'{other}: parameter "{name}" is {found} in the file and {expected} in the model'
    if match := _MISSING.search(text):
        return f'{other}: parameter "{match.group(1)}" is missing from the file'
    if match := _UNEXPECTED.search(text):
        return f'{other}: parameter "{match.group(1)}" of the file is not in the model'
    return _one_line(text) or type(error).__name__


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No tables and bars about weights on stderr: what matters is raised.

    open_clip warns on the root logger that random weights are random, and logs there what it then raises; transformers
    reports every weight that a text tower leaves out on purpose.
    """
    root = logging.getLogger()
    noise: Any = transformers_logging  # its functions are not typed
    level, verbosity = root.level, noise.get_verbosity()
    bars = noise.is_progress_bar_enabled()
    root.setLevel(logging.CRITICAL)
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        yield
    finally:
        root.setLevel(level)
        noise.set_verbosity(verbosity)
        if bars:
            noise.enable_progress_bar()
