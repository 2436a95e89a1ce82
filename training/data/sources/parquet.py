"""Images as bytes in Parquet files, as Hugging Face data sets hold them; read by row group, when needed."""

import posixpath
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from training.data.decode import BrokenImage
from training.data.sources.base import ImageRows
from training.data.sources.shards import Key, ShardedSource, stem
from training.errors import DataError, one_line

IMAGE = "image"
ID_COLUMNS = ("image_id", "id")
PATH_COLUMNS = ("image_path", "file_path", "filepath", "file_name", "filename", "path")
MAX_GROUP_BYTES = 1 << 30
"""A row group is the least that can be read; larger ones would fill the memory for one image."""
CACHE_BYTES = 256 << 20
"""Row groups kept for the images that are read next; one is kept in any case."""


class ParquetSource(ShardedSource):
    """A ``.parquet`` file or a folder of them, with image files' bytes in one column; 8 bytes of index an image.

    The column is ``image``, else the only one of its kind: ``struct<bytes: binary, path: string>``, as Hugging Face
    writes it, or binary. A row is found by a column ``image_id``, by a path (a column of its own or the struct's) that
    equals the store's ``image_path``, by a column ``id``, by the base name of a path, by a path's stem that is the
    ``image_id``, or where the store's paths are ``file.parquet/row`` by that.

    Raises:
        DataError: a file is damaged or has no such column, its row groups are too large, or a row is there twice.
    """

    kind = "Parquet files"

    suffix = ".parquet"

    def __init__(self, root: Path, store: ImageRows) -> None:
        super().__init__(root, store)
        self._metadata = [_metadata(path) for path in self.shards]
        schema = self._metadata[0].schema.to_arrow_schema()
        self._column = _image_column(schema, self.shards[0])
        starts, groups = [0], []
        for number, (path, metadata) in enumerate(zip(self.shards, self._metadata, strict=True)):
            for group in range(metadata.num_row_groups):
                _check_group(path, metadata.row_group(group), self._column)
                groups.append((number, group))
                starts.append(starts[-1] + metadata.row_group(group).num_rows)
        self._groups, self._starts = groups, np.array(starts, dtype=np.int64)
        self.match_rows(list(self._keys(schema)), store.image_paths)
        self._cache = GroupCache(self._load, CACHE_BYTES)

    def place(self, entry: int) -> str:
        """File, and row in it."""
        group, _ = self._locate(entry)
        number, index = self._groups[group]
        return f"{self.shards[number]}: row {entry - int(self._starts[group - index])}"

    def encoded(self, row: int) -> bytes:
        """The value of the image column.

        Raises:
            BrokenImage: it is null, or its row group is damaged.
        """
        group, place = self._locate(self.entry(row))
        try:
            data = self._cache.get(group)[place].as_py()
        except (pa.ArrowException, OSError) as error:
            raise BrokenImage(f"{self.name(row)} ({one_line(error)})") from error
        if not data:
            raise BrokenImage(f"{self.name(row)} (no bytes in column {self._column})")
        return bytes(data)

    def _locate(self, entry: int) -> tuple[int, int]:
        """Row group (counted over all files) and row in it."""
        group = int(np.searchsorted(self._starts, entry, side="right")) - 1
        return group, entry - int(self._starts[group])

    def _load(self, group: int) -> pa.Array:
        number, index = self._groups[group]
        # A reader of its own each time: readers are not safe in several threads, and open files are limited.
        with pq.ParquetFile(self.shards[number], metadata=self._metadata[number]) as file:
            table = file.read_row_group(index, columns=[self._column], use_threads=False)
        column = table.column(0)
        if pa.types.is_struct(column.type):
            column = pa.chunked_array([chunk.field("bytes") for chunk in column.chunks], type=pa.binary())
        return pa.concat_arrays(column.chunks)

    def _keys(self, schema: pa.Schema) -> Iterator[Key]:
        store = self.store
        image = self._column.removesuffix(".bytes")
        paths = [name for name in PATH_COLUMNS if name in schema.names]
        if image != self._column and schema.field(image).type.get_field_index("path") >= 0:
            paths.append(f"{image}.path")

        def changed(name: str, change: Callable[[str], str]) -> Iterator[str | None]:
            return (text if text is None else change(text) for text in self._texts(name))

        def by_id(name: str) -> Iterator[Key]:
            if name in schema.names:
                yield Key(f"column {name}", self._texts(name), store.image_ids)

        def by_path(label: str, change: Callable[[str], str]) -> Iterator[Key]:
            for name in paths:
                yield Key(f"{label} {name}", changed(name, change), map(change, store.image_paths))

        # Ids that are made of places must not be looked for in a column id, which may number the rows otherwise.
        files = {self.relative(number): metadata.num_rows for number, metadata in enumerate(self._metadata)}
        by_place = any(posixpath.dirname(path) in files for path in store.image_paths)
        if by_place:
            places = (f"{file}/{row}" for file, rows in files.items() for row in range(rows))
            yield Key("place in a file", places, store.image_paths)
        yield from by_id(ID_COLUMNS[0])
        yield from by_path("column", posixpath.normpath)
        yield from by_id(ID_COLUMNS[1])
        yield from by_path("base name in column", posixpath.basename)
        for name in paths:
            yield Key(f"stem in column {name}", changed(name, stem), store.image_ids)
        if not (paths or by_place or set(ID_COLUMNS) & set(schema.names)):
            raise DataError(
                f"{self.root} has no column {', '.join((*ID_COLUMNS, *PATH_COLUMNS))} to find the store's images "
                f"by: it has {', '.join(schema.names)}"
            )

    def _texts(self, name: str) -> Iterator[str | None]:
        """A column of all files as text, a row group's worth at a time."""
        for path, metadata in zip(self.shards, self._metadata, strict=True):
            try:
                with pq.ParquetFile(path, metadata=metadata) as file:
                    for batch in file.iter_batches(columns=[name]):
                        column = batch.column(0)
                        if pa.types.is_struct(column.type):
                            column = column.field(name.rsplit(".", 1)[-1])
                        yield from column.cast(pa.string()).to_pylist()
            except (pa.ArrowException, OSError, IndexError) as error:
                raise DataError(f"{path}: column {name} cannot be read ({one_line(error)})") from error


class GroupCache:
    """The most recently used row groups, each loaded once however many threads ask for it.

    Args:
        load: row group to its images' bytes.
        limit: bytes kept; the one used last is kept in any case.
    """

    def __init__(self, load: Callable[[int], pa.Array], limit: int) -> None:
        self._load, self._limit = load, limit
        self._lock = Lock()
        self._groups: OrderedDict[int, Future[pa.Array]] = OrderedDict()

    def get(self, group: int) -> pa.Array:
        """A row group's images.

        Raises:
            Exception: what loading raised, in every thread that waited for it; the next one tries again.
        """
        with self._lock:
            future = self._groups.get(group)
            mine = future is None
            if future is None:
                future = self._groups[group] = Future()
            self._groups.move_to_end(group)
        if mine:
            try:
                future.set_result(self._load(group))
            except BaseException as error:
                with self._lock:
                    del self._groups[group]
                future.set_exception(error)
                raise
            self._drop_old()
        return future.result()

    def _drop_old(self) -> None:
        with self._lock:
            loaded = [(key, future.result().nbytes) for key, future in self._groups.items() if future.done()]
            total = sum(size for _, size in loaded)
            for key, size in loaded[:-1]:
                if total <= self._limit:
                    break
                del self._groups[key]
                total -= size


def _metadata(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({one_line(error)}): write it again"
        ) from error


def _image_column(schema: pa.Schema, path: Path) -> str:
    """Dotted name of the column that holds the bytes."""
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field)) is not None}
    if IMAGE in leaves:
        return leaves[IMAGE]
    if len(leaves) != 1:
        raise DataError(
            f"{path} has no column {IMAGE} of image bytes (struct<bytes, path> or binary): it has "
            f"{', '.join(schema.names)}"
        )
    return next(iter(leaves.values()))


def _leaf(field: pa.Field) -> str | None:
    if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
        return f"{field.name}.bytes"
    return None


def _check_group(path: Path, group: pq.RowGroupMetaData, column: str) -> None:
    for index in range(group.num_columns):
        chunk = group.column(index)
        if chunk.path_in_schema == column:
            if chunk.total_uncompressed_size > MAX_GROUP_BYTES:
                raise DataError(
                    f"{path} has a row group with {chunk.total_uncompressed_size:,} bytes of images, at most "
                    f"{MAX_GROUP_BYTES:,} can be read at once: write it again with a row_group_size of about 100"
                )
            return
    raise DataError(f"{path} has no column {column} as the other Parquet files have: give another data root")
