"""TF-IDF vectors of a text's character 3-grams, as scikit-learn's ``TfidfVectorizer(analyzer="char_wb")`` makes them.

A text is lower-cased; each word with a blank at either end gives its 3-grams; a gram counts as often as it occurs,
times idf = ln((1 + n)/(1 + df)) + 1 of the texts that were fitted; rows have norm 1.

A vectorizer that scikit-learn fitted and joblib saved is a pickle, which may run anything when it is loaded. Here it is
read by name: of the classes that such a file needs, each is a holder of attributes; any other is refused. Arrays are
made here, of numbers of a few types. No scikit-learn and no joblib are needed.
"""

from __future__ import annotations

import io
import math
import operator
import pickle
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

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
            saved = _Reader(io.BytesIO(path.read_bytes())).load().state
            weights = saved["_tfidf"].state
            # scikit-learn before 1.5 kept idf as a diagonal matrix.
            idf = weights["idf_"] if "idf_" in weights else weights["_idf_diag"].state["data"]
            idf = np.asarray(idf, dtype=np.float32).ravel()
            column = {gram: operator.index(place) for gram, place in saved["vocabulary_"].items()}
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, KeyError,
                IndexError, MemoryError, RecursionError, OverflowError) as error:  # fmt: skip
            raise ExtractionError(
                f"{path}: not a fitted TfidfVectorizer saved by joblib ({error})"
            ) from error
        settings = {**saved, **{name: weights.get(name) for name in _WEIGHTS}}
        for name, wanted in (_SETTINGS | _WEIGHTS).items():
            if settings.get(name) != wanted:
                raise ExtractionError(
                    f"{path}: {name} is {reprlib.repr(settings.get(name))}, not {wanted!r} as in scispaCy's"
                )
        fits = len(idf) == len(column) and set(column.values()) == set(range(len(column)))
        if not fits or any(not isinstance(gram, str) for gram in column):
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
    """What the file says about an object of some class, and nothing that the class does."""

    state: dict[str, Any]

    def __new__(cls, *_: Any) -> Self:
        held = super().__new__(cls)
        held.state = {}
        return held

    def build(self, state: Any) -> Any:
        """Take the state that the file gives; returns what stands for the object from then on."""
        self.state.update(state)
        return self


class _Dtype(_Held):
    """One of `_DTYPES`. numpy's own class is not asked: its state decides what is taken for a pointer."""

    dtype: np.dtype[Any]

    def __new__(cls, name: Any = "", *_: Any) -> Self:
        held = super().__new__(cls)
        if name not in _DTYPES:
            raise pickle.UnpicklingError(f"numbers of type {reprlib.repr(name)}, not {', '.join(_DTYPES)}")
        held.dtype = np.dtype(f"<{name}")
        return held

    def build(self, state: Any) -> Any:
        if state not in _PLAIN:
            raise pickle.UnpicklingError(f"numbers of type {self.dtype.str} with a state of their own")
        return self

    def numbers(self, data: bytes, count: int) -> NDArray[Any]:
        """So many numbers from bytes."""
        if not isinstance(data, bytes) or len(data) != count * self.dtype.itemsize:
            raise pickle.UnpicklingError(f"{count} numbers of type {self.dtype.str} do not fit their bytes")
        return np.frombuffer(data, self.dtype)


class _Array(_Held):
    """joblib's note that an array's bytes follow in the file."""

    def read(self, file: io.BytesIO) -> NDArray[Any]:
        shape, dtype = self.state["shape"], self.state["dtype"]
        if not isinstance(dtype, _Dtype) or not all(type(size) is int and size >= 0 for size in shape):
            raise pickle.UnpicklingError("an array of another shape or type than a vectorizer's")
        if self.state.get("numpy_array_alignment_bytes") is not None:
            file.read(file.read(1)[0])
        count = math.prod(shape)
        numbers = dtype.numbers(file.read(count * dtype.dtype.itemsize), count)
        return numbers.reshape(shape, order="F" if self.state["order"] == "F" else "C")


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    return dtype.numbers(data, 1)[0]


_DTYPES = ("f8", "f4", "i8", "i4", "b1")
_PLAIN = tuple((3, order, None, None, None, -1, -1, 0) for order in "<|")
"""States of a dtype without fields, in little endian or of single bytes."""
_KNOWN: dict[tuple[str, str], Any] = {
    ("sklearn", "TfidfVectorizer"): _Held, ("sklearn", "TfidfTransformer"): _Held, ("scipy", "dia_matrix"): _Held,
    ("joblib", "NumpyArrayWrapper"): _Array, ("numpy", "ndarray"): _Held, ("numpy", "dtype"): _Dtype,
    ("numpy", "float32"): _Held, ("numpy", "float64"): _Held, ("numpy", "scalar"): _scalar,
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
        state, held = self.stack.pop(), self.stack[-1]
        if not isinstance(held, _Held):
            raise pickle.UnpicklingError(f"it sets what is inside a {type(held).__name__}")
        built = held.build(state)
        self.stack[-1] = built.read(self._file) if isinstance(built, _Array) else built

    dispatch[pickle.BUILD[0]] = load_build
