"""Extractors by their names and options, as commands give them."""

from pathlib import Path

from kg_targets.concepts import EXTRACTORS, Extractor, StopList
from kg_targets.concepts.annotate import named_extractor
from kg_targets.errors import ConfigError
from kg_targets.ontology import Ontology
from kg_targets.store.digest import file_sha256
from pipelines.build.options import parse_options

_DICTIONARIES = ("dictionary", "union")
KINDS = frozenset((
    "contrast", "device", "finding", "laterality", "modality", "organ", "plane", "procedure", "qualifier", "region",
    "sequence", "view",
))  # fmt: skip
"""Kinds of concepts; see docs/seed-ontology.md."""


def check_extractor(name: str, options: str = "") -> None:
    """Refuse what can be told to be missing without an ontology, before one is read.

    Raises:
        ConfigError: no extractor has that name, or an option is not ``key=value``.
        ExtractionError: a package, a model or a file that it needs is not there.
    """
    if name not in EXTRACTORS:
        raise ConfigError(f"--extractor {name} is not one of {', '.join(sorted(EXTRACTORS))}")
    chosen = parse_options(options)
    if name == "scispacy":
        from kg_targets.concepts.scispacy import check_installed

        check_installed(**chosen)


def make_extractor(name: str, ontology: Ontology, options: str = "") -> Extractor:
    """The extractor of that name as builds use it.

    Args:
        options: ``key=value`` pairs separated by commas; several values of one key are joined by ``|``
            (``kinds=finding|organ``, ``stop_list=mine.tsv``, ``model=en_core_sci_sm,threshold=0.95``).

    Raises:
        ConfigError: no extractor has that name, or it has no such option.
        ExtractionError: it needs something that is not there.
    """
    check_extractor(name, options)
    chosen = parse_options(options)
    if "stop_list" in chosen:
        chosen["stop_list"] = StopList.shipped() | StopList.read(str(chosen["stop_list"]))
    if name in _DICTIONARIES:
        unknown = set(chosen.get("kinds", ())) - KINDS
        if unknown:
            raise ConfigError(
                f"--extractor-options: kinds={sorted(unknown)[0]} is not one of {', '.join(sorted(KINDS))}"
            )
    if name == "provided" and set(chosen) - {"stop_list"}:
        raise ConfigError(
            f"--extractor-options {options!r} do not fit --extractor provided: it has only stop_list"
        )
    try:
        return named_extractor(name, ontology, **chosen)
    except TypeError as error:
        reason = str(error).rpartition("() ")[2]
        raise ConfigError(
            f"--extractor-options {options!r} do not fit --extractor {name}: {reason}"
        ) from error


def option_file_digests(options: str) -> dict[str, str]:
    """sha256 of every file that an option names, by option: a stop list or knowledge base that changes counts.

    Of a folder, such as a linker's, each file in it, as ``option/file``.
    """
    named = {key: Path(value) for key, value in parse_options(options).items() if isinstance(value, str)}
    within = {
        f"{key}/{path.name}": path
        for key, folder in named.items()
        if folder.is_dir()
        for path in sorted(folder.iterdir())
    }
    return {key: file_sha256(path) for key, path in (named | within).items() if path.is_file()}
