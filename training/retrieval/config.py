"""What an evaluation measures and under which protocol."""

from dataclasses import dataclass

from training.checks import one_of, within
from training.errors import ConfigError
from training.retrieval.concepts import VARIANTS

IMAGE_IMAGE, IMAGE_TEXT, TEXT_IMAGE = "image-image", "image-text", "text-image"
DIRECTIONS = (IMAGE_IMAGE, IMAGE_TEXT, TEXT_IMAGE)
BEFORE, AFTER = "before", "after"
FEATURES = (BEFORE, AFTER)
EXCLUSIONS = ("case", "image")

TEMPLATES = (
    "{}",
    "a medical image: {}",
    "this image shows {}",
    "a radiology image of a patient: {}",
)
"""Neutral about what the label is (a modality, an organ, a finding); ``{}`` is the class."""


@dataclass(frozen=True)
class View:
    """One direction of retrieval in one kind of features."""

    direction: str
    features: str

    @property
    def crosses(self) -> bool:
        """Whether it goes from one modality to the other."""
        return self.direction != IMAGE_IMAGE

    @property
    def prefix(self) -> str:
        """What its measures' names begin with."""
        if not self.crosses:
            return "projected " if self.features == AFTER else ""
        return self.direction.replace("-", "→") + " "

    @property
    def title(self) -> str:
        """The heading above its measures."""
        return f"{self.direction.replace('-', ' → ')}, features {self.features} the projection"


@dataclass(frozen=True)
class EvalConfig:
    """One evaluation. Checks name the command's options."""

    directions: tuple[str, ...] = (IMAGE_IMAGE,)
    """What is looked for with what: image-image, image-text, text-image."""
    features: tuple[str, ...] = (BEFORE,)
    """Image features of image-image, before or after the projection; directions with texts need those after it."""
    recall: bool = True
    """Paired Recall@K, image to text and text to image."""
    cui_variants: tuple[str, ...] = ("oracle",)
    """Readings of CUI@K, see ``training.retrieval.concepts``."""
    labels: tuple[str, ...] | None = None
    """Label columns of P@K, a+b for a conjunction; null: each, and one conjunction."""
    zero_shot: tuple[str, ...] = ()
    """Label columns to classify by prompts."""
    templates: tuple[str, ...] = TEMPLATES
    """Prompts of a class that has none of its own; each contains {}."""
    prompts: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = ()
    """Label to class to whole prompts, as pairs; a class without its own gets the templates."""
    group_exclusion: str = "case"
    """What a query cannot find: its whole case, or only the image itself."""
    draws: int = 2000
    """Bootstrap samples, at least 1."""
    queries: int = 8
    """Queries shown in each picture, at least 1."""
    max_broken: int = 0
    """Images that may be missing or unreadable, as a count."""
    seed: int = 0
    """Of bootstrap, sign flips and shown queries, >= 0."""

    def __post_init__(self) -> None:
        for name, low in (("queries", 1), ("draws", 1), ("max_broken", 0), ("seed", 0)):
            within(f"--{name.replace('_', '-')}", getattr(self, name), low, None)
        for option, values, choices in (
            ("--direction", self.directions, DIRECTIONS),
            ("--features", self.features, FEATURES),
            ("--cui-variants", self.cui_variants, tuple(VARIANTS)),
            ("--group-exclusion", (self.group_exclusion,), EXCLUSIONS),
        ):
            if not values:
                raise ConfigError(f"{option} is empty: give at least one of {', '.join(choices)}")
            for value in values:
                one_of(option, value, choices)
        for template in self.templates:
            if template.count("{}") != 1:
                raise ConfigError(f'--templates: "{template}" must contain {{}} once, where the class goes')

    @property
    def views(self) -> tuple[View, ...]:
        """Every direction in every kind of features that it exists in."""
        return tuple(
            View(direction, features)
            for direction in DIRECTIONS
            if direction in self.directions
            for features in (self.features if direction == IMAGE_IMAGE else (AFTER,))
        )

    @property
    def spaces(self) -> tuple[str, ...]:
        """Kinds of image features that are needed."""
        needed = {view.features for view in self.views} | (
            {AFTER} if self.recall or self.zero_shot else set()
        )
        return tuple(space for space in FEATURES if space in needed)

    @property
    def texts(self) -> bool:
        """Whether captions are encoded."""
        return self.recall or any(view.crosses for view in self.views)
