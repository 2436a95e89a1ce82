"""Hand-annotated texts in PubTator's and BRAT's formats, and what is wrong with a file of either."""

from __future__ import annotations

from pathlib import Path

import pytest

from kg_targets.concepts.gold_files import read_gold
from kg_targets.errors import ExtractionError

PUBTATOR = """7|t|Chest film.
7|a|No effusion; a nodule.
7\t15\t23\teffusion\tFinding\tUMLS:C0013687
7\t27\t33\tnodule\tFinding
7\tCID\tA\tB

8|t|Normal.
8|a|
"""


def test_pubtator_joins_title_and_abstract_by_one_blank(tmp_path: Path) -> None:
    path = tmp_path / "gold.pubtator"
    path.write_text(PUBTATOR, encoding="utf-8")
    first, second = read_gold(path)
    assert first.text == "Chest film. No effusion; a nodule." and first.id == "7"
    assert [(m.text, m.type, m.cui) for m in first.mentions] == [
        ("effusion", "Finding", "C0013687"),
        ("nodule", "Finding", ""),
    ]
    assert second.mentions == ()


def test_brat_has_attributes_normalisations_and_mentions_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"No effusion.\r\nLeft and right lung.\n")
    (tmp_path / "a.ann").write_text(
        "T1\tFinding 3 11\teffusion\nA1\tNegated T1\nN1\tReference T1 UMLS:C0013687\tEffusion\n"
        "T2\tOrgan 14 18;29 33\tLeft lung\n#1\tAnnotatorNotes T1\tsure\n",
        encoding="utf-8",
    )
    (text,) = read_gold(tmp_path)
    assert [(m.text, m.negated, m.cui) for m in text.mentions] == [
        ("effusion", True, "C0013687"),
        ("Left and right lung", False, ""),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "7|t|Chest.\n7\t0\t4\tChest\tOrgan\n", "x.txt:2: offsets 0:4 do not give 'Chest'"),
        ("x.txt", "7|t|Chest.\nnonsense\n", "x.txt:2: neither a text nor a mention"),
        ("x.txt", "\n", "holds no annotated text"),
        ("x.ann", "T1\tOrgan 0\tChest\n", "x.ann:1: a mention needs a type"),
        ("x.ann", "T1\tOrgan 90 95\tChest\n", "T1 lies outside"),
        ("y.ann", "T1\tOrgan 0 5\tChest\n", "y.txt: cannot be read"),
    ],
)
def test_a_malformed_file_names_the_place(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("Chest", encoding="utf-8")
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ExtractionError, match=message):
        read_gold(tmp_path if name.endswith(".ann") else tmp_path / name)


def test_splits_are_of_json_lines_only(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match="only JSON lines have splits"):
        read_gold(tmp_path, "tune")
