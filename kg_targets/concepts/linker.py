"""Linking of mentions to concepts by similar names: scispaCy's linker, exact, without spaCy, nmslib or scikit-learn.

A mention is compared with every alias by the cosine of their character 3-grams (``char_tfidf``). Its 30 nearest
aliases, ties by their place, name its candidates; a concept scores as its best alias. Then scispaCy's rules: scores
above 0.7, for concepts without definition at least 0.95 (its own linkers), best first, ties by concept, five at most.
scispaCy asks an approximate index for the nearest aliases; here they are exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.concepts.char_tfidf import CharTfidf
from kg_targets.errors import ExtractionError

NEAREST = 30
LEAST = 0.7
LEAST_WITHOUT_DEFINITION = 0.95
MOST = 5
VECTORIZER, VECTORS, ALIASES = "tfidf_vectorizer.joblib", "tfidf_vectors_sparse.npz", "concept_aliases.json"
"""Files of scispaCy's that a linker's folder holds; its ``nmslib_index.bin`` is not needed."""
_REMEMBERED = 100_000
"""Mentions whose concepts are kept: data sets repeat themselves."""
Linked = tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Entity:
    """A concept of a knowledge base, with the names that scispaCy gives its fields."""

    canonical_name: str
    types: tuple[str, ...]
    definition: str | None


@dataclass(frozen=True)
class KnowledgeBase:
    """Concepts and their aliases."""

    cui_to_entity: Mapping[str, Entity]
    alias_to_cuis: Mapping[str, set[str]]

    @classmethod
    def read(cls, path: Path) -> KnowledgeBase:
        """Read scispaCy's JSON lines: ``concept_id, canonical_name, aliases, types, definition``.

        Raises:
            ExtractionError: the file is missing, damaged or empty.
        """
        entities: dict[str, Entity] = {}
        aliases: dict[str, set[str]] = {}
        number = 0
        try:
            with path.open(encoding="utf-8") as lines:
                for line in lines:
                    number += 1
                    entry = json.loads(line)
                    cui, name = str(entry["concept_id"]), str(entry["canonical_name"])
                    entities[cui] = Entity(name, tuple(entry.get("types") or ()), entry.get("definition"))
                    for alias in (name, *entry["aliases"]):
                        aliases.setdefault(alias, set()).add(cui)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            where = f" line {number}:" if number else ""
            raise ExtractionError(
                f"{path}:{where} not a knowledge base in scispaCy's JSON lines ({error})"
            ) from error
        if not entities:
            raise ExtractionError(f"{path}: the knowledge base holds no concept")
        return cls(entities, aliases)


class TfidfLinker:
    """Candidates of mentions by exact nearest aliases.

    Args:
        kb: concepts and aliases.
        vectorizer: fitted; of the aliases themselves if left out.
        vectors: of the aliases, ``[aliases, columns]``, of any norm; by the vectorizer if left out.
        aliases: in the order of the vectors; all of the knowledge base if left out.
        by_definition: ask more of concepts without definition, as scispaCy's own linkers do.
    """

    def __init__(
        self,
        kb: KnowledgeBase,
        vectorizer: CharTfidf | None = None,
        vectors: sparse.csr_array | None = None,
        aliases: Sequence[str] | None = None,
        *,
        by_definition: bool = False,
    ) -> None:
        self.kb, self._by_definition = kb, by_definition
        self._aliases = sorted(kb.alias_to_cuis) if aliases is None else aliases
        self._vectorizer = CharTfidf.fit(self._aliases) if vectorizer is None else vectorizer
        rows = self._vectorizer.transform(self._aliases) if vectors is None else _unit(vectors)
        self._columns = sparse.csr_array(rows.T)
        self._linked: dict[str, Linked] = {}

    @classmethod
    def open(cls, folder: Path) -> TfidfLinker:
        """Read a folder with scispaCy's three files and its knowledge base, the only ``.jsonl`` there.

        Raises:
            ExtractionError: a file is missing, damaged, or does not fit the others.
        """
        check_folder(folder)
        kb = KnowledgeBase.read(next(folder.glob("*.jsonl")))
        vectorizer = CharTfidf.read(folder / VECTORIZER)
        vectors = _read_vectors(folder / VECTORS)
        try:
            aliases = list(map(str, json.loads((folder / ALIASES).read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError) as error:
            raise ExtractionError(f"{folder / ALIASES}: not a list of aliases in JSON ({error})") from error
        if vectors.shape != (len(aliases), len(vectorizer.idf)):
            raise ExtractionError(
                f"{folder / VECTORS}: {list(vectors.shape)} does not fit {len(aliases)} aliases and "
                f"{len(vectorizer.idf)} 3-grams: take files of one release"
            )
        unknown = next((alias for alias in aliases if alias not in kb.alias_to_cuis), None)
        if unknown is not None:
            raise ExtractionError(
                f"{folder}: the knowledge base has no alias {unknown!r}, which the index has: take files of one release"
            )
        return cls(kb, vectorizer, vectors, aliases, by_definition=True)

    def nearest(self, mention: str, count: int = NEAREST) -> list[tuple[str, float]]:
        """The aliases with the largest cosine, best first, ties by their place, those of cosine 0 left out."""
        product = sparse.csr_array(self._vectorizer.transform([mention]) @ self._columns)
        place, cosine = product.indices, product.data
        if len(cosine) > count:
            least = np.partition(cosine, -count)[-count]
            place, cosine = place[cosine >= least], cosine[cosine >= least]
        order = np.lexsort((place, -cosine))[:count]
        return [
            (self._aliases[row], float(score)) for row, score in zip(place[order], cosine[order], strict=True)
        ]

    def link(self, mentions: Sequence[str]) -> list[Linked]:
        """Concepts of each mention with their cosines, best first."""
        if len(self._linked) > _REMEMBERED:
            self._linked.clear()
        for mention in set(mentions) - self._linked.keys():
            self._linked[mention] = self._link(mention)
        return [self._linked[mention] for mention in mentions]

    def _link(self, mention: str) -> Linked:
        scores: dict[str, float] = {}
        for alias, score in self.nearest(mention):
            for cui in self.kb.alias_to_cuis[alias]:
                scores[cui] = max(score, scores.get(cui, score))
        return best(scores, self.kb, self._by_definition)


def best(scores: Mapping[str, float], kb: Any, by_definition: bool) -> Linked:
    """scispaCy's choice among a mention's candidates.

    Args:
        scores: of concepts.
        kb: ours or scispaCy's.
        by_definition: ask more of concepts without definition.
    """
    weak = LEAST_WITHOUT_DEFINITION if by_definition else LEAST
    kept = [
        (cui, score)
        for cui, score in scores.items()
        if score > LEAST and (score >= weak or kb.cui_to_entity[cui].definition is not None)
    ]
    return tuple(sorted(kept, key=lambda each: (-each[1], each[0]))[:MOST])


def check_folder(folder: Path) -> None:
    """Refuse a folder in which a file is missing.

    Raises:
        ExtractionError: names it.
    """
    missing = [name for name in (VECTORIZER, VECTORS, ALIASES) if not (folder / name).is_file()]
    if missing:
        raise ExtractionError(
            f"{folder} has no {missing[0]}: it must hold the files of one of scispaCy's linkers"
        )
    if len(list(folder.glob("*.jsonl"))) != 1:
        raise ExtractionError(f"{folder} must hold the knowledge base of the linker, one file *.jsonl")


def _unit(vectors: sparse.csr_array) -> sparse.csr_array:
    """Rows of norm 1: those of scispaCy's files are rounded to float16."""
    squares = np.asarray(vectors.multiply(vectors).sum(axis=1), dtype=np.float64).ravel()
    lengths = np.sqrt(np.where(squares > 0, squares, 1.0))
    repeated: NDArray[np.float64] = np.repeat(lengths, np.diff(vectors.indptr))
    data = (vectors.data / repeated).astype(np.float32)
    return sparse.csr_array((data, vectors.indices, vectors.indptr), shape=vectors.shape)


def _read_vectors(path: Path) -> sparse.csr_array:
    """scipy's file of a CSR matrix; scipy itself refuses float16."""
    try:
        with np.load(path, allow_pickle=False) as parts:
            if parts["format"].item() not in (b"csr", "csr"):
                raise ValueError(f"format {parts['format'].item()!r}")
            held = (parts["data"].astype(np.float32), parts["indices"], parts["indptr"])
            matrix = sparse.csr_array(held, shape=tuple(parts["shape"].tolist()))
            matrix.check_format(full_check=True)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise ExtractionError(f"{path}: not a sparse matrix that scipy saved ({error})") from error
    return matrix
