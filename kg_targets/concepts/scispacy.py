"""The paper's recipe: a scispaCy pipeline finds mentions, scispaCy's linker gives each its UMLS concept.

Abbreviations are resolved to their long forms, mentions of one character dropped, candidates below the score threshold
dropped, and of the rest the first (best) is taken. Negation is ours. Hundreds of times slower than the dictionary.

scispaCy is optional (the ``[scispacy]`` extra) and loaded when the extractor is made. Its trained models are not on
the package registry; users install them by URL. The linker is one of scispaCy's own, by name ("umls": downloads about
1 GB once), or any knowledge base as JSON lines (``concept_id, canonical_name, aliases, types, definition``), for which
an exact tf-idf index is built in memory (scispaCy's own index builder refuses to run on Python >= 3.11).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kg_targets.concepts.context import ContextRules
from kg_targets.concepts.lexicon import Hit, Sense
from kg_targets.concepts.lexicon_build import roles
from kg_targets.concepts.matcher import TextBatch
from kg_targets.concepts.mention import Mention, marked, reading_order
from kg_targets.concepts.stop_list import StopList
from kg_targets.concepts.text import fold, without_overlap
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Ontology

_SURROGATES = re.compile("[\ud800-\udfff]")
_MODEL = "https://s3-us-west-2.amazonaws.com/ai2-s2-scispacy/releases/v{0}/{1}-{0}.tar.gz"
_RELEASE = "0.5.4"  # the models' own, which scispaCy 0.6 names
_ROWS_AT_ONCE = 256


class ScispacyExtractor:
    """Named-entity recognition and linking by scispaCy.

    Args:
        ontology: its names and kinds are used for the CUIs it knows.
        model: name of an installed spaCy or scispaCy pipeline, or a loaded one, that sets ``doc.ents``.
        knowledge_base: name of one of scispaCy's linkers, or path of a knowledge base in JSON lines.
        threshold: least linker score (cosine of character 3-gram tf-idf), in [0, 1].
        abbreviations: resolve "DVT" to the long form that the caption defines.
        stop_list: strings and CUIs to leave alone; None for the shipped list.
        context: read what is negated, uncertain, hypothetical, …
        batch_size: captions per ``nlp.pipe`` batch.

    Raises:
        ExtractionError: scispaCy, the model or the knowledge base is missing; says what to install.
    """

    name = "scispacy"

    def __init__(
        self,
        ontology: Ontology,
        model: Any = "en_core_sci_sm",
        knowledge_base: str | Path = "umls",
        *,
        threshold: float = 0.95,
        abbreviations: bool = True,
        stop_list: StopList | None = None,
        context: bool = True,
        batch_size: int = 128,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ExtractionError(f"extractor scispacy: threshold must lie in [0, 1], not {threshold}")
        self._ontology = ontology
        self._threshold = threshold
        self._batch_size = batch_size
        self._stop_list = StopList.shipped() if stop_list is None else stop_list
        self._rules = ContextRules.shipped() if context else None
        self._nlp = _load_model(model) if isinstance(model, str) else model
        detector = _import("scispacy.abbreviation").AbbreviationDetector
        self._detect_abbreviations = detector(self._nlp) if abbreviations else None
        self._linker = _load_linker(knowledge_base, abbreviations)

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """Mentions of each caption in reading order; ``provided`` is not looked at."""
        texts = [_SURROGATES.sub("\ufffd", caption) for caption in captions]
        self._nlp.max_length = max(self._nlp.max_length, *(len(text) + 1 for text in texts), 0)
        docs = self._nlp.pipe(texts, batch_size=self._batch_size)
        return [self._mentions(caption, doc) for caption, doc in zip(captions, docs, strict=True)]

    def _mentions(self, caption: str, doc: Any) -> list[Mention]:
        if self._detect_abbreviations is not None:
            doc = self._detect_abbreviations(doc)
        linked = [
            (entity.start_char, entity.end_char, *best)
            for entity in self._linker(doc).ents
            if len(entity.text) > 1 and (best := self._best(entity)) is not None
        ]
        statuses = self._statuses(caption, linked)
        mentions = [
            marked(
                Mention(cui, self._name(cui), start, end, caption[start:end], score, source=self.name),
                statuses.get(index, ()),
            )
            for index, (start, end, cui, score) in enumerate(linked)
        ]
        return sorted(mentions, key=reading_order)

    def _best(self, entity: Any) -> tuple[str, float] | None:
        """First candidate that reaches the threshold and is on no stop list; a retired CUI as its successor."""
        alias = fold(entity.text).text
        for cui, score in entity._.kb_ents:
            if score >= self._threshold and not self._stop_list.stops(alias, cui, entity.text.isupper()):
                return self._ontology.current(cui), min(1.0, float(score))
        return None

    def _statuses(self, caption: str, linked: Sequence[tuple[int, int, str, float]]) -> dict[int, set[str]]:
        """What the caption says of those in ``linked`` that it does not simply state, by position."""
        if self._rules is None or not linked:
            return {}
        folded = fold(caption)
        spans = {}
        for index, (start, end, cui, _) in enumerate(linked):
            negatable, place = self._roles(cui)
            first, last = folded.locate(start, end)
            spans[first, last] = index, Hit(first, last, Sense(cui, cui, "", negatable, place))
        hits = without_overlap([hit for _, hit in spans.values()])
        (phrases,) = self._rules.find(TextBatch.of([folded.text]))
        found = self._rules.statuses(caption, folded, hits, phrases)
        return {spans[hits[i].start, hits[i].end][0]: given for i, given in found.items()}

    def _roles(self, cui: str) -> tuple[bool, bool]:
        if cui in self._ontology:
            concept = self._ontology[cui]
            return roles(concept.kind, concept.semantic_types, concept.sources)
        return roles("", self._linker.kb.cui_to_entity[cui].types, ())

    def _name(self, cui: str) -> str:
        return (
            self._ontology[cui].name
            if cui in self._ontology
            else str(self._linker.kb.cui_to_entity[cui].canonical_name)
        )


class ExactIndex:
    """Nearest aliases by cosine, computed exactly; answers the one call that scispaCy makes of its HNSW index.

    Args:
        vectors: L2-normalised tf-idf rows of the aliases, sparse ``[aliases, features]``.
    """

    def __init__(self, vectors: Any) -> None:
        self._transposed = vectors.T.tocsr()

    def knnQueryBatch(  # noqa: N802 - scispaCy's name
        self, queries: Any, k: int, **_: Any
    ) -> list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """Per query the ``k`` nearest rows and their cosine distances, nearest first, ties by row."""
        found = []
        for start in range(0, queries.shape[0], _ROWS_AT_ONCE):
            products = (queries[start : start + _ROWS_AT_ONCE] @ self._transposed).tocsr()
            for row in range(products.shape[0]):
                part = slice(products.indptr[row], products.indptr[row + 1])
                columns, scores = products.indices[part], products.data[part]
                order = np.lexsort((columns, -scores))[:k]
                found.append((columns[order], 1.0 - scores[order]))
        return found


def check_installed(model: Any = "en_core_sci_sm", knowledge_base: str | Path = "umls", **_: Any) -> None:
    """Refuse at once what making the extractor would refuse after an ontology was read; loads nothing.

    Args:
        model: as the extractor takes it.
        knowledge_base: likewise; the other options are not looked at.

    Raises:
        ExtractionError: scispaCy, the model or the knowledge base's file is missing; says what to install.
    """
    if find_spec("spacy") is None or find_spec("scispacy") is None:
        raise ExtractionError(
            "extractor scispacy: scispaCy is not installed; run: pip install 'kg-targets[scispacy]'"
        )
    if (
        isinstance(model, str)
        and not Path(model).exists()
        and not (model.isidentifier() and find_spec(model))
    ):
        raise _no_model(model)
    if str(knowledge_base).endswith(".jsonl") and not Path(knowledge_base).is_file():
        raise ExtractionError(f"extractor scispacy: the knowledge base {knowledge_base} does not exist")


def _no_model(name: str) -> ExtractionError:
    """The error that names the command by which a pipeline is installed."""
    ours = name.startswith(("en_core_sci_", "en_ner_"))
    command = f"pip install {_MODEL.format(_RELEASE, name)}" if ours else f"python -m spacy download {name}"
    return ExtractionError(f"extractor scispacy: the pipeline {name!r} is not installed; run: {command}")


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ExtractionError(
            f"extractor scispacy: {module} cannot be imported ({error}); run: pip install 'kg-targets[scispacy]'"
        ) from error


def _load_model(name: str) -> Any:
    try:
        return _import("spacy").load(name)
    except OSError as error:
        raise _no_model(name) from error


def _load_linker(knowledge_base: str | Path, abbreviations: bool) -> Any:
    linking = _import("scispacy.linking")
    if not str(knowledge_base).endswith(".jsonl"):
        try:
            return linking.EntityLinker(linker_name=str(knowledge_base), resolve_abbreviations=abbreviations)
        except (OSError, KeyError, ValueError) as error:
            raise ExtractionError(
                f"extractor scispacy: linker {knowledge_base!r} is neither a path ending in .jsonl nor one of "
                f"scispaCy's that could be loaded or downloaded ({type(error).__name__})"
            ) from error
    generator = _import("scispacy.candidate_generation").CandidateGenerator
    kb = _read_knowledge_base(knowledge_base)
    aliases = list(dict.fromkeys(sorted(kb.alias_to_cuis)))
    vectorizer = _import("sklearn.feature_extraction.text").TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32
    )
    index = ExactIndex(vectorizer.fit_transform(aliases))
    candidates = generator(
        ann_index=index, tfidf_vectorizer=vectorizer, ann_concept_aliases_list=aliases, kb=kb
    )
    return linking.EntityLinker(
        candidate_generator=candidates, resolve_abbreviations=abbreviations, filter_for_definitions=False
    )


def _read_knowledge_base(path: str | Path) -> Any:
    try:
        kb = _import("scispacy.linking_utils").KnowledgeBase(str(path))
    except (OSError, ValueError, TypeError) as error:
        raise ExtractionError(f"{path}: not a knowledge base in scispaCy's JSON lines ({error})") from error
    if not kb.alias_to_cuis:
        raise ExtractionError(f"{path}: the knowledge base holds no concept")
    return kb
