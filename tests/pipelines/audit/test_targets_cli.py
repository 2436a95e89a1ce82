"""`kg-targets evaluate targets` as a person uses it: tables, files, one-line errors."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kg_targets.store import TargetStore
from pipelines import cli
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import CAPTIONS, COLUMNS, build, write_split

pytestmark = pytest.mark.e2e
FURTHER = (
    "CT of the chest with a right pleural effusion and a pneumothorax.",
    "Ultrasound of the liver and the kidney with a cyst.",
    "CT of the liver: abscess, right pleural effusion.",
    "Axial MRI of the brain with a haemorrhage and an infarct.",
    "Coronal CT of the pelvis.",
    "Lateral radiograph of the knee with an effusion.",
)
QUICK = ("--bootstrap", "100", "--batch-sizes", "4,8,64")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.main(["evaluate-targets", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def numbers(capsys: pytest.CaptureFixture[str], *paths: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    code, out, err = run(capsys, *paths, *QUICK, "--json")
    assert code == 0 and not err
    return dict(json.loads(out))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[TargetStore]:
    folder = tmp_path_factory.mktemp("stores")
    captions = (*CAPTIONS, *FURTHER, *CAPTIONS)
    options: dict[str, dict[str, object]] = {
        "ontology": {},
        "flat": {"use_ontology": False},
        "permuted": {"scorer": "permuted"},
        "noise": {"scorer": "noise"},
        "identity": {"scorer": "identity"},
    }
    return [build(folder / name, captions, **chosen) for name, chosen in options.items()]


def unlabelled(folder: Path, captions: list[str], split: str = "train") -> Path:
    columns = [name for name in COLUMNS if not name.startswith("label_")]
    write_split(folder / "data", split, captions, columns)
    config = BuildConfig(
        dataset="demo", split=split, data_root=folder / "data", out=folder / "out", workers=1
    )
    return build_data_set(config, lambda line: None)[0].path


def test_stores_side_by_side_give_every_section_and_both_files(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, page = [store.path for store in stores], tmp_path / "made" / "out.md"
    content = numbers(capsys, *paths)
    code, out, err = run(capsys, *paths, *QUICK, "--markdown", page)
    assert code == 0 and not err
    assert "demo/train: 22 images, 11 cases; seed 0" in out and "bootstrap over cases, 100 draws" in out
    assert content["split"] == "train" and content["cases"] == 11 and len(content["stores"]) == 5
    assert list(content["sections"]) == [
        "agreement", "recovery", "shape", "separation", "pairs", "stability", "case text",
    ]  # fmt: skip
    assert {row["subject"] for row in content["sections"]["agreement"]["measures"]} == {"region"}
    assert content["sections"]["pairs"]["pairs"][0]["captions"][0] in (*CAPTIONS, *FURTHER)
    markdown = page.read_text(encoding="utf-8")
    assert "P@30" in markdown and "hit@1" in markdown and "AUROC" in markdown
    assert ("| evidence |" in markdown) == (find_spec("torch") is not None)
    assert not any(caption in markdown for caption in (*CAPTIONS, *FURTHER))
    assert any(caption in out for caption in CAPTIONS)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = stores[0].path, stores[1].path
    texts = [run(capsys, *paths, *QUICK, "--seed", seed, "--json")[1] for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_a_store_compared_with_itself_does_not_differ(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections = numbers(capsys, stores[0].path, stores[0].path)["sections"]
    for name in ("agreement", "recovery", "separation"):
        for row in sections[name]["measures"]:
            assert row["minus_first"][0] is None
            assert row["minus_first"][1]["difference"]["mean"] in (0.0, None)


def test_identity_targets_find_labels_as_chance_does(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = numbers(capsys, stores[4].path)["sections"]
    for row in content["agreement"]["measures"]:
        assert row["stores"][0]["mean"] == pytest.approx(row["baseline"])
    assert content["separation"]["measures"][1]["stores"][0]["mean"] == 0.5
    assert content["pairs"]["pairs"] == []


def test_without_labels_that_section_is_left_out_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, unlabelled(tmp_path, list(CAPTIONS)), *QUICK)
    assert code == 0 and "left out: the data set has no label column" in out and "hit@1" in out


def error_line(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_stores_of_other_splits_or_rows_are_one_line_and_exit_code_2(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = stores[0].path
    other = unlabelled(tmp_path / "dev", list(CAPTIONS), "dev")
    assert "compare stores of one split" in error_line(capsys, first, other)
    shorter = build(tmp_path / "short", CAPTIONS).path
    assert "other images, another row order" in error_line(capsys, first, shorter)
    assert "is not a target store" in error_line(capsys, first, tmp_path / "nothing")


def test_a_store_with_one_case_or_without_any_known_image_cannot_be_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = unlabelled(tmp_path / "one", list(CAPTIONS[:2]))
    assert "belong to one case" in error_line(capsys, one)
    unknown = unlabelled(tmp_path / "unknown", ["Figure 2B. Follow-up."] * 6)
    assert "no image has a known concept" in error_line(capsys, unknown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-sizes", "128,x"), "--batch-sizes"),
        (("--batch-sizes", "1"), "--batch-sizes"),
        (("--bootstrap", "0"), "--bootstrap: 0 must be at least 100"),
        (("--seed", "-1"), "--seed: -1 must be at least 0"),
        (("--markdown", "."), "is a folder"),
    ],
)
def test_a_wrong_option_is_said_before_the_work(
    stores: list[TargetStore],
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    assert message in error_line(capsys, stores[0].path, *options)


def test_an_output_whose_folder_is_a_file_is_one_line(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    line = error_line(capsys, stores[0].path, "--markdown", tmp_path / "file" / "out.md")
    assert "is a file, not a folder: choose another folder" in line


def test_a_table_of_labels_is_scored_beside_the_data_sets_own(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, ids = tmp_path / "labels.csv", stores[0].image_ids
    found = ["present" if "effusion" in caption else "absent" for caption in stores[0].captions]
    table.write_text("id,Effusion\n" + "".join(f"{i},{f}\n" for i, f in zip(ids, found, strict=True)))
    code, out, err = run(capsys, stores[0].path, stores[1].path, *QUICK, "--label-table", table)
    assert code == 0 and not err
    assert f"joined by image_id: {len(ids)} of {len(ids)} images have a row" in out
    assert "Effusion" in out and "Effusion + " not in out  # pairs are of the data set's labels alone
    code, _, err = run(capsys, stores[0].path, *QUICK, "--label-table", tmp_path / "none.csv")
    assert code == 2 and err.count("\n") == 1


def test_a_table_of_case_texts_is_compared_along_neighbours_and_never_shown(
    stores: list[TargetStore], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, cases = tmp_path / "texts.csv", sorted(set(stores[0].group_ids))
    texts = ["Fever, cough and dyspnoea.", "Fall on the knee", ""]
    rows = [f'{case},"{texts[place % 3]}"' for place, case in enumerate(cases)]
    table.write_text("case,history\n" + "\n".join(rows) + "\n", encoding="utf-8")
    page = tmp_path / "page.md"
    paths = stores[0].path, stores[4].path
    code, out, err = run(capsys, *paths, *QUICK, "--text-table", table, "--markdown", page)
    assert code == 0 and not err and "joined by group_id" in out
    markdown = page.read_text(encoding="utf-8")
    assert "T@10" in markdown and "2 distinct texts" in markdown and "dyspnoea" not in out + markdown
    found = json.loads(run(capsys, *paths, *QUICK, "--text-table", table, "--json")[1])
    row = found["sections"]["case text"]["measures"][0]
    assert row["stores"][1]["mean"] == pytest.approx(row["baseline"])  # identity: chance
    code, _, err = run(capsys, stores[0].path, *QUICK, "--text-table", tmp_path / "none.csv")
    assert code == 2 and err.count("\n") == 1
