"""Opens a target store and answers the questions training and notebooks ask of it."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kg_targets.errors import StoreError
from kg_targets.store import schema
from kg_targets.store.product import gram

if TYPE_CHECKING:
    import networkx as nx

    from kg_targets.store.explain import Explanation


BLOCK_KINDS = ("image_text", "image_image", "text_text")
"""What the rows and the columns of a block are; knowledge about a pair does not tell an image from its caption."""
_SHOWN = 60  # characters of a caption in a message


class TargetStore:
    """A folder of soft targets, opened read-only; columns are read when they are first used.

    ``open`` gives a store of knowledge (this class) or a teacher's (``kg_targets.store.teacher``): ``kind`` tells.

    What is stored is one factor per image. The similarities of a batch are computed when the batch is known::

        store = TargetStore.open("build/demo/train")
        S = store.block([3, 14, 15])          # float32 [3, 3]
    """

    kind: ClassVar[str] = schema.KNOWLEDGE
    """What the similarities come from: ``knowledge`` or ``teacher``."""

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> "TargetStore":
        """Open the store in folder ``path``.

        Raises:
            StoreError: there is no store, it was written by a newer version, or a file is missing.
        """
        folder = Path(path)
        try:
            manifest = json.loads((folder / schema.MANIFEST).read_text(encoding="utf-8"))
        except OSError as error:
            raise StoreError(
                f"{folder} is not a target store (no {schema.MANIFEST}): run `kg-targets build`"
            ) from error
        except ValueError as error:
            raise StoreError(f"{folder / schema.MANIFEST} is damaged: build the store again") from error
        problem = schema.manifest_problem(manifest)
        if problem:
            raise StoreError(f"{folder / schema.MANIFEST} {problem}: build the store again")
        for entry in manifest["files"]:
            if not (folder / entry["file"]).is_file():
                raise StoreError(f"{folder / entry['file']} is missing: build the store again")
        kind = manifest.get("kind", schema.KNOWLEDGE)
        if kind not in (schema.KNOWLEDGE, *_KINDS):
            raise StoreError(f"{folder} is a store of kind {kind!r}: take TargetStore from kg_targets.store")
        return _KINDS.get(kind, cls)(folder, manifest)

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    def __repr__(self) -> str:
        return f"TargetStore({str(self.path)!r}, {self.dataset}/{self.split}, {len(self):,} images)"

    @property
    def dataset(self) -> str:
        """Name of the data set."""
        return str(self.manifest["dataset"])

    @property
    def split(self) -> str:
        """Name of the split."""
        return str(self.manifest["split"])

    @property
    def fingerprint(self) -> str:
        """sha256 of the store's content and configuration."""
        return str(self.manifest["fingerprint"])

    @property
    def threshold(self) -> float:
        """θ of the ``evidence`` policy: p95 of the fit split's similarities between images of different cases."""
        return float(self.manifest["similarity"]["fit_p95"])

    @property
    def scale(self) -> float:
        """What similarities are multiplied by in ``block``: exp of a teacher's logit scale; 1 for knowledge."""
        return 1.0

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return tuple(self.manifest["labels"])

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of ``targets-*.parquet`` in row order.

        Raises:
            StoreError: the store has no such column, or a file is damaged.
        """
        tables = [self._read(entry["file"], [name]) for entry in self._shards("targets-")]
        column = pa.concat_tables(tables).column(name)
        if len(column) != len(self):
            raise StoreError(
                f"{self.path}: shards hold {len(column):,} rows, not {len(self):,}: build the store again"
            )
        return column

    def _shards(self, prefix: str) -> list[dict[str, Any]]:
        return [entry for entry in self.manifest["files"] if entry["file"].startswith(prefix)]

    def _read(self, file: str, columns: list[str] | None = None) -> pa.Table:
        path = self.path / file
        try:
            table = pq.read_table(path, columns=columns, partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split())
            raise StoreError(f"{path} cannot be read ({reason}): build the store again") from error
        if columns and table.num_columns != len(columns):
            raise StoreError(f"{path} has no column {columns[0]!r}")
        return table

    @cached_property
    def image_ids(self) -> list[str]:
        """Length N, in row order."""
        return self._strings("image_id")

    @cached_property
    def image_paths(self) -> list[str]:
        """Length N, relative to the data root."""
        return self._strings("image_path")

    @cached_property
    def captions(self) -> list[str]:
        """Length N."""
        return self._strings("caption")

    @cached_property
    def group_ids(self) -> list[str]:
        """Length N: case or patient of each image."""
        return self._strings("group_id")

    @cached_property
    def licences(self) -> list[str]:
        """Length N."""
        return self._strings("licence")

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """bool [N]: whether anything is known about the image."""
        return np.asarray(self.column("known").to_numpy(), dtype=bool)

    @cached_property
    def cuis(self) -> list[list[str]]:
        """Length N: the concepts that each caption asserts, ascending."""
        return list(self.column("cuis").to_pylist())

    def label(self, name: str) -> list[str]:
        """Length N; an empty string where the label is missing.

        Raises:
            StoreError: the data set has no such label.
        """
        if name not in self.labels:
            raise StoreError(f"{self.path} has no label {name!r}: it has {', '.join(self.labels) or 'none'}")
        return self._strings(f"label_{name}")

    @cached_property
    def concepts(self) -> pd.DataFrame:
        """One row per concept of the graph: column index, cui, name, kind, counts, ic, idf."""
        return _frame(self._read(schema.CONCEPTS))

    @cached_property
    def is_a(self) -> pd.DataFrame:
        """The graph's edges: child, relation, parent."""
        return _frame(self._read(schema.IS_A))

    @cached_property
    def mentions(self) -> pd.DataFrame:
        """Every mention, negated ones included: image_id, cui, name, start, end, text, score, negated, source."""
        return _frame(pa.concat_tables([self._read(entry["file"]) for entry in self._shards("mentions-")]))

    def cui_matrix(self) -> sparse.csr_array:
        """float32 [N, C]: 1 where the image asserts the concept; columns as in ``concepts``."""
        column = self.column("cuis").combine_chunks()
        index = pd.Index(self.concepts["cui"]).get_indexer(column.values.to_pandas())
        indptr = np.asarray(column.offsets.to_numpy(), dtype=np.int64)
        shape = (len(self), len(self.concepts))
        return sparse.csr_array((np.ones(len(index), np.float32), index, indptr), shape=shape)

    @cached_property
    def factors(self) -> sparse.csr_array | NDArray[np.float32]:
        """float32 [N, D]: K_i, norm 1 (less with shrinkage), sparse over ``concepts`` or dense; zeros where unknown."""
        dense = self.manifest["factors"]["dense"]
        if dense is not None:
            flat = self.column("factor").combine_chunks().flatten()
            return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(len(self), dense)
        index, value = (
            self.column("factor_index").combine_chunks(),
            self.column("factor_value").combine_chunks(),
        )
        parts = (value.flatten().to_numpy(), index.flatten().to_numpy(), index.offsets.to_numpy())
        matrix = sparse.csr_array(parts, shape=(len(self), len(self.concepts)))
        matrix.has_sorted_indices = True
        return matrix

    def block(
        self, rows: ArrayLike, cols: ArrayLike | None = None, kind: str = "image_text"
    ) -> NDArray[np.float32]:
        """Similarities S_ij = K_i·K_j of a batch.

        Args:
            rows: R row numbers, in any order, repeats allowed.
            cols: C row numbers; ``rows`` again if left out.
            kind: ``image_text``, ``image_image`` or ``text_text``; all the same here, three things to a teacher.

        Returns:
            float32 [R, C], symmetric (to 1e-6), in [−1, 1]; 1 where ``rows[i] == cols[j]``, else 0 for unknown images.

        Raises:
            StoreError: a row number is out of range, or there is no such kind.
        """
        check_block_kind(kind)
        left = self._row_numbers(rows)
        if cols is None:
            block = self._products(self.factors[left], None)
            np.clip(block, -1.0, 1.0, out=block)
            np.fill_diagonal(block, 1.0)
            if len(np.unique(left)) == len(left):
                return block
            right = left
        else:
            right = self._row_numbers(cols)
            block = self._products(self.factors[left], self.factors[right])
            np.clip(block, -1.0, 1.0, out=block)
        block[left[:, None] == right[None, :]] = 1.0
        return block

    def _products(self, left: Any, right: Any) -> NDArray[np.float32]:
        if sparse.issparse(left):
            return gram(left, right)
        product = left @ (left if right is None else right).T
        return np.asarray(product, dtype=np.float32)

    def neighbors(self, image_id: str, k: int = 10, exclude_case: bool = False) -> pd.DataFrame:
        """The ``k`` most similar other images: image_id, score, caption, group_id; best first, ties by row.

        Args:
            exclude_case: leave out images of the same case; then fewer than ``k`` of the kept neighbours may remain.

        Raises:
            StoreError: no such image, or more neighbours asked for than the store keeps.
        """
        kept = int(self.manifest["config"]["top_k"])
        if not 0 < k <= kept:
            raise StoreError(f"k must be between 1 and {kept}, the neighbours this store keeps; got {k}")
        row = self.row(image_id)
        rows, scores = self._neighbor_lists
        pairs = [
            (other, score)
            for other, score in zip(rows[row].as_py(), scores[row].as_py(), strict=True)
            if not (exclude_case and self.group_ids[other] == self.group_ids[row])
        ][:k]
        found = [other for other, _ in pairs]
        return pd.DataFrame(
            {
                "image_id": [self.image_ids[index] for index in found],
                "score": np.asarray([score for _, score in pairs], dtype=np.float32),
                "caption": [self.captions[index] for index in found],
                "group_id": [self.group_ids[index] for index in found],
            }
        )

    def row(self, image_id: str) -> int:
        """Row number of an image.

        Raises:
            StoreError: no such image.
        """
        row = self._row_of.get(image_id)
        if row is None:
            raise StoreError(f"{self.path} has no image {image_id!r}; its first is {self.image_ids[0]!r}")
        return row

    def check_matches(self, image_ids: Sequence[str], captions: Sequence[str]) -> None:
        """Make sure that row i of this store is item i of other data: the same images and captions, in that order.

        Args:
            image_ids: length N, of the data that the targets are to be used with.
            captions: length N.

        Raises:
            StoreError: the first row that differs, and in what.
        """
        advice = "build it from the same split of the same data set"
        if len(image_ids) != len(self):
            raise StoreError(
                f"{self.path} holds {len(self):,} rows, the training data {len(image_ids):,}: {advice}"
            )
        for name, own, other in (
            ("image", self.image_ids, image_ids),
            ("caption", self.captions, captions),
        ):
            for row, (mine, theirs) in enumerate(zip(own, other, strict=True)):
                if mine != theirs:
                    which = "" if name == "image" else f" of image {self.image_ids[row]}"
                    raise StoreError(
                        f"{self.path}: the {name}{which} in row {row} is {_short(mine)}, in the training data "
                        f"{_short(theirs)}: {advice}"
                    )

    def explain(self, first: str, second: str) -> "Explanation":
        """Why two images are as similar as they are: shared concepts, each one's share, ``is_a`` paths.

        Raises:
            StoreError: one of the images is not in the store.
        """
        from kg_targets.store.explain import explain

        return explain(self, first, second)

    def to_networkx(self, image_id: str, hops: int = 2) -> "nx.MultiDiGraph":
        """The image's neighbourhood in the concept graph, ``hops`` edges deep; see ``kg_targets.store.explain``.

        Raises:
            StoreError: no such image.
        """
        from kg_targets.store.explain import neighbourhood

        return neighbourhood(self, image_id, hops)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    @cached_property
    def _neighbor_lists(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        return self.column("neighbor_rows"), self.column("neighbor_scores")

    def _strings(self, name: str) -> list[str]:
        return list(self.column(name).to_pylist())

    def _row_numbers(self, rows: ArrayLike | Sequence[int]) -> NDArray[np.int64]:
        numbers = np.atleast_1d(np.asarray(rows, dtype=np.int64))
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < len(self)):
            raise StoreError(
                f"row numbers must be between 0 and {len(self) - 1}; got {numbers.min()}–{numbers.max()}"
            )
        return numbers


_KINDS: dict[str | None, type[TargetStore]] = {}
"""Other kinds of store that ``open`` finds, such as a teacher's; importing ``kg_targets.store.teacher`` adds it."""


def check_block_kind(kind: str) -> None:
    """Refuse a kind of block that there is not.

    Raises:
        StoreError: it is none of ``BLOCK_KINDS``.
    """
    if kind not in BLOCK_KINDS:
        raise StoreError(f"a block's kind must be one of {', '.join(BLOCK_KINDS)}; got {kind!r}")


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
