"""The model of pre-training: which part learns when, what negatives and empty captions do to the terms, heads."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tests.training.med_vqa import fakes as fakes
from training.errors import CheckpointError
from training.med_vqa.model.build import build_med_vqa
from training.med_vqa.model.config import VQAModelConfig
from training.med_vqa.model.history import (
    PRETRAINING,
    Pretraining,
    PretrainingRecord,
    TrainingHistory,
    read_pretraining,
)
from training.med_vqa.model.saving import MedVQA, load_med_vqa
from training.med_vqa.pretrain import objective
from training.med_vqa.pretrain.config import (
    PretrainConfig,
    PretrainDataConfig,
    PretrainLossConfig,
    PretrainModelConfig,
)
from training.med_vqa.pretrain.model import length_groups
from training.med_vqa.pretrain.objective import PretrainingStep, balanced_accuracy
from training.med_vqa.pretrain.saving import HEADS, save_pretrained, take_heads
from training.med_vqa.pretrain.selection import Selector, ranks
from training.med_vqa.pretrain.soft_labels import StepTargets

ITEMS = 5
SEEN = Pretraining("one", "tiny", "train", "f", images=20, dev_images=4, excluded=())


def config(stage: str = "two", **given: object) -> PretrainConfig:
    loss = PretrainLossConfig(**given)  # type: ignore[arg-type]
    data = PretrainDataConfig(store="s", data_root="d")
    model = PretrainModelConfig(preset="tiny", dropout=0.0, init_from="x" if stage == "two" else None)
    return PretrainConfig(output="o", stage=stage, model=model, data=data, loss=loss)


@pytest.fixture
def vqa(tmp_path: Path) -> MedVQA:
    return fakes.built(tmp_path / "bert", dropout=0.0)


def made(vqa: MedVQA, stage: str = "two", **given: object) -> PretrainingStep:
    torch.manual_seed(1)
    return PretrainingStep(config(stage, **given), vqa.model).train()


def seen(*lengths: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 12, (1, len(lengths), max(lengths)), generator=generator)
    images = torch.randn(2, len(lengths), 3, 32, 32, generator=generator)
    return {"images": images, "text_ids": ids, "text_mask": fakes.mask(*lengths)[None]}


def targets(count: int = ITEMS, soft: float = 0.0, mask: Tensor | None = None) -> StepTargets:
    hard = fakes.hard_targets(count, count, 0)
    block = (1 - soft) * hard + soft / count
    return StepTargets(block, block, block, block, block, mask)


def step(
    model: PretrainingStep, what: dict[str, Tensor], wanted: StepTargets, seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return model(**what, targets=wanted, offset=0, words_of_all=what["text_mask"][0], generator=generator)


def learning(model: PretrainingStep) -> set[str]:
    return {".".join(name.split(".")[:2]) for name, value in model.named_parameters() if value.requires_grad}


def reached(model: PretrainingStep) -> set[str]:
    return {
        ".".join(name.split(".")[:2])
        for name, value in model.named_parameters()
        if value.grad is not None and value.grad.abs().sum() > 0
    }


@pytest.mark.parametrize("stage", ["one", "two"])
def test_each_stage_trains_its_parts_and_every_one_of_them_gets_a_gradient(stage: str, vqa: MedVQA) -> None:
    model = made(vqa, stage)
    towers = {"vqa.vision", "vqa.text"}
    shared = {"vqa.image_projection", "vqa.text_projection", "heads.image", "heads.text"}
    expected = shared | (towers if stage == "one" else {"vqa.co_attention", "heads.matching"})
    assert learning(model) == expected
    step(model, seen(6, 4, 5, 3, 6), targets())["loss"].backward()
    assert reached(model) == expected
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
    assert model.vqa.vision.training == model.vqa.text.training == (stage == "one")


def test_switches_leave_terms_and_their_parts_out(vqa: MedVQA) -> None:
    alone = made(vqa, "one", views_weight=0.0, texts_weight=0.0)
    values = step(alone, seen(6, 4, 5, 3, 6), targets())
    assert set(values) == {"loss", "image_text"} and torch.equal(values["loss"], values["image_text"])
    model = made(vqa, matching_weight=0.0, learn_temperatures=True, texts_weight=0.0)
    values = step(model, seen(6, 4, 5, 3, 6), targets())
    assert "matching" not in values and "heads.matching" not in learning(model)
    assert {name for name, value in model.heads.log_taus.items() if value.requires_grad} == {
        "image_text",
        "views",
    }
    weighed = values["image_text"] + values["views"] + 3.0 * values["transport"]
    torch.testing.assert_close(values["loss"], weighed)


def test_a_frozen_text_encoder_is_asked_once_and_dropout_before_the_head_makes_the_second_text(
    vqa: MedVQA,
) -> None:
    model = made(vqa)
    encoded = model.encode(**seen(6, 4, 5, 3, 6))
    assert torch.equal(*encoded.texts)
    model.heads.dropout.p = 0.5
    torch.manual_seed(0)
    first, second = model.encode(**seen(6, 4, 5, 3, 6)).texts
    assert not torch.allclose(first, second)


def test_words_do_not_depend_on_the_group_that_they_are_encoded_in(vqa: MedVQA) -> None:
    model, what = made(vqa), seen(6, 2, 5, 3, 6)
    together = model.words(what["text_ids"][0], what["text_mask"][0])
    for row, length in enumerate((6, 2, 5, 3, 6)):
        alone = model.words(
            what["text_ids"][0, row : row + 1, :length], what["text_mask"][0, row : row + 1, :length]
        )
        torch.testing.assert_close(together[row, :length], alone[0])
        assert not together[row, length:].any()
    groups = length_groups(what["text_mask"][0])
    assert sorted(torch.cat([index for index, _ in groups]).tolist()) == list(range(5))
    assert [longest for _, longest in groups] == sorted(longest for _, longest in groups)


def test_a_batch_whose_every_pair_is_a_match_has_no_negative_and_no_nan(vqa: MedVQA) -> None:
    model = made(vqa)
    everything = ~torch.eye(ITEMS, dtype=torch.bool)
    for wanted in (targets(soft=1.0), targets(mask=everything)):
        values = step(model, seen(6, 4, 5, 3, 6), wanted)
        assert values["no_negative"] == 1 and all(torch.isfinite(value).all() for value in values.values())
        values["loss"].backward()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    assert values["image_text"] == 0


def test_captions_of_nothing_are_skipped_by_transport_and_matching(vqa: MedVQA) -> None:
    model = made(vqa)
    for lengths in ((6, 2, 5, 0, 6), (2, 2, 2, 2, 2), (2, 1)):
        what = seen(*lengths)
        values = step(model, what, targets(len(lengths)))
        assert all(torch.isfinite(value).all() for value in values.values())
        values["loss"].backward()
        if max(lengths) == 2:
            assert values["transport"] == 0 and values["matching"] == 0


def test_one_pair_alone_teaches_nothing_and_breaks_nothing(vqa: MedVQA) -> None:
    values = step(made(vqa), seen(5), targets(1))
    assert values["image_text"] == values["views"] == values["texts"] == 0 and values["no_negative"] == 1
    assert torch.isfinite(values["loss"])


def test_matching_is_learnt_from_negatives_that_change_at_every_step(vqa: MedVQA) -> None:
    model, what = made(vqa, transport_weight=0.0, views_weight=0.0, texts_weight=0.0), seen(6, 4, 5, 3, 6)
    learning = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=3e-3)
    for seed in range(200):
        values = step(model, what, targets(), seed)
        learning.zero_grad()
        values["loss"].backward()
        learning.step()
    assert values["matching_accuracy"] == 1 and values["matching"] < 0.1


def test_always_the_same_answer_is_right_half_of_the_time() -> None:
    labels = torch.tensor([1, 0, 0, 1, 0, 0])
    assert balanced_accuracy(torch.zeros_like(labels), labels) == 0.5
    assert balanced_accuracy(torch.ones_like(labels), labels) == 0.5
    assert balanced_accuracy(labels, labels) == 1.0
    assert balanced_accuracy(torch.tensor([1, 0, 0, 0, 1, 0]), labels) == pytest.approx((0.5 + 0.75) / 2)
    assert balanced_accuracy(labels[:1], labels[:1]) == 0.5


def test_negatives_are_drawn_at_the_temperature_that_is_set(
    vqa: MedVQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_by: list[Tensor] = []
    true = objective.hard_negatives
    monkeypatch.setattr(
        objective, "hard_negatives", lambda logits, *rest: (seen_by.append(logits), true(logits, *rest))[1]
    )
    for tau in (None, 7.0):
        step(made(vqa, mining_tau=tau), seen(6, 4, 5, 3, 6), targets())
    torch.testing.assert_close(seen_by[0] * 0.07, seen_by[2] * 7.0)


def test_without_matching_only_true_pairs_are_fused_and_nothing_is_drawn(
    vqa: MedVQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, fused = made(vqa, matching_weight=0.0), []
    true = model.fuse
    monkeypatch.setattr(model, "fuse", lambda words, *rest: (fused.append(len(words)), true(words, *rest))[1])
    monkeypatch.setattr(objective, "hard_negatives", lambda *_: pytest.fail("drawn"))
    values = step(model, seen(6, 4, 5, 3, 6), targets())
    assert sum(fused) == ITEMS and values["transport"] > 0
    assert not {"matching", "matching_accuracy", "no_negative"} & set(values)


def test_a_negative_text_brings_its_own_mask(vqa: MedVQA, monkeypatch: pytest.MonkeyPatch) -> None:
    """AMiF's code keeps the positive's."""
    model, lengths, rows = made(vqa), (6, 4, 5, 3, 6), 0
    true = model.fuse

    def fuse(words: Tensor, mask: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal rows
        rows += len(words)
        assert torch.equal(words.abs().sum(dim=-1) > 0, mask)  # states are zero at padded places
        return true(words, mask, images)

    monkeypatch.setattr(model, "fuse", fuse)
    step(model, seen(*lengths), targets())
    assert rows == 3 * ITEMS


def test_negatives_are_a_function_of_the_generator_alone(vqa: MedVQA) -> None:
    model, what = made(vqa).eval(), seen(6, 4, 5, 3, 6)
    first, again, other = (step(model, what, targets(), seed)["matching"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_learnt_temperatures_stay_within_bounds(vqa: MedVQA) -> None:
    model = made(vqa, learn_temperatures=True)
    for value in model.heads.log_taus.values():
        value.data.fill_(-50.0)
    model.heads.clamp()
    assert model.heads.tau("views").item() == pytest.approx(0.01)


def test_ranks_count_ties_half_and_only_rivals() -> None:
    scores = torch.tensor([[1.0, 2.0, 0.0], [5.0, 5.0, -torch.inf], [1.0, 1.0, 1.0]])
    assert ranks(scores, torch.arange(3)).tolist() == [2.0, 1.5, 2.0]
    assert ranks(scores[1:], torch.tensor([1, 2])).tolist() == [1.5, 2.0]


def test_the_selector_leaves_captions_of_the_same_case_out_and_asks_the_matching_head_in_stage_two(
    vqa: MedVQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = SimpleNamespace(
        batch=lambda rows: (fakes.ids(4, 5, 3) % 7 + 5, fakes.mask(5, 5, 5, 5)), __len__=lambda: 4
    )

    class Captions:
        def __len__(self) -> int:
            return 4

        batch = staticmethod(captions.batch)

    features = torch.eye(4)
    monkeypatch.setattr(PretrainingStep, "image_features", lambda self, tokens: features)
    shifted = features[[1, 0, 3, 2]]
    monkeypatch.setattr(PretrainingStep, "text_features", lambda self, words: shifted)
    tokens = torch.zeros(4, 5, vqa.model.vision.width)
    apart, together = (Selector(cases, Captions()) for cases in ([0, 1, 2, 3], [0, 0, 1, 1]))  # type: ignore[arg-type]
    one = made(vqa, "one")

    def score(select: Selector, model: PretrainingStep) -> float:
        return float(select(model, tokens, torch.arange(4)).mean())

    assert score(apart, one) == pytest.approx(1 / 3) and score(together, one) == pytest.approx(1 / 2)

    def fuse(
        self: PretrainingStep, words: Tensor, mask: Tensor, images: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return words, images, torch.zeros(len(words), 2)

    monkeypatch.setattr(PretrainingStep, "fuse", fuse)
    assert score(apart, made(vqa)) == pytest.approx(1 / 2.5)  # all four are tied behind the matching head


def test_heads_and_model_are_taken_over_and_what_does_not_fit_is_named(vqa: MedVQA, tmp_path: Path) -> None:
    one = made(vqa, "one", tau_views=0.5)
    save_pretrained(tmp_path / "one", one, vqa, SEEN, TrainingHistory())
    start = tmp_path / "one"
    record = read_pretraining(start)
    assert record is not None
    parts = record.trained
    assert parts == ("vision", "text", "image_projection", "text_projection")
    two = made(vqa)
    take_heads(two, start)
    assert torch.equal(two.heads.image.weight, one.heads.image.weight)
    assert two.heads.tau("views").item() == pytest.approx(0.07)
    bert = str(tmp_path / "bert")
    fresh = build_med_vqa(VQAModelConfig(preset="tiny", text=bert, init_from=str(tmp_path / "one")))
    for name in parts:
        for ours, theirs in zip(
            getattr(fresh.model, name).parameters(), getattr(vqa.model, name).parameters(), strict=True
        ):
            assert torch.equal(ours, theirs)
    for given, message in (
        ({"hidden_size": 48}, "its hidden_size is 32, that of this model 48"),
        ({"text_layers": 1}, r"its text\.num_hidden_layers is 2, that of this model 1"),
        ({"image_size": 48}, r"its clip\.model_cfg\.vision_cfg\.image_size is 32, that of this model 48"),
    ):
        with pytest.raises(CheckpointError, match=message):
            build_med_vqa(
                replace(VQAModelConfig(preset="tiny", text=bert, init_from=str(tmp_path / "one")), **given)  # type: ignore[arg-type]
            )
    (tmp_path / "one" / PRETRAINING).rename(tmp_path / PRETRAINING)
    # As a fine-tuned model has no record.
    assert read_pretraining(start) is None
    assert {"co_attention", "gate", "knowledge_projection"} < set(PretrainingRecord().trained)
    whole = build_med_vqa(VQAModelConfig(preset="tiny", text=bert, init_from=str(start)))
    assert torch.equal(whole.model.gate.gate.weight, vqa.model.gate.gate.weight)
    (tmp_path / PRETRAINING).rename(tmp_path / "one" / PRETRAINING)
    (tmp_path / "one" / HEADS).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match=f"{HEADS} is damaged"):
        take_heads(made(vqa), start)
    assert load_med_vqa(tmp_path / "one").model


def test_another_vocabulary_is_refused(vqa: MedVQA, tmp_path: Path) -> None:
    save_pretrained(tmp_path / "one", made(vqa, "one"), vqa, SEEN, TrainingHistory())
    vocabulary = (tmp_path / "bert" / "vocab.txt").read_text().replace("chest", "knee")
    (tmp_path / "bert" / "vocab.txt").write_text(vocabulary)
    with pytest.raises(CheckpointError, match="its words are not those of this model's tokenizer"):
        build_med_vqa(
            VQAModelConfig(preset="tiny", text=str(tmp_path / "bert"), init_from=str(tmp_path / "one"))
        )
