"""The cuts of a cross-validation by image, end to end: each image tests once, by a model that never saw it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from training.errors import DataError
from training.vqa.predictions import Predictions

_SAME = ("dataset", "language", "protocol", "split", "name", "mode", "images", "trained_on", "seed")
"""Facts in which the parts of a pool may not differ."""
_CUTS = "cuts"
"""Fact of a pool: question to the cut it came from."""


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of cuts that share no question as one, in the order of the cuts.

    The pool's ``split_seed`` names all cuts, its ceiling is the mean over questions, its ``candidates`` the largest
    number among the cuts; ``model`` is gone, each cut has its own. ``cuts_of`` tells which question came from where.

    Raises:
        DataError: none is given, the cuts differ in more than the cut, or a question or an image is in two of them.
    """
    if not parts:
        raise DataError("no predictions to pool: give at least one file")
    parts = sorted(parts, key=lambda one: int(one.facts["split_seed"]))
    first = parts[0].facts
    for part in parts[1:]:
        differing = next((key for key in _SAME if part.facts.get(key) != first.get(key)), None)
        if differing is not None:
            raise DataError(f"cuts to pool differ in {differing}: pool predictions of one configuration only")
    question, times = Counter(row.id for part in parts for row in part.rows).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"question {question!r} is in {times} of the cuts to pool: only cuts of one dealing under image_disjoint "
            "share no question"
        )
    images = (image for part in parts for image in dict.fromkeys(row.image_id for row in part.rows))
    image, times = Counter(images).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"image {image!r} is in {times} of the cuts to pool: only cuts of one dealing under image_disjoint share "
            "no image, and tests need each image's questions to be answered by one model"
        )
    facts: dict[str, Any] = {key: value for key, value in first.items() if key != "model"}
    facts["split_seed"] = ", ".join(str(part.facts["split_seed"]) for part in parts)
    facts["candidates"] = max(part.facts["candidates"] for part in parts)
    facts["ceiling"] = _ceiling(parts)
    facts[_CUTS] = {row.id: str(part.facts["split_seed"]) for part in parts for row in part.rows}
    return Predictions(tuple(row for part in parts for row in part.rows), facts)


def cuts_of(predictions: Predictions) -> dict[str, str]:
    """Question to the cut whose model answered it; of predictions that are no pool, all to theirs."""
    cuts: dict[str, str] | None = predictions.facts.get(_CUTS)
    return cuts or dict.fromkeys(
        (row.id for row in predictions.rows), str(predictions.facts.get("split_seed"))
    )


def _ceiling(parts: Sequence[Predictions]) -> dict[str, float]:
    """Mean over the questions of all cuts: overall, open, closed."""
    totals: dict[str, list[float]] = {}
    for part in parts:
        closed = sum(row.closed for row in part.rows)
        counts = {"overall": len(part.rows), "open": len(part.rows) - closed, "closed": closed}
        for name, share in part.facts["ceiling"].items():
            reached, asked = totals.setdefault(name, [0.0, 0.0])
            totals[name] = [reached + share * counts[name], asked + counts[name]]
    return {name: reached / asked for name, (reached, asked) in totals.items() if asked}
