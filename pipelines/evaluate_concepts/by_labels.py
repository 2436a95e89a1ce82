"""Against label columns: does the text name the value that the image's label has?

The manifest says which concepts stand for a label's value (``label_concepts``). A caption names a value if it asserts
such a concept, something that is a kind of it, or a part of it. Labels describe the image and captions need not repeat
them, so recall has a ceiling below 1; precision is what extraction answers for.
"""

from collections.abc import Iterator

import numpy as np

from kg_targets.concepts.evaluate import Rate
from kg_targets.concepts.mention import Extractor
from kg_targets.errors import ManifestError
from kg_targets.manifest import Manifest, Record
from kg_targets.ontology import Ontology
from pipelines.evaluate_concepts.by_gold import rate_text

RELATIONS = ("is_a", "part_of")


def label_lines(
    manifest: Manifest,
    split: str,
    records: list[Record],
    extractor: Extractor,
    ontology: Ontology,
    errors: int,
) -> Iterator[str]:
    """Lines for a person, one table per label that the manifest ties to concepts.

    Raises:
        ManifestError: the manifest ties no label to concepts.
    """
    if not manifest.label_concepts:
        raise ManifestError(
            f"{manifest.name}: label_concepts is empty: say there which concepts a label's values mean"
        )
    found = extractor.extract([record.caption for record in records], [record.cuis for record in records])
    asserted = [
        sorted({m.cui for m in mentions if not m.negated and m.cui in ontology}) for mentions in found
    ]
    cases = len({record.group_id for record in records})
    yield f"{manifest.name}/{split}: {len(records):,} captions of {cases:,} cases; 95 % Wilson intervals over captions"
    reached = _with_ancestors(asserted, ontology)
    for label, values in manifest.label_concepts.items():
        named = [{value for value, cuis in values.items() if above & set(cuis)} for above in reached]
        given = [record.labels.get(label, "") for record in records]
        yield from _label_table(label, list(values), given, named)
        wrong = [
            row
            for row, value in enumerate(given)
            if named[row] and value not in named[row] and value in values
        ]
        for row in wrong[:errors]:
            caption = " ".join(records[row].caption.split())[:90]
            yield f"    {records[row].image_id}: label {given[row]!r}, text names {sorted(named[row])}: {caption}"


def _label_table(label: str, values: list[str], given: list[str], named: list[set[str]]) -> Iterator[str]:
    rows = [row for row, value in enumerate(given) if value in values]
    right = Rate(sum(given[row] in named[row] for row in rows), len(rows))
    speaking = [row for row in rows if named[row]]
    precise = Rate(sum(given[row] in named[row] for row in speaking), len(speaking))
    only = [row for row in rows if len(named[row]) == 1]
    exact = Rate(sum(named[row] == {given[row]} for row in only), len(only))
    yield f"  {label}: {len(rows):,} labelled captions"
    yield f"    text names the label's value                    {rate_text(right)}"
    yield f"    … of those that name any value                  {rate_text(precise)}"
    yield f"    … of those that name exactly one                {rate_text(exact)}"
    for value in values:
        own = [row for row in rows if given[row] == value]
        yield f"    {value:<32} recall           {rate_text(Rate(sum(value in named[row] for row in own), len(own)))}"


def _with_ancestors(asserted: list[list[str]], ontology: Ontology) -> list[set[str]]:
    used = sorted({cui for cuis in asserted for cui in cuis})
    nodes, hops = ontology.ancestor_matrix(used, relations=RELATIONS)
    names = np.asarray(nodes, dtype=object)
    above = {cui: set(names[hops[[row]].indices]) for row, cui in enumerate(used)}
    return [set().union(*(above[cui] for cui in cuis)) for cuis in asserted]
