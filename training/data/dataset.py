"""A target store's images and captions, in memory or decoded at each use, by store row."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.store import TargetStore
from training.clip.load import Clip
from training.data.captions import clip_lengths, fit_to_concepts
from training.data.decode import BrokenImage, for_each
from training.data.sources.base import ImageSource
from training.data.transforms import PixelTransform
from training.errors import DataError

logger = logging.getLogger(__name__)

IN_MEMORY_BYTES = 4096 * 10**6
"""Decoded images of one store that a process keeps where it is not told whether to."""
NAMED = 3
"""Broken images that a message names."""


@dataclass(frozen=True)
class Batch:
    """One process's share of a step."""

    rows: Tensor
    """Store rows, int64 [B]."""
    pixels: Tensor
    """uint8 [B, 3, S, S], not augmented, not normalised."""
    tokens: Tensor
    """int64 [B, context_length]."""


def rows_of_share(cases: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Rows of a share of the cases, at least one; a smaller share's cases are among a larger one's.

    Args:
        cases: number of each row's case, from 0, int64 ``[N]``.
        share: in (0, 1]; 1 gives all rows.

    Returns:
        int64 ``[M]``, ascending.
    """
    count = int(cases.max()) + 1
    chosen = np.random.default_rng(0).permutation(count)[: max(1, round(share * count))]
    return np.flatnonzero(np.isin(cases, chosen))


class CaptionedImages:
    """The image–caption pairs of one store.

    Missing images are left out from the start; unreadable ones too if all are decoded then. Otherwise they are found
    while training, and the loader puts others in their place (``training/data/loader.py``).

    Args:
        store: captions and targets.
        source: its images.
        clip: the model whose size and tokens to use.
        in_memory: decode every image now and keep it; False: decode at each use; None: keep up to ``IN_MEMORY_BYTES``.
        max_broken: images that may be missing or unreadable, in all.
        verify: if not in memory, decode every image once now all the same, so that ``rows`` are all readable: what
            a gallery to search needs.
        rows: store rows to use, int64, ascending; None: all.
        option: what ``max_broken`` is called where the user sets it, for messages.
        long_captions: what is read of a caption that is longer than the text tower (``training/data/captions.py``).

    Raises:
        DataError: images are missing or broken beyond ``max_broken``, or fewer than two are left.
    """

    def __init__(
        self,
        store: TargetStore,
        source: ImageSource,
        clip: Clip,
        *,
        in_memory: bool | None = True,
        max_broken: int = 0,
        verify: bool = False,
        rows: NDArray[np.int64] | None = None,
        option: str = "data.max_broken",
        long_captions: str = "truncate",
    ) -> None:
        self.store, self.source = store, source
        self.found: dict[int, str] = {}
        """Images found broken since the start: store row to what is wrong."""
        self._max_broken, self._option = max_broken, option
        self._transform = PixelTransform(clip.preprocess, clip.mean, clip.std)
        self._pixels: Tensor | None = None
        self.rows = source.check_present(max_broken, option)
        """Store rows in use, int64 [M], ascending."""
        missing = np.setdiff1d(np.arange(len(store)), self.rows)
        if rows is not None:
            self.rows = np.intersect1d(self.rows, rows)
        self._broken = [f"{source.name(row)} (missing)" for row in missing.tolist()]
        needed = len(self.rows) * int(np.prod(self._transform.shape))
        self.streamed = ""
        """A line for people where images are too large to be kept; empty otherwise."""
        keep = needed <= IN_MEMORY_BYTES if in_memory is None else in_memory
        if in_memory is None and not keep:
            limit = IN_MEMORY_BYTES // 10**6
            self.streamed = (
                f"{len(self.rows):,} images take {needed // 10**6:,} MB decoded, over {limit:,}: they are decoded at "
                "each use (--data.in_memory true keeps them)"
            )
        if keep or verify:
            self._decode_all(keep=keep)
        if len(self.rows) < 2:
            raise DataError(
                f"{store.path}: {len(self.rows)} readable image(s): a contrastive batch needs at least 2"
            )
        self.captions = fit_to_concepts(
            store, self.rows.tolist(), *clip_lengths(clip.tokenizer), long_captions
        )
        """Captions in use, as the text tower reads them."""
        # Half the memory of int64, which models want.
        self._tokens = clip.tokenizer(self.captions.texts).to(torch.int32)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def broken(self) -> list[str]:
        """Images missing or found broken so far by this process, each with where it is and what is wrong."""
        return [*self._broken, *self.found.values()]

    @property
    def in_memory(self) -> bool:
        """Whether images are decoded already."""
        return self._pixels is not None

    def batch(self, positions: Sequence[int] | NDArray[np.int64], pin: bool = False) -> Batch:
        """The pairs at ``positions`` of ``self.rows``, their pixels where a GPU can fetch them (``pin``) or anywhere.

        Raises:
            DataError: an image cannot be read now.
        """
        index = np.asarray(positions, dtype=np.int64)
        pixels = self.empty(len(index), pin)
        if self._pixels is not None:
            torch.index_select(self._pixels, 0, torch.as_tensor(index), out=pixels)
            return self.with_pixels(index, pixels)
        out = pixels.numpy()

        def fill(place: int) -> None:
            out[place] = self.decode(int(index[place]))

        try:
            for_each(fill, self.by_locality(index))
        except BrokenImage as error:
            raise DataError(f"{error}: it cannot be skipped here; allow for it ({self._option})") from error
        return self.with_pixels(index, pixels)

    def with_pixels(self, positions: NDArray[np.int64], pixels: Tensor) -> Batch:
        """A batch of images that are decoded already, uint8 [B, 3, S, S]."""
        index = torch.as_tensor(positions)
        return Batch(torch.as_tensor(self.rows)[index], pixels, self._tokens[index].long())

    def empty(self, count: int, pin: bool = False) -> Tensor:
        """Room for ``count`` images, uint8 [count, 3, S, S]; pinned, a GPU fetches them while it computes."""
        return torch.empty((count, *self._transform.shape), dtype=torch.uint8, pin_memory=pin)

    def by_locality(self, positions: NDArray[np.int64]) -> list[int]:
        """Places 0 to B - 1 of ``positions`` in the order in which their images are cheap to read."""
        return [int(place) for place in np.argsort(self.source.locality(self.rows[positions]), kind="stable")]

    def decode(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [3, S, S].

        Raises:
            BrokenImage: it cannot be read, or was found broken before.
        """
        row = int(self.rows[position])
        known = self.found.get(row)
        if known is not None:
            raise BrokenImage(known)
        return self._transform(self.source.read(row))

    def note_broken(self, position: int, problem: str) -> None:
        """Count an image that was found broken, once.

        Raises:
            DataError: there are now more than ``max_broken``.
        """
        row = int(self.rows[position])
        if row not in self.found:
            self.found[row] = problem
            logger.warning("skipped a broken image: %s", problem)
            self._check_limit()

    def _check_limit(self) -> None:
        broken = self.broken
        if len(broken) > self._max_broken:
            raise DataError(
                f"{len(broken)} broken image(s), {self._max_broken} allowed ({self._option}); "
                f"the first: {'; '.join(broken[:NAMED])}"
            )

    def _decode_all(self, keep: bool) -> None:
        pixels = self.empty(len(self.rows) if keep else 0)
        out = pixels.numpy()
        problems: dict[int, str] = {}

        def fill(position: int) -> None:
            try:
                image = self.decode(position)
            except BrokenImage as error:
                problems[position] = str(error)
                return
            if keep:
                out[position] = image

        for_each(fill, self.by_locality(np.arange(len(self.rows))))
        self._broken += [problems[position] for position in sorted(problems)]
        self._check_limit()
        if self._broken:
            logger.warning(
                "skipped %d of %d images that cannot be read: %s",
                len(self._broken),
                len(self.store),
                "; ".join(self._broken[:NAMED]),
            )
        good = np.setdiff1d(np.arange(len(self.rows)), list(problems))
        self._pixels = (pixels[torch.as_tensor(good)] if problems else pixels) if keep else None
        self.rows = self.rows[good]
