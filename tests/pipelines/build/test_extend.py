"""`kg-targets build --extend STORE` as a person uses it: old rows stay, new ones are as in a build of all of them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from kg_targets.inspect.card import write_card
from kg_targets.store import StoreWriter, TargetStore, mapped, verify_store
from kg_targets.store.digest import file_sha256
from pipelines import cli
from pipelines.audit.rescoring import recomputation_error
from tests.builds import RICH, digests, write_split

pytestmark = pytest.mark.e2e
NEW = (
    "Mammography with a mass in the left breast.",
    *RICH[8:],
    "CT of the spleen: splenomegaly.",
    "Figure 1.",
)


def run(world: Path, out: Path, split: str, *arguments: object) -> int:
    """Build a split into a folder, or let it join the store that ``--extend`` names."""
    where = () if "--extend" in arguments else ("--out", out)
    common = ["build", "demo", "--split", split, "--data-root", world, "--workers", 1, *where]
    return cli.main([str(each) for each in (*common, "--rows-per-shard", 5, *arguments)])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data: train, dev whose rows join it, test which has the rows of both."""
    folder = tmp_path_factory.mktemp("extend")
    write_split(folder, "train", RICH[:8])
    write_split(folder, "dev", NEW)
    frames = [pd.read_csv(folder / f"{split}.csv", keep_default_na=False) for split in ("train", "dev")]
    pd.concat(frames).to_csv(folder / "test.csv", index=False)
    return folder


def factors_by_cui(store: TargetStore) -> dict[tuple[str, str], bytes]:
    """The bytes of each number of the factors, by image and CUI (sparse) or column (dense)."""
    found = sparse.coo_array(store.factors)
    names = store.concepts["cui"].tolist() if sparse.issparse(store.factors) else range(found.shape[1])
    return {
        (store.image_ids[row], names[column]): value.tobytes()
        for row, column, value in zip(*found.coords, found.data, strict=True)
    }


SCORERS = {
    "ontology": (),
    "blocks": ("--blocks", "1:2:1"),
    "no ontology": ("--no-ontology",),
    "identity": ("--scorer", "identity"),
    "noise": ("--scorer", "noise"),
    "transe": ("--scorer", "transe", "--scorer-options", "seeds=1,dim=8,epochs=2"),
}


@pytest.mark.parametrize("options", SCORERS.values(), ids=SCORERS)
def test_new_rows_are_as_in_a_build_of_all_rows_with_the_same_statistics(
    world: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    if "transe" in options:
        pytest.importorskip("torch")
    assert run(world, tmp_path, "test", "--fit-split", "train", *options) == 0
    fit, whole = (TargetStore.open(tmp_path / split) for split in ("train", "test"))
    shutil.copytree(fit.path, tmp_path / "own" / "train")
    assert run(world, tmp_path, "dev", "--extend", tmp_path / "own" / "train", *options) == 0
    store = TargetStore.open(tmp_path / "own" / "train")
    assert verify_store(store.path) and len(store) == len(whole) == len(fit) + len(NEW)
    assert store.fingerprint != fit.fingerprint and store.threshold == fit.threshold
    assert factors_by_cui(store) == factors_by_cui(whole)
    for column in ("image_id", "caption", "group_id", "label_region", "cuis", "known", "neighbor_scores"):
        assert store.column(column).to_pylist() == whole.column(column).to_pylist(), column
    pd.testing.assert_frame_equal(store.mentions, whole.mentions)
    pd.testing.assert_frame_equal(store.edges, whole.edges)
    known = len(fit.concepts)
    assert store.concepts["cui"][:known].tolist() == fit.concepts["cui"].tolist()
    assert store.concepts["cui"][known:].is_monotonic_increasing
    own, theirs = (each.concepts.set_index("cui").sort_index() for each in (store, whole))
    pd.testing.assert_frame_equal(own.drop(columns="concept"), theirs.drop(columns="concept"))
    (entry,) = store.manifest["extensions"]
    assert (entry["split"], entry["rows"], entry["extended"]) == ("dev", len(NEW), fit.fingerprint)
    assert entry["concepts"] == len(store.concepts) - known
    for name in ("unknown_cuis", "unknown_cuis_count", "confirmation"):
        assert store.manifest[name] == whole.manifest[name], name


@pytest.fixture(scope="module")
def base(world: Path) -> Path:
    """A folder with the stores of train and, fitted on it, dev."""
    assert run(world, world / "base", "dev") == 0
    return world / "base"


@pytest.fixture
def stores(base: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(base, tmp_path / "stores"))


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """Another data root, with a split ``test`` of new images, whose rows have a label that others lack."""
    path = write_split(tmp_path / "later", "test", ("CT of the pancreas: pseudocyst.", *RICH[:2]))
    pd.read_csv(path, keep_default_na=False).assign(label_view="axial").to_csv(path, index=False)
    return path.parent


def refusal(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The one line of an error."""
    captured = capsys.readouterr()
    assert code == 2 and captured.err.count("\n") == 1, captured.err
    return captured.err


def test_the_same_commands_give_the_same_bytes_at_any_number_of_workers(
    world: Path, stores: Path, base: Path
) -> None:
    again = stores.with_name("again")
    shutil.copytree(base, again)
    assert run(world, stores, "dev", "--extend", stores / "train") == 0
    assert run(world, again, "dev", "--extend", again / "train", "--workers", 2) == 0
    assert digests(stores / "train") == digests(again / "train")


def test_without_neighbours_the_shards_of_the_store_stay_the_same_files(world: Path, tmp_path: Path) -> None:
    assert run(world, tmp_path, "train", "--top-k", 0) == 0
    kept = [*(tmp_path / "train" / "targets").iterdir(), *(tmp_path / "train" / "mentions").iterdir()]
    before = {path: (path.stat().st_ino, file_sha256(path)) for path in kept}
    assert run(world, tmp_path, "dev", "--extend", tmp_path / "train") == 0
    assert {path: (path.stat().st_ino, file_sha256(path)) for path in kept} == before
    assert verify_store(tmp_path / "train") and not list(tmp_path.glob(".*"))


def test_the_store_of_another_split_keeps_its_statistics_and_its_neighbours_know_the_new_rows(
    stores: Path, later: Path
) -> None:
    before = TargetStore.open(stores / "dev")
    old = before.factors.toarray()
    assert run(later, stores, "test", "--extend", stores / "dev") == 0
    store = TargetStore.open(stores / "dev")
    assert verify_store(store.path) and store.labels == ("region", "view")
    assert store.label("view") == [""] * len(before) + ["axial"] * 3
    np.testing.assert_array_equal(store.factors[: len(before)].toarray()[:, : old.shape[1]], old)
    assert store.manifest["fit"] == before.manifest["fit"] and store.threshold == before.threshold
    seen = {row for rows in store.column("neighbor_rows").to_pylist()[: len(before)] for row in rows}
    assert max(seen) >= len(before)
    assert recomputation_error(store) < 1e-6
    assert store.explain(len(store) - 2, 0).similarity > 0


def test_an_extended_store_is_extended_again_and_stays_the_one_that_others_are_fitted_on(
    world: Path,
    stores: Path,
    later: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = stores / "train"
    assert run(world, stores, "dev", "--extend", train) == 0
    once = TargetStore.open(train)
    assert run(later, stores, "test", "--extend", train) == 0
    twice = TargetStore.open(train)
    assert [entry["split"] for entry in twice.manifest["extensions"]] == ["dev", "test"]
    assert twice.concepts["cui"][: len(once.concepts)].tolist() == once.concepts["cui"].tolist()
    assert recomputation_error(twice) < 1e-6 and write_card(twice, stores / "card.html").is_file()
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)
    assert "mapped copies are what the shards hold" in verify_store(train)[-1]
    monkeypatch.undo()
    capsys.readouterr()
    before = digests(stores / "dev")
    assert run(world, stores, "dev") == 0  # train is up to date, and dev, fitted on it, too
    told = capsys.readouterr().out
    assert told.count("up to date") == 2 and "up to date, with 12 rows that joined it" in told
    assert run(world, stores, "dev", "--force") == 0 and digests(stores / "dev") == before
    assert "warning: --force builds" in capsys.readouterr().out
    assert len(TargetStore.open(train)) == 8


def test_a_second_run_is_up_to_date_and_no_build_drops_what_has_joined(
    world: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = stores / "train"
    assert run(world, stores, "dev", "--extend", train) == 0
    before = digests(train)
    capsys.readouterr()
    assert run(world, stores, "dev", "--extend", train) == 0
    assert "the rows of demo/dev have joined it" in capsys.readouterr().out
    error = refusal(capsys, run(world, stores, "train", "--no-ontology"))
    assert f"{train} was extended by 9 rows" in error and "--force" in error
    assert digests(train) == before


REFUSED = {
    "scorer": (("--scorer", "noise"), "--scorer: "),
    "a default": (("--no-part-of", "--shrinkage", 2.0), "--part-of: "),
    "out": (("--out", "elsewhere"), "--out does not go with --extend"),
    "force": (("--force",), "--force does not go with --extend"),
    "ids": (("--split", "test"), "8 of 17 image ids are in "),
    "splits": (("--split", "all"), "--extend takes the rows of one split: --split train or"),
    "no store": (("--extend", "nowhere"), "nowhere is not a target store"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_contradicts_the_store_is_refused_in_one_line(
    world: Path, stores: Path, capsys: pytest.CaptureFixture[str], options: tuple[object, ...], message: str
) -> None:
    before = digests(stores)
    error = refusal(capsys, run(world, stores, "dev", "--extend", stores / "train", *options))
    assert message in error and digests(stores) == before and not list(stores.glob(".*"))


def test_an_option_of_another_value_than_the_stores_is_refused_though_it_is_the_default(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(world, tmp_path, "train", "--scorer", "noise") == 0
    extend = ("--extend", tmp_path / "train")
    assert "was built with 'noise'" in refusal(
        capsys, run(world, tmp_path, "dev", *extend, "--scorer", "ontology")
    )
    assert run(world, tmp_path, "dev", *extend, "--scorer", "noise") == 0


@pytest.mark.parametrize(
    ("scorer", "reason"),
    [
        (("--scorer", "permuted"), "an image's factor depends on all others"),
        (
            ("--scorer", "transe", "--scorer-options", "mode=transductive,seeds=1,dim=4,epochs=1"),
            "depends on all others",
        ),
    ],
)
def test_scorers_of_all_images_together_are_refused(
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scorer: tuple[str, ...],
    reason: str,
) -> None:
    if "transe" in scorer:
        pytest.importorskip("torch")
    assert run(world, tmp_path, "train", *scorer) == 0
    capsys.readouterr()
    assert reason in refusal(capsys, run(world, tmp_path, "dev", "--extend", tmp_path / "train"))


def test_a_mixture_is_refused_and_made_again_of_its_extended_parts(
    world: Path, stores: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise, out = stores.with_name("noise"), stores.with_name("mixed")
    assert run(world, noise, "train", "--scorer", "noise") == 0
    mixed = ["build", "demo", "--split", "train", "--scorer", "mixture", "--mix", f"{stores}|{noise}"]
    assert cli.main([*mixed, "--out", str(out)]) == 0
    capsys.readouterr()
    error = refusal(capsys, run(world, out, "dev", "--extend", out / "train"))
    assert "is a mixture: extend its parts, and mix them again" in error
    for part in (stores, noise):
        assert run(world, part, "dev", "--extend", part / "train") == 0
    assert cli.main([*mixed, "--out", str(out)]) == 0
    assert verify_store(out / "train") and len(TargetStore.open(out / "train")) == 17


def test_another_list_of_cases_to_leave_out_is_told(
    world: Path, stores: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = stores / "cases.txt"
    listed.write_text("dev-case0\n")
    assert run(world, stores, "dev", "--extend", stores / "train", "--exclude", listed) == 0
    out = capsys.readouterr().out
    assert "train was built without a list of cases to leave out" in out
    store = TargetStore.open(stores / "train")
    assert len(store) == 8 + len(NEW) - 2 and "dev-case0" not in store.group_ids
    assert store.manifest["extensions"][0]["excluded"]["images"] == 2


@pytest.mark.parametrize("damage", ["shard", "fit"])
def test_a_store_that_is_damaged_or_whose_fit_store_is_another_is_not_extended(
    world: Path, stores: Path, later: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    if damage == "shard":
        path = stores / "dev" / "targets" / "part-00000.parquet"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    else:
        assert run(world, stores, "train", "--shrinkage", 0) == 0
        capsys.readouterr()
    error = refusal(capsys, run(later, stores, "test", "--extend", stores / "dev"))
    assert ("is damaged" if damage == "shard" else "is not the store that") in error


@pytest.mark.parametrize("moment", ["link", "finish"])
def test_a_killed_extension_leaves_the_store_and_the_next_run_completes_it(
    world: Path, stores: Path, base: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    train, whole = stores / "train", stores.with_name("whole")
    shutil.copytree(base, whole)
    assert run(world, whole, "dev", "--extend", whole / "train") == 0
    child = os.fork()
    if not child:
        setattr(StoreWriter, moment, lambda *given: os._exit(9))
        run(world, stores, "dev", "--extend", train)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (stores / ".train.partial").is_dir() and verify_store(train)
    assert digests(train) == digests(base / "train")
    assert run(world, stores, "dev", "--extend", train) == 0
    assert digests(train) == digests(whole / "train") and not list(stores.glob(".*"))


def test_the_manifest_and_the_card_say_what_has_joined(world: Path, stores: Path) -> None:
    assert run(world, stores, "dev", "--extend", stores / "train") == 0
    manifest = json.loads((stores / "train" / "manifest.json").read_text())
    (entry,) = manifest["extensions"]
    assert entry["dataset"] == "demo" and entry["skipped_rows"] == {} and entry["inputs"]["captions_sha256"]
    assert "9 rows of demo/dev joined it later." in (stores / "train" / "README.md").read_text()
