"""`kg-targets build --scorer teacher`: a teacher's vectors of every image and caption → one store per split.

Captions first, each distinct one once, then images, both in shards that are kept: a build that was interrupted goes on
where it was and ends with the same bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kg_targets.errors import DataError
from kg_targets.store import StoreWriter, TargetStore, TeacherStore, schema
from kg_targets.store.digest import json_sha256
from kg_targets.store.factors import vector_column
from pipelines.build.config import BuildConfig
from pipelines.build.executors import Say, Stopwatch, bar
from pipelines.build.extract import label_names
from pipelines.build.split import Split, row_table
from pipelines.build.write import open_if_current
from training.data.sources import ImageListing, ImageSource, open_source
from training.teachers.base import ENCODING, ImageTexts, Teacher
from training.teachers.registry import open_teacher, slug

SAMPLE = 1024
"""Images of different cases whose cosines are summarised."""
_READ_AT_ONCE = 4096


def teacher_stores(config: BuildConfig, splits: list[Split], say: Say) -> Iterator[TargetStore]:
    """Build the store of each split; those that are up to date are left alone.

    Raises:
        KGTargetsError: the teacher, a file or an image is not as it must be; finished shards are kept.
    """
    teacher = open_teacher(config.teacher)
    say(
        f"teacher: {teacher.name} ({teacher.kind}), {teacher.dim} dimensions, scale {teacher.scale:.4g}, "
        f"digest {teacher.digest[:12] or 'none'}"
    )
    out = config.out or Path("build") / f"{splits[0].manifest.name}-{slug(teacher)}"
    for split in splits:
        build = _TeacherBuild(split, teacher, config.rows_per_shard, config.max_broken, say)
        kept = {"scorer", "rows_per_shard", "licences"}
        stored = {key: value for key, value in config.stored().items() if key in kept}
        yield build.run(out / split.name, stored, config.force)


@dataclass
class _TeacherBuild:
    """One split's way through the teacher."""

    split: Split
    teacher: Teacher
    rows_per_shard: int
    max_broken: int
    say: Say
    watch: Stopwatch = field(default_factory=Stopwatch)

    def run(self, target: Path, stored: dict[str, Any], force: bool) -> TargetStore:
        """Build the split's store, or open it if it is up to date.

        Args:
            target: folder of the store.
            stored: the part of the configuration that the content follows from.
            force: build even if it is up to date.
        """
        split, metadata = self.split, self.teacher.metadata()
        inputs = {
            "config": stored,
            "teacher": metadata,
            "images_sha256": self.source.digest() if self.source is not None else None,
            "encoding": ENCODING,
            **split.inputs(),
        }
        if not force and (current := open_if_current(target, inputs, self.say)):
            return current
        self.say(f"{split.name}: {self.rows.num_rows:,} images")
        for line in split.read.lines():
            self.say(f"{split.name}: {line}")
        writer = StoreWriter(target, schema.TEACHER, resume=json_sha256(inputs, str))
        try:
            with writer:
                texts = self._texts(writer)
                known = self._images(writer, texts)
                content = {
                    "kind": schema.TEACHER,
                    "rows": self.rows.num_rows,
                    "labels": list(label_names(self.rows)),
                    "config": stored,
                    "teacher": metadata,
                    "unknown": int((~known).sum()),
                    "inputs": inputs,
                    **split.metadata(),
                }
                writer.finish(content, {"stages": self.watch.stages})
        except BaseException:
            if writer.folder.is_dir() and any(writer.folder.rglob(f"*{schema.SUFFIX}")):
                self.say(f"{target}: what was finished is kept, the same command goes on from there")
            raise
        store = TargetStore.open(target)
        if isinstance(store, TeacherStore):
            self.say(f"{target}: {self.watch.total(len(store), rate_of='images')}")
            for line in agreement_lines(store):
                self.say(f"  {line}")
        return store

    @cached_property
    def rows(self) -> pa.Table:
        """The split's images and captions, all columns text."""
        tables = [row_table(chunk) for chunk in self.split.chunks(_READ_AT_ONCE)]
        self.split.check_read()
        table = pa.concat_tables(
            tables, promote_options="default"
        )  # a chunk may lack a label that others have
        return pa.table({name: pc.fill_null(table.column(name), "") for name in table.column_names})

    @cached_property
    def source(self) -> ImageSource | None:
        """The split's images; None for a teacher that reads none."""
        if not self.teacher.reads_images:
            return None
        ids, paths = (self.rows.column(name).to_pylist() for name in ("image_id", "image_path"))
        return open_source(self.split.root, ImageListing(ids, paths))

    @cached_property
    def pairs(self) -> ImageTexts:
        """Images and captions for the teacher."""
        ids, captions = (self.rows.column(name).to_pylist() for name in ("image_id", "caption"))
        return ImageTexts(ids, captions, self.source)

    def _texts(self, writer: StoreWriter) -> NDArray[np.float32]:
        """Vectors of all captions, float32 ``[N, D]``; distinct ones are encoded, staged shard by shard."""
        codes = self.rows.column("caption").combine_chunks().dictionary_encode()
        of_row = codes.indices.to_numpy(zero_copy_only=False)
        first = np.unique(of_row, return_index=True)[1].astype(np.int64)
        if not self.teacher.dim:
            return np.zeros((len(of_row), 0), dtype=np.float32)
        parts = []
        with (
            self.watch.stage("captions"),
            bar(len(first), f"{self.split.name}: captions", "caption") as shown,
        ):
            for index, chosen in self._shards(len(first)):
                name = f"texts-{index:05d}{schema.SUFFIX}"
                if not writer.has(name, len(chosen)):
                    vectors = self.teacher.texts(self.pairs, first[chosen], shown.update)
                    writer.stage(name, pa.table({"factor": vector_column(vectors)}))
                else:
                    shown.update(len(chosen))
                vectors = pq.read_table(writer.folder / name).column("factor").combine_chunks().flatten()
                parts.append(vectors.to_numpy(zero_copy_only=False).reshape(len(chosen), self.teacher.dim))
        return np.asarray(np.concatenate(parts)[of_row])

    def _images(self, writer: StoreWriter, texts: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Write the shards; whether each row's image could be read, bool ``[N]``."""
        present = np.ones(self.rows.num_rows, dtype=bool)
        if self.source is not None:
            found = self.source.check_present(self.max_broken, "--max-broken")
            present = np.isin(np.arange(len(present)), found)
        known = present.copy()
        columns = schema.teacher_columns(label_names(self.rows), self.teacher.dim)
        with self.watch.stage("images"), bar(len(texts), f"{self.split.name}: images", "image") as shown:
            for index, rows in self._shards(len(texts)):
                name = schema.part(schema.TARGETS, index)
                if writer.has(name, len(rows)):
                    finished = pq.read_table(writer.folder / name, columns=["known"])
                    known[rows] = finished.column("known").to_numpy()
                    writer.adopt(name, len(rows))
                    shown.update(len(rows))
                    self._check_broken(known, {})
                    continue
                factors = np.zeros((len(rows), self.teacher.dim), dtype=np.float32)
                read = self.teacher.images(self.pairs, rows[present[rows]], shown.update)
                factors[present[rows]] = read.factors
                known[list(read.broken)] = False
                self._check_broken(known, read.broken)
                part = self.rows.slice(rows[0], len(rows))
                content = {column: part.column(column) for column in part.column_names}
                content |= {"row": pa.array(rows), "known": pa.array(known[rows])}
                if self.teacher.dim:
                    content |= {
                        "image_factor": vector_column(factors),
                        "text_factor": vector_column(texts[rows]),
                    }
                writer.write(name, pa.table(content).select(columns.names).cast(columns))
        return known

    def _check_broken(self, known: NDArray[np.bool_], broken: dict[int, str]) -> None:
        count = int((~known).sum())
        for problem in broken.values():
            self.say(f"warning: {self.split.name}: no vector of a broken image: {problem}")
        if count > self.max_broken:
            named = f": {'; '.join(list(broken.values())[:3])}" if broken else ""
            raise DataError(
                f"{self.split.name}: {count:,} images are missing or broken, --max-broken allows "
                f"{self.max_broken:,}{named}"
            )

    def _shards(self, count: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        size = self.rows_per_shard
        for index, start in enumerate(range(0, count, size)):
            yield index, np.arange(start, min(start + size, count))


def agreement_lines(store: TeacherStore, sample: int = SAMPLE, seed: int = 0) -> list[str]:
    """Closing lines of a build: how well up to ``sample`` readable images, one of each case, find their captions."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(store.known))
    groups = np.asarray(store.group_ids, dtype=object)[order]
    rows = np.sort(order[np.sort(np.unique(groups, return_index=True)[1])][:sample])
    if len(rows) < 2 or not store.dim:
        return ["no two images of different cases to compare"]
    logits = store.block(rows).astype(np.float64)
    own, others = np.diag(logits), logits[~np.eye(len(rows), dtype=bool)] / store.scale
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    mass = float((np.diag(weights) / weights.sum(axis=1)).mean())
    return [
        f"cosine of image and caption, {len(rows):,} images of different cases: own {own.mean() / store.scale:.3f} on "
        f"average, others' median {np.quantile(others, 0.5):.3f}, p95 {np.quantile(others, 0.95):.3f}",
        f"the own caption is the nearest of {len(rows):,} for {(own >= logits.max(axis=1)).mean():.1%} of the images; "
        f"its mean share of softmax(scale·cosine) is {mass:.1%}",
    ]
