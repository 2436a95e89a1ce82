"""Options of extractors and scorers, written as key=value pairs separated by commas."""

import dataclasses
import difflib
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from kg_targets.errors import ConfigError

_LISTS = ("kinds", "semantic_types", "trusted")


def parse_options(text: str, option: str = "--extractor-options") -> dict[str, Any]:
    """``"kinds=finding|organ,threshold=0.9"`` → ``{"kinds": ["finding", "organ"], "threshold": 0.9}``.

    Args:
        text: the pairs.
        option: named in messages.

    Raises:
        ConfigError: a part is not ``key=value``.
    """
    result: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"{option}: {part!r} is not key=value")
        try:
            result[key] = value.split("|") if key in _LISTS else yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError(f"{option}: the value of {part!r} cannot be read: {_line(error)}") from error
    return result


def scorer_settings(scorer: str, settings: type | None, text: str) -> Any:
    """The scorer's settings as ``--scorer-options`` has them; None for a scorer that has none.

    Args:
        scorer: its name, for messages.
        settings: its frozen dataclass, see ``scoring.SETTINGS``.
        text: the pairs.

    Raises:
        ConfigError: an option is unknown, or its value is not as it must be.
    """
    option = "--scorer-options"
    given = parse_options(text, option)
    if settings is None:
        if given:
            raise ConfigError(f"{option}: the {scorer} scorer has no options, drop {', '.join(given)}")
        return None
    names = [field.name for field in dataclasses.fields(settings)]
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ConfigError(f"{option}: {key} is not one of {', '.join(names)}{hint}")
    try:
        return TypeAdapter(settings).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{option}: {where}: {first['msg']}; got {given.get(where)!r}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
