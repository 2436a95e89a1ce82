"""The seed's files keep what docs/seed-ontology.md promises: read with ``csv``, no other room can hide a fault."""

from __future__ import annotations

import csv
import importlib.util
import re
from collections import defaultdict
from types import ModuleType

import pytest

from tests import REPOSITORY

ROOT = REPOSITORY
SEED = ROOT / "kg_targets" / "ontology" / "seed"
KINDS = {
    "modality",
    "sequence",
    "plane",
    "contrast",
    "view",
    "region",
    "organ",
    "laterality",
    "finding",
    "device",
    "qualifier",
    "procedure",
}
CT, MRI, IMAGING = "C0040405", "C0024485", "C0011923"
ONE_LINEAGE = "one lineage: DICOM PS3.16 only"


def read(name: str) -> list[dict[str, str]]:
    """Rows of a seed file; a row with too few or too many fields fails here."""
    with (SEED / name).open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE, strict=True))
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


CONCEPTS = read("concepts.tsv")
RELATIONS = read("relations.tsv")
BY_CUI = {row["cui"]: row for row in CONCEPTS}
VERIFIED = {row["cui"] for row in CONCEPTS if row["verified"] == "true"}


def split(field: str) -> list[str]:
    return [part for part in field.split("|") if part]


def parents(verified_only: bool = False) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for row in RELATIONS:
        if row["relation"] == "is_a" and (not verified_only or {row["child"], row["parent"]} <= VERIFIED):
            found[row["child"]].add(row["parent"])
    return found


def ancestors(cui: str, up: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [cui]
    while waiting:
        for parent in up.get(waiting.pop(), ()):
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return seen


def aliases(row: dict[str, str]) -> list[str]:
    lower = [row["name"].lower(), *split(row["synonyms"])]
    return [re.sub(r"[^a-z0-9]+", " ", alias).strip() for alias in lower] + split(row["abbreviations"])


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seed_sources", ROOT / "tools" / "seed_sources.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cuis_are_well_formed_unique_and_sorted() -> None:
    cuis = [row["cui"] for row in CONCEPTS]
    assert all(re.fullmatch(r"C\d{7}", cui) for cui in cuis)
    assert cuis == sorted(set(cuis))


def test_files_are_plain_tables_without_carriage_returns() -> None:
    for name in ("concepts.tsv", "relations.tsv"):
        data = (SEED / name).read_bytes()
        assert b"\r" not in data and data.endswith(b"\n") and not data.startswith(b"\xef\xbb\xbf")


def test_there_are_enough_concepts_each_with_a_source_that_is_named() -> None:
    assert len(CONCEPTS) >= 1_200
    assert all(split(row["sources"]) for row in CONCEPTS)


def test_there_are_enough_verified_concepts_of_every_main_kind() -> None:
    kinds = [BY_CUI[cui]["kind"] for cui in VERIFIED]
    assert len(VERIFIED) >= 300
    assert set(kinds) >= {"modality", "plane", "region", "organ", "laterality", "finding", "device"}


def test_every_concept_has_a_known_kind_and_semantic_type() -> None:
    for row in CONCEPTS:
        assert row["kind"] in KINDS, row
        assert row["verified"] in {"true", "false"}, row
        assert split(row["semantic_types"]), row
        assert all(re.fullmatch(r"T\d{3}", tui) for tui in split(row["semantic_types"])), row


def test_names_and_synonyms_are_clean_and_abbreviations_keep_their_case() -> None:
    for row in CONCEPTS:
        texts = [row["name"], *split(row["synonyms"]), *split(row["abbreviations"])]
        assert all(text == text.strip() and text for text in texts), row
        assert all(synonym == synonym.lower() for synonym in split(row["synonyms"])), row
        assert all(short != short.lower() for short in split(row["abbreviations"])), row


def test_verified_means_two_lineages_or_the_declared_exception(tool: ModuleType) -> None:
    for cui in VERIFIED:
        row = BY_CUI[cui]
        lineages = {tool.lineage(source) for source in split(row["sources"])}
        if row["note"].startswith(ONE_LINEAGE):
            assert row["kind"] in {"plane", "view", "qualifier"} and lineages == {"DICOM"}, row
        else:
            assert len(lineages) >= 2, row


def test_unverified_concepts_cite_what_little_there_is(tool: ModuleType) -> None:
    for row in CONCEPTS:
        if row["verified"] == "false":
            assert len({tool.lineage(source) for source in split(row["sources"])}) == 1, row


def test_relations_are_sorted_and_join_existing_concepts() -> None:
    edges = [(row["child"], row["relation"], row["parent"]) for row in RELATIONS]
    assert edges == sorted(set(edges))
    for child, relation, parent in edges:
        assert relation in {"is_a", "part_of"}
        assert child in BY_CUI and parent in BY_CUI and child != parent


def test_is_a_is_acyclic_and_part_of_never_repeats_it() -> None:
    up = parents()
    assert not [cui for cui in BY_CUI if cui in ancestors(cui, up)]
    part_of = {(row["child"], row["parent"]) for row in RELATIONS if row["relation"] == "part_of"}
    assert not [edge for edge in part_of if edge[1] in ancestors(edge[0], up) | {edge[0]}]


def test_few_roots_and_everything_verified_reaches_one() -> None:
    up = parents(verified_only=True)
    roots = {cui for cui in VERIFIED if not up.get(cui)}
    # Spatial words stand alone: the parent they share is stated by one lineage only and therefore off.
    roots_with_meaning = {
        cui for cui in roots if BY_CUI[cui]["kind"] not in {"qualifier", "laterality", "plane"}
    }
    assert len(roots_with_meaning) <= 9, sorted(BY_CUI[cui]["name"] for cui in roots_with_meaning)
    assert all(cui in roots or ancestors(cui, up) & roots for cui in VERIFIED)


def test_switching_unverified_concepts_off_disconnects_nothing() -> None:
    everything, verified = parents(), parents(verified_only=True)
    for cui in VERIFIED:
        assert ancestors(cui, everything) & VERIFIED == ancestors(cui, verified), BY_CUI[cui]


def test_ct_and_mri_meet_under_diagnostic_imaging() -> None:
    up = parents(verified_only=True)
    assert IMAGING in ancestors(CT, up) & ancestors(MRI, up)
    assert CT not in ancestors(MRI, up) and MRI not in ancestors(CT, up)


@pytest.mark.parametrize(
    ("left", "right", "parent"),
    [
        ("C0032227", "C0032326", "C0032226"),  # pleural effusion, pneumothorax: pleural disease
        (
            "C0007785",
            "C0151699",
            "C0007820",
        ),  # cerebral infarction, intracranial haemorrhage: cerebrovascular disease
        ("C3887499", "C0022650", "C0022658"),  # renal cyst, kidney stone: kidney disease
    ],
)
def test_siblings_share_a_direct_parent(left: str, right: str, parent: str) -> None:
    up = parents(verified_only=True)
    assert parent in up[left] & up[right]


def test_a_renal_cyst_is_a_cyst_and_a_kidney_disease() -> None:
    assert {"C0010709", "C0022658"} <= ancestors("C3887499", parents(verified_only=True))


def test_organs_are_parts_of_regions_and_not_kinds_of_them() -> None:
    lung, chest = "C0024109", "C0817096"
    assert {"child": lung, "relation": "part_of", "parent": chest} in RELATIONS
    assert chest not in ancestors(lung, parents())


def test_no_alias_belongs_to_two_verified_or_to_two_unverified_concepts() -> None:
    owners: dict[str, set[str]] = defaultdict(set)
    for row in CONCEPTS:
        for alias in aliases(row):
            owners[alias].add(row["cui"])
    for alias, cuis in owners.items():
        assert len(cuis & VERIFIED) <= 1, (alias, [BY_CUI[cui]["name"] for cui in cuis])
        assert len(cuis - VERIFIED) <= 1, (alias, [BY_CUI[cui]["name"] for cui in cuis])


def test_known_linker_noise_is_not_in_the_seed() -> None:
    noise = {"C1837463", "C0029850", "C1709311", "C1548003", "C1962945"}
    assert not noise & set(BY_CUI)


def test_the_demo_vocabulary_is_verified() -> None:
    owned = {alias for cui in VERIFIED for alias in aliases(BY_CUI[cui])}
    needed = """pleural effusion; pneumothorax; pneumonia; consolidation; lung nodule; mass; cardiomegaly; brain tumor;
        brain tumour; intracranial hemorrhage; intracranial haemorrhage; cerebral infarct; stroke; hydrocephalus; liver;
        lesion; renal cyst; cyst; kidney stone; hydronephrosis; ascites; fracture; effusion; radiograph; x ray;
        plain film; CT; MRI; T1; T2; FLAIR; ultrasound; axial;
        chest; head; brain; abdomen; knee; hand; spine; pelvis; left; right; bilateral"""
    assert not [term for term in re.split(r";\s*", needed.strip()) if term not in owned]


@pytest.mark.parametrize(
    ("compound", "owner"),
    [
        ("femoral head", "C0015811"),
        ("pancreatic head", "C0030274"),
        ("sagittal sinus", "C0042449"),
        ("fat suppressed", MRI),
    ],
)
def test_compounds_whose_parts_would_assert_something_wrong_are_aliases_themselves(
    compound: str, owner: str
) -> None:
    assert [cui for cui in VERIFIED if compound in aliases(BY_CUI[cui])] == [owner]


def test_the_document_lists_exactly_the_concepts_of_the_file(tool: ModuleType) -> None:
    assert tool.generated_block(CONCEPTS) in tool.DOC.read_text(encoding="utf-8"), (
        "run tools/seed_sources.py --write"
    )


def test_no_edge_between_verified_concepts_is_implied_by_others() -> None:
    up = parents(verified_only=True)
    for child, direct in up.items():
        for parent in direct:
            others = set().union(
                *({other} | ancestors(other, up) for other in direct if other != parent), set()
            )
            assert parent not in others, f"{child} is_a {parent} follows from other edges"


# Aliases of a modality, device or procedure in which the word for an organ says which kind it is, not where.
KINDS_NAMED_BY_AN_ORGAN = """aortic stent graft; bone age film; bone grafting; bone scintigraphy;
    cephalometric radiograph; dental panoramic; enteric feeding tube; gastric bypass; intracardiac
    echocardiography; lumbar puncture; occlusal film; occlusal radiograph; periapical film; periapical
    radiograph; small bowel follow through; spinal cord stimulator; stent graft; transrectal ultrasound;
    umbilical catheter; umbilical venous catheter; vagal nerve stimulator"""


def own_words(alias: str, owners: dict[str, set[str]]) -> set[str]:
    """Find the concepts of the parts of an alias, longest part first, the whole alias left out."""
    words, found, at = alias.split(), set(), 0
    while at < len(words):
        for end in range(len(words), at, -1):
            part = " ".join(words[at:end])
            if part != alias and part in owners:
                found |= owners[part]
                at = end - 1
                break
        at += 1
    return found


def test_no_alias_of_a_modality_device_or_procedure_swallows_an_organ() -> None:
    """ "MRI brain" as an alias of MRI would lose the brain: its parts alone say both."""
    owners: dict[str, set[str]] = defaultdict(set)
    for row in CONCEPTS:
        for alias in aliases(row):
            owners[alias].add(row["cui"])
    up: dict[str, set[str]] = defaultdict(set)
    for row in RELATIONS:
        up[row["child"]].add(row["parent"])
    allowed = set(" ".join(KINDS_NAMED_BY_AN_ORGAN.split()).split("; "))
    swallowed = []
    for row in CONCEPTS:
        if row["kind"] not in {"modality", "device", "procedure"}:
            continue
        said = own_words(aliases(row)[0], owners)
        said |= set().union(*(ancestors(cui, up) for cui in said), set())
        for alias in set(aliases(row)) - allowed:
            parts = own_words(alias, owners)
            organs = {cui for cui in parts if BY_CUI[cui]["kind"] in {"organ", "region"}} - said
            if row["cui"] in parts and organs:
                swallowed.append((row["name"], alias))
    assert not swallowed
