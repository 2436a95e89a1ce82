"""scispaCy's linker read from its files, beside scikit-learn's vectors and scispaCy's own rules; what is refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kg_targets.concepts.char_tfidf import CharTfidf
from kg_targets.concepts.linker import (
    ALIASES,
    VECTORIZER,
    VECTORS,
    KnowledgeBase,
    TfidfLinker,
    check_folder,
)
from kg_targets.errors import ExtractionError
from tests import REPOSITORY

WORDS = [
    "pleural", "effusion", "lung", "nodule", "liver", "cyst", "acute", "renal", "failure", "bone", "fracture",
    "Oedema", "of", "left",
]  # fmt: skip
MENTIONS = [
    "pleural effusions", "LEFT  lung\tnodule", "a", "liver-cyst", "ŒDEMA of left lung", "zzz", "", "acute", "of",
    "left left left bone", "renal failure, acute", "N\u00a0odule", "\u4e2d", "efusion", "cystic liver lesion",
]  # fmt: skip


def entities() -> list[dict[str, Any]]:
    """Forty concepts of two or three words, some names shared by several, every other one defined."""
    rng = np.random.default_rng(0)
    drawn = ["pleural effusion"] + [
        " ".join(rng.choice(WORDS, rng.integers(1, 4), replace=False)) for _ in range(120)
    ]
    return [
        {
            "concept_id": f"C{number:07}", "canonical_name": drawn[3 * number], "types": ["T047"],
            "aliases": drawn[3 * number + 1 : 3 * number + 3], "definition": "told" if number % 2 else None,
        }
        for number in range(40)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as scispaCy publishes them, by scikit-learn, joblib and scipy; vectors of float16."""
    joblib, sparse = pytest.importorskip("joblib"), pytest.importorskip("scipy.sparse")
    text = pytest.importorskip("sklearn.feature_extraction.text")
    path = tmp_path_factory.mktemp("linker")
    (path / "kb.jsonl").write_text("\n".join(map(json.dumps, entities())), "utf-8")
    aliases = sorted(KnowledgeBase.read(path / "kb.jsonl").alias_to_cuis)
    # As scispaCy fits it: rare 3-grams are left out.
    vectorizer = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), min_df=2, dtype=np.float32)
    vectors = vectorizer.fit_transform(aliases)
    joblib.dump(vectorizer, path / VECTORIZER)
    half = vectors.tocsr()
    np.savez_compressed(
        path / VECTORS, indices=half.indices, indptr=half.indptr, format=b"csr", shape=half.shape,
        data=half.data.astype(np.float16),
    )  # fmt: skip
    (path / ALIASES).write_text(json.dumps(aliases), "utf-8")
    assert sparse.issparse(vectors)
    return path


def test_vectors_are_scikit_learns(folder: Path) -> None:
    joblib = pytest.importorskip("joblib")
    theirs, ours = joblib.load(folder / VECTORIZER), CharTfidf.read(folder / VECTORIZER)
    assert dict(ours.column) == {gram: int(place) for gram, place in theirs.vocabulary_.items()}
    np.testing.assert_allclose(
        ours.transform(MENTIONS).toarray(), theirs.transform(MENTIONS).toarray(), atol=2e-7
    )


def test_vectors_fitted_here_are_scikit_learns() -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    aliases = [entry["canonical_name"] for entry in entities()]
    theirs = text.TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32).fit(aliases)
    ours = CharTfidf.fit(aliases)
    assert dict(ours.column) == {gram: int(place) for gram, place in theirs.vocabulary_.items()}
    np.testing.assert_allclose(
        ours.transform(MENTIONS).toarray(), theirs.transform(MENTIONS).toarray(), atol=2e-7
    )


@pytest.mark.parametrize("count", [3, 30, 500])
def test_nearest_aliases_are_those_of_the_exact_cosine(folder: Path, count: int) -> None:
    joblib = pytest.importorskip("joblib")
    linker, theirs = TfidfLinker.open(folder), joblib.load(folder / VECTORIZER)
    aliases = json.loads((folder / ALIASES).read_text("utf-8"))
    with np.load(folder / VECTORS) as parts:
        rows = np.zeros(parts["shape"])
        for row in range(len(rows)):
            part = slice(*parts["indptr"][row : row + 2])
            rows[row, parts["indices"][part]] = parts["data"][part]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    for mention in MENTIONS:
        cosines = rows @ theirs.transform([mention]).toarray()[0].astype(np.float64)
        found = linker.nearest(mention, count)
        assert len(found) == min(count, int((cosines > 0).sum()))
        order = np.argsort(-cosines, kind="stable")[: len(found)]
        np.testing.assert_allclose([score for _, score in found], cosines[order], atol=1e-6)
        for alias, score in found:
            assert score == pytest.approx(cosines[aliases.index(alias)], abs=1e-6)


def test_links_are_scispacys_own_on_an_exact_index(folder: Path) -> None:
    """Candidate by candidate: its CandidateGenerator and EntityLinker on scikit-learn's vectorizer."""
    pytest.importorskip("scispacy")
    spacy, joblib = pytest.importorskip("spacy"), pytest.importorskip("joblib")
    from scispacy.candidate_generation import CandidateGenerator
    from scispacy.linking import EntityLinker
    from scispacy.linking_utils import KnowledgeBase as TheirKnowledgeBase
    from spacy.tokens import Span

    ours = TfidfLinker.open(folder)

    class Exact:
        """The one call that it makes of its approximate index."""

        def knnQueryBatch(self, queries: Any, k: int) -> list[tuple[Any, Any]]:  # noqa: N802
            found = []
            for query in queries.toarray().astype(np.float64):
                product = np.asarray(ours._columns.T @ query)
                order = np.lexsort((np.arange(len(product)), -product.astype(np.float32)))[:k]
                order = order[product[order] > 0]
                found.append((order, 1.0 - product[order]))
            return found

    generator = CandidateGenerator(
        ann_index=Exact(), tfidf_vectorizer=joblib.load(folder / VECTORIZER),
        ann_concept_aliases_list=json.loads((folder / ALIASES).read_text("utf-8")),
        kb=TheirKnowledgeBase(str(folder / "kb.jsonl")),
    )  # fmt: skip
    linker = EntityLinker(candidate_generator=generator, resolve_abbreviations=False)
    nlp, linked = spacy.blank("en"), 0
    for mention in (each for each in MENTIONS if each.split()):
        doc = nlp(mention)
        doc.ents = [Span(doc, 0, len(doc), "ENTITY")]
        (entity,) = linker(doc).ents
        (found,) = ours.link([mention])
        assert [cui for cui, _ in found] == [cui for cui, _ in entity._.kb_ents]
        np.testing.assert_allclose([s for _, s in found], [s for _, s in entity._.kb_ents], atol=1e-6)
        linked += len(found)
    assert linked > 10


def test_a_folder_links_in_an_environment_without_spacy_or_scikit_learn(folder: Path) -> None:
    code = f"""
import sys
for name in ("spacy", "scispacy", "sklearn", "joblib", "torch"):
    sys.modules[name] = None
from kg_targets.concepts import EXTRACTORS
from kg_targets.ontology import load_ontology
extractor = EXTRACTORS["scispacy"](load_ontology('seed'), model="dictionary", knowledge_base={str(folder)!r})
for mention in extractor.extract(["No pleural effusion."])[0]:
    print(mention.text, mention.source, mention.negated, round(mention.score, 3))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False,
    )  # fmt: skip
    assert done.stdout == "pleural effusion scispacy True 1.0\n", done.stderr[-2000:]


class Payload:
    """A pickle that would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed",)


@pytest.mark.parametrize(
    "content", [pickle.dumps(Payload()), pickle.dumps({"a": 1}), b"", b"\x80\x04garbage"]
)
def test_a_file_that_is_no_vectorizer_is_refused_and_nothing_of_it_is_run(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.joblib").write_bytes(content)
    with pytest.raises(ExtractionError, match=r"^bad\.joblib: not a fitted TfidfVectorizer"):
        CharTfidf.read(Path("bad.joblib"))
    assert not Path("executed").exists()


class Made:
    """What a pickle tells to call, and the state to give to what comes back."""

    def __init__(self, *told: Any) -> None:
        self.told = told

    def __reduce__(self) -> Any:
        return self.told


OBJECT = Made(np.dtype, ("O", False, True))
HIDDEN = Made(np.dtype, ("V8", False, True), (3, "|", None, ("a",), {"a": (OBJECT, 0)}, 8, 1, 0))
"""A dtype that numpy would believe to hold no pointer, although its field is one."""
SCALAR = np.float64(0).__reduce__()[0]
PLAIN = (3, "<", None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (OBJECT, "numbers of type 'O'"),
        (HIDDEN, "numbers of type '(V8|O)'"),
        (Made(np.dtype, ("f8",), (3, "|", None, ("a",), {"a": (1, 0)}, 8, 1, 63)), "a state of their own"),
        (Made(np.dtype, ("f8",), (*PLAIN[:-1], 63)), "a state of their own"),
        (Made(np.dtype, ("f8",), (3, ">", *PLAIN[2:])), "a state of their own"),
        (Made(set, ((),), {}), "it sets what is inside a set"),
        (Made(SCALAR, (Made(np.dtype, ("f8",), PLAIN), b"1234567")), "do not fit"),
        (Made(SCALAR, (np.float64, b"12345678")), "not a fitted"),
    ],
)
def test_what_would_reach_into_memory_is_refused(content: Made, reason: str, tmp_path: Path) -> None:
    (tmp_path / "bad.joblib").write_bytes(pickle.dumps([content], 4))
    with pytest.raises(ExtractionError, match=reason):
        CharTfidf.read(tmp_path / "bad.joblib")


@pytest.mark.parametrize("name", ["TfidfVectorizer", "TfidfTransformer"])
def test_no_file_changes_what_reads_the_next_one(name: str, folder: Path, tmp_path: Path) -> None:
    """A state given to a class, not to an object of it: ``BUILD`` would set attributes of the class."""
    state = pickle.dumps((None, {"__setstate__": set, "build": set, "read": set}), 3)[2:-1]
    content = b"\x80\x03csklearn.x\n" + name.encode() + b"\n" + state + b"b."
    (tmp_path / "bad.joblib").write_bytes(content)
    with pytest.raises(ExtractionError, match="it sets what is inside a type"):
        CharTfidf.read(tmp_path / "bad.joblib")
    assert CharTfidf.read(folder / VECTORIZER).column


@pytest.mark.parametrize("change", [b"\x85", b"shorter", b"objects"])
def test_arrays_that_do_not_fit_their_bytes_are_refused(change: bytes, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "bad.joblib"
    joblib.dump(np.array([[1], [None]]) if change == b"objects" else np.arange(2.0), path)
    data = path.read_bytes()
    if change == b"shorter":
        path.write_bytes(data[:-9])
    elif change == b"\x85":
        path.write_bytes(data.replace(b"K\x02\x85", b"K\xff\x85"))
    with pytest.raises(ExtractionError, match=r"do not fit|numbers of type|no vectorizer needs"):
        CharTfidf.read(path)


def test_a_vectorizer_fitted_in_another_way_is_named(tmp_path: Path) -> None:
    joblib, text = pytest.importorskip("joblib"), pytest.importorskip("sklearn.feature_extraction.text")
    for options, name in (
        ({"analyzer": "char"}, "analyzer"),
        ({"analyzer": "char_wb", "norm": "l1"}, "norm"),
    ):
        vectorizer = text.TfidfVectorizer(ngram_range=(3, 3), **options).fit(["lung nodule"])
        joblib.dump(vectorizer, tmp_path / "other.joblib")
        with pytest.raises(ExtractionError, match=rf"other\.joblib: {name} is"):
            CharTfidf.read(tmp_path / "other.joblib")


def test_missing_and_unfitting_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=rf"has no {VECTORIZER}"):
        check_folder(tmp_path)
    for name in (VECTORIZER, VECTORS, ALIASES):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ExtractionError, match=r"one file \*\.jsonl"):
        check_folder(tmp_path)
    (tmp_path / "kb.jsonl").write_text(json.dumps(entities()[0]), "utf-8")
    with pytest.raises(ExtractionError, match=r"has no alias .* take files of one release"):
        TfidfLinker.open(tmp_path)
    (tmp_path / ALIASES).write_text("[]", "utf-8")
    with pytest.raises(ExtractionError, match="does not fit 0 aliases"):
        TfidfLinker.open(tmp_path)
    (tmp_path / VECTORS).write_bytes(b"PK\x03\x04")
    with pytest.raises(ExtractionError, match="not a sparse matrix"):
        TfidfLinker.open(tmp_path)
    for content, where in (("{}", "line 1: not a knowledge base"), ("", "holds no concept")):
        (tmp_path / "kb.jsonl").write_text(content, "utf-8")
        with pytest.raises(ExtractionError, match=where):
            TfidfLinker.open(tmp_path)
