"""``kg-targets concepts``: the concepts that a text mentions, marked in it and listed with why."""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from training.command import Work, add_json, print_json, write_line

if TYPE_CHECKING:
    from kg_targets.concepts.annotate import Annotation

COLOURS = {
    "": "1;34",
    "negated": "9;2",
    "uncertain": "1;33",
    "hypothetical": "2;36",
    "historical": "2;35",
    "family": "2;32",
}
"""SGR codes of a stated mention and of each status: bold blue, struck through, bold yellow, faint cyan, …"""


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets concepts`."""
    parser.description = (
        "The concepts that texts mention, and what is said of each: stated, negated, uncertain, …\n"
        'For instance: kg-targets concepts "No effusion. Opacity, may represent pneumonia."'
    )
    option = parser.add_argument
    option("text", nargs="*", help="texts; without any, each line of standard input is one")
    option("--ontology", default="seed", help="as for build")
    option("--extractor", default="dictionary", help="as for build")
    add_cache(parser)
    add_json(parser)
    return _concepts


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache`` of a command that reads an ontology and builds no store."""
    parser.add_argument("--cache", metavar="DIR", help="folder that keeps what was read, as for build")


def _concepts(options: argparse.Namespace) -> None:
    from kg_targets.concepts.annotate import annotate
    from kg_targets.ontology import load_ontology

    texts = options.text or [line.rstrip("\r\n") for line in sys.stdin]
    ontology = load_ontology(options.ontology, writable_cache(options.cache))
    found = annotate(texts, ontology, options.extractor)
    if options.json:
        print_json([{"text": one.text, "mentions": [mention._asdict() for mention in one]} for one in found])
        return
    coloured = colours_wanted(sys.stdout)
    for one in found:
        for line in lines(one, coloured):
            sys.stdout.write(line + "\n")


def writable_cache(named: str | None) -> Path | None:
    """The folder of the cache, or None and a line: a command that builds no store goes on without one."""
    from pipelines.build.config import BuildConfig

    cache = Path(named or str(BuildConfig.cache))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    except OSError as error:
        write_line(f"warning: nothing is kept for the next time ({error}); --cache DIR names another folder")
        return None


def colours_wanted(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR (https://no-color.org) says otherwise."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def lines(annotation: "Annotation", coloured: bool) -> Iterator[str]:
    """The text with its mentions marked, then a line for each; nothing in it reaches the terminal as a command."""
    from kg_targets.concepts.annotate import statuses

    parts = []
    for text, mention in annotation.pieces():
        shown = shown_text(text)
        if mention is not None:
            status = next(iter(statuses(mention)), "")
            shown = f"\x1b[{COLOURS[status]}m{shown}\x1b[0m" if coloured else f"[{shown}]"
        parts.append(shown)
    yield "".join(parts)
    for mention, reason in zip(annotation, annotation.reasons(), strict=True):
        place = f"{mention.start}-{mention.end}"
        said = ", ".join(statuses(mention)) or "stated"
        names = f"{shown_text(mention.text)} → {shown_text(mention.name)} ({mention.cui})"
        yield f"  {place:>9}  {said:<13} {names}: {reason}"
    if not annotation:
        yield "  no concept"


def shown_text(text: str) -> str:
    """The text with control characters and line breaks as ``\\x1b``, ``\\n``: a terminal would obey them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
