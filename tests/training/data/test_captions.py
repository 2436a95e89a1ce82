"""Captions longer than a text tower: counted as the tower's own tokenizer counts, and shortened to their concepts."""

from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from open_clip.tokenizer import HFTokenizer

from kg_targets.manifest import Manifest
from tests.training.clip.fakes import write_bert
from training.data.captions import choose_sentences, clip_lengths, fit_captions, fit_to_concepts, sentences

CAPTION = "Axial CT of the chest. There is no fracture. Large effusion and a nodule! Sent home."


def words(texts: Any) -> np.ndarray:
    """Lengths by words, with two special tokens."""
    return np.array([len(text.split()) + 2 for text in texts], dtype=np.int64)


def place(text: str, cui: str, caption: str = CAPTION) -> dict[str, Any]:
    start = caption.index(text)
    return {"start": start, "end": start + len(text), "cui": cui, "negated": text == "fracture"}


class Store:
    """As much of a target store as is asked for: one long caption and one short one."""

    kind = "knowledge"
    captions = (CAPTION, "Normal.")
    image_ids = ("a", "b")
    cuis = (["C1", "C2", "C3", "C9"], ["C9"])

    def __init__(self, mentions: list[dict[str, Any]]) -> None:
        import pandas as pd

        columns = ["image_id", "start", "end", "cui", "negated"]
        self.mentions = pd.DataFrame([{"image_id": "a", **row} for row in mentions], columns=columns)
        self.mentions["negated"] = self.mentions["negated"].astype(bool)

    def rows(self, names: list[str]) -> list[int]:
        return [self.image_ids.index(name) for name in names]


PLACED = [
    place("CT", "C1"), place("fracture", "C9"), place("effusion", "C2"), place("nodule", "C3"),
    {"start": -1, "end": -1, "cui": "C9", "negated": False},
]  # fmt: skip


def read(mode: str, context: int, mentions: list[dict[str, Any]] | None = None) -> Any:
    store: Any = Store(PLACED if mentions is None else mentions)
    return fit_to_concepts(store, [0, 1], words, context, mode)


@pytest.mark.parametrize("clip", ["ViT-B-32", "bert", "siglip-like"])
def test_lengths_are_those_of_the_untruncated_text(clip: str, tmp_path: Path) -> None:
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    if clip != "ViT-B-32":
        tokenizer = HFTokenizer(str(write_bert(tmp_path / "bert")), context_length=12)
    if clip == "siglip-like":  # padding is the end token, as SigLIP has it
        tokenizer.tokenizer.pad_token = tokenizer.tokenizer.sep_token
    lengths, context = clip_lengths(tokenizer)
    assert context == (77 if clip == "ViT-B-32" else 12)
    texts = ["ct of the head " * 60, "", "chest ct", *("ct " * (context - 2 + more) for more in (-1, 0, 1))]
    expected = [4 * 60 + 2, 2, 4, context - 1, context, context + 1]
    assert lengths(texts).tolist() == expected
    found = fit_captions(texts, lengths, context)
    assert (found.longer, found.truncated, found.texts) == (2, 2, texts)
    assert lengths([]).tolist() == []


def test_captions_that_fit_are_read_as_they_are_in_every_way() -> None:
    for mode in ("truncate", "best_sentence", "sentences"):
        found = read(mode, context=99)
        assert found.texts == [CAPTION, "Normal."] and (found.longer, found.truncated, str(found)) == (
            0,
            0,
            "",
        )


def test_truncation_is_the_default_changes_no_text_and_is_reported() -> None:
    found = read("truncate", context=9)
    assert found.texts == [CAPTION, "Normal."] and (found.longer, found.truncated) == (1, 1)
    assert str(found).startswith(
        "1 of 2 captions (50.0 %) are longer than the text tower's 9 tokens: truncated, while"
    )


def test_the_sentence_with_most_asserted_concepts_is_read() -> None:
    found = read("best_sentence", context=9)
    assert found.texts == ["Large effusion and a nodule!", "Normal."]
    assert (found.longer, found.truncated) == (1, 0)
    assert str(found).endswith("tokens: their sentence with most concepts is read")
    narrow = read("best_sentence", context=5)  # the sentence is truncated then, and said to be
    assert narrow.texts == found.texts and (narrow.longer, narrow.truncated) == (1, 1)
    assert str(narrow).endswith("is read, 1 of these truncated")


def test_sentences_that_fit_are_read_in_the_captions_order_those_with_most_concepts_first() -> None:
    assert read("sentences", context=12).texts[0] == "Axial CT of the chest. Large effusion and a nodule!"
    assert read("sentences", context=11).texts[0] == "There is no fracture. Large effusion and a nodule!"
    assert read("sentences", context=9).texts[0] == "Large effusion and a nodule! Sent home."
    assert read("sentences", context=8).texts[0] == "Large effusion and a nodule!"


def test_without_places_of_mentions_the_first_sentences_are_read() -> None:
    assert read("best_sentence", context=9, mentions=[]).texts[0] == "Axial CT of the chest."
    assert (
        read("sentences", context=12, mentions=[PLACED[-1]]).texts[0]
        == "Axial CT of the chest. There is no fracture."
    )
    teacher: Any = Store(PLACED)
    teacher.kind = "teacher"
    assert fit_to_concepts(teacher, [0], words, 9, "best_sentence").texts == ["Axial CT of the chest."]


def test_sentences_end_at_marks_and_lines_and_there_is_always_one() -> None:
    text = "One 2.5 cm mass.\nTwo; three?  Four"
    assert [text[start:end] for start, end in sentences(text)] == [
        "One 2.5 cm mass.",
        "Two;",
        "three?",
        "Four",
    ]
    assert sentences("") == [(0, 0)] and sentences(" \n ") == [(0, 3)]
    assert choose_sentences([0, 2, 2], [5, 5, 5], room=0) == [1]
    assert choose_sentences([0, 2, 1], [5, 5, 9], room=12) == [0, 1]


def test_figures_of_the_issue_on_real_captions(shared_data: Path) -> None:
    records = Manifest.load("medpix", "captions").records("train", shared_data / "medpix")
    found = fit_captions([one.caption for one in records], *clip_lengths(open_clip.get_tokenizer("ViT-B-16")))
    assert round(100 * found.longer / len(found.texts), 1) == 11.9
