"""The fit of one seed: epochs, an evaluation on the held-out edges every few, early stopping, and its saved state.

It computes on one thread, and its random numbers follow from (seed, member, epoch) alone. So it gives the same bytes on
one machine whatever else runs, and a killed fit continues as if nothing had happened. On a GPU sums run in no fixed
order: seeded, but not to the byte.
"""

import hashlib
import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kg_targets.store.digest import json_sha256, shuffle_key
from kg_targets.transe.corruption import Corruption
from kg_targets.transe.model import Batch, TransE
from kg_targets.transe.ranks import LinkPrediction, Ranker
from kg_targets.transe.settings import TransESettings
from kg_targets.transe.state import load_state, save_state
from kg_targets.transe.triples import Triples


@dataclass(frozen=True)
class Evaluation:
    """One seed's fit after some epochs."""

    epoch: int = 0
    """Epochs so far."""
    loss: float = math.inf
    """Mean loss of the last of them."""
    mrr: float = 0.0
    """Filtered, on held-out edges; 0 where there are none."""
    hits_at_10: float = 0.0

    def __str__(self) -> str:
        ranks = f", MRR {self.mrr:.3f}, Hits@10 {self.hits_at_10:.3f}" if self.mrr else ""
        return f"epoch {self.epoch:,}, loss {self.loss:.4f}{ranks}"


@dataclass(frozen=True)
class Callbacks:
    """Functions that are told how far the fits are, and the way to stop them; shared by all seeds."""

    say: Callable[[str], None] = lambda line: None
    """Receives one line at a time."""
    advance: Callable[[int], None] = lambda triples: None
    """Receives the number of triples of each step, or of epochs that need not be run."""
    evaluated: Callable[[Evaluation], None] = lambda found: None
    """Receives each evaluation."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set to make all fits end at their next step."""


class SeedFit:
    """One of the seeds that are averaged."""

    def __init__(
        self,
        triples: Triples,
        settings: TransESettings,
        seed: int,
        number: int,
        device: str,
        state: Path | None,
        callbacks: Callbacks,
    ):
        """Prepare a fit.

        Args:
            seed: of the whole scorer; also decides which edges are held out, for all members alike.
            number: which member this is, from 0.
            state: folder for what a killed fit continues from; None: none is kept.
        """
        self.triples, self.settings, self.seed, self.number, self.callbacks = (
            triples,
            settings,
            seed,
            number,
            callbacks,
        )
        edges, held = triples.hold_out(settings.holdout, seed)
        self.edges = torch.from_numpy(edges).to(device)
        self.corruption = Corruption.fit(
            edges, len(triples.relations), triples.images, triples.nodes, settings, device
        )
        candidates = (self.corruption.first.cpu().numpy(), self.corruption.count.cpu().numpy())
        self.ranker = Ranker(held, triples.edges, *candidates) if len(held) else None
        self.generator = torch.Generator(device)
        self.state = state / f"seed-{number}.safetensors" if state else None
        self.model, self.kept, self.best, self.epoch = self._fresh()

    def run(self) -> tuple[Tensor, Evaluation]:
        """The table [E + R, dim] of the best evaluation, or of the last without held-out edges; and that one.

        Raises:
            InterruptedError: ``callbacks.stop`` was set.
        """
        self._resume()
        self.callbacks.advance(self.epoch * len(self.edges))
        while self.epoch < self.settings.epochs and not self._has_stalled():
            loss = self._one_epoch()
            self.epoch += 1
            if self.epoch % self.settings.every == 0 or self.epoch == self.settings.epochs:
                self._evaluate(loss)
        self.callbacks.advance((self.settings.epochs - self.epoch) * len(self.edges))
        return self.best, self.kept

    def _fresh(self) -> tuple[TransE, Evaluation, Tensor, int]:
        self._reseed("start")
        model = TransE.start(self.triples.nodes, len(self.triples.relations), self.settings, self.generator)
        return model, Evaluation(), model.table.clone(), 0

    def _reseed(self, moment: object) -> None:
        key = shuffle_key(self.seed, self.number, moment)
        self.generator.manual_seed(int.from_bytes(key[:7], "big"))

    def _has_stalled(self) -> bool:
        waited = self.epoch - self.kept.epoch
        return self.ranker is not None and waited >= self.settings.patience * self.settings.every

    def _one_epoch(self) -> Tensor:
        """Every triple once, in an order of its own; mean loss, scalar."""
        self._reseed(self.epoch)
        device = self.edges.device
        order = torch.randperm(len(self.edges), generator=self.generator, device=device)
        total = torch.zeros((), device=device)
        for chosen in torch.split(order, self.settings.batch):
            if self.callbacks.stop.is_set():
                raise InterruptedError("the fit of TransE was stopped")
            heads, relations, tails = self.edges[chosen].T.contiguous()
            corrupted = self.corruption.draw(relations, self.settings.negatives, self.generator)
            batch = Batch(heads, relations + self.triples.nodes, tails, *corrupted)
            total += self.model.step(batch) * len(chosen)
            self.callbacks.advance(len(chosen))
        return total / max(len(self.edges), 1)

    def _evaluate(self, loss: Tensor) -> None:
        evaluation = Evaluation(self.epoch, float(loss))
        if self.ranker:
            ranks = self.ranker.ranks(self.model.table, self.triples.nodes, self.settings.norm)
            found = LinkPrediction.of(ranks)
            evaluation = Evaluation(self.epoch, float(loss), found.mrr, found.hits_at_10)
        if self.ranker is None or evaluation.mrr > self.kept.mrr:
            self.kept, self.best = evaluation, self.model.table.clone()
        self.callbacks.evaluated(evaluation)
        if self.state:
            tensors = {"table": self.model.table, "squares": self.model.squares, "best": self.best}
            save_state(self.state, self._key(), tensors, {"epoch": self.epoch, "kept": asdict(self.kept)})

    def _resume(self) -> None:
        found = load_state(self.state, self._key(), self.callbacks.say) if self.state else None
        if found is None:
            return
        tensors, progress = found
        self.model.table.copy_(tensors["table"])
        self.model.squares.copy_(tensors["squares"])
        self.best.copy_(tensors["best"])
        self.epoch, self.kept = progress["epoch"], Evaluation(**progress["kept"])
        self.callbacks.say(f"TransE, seed {self.number}: continues after epoch {self.epoch}")

    def _key(self) -> str:
        """What the fit follows from."""
        edges = hashlib.sha256(np.ascontiguousarray(self.triples.edges).tobytes()).hexdigest()
        graph = (edges, self.triples.relations, self.triples.images, self.triples.nodes)
        settings = asdict(self.settings)
        return json_sha256(
            (graph, settings, self.seed, self.number, torch.__version__, self.edges.device.type)
        )
