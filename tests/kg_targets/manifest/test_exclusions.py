"""Lists of cases to leave out: how they are read, counted, and refused."""

from pathlib import Path

import pytest

from kg_targets.errors import DataError
from kg_targets.manifest import ExcludedCases, Manifest, ReadReport
from pipelines.build.split import Split
from tests.builds import CAPTIONS, write_split

DEMO = Manifest.load("demo")


def listing(folder: Path, content: str) -> ExcludedCases:
    path = folder / "cases.txt"
    path.write_text(content, encoding="utf-8")
    return ExcludedCases.read(path)


def test_a_list_has_a_case_a_line_and_empty_lines_do_not_count(tmp_path: Path) -> None:
    excluded = listing(tmp_path, "\ufeffb \r\n\n a\n  \nb\n")
    assert excluded.cases == {"a", "b"}
    assert excluded.inputs() == listing(tmp_path, "a\nb\n").inputs()
    assert excluded.inputs() != listing(tmp_path, "a\nc\n").inputs()


def test_without_a_list_nothing_is_recorded() -> None:
    split = Split(DEMO, "train", Path("nowhere"), None)
    assert "excluded" not in split.metadata() and split.excluded is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_list_that_cannot_be_read_is_an_error_that_says_what_writes_it(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "cases.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"cases\.txt cannot be read .*--exclude-out"):
        ExcludedCases.read(path)


def test_rows_of_listed_cases_are_left_out_and_counted_without_their_names(tmp_path: Path) -> None:
    write_split(tmp_path, "train", CAPTIONS)
    excluded = listing(tmp_path, "train-case1\ntrain-case3\nelsewhere\n")
    report = ReadReport()
    records = list(DEMO.records("train", tmp_path, report, excluded=excluded.cases))
    assert [record.image_id for record in records] == ["train000", "train001", "train004", "train005"]
    assert (report.read, report.skipped) == (4, {})
    assert report.lines() == ["2 of the 3 excluded case(s) found, 4 image(s) left out"]
    facts = excluded.metadata(report)["excluded"]
    assert {key: facts[key] for key in ("cases_listed", "cases_found", "images")} == {
        "cases_listed": 3,
        "cases_found": 2,
        "images": 4,
    }
    assert "case1" not in str(facts) and facts["sha256"] == excluded.inputs()["excluded_sha256"]


def test_what_a_licence_would_leave_out_counts_as_the_cases_own(tmp_path: Path) -> None:
    write_split(tmp_path, "train", CAPTIONS)
    report = ReadReport()
    list(DEMO.records("train", tmp_path, report, frozenset({"CC BY"}), frozenset({"train-case0"})))
    assert report.excluded == {"train-case0": 2} and sum(report.skipped.values()) == len(CAPTIONS) - 2


def test_one_listed_case_in_one_split_is_enough_and_none_at_all_is_an_error(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write_split(tmp_path, split, CAPTIONS)
    listing(tmp_path, "elsewhere\ntrain-case2\n").check_fits(DEMO, tmp_path, ["dev", "train"])
    with pytest.raises(
        DataError, match=r"names 1 case\(s\) .*none of them is in dev of demo .*or drop --exclude"
    ):
        listing(tmp_path, "train-case2\n").check_fits(DEMO, tmp_path, ["dev"])
    listing(tmp_path, "\n").check_fits(DEMO, tmp_path, ["dev"])
