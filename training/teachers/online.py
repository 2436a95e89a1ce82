"""A teacher that is asked in every step, as the authors' code does, instead of once: the same blocks as its store's.

It costs the teacher's forward pass of the whole batch in each step (and of the images that a study's second views show)
and reads every image a second time; what it saves is the store. Augmented views never reach it: both ways, the teacher
sees images as they are.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kg_targets.store import TargetStore
from kg_targets.store.block import check_block_kind
from kg_targets.store.teacher import matched_only, scaled_products
from training.data.sources.base import ImageSource
from training.errors import DataError
from training.teachers.base import FloatArray, ImageTexts, IntArray, Teacher


class OnlineTeacher:
    """Stands where a teacher's store stands: ``kind``, ``scale``, ``dim``, ``block``.

    Args:
        teacher: asked for the rows of each batch.
        store: whose captions and images they are; its targets are not looked at.
        source: the images; None for a teacher that reads none.
    """

    kind = "teacher"

    def __init__(self, teacher: Teacher, store: TargetStore, source: ImageSource | None) -> None:
        self.teacher, self.scale, self.dim = teacher, teacher.scale, teacher.dim
        self._store, self._pairs = store, ImageTexts(store.image_ids, store.captions, source)
        self.images = _LastRows(self._see)
        """Rows to unit vectors of their images, float32 ``[R, D]``."""
        self.texts = _LastRows(lambda rows: teacher.texts(self._pairs, rows))
        """Rows to unit vectors of their captions, float32 ``[R, D]``."""

    def block(
        self, rows: ArrayLike, cols: ArrayLike | None = None, kind: str = "image_text"
    ) -> NDArray[np.float32]:
        """As ``TeacherStore.block``, to rounding; each image of ``rows`` and ``cols`` is encoded once.

        Raises:
            StoreError: there is no such kind.
            DataError: an image cannot be read, or an embedding is not finite.
        """
        check_block_kind(kind)
        left = self._store.rows(rows)
        right = left if cols is None else self._store.rows(cols)
        if not self.dim:
            return matched_only(left, right, self.scale)
        of_rows = self.texts if kind == "text_text" else self.images
        of_cols = self.images if kind == "image_image" else self.texts
        both = np.concatenate([left, right])
        return scaled_products(of_rows(both)[: len(left)], of_cols(both)[len(left) :], self.scale)

    def _see(self, rows: IntArray) -> FloatArray:
        encoded = self.teacher.images(self._pairs, rows)
        if encoded.broken:
            raise DataError(
                f"teacher {self.teacher.name} cannot see {next(iter(encoded.broken.values()))}: exclude the image, "
                "or build the teacher's store with --max-broken"
            )
        return encoded.factors


class _LastRows:
    """Cache of the rows encoded last: those that are all among them are not encoded again."""

    def __init__(self, encode: Callable[[IntArray], FloatArray]) -> None:
        self._encode = encode
        self._rows, self._factors = np.zeros(0, dtype=np.int64), np.zeros((0, 0), dtype=np.float32)

    def __call__(self, rows: IntArray) -> FloatArray:
        """Unit vectors of ``rows``, in any order, repeats allowed; float32 ``[R, D]``."""
        if not np.isin(rows, self._rows).all():
            unique = np.unique(rows)
            self._rows, self._factors = unique, self._encode(unique)
        return self._factors[np.searchsorted(self._rows, rows)]
