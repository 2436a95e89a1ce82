"""Strict reading of a YAML file's content: every value is what it should be, or one line says where it is not."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from kg_targets.errors import ConfigError
from kg_targets.manifest.model import unknown_name


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that gives a key twice: YAML forbids it, and the first value would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f'"{key.value}" is given twice', key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def load(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigError: it cannot be read, is not YAML, or gives a key twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def mapping(where: str, content: Any, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """``content``, if it is a mapping with these keys and no others; so, with its own rule, each function below.

    Raises:
        ConfigError: it is not; ``where`` says what was read.
    """
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{where}: expected a mapping of names, got {type(content).__name__}")
    for key in content:
        known(where, "key", key, [*needed, *optional])
    missing = [key for key in needed if key not in content]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing")
    return dict(content)


def known(where: str, what: str, name: Any, names: Iterable[str]) -> str:
    """One of ``names``."""
    if name not in (choices := list(names)):
        raise ConfigError(f"{where}: {unknown_name(what, str(name), choices)}")
    return str(name)


def listed(where: str, content: Any) -> list[Any]:
    """A list."""
    if not isinstance(content, list):
        raise ConfigError(f"{where}: expected a list, such as [a, b]")
    return content


def names(where: str, content: Any) -> tuple[str, ...]:
    """A list of texts, each once."""
    found = tuple(text(where, name) for name in listed(where, content))
    twice = [name for name, count in Counter(found).items() if count > 1]
    if twice:
        raise ConfigError(f'{where}: "{twice[0]}" is given twice: name it once')
    return found


def text(where: str, content: Any) -> str:
    """A text that is not empty."""
    if not isinstance(content, str) or not content:
        raise ConfigError(f"{where}: expected text, got {content!r}")
    return content


def whole(where: str, content: Any) -> int:
    """A whole number."""
    if not isinstance(content, int) or isinstance(content, bool):
        raise ConfigError(f"{where}: expected a whole number, got {content!r}")
    return content


def number(where: str, content: Any) -> float:
    """A number."""
    if not isinstance(content, (int, float)) or isinstance(content, bool):
        raise ConfigError(f"{where}: expected a number, got {content!r}")
    return content


def truth(where: str, content: Any) -> bool:
    """True or false."""
    if not isinstance(content, bool):
        raise ConfigError(f'{where} must be true or false, got "{content}"')
    return content
