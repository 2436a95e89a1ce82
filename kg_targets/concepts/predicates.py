"""Names that a sentence takes apart: "the heart is mildly enlarged" says what the alias "enlarged heart" says.

An alias that begins with a predicative adjective gives a pair of subject and adjective. Where a text has the adjective,
its subject is looked for to the left, across adverbs, "not", "may", forms of "to be" and the word "size"; what these
say, the sentence says of the finding.
"""

from __future__ import annotations

ADJECTIVES = frozenset((
    "aneurysmal", "atrophic", "calcified", "collapsed", "compressed", "consolidated", "dilated",
    "dislocated", "displaced", "ectatic", "edematous", "elevated", "enlarged", "fractured", "herniated",
    "hyperinflated", "hypoplastic", "inflamed", "large", "narrowed", "obstructed", "occluded",
    "opacified", "perforated", "ruptured", "stenotic", "swollen", "thickened", "torn", "widened",
))  # fmt: skip
"""Adjectives that stand behind their noun as well as before it."""
DOUBTING = frozenset((
    "not", "no", "neither", "may", "might", "could", "perhaps", "possibly", "probably", "questionably",
    "isn't", "aren't", "wasn't", "weren't", "doesn't", "don't", "didn't",
))  # fmt: skip
"""Words between subject and adjective by which the subject is there, and the finding is denied or only possible."""
_VERBS = frozenset((
    "is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "appears", "appear",
    "appeared", "remains", "remain", "remained", "seems", "seem", "looks", "does", "do", "did", "may", "might", "could",
    "isn't", "aren't", "wasn't", "weren't", "doesn't", "don't", "didn't",
))  # fmt: skip
_BETWEEN = frozenset((
    "again", "also", "borderline", "longer", "more", "neither", "not", "now", "perhaps", "quite", "rather", "size",
    "sizes", "somewhat", "still", "to", "top", "very",
))  # fmt: skip
_REACH = 90  # code points
_LONGEST_SUBJECT = 4  # words


def split_alias(alias: str) -> tuple[str, str] | None:
    """Take a folded alias apart: ``"enlarged heart"`` → ``("enlarged", "heart")``; None where it has no such form."""
    adjective, _, subject = alias.partition(" ")
    return (adjective, subject) if subject and adjective in ADJECTIVES else None


def subjects(text: str, adjective_start: int) -> list[tuple[str, int]]:
    """List what an adjective may be said of.

    Args:
        text: folded text.
        adjective_start: where the adjective begins in it.
    Returns:
        ``(subject, start)`` for each run of words that ends where the adverbs and verbs before the adjective begin;
        the longest first, each as written and without a plural's "s".
    """
    end = adjective_start
    words = text[max(0, adjective_start - _REACH) : adjective_start].split(" ")[:-1]
    last = ""
    while words and (
        words[-1].endswith("ly")
        or words[-1] in _BETWEEN
        or words[-1] in _VERBS
        or (words[-1] == "no" and last == "longer")
    ):
        last = words.pop()
        end -= len(last) + 1
    found = []
    for count in range(min(_LONGEST_SUBJECT, len(words)), 0, -1):
        subject = " ".join(words[-count:])
        start = end - len(subject) - 1
        found += [(subject, start), (subject.removesuffix("s"), start)]
    return found
