"""Configurations from YAML and flags, by jsonargparse: ``--config FILE``, ``--group.field value``.

The dataclasses are the whole declaration: the string under a field is its help, ``__post_init__`` its checks. Each
error is one line that names the file or the command line, and the field that was probably meant.
"""

import argparse
import dataclasses
import difflib
import itertools
import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser, set_parsing_settings

from training.errors import ConfigError

T = TypeVar("T")

# A file could otherwise import any module, by ``class_path``.
set_parsing_settings(
    docstring_parse_attribute_docstrings=True, import_path_denylist=["*"], import_path_allowlist=["training"]
)

RENAMED = {"model.start": "model.init_from"}
"""Names of fields before version 0.2.0 to those of today: files and flags that have them are read."""
FORM = 2
"""Form of a run's saved configuration, noted in its run.json: in the first (none noted, before version 0.3) the policy
``fixed_mass`` is what is called ``fixed_mass_softmax`` now."""
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
        "--config",
        action="config",
        help="YAML file of these fields; later files override earlier ones, flags override files.",
    )
    parser.add_class_arguments(cls, None)
    choices = {name: field.metadata.get("choices") for name, field, _ in _typed_fields(cls)}
    for action in parser._actions:
        if names := choices.get(action.dest):
            action.help = f"{(action.help or '').removesuffix('.')}: {', '.join(names)}."
    return parser


def read_config(cls: type[T], arguments: Sequence[str], command: str = "training/run.py") -> T:
    """The configuration that YAML files and flags describe.

    ``--help`` and ``--print_config`` print, and raise ``SystemExit``.

    Raises:
        ConfigError: an unknown field, a flag without a value, a missing or malformed file, a wrong type, a value out
            of range, a contradiction.
    """
    parser, ordered = config_parser(cls, command), _files_first(arguments)
    files = {text: _checked_text(Path(text), cls) for name, text in _given(ordered) if name == "config"}
    try:
        found = parser.parse_args([files.get(one.removeprefix("--config="), one) for one in ordered])
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
    for flag, text in _given(_files_first(arguments)):
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


def _files_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments with the files in front, so that a flag overrides a file wherever it stands."""
    files, flags, pending = list[str](), list[str](), list(arguments)
    while pending:
        argument = pending.pop(0)
        if argument == "--config":
            if not pending or pending[0].startswith("--"):
                raise ConfigError("--config has no value: give a YAML file")
            files.append(f"--config={pending.pop(0)}")
        else:
            name, equals, text = argument.partition("=")
            argument = (
                f"--{RENAMED.get(name[2:], name[2:])}{equals}{text}" if name.startswith("--") else argument
            )
            (files if name == "--config" else flags).append(argument)
    return [*files, *flags]


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise ConfigError(
            f"{path} {wrong}: --config takes a YAML file such as training/configs/nb_clip_demo.yaml"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of config fields, got {type(content).__name__}")
    return content


def _keep_meaning(content: dict[str, Any], path: Path) -> None:
    """Give the policies of a run's saved configuration the names that they have today, in place; see ``FORM``."""
    try:
        run = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # a file that people wrote
    if path.name != "config.yaml" or not isinstance(run, dict) or run.get("form", 1) >= FORM:
        return
    labels = content.get("soft_labels")
    entries = labels if isinstance(labels, list) else []
    for fields, name in [(content.get("policy"), "name"), *((entry, "policy") for entry in entries)]:
        if isinstance(fields, dict) and fields.get(name) == "fixed_mass":
            fields[name] = "fixed_mass_softmax"


def _typed_fields(cls: type, prefix: str = "") -> Iterator[tuple[str, "dataclasses.Field[Any]", Any]]:
    """Every field below a dataclass by its dotted name, with its type; those of groups and of lists included."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        yield prefix + field.name, field, kind
        for part in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(part):
                yield from _typed_fields(typing.cast(type, part), f"{prefix}{field.name}.")


def _checked_text(path: Path, cls: type) -> str:
    """A file's fields under today's names, as an argument; what jsonargparse would take otherwise is refused.

    That is empty values, a file in place of a group, a nested ``config``.
    """
    known = {name: kind for name, _, kind in _typed_fields(cls)}

    def check(tree: dict[str, Any], prefix: str) -> None:
        for key, value in tree.items():
            name = f"{prefix}{key}"
            kind = known.get(name)
            if dataclasses.is_dataclass(kind):
                if not isinstance(value, dict):
                    raise ConfigError(f"{path}: {name} is a group of fields: write {name}: {{field: value}}")
                check(value, f"{name}.")
            elif kind is not None and value is None and type(None) not in typing.get_args(kind):
                raise ConfigError(f"{path}: {name} is empty: give a value, or leave it out")
            elif name == "config":
                raise ConfigError(
                    f'{path}: "config" is not a config field: give several files by --config each'
                )

    content = _read_yaml(path)
    _keep_meaning(content, path)
    for old, new in RENAMED.items():
        group, _, name = old.partition(".")
        if isinstance(fields := content.get(group), dict) and name in fields:
            fields[new.partition(".")[2]] = fields.pop(name)
    check(content, "")
    return f"--config={yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}"


def _place(parser: ArgumentParser, files: Mapping[str, str]) -> str:
    """The first file that is wrong on its own, or the command line."""
    for file, text in files.items():
        try:
            parser.parse_args([text])
        except _WRONG:
            return file
    return "command line"


def _told(error: Exception, cls: type) -> str:
    """jsonargparse's message on one line, in words for people."""
    message = " ".join(str(error).split())
    keys = re.findall(r'Parser key "(.+?)": ', message)
    if unknown := _UNKNOWN.search(message):
        group = unknown["group"] or ".".join(keys)
        name = ".".join(filter(None, (group, unknown["name"] or unknown["flag"])))
        close = difflib.get_close_matches(name, [known for known, *_ in _typed_fields(cls)], n=1, cutoff=0.6)
        hint = f'did you mean "{close[0]}"?' if close else "--help lists them"
        task = getattr(cls, "task", "")
        return f'"{name}" is not a config field{f" of {task}" if task else ""} ({hint})'
    if "Expected a dot import path" in message:
        return f'{keys[0]} must be a mapping of its fields, got "{message.rpartition(": ")[2]}"'
    if "import path denylist" in message or "Subclasses are disabled" in message:
        return f"{'.'.join(keys[:1])}: class_path is not accepted: give the fields themselves"
    expected, got, value = f"{message} ".partition("Got value: ")
    if "Union subtypes" in message:
        expected, got, value = message.partition("Given value: ")
        expected = expected.partition("]")[0]
    types = [_TYPES.get(name, name) for name in re.findall(r"<class '(\w+)'>", expected)]
    if "Not a valid subclass" in message:
        types, value = ["a mapping of its fields"], value.partition(" Subclass types")[0]
    if "Unable to load config" in message:
        return f"{keys[0]} is a group of fields: write --{keys[0]}.field value"
    if got and types:
        return f'{".".join(keys)} must be {" or ".join(types)}, got "{value.strip()}"'
    return message.replace("argument --", "--", 1)
