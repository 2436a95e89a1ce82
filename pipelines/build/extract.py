"""Stage one: a split's records, shard by shard, become mentions on disk and asserted concepts for the caller."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

import kg_targets
from kg_targets.concepts import EXTRACTORS, Extractor, Mention, StopList
from kg_targets.concepts.annotate import named_extractor
from kg_targets.concepts.languages import ENGLISH, language
from kg_targets.concepts.mention import reading_order
from kg_targets.errors import ConfigError, DataError
from kg_targets.manifest import ExcludedCases, Manifest, ReadReport, Record
from kg_targets.ontology import Ontology
from kg_targets.store import schema
from kg_targets.store.digest import file_sha256, shuffle_key
from pipelines.build.options import parse_options

_DICTIONARIES = ("dictionary", "union")
KINDS = frozenset((
    "contrast", "device", "finding", "laterality", "modality", "organ", "plane", "procedure", "qualifier", "region",
    "sequence", "view",
))  # fmt: skip
"""Kinds of concepts; see docs/seed-ontology.md."""


@dataclass
class Split:
    """One split of a data set, as a build reads it."""

    manifest: Manifest
    name: str
    root: Path
    licences: frozenset[str] | None
    """Licences of the rows that are kept; None keeps all."""
    excluded: ExcludedCases | None = None
    read: ReadReport = field(default_factory=ReadReport)
    """Counts and problems of reading."""

    def chunks(self, size: int) -> Iterator[list[Record]]:
        """The records, ``size`` at a time."""
        left_out = self.excluded.cases if self.excluded else frozenset[str]()
        records = self.manifest.records(self.name, self.root, self.read, self.licences, left_out)
        while chunk := list(islice(records, size)):
            yield chunk

    def check_read(self) -> None:
        """Once all chunks are read.

        Raises:
            DataError: there was no usable row.
        """
        if not self.read.read:
            source = self.manifest.split_file(self.name, self.root)
            reasons = "; ".join(self.read.lines()[:3])
            raise DataError(f"{source} has no usable row: a store needs at least one caption. {reasons}")

    def inputs(self) -> dict[str, Any]:
        """The data set's part of what a store's content follows from."""
        digest = self.manifest.split_digest(self.name, self.root)
        return {"captions_sha256": digest, **(self.excluded.inputs() if self.excluded else {})}

    def metadata(self) -> dict[str, Any]:
        """Description of the data set for the store's manifest."""
        return {
            "dataset": self.manifest.name,
            "split": self.name,
            "licence": self.manifest.licence,
            "code_version": kg_targets.__version__,
            "skipped_rows": self.read.skipped,
            **(self.excluded.metadata(self.read) if self.excluded else {}),
        }


@dataclass(frozen=True)
class ShardInput:
    """A run of records, in the order of the data set."""

    index: int
    records: list[Record]
    folder: Path
    """Folder of the shard's files."""


@dataclass(frozen=True)
class ShardResult:
    """The small part of a shard's result; everything bulky is on disk."""

    index: int
    image_ids: list[str]
    group_ids: list[str]
    cuis: list[list[str]]
    """For each image, the CUIs its caption asserts, ascending."""
    uncertain: list[set[str]]
    """For each image, those of them that the caption only holds possible."""
    provided: int
    """CUIs that the data set ships for these images."""
    mentions: int
    labels: tuple[str, ...]
    """Names of the labels that these rows have; other shards may have others."""
    retired_cuis: Counter[str]
    """Shipped CUIs that UMLS has retired and the ontology follows to their successors."""
    unknown_cuis: Counter[str]
    """CUIs found or shipped that the ontology does not have; they stand alone in the graph or stay out of it."""
    languages: Counter[str]
    """Captions that are surely not English, by language; empty if nobody asked."""


_prepared: tuple[object, ...] = ()
_extractor: Extractor
_ontology: Ontology
_keep_unknown: bool
_drop_uncertain: bool
_dropped: tuple[float, int]
_languages: str


def initialise(
    name: str,
    options: str,
    ontology: Ontology,
    keep_unknown: bool,
    drop_uncertain: bool,
    dropped: tuple[float, int] = (0.0, 0),
    languages: str = "",
) -> None:
    """Prepare this process: build the extractor once, for all the shards and splits it will see.

    Args:
        dropped: share of the mentions to leave out at random, and the seed.
        languages: as in ``BuildConfig``.
    """
    global _prepared, _extractor, _ontology, _keep_unknown, _drop_uncertain, _dropped, _languages
    _languages = languages
    _ontology, _keep_unknown, _drop_uncertain, _dropped = ontology, keep_unknown, drop_uncertain, dropped
    wanted = (name, options, option_file_digests(options), ontology.fingerprint)
    if _prepared != wanted:
        _extractor, _prepared = make_extractor(name, ontology, options), wanted


def extract_shard(shard: ShardInput) -> ShardResult:
    """Write the mentions and the staged rows of one shard."""
    captions = [record.caption for record in shard.records]
    found = _extractor.extract(captions, [record.cuis for record in shard.records])
    spoken = [language(caption) for caption in captions] if _languages else [ENGLISH] * len(captions)
    if _languages == "drop":
        found = [
            mentions if code == ENGLISH else [mention for mention in mentions if not mention.located]
            for mentions, code in zip(found, spoken, strict=True)
        ]
    found = [_placed(mentions, record) for mentions, record in zip(found, shard.records, strict=True)]
    if _dropped[0]:
        found = [_left(mentions, record) for mentions, record in zip(found, shard.records, strict=True)]
    unknown: Counter[str] = Counter()
    cuis = [_asserted(mentions, unknown) for mentions in found]
    schema.write_parquet(
        _mention_table(shard.records, found), str(shard.folder / schema.part(schema.MENTIONS, shard.index))
    )
    provided = [cui for record in shard.records for cui in record.cuis]
    rows = row_table(shard.records)
    schema.write_parquet(rows, str(shard.folder / staged_file(shard.index)))
    return ShardResult(
        index=shard.index,
        image_ids=[record.image_id for record in shard.records],
        group_ids=[record.group_id for record in shard.records],
        cuis=[asserted for asserted, _ in cuis],
        uncertain=[uncertain for _, uncertain in cuis],
        provided=len(provided),
        mentions=sum(len(mentions) for mentions in found),
        labels=label_names(rows),
        retired_cuis=Counter(cui for cui in provided if _ontology.current(cui) != cui),
        unknown_cuis=unknown,
        languages=Counter(code for code in spoken if code != ENGLISH),
    )


def staged_file(index: int) -> str:
    """Name of a shard's records between the two stages; removed before the store is shown."""
    return f"staged-{index:05d}{schema.SUFFIX}"


def _placed(mentions: list[Mention], record: Record) -> list[Mention]:
    """The mentions, shipped CUIs at the places in the caption that the data set gives for them."""
    places = {cui: place for cui, place in zip(record.cuis, record.places, strict=False) if place[0] >= 0}
    if not places:
        return mentions
    moved = []
    for mention in mentions:
        if not mention.located and mention.cui in places:
            start, end = places[mention.cui]
            mention = mention._replace(start=start, end=end, text=record.caption[start:end])
        moved.append(mention)
    return sorted(moved, key=reading_order)


def _left(mentions: list[Mention], record: Record) -> list[Mention]:
    """The mentions that a coin spares, which falls the same way whatever the shard and the number of workers."""
    share, seed = _dropped
    keys = (shuffle_key(seed, record.image_id, mention.start, mention.cui) for mention in mentions)
    coins = (int.from_bytes(key[:8], "big") / 2**64 for key in keys)
    return [mention for mention, coin in zip(mentions, coins, strict=True) if coin >= share]


def _asserted(mentions: list[Mention], unknown: Counter[str]) -> tuple[list[str], set[str]]:
    """The CUIs that a caption asserts, and those of them that it only holds possible."""
    stated = {mention.cui for mention in mentions if mention.stated}
    asserted = stated if _drop_uncertain else {mention.cui for mention in mentions if mention.asserted}
    missing = {cui for cui in asserted if cui not in _ontology}
    unknown.update(missing)
    kept = asserted if _keep_unknown else asserted - missing
    return sorted(kept), kept - stated


def _mention_table(records: list[Record], found: list[list[Mention]]) -> pa.Table:
    rows = [
        {"image_id": record.image_id, **mention._asdict()}
        for record, mentions in zip(records, found, strict=True)
        for mention in mentions
    ]
    return pa.Table.from_pylist(rows, schema=schema.MENTION_COLUMNS)


def label_names(rows: pa.Table) -> tuple[str, ...]:
    """The data set's labels, by the columns that `row_table` makes of them."""
    return tuple(name.removeprefix("label_") for name in rows.column_names if name.startswith("label_"))


def row_table(records: list[Record]) -> pa.Table:
    """The columns of the table ``targets`` that come from the data set, all text."""
    labels = list(dict.fromkeys(name for record in records for name in record.labels))
    columns = {
        name: [getattr(record, name) for record in records]
        for name in ("image_id", "image_path", "caption", "group_id", "licence")
    }
    columns |= {f"label_{name}": [record.labels.get(name, "") for record in records] for name in labels}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


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
    """sha256 of every file that an option names, by option: a stop list or knowledge base that changes counts."""
    named = {key: Path(value) for key, value in parse_options(options).items() if isinstance(value, str)}
    return {key: file_sha256(path) for key, path in named.items() if path.is_file()}
