"""Images of questions lie where captioned ones may: files of any ending, tars, Parquet."""

from pathlib import Path

import pytest

from kg_targets.manifest import Question
from tests.images import plain_clip, png
from tests.training.data.test_sources import write_tar
from training.errors import DataError
from training.med_vqa.model.images import ImageTable

QUESTIONS = [Question(str(n), f"q{n}", f"images/q{n}.jpg", "What?", "x", False, "what") for n in range(3)]


def test_questions_find_images_of_another_ending_and_in_tars(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"q{number}.PNG").write_bytes(png(number))
    in_tar = write_tar(
        tmp_path / "x.tar", [f"q{number}.png" for number in range(3)], [png(n) for n in range(3)]
    )
    for root in (tmp_path, in_tar):
        table = ImageTable(QUESTIONS, root, plain_clip())
        assert table.pixels[:, 0, 0, 0].tolist() == [0, 1, 2] and not table.broken


def test_an_image_that_is_in_no_tar_is_counted_as_missing(tmp_path: Path) -> None:
    root = write_tar(tmp_path / "x.tar", ["q0.png"], [png(0)])
    with pytest.raises(DataError, match=r"2 of 3 images are missing.*q1 \(not in the \.tar files of"):
        ImageTable(QUESTIONS, root, plain_clip())
    assert len(ImageTable(QUESTIONS, root, plain_clip(), max_broken=2)) == 1
