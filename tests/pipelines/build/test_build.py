"""`kg-targets build` as a person uses it: exit codes, one-line errors, second runs, Ctrl-C, nothing half-written."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kg_targets.concepts import Extractor
from kg_targets.ontology import Ontology
from kg_targets.store import TargetStore
from pipelines import cli
from pipelines.build import extract
from pipelines.build.config import BuildConfig
from pipelines.build.extractors import make_extractor
from pipelines.build.recipe import build_data_set
from pipelines.cli import INTERRUPTED
from tests.builds import CAPTIONS, RICH, build, write_split
from tests.kg_targets.ontology.fixtures import mrconso, mrcui, write_umls

pytestmark = pytest.mark.e2e


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def data(folder: Path) -> Path:
    for split in ("train", "dev", "test"):
        write_split(folder / "data", split, CAPTIONS)
    return folder / "data"


def build_from(folder: Path, out: Path, said: list[str] | None = None, **options: Any) -> TargetStore:
    config = BuildConfig(dataset="demo", split="train", data_root=folder, out=out, workers=1, **options)
    return build_data_set(config, (said if said is not None else []).append)[0]


def test_all_splits_are_built_fit_split_first_and_a_second_run_skips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("build", "demo", "--data-root", data(tmp_path), "--out", tmp_path / "out")
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "dev",
        "test",
        "train",
    ]
    assert "most frequent" in out and "captions with a concept" in out
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and out.count("up to date") == 3
    for command in (("verify",), ("explain",)):
        extra = ("train000",) if command == ("explain",) else ()
        code, out, err = run(capsys, *command, tmp_path / "out" / "train", *extra)
        assert code == 0 and out and not err


def test_changed_captions_or_options_build_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = data(tmp_path)
    arguments = ("build", "demo", "--split", "train", "--data-root", folder, "--out", tmp_path / "out")
    run(capsys, *arguments)
    assert "up to date" not in run(capsys, *arguments, "--no-ontology")[1]
    write_split(folder, "train", CAPTIONS[:3])
    assert "out/train: 3 images" in run(capsys, *arguments, "--no-ontology")[1]


def test_other_splits_reuse_the_statistics_of_train(tmp_path: Path) -> None:
    folder = data(tmp_path)
    write_split(folder, "dev", [CAPTIONS[0]] * 5)
    config = BuildConfig(dataset="demo", split="dev", data_root=folder, out=tmp_path / "out", workers=1)
    train, dev = build_data_set(config, lambda line: None)
    shared = train.concepts.merge(dev.concepts, on="cui")
    assert len(shared) > 2
    assert (
        shared["ic_x"].tolist() == shared["ic_y"].tolist()
        and shared["idf_x"].tolist() == shared["idf_y"].tolist()
    )
    assert train.threshold == dev.threshold


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("build", "nothing"), "data set 'nothing' is not one of"),
        (("build", "demo", "--split", "val"), "split 'val' is not one of train, dev, test"),
        (("build", "demo", "--scorer", "magic"), "--scorer magic is not one of"),
        (("build", "demo", "--extractor", "magic"), "--extractor magic is not one of"),
        (("build", "demo", "--ontology", "magic"), "no source magic"),
        (("build", "demo", "--uncertain", "maybe"), "--uncertain maybe is not one of keep, half, drop"),
        (("build", "demo", "--top-k", "-1"), "--top-k: -1 must be at least 0"),
        (("build", "demo", "--neighbors", "some"), "--neighbors some is not one of auto, exact, approximate"),
        (("build", "demo", "--max-hops", "2", "--no-ontology"), "contradict each other"),
        (("verify", "nowhere"), "is not a target store"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    extra = ("--data-root", data(tmp_path), "--out", tmp_path / "out") if arguments[0] == "build" else ()
    code, _, err = run(capsys, *arguments, *extra)
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err.replace("'magic'", "magic")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", ["", "image_id,filepath,caption\n", "image_id,filepath,caption\n,x.png,CT\n"]
)
def test_a_split_without_a_usable_row_leaves_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    folder = data(tmp_path)
    (folder / "train.csv").write_text(content)
    code, _, err = run(capsys, "build", "demo", "--data-root", folder, "--out", tmp_path / "out")
    assert code == 2 and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_duplicate_id_found_late_leaves_the_earlier_store_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = build(tmp_path)
    path = tmp_path / "data" / "train.csv"
    path.write_text(path.read_text() + path.read_text().splitlines()[1] + "\n")
    code, _, err = run(capsys, "build", "demo", "--data-root", tmp_path / "data", "--out", tmp_path / "out")
    assert code == 2 and "already given" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train"]
    assert build(tmp_path / "again").fingerprint == before.fingerprint


def test_cuis_of_the_data_set_that_the_ontology_lacks_are_counted_and_can_be_left_out(tmp_path: Path) -> None:
    folder = data(tmp_path)
    (folder / "train.csv").write_text(
        "image_id,filepath,caption,cuis\na,a.png,CT of the chest,C9999999|C0817096\nb,b.png,MRI,not-a-cui\n"
    )
    said: list[str] = []
    store = build_from(folder, tmp_path / "out", said, extractor="union", keep_unknown_cuis=False)
    assert store.manifest["unknown_cuis"]["C9999999"] == 1
    assert any("1 CUIs that the ontology lacks are left out: C9999999 ×1" in line for line in said)
    assert "C9999999" not in store.cuis[0]


def test_retired_cuis_of_the_data_set_are_followed_and_counted(tmp_path: Path) -> None:
    folder = data(tmp_path)
    (folder / "train.csv").write_text(
        "image_id,filepath,caption,cuis\na,a.png,CT,C0000009|C0000002\nb,b.png,MRI,C0000001|C0000009\n"
    )
    names = [mrconso("C0000001", "Lung"), mrconso("C0000002", "Chest")]
    umls = write_umls(tmp_path / "umls", names, retired=[mrcui("C0000009", "SY", "C0000001")])
    said: list[str] = []
    store = build_from(
        folder, tmp_path / "out", said, extractor="provided", ontology=f"umls:{umls}", cache=None
    )
    assert store.cuis == [["C0000001", "C0000002"], ["C0000001"]]
    assert store.manifest["retired_cuis"] == {"C0000009": 2} and store.manifest["unknown_cuis"] == {}
    assert "  retired CUIs, followed to their successors: C0000009 ×2" in said


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "data"
    for split in ("train", "dev", "test"):
        write_split(folder, split, CAPTIONS * 20_000)
    command = ["-m", "pipelines.cli", "build", "demo", "--data-root", folder, "--out", tmp_path / "out"]
    arguments = [sys.executable, *map(str, command), "--workers", str(workers), "--rows-per-shard", "500"]
    process = subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "out" / ".train.partial").glob("mentions/*.parquet")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        for _ in range(6):  # Python may lose a signal while it forks; a person presses Ctrl-C again
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, err = process.communicate(timeout=15)
                break
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert err == f"{INTERRUPTED}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["build", "evaluate concepts"])
def test_what_an_extractor_lacks_is_said_before_an_ontology_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    extractor = ("--extractor", "scispacy", "--extractor-options", "model=en_core_sci_none")
    where = ("--data-root", data(tmp_path), "--ontology", f"obo:{tmp_path / 'none.obo'}")
    code, _, err = run(capsys, *command.split(), "demo", *where, *extractor)
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: extractor scispacy: ") and "run: pip install" in err


def test_extractor_options_reach_the_extractor_and_wrong_ones_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("build", "demo", "--split", "train", "--data-root", data(tmp_path), "--out", tmp_path / "out")
    assert run(capsys, *common, "--extractor-options", "kinds=finding")[0] == 0
    kinds = set(TargetStore.open(tmp_path / "out" / "train").concepts.query("images > 0")["kind"])
    assert kinds == {"finding"}
    for wrong, message in {
        "kinds": "is not key=value",
        "colour=red": "do not fit --extractor dictionary",
    }.items():
        code, _, err = run(capsys, *common, "--extractor-options", wrong)
        assert code == 2 and message in err and err.count("\n") == 1


def test_cuis_the_ontology_lacks_are_lone_concepts_and_the_summary_says_who_would_place_them(
    tmp_path: Path,
) -> None:
    folder = data(tmp_path)
    (folder / "train.csv").write_text(
        "image_id,filepath,caption,cuis\na,a.png,one,C9999999\nb,b.png,two,C9999999\nc,c.png,three,\n"
    )
    said: list[str] = []
    store = build_from(folder, tmp_path / "out", said, extractor="provided", shrinkage=0.0)
    line = next(line for line in said if "stand alone" in line)
    assert "1 CUIs that the ontology lacks stand alone" in line and "umls:META" in line
    assert store.cuis == [["C9999999"], ["C9999999"], []]
    assert store.block([0, 1, 2]).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_the_summary_says_how_much_rests_on_cuis_of_a_single_source(tmp_path: Path) -> None:
    folder = data(tmp_path)
    write_split(folder, "train", ("A chest CT with an opacity.", "CT of the head.", "Chest x-ray, opacity."))
    said: list[str] = []
    wide = build_from(folder, tmp_path / "wide", said)
    assert wide.manifest["confirmation"] == {"concepts": 5, "singly_confirmed": 1, "share": 0.25}
    assert any("1 of 5 concepts, 25.0%" in line for line in said)
    said.clear()
    strict = build_from(folder, tmp_path / "strict", said, ontology="seed-strict")
    assert strict.manifest["confirmation"]["singly_confirmed"] == 0
    assert not any("single source" in line for line in said)


def test_uncertain_concepts_count_in_full_half_or_not_at_all_and_others_never(tmp_path: Path) -> None:
    folder = data(tmp_path)
    captions = (
        "Possible pneumothorax. Hydrocephalus.",
        "Possible pneumothorax; a pneumothorax is present. Hydrocephalus.",
        "Hydrocephalus. No pneumothorax. Rule out pleural effusion. History of pneumonia.",
        "Pleural effusion.",
    )
    write_split(folder, "train", captions)
    stores = {
        policy: build_from(folder, tmp_path / policy, uncertain=policy, shrinkage=0.0)
        for policy in ("keep", "half", "drop")
    }
    air, water = "C0032326", "C0020255"
    for policy, cuis in (("keep", [air, water]), ("half", [air, water]), ("drop", [water])):
        assert stores[policy].cuis == [sorted(cuis), sorted([air, water]), [water], ["C0032227"]]
    likeness = {policy: store.block([0, 1])[0, 1] for policy, store in stores.items()}
    assert likeness["keep"] == pytest.approx(1) and likeness["drop"] < likeness["half"] < 0.999
    half = stores["half"].concepts.set_index("cui").loc[air]
    assert half["images"] == half["fit_asserted"] == 2  # images are counted, not weights
    mentions = stores["keep"].mentions
    statuses = mentions.columns[mentions.columns.get_loc("negated") : -1]
    third = mentions[mentions["image_id"] == "train002"].set_index("text")
    assert third[statuses].apply(lambda row: list(statuses[row]), axis=1).to_dict() == {
        "Hydrocephalus": [], "pneumothorax": ["negated"], "pleural effusion": ["hypothetical"],
        "pneumonia": ["historical"],
    }  # fmt: skip


def test_images_that_are_in_two_splits_are_reported(tmp_path: Path) -> None:
    folder = data(tmp_path)
    lines = (folder / "train.csv").read_text().splitlines()
    (folder / "dev.csv").write_text("\n".join([lines[0], lines[1], lines[3]]) + "\n")
    said: list[str] = []
    config = BuildConfig(dataset="demo", split="dev", data_root=folder, out=tmp_path / "out", workers=1)
    build_data_set(config, said.append)
    assert "warning: 2 image ids and 2 cases are in both train and dev" in said


def test_an_edited_stop_list_builds_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop_list = tmp_path / "stop.tsv"
    stop_list.write_text("alias\tcui\treason\n")
    options = ("--extractor-options", f"stop_list={stop_list}")
    common = (
        "build",
        "demo",
        "--split",
        "train",
        "--data-root",
        data(tmp_path),
        "--out",
        tmp_path / "out",
        *options,
    )
    run(capsys, *common)
    before = TargetStore.open(tmp_path / "out" / "train").cuis
    stop_list.write_text("alias\tcui\treason\npleural effusion\t\ttest\npleural effusions\t\ttest\n")
    assert "up to date" not in run(capsys, *common)[1]
    assert TargetStore.open(tmp_path / "out" / "train").cuis != before


def test_provided_needs_cuis_and_an_all_unknown_store_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data(tmp_path)
    common = ("build", "demo", "--split", "train", "--data-root", folder, "--out", tmp_path / "out")
    code, _, err = run(capsys, *common, "--extractor", "provided")
    assert code == 2 and "ships no CUIs" in err and not (tmp_path / "out").exists()
    write_split(folder, "train", ["nothing medical here"] * 3)
    code, out, _ = run(capsys, *common)
    assert code == 0 and "warning: nothing is known about any image" in out


def test_how_the_ontology_was_read_is_said_and_kept(tmp_path: Path) -> None:
    said: list[str] = []
    store = build_from(data(tmp_path), tmp_path / "out", said)
    assert any("edges: " in line and "is_a" in line for line in said)
    assert any("cycles" in line for line in store.manifest["ontology"]["report"])


def test_a_licence_that_no_row_has_names_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("build", "demo", "--split", "train", "--data-root", data(tmp_path), "--out", tmp_path / "out")
    code, _, err = run(capsys, *common, "--licences", "CC-BY")
    assert code == 2 and "CC0-1.0" in err and err.count("\n") == 1


def test_the_extractor_is_made_once_for_all_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(name: str, ontology: Ontology, options: str = "") -> Extractor:
        made.append(name)
        return make_extractor(name, ontology, options)

    monkeypatch.setattr(extract, "make_extractor", counted)
    monkeypatch.setattr(extract, "_prepared", ())
    config = BuildConfig(dataset="demo", data_root=data(tmp_path), out=tmp_path / "out", workers=1)
    assert len(build_data_set(config, lambda line: None)) == 3
    assert made == ["dictionary"]


def test_part_of_leads_to_ancestors_unless_a_build_says_otherwise(tmp_path: Path) -> None:
    captions = data(tmp_path)
    plain = build_from(captions, tmp_path / "plain", part_of=False)
    wide = build_from(captions, tmp_path / "wide")
    assert set(plain.edges["relation"]) <= {"is_a", "same_as"}
    assert "part_of" in set(wide.edges["relation"])
    rows = list(range(len(wide)))
    assert abs(wide.block(rows) - plain.block(rows)).max() > 1e-3
    left, right = wide.row("train000"), wide.row("train001")
    assert wide.explain("train000", "train001").similarity == pytest.approx(
        float(wide.block([left], [right])[0, 0]), abs=1e-6
    )


@pytest.mark.parametrize("option", ["--max-hops=2", "--flat-ancestors"])
def test_what_is_about_ancestors_contradicts_going_without(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, "build", "demo", "--data-root", data(tmp_path), "--no-ontology", option)
    assert (code, error.count("\n")) == (2, 1) and option.partition("=")[0] in error and "contradict" in error


def test_a_share_of_the_mentions_is_left_out_by_a_coin_that_knows_no_shards(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", RICH * 8)
    some = build(tmp_path / "some", RICH * 8, drop_mentions=0.3, workers=1)
    same = build(tmp_path / "same", RICH * 8, drop_mentions=0.3, workers=2, rows_per_shard=5)
    other = build(tmp_path / "other", RICH * 8, drop_mentions=0.3, seed=1)
    assert some.cuis == same.cuis != other.cuis
    left = len(some.mentions) / len(whole.mentions)
    assert 0.6 < left < 0.8
    assert all(set(kept) <= set(full) for kept, full in zip(some.cuis, whole.cuis, strict=True))
    assert set(some.mentions.itertuples(index=False)) <= set(whole.mentions.itertuples(index=False))
