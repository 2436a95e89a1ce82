"""Factors without hidden concepts are those of captions that do not name them, for every scorer of the image's own."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from kg_targets.errors import KGTargetsError
from kg_targets.store import TargetStore
from kg_targets.store.factors import dense_matrix, sparse_matrix
from pipelines.audit.recovery import hide_concepts, recovery_section
from pipelines.audit.rescoring import Hidden, captions_without, factors_without, recomputation_error, rescore
from pipelines.audit.subjects import EvaluationSettings, Subjects
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import RICH, build, write_split

TRANSE = {"scorer": "transe", "scorer_options": "dim=8,epochs=4,every=2,seeds=2,batch=16,device=cpu"}


def with_dev(folder: Path, name: str, captions: list[str], **options: object) -> list[TargetStore]:
    """Stores of train and dev, the latter of the captions given."""
    write_split(folder / "data", "train", RICH)
    write_split(folder / "data", "dev", captions)
    config = BuildConfig("demo", data_root=folder / "data", out=folder / name, workers=1, **options)
    return build_data_set(config, lambda line: None)


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hidden, list[str]]:
    """One question for each image and group of concepts, and the captions that are left."""
    store = build(tmp_path_factory.mktemp("hidden"), RICH)
    questions = hide_concepts(Subjects((store,)), seed=0).taken
    return questions, captions_without(store, questions)


def by_cui(store: TargetStore, factors: sparse.csr_array, cuis: list[str]) -> np.ndarray:
    columns = {cui: place for place, cui in enumerate(store.concepts["cui"])}
    wide = np.zeros((factors.shape[0], len(cuis)))
    for place, cui in enumerate(cuis):
        if cui in columns:
            wide[:, place] = factors[:, [columns[cui]]].toarray().ravel()
    return wide


def test_words_that_name_what_is_hidden_are_cut_out_of_captions(hidden: tuple[Hidden, list[str]]) -> None:
    taken, texts = hidden
    assert [text for row, text in zip(taken.rows, texts, strict=True) if row == 0] == [
        "Chest  showing a right pleural effusion.",
        " radiograph showing a right pleural effusion.",
        "Chest radiograph showing a right .",
    ]
    full = [RICH[row] for row in taken.rows]
    assert all(len(text) < len(whole) for text, whole in zip(texts, full, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"shrinkage": 0.0, "blocks": "1:2:1"}, TRANSE], ids=["ontology", "blocks", "transe"]
)
def test_hidden_concepts_give_the_factors_of_captions_that_do_not_name_them(
    tmp_path: Path, hidden: tuple[Hidden, list[str]], options: dict[str, object]
) -> None:
    if "scorer" in options:
        pytest.importorskip("torch")
    taken, texts = hidden
    train, dev = with_dev(tmp_path, "out", texts, **options)
    found, expected = rescore(train, taken), dev.factors
    left = [
        set(train.cuis[row]) - {taken.cuis[c] for c in taken.taken[[i]].indices}
        for i, row in enumerate(taken.rows)
    ]
    same = [set(own) == kept for own, kept in zip(dev.cuis, left, strict=True)]
    assert sum(same) > 0.9 * len(same)  # in words without their neighbours other concepts may be read
    if sparse.issparse(found):
        cuis = sorted({*train.concepts["cui"], *dev.concepts["cui"]})
        found, expected = by_cui(train, found, cuis), by_cui(dev, expected, cuis)
    np.testing.assert_allclose(found[same], expected[same], atol=2e-6)
    assert recomputation_error(train) < 1e-6
    # The other split's store finds what was fitted beside it.
    assert recomputation_error(dev) < 1e-6


def test_an_encoder_reads_the_caption_that_is_left_and_a_mixture_is_put_together(
    tmp_path: Path, hidden: tuple[Hidden, list[str]]
) -> None:
    pytest.importorskip("transformers")
    from tests.training.teachers.test_sentence import write_sentence_encoder

    taken, texts = hidden
    write_sentence_encoder(tmp_path / "encoder")
    embedding = {"scorer": "embedding", "scorer_options": f"encoder=sentence:{tmp_path / 'encoder'}"}
    words, words_left = with_dev(tmp_path, "words", texts, **embedding)
    assert recomputation_error(words) < 1e-5
    np.testing.assert_allclose(rescore(words, taken), words_left.factors, atol=1e-5)

    knows = with_dev(tmp_path, "knows", texts)[0]
    config = BuildConfig(
        "demo", split="train", data_root=tmp_path / "data", out=tmp_path / "both", workers=1, scorer="mixture",
        mix=f"{tmp_path / 'knows'}|{tmp_path / 'words'}", mix_weights="1,3",
    )  # fmt: skip
    [both] = build_data_set(config, lambda line: None)
    factors, reasons = factors_without([both, knows, words], taken)
    assert not reasons
    narrow, wide = sparse_matrix(factors[0]), dense_matrix(factors[0])
    assert narrow is not None and wide is not None
    np.testing.assert_allclose(narrow.toarray(), factors[1].toarray() * 0.5, atol=1e-6)
    np.testing.assert_allclose(wide, factors[2] * np.sqrt(0.75), atol=1e-6)
    # Without one of its parts, its stored neighbours vote, and that is told.
    factors, reasons = factors_without([both, knows], taken)
    assert "parts are not all among these stores" in reasons[0]
    assert np.array_equal(dense_matrix(factors[0]), dense_matrix(both.factors[taken.rows]))


def test_images_placed_anew_are_not_compared_with_those_of_the_fit(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    options = {**TRANSE, "scorer_options": TRANSE["scorer_options"] + ",mode=transductive"}
    store = build(tmp_path, RICH, **options)
    questions = hide_concepts(Subjects((store,)), seed=0).taken
    assert recomputation_error(store) == 0.0
    lengths = np.linalg.norm(rescore(store, questions), axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


def test_vectors_that_saw_the_hidden_edges_are_told(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    stores = with_dev(tmp_path, "out", list(RICH), **TRANSE)
    told = [
        [
            line
            for line in recovery_section(Subjects((store,)), EvaluationSettings(bootstrap=100)).lines
            if "fitted on" in line
        ]
        for store in stores
    ]
    assert told == [["[1]: fitted on these images, hidden concepts included: look at another split"], []]


def test_a_fit_that_is_gone_or_another_is_one_line(tmp_path: Path, hidden: tuple[Hidden, list[str]]) -> None:
    pytest.importorskip("torch")
    _, dev = with_dev(tmp_path, "out", list(RICH), **TRANSE)
    dev.manifest["inputs"]["fitted_on"] = "another"
    with pytest.raises(KGTargetsError, match="is not the store that it was fitted on"):
        rescore(dev, hidden[0])
    (tmp_path / "out" / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(KGTargetsError, match="is not a target store"):
        rescore(dev, hidden[0])
