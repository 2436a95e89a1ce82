"""Two real processes (gloo) get, for every contrastive term, the gradient that one process gets on the whole batch.

Run by pytest, this file computes the single process's gradients and starts itself twice under torchrun; each of those
processes writes what it got to ``rankN.pt``.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from kg_targets.losses.contrastive import gather_features
from kg_targets.losses.policies import evidence_policy, pair_structure
from tests.processes import run_in_two_processes
from training.engine.process import end_process
from training.med_vqa.pretrain.losses import hard_negatives, soft_contrastive_loss
from training.med_vqa.pretrain.soft_labels import teacher_targets

BATCH, WIDTH, TOLERANCE = 8, 12, 1e-5

Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int], Tensor]

pytestmark = pytest.mark.e2e


class Towers(nn.Module):
    """Features of two views and of a text encoded twice, and three temperatures; everything is used in every term."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(WIDTH, 6), nn.Linear(WIDTH, 6)
        self.log_temperature = nn.Parameter(torch.full((3,), -2.0))

    def forward(self, view: Tensor, other: Tensor, text: Tensor, again: Tensor) -> tuple[Tensor, ...]:
        """Unit features ``[B_local, 6]`` of each, and the temperatures ``[3]``."""
        features = (self.image(view), self.image(other), self.text(text), self.text(again))
        return *(nn.functional.normalize(part, dim=-1) for part in features), self.log_temperature.exp()


def soft_labels(offset: int, rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """A teacher's asymmetric similarities mixed with the graph's, without two pairs of one case; and their mask."""
    generator = torch.Generator().manual_seed(seed)
    block = (torch.rand(BATCH, BATCH, generator=generator) * 8)[offset : offset + rows]
    mask = torch.zeros(BATCH, BATCH, dtype=torch.bool)
    mask[1, 6] = mask[6, 1] = True
    mask = mask[offset : offset + rows]
    graph = evidence_policy(block / 8, 0.4, pairs=pair_structure(block, offset, excluded=mask))
    return (2.0 * teacher_targets(block, offset, 0.5, mask=mask) + graph) / 3.0, mask


def term(name: str, features: tuple[Tensor, ...], offset: int) -> Tensor:
    """One symmetric contrastive term of this process's rows; what it does not use enters with weight 0."""
    view, other, text, again, temperatures = features
    (all_view, all_text), (all_other, all_again) = gather_features(view, text), gather_features(other, again)
    sides = {
        "image_text": (view, all_text, text, all_view),
        "views": (view, all_other, other, all_view),
        "texts": (text, all_again, again, all_text),
    }
    rows, columns, rows_back, columns_back = sides[name]
    temperature = temperatures[list(sides).index(name)]
    loss = torch.zeros(())
    for seed, (one, others) in enumerate(((rows, columns), (rows_back, columns_back))):
        targets, mask = soft_labels(offset, len(one), seed)
        loss = loss + 0.5 * soft_contrastive_loss(one, others, targets, temperature, offset, mask)
    unused = torch.stack([all_view.sum(), all_other.sum(), all_text.sum(), all_again.sum()])
    return loss + 0 * (unused.sum() + temperatures.sum())


TERMS = ("image_text", "views", "texts")


def gradients(rank: int, processes: int) -> dict[str, dict[str, Tensor]]:
    """Of each term, by parameter; and the hard negatives of this process's rows."""
    share = BATCH // processes
    mine = slice(rank * share, (rank + 1) * share)
    inputs = torch.randn(4, BATCH, WIDTH, generator=torch.Generator().manual_seed(1))
    towers = Towers()
    model = DistributedDataParallel(towers) if processes > 1 else towers
    result = {}
    for name in TERMS:
        model.zero_grad()
        term(name, model(*inputs[:, mine]), mine.start).backward()  # type: ignore[no-untyped-call]
        result[name] = {key: p.grad.clone() for key, p in towers.named_parameters() if p.grad is not None}
    with torch.no_grad():
        view, _, text, _, _ = towers(*inputs)
        targets, mask = soft_labels(mine.start, share, 0)
        generator = torch.Generator().manual_seed(2)
        index, has = hard_negatives(
            view[mine] @ text.T / 0.1, targets, mine.start, generator, match_share=0.9, mask=mask
        )
    return {**result, "negatives": {"index": index, "has": has}}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("two_processes")
    run_in_two_processes(__file__, folder, timeout=120)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", TERMS)
def test_two_processes_get_the_gradient_of_one_on_the_whole_batch(
    name: str, ranks: list[dict[str, dict[str, Tensor]]]
) -> None:
    expected = gradients(0, 1)[name]
    norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    assert norm > 0.01
    for result in ranks:
        assert result[name].keys() == expected.keys()
        for key, gradient in expected.items():
            assert (result[name][key] - gradient).norm() <= TOLERANCE * norm, key


def test_a_gather_that_drops_the_gradient_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the features as columns: without it the gradient of the same loss is a different one."""
    expected = gradients(0, 1)["image_text"]
    monkeypatch.setitem(globals(), "gather_features", lambda *parts: [part.detach() for part in parts])
    lost = gradients(0, 1)["image_text"]
    assert (lost["image.weight"] - expected["image.weight"]).norm() > 0.1 * expected["image.weight"].norm()


def test_processes_with_equal_generators_draw_the_negatives_of_one_process(
    ranks: list[dict[str, dict[str, Tensor]]],
) -> None:
    alone = gradients(0, 1)["negatives"]
    for key, expected in alone.items():
        assert torch.cat([result["negatives"][key] for result in ranks]).tolist() == expected.tolist()
    assert alone["has"].any()


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    place = distributed.get_rank()
    torch.save(gradients(place, distributed.get_world_size()), Path(sys.argv[1]) / f"rank{place}.pt")
    end_process(0)
