"""Configuration of an evaluation: measures and protocol, and the command line's options for them."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from training.checks import all_within, one_of
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

Prompts = tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...]


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
        """Beginning of its measures' names."""
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
    """Directions: image-image, image-text, text-image."""
    features: tuple[str, ...] = (BEFORE,)
    """Image features of image-image, before or after the projection; directions with texts need those after it."""
    recall: bool = True
    """Paired Recall@K, image to text and text to image."""
    semantic_recall: tuple[float, ...] = ()
    """Thresholds in (0, 1] of Recall@K by overlap of concepts, beside the strict form; needs ``recall``."""
    cui_variants: tuple[str, ...] = ("oracle",)
    """Readings of CUI@K, see ``training.retrieval.concepts``."""
    labels: tuple[str, ...] | None = None
    """Label columns of P@K, a+b for a conjunction; null: each, and one conjunction."""
    zero_shot: tuple[str, ...] = ()
    """Label columns to classify by prompts."""
    templates: tuple[str, ...] = TEMPLATES
    """Prompts of a class that has none of its own; each contains {}."""
    prompts: Prompts = ()
    """Label to class to whole prompts, as pairs; a class without its own gets the templates."""
    group_exclusion: str = "case"
    """Excluded from a query's gallery: its whole case, or only the image itself."""
    draws: int = 2000
    """Bootstrap samples, at least 1."""
    queries: int = 8
    """Queries shown in each picture, at least 1."""
    max_broken: int = 0
    """Images that may be missing or unreadable, as a count."""
    seed: int = 0
    """Seed of bootstrap, sign flips and shown queries, >= 0."""

    def __post_init__(self) -> None:
        all_within("--", self, queries=(1, None), draws=(1, None), max_broken=(0, None), seed=(0, None))
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
        for threshold in self.semantic_recall:
            if not 0 < threshold <= 1:
                raise ConfigError(
                    f"--semantic-recall: {threshold:g} is not in (0, 1]: 1 takes equal concepts, 0.5 half"
                )
        if self.semantic_recall and not self.recall:
            raise ConfigError("--semantic-recall stands beside Recall@K: drop --no-recall")
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


def add_store(command: argparse.ArgumentParser) -> None:
    """Add the options that name the images."""
    command.add_argument("--store", required=True, help="target store of the split to evaluate")
    command.add_argument(
        "--data-root", required=True, help="where the images are: folder, Parquet files or tar shards"
    )


def add_measures(command: argparse.ArgumentParser) -> None:
    """Add the options that ``read_config`` reads."""
    add, several = command.add_argument, partial(command.add_argument, action="append")
    several(
        "--direction",
        dest="directions",
        help=f"{', '.join(DIRECTIONS)} (default: image-image); comma-separated or repeated",
    )
    several("--features", help=f"{', '.join(FEATURES)} the projection, of image-image (default: before); with texts "
            "always after")  # fmt: skip
    several("--cui-variants", help=f"{', '.join(VARIANTS)} (default: oracle); formulas in docs/evaluation.md")
    several("--labels", help="columns for P@K, a+b for a conjunction (default: each, and modality+region)")
    add(
        "--recall", action=argparse.BooleanOptionalAction, default=True, help="paired Recall@K (default: yes)"
    )
    several(
        "--semantic-recall",
        help="thresholds of Recall@K by overlap of concepts, such as 0.5,1 (default: none)",
    )
    several("--zero-shot", help="label columns to classify by prompts, written modality or label=modality")
    add("--templates", help="text file of prompts, one a line, {} for the class (default: four general ones)")
    add("--prompts", help="YAML file, label: class: prompts; such a class does not use the templates")
    add("--group-exclusion", default="case", help=f"what a query cannot find, {' or '.join(EXCLUSIONS)}")
    add("--queries", type=int, default=8, help="queries in each picture")
    add("--draws", type=int, default=2000, help="bootstrap samples")
    add("--max-broken", type=int, default=0, help="unreadable images to skip")
    add("--seed", type=int, default=0, help="of bootstrap, sign flips and shown queries")


def read_config(options: argparse.Namespace) -> EvalConfig:
    """The options as a configuration.

    Raises:
        ConfigError: one of them is not possible.
    """
    given = {field.name: getattr(options, field.name) for field in fields(EvalConfig)}
    for name in ("directions", "features", "cui_variants", "labels", "zero_shot", "semantic_recall"):
        given[name] = _several(given[name])
    given["semantic_recall"] = tuple(map(_threshold, given["semantic_recall"] or ()))
    given["zero_shot"] = tuple(name.removeprefix("label=") for name in given["zero_shot"] or ())
    for name, read in (("templates", read_templates), ("prompts", read_prompts)):
        given[name] = read(Path(given[name])) if given[name] else None
    return EvalConfig(**{name: value for name, value in given.items() if value is not None})


def _threshold(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"--semantic-recall: {text!r} is not a number in (0, 1]") from error


def _several(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Values of an option that is repeated or comma-separated, each once, in their order; None if not given."""
    if given is None:
        return None
    return tuple(dict.fromkeys(value.strip() for text in given for value in text.split(",")))


def read_templates(path: Path) -> tuple[str, ...]:
    """Templates from a text file, one a line; empty lines and lines that begin with # do not count.

    Raises:
        ConfigError: the file cannot be read or has none.
    """
    lines = [line.strip() for line in _read(path, "--templates").splitlines()]
    templates = tuple(line for line in lines if line and not line.startswith("#"))
    if not templates:
        raise ConfigError(f"--templates: {path} has no template: write one a line, with {{}} for the class")
    return templates


def read_prompts(path: Path) -> Prompts:
    """Prompts from a YAML file: label, then class, then a prompt or a list of prompts.

    Raises:
        ConfigError: the file cannot be read or is made otherwise.
    """
    try:
        content: Any = yaml.safe_load(_read(path, "--prompts"))
    except yaml.YAMLError as error:
        raise ConfigError(f"--prompts: {path} is not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise ConfigError(f"--prompts: {path} must map labels to classes, and classes to prompts")
    return tuple(
        (str(label), tuple((str(name), _prompts(path, label, name, given)) for name, given in values.items()))
        for label, values in content.items()
    )


def _prompts(path: Path, label: str, name: str, given: Any) -> tuple[str, ...]:
    prompts = [given] if isinstance(given, str) else given
    if (
        not isinstance(prompts, list)
        or not prompts
        or not all(isinstance(p, str) and p.strip() for p in prompts)
    ):
        raise ConfigError(f"--prompts: {path}: {label}: {name} must be a prompt or a list of prompts")
    return tuple(prompts)


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path} cannot be read ({' '.join(str(error).split())})") from error
