"""A layout is added by one file and one line: a dummy one, registered here, is read as captions and as questions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kg_targets.manifest import Manifest, Question, Record
from kg_targets.manifest.files import lines
from kg_targets.manifest.readers import READERS, Layout, ReadRequest
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set

MANIFEST = """
name: mine
title: Mine
format: dummy
holds: [captions, questions]
licence: CC0-1.0
how_to_get: "It is invented by the tests."
fit_split: train
splits: {train: {files: {captions: train.txt, questions: train.txt}, images: images}}
"""


def captions(request: ReadRequest) -> Iterator[tuple[str, Record]]:
    """A caption a line."""
    for number, (where, line) in enumerate(lines(request.files["captions"])):
        path = request.image_path(f"{number}.png")
        yield where, Record(str(number), path, line, str(number), request.licence)


def questions(request: ReadRequest) -> Iterator[tuple[str, Question]]:
    """A question a line: what is in the caption."""
    for number, (where, line) in enumerate(lines(request.files["questions"])):
        path = request.image_path(f"{number}.png")
        yield where, Question(str(number), str(number), path, "What is it?", line, False, "what")


def test_a_layout_of_one_line_is_read_and_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "dummy", Layout(captions, questions))
    (tmp_path / "mine.yaml").write_text(MANIFEST, encoding="utf-8")
    (tmp_path / "train.txt").write_text("CT of the chest.\nMRI of the brain.\n", encoding="utf-8")
    asked = Manifest.load(tmp_path / "mine.yaml", "questions").questions("train", tmp_path)
    assert [question.answer for question in asked] == ["CT of the chest.", "MRI of the brain."]
    config = BuildConfig(
        dataset=str(tmp_path / "mine.yaml"), data_root=tmp_path, out=tmp_path / "out", workers=1
    )
    (store,) = build_data_set(config, lambda line: None)
    assert store.captions == [question.answer for question in asked]
    assert store.image_paths == [question.image_path for question in asked]
