"""Stage one, per shard: captions → mentions on disk, asserted concepts back to the caller."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from kg_targets.concepts import Extractor, Mention
from kg_targets.manifest import Record
from kg_targets.ontology import Ontology
from kg_targets.store import schema
from pipelines.build.extractors import make_extractor, option_file_digests


@dataclass(frozen=True)
class ShardInput:
    """A run of records, in the order of the data set."""

    index: int
    records: list[Record]
    folder: Path
    """Where the shard's files are written."""


@dataclass(frozen=True)
class ShardResult:
    """What the caller needs of a shard; everything bulky is on disk."""

    index: int
    image_ids: list[str]
    group_ids: list[str]
    cuis: list[list[str]]
    """For each image, the CUIs its caption asserts, ascending."""
    provided: int
    """CUIs that the data set ships for these images."""
    mentions: int
    unknown_cuis: Counter[str]
    """CUIs found or shipped that the ontology does not have; they stay out of the graph unless they are to be kept."""


_prepared: tuple[object, ...] = ()
_extractor: Extractor
_ontology: Ontology
_keep_unknown: bool


def initialise(name: str, options: str, ontology: Ontology, keep_unknown: bool) -> None:
    """Prepare this process: build the extractor once, for all the shards and splits it will see."""
    global _prepared, _extractor, _ontology, _keep_unknown
    _ontology, _keep_unknown = ontology, keep_unknown
    wanted = (name, options, option_file_digests(options), ontology.fingerprint)
    if _prepared != wanted:
        _extractor, _prepared = make_extractor(name, ontology, options), wanted


def extract_shard(shard: ShardInput) -> ShardResult:
    """Write ``mentions-*.parquet`` and the staged rows of one shard."""
    captions = [record.caption for record in shard.records]
    found = _extractor.extract(captions, [record.cuis for record in shard.records])
    unknown: Counter[str] = Counter()
    cuis = [_asserted(mentions, unknown) for mentions in found]
    schema.write_parquet(_mention_table(shard.records, found), str(shard.folder / mentions_file(shard.index)))
    schema.write_parquet(row_table(shard.records), str(shard.folder / staged_file(shard.index)))
    return ShardResult(
        index=shard.index,
        image_ids=[record.image_id for record in shard.records],
        group_ids=[record.group_id for record in shard.records],
        cuis=cuis,
        provided=sum(len(record.cuis) for record in shard.records),
        mentions=sum(len(mentions) for mentions in found),
        unknown_cuis=unknown,
    )


def mentions_file(index: int) -> str:
    """Name of a shard's mentions."""
    return f"mentions-{index:05d}{schema.SUFFIX}"


def staged_file(index: int) -> str:
    """Name of a shard's records between the two stages; removed before the store is shown."""
    return f"staged-{index:05d}{schema.SUFFIX}"


def _asserted(mentions: list[Mention], unknown: Counter[str]) -> list[str]:
    asserted = {mention.cui for mention in mentions if not mention.negated}
    missing = {cui for cui in asserted if cui not in _ontology}
    unknown.update(missing)
    return sorted(asserted if _keep_unknown else asserted - missing)


def _mention_table(records: list[Record], found: list[list[Mention]]) -> pa.Table:
    flat = [
        (record.image_id, mention)
        for record, mentions in zip(records, found, strict=True)
        for mention in mentions
    ]
    columns = {
        field.name: [image_id for image_id, _ in flat]
        if field.name == "image_id"
        else [getattr(mention, field.name) for _, mention in flat]
        for field in schema.MENTIONS
    }
    return pa.table(columns, schema=schema.MENTIONS)


def row_table(records: list[Record]) -> pa.Table:
    """The columns of ``targets-*.parquet`` that come from the data set, all text."""
    labels = list(dict.fromkeys(name for record in records for name in record.labels))
    columns = {
        name: [getattr(record, name) for record in records]
        for name in ("image_id", "image_path", "caption", "group_id", "licence")
    }
    columns |= {f"label_{name}": [record.labels.get(name, "") for record in records] for name in labels}
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
