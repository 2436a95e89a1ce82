"""Folders, Parquet files and tars: the same image for the same store row, and clear errors where they disagree."""

import os
import re
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kg_targets.store import StoreWriter
from tests.images import plain_clip, plain_store, png, write_images, write_tar
from training.data.dataset import CaptionedImages
from training.data.decode import BrokenImage
from training.data.sources import open_source
from training.data.sources import parquet as parquet_module
from training.data.sources.folder import FolderSource
from training.data.sources.parquet import GroupCache, ParquetSource
from training.errors import DataError

COUNT = 12


def write_parquet(
    file: Path, rows: Sequence[int], *, struct: bool = True, group: int = 4, **columns: Sequence[Any]
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    data = [png(row) for row in rows]
    table: dict[str, Any] = dict(columns)
    if struct:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        paths = table.pop("path", [None] * len(data))
        table["image"] = pa.array([{"bytes": d, "path": p} for d, p in zip(data, paths, strict=True)], kind)
    else:
        table["image"] = pa.array(data, pa.binary())
    pq.write_table(pa.table(table), file, row_group_size=group, compression="none")
    return file


def folder(root: Path, store: Any) -> Path:
    return write_images(root, store)


def parquet(root: Path, store: Any) -> Path:
    order = list(range(COUNT - 1, -1, -1))  # not the store's order
    ids = [store.image_ids[row] for row in order]
    write_parquet(root / "data" / "train-00000.parquet", order[:7], image_id=ids[:7])
    write_parquet(root / "data" / "train-00001.parquet", order[7:], image_id=ids[7:])
    return root


def parquet_by_struct_path(root: Path, store: Any) -> Path:
    paths = [Path(path).name for path in store.image_paths]
    return write_parquet(root / "a.parquet", range(COUNT), path=paths, id=list(range(100, 100 + COUNT)))


def parquet_plain_bytes(root: Path, store: Any) -> Path:
    return write_parquet(root / "a.parquet", range(COUNT), struct=False, id=store.image_ids)


def tars(root: Path, store: Any) -> Path:
    data = [png(row) for row in range(COUNT)]
    names = [f"./{path}" for path in store.image_paths]
    write_tar(root / "000.tar", names[:5], data[:5])
    write_tar(root / "001.tar", names[5:], data[5:])
    return root


def tar_by_sample_key(root: Path, store: Any) -> Path:
    names = [f"shard/{name}.{end}" for name in store.image_ids for end in ("image.png", "txt", "cls")]
    data = [part for row in range(COUNT) for part in (png(row), b"a caption", b"1")]
    return write_tar(root / "a.tar", names, data)


WRITERS = [folder, parquet, parquet_by_struct_path, parquet_plain_bytes, tars, tar_by_sample_key]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("in_memory", [True, False])
def test_every_source_gives_each_row_its_own_image(
    write: Callable[[Path, Any], Path], in_memory: bool, tmp_path: Path
) -> None:
    store = plain_store(COUNT)
    source = open_source(write(tmp_path / "root", store), store)
    images = CaptionedImages(store, source, plain_clip(), in_memory=in_memory)
    batch = images.batch([3, 0, 11, 7])
    assert batch.pixels[:, 0, 0, 0].tolist() == batch.rows.tolist() == [3, 0, 11, 7]
    assert batch.tokens[:, 0].tolist() == [3, 0, 11, 7]
    assert batch.pixels.shape == (4, 3, 8, 8) and images.broken == []


@pytest.mark.parametrize("write", WRITERS)
def test_reading_from_many_threads_gives_the_same(write: Callable[[Path, Any], Path], tmp_path: Path) -> None:
    store = plain_store(COUNT)
    source = open_source(write(tmp_path / "root", store), store)
    rows = np.random.default_rng(0).integers(0, COUNT, 400).tolist()
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda row: source.read(row).getpixel((0, 0)), rows))
    assert values == rows


@pytest.mark.parametrize("write", WRITERS)
def test_the_digest_tells_the_content_and_not_the_place(
    write: Callable[[Path, Any], Path], tmp_path: Path
) -> None:
    store = plain_store(COUNT)
    first = open_source(write(tmp_path / "a", store), store).digest()
    root = write(tmp_path / "b", store)
    assert open_source(root, store).digest() == first
    held = [path for path in (tmp_path / "b").rglob("*") if path.is_file() and png(5) in path.read_bytes()]
    data = held[0].read_bytes()
    place = data.index(png(5)) + len(png(5)) - 1
    held[0].write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert open_source(root, store).digest() != first


@pytest.mark.parametrize("write", [folder, parquet, tars])
def test_a_store_of_other_images_is_told_apart(write: Callable[[Path, Any], Path], tmp_path: Path) -> None:
    root = write(tmp_path / "root", plain_store(COUNT))
    other = plain_store(5, "elsewhere/other{row}.png")
    other.image_ids = [f"other{row}" for row in range(5)]
    with pytest.raises(DataError, match=r"^5 of 5 images are not .*is it the data root") as caught:
        CaptionedImages(other, open_source(root, other), plain_clip(), max_broken=4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("write", [folder, parquet, tars])
def test_images_of_other_splits_are_left_aside_and_missing_ones_counted(
    write: Callable[[Path, Any], Path], tmp_path: Path
) -> None:
    root = write(tmp_path / "root", plain_store(COUNT))
    store = plain_store(COUNT + 2)
    store.image_ids, store.image_paths = store.image_ids[8:], store.image_paths[8:]
    with pytest.raises(DataError, match="2 of 6 images are not"):
        CaptionedImages(store, open_source(root, store), plain_clip(), max_broken=1)
    images = CaptionedImages(store, open_source(root, store), plain_clip(), max_broken=2)
    assert images.rows.tolist() == [0, 1, 2, 3] and len(images.broken) == 2
    assert images.batch([0, 3]).pixels[:, 0, 0, 0].tolist() == [8, 11]
    assert "013" in images.broken[1] and "missing" in images.broken[1]


def test_a_folder_with_the_stores_images_is_a_folder_whatever_else_it_holds(tmp_path: Path) -> None:
    store = plain_store(COUNT)
    folder(tmp_path, store)
    write_tar(tmp_path / "backup.tar", ["x.png"], [png(1)])
    assert isinstance(open_source(tmp_path, store), FolderSource)


def test_target_stores_below_the_data_root_are_not_taken_for_its_shards(tmp_path: Path) -> None:
    store = plain_store(COUNT)
    with StoreWriter(tmp_path / "stores" / "dev") as writer:
        writer.write("concepts/part-00000.parquet", pa.table({"cui": ["a"]}))
        writer.finish({}, {})
    folder(tmp_path / "demo", store)
    with pytest.raises(DataError, match=r"^12 of 12 images are not below") as caught:
        CaptionedImages(store, open_source(tmp_path, store), plain_clip())
    assert f"looked for at {tmp_path / store.image_paths[0]} and with every other ending" in str(caught.value)
    assert "\n" not in str(caught.value)
    parquet(tmp_path / "shards", store)
    (tmp_path / "shards" / "manifest.json").write_text('{"files": []}')  # a data set's own
    source = open_source(tmp_path, store)
    assert isinstance(source, ParquetSource) and source.check_present(0).tolist() == list(range(COUNT))


@pytest.mark.parametrize("manifest", [b"", b"[1", b"[" * 100_000, b"\xff", b"3", b'{"schema_version": 1}'])
def test_a_manifest_of_something_else_hides_no_shards(manifest: bytes, tmp_path: Path) -> None:
    store = plain_store(COUNT)
    parquet(tmp_path, store)
    (tmp_path / "data" / "manifest.json").write_bytes(manifest)
    assert open_source(tmp_path, store).check_present(0).tolist() == list(range(COUNT))


def test_a_folder_of_images_is_not_searched_for_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = plain_store(3)
    folder(tmp_path, store)
    monkeypatch.setattr(os, "walk", lambda *_: pytest.fail("searched"))
    monkeypatch.setattr(Path, "rglob", lambda *_: pytest.fail("searched"))
    assert isinstance(open_source(tmp_path, store), FolderSource)


def test_images_missing_from_shards_are_named_with_their_path(tmp_path: Path) -> None:
    store = plain_store(3)
    path = write_tar(tmp_path / "x.tar", store.image_paths[:2], [png(0), png(1)])
    with pytest.raises(DataError, match=rf"the first: img002, {re.escape(store.image_paths[2])}\)"):
        CaptionedImages(store, open_source(path, store), plain_clip())


def test_what_is_no_data_root_is_told_in_one_line(tmp_path: Path) -> None:
    store = plain_store(3)
    for name in ("a.tar.gz", "notes.txt"):
        (tmp_path / name).write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"a\.tar\.gz is compressed.*unpack it"):
        open_source(tmp_path / "a.tar.gz", store)
    with pytest.raises(DataError, match=r"notes\.txt is neither a folder nor one of \.parquet, \.tar"):
        open_source(tmp_path / "notes.txt", store)
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_source(tmp_path / "nowhere", store)
    for suffix in (".tar", ".parquet"):
        (tmp_path / "both").mkdir(exist_ok=True)
        (tmp_path / "both" / f"a{suffix}").touch()
    with pytest.raises(DataError, match=r"both holds \.parquet and \.tar files"):
        open_source(tmp_path / "both", store)


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"not one of those" * 100])
def test_a_damaged_shard_is_named(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        open_source(path, plain_store(3))
    assert "\n" not in str(caught.value)


# Tars


@pytest.mark.parametrize("name", ["/etc/passwd.png", "../x.png", "a/../../x.png"])
def test_a_tar_whose_names_lead_out_of_it_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="points outside the tar"):
        open_source(write_tar(tmp_path / "x.tar", [name], [png(1)]), plain_store(3))


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    store = plain_store(3)
    path = write_tar(tmp_path / "x.tar", store.image_paths[:2], [png(0), png(1)])
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(store.image_paths[2])
            link.type, link.linkname = kind, store.image_paths[0]
            archive.addfile(link)
    assert open_source(path, store).present().tolist() == [True, True, False]


def test_an_exact_path_in_a_tar_wins_over_a_namesake_of_another_folder(tmp_path: Path) -> None:
    store = plain_store(2)
    names = [f"other/{Path(path).name}" for path in store.image_paths]
    path = write_tar(tmp_path / "x.tar", [*names, *store.image_paths], [png(90), png(91), png(0), png(1)])
    assert [open_source(path, store).read(row).getpixel((0, 0)) for row in range(2)] == [0, 1]


@pytest.mark.parametrize("ends", [700, 1600])
def test_a_tar_that_was_cut_off_is_named_or_lacks_images(ends: int, tmp_path: Path) -> None:
    store = plain_store(3)
    path = write_tar(tmp_path / "x.tar", store.image_paths, [png(row) * 20 for row in range(3)])
    path.write_bytes(path.read_bytes()[:ends])
    with pytest.raises(DataError, match=re.escape(str(path))):
        CaptionedImages(store, open_source(path, store), plain_clip())


@pytest.mark.parametrize("damage", [b"\xff" * 512, bytes(512), bytes(8192)])
def test_a_tar_damaged_in_the_middle_is_not_taken_for_a_short_one(damage: bytes, tmp_path: Path) -> None:
    store = plain_store(COUNT)
    path = write_tar(tmp_path / "x.tar", store.image_paths, [png(row) * 8 for row in range(COUNT)])
    with tarfile.open(path) as archive:
        header = archive.getmembers()[4].offset
    content = bytearray(path.read_bytes())
    content[header : header + len(damage)] = damage
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))} is damaged: .*byte {header:,} ") as caught:
        CaptionedImages(store, open_source(path, store), plain_clip(), max_broken=COUNT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("blocks", [0, 1, 2, 50])
def test_a_tar_may_end_with_any_number_of_zero_blocks(blocks: int, tmp_path: Path) -> None:
    store = plain_store(3)
    path = write_tar(tmp_path / "x.tar", store.image_paths, [png(row) for row in range(3)])
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    end = last.offset_data + (last.size + 511) // 512 * 512
    path.write_bytes(path.read_bytes()[:end] + bytes(512 * blocks))
    assert open_source(path, store).present().all()


def test_several_captions_of_one_file_share_it(tmp_path: Path) -> None:
    store = plain_store(4)
    store.image_paths[3] = store.image_paths[1]
    path = write_tar(tmp_path / "x.tar", store.image_paths[:3], [png(row) for row in range(3)])
    source = open_source(path, store)
    assert [source.read(row).getpixel((0, 0)) for row in range(4)] == [0, 1, 2, 1]


# Parquet


def test_an_image_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    store = plain_store(3)
    ids = [store.image_ids[row] for row in (0, 1, 1)]
    path = write_parquet(tmp_path / "x.parquet", range(3), image_id=ids)
    with pytest.raises(DataError, match=r'two images with column image_id "img001"'):
        open_source(path, store)
    names = [store.image_paths[0], f"./{store.image_paths[0]}"]
    with pytest.raises(DataError, match="two images with image path"):
        open_source(write_tar(tmp_path / "x.tar", names, [png(0), png(0)]), store)


def test_parquet_without_images_or_without_names_says_which_columns_there_are(tmp_path: Path) -> None:
    store = plain_store(3)
    pq.write_table(pa.table({"text": ["a"], "image_id": ["b"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"no column image of image bytes.*it has text, image_id"):
        open_source(tmp_path / "x.parquet", store)
    write_parquet(tmp_path / "y.parquet", range(3), struct=False, text=["a"] * 3)
    with pytest.raises(DataError, match=r"no column image_id, id, .*it has text, image"):
        open_source(tmp_path / "y.parquet", store)


def test_a_null_image_is_broken_and_named_with_its_place(tmp_path: Path) -> None:
    store = plain_store(6)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [{"bytes": png(row), "path": "x.png"} for row in range(6)]
    values[4] = {"bytes": None, "path": "x.png"}
    table = pa.table({"image": pa.array(values, kind), "image_id": store.image_ids})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=2)
    source = open_source(tmp_path / "x.parquet", store)
    with pytest.raises(BrokenImage, match=r"x\.parquet: row 4 \(no bytes in column image\.bytes\)"):
        source.read(4)
    assert source.read(5).getpixel((0, 0)) == 5


def test_a_row_group_too_large_to_be_read_says_how_to_write_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_module, "MAX_GROUP_BYTES", 500)
    store = plain_store(COUNT)
    with pytest.raises(DataError, match="write it again with a row_group_size"):
        open_source(
            write_parquet(tmp_path / "x.parquet", range(COUNT), group=12, image_id=store.image_ids), store
        )


def test_the_cache_loads_a_row_group_once_and_keeps_within_its_limit() -> None:
    loaded = []

    def load(group: int) -> pa.Array:
        loaded.append(group)
        return pa.array([bytes(1000)])

    cache = GroupCache(load, limit=2100)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cache.get, [1] * 50))
    assert loaded == [1]
    for group in (2, 3, 2, 3, 1):
        cache.get(group)
    assert loaded == [1, 2, 3, 1]  # 1 was the one not used for longest


def test_a_row_group_that_cannot_be_read_breaks_its_images_each_time() -> None:
    def load(group: int) -> pa.Array:
        raise OSError("disk")

    cache = GroupCache(load, limit=10)
    for _ in range(2):
        with pytest.raises(OSError, match="disk"):
            cache.get(0)
