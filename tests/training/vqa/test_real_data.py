"""Med-VQA data as published; skipped where it is absent. Figures only, no content of theirs."""

from pathlib import Path

import pytest

from kg_targets.manifest import Manifest
from training.leakage.hashing import near
from training.leakage.overlap import hash_questions, read_pretraining, shared, touching
from training.vqa.protocols import Split, prepare


def prepared(shared_data: Path, name: str, folder: str, protocol: str) -> Split:
    if not (shared_data / folder).is_dir():
        pytest.skip(f"{folder} is not in the shared data")
    return prepare(Manifest.load(name, "questions"), shared_data / folder, protocol)


@pytest.mark.parametrize(
    ("name", "folder", "split", "images"),
    [
        ("vqa_rad", "vqa_rad", "train", 314),
        ("vqa_rad", "vqa_rad", "test", 203),
        ("slake_en", "slake", "train", 450),
        ("slake_en", "slake", "validation", 96),
        ("slake_zh", "slake", "test", 96),
        ("path_vqa_pairs", "path_vqa", "all", 955),
        ("vqa_med_2019", "vqa_med_2019", "test", 500),
    ],
)
def test_the_published_rows_are_read(
    shared_data: Path, name: str, folder: str, split: str, images: int
) -> None:
    manifest, root = Manifest.load(name, "questions"), shared_data / folder
    if split not in manifest.present_splits(root):
        pytest.skip(f"{folder} is not in the shared data")
    questions = manifest.questions(split, root)
    assert manifest.questions_are_published(split, root)
    assert len(questions) == manifest.splits[split].expected_questions
    assert len({question.image_id for question in questions}) == images


def test_what_vqa_rad_shares_between_its_splits(shared_data: Path) -> None:
    split = prepared(shared_data, "vqa_rad", "vqa_rad", "paper")
    found = {one.parts: one for one in shared(split)}["train", "test"]
    assert len(found.images) == 203
    assert (len(found.questions), found.same_answer) == (16, 16)


@pytest.mark.parametrize(
    ("protocol", "sizes", "candidates", "ceiling"),
    [
        ("paper", (3064, 0, 451), 120, (1.0, 1.0, 1.0)),
        ("strict", (2759, 305, 451), 460, (0.9024, 0.7877, 0.9779)),
        ("image_disjoint", (2769, 306, 440), 448, (0.7614, 0.3892, 0.9890)),
    ],
)
def test_vqa_rad_under_each_protocol(
    shared_data: Path,
    protocol: str,
    sizes: tuple[int, int, int],
    candidates: int,
    ceiling: tuple[float, float, float],
) -> None:
    split = prepared(shared_data, "vqa_rad", "vqa_rad", protocol)
    assert (len(split.train), len(split.validation), len(split.test)) == sizes
    assert len(split.candidates) == candidates
    assert [split.ceiling[name] for name in ("overall", "open", "closed")] == pytest.approx(ceiling, abs=5e-5)


def test_slakes_one_empty_answer_is_skipped(shared_data: Path) -> None:
    split = prepared(shared_data, "slake_en", "slake", "strict")
    assert split.skipped == {"the answer normalises to nothing": 1}
    assert not any(one.images for one in shared(split))


def test_vqa_med_has_several_right_answers(shared_data: Path) -> None:
    root = shared_data / "vqa_med_2019"
    if not root.is_dir():
        pytest.skip("vqa_med_2019 is not in the shared data")
    questions = Manifest.load("vqa_med_2019", "questions").questions("test", root)
    assert sum(bool(question.references) for question in questions) == 12
    assert sum(question.closed for question in questions) == 64


def test_twenty_medpix_cases_touch_vqa_rad_one_of_them_by_its_picture_only(shared_data: Path) -> None:
    for folder in ("vqa_rad", "medpix"):
        if not (shared_data / folder).is_dir():
            pytest.skip(f"{folder} is not in the shared data")
    manifest = Manifest.load("vqa_rad", "questions")
    questions = [
        question
        for split in manifest.splits
        for question in manifest.questions(split, shared_data / "vqa_rad")
    ]
    hashes = hash_questions(questions, shared_data / "vqa_rad")
    assert min(bits for one, other, bits in near(hashes, hashes, 30) if one != other) == 25
    pretraining = read_pretraining("medpix", str(shared_data / "medpix"), "all")
    images = sorted({question.image_id for question in questions})
    touches, _ = touching(images, hashes, pretraining, manifest.id_pattern)
    assert len({touch.case for touch in touches if touch.by == "id"}) == 19
    assert len({touch.case for touch in touches}) == 20
    near_numbers, _ = touching(images, None, pretraining, manifest.id_pattern, id_distance=1)
    assert len({touch.case for touch in near_numbers}) == 38
