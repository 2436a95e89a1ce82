"""`kg-targets build --scorer teacher`: a teacher's vectors of every image and caption → one store per split.

Captions first, each distinct one once, then images, both in shards that are kept: a build that was interrupted goes on
where it was and ends with the same bytes.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import kg_targets
from kg_targets.errors import DataError
from kg_targets.manifest import ExcludedCases, Manifest, ReadReport
from kg_targets.store import StoreWriter, TargetStore, TeacherStore, schema
from pipelines.build.config import BuildConfig
from pipelines.build.extract import row_table
from pipelines.build.stopwatch import Stopwatch, bar
from pipelines.build.stores import Say, digest_of, is_current, report_overlap
from pipelines.build.teacher_summary import agreement, agreement_lines

if TYPE_CHECKING:
    from training.data.sources import ImageSource
    from training.teachers.base import Pairs, Teacher

_READ_AT_ONCE = 4096


def build_teacher_stores(
    config: BuildConfig, manifest: Manifest, splits: list[str], excluded: ExcludedCases, say: Say
) -> list[TargetStore]:
    """Build the stores of ``splits``; those that are up to date are left alone.

    Raises:
        KGTargetsError: the teacher, a file or an image is not as it must be; finished shards are kept.
    """
    from training.teachers.registry import open_teacher, slug

    teacher = open_teacher(config.teacher)
    say(
        f"teacher: {teacher.name} ({teacher.kind}), {teacher.dim} dimensions, scale {teacher.scale:.4g}, "
        f"digest {teacher.digest[:12] or 'none'}"
    )
    out = config.out or Path("build") / f"{manifest.name}-{slug(teacher)}"
    stores: list[TargetStore] = []
    for split in splits:
        store = _TeacherBuild(config, manifest, split, excluded, teacher, out / split, say).run()
        for other in stores:
            report_overlap(other, store, say)
        stores.append(store)
    return stores


@dataclass
class _Listing:
    """As much of a store as finding its images needs."""

    path: Path
    image_ids: list[str]
    image_paths: list[str]

    def __len__(self) -> int:
        return len(self.image_ids)


class _TeacherBuild:
    """One split's way through the teacher."""

    def __init__(
        self,
        config: BuildConfig,
        manifest: Manifest,
        split: str,
        excluded: ExcludedCases,
        teacher: "Teacher",
        target: Path,
        say: Say,
    ) -> None:
        self.config, self.manifest, self.split = config, manifest, split
        self.excluded, self.teacher = excluded, teacher
        self.root = config.data_root or manifest.default_root
        self.target, self.say = target, say
        self.read = ReadReport()
        self.watch = Stopwatch()

    def run(self) -> TargetStore:
        """Build the split's store, or open it if it is up to date."""
        inputs = self._inputs()
        if not self.config.force and is_current(self.target, inputs):
            self.say(f"{self.target}: up to date")
            return TargetStore.open(self.target)
        self.say(f"{self.split}: {self.rows.num_rows:,} images")
        for line in self.read.lines():
            self.say(f"{self.split}: {line}")
        writer = StoreWriter(self.target, schema.TEACHER, resume=digest_of(inputs))
        try:
            with writer:
                texts = self._texts(writer)
                known = self._images(writer, texts)
                writer.finish({**self._manifest(known), "inputs": inputs}, {"stages": self.watch.stages})
        except BaseException:
            if writer.folder.is_dir() and any(writer.folder.glob(f"*{schema.SUFFIX}")):
                self.say(f"{self.target}: what was finished is kept, the same command goes on from there")
            raise
        store = TargetStore.open(self.target)
        if isinstance(store, TeacherStore):
            self._summarise(store)
        return store

    @cached_property
    def rows(self) -> pa.Table:
        """The split's images and captions, all columns text."""
        records = self.manifest.records(
            self.split, self.root, self.read, self.config.licence_set, self.excluded.cases
        )
        tables = []
        while chunk := list(islice(records, _READ_AT_ONCE)):
            tables.append(row_table(chunk))
        if not tables:
            source = self.manifest.split_file(self.split, self.root)
            reasons = "; ".join(self.read.lines()[:3])
            raise DataError(f"{source} has no usable row: a store needs at least one caption. {reasons}")
        table = pa.concat_tables(
            tables, promote_options="default"
        )  # a chunk may lack a label that others have
        return pa.table({name: pc.fill_null(table.column(name), "") for name in table.column_names})

    @cached_property
    def source(self) -> "ImageSource | None":
        """The split's images; None for a teacher that reads none."""
        from training.data.sources import open_source

        if not self.teacher.reads_images:
            return None
        listing = _Listing(
            self.target,
            self.rows.column("image_id").to_pylist(),
            self.rows.column("image_path").to_pylist(),
        )
        return open_source(self.root, cast(TargetStore, listing))

    @cached_property
    def pairs(self) -> "Pairs":
        """What the teacher is shown."""
        from training.teachers.base import Pairs

        ids, captions = (self.rows.column(name).to_pylist() for name in ("image_id", "caption"))
        return Pairs(ids, captions, self.source)

    def _inputs(self) -> dict[str, Any]:
        """Everything that the store's content follows from."""
        from training.teachers.base import ENCODING

        return {
            "captions_sha256": self.manifest.split_digest(self.split, self.root),
            "config": self._stored(),
            "teacher": self.teacher.facts(),
            "images_sha256": self.source.digest() if self.source is not None else None,
            "encoding": ENCODING,
            **self.excluded.inputs(),
        }

    def _stored(self) -> dict[str, Any]:
        kept = {"scorer", "rows_per_shard", "licences"}
        return {key: value for key, value in self.config.stored().items() if key in kept}

    def _texts(self, writer: StoreWriter) -> NDArray[np.float32]:
        """Vectors of all captions, float32 ``[N, D]``; distinct ones are encoded, staged shard by shard."""
        codes = self.rows.column("caption").combine_chunks().dictionary_encode()
        of_row = codes.indices.to_numpy(zero_copy_only=False)
        first = np.unique(of_row, return_index=True)[1].astype(np.int64)
        if not self.teacher.dim:
            return np.zeros((len(of_row), 0), dtype=np.float32)
        parts = []
        with self.watch.stage("captions"), bar(len(first), f"{self.split}: captions", "caption") as shown:
            for name, chosen in self._shards("texts", len(first)):
                if not writer.has(name, len(chosen)):
                    vectors = self.teacher.texts(self.pairs, first[chosen], shown.update)
                    writer.stage(name, pa.table({"factor": _column(vectors)}))
                else:
                    shown.update(len(chosen))
                parts.append(_matrix(pq.read_table(writer.folder / name).column("factor"), self.teacher.dim))
        found: NDArray[np.float32] = np.concatenate(parts)[of_row]
        return found

    def _images(self, writer: StoreWriter, texts: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Write the shards; whether each row's image could be read, bool ``[N]``."""
        present = self._present()
        known = present.copy()
        labels = self._labels()
        columns = schema.teacher_columns(labels, self.teacher.dim)
        with self.watch.stage("images"), bar(len(texts), f"{self.split}: images", "image") as shown:
            for name, rows in self._shards("targets", len(texts)):
                if writer.has(name, len(rows)):
                    known[rows] = (
                        pq.read_table(writer.folder / name, columns=["known"]).column("known").to_numpy()
                    )
                    writer.adopt(name, len(rows))
                    shown.update(len(rows))
                    self._check_broken(known, {})
                    continue
                factors = np.zeros((len(rows), self.teacher.dim), dtype=np.float32)
                found = self.teacher.images(self.pairs, rows[present[rows]], shown.update)
                factors[present[rows]] = found.factors
                known[list(found.broken)] = False
                self._check_broken(known, found.broken)
                content = {
                    **{
                        name: self.rows.column(name)[rows[0] : rows[-1] + 1]
                        for name in self.rows.column_names
                    },
                    "row": pa.array(rows),
                    "known": pa.array(known[rows]),
                }
                if self.teacher.dim:
                    content |= {"image_factor": _column(factors), "text_factor": _column(texts[rows])}
                writer.write(name, pa.table(content).select(columns.names).cast(columns))
        return known

    def _present(self) -> NDArray[np.bool_]:
        count = self.rows.num_rows
        if self.source is None:
            return np.ones(count, dtype=bool)
        present = np.zeros(count, dtype=bool)
        present[self.source.check_present(self.config.max_broken)] = True
        return present

    def _check_broken(self, known: NDArray[np.bool_], broken: dict[int, str]) -> None:
        count = int((~known).sum())
        for problem in broken.values():
            self.say(f"warning: {self.split}: no vector of a broken image: {problem}")
        if count > self.config.max_broken:
            named = f": {'; '.join(list(broken.values())[:3])}" if broken else ""
            raise DataError(
                f"{self.split}: {count:,} images are missing or broken, --max-broken allows "
                f"{self.config.max_broken:,}{named}"
            )

    def _shards(self, prefix: str, count: int) -> "list[tuple[str, NDArray[np.int64]]]":
        size = self.config.rows_per_shard
        starts = range(0, count, size)
        return [
            (f"{prefix}-{index:05d}{schema.SUFFIX}", np.arange(start, min(start + size, count)))
            for index, start in enumerate(starts)
        ]

    def _labels(self) -> tuple[str, ...]:
        names = self.rows.column_names
        return tuple(name.removeprefix("label_") for name in names if name.startswith("label_"))

    def _manifest(self, known: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "kind": schema.TEACHER,
            "dataset": self.manifest.name,
            "split": self.split,
            "rows": self.rows.num_rows,
            "labels": list(self._labels()),
            "licence": self.manifest.licence,
            "code_version": kg_targets.__version__,
            "config": self._stored(),
            "teacher": self.teacher.facts(),
            "unknown": int((~known).sum()),
            "skipped_rows": self.read.skipped,
            **self.excluded.facts(self.read),
        }

    def _summarise(self, store: TeacherStore) -> None:
        stages = self.watch.stages
        seconds = sum(stage["seconds"] for stage in stages.values())
        peak = max(stage["peak_mib"] for stage in stages.values())
        rate = len(store) / max(stages["images"]["seconds"], 1e-3)
        self.say(
            f"{self.target}: {len(store):,} images in {seconds:.1f} s ({rate:,.0f} images/s), peak memory "
            f"{peak:,.0f} MiB"
        )
        for line in agreement_lines(agreement(store)):
            self.say(f"  {line}")


def _column(vectors: NDArray[np.float32]) -> pa.Array:
    """float32 ``[R, D]`` as a column of fixed lists."""
    kind = pa.list_(pa.float32(), vectors.shape[1])
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(vectors).ravel()), type=kind)


def _matrix(column: pa.ChunkedArray, dim: int) -> NDArray[np.float32]:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, dtype=np.float32).reshape(len(column), dim)
