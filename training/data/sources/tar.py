"""Images inside webdataset's tar shards, read where they lie: nothing is unpacked."""

import posixpath
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path

from kg_targets.manifest.images import ending, without_ending
from kg_targets.manifest.tars import sample_key
from training.data.decode import MAX_BYTES, BrokenImage
from training.data.files import inside
from training.data.sources.base import ImageRows
from training.data.sources.shards import Key, ShardedSource, stem
from training.errors import DataError, one_line


class TarSource(ShardedSource):
    """A ``.tar`` or a folder of them, indexed once: member name to (shard, offset, size), 20 bytes an image.

    A member is a row's by its name (the store's ``image_path``), or by its shard's and its own, else by its base name,
    else by its path without the ending, else by its ``image_id``: the name without ending, or without anything after
    the first dot. Links, folders and devices are left aside.

    Raises:
        DataError: a shard is damaged, a member's name leads out of it, or a row has two members.
    """

    kind = "tar shards"

    suffix = ".tar"

    def __init__(self, root: Path, store: ImageRows) -> None:
        super().__init__(root, store)
        names: list[str] = []
        self._shard, self._offset, self._size = array("i"), array("q"), array("q")
        for number, path in enumerate(self.shards):
            for name, offset, size in _members(path):
                names.append(name)
                self._shard.append(number)
                self._offset.append(offset)
                self._size.append(size)
        paths = [posixpath.normpath(path) for path in store.image_paths]
        in_shards = (f"{self.relative(self._shard[place])}/{name}" for place, name in enumerate(names))
        keys = (
            Key("image path", names, paths),
            Key("shard and member", in_shards, paths),
            Key("base name", map(posixpath.basename, names), map(posixpath.basename, paths)),
            Key("path without ending", map(without_ending, names), map(without_ending, paths)),
            Key("image_id", map(stem, names), store.image_ids),
            Key("image_id", (posixpath.basename(sample_key(name)) for name in names), store.image_ids),
        )
        self.match_rows(keys, paths)
        self._names = names

    def place(self, entry: int) -> str:
        """Shard and member."""
        return f"{self.shards[self._shard[entry]]}: {self._names[entry]}"

    def encoded(self, row: int) -> bytes:
        """The member's content.

        Raises:
            BrokenImage: it cannot be read in full.
        """
        entry = self.entry(row)
        size = self._size[entry]
        if size > MAX_BYTES:
            raise BrokenImage(f"{self.name(row)} ({size:,} bytes)")
        try:
            with self.shards[self._shard[entry]].open("rb", buffering=0) as stream:
                stream.seek(self._offset[entry])
                data = stream.read(size)
        except OSError as error:
            raise BrokenImage(f"{self.name(row)} ({error.strerror or one_line(error)})") from error
        if len(data) < size:
            raise BrokenImage(f"{self.name(row)} (the shard ends before it does)")
        return data


def _check_end(path: Path, end: int) -> None:
    """Tell the end of a shard from a damaged header, which the tar reader takes for the end: zeros follow, or nothing.

    Args:
        path: the shard.
        end: where the reader stopped, bytes from the start.

    Raises:
        DataError: something else follows.
    """
    with path.open("rb") as stream:
        stream.seek(end)
        while block := stream.read(1 << 20):
            if block.count(0) < len(block):
                raise DataError(
                    f"{path} is damaged: what follows byte {end:,} is neither a member nor the end of the tar; write "
                    "it again (tars joined into one file are not read: keep them apart)"
                )


def _members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of every image in a shard.

    Raises:
        DataError: the shard is damaged or compressed, or a name leads out of it.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would remember every header of a large shard
                name = inside(member.name, f"tar {path}")
                # Other members are a sample's captions, labels or masks in another form.
                if member.isreg() and not member.issparse() and ending(name):
                    yield name, member.offset_data, member.size
            end = archive.offset
        _check_end(path, end)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} is not a readable plain tar ({one_line(error)}): write it again") from error
