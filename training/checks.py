"""Range checks of configuration fields: what is wrong, named by the field as the user writes it."""

import difflib

from training.errors import ConfigError


def within(name: str, value: float, low: float, high: float | None) -> None:
    """Refuse a number outside [low, high] (NaN included); no upper bound if ``high`` is None.

    Raises:
        ConfigError: it is outside.
    """
    if not value >= low or (high is not None and not value <= high):
        upper = "" if high is None else f" and at most {high:g}"
        raise ConfigError(f"{name}: {value} must be at least {low:g}{upper}")


def all_within(prefix: str, config: object, **bounds: tuple[float, float | None]) -> None:
    """``within`` for fields of a configuration, or with the prefix ``--`` for options; null is in every range.

    Raises:
        ConfigError: one is outside.
    """
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if value is not None:
            within(prefix + (name.replace("_", "-") if prefix == "--" else name), value, low, high)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of ``choices``.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f' (did you mean "{close[0]}"?)' if close else ""
        raise ConfigError(f'{name}: "{value}" is not one of {", ".join(choices)}{hint}')


def given(name: str, value: str) -> None:
    """Refuse a required field that is empty.

    Raises:
        ConfigError: it is.
    """
    if not value:
        raise ConfigError(f"{name} is not set: give it in the YAML file or as --{name} PATH")
