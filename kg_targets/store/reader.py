"""Reader of a target store: its columns, blocks of similarities, neighbours, explanations."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from kg_targets.errors import StoreError
from kg_targets.store import schema
from kg_targets.store.block import case_codes, check_block_kind, row_numbers
from kg_targets.store.digest import key64
from kg_targets.store.factors import AnyFactors, products, read_factors, read_vectors
from kg_targets.store.tables import Tables, listed

if TYPE_CHECKING:
    import networkx as nx

    from kg_targets.store.explain import Explanation

ImageLike = str | int | np.integer[Any]
"""One image: its id, or its row number."""
_SHOWN = 60  # characters of a caption in a message


class TargetStore(Tables):
    """A folder of soft targets, opened read-only; columns are read when they are first used.

    ``open`` gives a store of knowledge (this class) or a teacher's (``kg_targets.store.teacher``): ``kind`` tells.

    What is stored is one factor per image. The similarities of a batch are computed when the batch is known::

        store = TargetStore.open("build/demo/train")
        S = store.block([3, 14, 15])          # float32 [3, 3]
    """

    kind: ClassVar[str] = schema.KNOWLEDGE
    """Origin of the similarities: ``knowledge`` or ``teacher``."""

    def __init_subclass__(cls) -> None:
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        super().__init__(path, manifest)
        self.joined: dict[str, list[str]] = {}  # labels of ``kg_targets.store.labels``

    @classmethod
    def open(cls, path: str | Path) -> "TargetStore":
        """Open the store in folder ``path``.

        Raises:
            StoreError: there is no store, it was written by a newer version, or a file is missing.
        """
        folder = Path(path)
        manifest = schema.read_manifest(folder)
        kind = manifest.get("kind", schema.KNOWLEDGE)
        if kind not in (schema.KNOWLEDGE, *_KINDS):
            raise StoreError(f"{folder} is a store of kind {kind!r}: take TargetStore from kg_targets.store")
        return _KINDS.get(kind, cls)(folder, manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes open the folder themselves, and share the pages of what is mapped.
        return _reopened, (self.path, self.joined)

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
    def threshold(self) -> float:
        """θ < 1 of the ``evidence`` policy: p95 of the fit split's similarities between images of different cases."""
        return min(float(self.manifest["similarity"]["fit_p95"]), 1.0 - 1e-6)  # 1 and more, by rounding

    @property
    def scale(self) -> float:
        """Factor of the similarities in ``block``: exp of a teacher's logit scale; 1 for knowledge."""
        return 1.0

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the label columns."""
        return (*self.manifest["labels"], *self.joined)

    image_ids: "cached_property[Sequence[str]]" = listed("image_id")
    """Length N, in row order."""
    image_paths: "cached_property[Sequence[str]]" = listed("image_path")
    """Length N, relative to the data root."""
    captions: "cached_property[Sequence[str]]" = listed("caption")
    """Length N."""
    group_ids: "cached_property[Sequence[str]]" = listed("group_id")
    """Length N: case or patient of each image."""
    licences: "cached_property[Sequence[str]]" = listed("licence")
    """Length N."""

    @cached_property
    def cases(self) -> NDArray[np.int64]:
        """int64 [N]: one number per case (``group_id``); an image without one is a case of its own."""
        return self._array("cases", lambda: case_codes(self.group_ids))

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """bool [N]: whether anything is known about the image."""
        return self._array("known", lambda: np.asarray(self._stored("known").to_numpy(), dtype=bool))

    cuis: "cached_property[Sequence[list[str]]]" = listed("cuis")
    """Length N: the concepts that each caption asserts, ascending."""

    def label(self, name: str) -> Sequence[str]:
        """Length N; an empty string where the label is missing.

        Raises:
            StoreError: the data set has no such label.
        """
        if name not in self.labels:
            raise StoreError(f"{self.path} has no label {name!r}: it has {', '.join(self.labels) or 'none'}")
        return self.joined.get(name) or self.listed(f"label_{name}")

    @cached_property
    def concepts(self) -> pd.DataFrame:
        """One row per concept of the graph: column index, cui, name, kind, counts, ic, idf."""
        return self._frame(schema.CONCEPTS)

    @cached_property
    def edges(self) -> pd.DataFrame:
        """The graph's edges: child, relation, parent."""
        return self._frame(schema.EDGES)

    @property
    def is_a(self) -> pd.DataFrame:
        """The same as ``edges``, by its name in version 0.2."""
        return self.edges

    @cached_property
    def mentions(self) -> pd.DataFrame:
        """Every mention, negated ones included: the columns of ``schema.MENTION_COLUMNS``."""
        return schema.complete_mentions(self._frame(schema.MENTIONS))

    def cui_matrix(self) -> sparse.csr_array:
        """float32 [N, C]: 1 where the image asserts the concept; columns as in ``concepts``."""
        column = self.column("cuis")
        codes = pc.list_flatten(column).combine_chunks().dictionary_encode()
        place = pd.Index(self.concepts["cui"]).get_indexer(codes.dictionary.to_pylist())
        index = place[codes.indices.to_numpy()]
        indptr = np.concatenate([[0], np.cumsum(pc.list_value_length(column).to_numpy())])
        shape = (len(self), len(self.concepts))
        return sparse.csr_array((np.ones(len(index), np.float32), index, indptr), shape=shape)

    @cached_property
    def factors(self) -> AnyFactors:
        """float32 [N, D]: K_i, sparse over ``concepts``, dense, or both (a mixture's).

        Norm 1 (less with shrinkage or blocks); zeros where the image is unknown.
        """
        shape = self.manifest["factors"]
        dense, width = shape["dense"], shape.get("sparse")
        if dense is None and width is None:
            width = len(self.concepts)
        return read_factors(self._stored, self._array, len(self), width, dense, self.path)

    @cached_property
    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """Name to vector: what the scorer fitted on the fit split and reuses for others; empty for most scorers."""
        kept = schema.table_files(self.manifest, schema.VECTORS)
        return read_vectors(self._table(schema.VECTORS)) if kept else {}

    def block(
        self, rows: ArrayLike, cols: ArrayLike | None = None, kind: str = "image_text"
    ) -> NDArray[np.float32]:
        """Similarities S_ij = K_i·K_j of a batch.

        Args:
            rows: R images, as ids or as row numbers (see ``rows``), in any order, repeats allowed.
            cols: C images; ``rows`` again if left out.
            kind: ``image_text``, ``image_image`` or ``text_text``; all the same here, three things to a teacher.

        Returns:
            float32 [R, C], symmetric (to 1e-6), in [−1, 1]; 1 where ``rows[i] == cols[j]``, else 0 for unknown images.

        Raises:
            StoreError: an image is not in the store, or there is no such kind.
        """
        check_block_kind(kind)
        left = self.rows(rows)
        right = left if cols is None else self.rows(cols)
        block = products(self.factors[left], None if cols is None else self.factors[right])
        np.clip(block, -1.0, 1.0, out=block)
        if cols is None and len(np.unique(left)) == len(left):
            np.fill_diagonal(block, 1.0)
        else:
            block[left[:, None] == right[None, :]] = 1.0
        return block

    def neighbors(self, image: ImageLike, k: int = 10, exclude_case: bool = False) -> pd.DataFrame:
        """The ``k`` most similar other images: image_id, score, caption, group_id; best first, ties by both ids.

        Args:
            image: id or row number.
            k: at least 1, at most as many as the store keeps.
            exclude_case: leave out images of the same case; then fewer than ``k`` of the kept neighbours may remain.

        Raises:
            StoreError: no such image, or more neighbours asked for than the store keeps.
        """
        row, (rows, scores) = self.row(image), self._neighbor_lists
        if not 0 < k <= self.kept_neighbors:
            raise StoreError(
                f"k must be between 1 and {self.kept_neighbors}, the neighbours this store keeps; got {k}"
            )
        rows, scores = rows[row].as_py(), scores[row].as_py()
        return self._nearest(row, rows, scores, k, exclude_case)

    def _nearest(
        self, row: int, others: Sequence[int], scores: Sequence[float], k: int, exclude_case: bool
    ) -> pd.DataFrame:
        """The first ``k`` of other rows, best first, less the row itself and, where asked, the rest of its case."""
        case = self.group_ids[row]
        found = {
            other: score
            for other, score in zip(others, scores, strict=True)
            if other != row and not (exclude_case and self.group_ids[other] == case)
        }
        chosen = list(found)[:k]
        return pd.DataFrame(
            {
                "image_id": [self.image_ids[other] for other in chosen],
                "score": np.asarray([found[other] for other in chosen], dtype=np.float32),
                "caption": [self.captions[other] for other in chosen],
                "group_id": [self.group_ids[other] for other in chosen],
            }
        )

    def rows(self, images: ArrayLike) -> NDArray[np.int64]:
        """Row numbers of images that are named by ids (``str``) or by row numbers (``int``), int64 [R].

        ``block``, ``neighbors``, ``explain`` and ``to_networkx`` take images in the same way. The type decides:
        ``"2"`` is always an id, ``2`` always a row number, counted from 0.

        Args:
            images: one image, or a list, range, numpy array, pandas Series or Index of them; repeats are allowed,
                nothing gives no rows. Ids and row numbers do not mix.

        Raises:
            StoreError: an image that is not in the store, or what is neither id nor row number (a boolean, a float).
        """
        return row_numbers(images, len(self), self._places, lambda: self.image_ids, self.path)

    def row(self, image: ImageLike) -> int:
        """Row number of one image, named by its id or its row number; see ``rows``.

        Raises:
            StoreError: no such image, or several.
        """
        found = self.rows(image)
        if np.ndim(image) or len(found) != 1:
            raise StoreError(f"one image was asked for, an id or a row number; got {image!r}")
        return int(found[0])

    def check_matches(
        self, image_ids: Sequence[str], captions: Sequence[str], there: str = "the training data"
    ) -> None:
        """Check that row i of this store is item i of other data: the same images and captions, in that order.

        Args:
            image_ids: length N, of the data that the targets are to be used with.
            captions: length N.
            there: name of those data, for messages.

        Raises:
            StoreError: the first row that differs, and in what.
        """
        advice = "build it from the same split of the same data set"
        if len(image_ids) != len(self):
            raise StoreError(f"{self.path} holds {len(self):,} rows, {there} {len(image_ids):,}: {advice}")
        for name, own, other in (
            ("image", self.image_ids, image_ids),
            ("caption", self.captions, captions),
        ):
            for row, (mine, theirs) in enumerate(zip(own, other, strict=True)):
                if mine != theirs:
                    which = "" if name == "image" else f" of image {self.image_ids[row]}"
                    raise StoreError(
                        f"{self.path}: the {name}{which} in row {row} is {_short(mine)}, in {there} "
                        f"{_short(theirs)}: {advice}"
                    )

    def explain(self, first: ImageLike, second: ImageLike) -> "Explanation":
        """Explain a similarity: the shared concepts, each one's share, ``is_a`` paths; a mixture's parts and theirs.

        Raises:
            StoreError: one of the images is not in the store.
        """
        from kg_targets.store.explain import Explanation, taken_apart

        one, other = self.row(first), self.row(second)
        names, captions = self.image_ids, self.captions
        pair = Explanation(
            names[one], names[other], captions[one], captions[other], float(self.block(one, other)[0, 0])
        )
        if one == other:
            return replace(pair, note="It is the same image: similarity 1 by definition.")
        if not (self.known[one] and self.known[other]):
            unknown = names[other if self.known[one] else one]
            return replace(pair, note=f"Nothing is known about {unknown}: its similarity to all others is 0.")
        factors, asserted = (self.factors[[one]], self.factors[[other]]), (self.cuis[one], self.cuis[other])
        return taken_apart(pair, self.manifest, factors, asserted, self.concepts, self._hierarchy)

    def to_networkx(self, image: ImageLike, hops: int = 2) -> "nx.MultiDiGraph":
        """The image, its concepts (``has_attribute``) and what those are (``is_a``), ``hops`` edges from the image.

        Nodes carry ``kind`` ("image" or the concept's kind) and ``name``; edges carry ``relation``, also as their key.

        Raises:
            StoreError: no such image.
        """
        from kg_targets.store.explain import neighbourhood

        row = self.row(image)
        told = (self.image_ids[row], self.captions[row])
        return neighbourhood(told, self.cuis[row], self.concepts, self.edges, hops)

    @cached_property
    def _hierarchy(self) -> "nx.DiGraph":
        from kg_targets.store.explain import hierarchy

        return hierarchy(self.edges)

    def _places(self, names: list[str]) -> NDArray[np.int64]:
        """Row of each id, -1 for one that is not here."""
        if self.copies is None:
            return np.fromiter((self._row_of.get(name, -1) for name in names), np.int64, len(names))
        sought, (keys, order) = key64(names), self._index
        places = np.searchsorted(keys, sought)
        rows = np.full(len(names), -1)
        for at, name in enumerate(names):
            place = places[at]
            while (
                rows[at] < 0 and place < len(keys) and keys[place] == sought[at]
            ):  # two ids may have one key
                if self.image_ids[int(order[place])] == name:
                    rows[at] = order[place]
                place += 1
        return rows

    @cached_property
    def _index(self) -> NDArray[np.uint64]:
        """Keys of all ids, ascending, and the row of each: uint64 [2, N]."""

        def make() -> NDArray[np.uint64]:
            keys = np.concatenate([key64(chunk.to_pylist()) for chunk in self.column("image_id").chunks])
            order = np.argsort(keys, kind="stable")
            return np.stack([keys[order], order.astype(np.uint64)])

        return self._array("id_index", make)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    @cached_property
    def _neighbor_lists(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        rows, scores = (self.column(name) for name in schema.NEIGHBOR_COLUMNS)
        return rows, scores


_KINDS: dict[str | None, type[TargetStore]] = {}
"""Other kinds of store that ``open`` finds, such as a teacher's; importing ``kg_targets.store.teacher`` adds it."""


def _reopened(path: Path, joined: dict[str, list[str]]) -> TargetStore:
    store = TargetStore.open(path)
    store.joined = joined
    return store


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
