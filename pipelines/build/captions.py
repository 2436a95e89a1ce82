"""Captions to embeddings, for `kg-targets build --scorer embedding`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.build.executors import Say
from training.teachers.base import ENCODING, ImageTexts
from training.teachers.sentence import open_text_encoder


class CaptionEncoder:
    """An opened encoder of captions.

    Args:
        spec: see ``open_text_encoder``.
        say: receives one line at a time for the person watching.

    Raises:
        KGTargetsError: there is no such encoder, or its weights cannot be read.
    """

    def __init__(self, spec: str, say: Say) -> None:
        self.encoder, self.say = open_text_encoder(spec), say
        say(f"encoder: {self.encoder.name}, {self.encoder.dim} dimensions, digest {self.encoder.digest[:12]}")

    def metadata(self) -> dict[str, Any]:
        """The manifest's entry ``encoder``; what the vectors follow from, and no path."""
        kept = ("name", "kind", "digest", "dim", "preprocessing")
        stated = self.encoder.metadata()
        return {"encoder": {**{name: stated[name] for name in kept}, "encoding": ENCODING}}

    def encode(
        self, texts: Sequence[str], image_ids: Sequence[str], advance: Callable[[int], Any]
    ) -> NDArray[np.float32]:
        """Unit vectors of texts, float32 [T, D]; those that the encoder truncates are told.

        Args:
            texts: distinct captions.
            image_ids: an image of each.
            advance: told how many more are done.
        """
        before = getattr(self.encoder, "truncated", 0)
        found = self.encoder.texts(ImageTexts(image_ids, texts, None), np.arange(len(texts)), advance)
        if truncated := getattr(self.encoder, "truncated", 0) - before:
            length = self.encoder.preprocessing["context_length"]
            self.say(f"{truncated:,} of {len(texts):,} captions are truncated to {length} tokens")
        return found
