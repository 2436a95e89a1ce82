from pathlib import Path

import pytest

from kg_targets.manifest import Manifest
from tests.training.vqa.fakes import rows, write_data
from training.errors import ConfigError, DataError
from training.vqa.answers import accepted_answers
from training.vqa.predictions import predictions_of
from training.vqa.protocols import Split, folds_of, images_for, prepare


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_data(tmp_path)


def images(split: Split, part: str) -> set[str]:
    return {question.image_id for question in split.part(part)}


def test_paper_takes_its_answers_from_the_test_part_and_selects_nothing(manifest: Manifest) -> None:
    split = prepare(manifest, manifest.default_root, "paper")
    assert (len(split.train), len(split.validation), len(split.test)) == (36, 0, 12)
    assert set(split.candidates) == {
        answer for question in split.test for answer in accepted_answers(question)
    }
    assert split.ceiling == {"overall": 1.0, "open": 1.0, "closed": 1.0}
    assert "test" in split.candidate_source


def test_strict_never_sees_a_test_answer(tmp_path: Path) -> None:
    manifest = write_data(tmp_path, test=rows(range(3), 1000) + rows(range(90, 92), 2000))
    split = prepare(manifest, tmp_path, "strict", validation_share=0.25)
    assert not images(split, "train") & images(split, "validation")
    assert len(split.train) + len(split.validation) == 36
    assert {"organ 90", "organ 91"}.isdisjoint(split.candidates)
    assert split.candidates == tuple(sorted(split.candidates))
    assert split.ceiling["open"] == pytest.approx(3 / 5)
    assert split.ceiling["overall"] == pytest.approx(13 / 15)
    assert any("3 images" in note for note in split.notes)


def test_image_disjoint_deals_out_whole_images(manifest: Manifest) -> None:
    split = prepare(manifest, manifest.default_root, "image_disjoint", validation_share=0.2)
    parts = [images(split, part) for part in ("train", "validation", "test")]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert all(parts)
    assert sum(map(len, (split.train, split.validation, split.test))) == 48
    assert abs(len(split.test) - 12) <= 6  # as large as the official one, to the nearest image


def test_the_seeds_of_a_cut_by_image_are_folds(manifest: Manifest) -> None:
    count = folds_of(48, 12)
    folds = [
        prepare(manifest, manifest.default_root, "image_disjoint", seed=seed) for seed in range(2 * count)
    ]
    for dealing in (folds[:count], folds[count:]):
        tested = [question.id for split in dealing for question in split.test]
        assert len(tested) == len(set(tested)) == 48
    assert {question.id for question in folds[0].test} != {question.id for question in folds[count].test}


def test_the_same_seed_gives_the_same_parts_and_another_one_others(manifest: Manifest) -> None:
    root = manifest.default_root
    folds = [prepare(manifest, root, "image_disjoint", seed=seed) for seed in (0, 0, 1)]
    assert folds[0] == folds[1]
    assert folds[0].test != folds[2].test


def test_a_cut_is_written_down() -> None:
    """Another library or Python must not move an image to another part: recorded from the first version."""
    questions = [question for image in range(6) for question in _questions(image)]
    assert images_for(questions, 4, 0, "test") == {"i3", "i4"}


def _questions(image: int) -> list[object]:
    from kg_targets.manifest import Question

    return [Question(f"{image}-{n}", f"i{image}", "", "q", "a", True, "c") for n in range(2)]


def test_an_answer_that_is_nothing_is_skipped_in_training_and_counts_in_the_test(tmp_path: Path) -> None:
    nothing = {"answer": "?!"}
    train = [*rows(range(6), 0), rows(range(1), 500)[0] | nothing, rows(range(1), 600)[0] | {"question": " "}]
    test = [*rows(range(2), 1000), rows(range(1), 1500)[0] | nothing]
    split = prepare(write_data(tmp_path, train, test), tmp_path, "strict")
    assert split.skipped == {"the answer normalises to nothing": 1, "the question is empty": 1}
    assert len(split.test) == 7
    assert split.ceiling["overall"] == pytest.approx(6 / 7)
    paper = prepare(write_data(tmp_path, train, test), tmp_path, "paper")
    assert paper.ceiling["overall"] == pytest.approx(6 / 7)
    assert any("nobody answers" in note for note in paper.notes)


def test_an_official_validation_part_is_kept_by_strict_and_left_by_paper(tmp_path: Path) -> None:
    manifest = write_data(tmp_path)
    spec = manifest.splits["train"].model_copy(update={"files": {"questions": "validation.json"}})
    (tmp_path / "validation.json").write_text(
        (tmp_path / "testset.json").read_text().replace('"qid": 10', '"qid": 30')
    )
    manifest = manifest.model_copy(update={"splits": {**manifest.splits, "validation": spec}})
    strict, paper = (prepare(manifest, tmp_path, protocol) for protocol in ("strict", "paper"))
    assert (len(strict.train), len(strict.validation)) == (36, 12)
    assert (len(paper.train), len(paper.validation)) == (36, 0)
    assert any("not used" in note for note in paper.notes)


def test_a_set_without_official_splits_can_only_be_cut_by_image(tmp_path: Path) -> None:
    manifest = write_data(tmp_path)
    manifest = manifest.model_copy(update={"splits": {"all": manifest.splits["train"]}})
    with pytest.raises(ConfigError, match="image_disjoint"):
        prepare(manifest, tmp_path, "strict")
    assert 3 <= len(prepare(manifest, tmp_path, "image_disjoint").test) <= 12


@pytest.mark.parametrize(
    "wrong", [{"protocol": "fair"}, {"seed": -1}, {"validation_share": 0.0}, {"validation_share": 0.9}]
)
def test_wrong_options_are_refused(manifest: Manifest, wrong: dict[str, object]) -> None:
    options = {"protocol": "strict", **wrong}
    with pytest.raises(ConfigError):
        prepare(manifest, manifest.default_root, **options)  # type: ignore[arg-type]


def test_a_part_without_a_question_and_an_id_in_two_splits_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train"):
        prepare(write_data(tmp_path, train=[]), tmp_path, "paper")
    with pytest.raises(DataError, match="is in train and in test"):
        prepare(write_data(tmp_path, test=rows(range(2), 0)), tmp_path, "paper")


def test_no_answer_is_known_for_being_a_part_of_another(tmp_path: Path) -> None:
    # The released code built its vocabulary with a substring test (methods.md §2.6).
    answers = ("no", "normal", "nodule")
    for known, other in (("no", ("normal", "nodule")), ("normal", ("no", "nodule"))):
        train = [{**row, "answer": known} for row in rows(range(6), 0)]
        test = [{**row, "answer": other[place % 2]} for place, row in enumerate(rows(range(10, 14), 1000))]
        manifest = write_data(tmp_path / known, train, test)
        strict, paper = (prepare(manifest, tmp_path / known, name) for name in ("strict", "paper"))
        assert strict.candidates == (known,)
        assert paper.candidates == tuple(sorted(other))
        assert strict.ceiling["overall"] == 0.0
        for answer in answers:
            right = [row.correct for row in predictions_of(strict, "test", [answer] * len(test)).rows]
            assert right == [row["answer"] == answer for row in test]
