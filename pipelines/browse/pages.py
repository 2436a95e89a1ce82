"""What the pages show: content as plain values, from stores, images and models; no HTML here but marked captions."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from kg_targets.errors import ConfigError, DataError, StoreError
from kg_targets.inspect.captions import mentions_of
from kg_targets.store import TargetStore
from kg_targets.store.factors import products

if TYPE_CHECKING:
    from PIL import Image

    from kg_targets.store import Explanation
    from pipelines.browse.models import VQA, Finder
    from training.data.sources import ImageSource

PER_PAGE = 24
NEIGHBORS = 8
SIDE = 512
"""Pixels of an image's longer side, at most."""


@dataclass(frozen=True)
class Found:
    """A page of search results."""

    rows: list[int]
    total: int
    page: int
    told: str
    """What was searched for, in words."""

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-self.total // PER_PAGE))


@dataclass(frozen=True)
class Near:
    """One image that is near another."""

    row: int
    image_id: str
    caption: str
    score: float
    same_case: bool


@dataclass(frozen=True)
class Column:
    """Images near one image, by one store or model."""

    title: str
    near: list[Near]
    note: str = ""


@dataclass
class Pages:
    """The stores and models that a site shows."""

    store: TargetStore
    beside: TargetStore | None = None
    images: "ImageSource | None" = None
    finder: "Finder | None" = None
    vqa: "VQA | None" = None
    _seed: int = field(default=0)

    @property
    def stores(self) -> list[TargetStore]:
        """The store, and the one beside it."""
        return [self.store, *([self.beside] if self.beside is not None else [])]

    def search(self, query: str, page: int) -> Found:
        """Images whose caption has all the words, or whose caption asserts a concept ("C0032285", "concept: edema")."""
        text = " ".join(query.split())
        if not text:
            order = np.random.default_rng(self._seed).permutation(len(self.store))
            return _page(order, page, "images in random order")
        if (cuis := self._asked_concepts(text)) is not None:
            column = self.store.column("cuis").combine_chunks()
            hit = np.asarray(pc.is_in(pc.list_flatten(column), value_set=_strings(list(cuis))))
            rows = np.unique(np.asarray(pc.list_parent_indices(column))[hit])
            named = ", ".join(list(cuis.values())[:6]) + (" …" if len(cuis) > 6 else "")
            return _page(rows, page, f"captions that assert {named or 'nothing: no concept has that name'}")
        captions, has = self.store.column("caption"), np.ones(len(self.store), bool)
        for word in text.split(" "):
            has &= np.asarray(pc.match_substring(captions, word, ignore_case=True))
        return _page(np.flatnonzero(has), page, f"captions with “{text}”")

    def _asked_concepts(self, text: str) -> dict[str, str] | None:
        """CUI to name of the concepts that a query asks for; None if it asks for words."""
        concepts = self.store.concepts
        name = text.removeprefix("concept:").strip().lower()
        if name == text.lower() and not (text[:1] in "cC" and text[1:].isdigit() and len(text) == 8):
            return None
        asked = (concepts["cui"] == text.upper()) | concepts["name"].str.lower().str.contains(
            name, regex=False
        )
        found = concepts[asked & (concepts["images"] > 0)].sort_values("images", ascending=False)
        return dict(zip(found["cui"], found["name"], strict=True))

    def row(self, image_id: str) -> int:
        """Row of an image.

        Raises:
            StoreError: there is no such image.
        """
        return self.store.row(image_id)

    def concepts(self, image_id: str) -> list[dict[str, Any]]:
        """What the caption mentions: the columns of the table ``mentions``."""
        return [
            {str(k): v for k, v in one.items()}
            for one in mentions_of(self.store, image_id).to_dict("records")
        ]

    def columns(self, image_id: str) -> list[Column]:
        """What is near an image by each store, and what the trained run finds."""
        titles = ["this store" if self.beside is None else "this store [1]", "the store beside it [2]"]
        found = [
            self._near(store, title, image_id) for store, title in zip(self.stores, titles, strict=False)
        ]
        if self.finder is not None:
            best = self._best(self.finder.scores(self.row(image_id)), self.row(image_id))
            found.append(Column(f"captions that {self.finder.name} finds for it", best, self.finder.note))
        return found

    def _near(self, store: TargetStore, title: str, image_id: str) -> Column:
        row = self.row(image_id)  # the rows of both stores are the same images
        if not store.known[row]:
            return Column(title, [], "nothing is known about this image: it is similar to no other")
        return Column(title, self._best(products(store.factors[[row]], store.factors)[0], row))

    def _best(self, scores: NDArray[np.float32], row: int) -> list[Near]:
        """The nearest images, one of each case, best first."""
        scores = scores.copy()
        scores[row] = -np.inf
        kept: list[Near] = []
        seen: set[str] = set()
        for other in np.argsort(-scores, kind="stable")[: 50 * NEIGHBORS].tolist():
            case = self.store.group_ids[other]
            if case in seen or not scores[other] > 0:
                continue
            seen.add(case)
            same = case == self.store.group_ids[row]
            kept.append(
                Near(
                    other, self.store.image_ids[other], self.store.captions[other], float(scores[other]), same
                )
            )
            if len(kept) == NEIGHBORS:
                break
        return kept

    def explanations(self, first: str, second: str) -> "list[tuple[str, Explanation]]":
        """Why two images are similar, by each store."""
        return [(store.path.name, store.explain(first, second)) for store in self.stores]

    def picture(self, row: int, side: int) -> bytes | None:
        """An image as PNG; None where there is none."""
        image = None if self.images is None else self.images.read_present(row)
        return None if image is None else _png(image, min(side, SIDE))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Numbers for the head of the site."""
        return {
            "images": len(self.store),
            "unknown": int((~self.store.known).sum()),
            "concepts": len(self.store.concepts),
        }


def open_pages(
    store: Path, beside: Path | None, data_root: Path | None, run: Path | None, vqa: Path | None
) -> Pages:
    """Open everything that a site shows.

    Raises:
        KGTargetsError: one of them is not there or is not what it should be.
    """
    pages = Pages(_of_knowledge(store))
    if beside is not None:
        pages.beside = _of_knowledge(beside)
        pages.beside.check_matches(pages.store.image_ids, pages.store.captions, f"{store}")
    if data_root is not None:
        from training.data.sources import open_source

        pages.images = open_source(data_root, pages.store)
        if not pages.images.present().any():
            raise DataError(f"{data_root} has no image of {store}: check --data-root")
    if run is not None and pages.images is not None:
        from pipelines.browse.models import Finder

        pages.finder = Finder(run, pages.store, pages.images)
    if vqa is not None and pages.images is not None:
        from pipelines.browse.models import VQA

        pages.vqa = VQA(vqa, pages.images)
    return pages


def _of_knowledge(path: Path) -> TargetStore:
    found = TargetStore.open(path)
    if found.kind == "teacher":
        raise StoreError(
            f"{path} is a teacher's store, which has no concepts to browse: name a store of knowledge"
        )
    return found


def _page(rows: NDArray[np.int64], page: int, told: str) -> Found:
    last = max(1, -(-len(rows) // PER_PAGE))
    if not 1 <= page <= last:
        raise ConfigError(f"there is no page {page}: the last is {last}")
    return Found(rows[(page - 1) * PER_PAGE : page * PER_PAGE].tolist(), len(rows), page, told)


def _strings(values: Sequence[str]) -> Any:
    import pyarrow as pa

    return pa.array(values, pa.string())


def _png(image: "Image.Image", side: int) -> bytes:
    small = image.convert("L") if image.mode not in ("L", "RGB") else image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "PNG")
    return buffer.getvalue()
