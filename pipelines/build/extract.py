"""Stage one: a split's records, part by part, become mentions on disk and asserted concepts for the caller."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kg_targets.concepts import Extractor, Mention, languages
from kg_targets.concepts.languages import ENGLISH, language
from kg_targets.concepts.mention import reading_order
from kg_targets.errors import DataError, KGTargetsError
from kg_targets.graph import Assertions
from kg_targets.manifest import ReadReport, Record
from kg_targets.ontology import Ontology
from kg_targets.scoring.neighbors import id_angles
from kg_targets.store import schema
from kg_targets.store.digest import key64, shuffle_key
from pipelines.build.cluster import map_on_cluster
from pipelines.build.config import RAY, BuildConfig
from pipelines.build.executors import Say, bar, map_in_order
from pipelines.build.extractors import make_extractor, option_file_digests
from pipelines.build.split import Part, Split, row_table


@dataclass(frozen=True)
class PartInput:
    """A run of records, in the order of the data set."""

    index: int
    part: Part
    folder: Path
    """Folder of the files that are written."""


@dataclass(frozen=True)
class PartResult:
    """The small part of a result, in arrays; everything bulky is on disk."""

    index: int
    rows: int
    asserted: Assertions
    """The CUIs that each image's caption asserts."""
    ids: NDArray[np.uint64]
    """Digest of every image id that was read, also of rows left out; empty where ids are checked while reading."""
    angles: NDArray[np.float64]
    """Of the images, for ties between neighbours, [rows, 2]."""
    cases: NDArray[np.uint64]
    """Digest of each image's case."""
    mentions: NDArray[np.int32]
    """Number of mentions of each image."""
    read: ReadReport | None
    """Counts of reading; None where the caller has read."""
    provided: int
    """CUIs that the data set ships for these images."""
    labels: tuple[str, ...]
    """Names of the labels that these rows have; other parts may have others."""
    retired_cuis: Counter[str]
    """Shipped CUIs that UMLS has retired and the ontology follows to their successors."""
    unknown_cuis: Counter[str]
    """CUIs found or shipped that the ontology does not have; they stand alone in the graph or stay out of it."""
    languages: Counter[str]
    """Captions that are surely not English, by language; empty if nobody asked."""


_prepared: tuple[object, ...] = ()
_extractor: Extractor
_ontology: Ontology
_split: Split
_keep_unknown: bool
_drop_uncertain: bool
_dropped: tuple[float, int]
_languages: str


def initialise(
    split: Split,
    name: str,
    options: str,
    ontology: Ontology,
    keep_unknown: bool,
    drop_uncertain: bool,
    dropped: tuple[float, int] = (0.0, 0),
    languages: str = "",
) -> None:
    """Prepare this process: build the extractor once, for all the parts and splits it will see.

    Args:
        dropped: share of the mentions to leave out at random, and the seed.
        languages: as in ``BuildConfig``.
    """
    global _prepared, _extractor, _ontology, _split, _keep_unknown, _drop_uncertain, _dropped, _languages
    _split, _languages = split, languages
    _ontology, _keep_unknown, _drop_uncertain, _dropped = ontology, keep_unknown, drop_uncertain, dropped
    wanted = (name, options, option_file_digests(options), ontology.fingerprint)
    if _prepared != wanted:
        _extractor, _prepared = make_extractor(name, ontology, options), wanted


def extract_split(
    config: BuildConfig, split: Split, ontology: Ontology, folder: Path, say: Say
) -> list[PartResult]:
    """Captions → concepts, by the executor that was chosen; mentions and rows are written into ``folder``."""
    if config.languages:
        languages.load()  # what is missing is said here, not in a worker
    runs = split.parts(config.rows_per_shard, config.worker_count)
    items = (PartInput(index, run, folder) for index, run in enumerate(runs))
    prepare = (
        split,
        config.extractor,
        config.extractor_options,
        ontology,
        config.keep_unknown_cuis,
        config.uncertain == "drop",
        (config.drop_mentions, config.seed),
        config.languages,
    )
    workers = config.worker_count
    if config.executor == RAY:
        results = map_on_cluster(extract_part, items, config.ray_address, workers, initialise, prepare, say)
    else:
        results = map_in_order(extract_part, items, workers, initialise, prepare)
    expected = split.manifest.split_spec(split.name, split.root).expected_rows
    total = None if expected is None else -(-expected // config.rows_per_shard)
    try:
        parts = list(bar(total, f"{split.name}: captions → concepts", " shard", results))
    except KGTargetsError:
        if split.reader is not None:
            split.check_from_the_front()  # which meets what comes first in the file
        raise
    for each in parts:
        if each.read is not None:
            split.read.add(each.read)
    ids = np.sort(np.concatenate([each.ids for each in parts])) if parts else np.zeros(0)
    if (ids[1:] == ids[:-1]).any():
        split.check_from_the_front()
    for line in split.read.lines():
        say(f"{split.name}: {line}")
    split.check_read()
    if config.extractor == "provided" and not any(each.provided for each in parts):
        raise DataError(
            f"{split.manifest.name}/{split.name} ships no CUIs: use --extractor dictionary or union"
        )
    return parts


def extract_part(given: PartInput) -> PartResult:
    """Write the mentions and the staged rows of one part."""
    records, read, ids = _split.read_part(given.part)
    captions = [record.caption for record in records]
    found = _extractor.extract(captions, [record.cuis for record in records])
    spoken = [language(caption) for caption in captions] if _languages else [ENGLISH] * len(captions)
    if _languages == "drop":
        found = [
            mentions if code == ENGLISH else [mention for mention in mentions if not mention.located]
            for mentions, code in zip(found, spoken, strict=True)
        ]
    found = [_placed(mentions, record) for mentions, record in zip(found, records, strict=True)]
    if _dropped[0]:
        found = [_left(mentions, record) for mentions, record in zip(found, records, strict=True)]
    mentions = _mention_table(records, found)
    schema.write_parquet(mentions, str(given.folder / staged_mentions(given.index)))
    counts = np.array([len(each) for each in found], dtype=np.int32)
    asserted, unknown = _asserted(mentions, counts)
    rows = row_table(records)
    listed = rows.append_column("cuis", asserted.listed())
    schema.write_parquet(listed, str(given.folder / staged_rows(given.index)))
    provided = [cui for record in records for cui in record.cuis]
    return PartResult(
        index=given.index,
        rows=len(records),
        asserted=asserted,
        ids=key64(ids),
        angles=id_angles([record.image_id for record in records]),
        cases=key64([record.group_id for record in records]),
        mentions=counts,
        read=read,
        provided=len(provided),
        labels=label_names(rows),
        retired_cuis=Counter(cui for cui in provided if _ontology.current(cui) != cui),
        unknown_cuis=unknown,
        languages=Counter(code for code in spoken if code != ENGLISH),
    )


def staged_rows(index: int) -> str:
    """Name of a part's rows between the stages; removed before the store is shown."""
    return f"staged-{index:05d}{schema.SUFFIX}"


def staged_mentions(index: int) -> str:
    """Name of a part's mentions between the stages."""
    return f"staged-mentions-{index:05d}{schema.SUFFIX}"


def label_names(rows: pa.Table) -> tuple[str, ...]:
    """The data set's labels, by the columns that `row_table` makes of them."""
    return tuple(name.removeprefix("label_") for name in rows.column_names if name.startswith("label_"))


def _placed(mentions: list[Mention], record: Record) -> list[Mention]:
    """The mentions, shipped CUIs at the places in the caption that the data set gives for them."""
    if not record.places:
        return mentions
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
    """The mentions that a coin spares, which falls the same way whatever the part and the number of workers."""
    share, seed = _dropped
    keys = (shuffle_key(seed, record.image_id, mention.start, mention.cui) for mention in mentions)
    coins = (int.from_bytes(key[:8], "big") / 2**64 for key in keys)
    return [mention for mention, coin in zip(mentions, coins, strict=True) if coin >= share]


def _mention_table(records: Sequence[Record], found: list[list[Mention]]) -> pa.Table:
    """All mentions in columns; a mention's fields are the table's columns behind ``image_id``."""
    counts = [len(mentions) for mentions in found]
    fields: list[Any] = list(zip(*(mention for mentions in found for mention in mentions), strict=True))
    ids = pa.array([record.image_id for record in records], pa.string())
    columns = [ids.take(pa.array(np.repeat(np.arange(len(records)), counts)))]
    for field, values in zip(
        list(schema.MENTION_COLUMNS)[1:], fields or [()] * len(Mention._fields), strict=True
    ):
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schema.MENTION_COLUMNS)


def _asserted(mentions: pa.Table, counts: NDArray[np.int32]) -> tuple[Assertions, Counter[str]]:
    """The CUIs that each caption asserts, those that it only holds possible marked; and those the ontology lacks."""
    status = {name: mentions.column(name).to_numpy() for name in _STATUSES}
    asserted = ~(status["negated"] | status["hypothetical"] | status["historical"] | status["family"])
    stated = asserted & ~status["uncertain"]
    kept = stated if _drop_uncertain else asserted
    coded = mentions.column("cui").combine_chunks().dictionary_encode()
    cuis = coded.dictionary.to_pylist()
    names = sorted(cuis)
    place = {name: number for number, name in enumerate(names)}
    codes = np.array([place[name] for name in cuis], dtype=np.int64)[coded.indices.to_numpy()]
    keys = np.repeat(np.arange(len(counts)), counts) * max(len(names), 1) + codes
    pairs = np.unique(keys[kept])
    sure = np.isin(pairs, keys[stated])
    row, code = np.divmod(pairs, max(len(names), 1))
    here = np.array([name in _ontology for name in names], dtype=bool)
    lacking = np.bincount(code[~here[code]], minlength=len(names))
    unknown = Counter({names[number]: int(lacking[number]) for number in np.flatnonzero(lacking)})
    if not _keep_unknown:
        row, code, sure = row[here[code]], code[here[code]], sure[here[code]]
    starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(counts)))])
    return Assertions(names, starts, code.astype(np.int32), ~sure), unknown


_STATUSES = ("negated", "uncertain", "hypothetical", "historical", "family")
