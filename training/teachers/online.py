"""A teacher that is asked in every step, as the authors' code does, instead of once: the same blocks as its store's.

It costs the teacher's forward pass of the whole batch in each step and reads every image a second time; what it saves
is the store. Augmented views never reach it: both ways, the teacher sees images as they are.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kg_targets.store import TargetStore
from kg_targets.store.reader import check_block_kind
from kg_targets.store.teacher import matched_only, scaled_products
from training.data.sources.base import ImageSource
from training.errors import DataError
from training.teachers.base import FloatArray, Pairs, Teacher


class OnlineTeacher:
    """Stands where a teacher's store stands: ``kind``, ``scale``, ``dim``, ``block``, ``check_matches``.

    Args:
        teacher: asked for the rows of each batch.
        store: whose captions and images they are; its targets are not looked at.
        source: the images; None for a teacher that reads none.
    """

    kind = "teacher"

    def __init__(self, teacher: Teacher, store: TargetStore, source: ImageSource | None) -> None:
        self.teacher, self.store = teacher, store
        self._pairs = Pairs(store.image_ids, store.captions, source)
        self._rows = np.zeros(0, dtype=np.int64)
        self._images = self._texts = _NOTHING

    def __len__(self) -> int:
        return len(self.store)

    @property
    def scale(self) -> float:
        """exp of the teacher's logit scale."""
        return self.teacher.scale

    @property
    def dim(self) -> int:
        """D, width of the shared space; 0 if the teacher says nothing."""
        return self.teacher.dim

    def check_matches(self, image_ids: Sequence[str], captions: Sequence[str]) -> None:
        """See ``TargetStore.check_matches``."""
        self.store.check_matches(image_ids, captions)

    def embed(self, rows: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Unit vectors of images and captions, float32 ``[R, D]`` each.

        What was encoded last is remembered: rows that are all among those are not encoded again.

        Raises:
            DataError: an image cannot be read, or an embedding is not finite.
        """
        index = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        if not np.isin(index, self._rows).all():
            unique = np.unique(index)
            encoded = self.teacher.images(self._pairs, unique)
            if encoded.broken:
                raise DataError(
                    f"teacher {self.teacher.name} cannot see {next(iter(encoded.broken.values()))}: exclude the image, "
                    "or build the teacher's store with --max-broken"
                )
            self._rows, self._images = unique, encoded.factors
            self._texts = self.teacher.texts(self._pairs, unique)
        places = np.searchsorted(self._rows, index)
        return self._images[places], self._texts[places]

    def block(
        self, rows: ArrayLike, cols: ArrayLike | None = None, kind: str = "image_text"
    ) -> NDArray[np.float32]:
        """As ``TeacherStore.block``, to rounding; each image of ``rows`` and ``cols`` is encoded once.

        Raises:
            StoreError: there is no such kind.
            DataError: as ``embed``.
        """
        check_block_kind(kind)
        left = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        right = left if cols is None else np.atleast_1d(np.asarray(cols, dtype=np.int64))
        if not self.teacher.dim:
            return matched_only(left, right, self.scale)
        images, texts = self.embed(np.concatenate([left, right]))
        of_rows = texts if kind == "text_text" else images
        of_cols = images if kind == "image_image" else texts
        return scaled_products(of_rows[: len(left)], of_cols[len(left) :], self.scale)


_NOTHING = np.zeros((0, 0), dtype=np.float32)
