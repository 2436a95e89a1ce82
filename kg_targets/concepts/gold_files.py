"""Hand-annotated texts in three formats: JSON lines of ours, PubTator, and BRAT's folders of ``.txt`` and ``.ann``.

PubTator: ``id|t|title`` and ``id|a|abstract``, joined by one blank, then tab-separated ``id start end text type cui``;
entries are separated by blank lines. BRAT: ``T1<TAB>Type start end<TAB>text``; an attribute ``Negated`` or ``Negation``
denies a mention, a normalisation (``N1<TAB>Reference T1 UMLS:C0032227<TAB>name``) names its concept. A mention in
several pieces is taken from its first to its last character.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from kg_targets.concepts.evaluate import GoldCaption, GoldMention, read_jsonl
from kg_targets.errors import ExtractionError

_CUI = re.compile(r"\bC\d{7}\b")
_TEXT = re.compile(r"([^|\t]+)\|([ta])\|(.*)")
_DENYING = ("negated", "negation")


def read_gold(path: str | Path, split: str | None = None) -> list[GoldCaption]:
    """Read annotated texts: a folder is BRAT's, ``.txt`` and ``.pubtator`` are PubTator's, else JSON lines.

    Raises:
        ExtractionError: a file is missing or malformed, a mention's offsets do not give its text, or there is none.
    """
    path = Path(path)
    if not path.is_dir() and path.suffix not in (".txt", ".pubtator"):
        return read_jsonl(path, split)
    if split is not None:
        raise ExtractionError(f"{path}: only JSON lines have splits: drop --split {split}")
    texts = list(_brat(path) if path.is_dir() else _pubtator(path))
    if not texts:
        raise ExtractionError(f"{path}: holds no annotated text")
    return texts


def _brat(folder: Path) -> Iterator[GoldCaption]:
    for notes in sorted(folder.rglob("*.ann")):
        text = _read(notes.with_suffix(".txt"))
        spans: dict[str, tuple[int, int, str]] = {}
        denied, cuis = set(), {}
        for number, line in enumerate(_read(notes).splitlines(), start=1):
            key, _, rest = line.partition("\t")
            head = rest.split("\t")[0]
            if key[:1] == "T":
                kind, _, places = head.partition(" ")
                ends = re.findall(r"\d+", places)
                if len(ends) < 2 or len(ends) % 2:
                    raise ExtractionError(f"{notes}:{number}: a mention needs a type, a start and an end")
                spans[key] = int(ends[0]), int(ends[-1]), kind
            elif key[:1] in ("A", "M") and head.split(" ")[0].lower() in _DENYING:
                denied.add(head.split(" ")[1])
            elif key[:1] == "N" and (cui := _CUI.search(head)):
                cuis[head.split(" ")[1]] = cui.group()
        mentions = []
        for key, (start, end, kind) in spans.items():
            wording = text[start:end]
            if not wording:
                raise ExtractionError(f"{notes}: {key} lies outside of the text")
            mentions.append(GoldMention(start, end, wording, wording, kind, key in denied, cuis.get(key, "")))
        name = str(notes.relative_to(folder).with_suffix(""))
        yield GoldCaption(
            name, text, tuple(sorted(mentions, key=lambda mention: (mention.start, mention.end)))
        )


def _pubtator(path: Path) -> Iterator[GoldCaption]:
    parts: dict[str, list[str]] = {}
    mentions: dict[str, list[GoldMention]] = {}
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if text := _TEXT.fullmatch(line):
            parts.setdefault(text.group(1), []).append(text.group(3))
            continue
        cells = line.split("\t")
        if len(cells) < 5 or not (cells[1].isdecimal() and cells[2].isdecimal()):
            if line.strip() and len(cells) != 4:  # four cells are a relation
                raise ExtractionError(f"{path}:{number}: neither a text nor a mention of PubTator's")
            continue
        start, end, wording, kind = int(cells[1]), int(cells[2]), cells[3], cells[4]
        if " ".join(parts.get(cells[0], []))[start:end] != wording:
            raise ExtractionError(f"{path}:{number}: offsets {start}:{end} do not give {wording!r}")
        cui = _CUI.search(cells[5]) if len(cells) > 5 else None
        mentions.setdefault(cells[0], []).append(
            GoldMention(start, end, wording, wording, kind, False, cui.group() if cui else "")
        )
    for name, texts in parts.items():
        yield GoldCaption(name, " ".join(texts), tuple(mentions.get(name, ())))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as stream:  # offsets count carriage returns
            return stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise ExtractionError(f"{path}: cannot be read as UTF-8 text ({error})") from error
