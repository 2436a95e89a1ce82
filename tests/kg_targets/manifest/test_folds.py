"""Cross-validation folds: whole cases, evenly dealt, nothing lost on the way."""

import csv
import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_targets.errors import ConfigError, DataError, ManifestError, StoreError
from kg_targets.manifest import Manifest, Record
from kg_targets.manifest.folds import MARKER, FoldConfig, Folds, assign_cases, write_folds
from kg_targets.store import TargetStore
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from pipelines.cli import main
from pipelines.demo import write_demo
from tests.builds import CAPTIONS, write_split

CONFIG = FoldConfig(test=("train", "test"), train_only=("dev",), count=3)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "dev", "test"):
        write_split(tmp_path / "data", split, CAPTIONS)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "data"
    write_demo(root, images=60)
    return root


def cut(data: Path, out: Path, config: FoldConfig = CONFIG) -> Folds:
    return write_folds(Manifest.load("demo"), data, out, config)


def part(folds: Folds, name: str, split: str) -> list[Record]:
    folder = folds.folder / name
    return list(Manifest.load(folder / "manifest.yaml").records(split, folder))


def rewrite(path: Path, row: int, **values: str) -> None:
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[row] |= values
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=4, max_size=40),
    count=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_every_case_is_dealt_once_and_folds_differ_by_no_more_than_the_largest_case(
    sizes: list[int], count: int, seed: int
) -> None:
    cases = {f"case{number}": size for number, size in enumerate(sizes)}
    assigned = assign_cases(cases, count, seed)
    assert set(assigned) == set(cases) and set(assigned.values()) == set(range(count))
    held = [sum(cases[case] for case, fold in assigned.items() if fold == k) for k in range(count)]
    assert max(held) - min(held) <= max(sizes)
    assert assign_cases(dict(reversed(cases.items())), count, seed) == assigned


def test_another_seed_deals_otherwise() -> None:
    cases = dict.fromkeys(map(str, range(40)), 1)
    assert assign_cases(cases, 4, 0) != assign_cases(cases, 4, 1)


def test_cases_are_tested_once_and_never_trained_on_in_their_own_fold(data: Path, tmp_path: Path) -> None:
    folds = cut(data, tmp_path / "folds")
    assert folds.names == ("fold0", "fold1", "fold2") and folds.created
    everything = {f"{split}{row:03d}" for split in ("train", "dev", "test") for row in range(len(CAPTIONS))}
    tested: list[str] = []
    for name in folds.names:
        train, test = part(folds, name, "train"), part(folds, name, "test")
        assert not {record.group_id for record in train} & {record.group_id for record in test}
        assert {record.image_id for record in train + test} == everything
        assert {f"dev{row:03d}" for row in range(len(CAPTIONS))} <= {record.image_id for record in train}
        tested += [record.image_id for record in test]
    assert sorted(tested) == sorted(name for name in everything if not name.startswith("dev"))


def test_an_image_without_a_case_is_its_own(data: Path, tmp_path: Path) -> None:
    rewrite(data / "test.csv", 0, group_id="")
    records = [
        r for name in ("fold0", "fold1", "fold2") for r in part(cut(data, tmp_path / "f"), name, "test")
    ]
    assert next(record for record in records if record.image_id == "test000").group_id == "test000"


def test_images_of_a_tested_case_in_a_train_only_split_stay_out_of_its_fold(
    data: Path, tmp_path: Path
) -> None:
    rewrite(data / "dev.csv", 0, group_id="test-case0")
    folds = cut(data, tmp_path / "folds")
    for name in folds.names:
        tested = "test-case0" in {record.group_id for record in part(folds, name, "test")}
        assert ("dev000" in {record.image_id for record in part(folds, name, "train")}) is not tested
        assert "dev000" not in {record.image_id for record in part(folds, name, "test")}


def test_the_same_inputs_give_the_same_bytes_and_are_not_written_again(data: Path, tmp_path: Path) -> None:
    first, second = cut(data, tmp_path / "a"), cut(data, tmp_path / "b")
    assert content(first.folder) == content(second.folder)
    times = [path.stat().st_mtime_ns for path in first.folder.rglob("*")]
    assert not cut(data, tmp_path / "a").created
    assert times == [path.stat().st_mtime_ns for path in first.folder.rglob("*")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "data"]


@pytest.mark.parametrize("file", ["train.csv", "manifest.yaml"])
def test_a_damaged_or_lost_file_is_made_again(file: str, data: Path, tmp_path: Path) -> None:
    folds = cut(data, tmp_path / "folds")
    before = content(folds.folder)
    (folds.folder / "fold1" / file).write_text("damaged")
    assert cut(data, folds.folder).created and content(folds.folder) == before
    (folds.folder / "fold1" / file).unlink()
    assert cut(data, folds.folder).created and content(folds.folder) == before


def test_changed_captions_or_options_give_new_folds(data: Path, tmp_path: Path) -> None:
    cut(data, tmp_path / "folds")
    rewrite(data / "test.csv", 0, caption="Another text.")
    assert cut(data, tmp_path / "folds").created
    folds = cut(data, tmp_path / "folds", FoldConfig(("train", "test"), ("dev",), 2))
    assert folds.created and not (folds.folder / "fold2").exists()


def test_stores_of_a_fold_hold_the_rows_of_the_official_stores(demo: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = {"cache": None, "workers": 1}
    official = build_data_set(
        BuildConfig("demo", data_root=demo, out=tmp_path / "official", **options), said.append
    )
    folds = cut(demo, tmp_path / "folds", FoldConfig(("train", "test"), ("dev",), 2))
    folder = folds.folder / "fold0"
    config = BuildConfig(str(folder / "manifest.yaml"), data_root=folder, out=tmp_path / "fold0", **options)
    train, test = build_data_set(config, said.append)
    expected = {image: row for store in official for image, row in rows_of(store)}
    found = dict([*rows_of(train), *rows_of(test)])
    assert found == expected and len(train) + len(test) == 60
    assert train.manifest["fit"] == {"split": "train", "captions": len(train)}
    assert test.manifest["fit"] == {"split": "train", "captions": len(train)}
    assert (test.dataset, test.split) == ("demo-fold0", "test")
    assert all((demo / path).is_file() for path in test.image_paths)


def rows_of(store: TargetStore) -> Sequence[tuple[str, tuple[object, ...]]]:
    columns = [store.image_paths, store.captions, store.group_ids, store.licences, store.cuis]
    labels = [store.label(name) for name in sorted(store.labels)]
    return [
        (image, tuple(map(str, values)))
        for image, *values in zip(store.image_ids, *columns, *labels, strict=True)
    ]


def test_labels_licence_and_odd_captions_survive(data: Path, tmp_path: Path) -> None:
    odd = 'A "quoted", comma;\nnew line\ttab, 3 × 4 µm − é'
    rewrite(data / "train.csv", 3, caption=odd, label_region="")
    folds = cut(data, tmp_path / "folds")
    records = {record.image_id: record for name in folds.names for record in part(folds, name, "test")}
    original = {r.image_id: r for s in ("train", "test") for r in Manifest.load("demo").records(s, data)}
    assert records == original and records["train003"].caption == odd
    manifest = Manifest.load(folds.folder / "fold0" / "manifest.yaml")
    demo = Manifest.load("demo")
    assert (manifest.name, manifest.fit_split) == ("demo-fold0", "train")
    assert (manifest.licence, manifest.citation) == (demo.licence, demo.citation)
    assert manifest.label_concepts == demo.label_concepts


def test_a_text_that_csv_cannot_hold_is_refused_and_not_changed(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        line = {
            "U_id": "nan" if split == "dev" else f"{split}1",  # a case by this name is read as none
            "image": f"{split}a",
            "Description": {"Caption": "CT of the chest."},
        }
        (tmp_path / f"descriptions_{split}.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(DataError, match="cannot be written as CSV without a change"):
        write_folds(Manifest.load("medpix"), tmp_path, tmp_path / "out", FoldConfig(("train", "dev"), (), 2))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".jsonl"]


def test_only_folds_are_ever_replaced(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("kept")
    with pytest.raises(DataError, match="holds no folds"):
        cut(data, out)
    (out / "thesis.txt").unlink()
    cut(data, out)
    (out / "fold0" / "notes.txt").write_text("kept")
    with pytest.raises(DataError, match=r"fold0/notes\.txt is not part of the folds"):
        cut(data, out, FoldConfig(("train",), (), 2))
    assert (out / "fold0" / "notes.txt").is_file() and (out / MARKER).is_file()


def test_what_lies_beside_the_folds_is_left_alone(data: Path, tmp_path: Path) -> None:
    for name in (".folds.partial", ".folds.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("kept")
    cut(data, tmp_path / "folds")
    cut(data, tmp_path / "folds", FoldConfig(("train",), (), 2))
    assert all((tmp_path / name / "thesis.txt").is_file() for name in (".folds.partial", ".folds.old"))
    assert len(list(tmp_path.iterdir())) == 4
    assert (tmp_path / "folds").stat().st_mode == data.stat().st_mode


def test_folds_stay_where_new_ones_cannot_be_moved_in(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(cut(data, tmp_path / "folds").folder)
    move = os.replace

    def stuck(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError(errno.EBUSY, "Device or resource busy")
        move(source, target)

    monkeypatch.setattr("os.replace", stuck)
    with pytest.raises(StoreError, match="cannot be written"):
        cut(data, tmp_path / "folds", FoldConfig(("train",), (), 2))
    assert content(tmp_path / "folds") == before and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("out", [".", "..", "../here"])
def test_the_folder_of_the_command_is_not_replaced(
    out: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match=f"--out {out}: a folder that the command runs in cannot be replaced"):
        cut(data, Path(out))
    assert not any((tmp_path / "here").iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 1}, "--folds 1 must be at least 2"),
        ({"seed": -1}, "--seed -1 must be at least 0"),
        ({"test": ()}, "--test names no split"),
        ({"test": ("train", "train")}, "name split 'train' twice"),
        ({"train_only": ("train",)}, "name split 'train' twice"),
    ],
)
def test_impossible_options_are_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FoldConfig(**{"test": ("train",), **options})  # type: ignore[arg-type]


def test_unknown_splits_too_many_folds_and_repeated_ids_are_told(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="split 'tset' is not one of train, dev, test"):
        cut(data, tmp_path / "out", FoldConfig(("tset",)))
    with pytest.raises(DataError, match="4 cases cannot fill 5 folds"):
        cut(data, tmp_path / "out", FoldConfig(("test",)))
    rewrite(data / "test.csv", 0, image_id="train000")
    with pytest.raises(DataError, match="'train000' is in train and in test"):
        cut(data, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_command_says_what_it_did(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "folds"
    command = ["folds", "demo", "--data-root", str(data), "--test", "train, test", "--train-only", "dev"]
    command += ["--folds", "2", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "fold0: train 16 images of 8 cases, test 8 of 4" in said and said.endswith(f"{out}: written\n")
    assert main(command) == 0
    assert capsys.readouterr().out.endswith("up to date, nothing to do\n")
    assert main([*command, "--folds", "9"]) == 2
    assert capsys.readouterr().err == "error: 8 cases cannot fill 9 folds: lower --folds\n"


def test_real_cases_are_cut_alike_whatever_text_is_used(shared_data: Path, tmp_path: Path) -> None:
    config = FoldConfig(("train", "test"), ("dev",), 5)
    cuts = [
        write_folds(Manifest.load(name), shared_data / "medpix", tmp_path / name, config)
        for name in ("medpix", "medpix_case")
    ]
    tested = []
    for name in cuts[0].names:
        plain, long = (part(folds, name, "test") for folds in cuts)
        assert [(r.image_id, r.group_id) for r in plain] == [(r.image_id, r.group_id) for r in long]
        assert all(len(b.caption) >= len(a.caption) for a, b in zip(plain, long, strict=True))
        assert len(plain) in (370, 371)
        tested += plain
    assert len({record.image_id for record in tested}) == len(tested) == 1853
