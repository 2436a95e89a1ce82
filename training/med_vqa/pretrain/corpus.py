"""What a pre-training learns from: captioned images of a store, less excluded cases, with a dev part cut by case."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kg_targets.store import TargetStore
from training.clip.load import Clip
from training.data.cases import case_codes
from training.data.dataset import CaptionedImages
from training.data.samplers import make_sampler
from training.data.samplers.base import Sampler
from training.data.sources import ImageSource
from training.errors import ConfigError, DataError
from training.med_vqa.model.batches import Tokens, pieces_of, questions_as_tokens
from training.med_vqa.model.saving import MedVQA
from training.med_vqa.pretrain.config import PretrainDataConfig
from training.med_vqa.pretrain.exclusions import Exclusions

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s+|\n+")


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
        limit = vqa.model.text.config.max_position_embeddings
        if data.max_text_tokens > limit:
            raise ConfigError(
                f"data.max_text_tokens: {data.max_text_tokens} exceeds the model's {limit} positions: lower it"
            )
        self.data, self.store, self._vqa = data, store, vqa
        pieces = [len(row) for row in pieces_of(store.captions, vqa.tokenizer)]
        kept = exclusions.kept(store)
        said = np.asarray(pieces) > 0
        self.without_text = int((kept & ~said).sum())
        """Images that are left out because their caption says nothing."""
        rows = np.flatnonzero(kept & said)
        if not len(rows):
            raise DataError(f"{store.path}: no image with a caption is left to learn from")
        dev = dev_rows(store.group_ids, rows, data.dev_share)
        self.images = self._load(source, np.setdiff1d(rows, dev), in_memory=data.in_memory)
        """What trains."""
        self.dev = self._load(source, dev, in_memory=True) if len(dev) else None
        """What chooses the epoch; None: the last one is kept."""
        self.texts = self._tokens(self.images)
        """Captions of ``images`` as tokens, by position."""
        self.sentences = self._sentences() if data.texts == "sentences" else []
        """Word pieces of each caption's sentences, by position, where texts are drawn from them."""
        self.cases = case_codes([store.group_ids[row] for row in self.images.rows])
        """Of ``images``, int64 ``[M]``."""

    def _load(self, source: ImageSource, rows: NDArray[np.int64], in_memory: bool) -> CaptionedImages:
        vqa = self._vqa
        # Captions are tokenised here and not there: the dev part's too, and as sentences.
        clip = Clip(vqa.model, vqa.preprocess, lambda texts: torch.zeros(len(texts), 0), vqa.clip_config)
        return CaptionedImages(
            self.store, source, clip, in_memory=in_memory, max_broken=self.data.max_broken, rows=rows
        )

    def _tokens(self, images: CaptionedImages) -> Tokens:
        captions = [self.store.captions[row] for row in images.rows]
        return questions_as_tokens(captions, self._vqa.tokenizer, self.data.max_text_tokens)

    def dev_tokens(self) -> Tokens:
        """Captions of ``dev``."""
        if self.dev is None:
            raise RuntimeError("there is no dev part")
        return self._tokens(self.dev)

    def sampler(self, seed: int, rank: int = 0, world_size: int = 1) -> Sampler:
        """Which images make up which step.

        Raises:
            ConfigError: the batch size does not fit the images or the processes.
        """
        return make_sampler(self.data, self.images, seed, rank, world_size)

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
        tokenizer: Any = self._vqa.tokenizer
        longest = self.data.max_text_tokens - 2
        ends = [[tokenizer.cls_token_id, *row[:longest], tokenizer.sep_token_id] for row in rows]
        return Tokens.of(ends, tokenizer.pad_token_id)

    def _sentences(self) -> list[list[list[int]]]:
        parts = [_SENTENCE_END.split(self.store.captions[row]) for row in self.images.rows]
        pieces = iter(pieces_of([part for caption in parts for part in caption], self._vqa.tokenizer))
        return [[piece for piece in (next(pieces) for _ in caption) if piece] for caption in parts]

    def facts(self) -> dict[str, Any]:
        """Counts for metrics.json."""
        return {
            "images": len(self.images),
            "cases": len(set(self.cases.tolist())),
            "dev_images": 0 if self.dev is None else len(self.dev),
            "captions_cut": self.texts.cut,
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
    cases = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    if not share:
        return rows[:0]
    if len(cases) < 2:
        raise ConfigError(
            f"data.dev_share: {len(cases)} case cannot both train and select: set --data.dev_share 0"
        )
    chosen = set(cases[: max(1, round(share * len(cases)))])
    return rows[[name in chosen for name in names]]
