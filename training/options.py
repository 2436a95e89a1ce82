"""Command line and YAML to a tree of frozen dataclasses, strictly: an unknown key is an error on one line.

Why not a library: the config's field docs are its ``--help``, errors must fit on one line, and ``training``
must run where only torch, transformers and accelerate are installed.
"""

import ast
import dataclasses
import difflib
import inspect
import itertools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from training.errors import ConfigError

T = TypeVar("T")
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Option:
    """A leaf of the config tree: dotted name, type, default and documentation."""

    name: str
    kind: Any
    default: Any
    doc: str


def leaves(cls: type, prefix: str = "") -> Iterator[Option]:
    """All leaf fields below ``cls``, depth first, in the order of their definition.

    The metadata ``choices`` of a field end its documentation, so that a family's names stand in its registry alone.
    """
    docs = field_docs(cls)
    hints = typing.get_type_hints(cls)
    for entry in dataclasses.fields(cls):
        name = prefix + entry.name
        if dataclasses.is_dataclass(hints[entry.name]):
            yield from leaves(typing.cast(type, hints[entry.name]), name + ".")
        else:
            doc = docs.get(entry.name, "")
            if "choices" in entry.metadata:
                doc = f"{doc.removesuffix('.')}: {', '.join(entry.metadata['choices'])}."
            yield Option(name, hints[entry.name], entry.default, doc)


def field_docs(cls: type) -> dict[str, str]:
    """The string literal under each field of a dataclass and of those it derives from, read from their source."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if base is not object:
            docs |= _own_docs(base)
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body
    docs: dict[str, str] = {}
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for statement, following in itertools.pairwise(body):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = str(following.value.value)
    return docs


def help_text(cls: type, command: str) -> str:
    """Usage and every field with its meaning, unit and default."""
    lines = [f"usage: {command} --config FILE.yaml [--field value ...] [--print_config]", ""]
    for option in leaves(cls):
        default = "required" if option.default == "" else f"default {_scalar_text(option.default)}"
        lines += [f"  --{option.name} {_kind_name(option.kind)}   ({default})", f"      {option.doc}"]
        element = _element(option.kind)
        for part in leaves(element) if element else ():
            default = _scalar_text(part.default)
            lines += [
                f"        {part.name} {_kind_name(part.kind)}   (default {default})",
                f"            {part.doc}",
            ]
    return "\n".join(lines)


def read_options(cls: type, arguments: Sequence[str]) -> Tree:
    """Overlay the YAML files named by ``--config`` and the flags, in the order given, into one nested dict.

    Raises:
        ConfigError: an unknown field, a flag without a value, a missing or malformed YAML file, a wrong type.
    """
    known = {option.name: option for option in leaves(cls)}
    tree: Tree = {}
    for name, text in _flags(arguments):
        if name == "config":
            for key, value in _flatten(_read_yaml(Path(text)), known):
                _put(tree, key, _coerce(_known(known, key, text), value, text))
        else:
            option = _known(known, name, "command line")
            value = _parse_flag(option, text)
            _put(tree, name, _coerce(option, value, "command line"))
    return tree


def last_given(name: str, arguments: Sequence[str]) -> Any:
    """The last value that flags and YAML files give one field outside the groups, whatever else they say; or None.

    For the field that decides which class ``read_options`` needs.

    Raises:
        ConfigError: a flag without a value, a missing or malformed YAML file.
    """
    value = None
    for flag, text in _flags(arguments):
        if flag == "config":
            value = _read_yaml(Path(text)).get(name, value)
        elif flag == name:
            value = text
    return value


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and value of each option."""
    pending = list(arguments)
    while pending:
        flag = pending.pop(0)
        if not flag.startswith("--"):
            raise ConfigError(f'"{flag}" is not an option: write --field value')
        name, equals, text = flag[2:].partition("=")
        if not equals:
            if not pending:
                raise ConfigError(f"--{name} has no value")
            text = pending.pop(0)
        yield name, text


def build(cls: type[T], tree: Mapping[str, Any]) -> T:
    """The dataclass tree from nested dicts; its own ``__post_init__`` checks ranges and contradictions."""
    hints = typing.get_type_hints(cls)
    arguments = {}
    for name, value in tree.items():
        kind = hints[name]
        arguments[name] = build(typing.cast(type, kind), value) if dataclasses.is_dataclass(kind) else value
    for entry in dataclasses.fields(cls):  # type: ignore[arg-type]
        if dataclasses.is_dataclass(hints[entry.name]) and entry.name not in arguments:
            arguments[entry.name] = build(typing.cast(type, hints[entry.name]), {})
    return cls(**arguments)


def to_yaml(config: Any) -> str:
    """The resolved config as YAML, fields in the order of their definition."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> Tree:
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


def _flatten(tree: Tree, known: Mapping[str, Option], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        is_group = any(other.startswith(name + ".") for other in known)
        if is_group and isinstance(value, dict):
            yield from _flatten(value, known, name + ".")
        else:
            yield name, value


def _known(known: Mapping[str, Option], name: str, where: str) -> Option:
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f' (did you mean "{close[0]}"?)' if close else " (--help lists them)"
    raise ConfigError(f'{where}: "{name}" is not a config field{hint}')


def _put(tree: Tree, name: str, value: Any) -> None:
    *groups, leaf = name.split(".")
    for group in groups:
        tree = tree.setdefault(group, {})
    tree[leaf] = value


def _parse_flag(option: Option, text: str) -> Any:
    if option.kind is str or (str in typing.get_args(option.kind) and text != "null"):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f'--{option.name}: cannot read "{text}"') from error


def _element(kind: Any) -> type | None:
    """The dataclass of which a field of type ``tuple[X, ...]`` holds any number."""
    first, *_ = typing.get_args(kind) or (None,)
    return first if typing.get_origin(kind) is tuple and dataclasses.is_dataclass(first) else None  # type: ignore[return-value]


def _coerce_list(option: Option, element: type, value: Any, where: str) -> tuple[Any, ...]:
    """A YAML list of mappings as a tuple of dataclasses."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise ConfigError(f'{where}: {option.name} must be {_kind_name(option.kind)}, got "{value}"')
    known = {leaf.name: leaf for leaf in leaves(element, f"{option.name}.")}
    made: list[Any] = []
    for entry in value:
        arguments = {}
        for key, part in entry.items():
            leaf = _known(known, f"{option.name}.{key}", where)
            arguments[str(key)] = _coerce(leaf, part, where)
        made.append(build(element, arguments))
    return tuple(made)


def _coerce(option: Option, value: Any, where: str) -> Any:
    element = _element(option.kind)
    if element is not None:
        return _coerce_list(option, element, value, where)
    kinds = typing.get_args(option.kind) if isinstance(option.kind, types.UnionType) else (option.kind,)
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind is bool and isinstance(value, bool):
            return value
        if kind is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if kind is float and not isinstance(value, bool):
            # YAML 1.1 reads "1e-3" as a string: accept what Python calls a number.
            try:
                return float(value)
            except (TypeError, ValueError):
                continue
        if kind is str and isinstance(value, str):
            return value
    raise ConfigError(f'{where}: {option.name} must be {_kind_name(option.kind)}, got "{value}"')


def _kind_name(kind: Any) -> str:
    element = _element(kind)
    if element is not None:
        return f"list of {{{', '.join(leaf.name for leaf in leaves(element))}}}"
    if isinstance(kind, types.UnionType):
        return " or ".join(_kind_name(part) for part in typing.get_args(kind))
    return {type(None): "null", int: "integer", float: "number", str: "text", bool: "true/false"}.get(
        kind, str(kind)
    )


def _scalar_text(value: Any) -> str:
    if value == ():
        return "none"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def flat(tree: Tree, prefix: str = "") -> Tree:
    """A configuration's values by dotted name, as trackers take them."""
    found: Tree = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
