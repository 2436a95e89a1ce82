"""Builds that read ranges of files in many processes give what reading from the front gives."""

from pathlib import Path

import pytest

from kg_targets.manifest import Manifest
from kg_targets.scoring import ontology, statistics
from pipelines.build.shards import Piece, pieces_of_shards
from pipelines.cli import main
from tests.builds import RICH, build, digests, write_split


def data(folder: Path, rows: str) -> Path:
    for split in ("train", "dev", "test"):
        write_split(folder, split, RICH * 2)
    with (folder / "train.csv").open("a") as stream:
        stream.write(rows)
    return folder


def built(folder: Path, where: Path, *arguments: str) -> int:
    return main(
        ["build", "demo", "--split", "train", "--data-root", str(folder), "--out", str(where), *arguments]
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_skipped_rows_move_no_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    skipped = 'short,row\nq1,i.png,"two\nlines",c,x\n,,,,\nq2,i.png,CT of the chest,c,x\n' * 1
    folder = data(tmp_path / "data", skipped)
    assert built(folder, tmp_path / "ranges", "--rows-per-shard", "5", "--workers", workers) == 0
    told = capsys.readouterr().out
    monkeypatch.setattr(Manifest, "range_reader", lambda *arguments: None)
    assert built(folder, tmp_path / "front", "--rows-per-shard", "5", "--workers", "1") == 0
    assert digests(tmp_path / "ranges" / "train") == digests(tmp_path / "front" / "train")
    lines = [
        [line for line in text.splitlines() if "row(s)" in line] for text in (told, capsys.readouterr().out)
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 2


@pytest.mark.parametrize(
    "rows",
    [
        "train003,i.png,again,c,x\n",
        "x1,/etc/passwd,outside,c,x\ntrain003,i.png,again,c,x\n",
        'train004,i.png,again,c,x\nx1,i.png,"never closed,c,x\n',
    ],
)
def test_the_first_error_of_a_file_is_told_as_from_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: str
) -> None:
    folder = data(tmp_path / "data", rows)
    assert built(folder, tmp_path / "out", "--rows-per-shard", "5", "--workers", "2") == 2
    by_ranges = capsys.readouterr().err
    monkeypatch.setattr(Manifest, "range_reader", lambda *arguments: None)
    assert built(folder, tmp_path / "out", "--rows-per-shard", "5") == 2
    assert by_ranges == capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_shards_take_their_rows_from_parts_in_order() -> None:
    assert pieces_of_shards([3, 0, 4, 1], 3) == [
        [Piece(0, 0, 3)],
        [Piece(2, 0, 3)],
        [Piece(2, 3, 4), Piece(3, 0, 1)],
    ]


def test_factors_that_are_computed_some_rows_at_a_time_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(tmp_path / "whole", RICH * 2, blocks="1:2:1")
    for module in (ontology, statistics):
        monkeypatch.setattr(module, "_ROWS_AT_ONCE", 3)
    some = build(tmp_path / "some", RICH * 2, blocks="1:2:1")
    assert digests(some.path) == digests(whole.path)
