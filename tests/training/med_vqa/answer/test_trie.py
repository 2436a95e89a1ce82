"""Candidates as a tree, and the tree in sequences: every prefix once, every edge scored once, nothing else seen."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.med_vqa.answer.ranking import Pack, Trie, pack

START, END = 90, 91
SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=30)


def prefixes(sequences: list[list[int]]) -> set[tuple[int, ...]]:
    return {tuple(sequence[:length]) for sequence in sequences for length in range(len(sequence) + 1)}


def path(trie: Trie, node: int) -> tuple[int, ...]:
    """The tokens that lead to a node, the root's left out."""
    return tuple(int(trie.tokens[one]) for one in [*trie.ancestors(node), node][1:])


@given(SEQUENCES)
def test_the_tree_holds_every_prefix_once_and_in_preorder(sequences: list[list[int]]) -> None:
    trie = Trie.of(sequences, START)
    paths = [path(trie, node) for node in range(len(trie))]
    assert len(set(paths)) == len(paths) and set(paths) == prefixes(sequences)
    assert [paths[end] for end in trie.ends] == [tuple(sequence) for sequence in sequences]
    assert trie.depths.tolist() == [len(one) for one in paths]
    for node, one in enumerate(paths):
        below = [other for other, two in enumerate(paths) if two[: len(one)] == one]
        assert below == list(range(node, trie.subtree_ends[node]))
    assert sorted(np.concatenate([[0], *trie.levels]).tolist()) == list(range(len(trie)))


@given(SEQUENCES, st.integers(1, 12))
def test_every_prefix_is_one_pack_s_own_and_sees_its_ancestors_only(
    sequences: list[list[int]], chunk: int
) -> None:
    trie = Trie.of(sequences, START)
    packs = pack(trie, END, chunk)
    deepest = int(trie.depths.max())
    assert sum(one.own for one in packs) == len(trie)
    assert all(len(one.tokens) <= max(chunk, deepest + 1) for one in packs)
    seen = []
    for one in packs:
        for row in range(len(one.tokens)):
            read = [int(one.tokens[column]) for column in np.flatnonzero(one.mask[row])]
            places = [int(one.positions[column]) for column in np.flatnonzero(one.mask[row])]
            assert read[0] == START and places == list(range(len(read)))
            if row >= len(one.tokens) - one.own:
                seen.append(tuple(read[1:]))
    assert seen == [path(trie, node) for node in range(len(trie))]


@given(SEQUENCES, st.integers(1, 12))
def test_every_continuation_is_scored_once_where_its_prefix_is_at_home(
    sequences: list[list[int]], chunk: int
) -> None:
    trie = Trie.of(sequences, START)
    expected = {(one[:-1], one[-1]) for one in prefixes(sequences) if one}
    expected |= {(tuple(one), END) for one in sequences}
    found, places, first = [], [], 0
    for one in pack(trie, END, chunk):
        assert (np.diff(one.rows) >= 0).all()
        for row, token, place in zip(one.rows, one.continuations, one.places, strict=True):
            found.append((path(trie, first + int(row)), int(token)))
            node = int(place) if token != END else int(place) - len(trie)
            assert path(trie, node) == (*found[-1][0], *([int(token)] if token != END else []))
        places.extend(one.places.tolist())
        first += one.own
    assert len(found) == len(expected) and set(found) == expected
    assert len(set(places)) == len(places)


def test_one_candidate_is_a_chain() -> None:
    (only,) = pack(Trie.of([[5, 6]], START), END)
    assert isinstance(only, Pack) and only.tokens.tolist() == [START, 5, 6] and only.own == 3
    assert only.positions.tolist() == [0, 1, 2] and (only.mask == np.tri(3, dtype=bool)).all()
    assert only.continuations.tolist() == [5, 6, END]


def test_ten_thousand_candidates_stay_in_sequences_of_the_size_asked_for() -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.integers(0, 1000, rng.integers(1, 8)).tolist() for _ in range(10_000)]
    trie = Trie.of(sequences, START)
    packs = pack(trie, END)
    assert max(len(one.tokens) for one in packs) <= 256
    assert sum(len(one.tokens) for one in packs) < 1.05 * len(trie)
