"""The demo data set: same seed, same bytes; splits by case; captions that agree with their labels."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kg_targets.errors import DataError
from pipelines.demo import COLUMNS, SPLITS, DemoSummary, write_demo, writer
from pipelines.demo.captions import FINDINGS, WORDS, compose_caption
from pipelines.demo.cases import RECIPES, Case, Series, plan_case, plan_cases, split_cases
from pipelines.demo.picture import draw_picture

_SMALL = 60


def _digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _rows(root: Path, split: str) -> list[dict[str, str]]:
    with (root / f"{split}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "data"
    write_demo(root, images=_SMALL, seed=3)
    return root


def test_two_workers_write_the_same_bytes_as_one(demo: Path, tmp_path: Path) -> None:
    write_demo(tmp_path / "again", images=_SMALL, seed=3, workers=2)
    assert _digests(tmp_path / "again") == _digests(demo)


def test_another_seed_gives_other_pictures_and_replaces_the_old_set(tmp_path: Path, demo: Path) -> None:
    root = tmp_path / "data"
    write_demo(root, images=_SMALL, seed=4)
    before = _digests(root)
    assert write_demo(root, images=_SMALL, seed=3).created
    assert _digests(root) == _digests(demo) != before


def test_a_complete_data_set_is_left_alone(demo: Path) -> None:
    stamp = (demo / "train.csv").stat().st_mtime_ns
    assert not write_demo(demo, images=_SMALL, seed=3).created
    assert (demo / "train.csv").stat().st_mtime_ns == stamp


def test_tables_list_every_picture_once_with_the_agreed_columns(demo: Path) -> None:
    listed = []
    for split in SPLITS:
        lines = (demo / f"{split}.csv").read_bytes()
        assert lines.startswith(",".join(COLUMNS).encode() + b"\n") and b"\r" not in lines
        rows = _rows(demo, split)
        assert rows and [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
        listed += [row["filepath"] for row in rows]
        assert all(row["licence"] == "CC0-1.0" and row["cuis"] == "" and row["caption"] for row in rows)
    assert len(listed) == len(set(listed)) == _SMALL
    assert {f"images/{path.name}" for path in (demo / "images").iterdir()} == set(listed)
    with Image.open(demo / listed[0]) as picture:
        assert picture.size == (128, 128) and picture.mode == "L" and picture.format == "PNG"


def test_no_case_is_in_two_splits(demo: Path) -> None:
    groups = [{row["group_id"] for row in _rows(demo, split)} for split in SPLITS]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_the_full_demo_splits_about_seventy_ten_twenty_with_every_finding_in_train_and_test() -> None:
    cases = plan_cases(0, 2000)
    splits = split_cases(cases, 0)
    images = {
        name: sum(len(s) for (_, s), split in zip(cases, splits, strict=True) if split == name)
        for name in SPLITS
    }
    assert sum(images.values()) == 2000
    assert (
        abs(images["train"] - 1400) < 10 and abs(images["dev"] - 200) < 10 and abs(images["test"] - 400) < 10
    )
    for name in ("train", "test"):
        seen = {(c.region, c.finding) for (c, _), split in zip(cases, splits, strict=True) if split == name}
        assert seen == {(recipe.region, recipe.finding) for recipe in RECIPES}


def test_a_case_does_not_depend_on_the_cases_before_it() -> None:
    assert plan_cases(5, 100)[17] == plan_case(5, 17)


def test_captions_never_deny_their_own_finding_and_deny_only_what_they_say_they_deny() -> None:
    omitted = silent = negated = total = 0
    imaging = {word for words in WORDS["imaging"].values() for word in words} | {"CXR"}
    for case, series in plan_cases(1, 3000):
        rng = np.random.default_rng(case.index)
        for one in series:
            caption = compose_caption(case, one, rng, arrow=False)
            total += 1
            negated += bool(caption.negated)
            assert case.finding not in caption.negated
            assert caption.asserted in ((), (case.finding,))
            assert "  " not in caption.text and "{" not in caption.text and caption.text.endswith(".")
            own = FINDINGS[case.region, case.finding].names if case.finding != "normal" else ()
            named = any(name.lower() in caption.text.lower() for name in own)
            if caption.asserted:
                assert named
            else:
                omitted += case.finding != "normal"
                silent += not any(word in caption.text for word in imaging)
            for finding in caption.negated:
                terms = FINDINGS[case.region, finding]
                names = [*terms.names, *terms.plurals]
                tail = max(
                    caption.text.lower().rfind(cue)
                    for cue in ("no ", "no evidence", "without", "negative for")
                )
                assert any(name.lower() in caption.text.lower()[tail:] for name in names)
    assert 0.05 < omitted / total < 0.15
    assert 0.2 < negated / total < 0.5
    assert 0.01 < silent / total < 0.04


def test_a_caption_mentions_an_arrow_only_where_one_is_drawn() -> None:
    for case, series in plan_cases(2, 400):
        caption = compose_caption(case, series[0], np.random.default_rng(case.index), arrow=False)
        assert "arrow" not in caption.text


@pytest.mark.parametrize(
    ("region", "finding", "series"),
    [
        ("chest", "pleural effusion", Series("x-ray", "frontal")),
        ("chest", "lung mass", Series("ct", "soft")),
        ("head", "cerebral infarction", Series("mri", "dwi")),
        ("head", "intracerebral haemorrhage", Series("ct", "axial")),
        ("abdomen", "kidney stone", Series("ct", "axial")),
    ],
)
def test_a_finding_of_the_patients_left_lies_in_the_images_right_half(
    region: str, finding: str, series: Series
) -> None:
    def mean_picture(name: str, laterality: str) -> np.ndarray:
        pictures = []
        for k in range(12):
            case = Case(
                0, region, name, laterality, "lower" if region == "chest" else "", 0.8, 1.0, 50, "male"
            )
            pictures.append(
                draw_picture(case, series, np.random.default_rng(k), arrow=False)[0].astype(np.float64)
            )
        return np.mean(pictures, axis=0)

    for laterality, half in (("left", np.s_[:, 64:]), ("right", np.s_[:, :64])):
        change = np.abs(mean_picture(finding, laterality) - mean_picture("normal", ""))
        assert change[half].sum() > 0.55 * change.sum()


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            write_demo(tmp_path / "data", images=_SMALL, workers=workers, progress=interrupt)
        assert list(tmp_path.iterdir()) == []


def test_of_two_runs_at_once_the_later_sees_the_earliers_folder_as_up_to_date(
    tmp_path: Path, demo: Path
) -> None:
    inner: list[DemoSummary] = []

    def another_run_finishes_first(done: int, total: int) -> None:
        if not inner:
            inner.append(write_demo(tmp_path / "data", images=_SMALL, seed=3))

    outer = write_demo(tmp_path / "data", images=_SMALL, seed=3, progress=another_run_finishes_first)
    assert inner[0].created and not outer.created
    assert _digests(tmp_path / "data") == _digests(demo)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_of_two_runs_with_different_seeds_the_last_to_finish_is_whole(tmp_path: Path, demo: Path) -> None:
    inner: list[DemoSummary] = []

    def another_run_finishes_first(done: int, total: int) -> None:
        if not inner:
            inner.append(write_demo(tmp_path / "data", images=_SMALL, seed=4))

    assert write_demo(tmp_path / "data", images=_SMALL, seed=3, progress=another_run_finishes_first).created
    assert _digests(tmp_path / "data") == _digests(demo)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_an_interruption_while_an_older_set_is_replaced_leaves_the_older_one(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    write_demo(root, images=_SMALL, seed=3)
    rename, calls = writer._renamed, []

    def interrupted_the_second_time(source: Path, target: Path) -> bool:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(writer, "_renamed", interrupted_the_second_time)
    with pytest.raises(KeyboardInterrupt):
        write_demo(root, images=_SMALL, seed=4)
    assert _digests(root) == _digests(demo)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_others_may_read_the_data_set_as_they_may_any_new_folder(tmp_path: Path, demo: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert demo.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_present_folder_is_a_place_like_any_other(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert write_demo(Path("."), images=_SMALL, seed=3).created
    assert _digests(tmp_path / "here") == _digests(demo)


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for place in (tmp_path / "file" / "data", tmp_path / "file" / "deep" / "data"):
        with pytest.raises(DataError, match=r"cannot be written there|not a demo data set") as caught:
            write_demo(place, images=_SMALL)
        assert "\n" not in str(caught.value) and "choose another folder" in str(caught.value)
    with pytest.raises(DataError, match="not a demo data set"):
        write_demo(tmp_path / "file", images=_SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_demo(tmp_path / "data", images=_SMALL, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (_SMALL, _SMALL) and seen == sorted(seen)


def test_a_folder_that_is_no_demo_data_set_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not a demo data set"):
        write_demo(tmp_path / "data", images=_SMALL)
    assert (tmp_path / "data" / "thesis.txt").read_text() == "precious"


def test_too_few_images_or_a_negative_seed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images=3"):
        write_demo(tmp_path / "data", images=3)
    with pytest.raises(DataError, match="seed=-1"):
        write_demo(tmp_path / "data", seed=-1)
