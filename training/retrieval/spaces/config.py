"""What a comparison of spaces shows."""

from dataclasses import dataclass

from training.checks import one_of, within
from training.nb_clip.config import POLICY_NAMES
from training.retrieval.config import FEATURES, IMAGE_IMAGE, IMAGE_TEXT, EvalConfig


@dataclass(frozen=True)
class SpacesConfig:
    """One comparison of spaces. Checks name the command's options."""

    features: str = "before"
    """Image features of image-image, before or after the projection; with texts always after."""
    start: bool = False
    """Also show the untrained models that the runs started from."""
    measure: str | None = None
    """Image-image measure whose differences are wins and losses, as evaluation names it; null: CUI@50."""
    policy: str | None = None
    """Policy whose targets are described; null: that of the first run trained with one, else of the last run."""
    batch_size: int | None = None
    """Images of a batch of targets, at least 2; null: that of the same run, at most all images."""
    draws: int = 1000
    """Bootstrap samples, at least 1."""
    queries: int = 6
    """Largest wins, and as many losses, that are shown, at least 1."""
    max_broken: int = 0
    """Images that may be missing or unreadable, as a count."""
    seed: int = 0
    """Of bootstrap, sampled pairs and batches, >= 0."""

    def __post_init__(self) -> None:
        one_of("--features", self.features, FEATURES)
        if self.policy is not None:
            one_of("--policy", self.policy, POLICY_NAMES)
        if self.batch_size is not None:
            within("--batch-size", self.batch_size, 2, None)
        for name, low in (("draws", 1), ("queries", 1), ("max_broken", 0), ("seed", 0)):
            within(f"--{name.replace('_', '-')}", getattr(self, name), low, None)

    @property
    def evaluation(self) -> EvalConfig:
        """What ``training.retrieval`` has to encode and to measure for it."""
        return EvalConfig(
            directions=(IMAGE_IMAGE, IMAGE_TEXT),
            features=(self.features,),
            recall=False,
            draws=self.draws,
            max_broken=self.max_broken,
            seed=self.seed,
        )
