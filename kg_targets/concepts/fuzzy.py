"""Misspelled names: a long word that no name has, one slip away from a name of one word ("pnemothorax").

A slip is a letter too many, too few, wrong, or changed with its neighbour (the optimal string alignment distance of 1).
Only words of eight letters or more, whose first letter is right, and which mean one concept, are read. Real words that
happen to look like a name ("injection", "infection") stand in ``look_alikes.tsv``; so do those of any name known.

A word of another language is no misspelling ("radiographie"): texts with two different words like "des", "avec" or
"und" are left alone.

Candidates are found by deletion (Garbe's SymSpell): two words one slip apart share a word with one letter deleted from
either. Every distinct word is looked up once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kg_targets.concepts.lexicon import Hit, Lexicon, Sense
from kg_targets.concepts.stop_list import read_table
from kg_targets.concepts.text import Folded
from kg_targets.concepts.variants import plural_suffix

LOOK_ALIKES = Path(__file__).with_name("look_alikes.tsv")
FUZZY_SCORE = 0.95
"""Confidence in a misspelled name: the share that was right when ROCO's were read."""
_SHORTEST = 8
_FOREIGN = re.compile(
    r" (?:aux|avec|chez|con|dans|das|de la|del|della|der|des|die|du|el|et|la|las|le|les|los|mit|montrant|par|pour|sur"
    r"|un|una|une|und|von)(?= )"
)
_WORD = re.compile(rf"[a-z]{{{_SHORTEST - 1},}}")


class FuzzyWords:
    """The one-word names of a lexicon, by their misspellings."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._known = {word for (word,) in read_table(LOOK_ALIKES, ["word"])}
        self._names: dict[str, Sense] = {}
        self._shortened: dict[str, list[str]] = {}
        self._read: dict[str, Sense | None] = {}
        for index, pattern in enumerate(lexicon.patterns()):
            self._known.update(pattern.split(" "), [pattern.rpartition(" ")[2] + plural_suffix(pattern)])
            if len(pattern) >= _SHORTEST and _WORD.fullmatch(pattern):
                best = lexicon.senses(index)[0]
                if not best.cui or best.exact:
                    continue
                self._names[pattern] = best
                for short in _shortened(pattern):
                    self._shortened.setdefault(short, []).append(pattern)

    def hits(self, folded: Folded, taken: list[Hit]) -> list[Hit]:
        """Misspelled names in a text, outside what is taken (in reading order, without overlap)."""
        found: list[Hit] = []
        if len(set(_FOREIGN.findall(folded.search))) > 1:
            return found
        spans = iter([*((hit.start, hit.end) for hit in taken), (len(folded.text), len(folded.text))])
        start, end = next(spans)
        for match in _WORD.finditer(folded.text):
            while end <= match.start():
                if start == len(folded.text):
                    break
                start, end = next(spans)
            if match.end() <= start and (sense := self.sense(match.group())):
                found.append(Hit(match.start(), match.end(), sense))
        return found

    def sense(self, word: str) -> Sense | None:
        """What a folded word means if it is a misspelled name."""
        if word not in self._read:
            self._read[word] = None if word in self._known else self._nearest(word)
        return self._read[word]

    def _nearest(self, word: str) -> Sense | None:
        near = {
            name
            for short in _shortened(word)
            for name in self._shortened.get(short, ())
            if name[0] == word[0] and one_slip(word, name)
        }
        cuis = {self._names[name].cui for name in near}
        return self._names[min(near)] if len(cuis) == 1 else None


def _shortened(word: str) -> Iterator[str]:
    """The word itself, and with each letter but the first deleted in turn."""
    yield word
    for index in range(1, len(word)):
        yield word[:index] + word[index + 1 :]


def one_slip(left: str, right: str) -> bool:
    """Whether one letter too many, too few, wrong, or changed with its neighbour makes one word of the other."""
    if len(left) > len(right):
        left, right = right, left
    if left == right or len(right) - len(left) > 1:
        return False
    at = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
    if len(left) < len(right):
        return left[at:] == right[at + 1 :]
    if left[at + 1 :] == right[at + 1 :]:
        return True
    return left[at : at + 2] == right[at : at + 2][::-1] and left[at + 2 :] == right[at + 2 :]
