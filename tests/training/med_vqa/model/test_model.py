"""The whole model: what a padded place, a mask, the knowledge and the encoder states may and may not change."""

import math

import pytest
import torch
from torch import Tensor

from tests.training.med_vqa import fakes as fakes
from training.errors import ConfigError, ShapeError
from training.med_vqa.model.modeling import Encoded, MedVQAModel, answer_loss

QUESTION = ("question_ids", "question_mask")


def encoded(model: MedVQAModel, batch: dict[str, Tensor], knowledge: bool = True) -> Encoded:
    words = model.knowledge(batch["knowledge_ids"], batch["knowledge_mask"]) if knowledge else None
    return model.encode(model.image_tokens(batch["images"]), *(batch[name] for name in QUESTION), words)


def test_states_are_the_question_first_and_then_the_image() -> None:
    model, batch = fakes.model(), fakes.batch()
    tokens = model.image_tokens(batch["images"])
    assert tokens.shape == (3, 5, 32)  # 2 × 2 patches and CLS
    found = encoded(model, batch)
    assert found.states.shape == (3, 6 + 5, 24) and len(found) == 3
    assert torch.equal(found.mask, torch.cat([batch["question_mask"], torch.ones(3, 5, dtype=torch.bool)], 1))


def test_padding_changes_nothing() -> None:
    model, batch = fakes.model(), fakes.batch()
    longer = dict(batch)
    for ids, mask in (QUESTION, ("answer_ids", "answer_mask"), ("knowledge_ids", "knowledge_mask")):
        more = fakes.ids(len(batch[ids]), 4, seed=9)
        longer[ids] = torch.cat([batch[ids], more], dim=1)
        longer[mask] = torch.cat([batch[mask], torch.zeros_like(more, dtype=torch.bool)], dim=1)
        at_padding = longer[ids].clone()
        at_padding[~longer[mask]] = fakes.FIRST_WORD
        longer[ids] = at_padding
    with torch.no_grad():
        short, long = model(**batch), model(**longer)
    torch.testing.assert_close(short["loss"], long["loss"], atol=1e-5, rtol=1e-5)
    real = batch["answer_mask"][:, 1:]
    torch.testing.assert_close(short["logits"][real], long["logits"][:, :4][real], atol=1e-4, rtol=1e-4)


def test_questions_do_not_see_one_another() -> None:
    model, batch = fakes.model(), fakes.batch()
    order = torch.tensor([2, 0, 1])
    moved = {name: value if "knowledge" in name else value[order] for name, value in batch.items()}
    with torch.no_grad():
        torch.testing.assert_close(model(**batch)["logits"][order], model(**moved)["logits"])


def test_a_question_without_a_token_gives_numbers_that_do_not_depend_on_it() -> None:
    model, batch = fakes.model(), fakes.batch()
    batch["question_mask"][1] = False
    other = batch | {"question_ids": batch["question_ids"].clone()}
    other["question_ids"][1] = fakes.ids(1, 6, seed=8)[0]
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    out = model(**batch)
    out["loss"].backward()
    assert torch.isfinite(out["logits"]).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        torch.testing.assert_close(model(**other)["logits"], out["logits"].detach())


def test_every_part_learns() -> None:
    model, batch = fakes.model(), fakes.batch()
    model(**batch)["loss"].backward()
    still = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # token_type 1, position embeddings behind the text, and the like, lie in tensors that others use; none is idle.
    # A key's bias moves every score of a row alike, which the softmax cannot see.
    assert not [name for name in still if not name.endswith((".key.bias", ".in_proj_bias"))]
    assert model.co_attention.modality.grad is not None
    assert (model.co_attention.modality.grad.abs().sum(dim=1) > 0).all()


def test_without_knowledge_the_gate_is_left_out() -> None:
    model, batch = fakes.model(), fakes.batch()
    states = encoded(model, batch).states
    without = encoded(model, batch, knowledge=False).states
    none_left = model.encode(
        model.image_tokens(batch["images"]), *(batch[name] for name in QUESTION), torch.empty(0, 24)
    )
    assert torch.equal(without, none_left.states) and not torch.allclose(states, without)
    words = model.knowledge(batch["knowledge_ids"], batch["knowledge_mask"])
    torch.testing.assert_close(states, model.gate(without, words))


def test_knowledge_is_the_mean_of_the_word_pieces() -> None:
    model, batch = fakes.model(), fakes.batch()
    batch["knowledge_mask"][3] = False  # an answer that normalises to nothing
    found = model.knowledge(batch["knowledge_ids"], batch["knowledge_mask"])
    table = model.text.embeddings.word_embeddings.weight
    first, second = batch["knowledge_ids"][2, :2].tolist()
    torch.testing.assert_close(found[2], model.knowledge_projection((table[first] + table[second]) / 2))
    torch.testing.assert_close(found[3], model.knowledge_projection(torch.zeros(32)))


def test_only_the_last_layers_of_the_decoder_see_the_encoder_states() -> None:
    model, batch = fakes.model(decoder=fakes.bert(16, 4), cross_attention_layers=2), fakes.batch()
    outputs: list[list[Tensor]] = [[], []]
    states = encoded(model, batch)
    for run, seen in enumerate((states, Encoded(states.states.flip(1) * 2, states.mask))):
        hooks = [
            layer.register_forward_hook(lambda *a, run=run: outputs[run].append(a[2]))
            for layer in model.decoder.layers
        ]
        model.decode(batch["answer_ids"], seen)
        for hook in hooks:
            hook.remove()
    same = [torch.equal(a, b) for a, b in zip(*outputs, strict=True)]
    assert same == [True, True, False, False]


def test_a_position_sees_what_is_before_it_only() -> None:
    model, batch = fakes.model(), fakes.batch()
    states, answers = encoded(model, batch), fakes.ids(3, 5, seed=6)
    other = answers.clone()
    other[:, 3:] = fakes.ids(3, 2, seed=7)
    with torch.no_grad():
        a, b = model.decode(answers, states), model.decode(other, states)
    torch.testing.assert_close(a[:, :3], b[:, :3])
    assert not torch.allclose(a[:, 3], b[:, 3])


def test_candidates_packed_as_a_trie_score_as_they_do_alone() -> None:
    model, batch = fakes.model(), fakes.batch()
    states = encoded(model, batch)
    first, second = torch.tensor([fakes.CLS, 7, 8, 9]), torch.tensor([fakes.CLS, 7, 11])
    #  0 [CLS] – 1 (7) – 2 (8) – 3 (9)
    #                  – 4 (11)
    tree = torch.tensor([fakes.CLS, 7, 8, 9, 11])
    parents = [-1, 0, 1, 2, 1]
    mask = torch.eye(5, dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node] |= mask[parent]
    positions = mask.sum(dim=1) - 1
    with torch.no_grad():
        memory = model.precompute_cross_attention_kv(states).memory
        packed, per_row = (
            model.decoder.scores(model.decoder(tree.expand(3, -1), seen, positions, memory, states.mask))
            for seen in (mask, mask.expand(3, -1, -1))
        )
        for candidate, nodes in ((first, [0, 1, 2, 3]), (second, [0, 1, 4])):
            alone = model.decode(candidate.expand(3, -1), states)
            torch.testing.assert_close(packed[:, nodes], alone, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(packed, per_row)


def test_rows_can_be_taken_from_what_is_encoded() -> None:
    model, batch = fakes.model(), fakes.batch()
    states = model.precompute_cross_attention_kv(encoded(model, batch))
    with torch.no_grad():
        whole = model.decode(batch["answer_ids"], states)
        torch.testing.assert_close(
            model.decode(batch["answer_ids"][1:], states.map(lambda rows: rows[1:])), whole[1:]
        )


def test_the_encoder_states_are_worked_on_once_per_question(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = fakes.model(), fakes.batch()
    states = model.precompute_cross_attention_kv(encoded(model, batch))
    monkeypatch.setattr(type(model.decoder), "memory", lambda *_: pytest.fail("computed again"))
    for _ in range(2):
        model.decode(batch["answer_ids"], states)


def test_the_loss_is_summed_over_tokens_and_averaged_over_answers() -> None:
    model, batch = fakes.model(), fakes.batch()
    out = model(**batch)
    total = 0.0
    for row, length in enumerate(batch["answer_mask"].sum(dim=1).tolist()):
        for t in range(length - 1):
            scores = out["logits"][row, t].double()
            total -= (scores[batch["answer_ids"][row, t + 1]] - scores.logsumexp(0)).item()
    assert out["loss"].item() == pytest.approx(total / 3, rel=1e-5)
    alone = model(**batch, with_logits=False)
    assert alone.keys() == {"loss"} and torch.equal(alone["loss"], out["loss"])
    even = answer_loss(torch.zeros(4, 8), torch.tensor([1, 2, 3, 4]), 2)
    assert even.item() == pytest.approx(2 * math.log(8))


def test_cached_image_tokens_are_the_image() -> None:
    model, batch = fakes.model(), fakes.batch()
    tokens = model.image_tokens(batch.pop("images"))
    with torch.no_grad():
        cached = model(image_tokens=tokens, **batch)
        torch.testing.assert_close(cached["logits"], model(images=fakes.batch()["images"], **batch)["logits"])


def test_bf16_autocast_is_finite_and_its_loss_float32() -> None:
    model, batch = fakes.model(), fakes.batch()
    batch["question_mask"][1] = False
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(**batch)
    out["loss"].backward()
    assert out["loss"].dtype == torch.float32 and torch.isfinite(out["logits"]).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_what_does_not_fit_is_told() -> None:
    model, batch = fakes.model(), fakes.batch()
    states = encoded(model, batch)
    with pytest.raises(ShapeError, match="3 rows of states and 2 of tokens"):
        model.decode(batch["answer_ids"][:2], states)
    with pytest.raises(ShapeError, match="an answer of 25 tokens, and the decoder has 24 positions"):
        model.decode(fakes.ids(3, 25), states)
    with pytest.raises(ShapeError, match="a question of 25 tokens, and the text encoder has 24 positions"):
        model.encode(model.image_tokens(batch["images"]), fakes.ids(3, 25), fakes.mask(25, 3, 4))
    with pytest.raises(ShapeError, match="either images or image_tokens"):
        model(**batch, image_tokens=model.image_tokens(batch["images"]))
    with pytest.raises(ShapeError, match="give question_ids"):
        model(images=batch["images"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decoder": fakes.bert(vocab_size=41)}, "text and decoder need one vocabulary: 40 and 41 words"),
        ({"cross_attention_layers": 4}, "cross_attention_layers: 4 must be at least 1 and at most 3"),
        ({"text": {}}, "text does not describe a BERT"),
        ({"clip": {"model_cfg": {"embed_dim": 8}}}, "clip does not describe an image tower"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MedVQAModel(fakes.config(**given))
