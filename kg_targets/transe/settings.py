"""Options of the TransE scorer and its presets.

**C** is what the paper's authors' code does, **R** our reconstruction; see docs/methods.md#transe.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Positive = Annotated[float, Field(gt=0.0, le=1000.0)]

PRESETS: dict[str, dict[str, Any]] = {
    "tuned": {},
    # 512-d, L1, margin 5, 25 negatives, Bernoulli, images as nodes, one seed: C. Thousands of epochs: C; 1,000 at most
    # and early stopping: R. The optimiser is not told: R, Adagrad at .1.
    "paper": {"dim": 512, "typed": False, "epochs": 1000, "seeds": 1, "mode": "transductive"},
}
"""What each preset changes of the defaults."""


@dataclass(frozen=True)
class TransESettings:
    """Settings of a fit. The defaults are the preset "tuned": R unless marked."""

    preset: Literal["tuned", "paper"] = "tuned"
    """Where the defaults of all other settings come from."""
    dim: Annotated[int, Field(ge=2, le=4096)] = 64
    """Dimensions of each seed's vectors, 2–4096 (paper: 512, C)."""
    norm: Literal["l1", "l2"] = "l1"
    """Distance: l1 (C) or l2."""
    margin: Positive = 5.0
    """Margin of the ranking loss, > 0 (C); for l1 on the unit sphere 1 is too small."""
    negatives: Count = 25
    """Corrupted triples for each true one, ≥ 1 (C)."""
    corruption: Literal["bernoulli", "uniform"] = "bernoulli"
    """Which end is corrupted: bernoulli (Wang et al. 2014, C) or uniform (Bordes et al. 2013)."""
    typed: bool = True
    """Replace images by images and concepts by concepts only; without it all similarities rise by a constant."""
    lr: Positive = 0.1
    """Learning rate of Adagrad, > 0; .01 is undertrained after 60 epochs."""
    batch: Count = 512
    """True triples of a step, ≥ 1."""
    epochs: Count = 50
    """Passes over the triples at most, ≥ 1 (paper: thousands, C)."""
    every: Count = 10
    """Epochs between two evaluations on the held-out edges, and between two saved states, ≥ 1."""
    patience: Count = 5
    """Evaluations without a better MRR after which a fit ends, ≥ 1."""
    holdout: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    """Share of the edges of each relation kept for MRR and early stopping, 500 at most; 0 for none."""
    seeds: Annotated[int, Field(ge=1, le=64)] = 3
    """Independent fits whose similarities are averaged, ≥ 1 (paper: 1, C)."""
    mode: Literal["inductive", "transductive"] = "inductive"
    """Vectors of images: weighted sums of concept vectors, or nodes of the graph (C)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the fit runs; auto takes a GPU where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        """Fill in what the preset says and nobody else does."""
        options = given.kwargs if isinstance(given, ArgsKwargs) else given
        if not isinstance(options, Mapping):
            return given
        return {**PRESETS.get(str(options.get("preset", "tuned")), {}), **options}
