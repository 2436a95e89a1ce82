"""`kg-targets build --exclude`: a store without listed cases is the store of a data set that never had them."""

import json
from pathlib import Path
from typing import Any

import pytest

from kg_targets.store import TargetStore, verify_store
from pipelines import cli
from tests.builds import CAPTIONS, write_split

pytestmark = pytest.mark.e2e

SPLITS = ("train", "dev", "test")
LISTED = "train-case1\n\ntrain-case3\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three splits and, beside them, a list of two cases of train."""
    for split in SPLITS:
        write_split(tmp_path / "data", split, CAPTIONS)
    (tmp_path / "cases.txt").write_text(LISTED)
    return tmp_path / "data"


def run(
    capsys: pytest.CaptureFixture[str], data: Path, *options: object, out: str = "out"
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    command = ["build", "demo", "--data-root", data, "--out", data.parent / out, "--workers", 1, *options]
    code = cli.main([str(argument) for argument in command])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def without_rows(path: Path, *cases: str) -> None:
    """Take the rows of cases out of a captions file."""
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in lines if not any(f",{case}," in line for case in cases)))


def manifest(store: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((store / "manifest.json").read_text())
    return content


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--scorer", "permuted"),
        ("--rows-per-shard", "3", "--workers", "2"),
    ],
)
def test_the_cases_were_never_there_for_any_split_or_scorer(
    data: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    code, said, _ = run(capsys, data, "--exclude", data.parent / "cases.txt", *options)
    assert code == 0
    assert "train: 2 of the 2 excluded case(s) found, 4 image(s) left out" in said
    assert "dev: none of the 2 excluded case(s) found" in said
    without_rows(data / "train.csv", "train-case1", "train-case3")
    assert run(capsys, data, *options, out="rewritten")[0] == 0
    for split in SPLITS:
        left, right = data.parent / "out" / split, data.parent / "rewritten" / split
        verify_store(left)
        given, expected = manifest(left), manifest(right)
        facts = given.pop("excluded")
        for content in (given, expected):
            content.pop("inputs"), content.pop("fingerprint")
        assert given == expected  # the checksums of all files and the statistics among it
        assert facts.pop("sha256") and facts == {
            "cases_listed": 2,
            "cases_found": 2 if split == "train" else 0,
            "images": 4 if split == "train" else 0,
        }
        assert "case1" not in str(facts) and str(data.parent) not in (left / "manifest.json").read_text()


def test_the_same_list_is_up_to_date_and_another_builds_again(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases, target = data.parent / "cases.txt", data.parent / "out" / "train"
    run(capsys, data)
    whole = TargetStore.open(target).fingerprint
    assert "excluded" not in manifest(target)
    prints = {whole}
    for content in (LISTED, "train-case1\n", "train-case1\nelsewhere\n"):
        cases.write_text(content)
        assert "up to date" not in run(capsys, data, "--exclude", cases)[1]
        prints.add(TargetStore.open(target).fingerprint)
        cases.write_text("\n".join(reversed(content.splitlines())))
        assert run(capsys, data, "--exclude", cases)[1].count("up to date") == len(SPLITS)
    assert len(prints) == 4
    run(capsys, data)
    assert TargetStore.open(target).fingerprint == whole


def test_a_split_without_listed_cases_is_built_if_another_has_them(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = run(
        capsys, data, "--split", "dev", "--fit-split", "dev", "--exclude", data.parent / "cases.txt"
    )
    assert code == 0 and "dev: none of the 2 excluded case(s) found" in said
    assert len(TargetStore.open(data.parent / "out" / "dev")) == len(CAPTIONS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("MPX1\nMPX2\n", "none of them is in train, dev, test of demo"),
        ("".join(f"train-case{case}\n" for case in range(4)), "has no usable row"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line_and_leaves_no_store(
    data: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    cases = data.parent / "cases.txt"
    cases.unlink() if content is None else cases.write_text(content)
    code, _, error = run(capsys, data, "--exclude", cases)
    assert (code, error.count("\n")) == (2, 1) and error.startswith("error: ") and message in error
    assert not (data.parent / "out").exists()


def test_an_empty_list_leaves_nothing_out_and_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = data.parent / "cases.txt"
    cases.write_text("\n")
    code, said, _ = run(capsys, data, "--exclude", cases)
    assert code == 0 and "lists no case: nothing is left out" in said
    assert len(TargetStore.open(data.parent / "out" / "train")) == len(CAPTIONS)
