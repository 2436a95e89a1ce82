"""Where images come from: a folder, Parquet files with image bytes, or tar shards. One file per kind, one line here."""

from contextlib import suppress
from pathlib import Path

from training.data.sources.base import ImageListing, ImageRows, ImageSource
from training.data.sources.folder import FolderSource
from training.data.sources.parquet import ParquetSource
from training.data.sources.shards import shards_below
from training.data.sources.tar import TarSource
from training.errors import DataError

__all__ = ["SHARDED", "ImageListing", "ImageRows", "ImageSource", "open_source"]

SHARDED: dict[str, type[ImageSource]] = {".parquet": ParquetSource, ".tar": TarSource}
"""Sources by the ending of their files' names; everything else is a folder of image files."""

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_source(data_root: Path, store: ImageRows) -> ImageSource:
    """The images of ``store``, by what ``data_root`` is: a file of a known kind, a folder of such files, or of images.

    A folder with image files of the store is a folder of image files, whatever else it holds; it is searched for shards
    only if there are none. Target stores below it, Parquet files themselves, are left aside.

    Raises:
        DataError: there is nothing of use at ``data_root``, or what is there is damaged.
    """
    if data_root.is_file():
        source = SHARDED.get(data_root.suffix.lower())
        if source is not None:
            return source(data_root, store)
        if data_root.name.lower().endswith(_COMPRESSED):
            raise DataError(
                f"{data_root} is compressed, which allows no random access: unpack it to a plain .tar"
            )
        raise DataError(
            f"{data_root} is neither a folder nor one of {', '.join(SHARDED)}: give one as data root"
        )
    folder = FolderSource(data_root, store)
    if folder.present().any():
        return folder
    kinds = [suffix for suffix in SHARDED if next(shards_below(data_root, suffix), None) is not None]
    if not kinds:
        return folder
    if len(kinds) == 1:
        return SHARDED[kinds[0]](data_root, store)
    sources = []
    for kind in kinds:
        with suppress(DataError):  # a table of captions, for instance, which has no images
            sources.append(SHARDED[kind](data_root, store))
    held = [source for source in sources if source.present().any()]
    if len(held) != 1:
        raise DataError(
            f"{data_root} holds {' and '.join(kinds)} files: give one of them, or its folder, as data root"
        )
    return held[0]
