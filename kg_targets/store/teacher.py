"""A teacher's store: how alike a trained model finds the images and captions of a data set, for one batch at a time.

A frozen CLIP-like model gave every image a unit vector A_i and every caption a unit vector B_i, once (methods.md §2.2).
Its logits of a batch are exp(logit scale)·A·Bᵀ, as in the model itself: not symmetric, not bounded by 1, and the
diagonal is what the teacher thinks of the true pairs.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kg_targets.errors import StoreError
from kg_targets.store import schema
from kg_targets.store.block import check_block_kind, finite
from kg_targets.store.reader import ImageLike, TargetStore

if TYPE_CHECKING:
    from kg_targets.store.explain import Explanation

MATCHED_LOGIT = 200.0
"""Scale of a store without a teacher: exp(−200) is 0 in float32, so that the targets are hard labels, exactly."""
_OF_KNOWLEDGE = ("cuis", "factor", "factor_index", "factor_value", "neighbor_rows", "neighbor_scores")


class TeacherStore(TargetStore):
    """Two factors per row, one of the image and one of the caption, and the scale of their products.

    It has no concepts: what asks for them is refused in one line. A row whose image could not be read keeps its place
    with ``known`` false and an image factor of zeros; training leaves such images out.
    """

    kind: ClassVar[str] = schema.TEACHER

    @property
    def teacher(self) -> dict[str, Any]:
        """The manifest's entry on the teacher: name, kind, digest, dim, scale, preprocessing."""
        return dict(self.manifest["teacher"])

    @property
    def scale(self) -> float:
        """exp of the teacher's logit scale, > 0."""
        return float(self.manifest["teacher"]["scale"])

    @property
    def dim(self) -> int:
        """Width of the teacher's shared space; 0 where there is no teacher (``none``)."""
        return int(self.manifest["teacher"]["dim"])

    @cached_property
    def image_factors(self) -> NDArray[np.float32]:
        """float32 [N, D]: A, rows of norm 1, or of zeros where the image could not be read."""
        return self._vectors("image_factor")

    @cached_property
    def text_factors(self) -> NDArray[np.float32]:
        """float32 [N, D]: B, rows of norm 1; equal captions have equal rows."""
        return self._vectors("text_factor")

    def column(self, name: str) -> pa.ChunkedArray:
        """See ``TargetStore.column``; columns that only knowledge has (``cuis``, ``neighbor_rows``) are refused."""
        if name in _OF_KNOWLEDGE:
            self._no_knowledge()
        return super().column(name)

    def block(
        self, rows: ArrayLike, cols: ArrayLike | None = None, kind: str = "image_text"
    ) -> NDArray[np.float32]:
        """The teacher's logits of a batch: scale·A·Bᵀ, scale·A·Aᵀ or scale·B·Bᵀ.

        Args:
            rows: R images, as ids or as row numbers (see ``rows``), in any order, repeats allowed.
            cols: C images; ``rows`` again if left out.
            kind: what rows and columns are: ``image_text``, ``image_image`` or ``text_text``. The logits of texts
                against images are ``block(cols, rows).T``.

        Returns:
            float32 [R, C], in [−scale, scale]; nothing is forced on the diagonal. Without a teacher (``none``): the
            scale where ``rows[i] == cols[j]``, else 0, whatever the kind.

        Raises:
            StoreError: an image is not in the store, or there is no such kind.
        """
        check_block_kind(kind)
        left = self.rows(rows)
        right = left if cols is None else self.rows(cols)
        if not self.dim:
            return matched_only(left, right, self.scale)
        of_rows = self.text_factors if kind == "text_text" else self.image_factors
        of_cols = self.image_factors if kind == "image_image" else self.text_factors
        return scaled_products(of_rows[left], of_cols[right], self.scale)

    def neighbors(
        self, image: ImageLike, k: int = 10, exclude_case: bool = False, kind: str = "image_image"
    ) -> pd.DataFrame:
        """The ``k`` rows that the teacher finds most like an image (or caption), the image's own row left out.

        Args:
            kind: what is compared, as for ``block``.

        Returns:
            Columns image_id, score (the cosine), caption, group_id; best first, ties by row.

        Raises:
            StoreError: no such image, or ``k`` is not between 1 and N - 1.
        """
        row = self.row(image)
        if not 0 < k < len(self):
            raise StoreError(f"k must be between 1 and {len(self) - 1}, the other images; got {k}")
        scores = self.block([row], range(len(self)), kind)[0] / np.float32(self.scale)
        order = np.argsort(-scores, kind="stable")
        return self._nearest(row, order.tolist(), scores[order].tolist(), k, exclude_case)

    def explain(self, first: ImageLike, second: ImageLike) -> "Explanation":
        """The teacher's four cosines of two rows; a teacher has no reasons to show.

        Raises:
            StoreError: one of the images is not in the store.
        """
        from kg_targets.store.explain import Explanation

        rows = [self.row(first), self.row(second)]
        images, mixed, texts = (
            self.block(rows, kind=kind) / self.scale for kind in ("image_image", "image_text", "text_text")
        )
        note = (
            f"{self.teacher['name']} gives no reasons. Its cosines: the images {images[0, 1]:.3f}, the captions "
            f"{texts[0, 1]:.3f}, the first image with the second caption {mixed[0, 1]:.3f}, the second image with the "
            f"first caption {mixed[1, 0]:.3f}; each with its own {mixed[0, 0]:.3f} and {mixed[1, 1]:.3f}."
        )
        names, captions = ([column[row] for row in rows] for column in (self.image_ids, self.captions))
        return Explanation(names[0], names[1], captions[0], captions[1], float(images[0, 1]), note=note)

    def _vectors(self, name: str) -> NDArray[np.float32]:
        if not self.dim:
            return np.zeros((len(self), 0), dtype=np.float32)
        column = self.column(name)
        if column.type.list_size != self.dim:
            raise StoreError(
                f"{self.path}: column {name} is {column.type.list_size} wide, the manifest says {self.dim}: build the "
                "store again"
            )

        def read() -> NDArray[np.float32]:
            return finite(pc.list_flatten(column).to_numpy(), f"{self.path}: column {name}")

        return self._array(name, read).reshape(len(self), self.dim)

    def _no_knowledge(self) -> NoReturn:
        raise StoreError(
            f"{self.path} is a teacher's store ({self.teacher['name']}), which knows no concepts: name one that "
            "`kg-targets build` made with another scorer"
        )

    @property
    def threshold(self) -> float:
        """Refused: the ``evidence`` policy takes similarities of knowledge.

        Raises:
            StoreError: always.
        """
        self._no_knowledge()

    @property
    def factors(self) -> sparse.csr_array | NDArray[np.float32]:
        """See ``threshold``; a teacher's are ``image_factors`` and ``text_factors``."""
        self._no_knowledge()

    def _frame(self, table: str) -> NoReturn:
        self._no_knowledge()


def scaled_products(
    left: NDArray[np.float32], right: NDArray[np.float32], scale: float
) -> NDArray[np.float32]:
    """scale·A·Bᵀ of float32 ``[R, D]`` and ``[C, D]``, float32 ``[R, C]``."""
    product: NDArray[np.float32] = np.float32(scale) * (left @ right.T)
    return product


def matched_only(left: NDArray[np.int64], right: NDArray[np.int64], scale: float) -> NDArray[np.float32]:
    """Logits without a teacher (``none``): the scale where two rows are the same, else 0; float32 ``[R, C]``."""
    return np.where(left[:, None] == right[None, :], np.float32(scale), np.float32(0.0))
