"""TF-IDF vectors of a text's character 3-grams, as scikit-learn's ``TfidfVectorizer(analyzer="char_wb")`` makes them.

A text is lower-cased; each word with a blank at either end gives its 3-grams; a gram counts as often as it occurs,
times idf = ln((1 + n)/(1 + df)) + 1 of the texts that were fitted; rows have norm 1.

A vectorizer that scikit-learn fitted and joblib saved is a pickle, which may run anything when it is loaded. Here it is
read by name: of the classes that such a file needs, each is a holder of attributes; any other is refused. No
scikit-learn and no joblib are needed.
"""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kg_targets.errors import ExtractionError

_WIDTH = 3
_SETTINGS = {
    "analyzer": "char_wb", "ngram_range": (_WIDTH, _WIDTH), "lowercase": True, "strip_accents": None,
    "preprocessor": None, "tokenizer": None, "binary": False,
}  # fmt: skip
_WEIGHTS = {"norm": "l2", "use_idf": True, "sublinear_tf": False}


@dataclass(frozen=True)
class CharTfidf:
    """A fitted vectorizer."""

    column: Mapping[str, int]
    """3-gram to column."""
    idf: NDArray[np.float32]
    """[columns]."""

    @classmethod
    def fit(cls, texts: Sequence[str]) -> CharTfidf:
        """Fit on texts; columns are their grams in order."""
        documents = Counter[str]()
        for text in texts:
            documents.update(set(_grams(text)))
        column = {gram: place for place, gram in enumerate(sorted(documents))}
        counts = np.array([documents[gram] for gram in column], dtype=np.float32)
        idf = np.log(np.float32(len(texts) + 1) / (counts + 1)) + np.float32(1)
        return cls(column, idf.astype(np.float32))

    @classmethod
    def read(cls, path: Path) -> CharTfidf:
        """Read what joblib wrote.

        Raises:
            ExtractionError: the file cannot be read, holds something else, or was fitted in another way.
        """
        try:
            with path.open("rb") as file:
                saved = _Reader(file).load()
            weights = saved._tfidf
            settings = {**vars(saved), **{name: getattr(weights, name) for name in _WEIGHTS}}
            # scikit-learn before 1.5 kept idf as a diagonal matrix.
            idf = weights.idf_ if hasattr(weights, "idf_") else weights._idf_diag.data
            column = {str(gram): int(place) for gram, place in saved.vocabulary_.items()}
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, KeyError,
                IndexError, MemoryError, UnicodeDecodeError, OverflowError) as error:  # fmt: skip
            raise ExtractionError(
                f"{path}: not a fitted TfidfVectorizer saved by joblib ({error})"
            ) from error
        for name, wanted in (_SETTINGS | _WEIGHTS).items():
            if settings.get(name) != wanted:
                raise ExtractionError(
                    f"{path}: {name} is {settings.get(name)!r}, not {wanted!r} as in scispaCy's"
                )
        idf = np.asarray(idf, dtype=np.float32).ravel()
        if len(idf) != len(column) or set(column.values()) != set(range(len(column))):
            raise ExtractionError(f"{path}: {len(column)} grams do not fit {len(idf)} weights")
        return cls(column, idf)

    def transform(self, texts: Sequence[str]) -> sparse.csr_array:
        """Vectors of texts, float32 ``[texts, columns]``; a row of zeros where no gram is known."""
        index: list[int] = []
        value: list[float] = []
        starts = [0]
        for text in texts:
            counts = Counter(self.column[gram] for gram in _grams(text) if gram in self.column)
            weights = [count * float(self.idf[place]) for place, count in counts.items()]
            norm = math.sqrt(sum(weight * weight for weight in weights))
            index += counts
            value += [weight / norm for weight in weights]
            starts.append(len(index))
        parts = (np.array(value, dtype=np.float32), np.array(index, dtype=np.int64), np.array(starts))
        return sparse.csr_array(parts, shape=(len(texts), len(self.idf)))


def _grams(text: str) -> Iterator[str]:
    for word in text.lower().split():
        padded = f" {word} "
        for start in range(len(padded) - _WIDTH + 1):
            yield padded[start : start + _WIDTH]


class _Held:
    """Attributes of an object of some class, and nothing that the class does."""

    def __init__(self, *_: Any) -> None: ...


class _Array(_Held):
    """joblib's note that an array's bytes follow in the file."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: str

    def read(self, file: Any) -> NDArray[Any]:
        if self.dtype.hasobject:
            raise pickle.UnpicklingError("an array of objects")
        if getattr(self, "numpy_array_alignment_bytes", None) is not None:
            file.read(file.read(1)[0])
        count = math.prod(self.shape)
        values = np.frombuffer(file.read(count * self.dtype.itemsize), self.dtype, count)
        return values.reshape(self.shape, order="F" if self.order == "F" else "C")


def _scalar(dtype: np.dtype[Any], data: bytes) -> Any:
    return np.frombuffer(data, dtype)[0]


_KNOWN: dict[tuple[str, str], Any] = {
    ("sklearn", "TfidfVectorizer"): _Held, ("sklearn", "TfidfTransformer"): _Held, ("scipy", "dia_matrix"): _Held,
    ("joblib", "NumpyArrayWrapper"): _Array, ("numpy", "ndarray"): _Held, ("numpy", "dtype"): np.dtype,
    ("numpy", "float32"): np.float32, ("numpy", "float64"): np.float64, ("numpy", "scalar"): _scalar,
    ("builtins", "set"): set,
}  # fmt: skip
"""Package and name of what a saved vectorizer refers to, and what takes its place."""


class _Reader(pickle._Unpickler):
    """Unpickler that knows ``_KNOWN`` and no other name, and joblib's arrays."""

    dispatch: ClassVar[Any] = dict(pickle._Unpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class of the file."""
        found = _KNOWN.get((module.partition(".")[0], name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no vectorizer needs")
        return found

    def load_build(self) -> None:
        super().load_build()  # type: ignore[misc]
        if isinstance(self.stack[-1], _Array):
            self.stack[-1] = self.stack[-1].read(self._file)

    dispatch[pickle.BUILD[0]] = load_build
