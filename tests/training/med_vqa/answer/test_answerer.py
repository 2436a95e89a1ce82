"""The answerer: what is computed how often, what it leaves as it was, free generation, and impossible requests."""

import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.training.med_vqa.answer.fakes import CANDIDATES, QUESTIONS, answers, one_thread
from training.errors import ConfigError, ShapeError
from training.med_vqa.answer import MODES, Answerer
from training.med_vqa.answer.modes import generate
from training.med_vqa.model.saving import MedVQA

__all__ = ["one_thread"]  # a fixture that pytest finds here


def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Rows that went through parts of the model."""
    rows: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def counting(first: Tensor, *others: Any, **named: Any) -> Any:
            rows[name] += len(first)
            return plain(first, *others, **named)

        monkeypatch.setattr(owner, name, counting)

    for name in ("image_tokens", "knowledge", "encode"):
        count(model, name)
    count(model.decoder, "memory")
    return rows


def test_images_questions_and_knowledge_are_encoded_once(
    med_vqa: MedVQA, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = Answerer(med_vqa, answers(), batch=2, chunk=3)
    rows = counted(med_vqa.model, monkeypatch)
    read: list[str] = []

    def reading(name: str) -> Tensor:
        read.append(name)
        return images[int(name)]

    found = dict(answerer.answer_about(["1", "0", "1", "1", "0"], QUESTIONS, reading))
    assert read == ["1", "0"] and sorted(found) == [0, 1, 2, 3, 4]
    assert rows == {"image_tokens": 2, "knowledge": len(CANDIDATES), "encode": 5, "memory": 5}
    expected = answerer.answer(images[[1, 0, 1, 1, 0]], QUESTIONS)
    assert [found[row][0].text for row in range(5)] == [row[0].text for row in expected]


def test_every_mode_answers_alike_twice_and_one_by_one(med_vqa: MedVQA, images: Tensor) -> None:
    answerer = Answerer(med_vqa, answers(), batch=3)
    for mode in MODES:
        first = answerer.answer(images, QUESTIONS, mode=mode, k=4, top=3)
        assert answerer.answer(images, QUESTIONS, mode=mode, k=4, top=3) == first
        for row, question in enumerate(QUESTIONS):
            (alone,) = answerer.answer(images[row : row + 1], [question], mode=mode, k=4, top=3)
            assert [one.text for one in alone] == [one.text for one in first[row]]
            for one, other in zip(alone, first[row], strict=True):
                assert math.isclose(one.log_likelihood, other.log_likelihood, abs_tol=1e-4)


def test_a_model_in_training_is_asked_in_eval_mode_and_left_in_training(
    med_vqa: MedVQA, images: Tensor
) -> None:
    model = copy.deepcopy(med_vqa.model)
    answerer = Answerer(MedVQA(model, med_vqa.tokenizer), answers())
    expected = answerer.answer(images, QUESTIONS)
    model.train()
    assert answerer.answer(images, QUESTIONS) == expected
    assert model.training and model.decoder.training
    model.decoder.bias.data[7] += 5.0  # and what it learns meanwhile is seen: token 7 is "left"
    assert answerer.answer(images, QUESTIONS)[0][0].text == "left" != expected[0][0].text


def test_bf16_is_close_and_repeatable(med_vqa: MedVQA, images: Tensor) -> None:
    plain = Answerer(med_vqa, answers()).answer(images, QUESTIONS, top=99)
    mixed = Answerer(med_vqa, answers(), precision="bf16")
    found = mixed.answer(images, QUESTIONS, top=99)
    assert mixed.answer(images, QUESTIONS, top=99) == found
    for row, other in zip(found, plain, strict=True):
        exact = {one.text: one.log_likelihood for one in other}
        assert all(abs(one.log_likelihood - exact[one.text]) < 0.5 for one in row)
        assert math.isclose(sum(one.probability for one in row), 1, abs_tol=1e-5)


def test_images_of_any_size_are_preprocessed(med_vqa: MedVQA) -> None:
    answerer = Answerer(med_vqa, answers())
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8))
    pictures = [grey, grey.convert("RGB"), grey.resize((32, 32))]
    found = answerer.answer(pictures, QUESTIONS[:3])
    assert found == answerer.answer(
        torch.stack([answerer.preprocess(one) for one in pictures]), QUESTIONS[:3]
    )
    (grey_alone,), (coloured,) = (answerer.answer([one], ["where"]) for one in pictures[:2])
    assert grey_alone == coloured


def test_generation_takes_the_likeliest_token_at_each_step(med_vqa: MedVQA, images: Tensor) -> None:
    tokenizer: Any = med_vqa.tokenizer
    forbidden = [token for token in tokenizer.all_special_ids if token != tokenizer.sep_token_id]
    asked = tokenizer(QUESTIONS, return_tensors="pt", padding=True)
    with torch.no_grad():
        tokens = med_vqa.model.image_tokens(images)
        encoded = med_vqa.model.encode(tokens, asked["input_ids"], asked["attention_mask"])
    for longest in (1, 4, 20):
        found, likelihoods = generate(
            med_vqa.model, encoded, tokenizer.cls_token_id, tokenizer.sep_token_id, forbidden, longest
        )
        for row, token_ids in enumerate(found):
            words, likelihood, ended = [tokenizer.cls_token_id], 0.0, False
            while not ended and len(words) <= longest + 1:
                with torch.no_grad():
                    alone = encoded.map(lambda part, row=row: part[row : row + 1])
                    log_probs = med_vqa.model.decode(torch.tensor([words]), alone)[0, -1].log_softmax(-1)
                ranked = log_probs.argsort(descending=True).tolist()
                barred = {*forbidden, *([tokenizer.sep_token_id] if len(words) == 1 else [])}
                chosen = next(token for token in ranked if token not in barred)
                ended = chosen == tokenizer.sep_token_id
                if ended or len(words) <= longest:
                    likelihood += float(log_probs[chosen])
                words.append(chosen)
            assert token_ids == tuple(words[1 : longest + 1] if not ended else words[1:-1])
            assert math.isclose(float(likelihoods[row]), likelihood, abs_tol=1e-4)


def test_generation_ends_and_writes_candidates_as_they_are_written(med_vqa: MedVQA, images: Tensor) -> None:
    model = copy.deepcopy(med_vqa.model)
    model.decoder.transform.dense.weight.data.zero_()
    tokenizer: Any = med_vqa.tokenizer
    model.decoder.bias.data[tokenizer.convert_tokens_to_ids("ray")] = 50.0
    model.decoder.bias.data[tokenizer.sep_token_id] = 60.0
    for listed, text in ((["Ray"], "Ray"), (["yes"], "ray")):
        found = Answerer(MedVQA(model, tokenizer), answers(listed)).answer(images, QUESTIONS, mode="generate")
        assert [[one.text for one in row] for row in found] == [[text]] * len(QUESTIONS)
        assert all(
            math.isclose(row[0].probability, math.exp(row[0].log_likelihood), rel_tol=1e-6) for row in found
        )


def test_a_long_question_loses_its_end_and_an_empty_one_is_answered(med_vqa: MedVQA, images: Tensor) -> None:
    answerer = Answerer(med_vqa, answers())
    asked = answerer.tokens(["left " * 1000, "", "where"])
    assert asked.truncated == 1 and asked.ids.shape[1] == 64 and int(asked.ids[0, 63]) == 3
    long, short = answerer.answer(images[:2], ["left " * 1000, "left " * 62])
    assert math.isfinite(long[0].log_likelihood) and math.isfinite(short[0].log_likelihood)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "beam"}, 'mode: "beam" is not one of exact, winner, shortlist, generate'),
        ({"mode": "shortlist", "k": 0}, "k: 0 must be at least 1"),
        ({"top": 0}, "top: 0 must be at least 1"),
    ],
)
def test_impossible_options_are_told(
    med_vqa: MedVQA, images: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Answerer(med_vqa, answers()).answer(images, QUESTIONS, **options)


def test_every_question_needs_its_image(med_vqa: MedVQA, images: Tensor) -> None:
    answerer = Answerer(med_vqa, answers())
    with pytest.raises(ShapeError, match="5 questions and 2 images"):
        answerer.answer(images[:2], QUESTIONS)
    with pytest.raises(ShapeError, match="5 questions and 0 images"):
        answerer.answer(None, QUESTIONS)
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        Answerer(med_vqa, answers(), precision="fp16")
