"""`kg-targets build --scorer teacher --exclude`: a teacher is never asked about a listed case."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kg_targets.store import TargetStore, TeacherStore, verify_store
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import CAPTIONS, write_split
from training.teachers.registry import TEACHERS


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Captions, and images of all but the cases to leave out."""
    monkeypatch.setitem(TEACHERS, "fake", "tests.training.teachers.fakes:FakeEncoder")
    data = tmp_path / "data"
    write_split(data, "train", CAPTIONS)
    (data / "images").mkdir()
    for row in (0, 1, 4, 5):
        noise = np.random.default_rng(row).integers(0, 256, (40, 48), dtype=np.uint8)
        Image.fromarray(noise).save(data / "images" / f"train{row:03d}.png")
    return data


def teach(root: Path, cases: str | None, teacher: str = "fake:1") -> tuple[TargetStore, list[str]]:
    """The train store, and what was said."""
    path = root.parent / "cases.txt"
    if cases is not None:
        path.write_text(cases)
    said: list[str] = []
    config = BuildConfig(
        dataset="demo",
        split="train",
        data_root=root,
        out=root.parent / "out",
        rows_per_shard=3,
        scorer="teacher",
        teacher=teacher,
        exclude=None if cases is None else path,
    )
    (store,) = build_data_set(config, said.append)
    return store, said


def test_listed_cases_are_in_no_row_and_their_images_are_not_read(root: Path) -> None:
    store, said = teach(root, "train-case1\ntrain-case3\n")
    assert isinstance(store, TeacherStore)
    verify_store(store.path)
    assert store.image_ids == ["train000", "train001", "train004", "train005"]
    assert store.captions == [CAPTIONS[row] for row in (0, 1, 4, 5)] and store.known.all()
    assert "train: 2 of the 2 excluded case(s) found, 4 image(s) left out" in said
    facts = store.manifest["excluded"]
    assert (facts["cases_listed"], facts["cases_found"], facts["images"]) == (2, 2, 4)


def test_the_same_list_is_up_to_date_another_or_none_is_not(root: Path) -> None:
    first, _ = teach(root, "train-case1\ntrain-case3\n", "none")
    assert teach(root, "train-case3\ntrain-case1\n", "none")[1][-1].endswith("up to date")
    other, said = teach(root, "train-case1\n", "none")
    assert len(other) == 6 and not said[-1].endswith("up to date")
    whole, _ = teach(root, None, "none")
    assert "excluded" not in whole.manifest and len(whole) == len(CAPTIONS)
    assert len({first.fingerprint, other.fingerprint, whole.fingerprint}) == 3
