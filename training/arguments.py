"""Configurations from YAML and flags, by jsonargparse: ``--config FILE``, ``--group.field value``; the last counts.

The dataclasses are the whole declaration: the string under a field is its help, ``__post_init__`` its checks. Each
error is one line that names the file or the command line, and the field that was probably meant.
"""

import argparse
import dataclasses
import difflib
import itertools
import re
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from training.errors import ConfigError

T = TypeVar("T")

# A file could otherwise import any module, by ``class_path``.
set_parsing_settings(
    docstring_parse_attribute_docstrings=True, import_path_denylist=["*"], import_path_allowlist=["training"]
)

_WRONG = (argparse.ArgumentError, ImportError)
"""jsonargparse raises these; the second for a ``class_path`` that is not allowed."""
_UNKNOWN = re.compile(
    r"(?:Group '(?P<group>.+)' does not accept option|Option) '(?P<name>.+?)'|arguments: --(?P<flag>[^ =]+)"
)
_TYPES = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "tuple": "a list",
          "NoneType": "null"}  # fmt: skip


def config_parser(cls: type, command: str) -> ArgumentParser:
    """jsonargparse's parser of a tree of dataclasses; it raises ``argparse.ArgumentError`` for wrong arguments.

    Args:
        cls: the dataclass; ``choices`` in a field's metadata end its help, so that a family's names stand in its
            registry alone.
        command: begins the usage.
    """
    parser = ArgumentParser(
        prog=command,
        exit_on_error=False,
        allow_abbrev=False,
        usage="%(prog)s [--config FILE] [--field VALUE ...]",
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of these fields; repeat it, later ones count."
    )
    parser.add_class_arguments(cls, None)
    options = {action.dest: action for action in parser._actions}
    for name, field in _fields(cls):
        if "choices" in field.metadata and name in options:
            options[
                name
            ].help = (
                f"{(options[name].help or '').removesuffix('.')}: {', '.join(field.metadata['choices'])}."
            )
    return parser


def read_config(cls: type[T], arguments: Sequence[str], command: str = "training/run.py") -> T:
    """The configuration that YAML files and flags describe.

    ``--help`` and ``--print_config`` print, and raise ``SystemExit``.

    Raises:
        ConfigError: an unknown field, a flag without a value, a missing or malformed file, a wrong type, a value out
            of range, a contradiction.
    """
    parser = config_parser(cls, command)
    files = [Path(text) for name, text in _given(arguments) if name == "config"]
    for file in files:
        _read_yaml(file)
    try:
        found = parser.parse_args(list(arguments))
        _check_groups(cls, found)
        made = parser.instantiate(found).as_dict()
    except _WRONG as error:
        raise ConfigError(f"{_place(parser, files)}: {_told(error, cls)}") from error
    return cls(**{field.name: made[field.name] for field in dataclasses.fields(cls)})  # type: ignore[arg-type]


def last_given(name: str, arguments: Sequence[str]) -> Any:
    """The last value that flags and YAML files give one field outside the groups, whatever else they say; or None.

    For the field that decides which class ``read_config`` needs.

    Raises:
        ConfigError: a missing or malformed YAML file.
    """
    value = None
    for flag, text in _given(arguments):
        if flag == "config":
            value = _read_yaml(Path(text)).get(name, value)
        elif flag == name:
            value = text
    return value


def to_yaml(config: Any) -> str:
    """The resolved config as YAML, fields in the order of their definition."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A configuration's values by dotted name, as trackers take them."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each ``--name text`` and ``--name=text``."""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, text = argument.partition("=")
        if name.startswith("--"):
            yield name[2:], text if equals else following


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"{path} does not exist: --config takes a YAML file such as training/configs/nb_clip_demo.yaml"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of config fields, got {type(content).__name__}")
    return content


def _fields(cls: type, prefix: str = "") -> Iterator[tuple[str, "dataclasses.Field[Any]"]]:
    """Every field below a dataclass by its dotted name, those of groups and of lists of dataclasses included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield prefix + field.name, field
        for kind in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(kind):
                yield from _fields(typing.cast(type, kind), f"{prefix}{field.name}.")


def _check_groups(cls: type, found: Namespace) -> None:
    """Refuse a value in the place of a group of fields."""
    for name, kind in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind) and not isinstance(found[name], Namespace):
            raise ConfigError(f"{name} is a group of fields: write --{name}.field value")


def _place(parser: ArgumentParser, files: Sequence[Path]) -> str:
    """The first file that is wrong on its own, or the command line."""
    for file in files:
        try:
            parser.parse_path(file)
        except _WRONG:
            return str(file)
    return "command line"


def _told(error: Exception, cls: type) -> str:
    """jsonargparse's message on one line, in words for people."""
    message = " ".join(str(error).split())
    keys = re.findall(r'Parser key "(.+?)": ', message)
    if unknown := _UNKNOWN.search(message):
        group = unknown["group"] or ".".join(keys)
        name = ".".join(filter(None, (group, unknown["name"] or unknown["flag"])))
        close = difflib.get_close_matches(name, [known for known, _ in _fields(cls)], n=1, cutoff=0.6)
        hint = f'did you mean "{close[0]}"?' if close else "--help lists them"
        return f'"{name}" is not a config field ({hint})'
    expected, got, value = message.partition("Got value: ")
    if "Union subtypes" in message:
        expected, got, value = message.partition("Given value: ")
        expected = expected.partition("]")[0]
    types = [_TYPES.get(name, name) for name in re.findall(r"<class '(\w+)'>", expected)]
    if "Not a valid subclass" in message:
        types, value = ["a mapping of its fields"], value.partition(" Subclass types")[0]
    if "Expected a dot import path" in message:
        got, types, value = "got", ["a mapping of its fields"], message.rpartition(": ")[2]
    if "Unable to load config" in message:
        return f"{keys[0]} is a group of fields: write --{keys[0]}.field value"
    if got and types:
        return f'{".".join(keys)} must be {" or ".join(types)}, got "{value}"'
    return message.replace("argument --", "--", 1)
