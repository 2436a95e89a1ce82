"""Options of ``kg-targets evaluate-targets``."""

from dataclasses import dataclass

from kg_targets.errors import ConfigError

DEPTHS = (5, 10, 30)
"""The K of P@K and NDCG@K: the papers' own."""
HITS = (1, 5, 10)
"""The m of hit@m."""


@dataclass(frozen=True)
class EvaluationSettings:
    """How stores are scored."""

    seed: int = 0
    """For every random choice: bootstrap, sign flips, hidden concepts, batches, sampled pairs; ≥ 0."""
    bootstrap: int = 2000
    """Bootstrap samples of cases behind each 95 % interval, 100–100,000."""
    flips: int = 10_000
    """Random sign assignments behind each p value, ≥ 100; the smallest possible p is 1/(flips + 1)."""
    batch_sizes: tuple[int, ...] = (128, 256, 512, 1024)
    """Images per batch whose target rows are described, each ≥ 2."""
    batches: int = 10
    """Random batches per batch size, ≥ 1."""
    neighbors: int = 30
    """Nearest images that vote for a hidden concept, ≥ 1."""
    sampled_pairs: int = 200_000
    """Most pairs of images drawn to compare similarity within and between cases, ≥ 1."""
    shown_pairs: int = 10
    """Most similar pairs of different cases to show, ≥ 0."""

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, 2**32 - 1),
            "bootstrap": (100, 100_000),
            "flips": (100, 1_000_000),
            "batches": (1, 10_000),
            "neighbors": (1, 10_000),
            "sampled_pairs": (1, 10_000_000),
            "shown_pairs": (0, 1000),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"--{name.replace('_', '-')} must be between {low} and {high}")
        if not self.batch_sizes or min(self.batch_sizes) < 2:
            raise ConfigError(
                "--batch-sizes needs numbers of at least 2, separated by commas, such as 128,256"
            )


def parse_batch_sizes(text: str) -> tuple[int, ...]:
    """``"128,256"`` → ``(128, 256)``, ascending, each once.

    Raises:
        ConfigError: something between the commas is not a whole number.
    """
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise ConfigError(
            f"--batch-sizes {text!r} must be numbers separated by commas, such as 128,256"
        ) from None
