"""Ranking beside teacher forcing of every candidate by itself, in float64: the same log-likelihoods, less work."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.med_vqa.answer.fakes import CANDIDATES, QUESTIONS, answers, one_thread, tiny_med_vqa
from training.errors import CheckpointError, ConfigError, DataError
from training.med_vqa.answer import Answerer, modes, ranking
from training.med_vqa.model.modeling import Encoded
from training.med_vqa.model.saving import MedVQA

__all__ = ["one_thread"]  # a fixture that pytest finds here


@pytest.fixture(scope="module")
def expected(med_vqa: MedVQA, images: Tensor) -> Tensor:
    """log p of each candidate by teacher forcing, one question and one candidate at a time, float64 [B, C]."""
    model: Any = copy.deepcopy(med_vqa.model).double()
    tokenizer: Any = med_vqa.tokenizer
    known = tokenizer(CANDIDATES, add_special_tokens=False, return_tensors="pt", padding=True)
    rows = []
    with torch.no_grad():
        knowledge = model.knowledge(known["input_ids"], known["attention_mask"])
        for image, question in zip(images, QUESTIONS, strict=True):
            asked = tokenizer([question], return_tensors="pt")
            encoded = model.encode(
                model.image_tokens(image[None].double()),
                asked["input_ids"],
                asked["attention_mask"],
                knowledge,
            )
            rows.append([_flat_one(model, tokenizer, encoded, candidate) for candidate in CANDIDATES])
    return torch.tensor(rows, dtype=torch.float64)


def _flat_one(model: Any, tokenizer: Any, encoded: Encoded, candidate: str) -> float:
    ids = tokenizer([candidate], return_tensors="pt")["input_ids"]  # [CLS] … [SEP]
    log_probs = model.decode(ids[:, :-1], encoded)[0].log_softmax(dim=-1)
    return sum(float(log_probs[place, token]) for place, token in enumerate(ids[0, 1:].tolist()))


def scores(answerer: Answerer, images: Tensor, texts: list[str], **options: Any) -> Tensor:
    """What the answerer says of each candidate, [B, C]."""
    found = answerer.answer(images, QUESTIONS, top=len(texts), **options)
    by_text = [{one.text: one.log_likelihood for one in row} for row in found]
    return torch.tensor([[row[text] for text in texts] for row in by_text], dtype=torch.float64)


@pytest.mark.parametrize("chunk", [1, 3, 256])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_log_likelihoods_are_those_of_teacher_forcing(
    med_vqa: MedVQA, images: Tensor, expected: Tensor, chunk: int, batch: int
) -> None:
    found = scores(Answerer(med_vqa, answers(), chunk=chunk, batch=batch), images, CANDIDATES)
    assert torch.allclose(found, expected, rtol=0, atol=1e-4)
    double = MedVQA(copy.deepcopy(med_vqa.model).double(), med_vqa.tokenizer)
    found = scores(Answerer(double, answers(), chunk=chunk, batch=batch), images.double(), CANDIDATES)
    assert torch.allclose(found, expected, rtol=0, atol=1e-9)


def test_words_scored_in_small_slices_are_scored_alike(
    med_vqa: MedVQA, images: Tensor, expected: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "SLICE", 1)
    held, plain = set[tuple[int, ...]](), ranking._widened

    def watched(logits: Tensor) -> Tensor:
        held.add(tuple(logits.shape[:2]))
        return plain(logits)

    monkeypatch.setattr(ranking, "_widened", watched)
    assert torch.allclose(scores(Answerer(med_vqa, answers()), images, CANDIDATES), expected, atol=1e-4)
    assert held == {(len(QUESTIONS), 1)}  # of every question, one position's scores at a time


def test_probabilities_are_over_the_candidates_and_sum_to_one(med_vqa: MedVQA, images: Tensor) -> None:
    for row in Answerer(med_vqa, answers()).answer(images, QUESTIONS, top=99):
        assert len(row) == len(CANDIDATES) and math.isclose(
            sum(one.probability for one in row), 1, abs_tol=1e-5
        )
        assert [one.probability for one in row] == sorted((one.probability for one in row), reverse=True)


def test_one_candidate_is_certain(med_vqa: MedVQA, images: Tensor) -> None:
    for mode in ("exact", "winner", "shortlist"):
        (only,) = Answerer(med_vqa, answers(["left lung"])).answer(images[:1], ["where"], mode=mode, top=5)[0]
        assert (only.text, only.probability) == ("left lung", 1.0)


def test_candidates_of_the_same_tokens_are_one_and_the_first_names_it(
    med_vqa: MedVQA, images: Tensor
) -> None:
    answerer = Answerer(med_vqa, answers(["no", "x-ray", "x - ray", "no"]))
    assert answerer.candidates.texts == ("no", "x-ray") and answerer.candidates.merged == {"x - ray": "x-ray"}
    found = answerer.answer(images, QUESTIONS, top=4)
    assert [sorted(one.text for one in row) for row in found] == [["no", "x-ray"]] * len(QUESTIONS)


def test_equally_likely_candidates_stand_in_their_order(med_vqa: MedVQA, images: Tensor) -> None:
    model = copy.deepcopy(med_vqa.model)
    for parameter in model.decoder.transform.parameters():
        parameter.data.zero_()  # every word is as likely as its bias says, and biases are zero
    listed = ["right", "no", "left lung", "yes", "axial ct", "left"]
    for mode in ("exact", "winner", "shortlist"):
        found = Answerer(MedVQA(model, med_vqa.tokenizer), answers(listed)).answer(
            images, QUESTIONS, mode=mode, top=9
        )
        assert [one.text for one in found[0]] == ["right", "no", "yes", "left", "left lung", "axial ct"]


@pytest.mark.parametrize("k", [1, 4, 9])
def test_a_short_list_holds_the_likeliest_first_tokens_and_scores_them_in_full(
    med_vqa: MedVQA, images: Tensor, k: int
) -> None:
    answerer = Answerer(med_vqa, answers())
    everything = scores(answerer, images, CANDIDATES)
    tokenizer: Any = med_vqa.tokenizer
    firsts = [tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in CANDIDATES]
    found = answerer.answer(images, QUESTIONS, mode="shortlist", k=k, top=99)
    for row, ranked in enumerate(found):
        first = _first_tokens(med_vqa, images[row], QUESTIONS[row])
        order = sorted(range(len(CANDIDATES)), key=lambda place: (-round(first[firsts[place]], 5), place))
        assert {one.text for one in ranked} == {CANDIDATES[place] for place in order[:k]}
        for one in ranked:
            assert math.isclose(one.log_likelihood, everything[row, CANDIDATES.index(one.text)], abs_tol=1e-4)
        assert math.isclose(sum(one.probability for one in ranked), 1, abs_tol=1e-5)


def _first_tokens(med_vqa: MedVQA, image: Tensor, question: str) -> list[float]:
    model, tokenizer = med_vqa.model, med_vqa.tokenizer
    known = tokenizer(CANDIDATES, add_special_tokens=False, return_tensors="pt", padding=True)
    asked = tokenizer([question], return_tensors="pt")
    with torch.no_grad():
        knowledge = model.knowledge(known["input_ids"], known["attention_mask"])
        encoded = model.encode(
            model.image_tokens(image[None]), asked["input_ids"], asked["attention_mask"], knowledge
        )
        start = torch.tensor([[tokenizer.cls_token_id]])
        log_probs: list[float] = model.decode(start, encoded)[0, -1].log_softmax(dim=-1).tolist()
    return log_probs


def test_a_short_list_of_all_is_the_exact_ranking(med_vqa: MedVQA, images: Tensor) -> None:
    answerer = Answerer(med_vqa, answers())
    expected = answerer.answer(images, QUESTIONS, top=99)
    for k in (len(CANDIDATES), 1000):
        assert answerer.answer(images, QUESTIONS, mode="shortlist", k=k, top=99) == expected


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "top"), [(1, 1), (2, 1), (4, 3), (9, 9), (3, 5), (99, 2)])
def test_the_winners_are_those_of_the_exact_ranking(
    tmp_path: Path, images: Tensor, seed: int, k: int, top: int
) -> None:
    answerer = Answerer(tiny_med_vqa(tmp_path, seed), answers())
    expected = answerer.answer(images, QUESTIONS, top=top)
    found = answerer.answer(images, QUESTIONS, mode="winner", k=k, top=top)
    assert [[one.text for one in row] for row in found] == [[one.text for one in row] for row in expected]
    pairs = [pair for rows in zip(found, expected, strict=True) for pair in zip(*rows, strict=True)]
    for one, other in pairs:
        assert math.isclose(one.log_likelihood, other.log_likelihood, abs_tol=1e-4)
        assert one.probability >= other.probability - 1e-5


@pytest.mark.parametrize("bias", [0.0, 60.0])
def test_in_bf16_the_winners_are_those_of_the_exact_ranking_up_to_its_rounding(
    tmp_path: Path, images: Tensor, bias: float
) -> None:
    for seed in range(2):
        med_vqa = tiny_med_vqa(tmp_path / str(seed), seed)
        med_vqa.model.decoder.bias.data += (
            bias  # changes no likelihood, but steps of bfloat16 at 60 are 0.25 nats
        )
        answerer = Answerer(med_vqa, answers(), precision="bf16")
        expected = answerer.answer(images, QUESTIONS, top=99)
        for k in (1, 4):
            found = answerer.answer(images, QUESTIONS, mode="winner", k=k)
            for (best,), row in zip(found, expected, strict=True):
                (ranked,) = (one.log_likelihood for one in row if one.text == best.text)
                assert ranked >= row[0].log_likelihood - max(0.01, bias / 128)


def test_doubt_grows_with_the_logits_in_low_precision_only() -> None:
    logits = torch.tensor([[60.0, -80.0], [1.0, 2.0]])
    assert modes._rounding(logits).tolist() == pytest.approx([0.1, 0.1])
    assert modes._rounding(logits.bfloat16()).tolist() == pytest.approx([4 * 80 / 128, 0.1])


def test_winners_that_the_bound_settles_cost_no_ranking_of_all(
    med_vqa: MedVQA, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sizes = copy.deepcopy(med_vqa.model), []
    model.decoder.bias.data[med_vqa.tokenizer.convert_tokens_to_ids("yes")] = 30.0  # sure of its first token
    model.decoder.bias.data[med_vqa.tokenizer.sep_token_id] = 40.0
    whole = ranking.Ranker.log_likelihoods

    def counted(self: ranking.Ranker, encoded: Any) -> Tensor:
        scores = whole(self, encoded)
        sizes.append(scores.shape[1])
        return scores

    monkeypatch.setattr(ranking.Ranker, "log_likelihoods", counted)
    found = Answerer(MedVQA(model, med_vqa.tokenizer), answers()).answer(
        images, QUESTIONS, mode="winner", k=2
    )
    assert [row[0].text for row in found] == ["yes"] * len(QUESTIONS) and set(sizes) == {2}


def test_candidates_without_room_in_the_short_list_are_the_last_of_their_first_token() -> None:
    first = torch.log(torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]))
    listed = ((1, 2), (2,), (0,), (2, 1), (2, 0))
    assert ranking.shortlist(first, listed, 2).tolist() == [[1, 3], [0, 2]]
    assert ranking.shortlist(first, listed, 4).tolist() == [[0, 1, 3, 4], [0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (["yes", "?!"], "candidate answer '?!' is empty after normalisation"),
        (["yes", "left " * 600], "tokens, the decoder reads"),
    ],
)
def test_an_impossible_candidate_is_told_on_one_line(
    med_vqa: MedVQA, listed: list[str], message: str
) -> None:
    with pytest.raises(DataError) as raised:
        Answerer(med_vqa, answers(listed, knowledge=[]))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_no_candidates_can_only_generate(med_vqa: MedVQA, images: Tensor) -> None:
    answerer = Answerer(med_vqa, answers([]))
    with pytest.raises(ConfigError, match="no candidate answers to rank"):
        answerer.answer(images, QUESTIONS)
    assert len(answerer.answer(images, QUESTIONS, mode="generate")) == len(QUESTIONS)


def test_weights_that_are_no_numbers_are_told(med_vqa: MedVQA, images: Tensor) -> None:
    broken = copy.deepcopy(med_vqa.model)
    broken.decoder.transform.dense.weight.data[0] = torch.nan
    answerer = Answerer(MedVQA(broken, med_vqa.tokenizer), answers())
    for mode in ("exact", "winner", "shortlist", "generate"):
        with pytest.raises(CheckpointError, match="not finite"):
            answerer.answer(images, QUESTIONS, mode=mode, k=3)
