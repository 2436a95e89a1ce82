"""The extractor that a build asks for, with the options given on the command line."""

from pathlib import Path
from typing import Any

import yaml

from kg_targets.concepts import EXTRACTORS, Extractor, StopList
from kg_targets.digest import file_sha256
from kg_targets.errors import ConfigError
from kg_targets.ontology import Ontology

_DICTIONARIES = ("dictionary", "union")
KINDS = frozenset(
    (
        "contrast",
        "device",
        "finding",
        "laterality",
        "modality",
        "organ",
        "plane",
        "procedure",
        "qualifier",
        "region",
        "sequence",
        "view",
    )
)
"""What a concept may be; see docs/seed-ontology.md."""


def make_extractor(name: str, ontology: Ontology, options: str = "") -> Extractor:
    """The extractor of that name as builds use it.

    Args:
        options: ``key=value`` pairs separated by commas; several values of one key are joined by ``|``
            (``kinds=finding|organ``, ``stop_list=mine.tsv``, ``model=en_core_sci_sm,threshold=0.95``).

    Raises:
        ConfigError: no extractor has that name, or it has no such option.
        ExtractionError: it needs something that is not there.
    """
    if name not in EXTRACTORS:
        raise ConfigError(f"--extractor {name} is not one of {', '.join(sorted(EXTRACTORS))}")
    chosen = parse_options(options)
    if "stop_list" in chosen:
        chosen["stop_list"] = StopList.shipped() | StopList.read(str(chosen["stop_list"]))
    if name in _DICTIONARIES:
        unknown = set(chosen.get("kinds", ())) - KINDS
        if unknown:
            raise ConfigError(
                f"--extractor-options: kinds={sorted(unknown)[0]} is not one of {', '.join(sorted(KINDS))}"
            )
        # Disease ontologies have a short abbreviation for everything ("SMA"): only the seed's own count by themselves.
        chosen.setdefault("trusted", frozenset(Ontology.seed().cuis))
    if name == "provided" and set(chosen) - {"stop_list"}:
        raise ConfigError(
            f"--extractor-options {options!r} do not fit --extractor provided: it has only stop_list"
        )
    try:
        return EXTRACTORS[name](ontology, chosen)
    except TypeError as error:
        reason = str(error).rpartition("() ")[2]
        raise ConfigError(
            f"--extractor-options {options!r} do not fit --extractor {name}: {reason}"
        ) from error


def option_file_digests(options: str) -> dict[str, str]:
    """sha256 of every file that an option names, by option: a stop list or knowledge base that changes counts."""
    named = {key: Path(value) for key, value in parse_options(options).items() if isinstance(value, str)}
    return {key: file_sha256(path) for key, path in named.items() if path.is_file()}


def parse_options(text: str) -> dict[str, Any]:
    """``"kinds=finding|organ,threshold=0.9"`` → ``{"kinds": ["finding", "organ"], "threshold": 0.9}``.

    Raises:
        ConfigError: a part is not ``key=value``.
    """
    result: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier():
            raise ConfigError(f"--extractor-options: {part!r} is not key=value")
        lists = key in ("kinds", "semantic_types", "trusted")
        result[key] = value.split("|") if lists else yaml.safe_load(value)
    return result
