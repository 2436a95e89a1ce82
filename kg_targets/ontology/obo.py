"""OBO files (DO, MONDO, HPO, UBERON…): terms become concepts through their UMLS cross-references.

* ``xref: UMLS:C…`` and ``xref: UMLS_CUI:C…`` count in any case, unless MONDO qualifies them as something else than
  equivalent. CUIs in another form (``MEDGEN:C…``, an address) are counted as skipped.
* Obsolete terms are left out. A parent that is another term's alternative id, or obsolete with one replacement, is that
  term. A parent without a CUI is bridged to the next ancestors that have one.
* ``is_a`` and ``relationship: part_of`` are kept apart; a bridged path with any ``part_of`` in it is
  ``part_of``.
* EXACT synonyms only; those typed as abbreviation or acronym are matched case-sensitively.
* CUIs that one term carries together are equivalent; each of them has the term's names and parents.

Values end before ``{trailing modifiers}`` and ``! comments``; a backslash escapes a character of an identifier or a
text. Source: OBO Flat File Format 1.4, https://owlcollab.github.io/oboformat/doc/GO.format.obo-1_4.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kg_targets.errors import OntologyError
from kg_targets.ontology.concept import KIND_OF_VOCABULARY, parse_cui
from kg_targets.ontology.merge import bridged
from kg_targets.ontology.tables import (
    IS_A,
    PART_OF,
    PREFERRED,
    TableBuilder,
    Tables,
    read_lines,
    require_file,
)

_SYNONYM = re.compile(r'"((?:[^"\\]|\\.)*)"\s+EXACT\b\s*([^\[]*)')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": " ", "t": " ", "W": " "}
"""White space by its escapes; any other escaped character stands for itself."""
_BEFORE_COMMENT = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\\.|[^!])*')
_QUALIFIER = r'[^{}="]+=(?:"(?:[^"\\]|\\.)*"|[^{}",]*)'
_MODIFIERS = re.compile(rf"(?<!\\)\{{\s*(?:{_QUALIFIER}(?:,{_QUALIFIER})*)?\}}\s*$")
_ABBREVIATION_TYPES = {"abbreviation", "acronym", "omo:0003012", "omo:0003000"}
_UMLS_PREFIXES = ("UMLS", "UMLS_CUI")


@dataclass
class _Term:
    """One stanza while it is being read."""

    id: str = ""
    name: str = ""
    obsolete: bool = False
    other_ids: list[str] = field(default_factory=list)
    """Alternative ids; of an obsolete term those that replace it."""
    cuis: list[int] = field(default_factory=list)
    synonyms: list[tuple[str, bool]] = field(default_factory=list)
    parents: list[tuple[str, str]] = field(default_factory=list)

    def renamed(self) -> list[tuple[str, str]]:
        """Pairs of an id that is in use no more and the id that stands for it."""
        pairs = [(self.id, other) for other in self.other_ids]
        return pairs if self.obsolete else [(other, own) for own, other in pairs]


def read_obo(path: Path) -> Tables:
    """Read one file.

    Raises:
        OntologyError: it is missing, is no OBO file, or has no live term with a UMLS cross-reference.
    """
    require_file(path, "Give the path of an OBO file, such as doid.obo.")
    builder = TableBuilder()
    header: dict[str, str] = {}
    terms: dict[str, _Term] = {}
    other_names: dict[str, set[str]] = {}
    for term in _terms(path, builder, header):
        reason = _unusable(term, terms)
        if reason:
            builder.skipped[f"{path.name}: {reason}"] += 1
        else:
            terms[term.id] = term
        for old, new in term.renamed():
            other_names.setdefault(old, set()).add(new)
    if not any(term.cuis for term in terms.values()):
        raise OntologyError(
            f"{path}: no live [Term] with an xref to UMLS; this reader needs OBO files that have them"
        )
    for term in terms.values():
        _add_concepts(term, builder)
    _add_edges(path, terms, other_names, builder)
    version = header.get("data-version") or header.get("date") or "no version"
    return builder.build(f"OBO {path.name} ({version})")


def _unusable(term: _Term, seen: dict[str, _Term]) -> str:
    if term.obsolete:
        return "obsolete term"
    if not term.id:
        return "term without an id"
    if term.id in seen:
        return "term with an id that came before"
    return "term without a name" if term.cuis and not term.name else ""


def _terms(path: Path, builder: TableBuilder, header: dict[str, str]) -> Iterator[_Term]:
    """Stream the ``[Term]`` stanzas; tags before the first stanza go into ``header``."""
    term: _Term | None = None
    in_header = True
    for line in read_lines(path, builder.skipped):
        line = line.strip()
        if line.startswith("["):
            if term is not None:
                yield term
            term, in_header = (_Term() if line == "[Term]" else None), False
            continue
        tag, colon, value = line.partition(":")
        if not colon:
            continue
        if in_header:
            header.setdefault(tag, value.strip())
        elif term is not None:
            _read_tag(term, tag, value.strip(), builder, path.name)
    if term is not None:
        yield term


def _read_tag(term: _Term, tag: str, value: str, builder: TableBuilder, where: str) -> None:
    if tag == "id":
        term.id = _identifier(value)
    elif tag == "name":
        term.name = _unescaped(_bare(value)).strip()
    elif tag in ("alt_id", "replaced_by"):
        term.other_ids.append(_identifier(value))
    elif tag == "is_obsolete":
        term.obsolete = value.lower().startswith("true")
    elif tag == "is_a":
        term.parents.append((IS_A, _identifier(value)))
    elif tag == "relationship":
        relation, _, parent = value.partition(" ")
        if relation in ("part_of", "BFO:0000050"):
            term.parents.append((PART_OF, _identifier(parent)))
    elif tag == "synonym":
        _read_synonym(term, value)
    elif tag == "xref":
        _read_xref(term, value, builder, where)


def _identifier(value: str) -> str:
    """The identifier at the front of a value, without ``{modifiers}`` and ``! comment``."""
    return _unescaped((_bare(value).split() or [""])[0])


def _bare(value: str) -> str:
    """A value without its ``{trailing modifiers}`` and its ``! comment``."""
    match = _BEFORE_COMMENT.match(value)
    return _MODIFIERS.sub("", match.group() if match else value).rstrip()


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found.group(1), found.group(1)), text)


def _read_synonym(term: _Term, value: str) -> None:
    match = _SYNONYM.match(value)
    if match is None:
        return
    types = set(match.group(2).lower().split())
    if "obsolete_synonym" not in types:
        term.synonyms.append((_unescaped(match.group(1)), bool(types & _ABBREVIATION_TYPES)))


def _read_xref(term: _Term, value: str, builder: TableBuilder, where: str) -> None:
    identifier = _identifier(value)
    prefix, _, local = identifier.partition(":")
    if prefix.upper() not in _UMLS_PREFIXES:
        last = re.split("[:/#]", identifier)[-1]
        if "umls" in identifier.lower() or parse_cui(last) is not None:
            builder.skipped[
                f"{where}: xref to a CUI in a form that is not read ({identifier.removesuffix(last)}…)"
            ] += 1
        return
    # MONDO says how an xref is meant; broader, narrower and related ones are other concepts.
    if "MONDO:" in value and "MONDO:equivalentTo" not in value and re.search(r"MONDO:[a-z]", value):
        builder.skipped[f"{where}: xref that is not equivalent"] += 1
        return
    cui = builder.cui(local, where)
    if cui is not None and cui not in term.cuis:
        term.cuis.append(cui)


def _add_concepts(term: _Term, builder: TableBuilder) -> None:
    vocabulary = term.id.split(":")[0]
    for cui in term.cuis:
        builder.add_name(cui, term.name, vocabulary, rank=PREFERRED)
        for text, abbreviation in term.synonyms:
            builder.add_name(cui, text, vocabulary, abbreviation=abbreviation)
        builder.add_term(cui, vocabulary, term.id, kind=KIND_OF_VOCABULARY.get(vocabulary, ""))
    builder.add_equivalents(term.cuis)


def _current(name: str, terms: dict[str, _Term], other_names: dict[str, set[str]]) -> str:
    """The id of the live term that an id stands for; empty if there is none, or more than one."""
    seen: set[str] = set()
    while name not in terms:
        successors = other_names.get(name, ())
        if len(successors) != 1 or name in seen:
            return ""
        seen.add(name)
        (name,) = successors
    return name


def _add_edges(
    path: Path, terms: dict[str, _Term], other_names: dict[str, set[str]], builder: TableBuilder
) -> None:
    parents: dict[str, Iterable[tuple[str, str]]] = {}
    for term in terms.values():
        found = [(relation, _current(parent, terms, other_names)) for relation, parent in term.parents]
        parents[term.id] = [(relation, parent) for relation, parent in found if parent]
        missing = len(term.parents) - sum(1 for _ in parents[term.id])
        if missing:
            builder.skipped[f"{path.name}: parent that is no live term of the file"] += missing
    carrying = {name for name, term in terms.items() if term.cuis}
    for child, relation, parent in bridged(parents, carrying):
        for low in terms[child].cuis:
            for high in terms[parent].cuis:
                builder.add_edge(low, high, relation)
