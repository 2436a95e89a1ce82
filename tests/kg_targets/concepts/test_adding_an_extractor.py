"""An extractor is added by one file and one line: a dummy one, registered here, makes a whole store."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kg_targets.concepts import EXTRACTORS, Mention
from kg_targets.ontology import Ontology
from kg_targets.store import verify_store
from tests.builds import build


class Dummy:
    """Finds a modality by its abbreviation, and nothing else."""

    name = "dummy"

    def __init__(self, ontology: Ontology, text: str = "CT", **options: Any) -> None:
        self.text = text

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """One list per caption."""
        return [self._mentions(caption.find(self.text)) for caption in captions]

    def _mentions(self, at: int) -> list[Mention]:
        end = at + len(self.text)
        return [] if at < 0 else [Mention("C0040405", "CT", at, end, self.text, source="dummy")]


def test_an_extractor_of_one_line_builds_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "dummy", Dummy)
    store = build(tmp_path, extractor="dummy")
    assert verify_store(store.path)
    assert [list(cuis) for cuis in store.cuis] == [
        ["C0040405"] if "CT" in caption else [] for caption in store.captions
    ]
    assert set(store.mentions["source"]) == {"dummy"}
