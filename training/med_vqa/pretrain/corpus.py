"""The data of a pre-training: captioned images of a store, less excluded cases, split by case; a step's views.

``data.views augment``: two augmentations of an image. ``study``: the second view is a random other training image of
the case; an image that is alone in its case gets two augmentations.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.manifest import ExcludedCases
from kg_targets.store import TargetStore
from kg_targets.store.block import case_codes
from kg_targets.store.digest import shuffle_key
from training.clip.load import Clip
from training.data.captions import SENTENCE_END, FittedCaptions, fit_to_concepts
from training.data.dataset import Batch, CaptionedImages
from training.data.sources import ImageSource
from training.errors import ConfigError, DataError
from training.med_vqa.model.history import Excluded
from training.med_vqa.model.images import Views
from training.med_vqa.model.saving import MedVQA
from training.med_vqa.model.tokens import (
    Tokens,
    check_positions,
    pieces_as_tokens,
    pieces_of,
    questions_as_tokens,
)
from training.med_vqa.pretrain.config import PretrainConfig, PretrainDataConfig

BY_BUILD = "kg-targets build"
NAMED = 3
"""Cases that a message names."""
DEV_BATCH = 64
"""Images of the dev part that are encoded together."""


@dataclass(frozen=True)
class Exclusions:
    """Cases on a list, and what of them is in a store."""

    found: tuple[str, ...] = ()
    """Cases of the store that the run's list names, ascending."""
    made: tuple[Excluded, ...] = ()
    """Excluded cases by the store's build, and by the run's list where it is another one."""
    empty: bool = False
    """True if there is a list that names no case."""

    @classmethod
    def read(cls, path: str | None, store: TargetStore) -> "Exclusions":
        """The list in a file, one ``group_id`` a line; none without a file. A store that was built without the cases of
        this list (``kg-targets build --exclude``) has nothing left to exclude.

        Raises:
            DataError: the file cannot be read, or names cases of which not one is in the store: it is the list of
                another data set, and leaving nothing out would be taken for having left them out.
        """
        earlier, made = store.manifest.get("excluded", {}), list[Excluded]()
        if earlier:
            counts = {name: earlier[name] for name in ("cases_listed", "cases_found", "images")}
            made.append(Excluded(BY_BUILD, earlier["sha256"], **counts))
        if path is None:
            return cls(made=tuple(made))
        excluded = ExcludedCases.read(Path(path), "data.exclude")
        listed, sha256 = sorted(excluded.cases), excluded.digest()
        if earlier.get("sha256") == sha256:
            return cls(made=tuple(made), empty=not listed)
        there = set(store.group_ids)
        found = tuple(case for case in listed if case in there)
        if listed and not found:
            raise DataError(
                f"data.exclude: {path} names {len(listed):,} case(s) and {store.path} has none of them, not "
                f"{', '.join(listed[:NAMED])}: it is the list of another data set, or leave it out"
            )
        images = int(np.isin(store.group_ids, found).sum())
        made.append(Excluded("data.exclude", sha256, len(listed), len(found), images))
        return cls(found, tuple(made), empty=not listed)

    def kept(self, store: TargetStore) -> NDArray[np.bool_]:
        """bool ``[N]``: rows of the store that belong to no excluded case."""
        return ~np.isin(np.asarray(store.group_ids, dtype=object), self.found)

    def metadata(self) -> list[dict[str, Any]]:
        """Counts of excluded cases by list, for OUTPUT/data.json; empty without a list."""
        return [asdict(one) for one in self.made]

    def describe(self) -> str:
        """Say what was excluded, for a person; empty without a list."""
        parts = []
        for one in self.made:
            cases = f"{one.cases_found} cases with {one.images} images"
            elsewhere = one.cases_listed - one.cases_found
            if one.by == BY_BUILD:
                parts.append(f"{cases} were excluded when the store was built")
            elif not self.empty:
                missing = f", {elsewhere} listed ones are not in this store" if elsewhere else ""
                parts.append(f"{cases} excluded{missing}")
        if self.empty:
            parts.append("the list of excluded cases is empty: nothing is left out")
        return "; ".join(parts)


class Corpus:
    """Images and captions to learn from, and those that choose the epoch.

    Captions without a word piece are left out: there is nothing to align, to transport or to match.

    Args:
        data: the run's ``data``.
        store: captions, cases and paths.
        source: its images.
        vqa: whose tokenizer, size and preprocessing to use.
        exclusions: cases to leave out.

    Raises:
        ConfigError: captions may be longer than the model's positions, or the dev part would take every case.
        DataError: images are missing or broken beyond ``data.max_broken``, or fewer than two are left.
    """

    def __init__(
        self,
        data: PretrainDataConfig,
        store: TargetStore,
        source: ImageSource,
        vqa: MedVQA,
        exclusions: Exclusions,
    ) -> None:
        check_positions("max_text_tokens", data.max_text_tokens, vqa.model.text)
        self.data, self.store, self._vqa = data, store, vqa
        pieces = [len(row) for row in pieces_of(store.captions, vqa.tokenizer)]
        kept = exclusions.kept(store)
        said = np.asarray(pieces) > 0
        self.without_text = int((kept & ~said).sum())
        """Images that are left out because their caption has no word piece."""
        rows = np.flatnonzero(kept & said)
        if not len(rows):
            raise DataError(f"{store.path}: no image with a caption is left to learn from")
        dev = dev_rows(store.group_ids, rows, data.dev_share)
        keep = True if data.cached_views or data.views == "study" else data.in_memory
        self.images = self._load(source, np.setdiff1d(rows, dev), in_memory=keep)
        """Training images."""
        self.dev = self._load(source, dev, in_memory=True) if len(dev) else None
        """Images that choose the epoch; None: the last one is kept."""
        self.captions = self._fitted(self.images)
        """Captions of ``images`` as they are read."""
        self.texts = self._tokens(self.captions)
        """The same as tokens, by position."""
        self.sentences = self._sentences() if data.texts == "sentences" else []
        """Word pieces of each caption's sentences, by position, where texts are drawn from them."""
        self.cases = case_codes([store.group_ids[row] for row in self.images.rows])
        """Case codes of ``images``, int64 ``[M]``."""

    def _load(self, source: ImageSource, rows: NDArray[np.int64], in_memory: bool | None) -> CaptionedImages:
        vqa = self._vqa
        # Captions are tokenised here and not there: the dev part's too, and as sentences.
        clip = Clip(vqa.model, vqa.preprocess, lambda texts: torch.zeros(len(texts), 0), vqa.clip_config)
        return CaptionedImages(
            self.store, source, clip, in_memory=in_memory, max_broken=self.data.max_broken, rows=rows
        )

    def _fitted(self, images: CaptionedImages) -> FittedCaptions:
        def lengths(texts: Sequence[str]) -> NDArray[np.int64]:
            pieces = pieces_of(texts, self._vqa.tokenizer)
            return np.array([len(row) + 2 for row in pieces], dtype=np.int64)  # with [CLS] and [SEP]

        limit, mode = self.data.max_text_tokens, self.data.long_captions
        return fit_to_concepts(self.store, images.rows.tolist(), lengths, limit, mode)

    def _tokens(self, captions: FittedCaptions) -> Tokens:
        return questions_as_tokens(captions.texts, self._vqa.tokenizer, self.data.max_text_tokens)

    def dev_tokens(self) -> Tokens:
        """Captions of ``dev``."""
        if self.dev is None:
            raise RuntimeError("there is no dev part")
        return self._tokens(self._fitted(self.dev))

    def positions(self, rows: Tensor) -> Tensor:
        """Places in ``images`` of store rows, int64 of the same shape."""
        return torch.searchsorted(torch.as_tensor(self.images.rows), rows)

    def sentence_samples(self, positions: Tensor, generator: torch.Generator, places: slice) -> Tokens:
        """A random half of each caption's sentences, at least one, in their order.

        Args:
            positions: int64 ``[B_local]``.
            generator: of the step; draws for the whole batch.
            places: of this process's items in it.
        """
        most = max((len(parts) for parts in self.sentences), default=1)
        ranks = torch.rand(self.data.batch_size, max(most, 1), generator=generator)[places]
        rows = []
        for keys, position in zip(ranks, positions.tolist(), strict=True):
            parts = self.sentences[position]
            chosen = keys[: len(parts)].argsort()[: -(-len(parts) // 2)].sort().values
            rows.append([piece for place in chosen.tolist() for piece in parts[place]])
        return pieces_as_tokens(rows, self._vqa.tokenizer, self.data.max_text_tokens)

    def _sentences(self) -> list[list[list[int]]]:
        parts = [SENTENCE_END.split(text) for text in self.captions.texts]
        pieces = iter(pieces_of([part for caption in parts for part in caption], self._vqa.tokenizer))
        return [[piece for piece in (next(pieces) for _ in caption) if piece] for caption in parts]

    def metadata(self) -> dict[str, Any]:
        """Counts for metrics.json."""
        return {
            "images": len(self.images),
            "cases": len(set(self.cases.tolist())),
            "dev_images": 0 if self.dev is None else len(self.dev),
            "long_captions": self.captions.longer,
            "captions_truncated": self.texts.truncated,
            "without_text": self.without_text,
        }


def dev_rows(group_ids: Sequence[str], rows: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """Rows of a share of the cases, at least one case, chosen by the sha256 of their names: the same in every run.

    Args:
        group_ids: case of each row of the store; a row without one is a case of its own.
        rows: to choose from, ascending.
        share: in [0, 0.5]; 0 gives none.

    Returns:
        int64, ascending.

    Raises:
        ConfigError: there are fewer than two cases to share out.
    """
    names = [group_ids[row] or f"\0{row}" for row in rows]
    cases = sorted(set(names), key=shuffle_key)
    if not share:
        return rows[:0]
    if len(cases) < 2:
        raise ConfigError(
            f"data.dev_share: {len(cases)} case cannot both train and select: set --data.dev_share 0"
        )
    chosen = set(cases[: max(1, round(share * len(cases)))])
    return rows[[name in chosen for name in names]]


class Partners:
    """Images that items' second views are taken from, drawn alike on all processes: labels are of all ranks' items.

    Args:
        cases: case code of each training image, int64 ``[M]``.
    """

    def __init__(self, cases: NDArray[np.int64]) -> None:
        self._cases, order = cases, np.argsort(cases, kind="stable")
        self._members = np.split(order.astype(np.int64), np.flatnonzero(np.diff(cases[order])) + 1)

    def __call__(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Places of the images of second views: another one of the case, where there is one.

        Args:
            positions: places of the whole batch's images, int64 ``[B_global]``.
            generator: draws them; the same on every process.

        Returns:
            int64 ``[B_global]``.
        """
        drawn = torch.rand(len(positions), generator=generator).tolist()
        found = []
        for position, share in zip(positions.tolist(), drawn, strict=True):
            members = self._members[int(self._cases[position])]
            others = members[members != position]
            found.append(int(others[int(share * len(others))]) if len(others) else position)
        return torch.tensor(found, dtype=torch.int64)


class StepViews:
    """One or two views of a step's images, and the dev part's images as they are.

    Args:
        config: the run's.
        vqa: the model, on the accelerator's device.
        corpus: the images.
        accelerator: the run's.

    Raises:
        KGTargetsError: as of ``Views.keep_tokens``.
    """

    def __init__(self, config: PretrainConfig, vqa: MedVQA, corpus: Corpus, accelerator: Accelerator) -> None:
        data = config.data
        self._vqa, self._corpus, self._kept = vqa, corpus, data.cached_views > 0
        self._count = 2 if config.loss.views_weight else 1
        self._views = Views(data, data.batch_size, config.seed, vqa, accelerator)
        self._dev: Tensor | None = None
        if self._kept:
            self._views.keep_tokens(_all_pixels(corpus.images), data.cached_mb)
            if corpus.dev is not None:
                self._dev = self._views.frozen_tokens(_all_pixels(corpus.dev), 0)[:, 0]

    def __call__(self, batch: Batch, step: int, offset: int, partners: Tensor | None) -> dict[str, Tensor]:
        """Views of this process's images.

        Args:
            batch: its share.
            step: counted from 1.
            offset: of the first of them in the global batch.
            partners: places of the images that the second views show, int64 ``[B]``; None: the same.

        Returns:
            ``images`` ``[V, B, 3, S, S]`` or ``image_tokens`` ``[V, B, N, Dv]``, float32, on the device.
        """
        images = [self._corpus.positions(batch.rows) if self._kept else batch.pixels] * self._count
        if partners is not None and self._count == 2:
            images[1] = partners if self._kept else self._corpus.images.batch(partners.numpy()).pixels
        return self._views(images, step, offset)

    @torch.no_grad()
    def dev_tokens(self, rows: NDArray[np.int64]) -> Tensor:
        """Image tokens of R dev images, not augmented, by the tower as it is: ``[R, P, Dv]``, on the device."""
        model, dev = self._vqa.model, self._corpus.dev
        if self._dev is not None:
            return self._dev[torch.as_tensor(rows)].to(model.device).float()
        if dev is None:
            raise RuntimeError("there is no dev part")
        parts = []
        for start in range(0, len(rows), DEV_BATCH):
            pixels = dev.batch(rows[start : start + DEV_BATCH]).pixels
            parts.append(model.image_tokens(self._views.not_augmented(pixels)))
        return torch.cat(parts)


def _all_pixels(images: CaptionedImages) -> Tensor:
    return images.batch(range(len(images))).pixels
