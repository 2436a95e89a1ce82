"""Hidden-concept recovery: the questions asked, and a slow reference of every score written from the formulas."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from kg_targets.ontology.concept import KIND_GROUPS
from kg_targets.store import TargetStore
from pipelines.audit import recovery
from pipelines.audit.rescoring import factors_without, recomputation_error, rescore
from pipelines.audit.subjects import EvaluationSettings, Subjects
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import RICH, build, write_split


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("onto"), RICH * 2)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    return build(tmp_path_factory.mktemp("flat"), RICH * 2, use_ontology=False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_hops": 1},
        {"use_ontology": False},
        {"part_of": False},
        {"flat_ancestors": True},
        {"shrinkage": 0.0},
        {"blocks": "1:2:1"},
        {"blocks": "1:0:3", "shrinkage": 1.0, "part_of": True},
    ],
)
def test_recomputed_factors_of_unhidden_images_are_the_stored_ones(
    tmp_path: Path, options: dict[str, object]
) -> None:
    assert recomputation_error(build(tmp_path, RICH, **options)) < 1e-6


def test_concepts_that_the_fit_split_never_saw_are_recomputed_as_stored(tmp_path: Path) -> None:
    for split, captions in {"train": RICH[:2], "dev": RICH, "test": RICH}.items():
        write_split(tmp_path / "data", split, captions)
    config = BuildConfig(
        dataset="demo", split="dev", data_root=tmp_path / "data", out=tmp_path / "out", workers=1
    )
    _, dev = build_data_set(config, lambda line: None)
    unseen = dev.concepts[dev.concepts["fit_covered"] == 0]
    assert unseen["ic"].nunique() > 2, "their places in the hierarchy differ"
    assert recomputation_error(dev) < 1e-6


def reference_ancestors(store: TargetStore) -> dict[str, set[str]]:
    parents: dict[str, list[str]] = {}
    for child, parent in zip(store.edges["child"], store.edges["parent"], strict=True):
        parents.setdefault(child, []).append(parent)
    closure = {}
    for cui in store.concepts["cui"]:
        reached, frontier = {cui}, [cui]
        while frontier:
            frontier = [up for node in frontier for up in parents.get(node, []) if up not in reached]
            reached.update(frontier)
        closure[cui] = reached
    return closure


def reference_vector(store: TargetStore, closure: dict[str, set[str]], cuis: set[str]) -> dict[str, float]:
    """K of an image that asserts ``cuis``, from the formula in docs/methods.md#ontology-scorer."""
    n = store.manifest["fit"]["captions"]
    counts = {row.cui: (row.fit_asserted, row.fit_covered) for row in store.concepts.itertuples()}
    total: Counter[str] = Counter()
    for cui in cuis:
        weights = {a: -math.log((counts[a][1] + 1) / (n + 1)) for a in closure[cui]}
        norm = math.sqrt(sum(w * w for w in weights.values()))
        idf = -math.log((counts[cui][0] + 1) / (n + 1))
        for a, w in weights.items():
            total[a] += idf * w / norm if norm else 0.0
    norm = math.sqrt(sum(w * w for w in total.values()) + store.manifest["config"]["shrinkage"] ** 2)
    return {a: w / norm for a, w in total.items()} if norm else {}


def other_images(store: TargetStore, row: int) -> Counter[str]:
    """How many images of other cases assert each concept."""
    count: Counter[str] = Counter()
    for other, cuis in enumerate(store.cuis):
        if store.group_ids[other] != store.group_ids[row]:
            count.update(cuis)
    return count


def reference_scores(
    store: TargetStore, kin: dict[str, set[str]], row: int, hidden: str, group: str, k: int
) -> dict[str, float]:
    """hit@m and MRR of one question, ties at the k-th place and among concepts in expectation."""
    closure = reference_ancestors(store)
    query = reference_vector(store, closure, set(store.cuis[row]) - kin[hidden])
    similarity = {}
    for other in range(len(store)):
        if store.group_ids[other] != store.group_ids[row]:
            vector = reference_vector(store, closure, set(store.cuis[other]))
            similarity[other] = sum(w * vector.get(a, 0.0) for a, w in query.items())
    cut = sorted(similarity.values(), reverse=True)[:k][-1]
    above = [j for j, s in similarity.items() if s > cut + 1e-6]
    tied = [j for j, s in similarity.items() if abs(s - cut) <= 1e-6]
    share = {**dict.fromkeys(above, 1.0), **dict.fromkeys(tied, (k - len(above)) / len(tied))}
    kinds = dict(zip(store.concepts["cui"], store.concepts["kind"], strict=True))
    used = {cui for cuis in store.cuis for cui in cuis if kinds[cui] in KIND_GROUPS[group]}
    votes = {
        cui: sum(similarity[j] * p for j, p in share.items() if cui in store.cuis[j])
        for cui in (used - set(store.cuis[row])) | {hidden}
    }
    frequency = other_images(store, row)
    rank = {cui: (round(v, 5), frequency[cui]) for cui, v in votes.items()}
    better = sum(value > rank[hidden] for value in rank.values())
    equal = sum(value == rank[hidden] for value in rank.values())
    places = range(better + 1, better + equal + 1)
    hits = {f"hit@{m}": sum(place <= m for place in places) / equal for m in (1, 5, 10)}
    return {**hits, "MRR": sum(1 / place for place in places) / equal}


@pytest.mark.parametrize("which", ["store", "flat"])
def test_recovery_equals_a_reference_written_from_the_formulas(
    which: str, request: pytest.FixtureRequest
) -> None:
    store: TargetStore = request.getfixturevalue(which)
    subjects = Subjects((store,))
    questions = recovery.hide_concepts(subjects, seed=0)
    [factors], reasons = factors_without([store], questions.taken)
    assert not reasons
    found = recovery.store_scores(store, factors, questions, subjects.cases, neighbors=4)
    closure = reference_ancestors(store)
    kin = {c: closure[c] | {d for d in closure if c in closure[d]} for c in closure}
    assert len(questions.rows) > 20
    for index in range(0, len(questions.rows), 3):
        row, hidden = int(questions.rows[index]), questions.cuis[questions.hidden[index]]
        expected = reference_scores(store, kin, row, hidden, questions.names[index], 4)
        assert {name: values[index] for name, values in found.items()} == pytest.approx(expected, abs=1e-6)


def test_every_question_hides_a_concept_with_its_ancestors_and_descendants_and_leaves_something(
    store: TargetStore, flat: TargetStore
) -> None:
    subjects = Subjects((flat, store))  # the kin are known to the second store only
    questions = recovery.hide_concepts(subjects, seed=0)
    closure = reference_ancestors(store)
    for index, cui in enumerate(questions.cuis):
        related = {questions.cuis[column] for column in questions.related[[index]].indices}
        assert related == closure[cui] | {other for other in closure if cui in closure[other]}
    concepts = flat.concepts["cui"].tolist()
    unit = rescore(flat, questions.taken)
    assert len(set(zip(questions.rows.tolist(), questions.names.tolist(), strict=True))) == len(
        questions.rows
    )
    for index, row in enumerate(questions.rows):
        hidden = questions.cuis[questions.hidden[index]]
        left = {concepts[column] for column in unit[[index]].indices}
        assert hidden in flat.cuis[row] and left and left < set(flat.cuis[row])
        assert not any(hidden in closure[other] or other in closure[hidden] for other in left)
        assert any(
            hidden in cuis and flat.group_ids[other] != flat.group_ids[row]
            for other, cuis in enumerate(flat.cuis)
        )


def test_a_concept_of_one_case_only_is_counted_and_not_asked_for(tmp_path: Path) -> None:
    captions = ["CT of the liver.", "CT of the liver.", "CT of the brain.", "MRI of the brain."]  # two cases
    questions = recovery.hide_concepts(Subjects((build(tmp_path, captions),)), seed=0)
    # Only CT occurs in both cases: liver, brain and MRI have nobody to vote for them.
    names = dict(zip(questions.rows.tolist(), questions.names.tolist(), strict=True))
    assert names == {0: "modality", 1: "modality", 2: "modality"} and questions.unanswerable == 5


def test_frequency_ranks_concepts_by_images_of_other_cases(store: TargetStore) -> None:
    subjects = Subjects((store,))
    questions = recovery.hide_concepts(subjects, seed=1)
    found = recovery.frequency_scores(questions, subjects.cases)
    kinds = dict(zip(store.concepts["cui"], store.concepts["kind"], strict=True))
    for index, row in enumerate(questions.rows):
        group, hidden = questions.names[index], questions.cuis[questions.hidden[index]]
        count = other_images(store, int(row))
        used = {cui for cuis in store.cuis for cui in cuis if kinds[cui] in KIND_GROUPS[group]}
        rivals = [count[cui] for cui in used - set(store.cuis[row])]
        better, tied = (
            sum(n > count[hidden] for n in rivals),
            1 + sum(n == count[hidden] for n in rivals),
        )
        expected = sum(1 / place for place in range(better + 1, better + tied + 1)) / tied
        assert found["MRR"][index] == pytest.approx(expected)


def test_a_store_that_knows_nothing_scores_what_frequency_does(tmp_path: Path) -> None:
    subjects = Subjects((build(tmp_path, RICH, scorer="identity"),))
    questions = recovery.hide_concepts(subjects, seed=0)
    [factors], _ = factors_without(subjects.stores, questions.taken)
    found = recovery.store_scores(subjects.reference, factors, questions, subjects.cases, neighbors=5)
    baseline = recovery.frequency_scores(questions, subjects.cases)
    assert all(np.array_equal(found[name], baseline[name]) for name in baseline)


def test_stores_that_do_not_derive_from_concepts_keep_their_factors(tmp_path: Path) -> None:
    noise = build(tmp_path, RICH, scorer="noise")
    questions = recovery.hide_concepts(Subjects((noise,)), seed=0)
    [factors], reasons = factors_without([noise], questions.taken)
    assert np.array_equal(factors, noise.factors[questions.rows])
    assert reasons == {0: "not derived from the image's own concepts"}


def test_factors_that_cannot_be_recomputed_leave_the_section_out(
    store: TargetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(store.manifest, "fit", {"split": "train", "captions": 9999})
    section = recovery.recovery_section(Subjects((store,)), EvaluationSettings())
    assert section.table is None and "left out" in section.lines[0] and "differ" in section.lines[0]
