"""Images of a store that lie at its paths in another form: another ending, another Unicode form, or not at all."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.images import plain_clip, plain_store, png
from tests.training.data.test_sources import COUNT, folder, tars, write_tar
from training.data.dataset import CaptionedImages
from training.data.sources import open_source
from training.errors import DataError

OTHER_NAMES: list[Callable[[str], str]] = [
    lambda path: path.removesuffix(".png") + ".JPEG",
    lambda path: unicodedata.normalize("NFD", path),
]


@pytest.mark.parametrize("other", OTHER_NAMES, ids=["ending", "Unicode form"])
@pytest.mark.parametrize("write", [folder, tars])
def test_images_of_another_ending_or_unicode_form_are_the_stores(
    write: Callable[[Path, Any], Path], other: Callable[[str], str], tmp_path: Path
) -> None:
    written = plain_store(COUNT, "Röntgen/é{row}.png")
    store = plain_store(COUNT, "Röntgen/é{row}.png")
    store.image_ids = [f"id{row}" for row in range(COUNT)]
    written.image_paths = [other(path) for path in store.image_paths]
    source = open_source(write(tmp_path, written), store)
    assert source.check_present(0).tolist() == list(range(COUNT))
    assert [source.read(row).getpixel((0, 0)) for row in range(COUNT)] == list(range(COUNT))


def test_missing_images_say_which_endings_are_there_and_how_to_leave_them_out(tmp_path: Path) -> None:
    store = plain_store(3)
    for path in store.image_paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).with_suffix(".nii").write_bytes(b"")
    with pytest.raises(DataError, match=r"these folders hold: \.nii 3\).*by data\.max_broken\.$"):
        CaptionedImages(store, open_source(tmp_path, store), plain_clip())
    with pytest.raises(DataError, match=r"by --max-broken\.$"):
        open_source(tmp_path, store).check_present(2, "--max-broken")


def test_a_missing_image_is_shown_as_none_and_a_wrong_root_is_an_error(tmp_path: Path) -> None:
    store = plain_store(3)
    path = write_tar(tmp_path / "x.tar", store.image_paths[:1], [png(0)])
    shown = [open_source(path, store).read_present(row) for row in range(3)]
    assert shown[0] is not None and shown[1:] == [None, None]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="3 of 3 images are not below"):
        open_source(tmp_path / "empty", store).read_present(0)
