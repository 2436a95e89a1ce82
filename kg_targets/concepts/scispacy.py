"""The paper's recipe: a scispaCy pipeline finds mentions, scispaCy's linker gives each its UMLS concept.

Abbreviations are resolved to their long forms, mentions of one character dropped, candidates below the score threshold
dropped, and of the rest the first (best) is taken. Negation is ours. Hundreds of times slower than the dictionary.

The linker is a folder with the files of one of scispaCy's, which are read without scispaCy, nmslib, scikit-learn or
pickle (``linker``); or any knowledge base as JSON lines (``concept_id, canonical_name, aliases, types, definition``),
whose aliases are indexed here; or one of scispaCy's own, by name ("umls": downloads about 1 GB once). Mentions are
those of a spaCy pipeline, or of the dictionary (``model=dictionary``), which with either of the first two needs no
spaCy. scispaCy is optional (the ``[scispacy]`` extra) and loaded when the extractor is made. Its trained models are
not on the package registry; users install them by URL.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from kg_targets.concepts.context import ContextRules
from kg_targets.concepts.dictionary import DictionaryExtractor
from kg_targets.concepts.lexicon import Hit, Sense
from kg_targets.concepts.lexicon_build import roles
from kg_targets.concepts.linker import NEAREST, KnowledgeBase, Linked, TfidfLinker, best, check_folder
from kg_targets.concepts.matcher import TextBatch
from kg_targets.concepts.mention import Mention, marked, reading_order
from kg_targets.concepts.stop_list import StopList
from kg_targets.concepts.text import fold, without_overlap
from kg_targets.errors import ExtractionError
from kg_targets.ontology import Ontology

_SURROGATES = re.compile("[\ud800-\udfff]")
_MODEL = "https://s3-us-west-2.amazonaws.com/ai2-s2-scispacy/releases/v{0}/{1}-{0}.tar.gz"
_RELEASE = "0.5.4"  # the models' own, which scispaCy 0.6 names
DICTIONARY = "dictionary"


class _Span(NamedTuple):
    start: int
    end: int
    name: str
    """What the linker is asked for."""


class ScispacyExtractor:
    """Named-entity recognition and linking by scispaCy.

    Args:
        ontology: its names and kinds are used for the CUIs it knows.
        model: name of an installed spaCy or scispaCy pipeline, or a loaded one, that sets ``doc.ents``; or
            ``dictionary``: mentions are where the ontology's names are found.
        knowledge_base: a folder with scispaCy's ``tfidf_vectorizer.joblib``, ``tfidf_vectors_sparse.npz``,
            ``concept_aliases.json`` and one knowledge base ``*.jsonl``; the path of such a knowledge base alone; or the
            name of one of scispaCy's linkers.
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
        self._dictionary: DictionaryExtractor | None = None
        self._detect_abbreviations = None
        if isinstance(model, str) and model == DICTIONARY:
            self._dictionary = DictionaryExtractor(ontology, self._stop_list, context=False)
        else:
            self._nlp = _load_model(model) if isinstance(model, str) else model
            if abbreviations:
                self._detect_abbreviations = _import("scispacy.abbreviation").AbbreviationDetector(self._nlp)
        self._linker = _open_linker(knowledge_base)

    def extract(
        self, captions: Sequence[str], provided: Sequence[Sequence[str]] | None = None
    ) -> list[list[Mention]]:
        """Mentions of each caption in reading order; ``provided`` is not looked at."""
        found = self._by_dictionary(captions) if self._dictionary else self._by_pipeline(captions)
        return [self._mentions(caption, spans) for caption, spans in zip(captions, found, strict=True)]

    def _by_dictionary(self, captions: Sequence[str]) -> Iterator[list[_Span]]:
        if self._dictionary is not None:
            for mentions in self._dictionary.extract(captions):
                yield [_Span(each.start, each.end, each.text) for each in mentions]

    def _by_pipeline(self, captions: Sequence[str]) -> Iterator[list[_Span]]:
        texts = [_SURROGATES.sub("\ufffd", caption) for caption in captions]
        self._nlp.max_length = max(self._nlp.max_length, *(len(text) + 1 for text in texts), 0)
        for doc in self._nlp.pipe(texts, batch_size=self._batch_size):
            detected = doc if self._detect_abbreviations is None else self._detect_abbreviations(doc)
            yield [
                _Span(each.start_char, each.end_char, self._long_form(each))
                for each in detected.ents
                if len(each.text) > 1
            ]

    def _long_form(self, entity: Any) -> str:
        """What the caption says that an abbreviation stands for; the text itself of other mentions."""
        long = entity._.long_form if self._detect_abbreviations is not None else None
        return str(entity.text if long is None else getattr(long, "text", long))

    def _mentions(self, caption: str, spans: list[_Span]) -> list[Mention]:
        candidates = self._linker.link([span.name for span in spans])
        linked = [
            (start, end, *chosen)
            for (start, end, _), found in zip(spans, candidates, strict=True)
            if (chosen := self._best(caption[start:end], found)) is not None
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

    def _best(self, text: str, candidates: Linked) -> tuple[str, float] | None:
        """First candidate that reaches the threshold and is on no stop list; a retired CUI as its successor."""
        alias = fold(text).text
        for cui, score in candidates:
            if score >= self._threshold and not self._stop_list.stops(alias, cui, text.isupper()):
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


class _PublishedLinker:
    """One of scispaCy's own, by name, with its approximate index; downloaded once.

    Raises:
        ExtractionError: there is none of that name, or it cannot be had.
    """

    def __init__(self, name: str) -> None:
        try:
            self._generator = _import("scispacy.candidate_generation").CandidateGenerator(name=name)
        except (OSError, KeyError, ValueError) as error:
            raise ExtractionError(
                f"extractor scispacy: linker {name!r} is neither a folder, nor a path ending in .jsonl, nor one of "
                f"scispaCy's that could be loaded or downloaded ({type(error).__name__})"
            ) from error
        self.kb = self._generator.kb

    def link(self, mentions: Sequence[str]) -> list[Linked]:
        """As ``TfidfLinker.link``."""
        return [
            best({each.concept_id: max(each.similarities) for each in found}, self.kb, by_definition=True)
            for found in self._generator(list(mentions), NEAREST)
        ]


def check_installed(model: Any = "en_core_sci_sm", knowledge_base: str | Path = "umls", **_: Any) -> None:
    """Refuse at once what making the extractor would refuse after an ontology was read; loads nothing.

    Args:
        model: as the extractor takes it.
        knowledge_base: likewise; the other options are not looked at.

    Raises:
        ExtractionError: scispaCy, the model or the knowledge base's file is missing; says what to install.
    """
    path = Path(knowledge_base)
    if path.is_dir():
        check_folder(path)
    elif path.suffix == ".jsonl" and not path.is_file():
        raise ExtractionError(f"extractor scispacy: the knowledge base {knowledge_base} does not exist")
    if isinstance(model, str) and model == DICTIONARY and path.exists():
        return
    if find_spec("spacy") is None or find_spec("scispacy") is None:
        raise ExtractionError(
            "extractor scispacy: scispaCy is not installed; run: pip install 'kg-targets[scispacy]'"
        )
    if (
        isinstance(model, str)
        and model != DICTIONARY
        and not Path(model).exists()
        and not (model.isidentifier() and find_spec(model))
    ):
        raise _no_model(model)


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


def _open_linker(knowledge_base: str | Path) -> TfidfLinker | _PublishedLinker:
    path = Path(knowledge_base)
    if path.is_dir():
        return TfidfLinker.open(path)
    if path.suffix == ".jsonl":
        return TfidfLinker(KnowledgeBase.read(path))
    return _PublishedLinker(str(knowledge_base))
