"""From store rows to targets and loss: the way ids and similarities travel through a step."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from kg_targets.store import TargetStore
from training.config import LossConfig, PolicyConfig
from training.errors import ConfigError
from training.nb_clip.losses import semantic_matching_loss
from training.nb_clip.targets import evidence_policy, pair_structure
from training.nb_clip.task import NBClipTask, TargetBuilder, case_codes


class FakeStore:
    """As much of a TargetStore as a step needs, with an asymmetric similarity as a teacher's would be."""

    path = "fake"
    threshold = 0.2

    def __init__(self, similarity: np.ndarray, known: list[bool], group_ids: list[str]) -> None:
        self.similarity = similarity.astype(np.float32)
        self.known = np.array(known)
        self.group_ids = group_ids

    def block(self, rows: Any, cols: Any = None) -> np.ndarray:
        return self.similarity[np.ix_(rows, rows if cols is None else cols)]


def fake_store(images: int = 10, cases: int = 8, unknown: tuple[int, ...] = (3,)) -> FakeStore:
    similarity = np.random.default_rng(0).uniform(0, 1, (images, images))
    np.fill_diagonal(similarity, 1)
    return FakeStore(
        similarity, [i not in unknown for i in range(images)], [f"case{i % cases}" for i in range(images)]
    )


def builder(store: FakeStore, loss: str = "semantic_matching", **policy: Any) -> TargetBuilder:
    return TargetBuilder(cast(TargetStore, store), LossConfig(name=loss), PolicyConfig(**policy))


def test_targets_follow_the_rows_of_the_batch_and_the_stores_threshold() -> None:
    store = fake_store(cases=10)
    rows = torch.tensor([7, 1, 9])
    targets = builder(store)(rows, rows, 0)
    block = torch.from_numpy(store.similarity[np.ix_([7, 1, 9], [7, 1, 9])])
    torch.testing.assert_close(targets.i2t, evidence_policy(block, store.threshold))
    torch.testing.assert_close(targets.t2i, evidence_policy(block.T, store.threshold))
    assert targets.mask is None


def test_a_later_process_gets_the_same_targets_as_its_rows_of_the_whole_batch() -> None:
    store = fake_store()
    everyone = torch.tensor([7, 1, 9, 3, 0, 8])
    whole = builder(store)(everyone, everyone, 0)
    part = builder(store)(everyone[3:], everyone, 3)
    torch.testing.assert_close(part.i2t, whole.i2t[3:])
    torch.testing.assert_close(part.t2i, whole.t2i[3:])
    assert whole.mask is not None and part.mask is not None
    assert torch.equal(part.mask, whole.mask[3:])


@pytest.mark.parametrize("loss", ["semantic_matching", "info_nce"])
def test_pairs_of_one_case_are_masked_in_every_method(loss: str) -> None:
    store = fake_store(cases=8)  # images 0 and 8 share a case, 1 and 9 too
    rows = torch.tensor([0, 8, 5])
    targets = builder(store, loss)(rows, rows, 0)
    assert targets.mask is not None
    assert targets.mask.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert targets.i2t[0, 1] == 0 and targets.t2i[1, 0] == 0


def test_info_nce_does_not_ask_the_store_for_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    store = fake_store()
    monkeypatch.setattr(store, "block", None)
    targets = builder(store, "info_nce")(torch.tensor([2, 4]), torch.tensor([2, 4]), 0)
    assert torch.equal(targets.i2t, torch.eye(2))


def test_images_without_a_case_id_are_cases_of_their_own() -> None:
    assert case_codes(["a", "", "a", ""]).tolist() == [2, 0, 2, 1]


def test_a_threshold_that_leaves_no_room_is_an_error() -> None:
    store = fake_store()
    store.threshold = 1.0
    with pytest.raises(ConfigError, match=r"policy\.threshold"):
        builder(store)
    builder(store, threshold=0.3)
    builder(store, "info_nce")


class Passthrough(nn.Module):
    """Returns its inputs as features."""

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        return {"image_features": image, "text_features": text, "logit_scale": torch.tensor(5.0)}


def test_step_scores_the_policy_targets_and_reports_what_they_are_like() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    store = fake_store(cases=10)
    task = NBClipTask(builder(store), LossConfig(), Accelerator())
    generator = torch.Generator().manual_seed(0)
    image, text = (nn.functional.normalize(torch.randn(4, 6, generator=generator), dim=-1) for _ in range(2))
    rows = torch.tensor([5, 3, 2, 6])
    loss, values = task.step(Passthrough(), image, text, rows)
    block = torch.from_numpy(store.block(rows.numpy()))
    known = torch.from_numpy(store.known)[rows]
    pairs = pair_structure(block, 0, known, known)
    i2t, t2i = (evidence_policy(s, store.threshold, pairs=pairs) for s in (block, block.T))
    expected = semantic_matching_loss(5 * image @ text.T, 5 * text @ image.T, i2t, t2i)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert values["diagonal"].item() == pytest.approx(
        (i2t.diagonal().mean() + t2i.diagonal().mean()).item() / 2
    )
    assert values["kl"] <= values["loss"] and values["positives"] >= 1 and values["entropy"] >= 0
