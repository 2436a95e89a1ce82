"""What trained models say of a store's images: a run's retrieval, a Med-VQA model's answers."""

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from kg_targets.errors import ConfigError, DataError
from kg_targets.store import TargetStore
from training.clip.load import load_clip
from training.data.dataset import CaptionedImages
from training.data.sources import ImageSource
from training.engine.checkpoint import CHECKPOINT
from training.med_vqa.answer import Answer, Saved
from training.med_vqa.answer.attention_maps import draw, word_maps
from training.retrieval.features import encode_spaces, encode_texts
from training.retrieval.runs import read_groups

MOST = 20_000
"""Images that a run's model encodes, at most; they are drawn at random from a larger store."""


class Finder:
    """A finished NB-CLIP run: the captions that its model finds for an image, by cosine.

    Args:
        run: its folder.
        store: the images and captions to find among.
        images: the images.

    Raises:
        CheckpointError: there is no finished run.
    """

    def __init__(self, run: Path, store: TargetStore, images: ImageSource) -> None:
        (group,) = read_groups([str(run)])
        self.name, self._folder = group.name, group.folders[0]
        self._store, self._images, self._lock = store, images, Lock()
        few = len(store) > MOST
        self.note = f"among {MOST:,} images drawn at random" if few else ""

    def scores(self, row: int) -> NDArray[np.float32]:
        """Cosine of the image with each caption, float32 [N]; −inf for captions that take no part.

        The first call encodes the images, which takes a while.
        """
        with self._lock:
            rows, images, texts = self._features
        scores = np.full(len(self._store), -np.inf, np.float32)
        place = np.flatnonzero(rows == row)
        if len(place):
            scores[rows] = texts @ images[place[0]]
        return scores

    @cached_property
    def _features(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        clip = load_clip(f"local-dir:{self._folder / CHECKPOINT}")
        chosen = np.sort(np.random.default_rng(0).permutation(len(self._store))[:MOST])
        data = CaptionedImages(
            self._store,
            self._images,
            clip,
            in_memory=False,
            max_broken=len(self._store),
            verify=True,
            rows=chosen,
        )
        images = encode_spaces(clip.model, clip, data, ["after"])["after"]
        captions = [self._store.captions[row] for row in data.rows]
        return data.rows, images, encode_texts(clip.model, clip.tokenizer, captions)


@dataclass(frozen=True)
class Answered:
    """A Med-VQA model's answer to one question."""

    answers: list[Answer]
    blind: list[Answer]
    """The answers with a grey image in the picture's place: what the question alone suggests."""
    attention: bytes
    """PNG of each word's map over the image; empty where there is none."""
    kind: str
    """Which maps these are, in words; or why there are none."""


class VQA:
    """A Med-VQA model that is asked about a store's images.

    Args:
        model: a finished run, or a model folder.
        images: the images.

    Raises:
        CheckpointError: there is no model.
    """

    def __init__(self, model: Path, images: ImageSource) -> None:
        saved = Saved.of(model)
        self.name, self._saved, self._images, self._lock = model.name, saved, images, Lock()
        self._answerer: Any = saved.answerer(None)

    def ask(self, row: int, question: str, top: int = 5) -> Answered:
        """The likeliest answers, with and without the image, and where its words look.

        Raises:
            DataError: there is no such image.
            ConfigError: the question is empty.
        """
        if not question.strip():
            raise ConfigError("the question is empty: ask something")
        image = self._images.read_present(row)
        if image is None:
            raise DataError(f"{self._images.name(row)} is missing: it cannot be asked about")
        grey = Image.new("L", image.size, 128)
        with self._lock:
            answers, blind = self._answerer.answer([image, grey], [question, question], top=top)
            attention, kind = self._drawn(image, question, answers[0])
        return Answered(answers, blind, attention, kind)

    def _drawn(self, image: Image.Image, question: str, best: Answer) -> tuple[bytes, str]:
        pixels = self._answerer.preprocess(image)
        kind = "transport"
        try:
            maps = word_maps(self._saved.med_vqa, pixels, question, self._answerer.tokens([question]), kind)
        except ConfigError as error:
            return b"", str(error)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            file = Path(folder, "maps.png")
            draw(
                file,
                maps,
                pixels,
                self._saved.med_vqa,
                f"{question}\n{best.text} ({best.probability:.2f})",
                kind,
            )
            return file.read_bytes(), f"{kind} maps"
