"""Extractors by their options, as a build takes them."""

from hashlib import sha256
from pathlib import Path

import pytest

from kg_targets.errors import ExtractionError
from pipelines.build.extractors import check_extractor, option_file_digests


def test_a_changed_file_of_a_linkers_folder_makes_another_build(tmp_path: Path) -> None:
    for name in ("concept_aliases.json", "kb.jsonl"):
        (tmp_path / name).write_text(name, "utf-8")
    (tmp_path / "stop.tsv").write_text("stop", "utf-8")
    digests = option_file_digests(
        f"knowledge_base={tmp_path},stop_list={tmp_path / 'stop.tsv'},model=dictionary"
    )
    assert digests["stop_list"] == sha256(b"stop").hexdigest()
    assert digests["knowledge_base/kb.jsonl"] == sha256(b"kb.jsonl").hexdigest()
    (tmp_path / "kb.jsonl").write_text("changed", "utf-8")
    again = option_file_digests(f"knowledge_base={tmp_path}")
    assert again["knowledge_base/kb.jsonl"] == sha256(b"changed").hexdigest()
    assert again["knowledge_base/concept_aliases.json"] == digests["knowledge_base/concept_aliases.json"]


def test_a_linkers_folder_is_looked_at_before_an_ontology_is_read(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"has no tfidf_vectorizer\.joblib"):
        check_extractor("scispacy", f"model=dictionary,knowledge_base={tmp_path}")
