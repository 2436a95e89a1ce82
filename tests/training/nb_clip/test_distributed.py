"""Two real processes (gloo) take the step that one process takes on the same batch, through the project's own code.

Run by pytest, this file computes the single process's gradients and starts itself twice under torchrun; each of
those processes writes what it saw and what it got to ``rankN.pt``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kg_targets.losses import chunked
from kg_targets.losses.contrastive import gather_rows
from kg_targets.losses.registry import LOSSES
from tests.processes import run_in_two_processes
from tests.training.nb_clip.fakes import FakeStore
from training.clip.load import load_clip
from training.engine.process import end_process
from training.errors import ShapeError
from training.nb_clip.batch_targets import TargetBuilder, Targets
from training.nb_clip.config import LossConfig, PolicyConfig
from training.nb_clip.objective import NBClipObjective
from training.run import main as run

BATCHES = ([4, 11, 0, 7, 9, 3, 1, 8], [2, 5, 10, 6, 8, 0, 11, 3])
"""Store rows of two global batches of eight. Images 0 & 8, 1 & 9, 2 & 10, 3 & 11 share a case, mostly across ranks."""
TOLERANCE = 1e-5

pytestmark = pytest.mark.e2e


class RecordingBuilder(TargetBuilder):
    """The target builder, remembering what it was asked for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.calls: list[tuple[list[int], list[int], int]] = []

    def __call__(self, rows_local: Tensor, rows_global: Tensor, offset: int, *arguments: Any) -> Targets:
        self.calls.append((rows_local.tolist(), rows_global.tolist(), offset))
        return super().__call__(rows_local, rows_global, offset, *arguments)


def asymmetric_store() -> FakeStore:
    """Twelve images of eight cases, two of them unknown, with S_ij ≠ S_ji as a teacher's would be."""
    similarity = np.random.default_rng(0).uniform(-0.2, 1, (12, 12))
    np.fill_diagonal(similarity, 1)
    return FakeStore(
        similarity, [row not in (3, 6) for row in range(12)], [f"case{row % 8}" for row in range(12)]
    )


EXCLUDING = ("info_nce", "semantic_matching")


def gradients(
    accelerator: Accelerator, loss: str, micro_batch: int | None = None, exclude: float | None = None
) -> tuple[list[dict[str, Tensor]], list[Any]]:
    """This process's gradients after each of the two batches, and what its target builder was asked for.

    The second batch matters: only there does DDP complain about a parameter that got no gradient before.
    """
    torch.manual_seed(0)
    config = LossConfig(name=loss, micro_batch=micro_batch, exclude_related=exclude)
    clip = load_clip("test-vit", logit_bias=-3.0 if LOSSES[loss].biased else None)
    builder = RecordingBuilder(asymmetric_store(), config, PolicyConfig())
    task = NBClipObjective(config, accelerator)
    task.freeze_unused(clip.model)
    model: nn.Module = accelerator.prepare(clip.model)
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(12, 3, 32, 32, generator=generator)
    tokens = torch.randint(1, 49_000, (12, 24), generator=generator)
    collected = []
    for batch in BATCHES:
        share = len(batch) // accelerator.num_processes
        rows = torch.tensor(batch[accelerator.process_index * share :][:share])
        offset = share * accelerator.process_index
        targets = builder.by_rows(rows, gather_rows(rows, share, accelerator.device), offset, 0.1)
        model.zero_grad()
        pixels = images[rows]
        task.backward(
            model, lambda start, stop, pixels=pixels: pixels[start:stop], tokens[rows], targets, offset
        )
        parameters = accelerator.unwrap_model(model).named_parameters()
        collected.append({name: p.grad.clone() for name, p in parameters if p.grad is not None})
    return collected, builder.calls


def run_arguments(folder: Path) -> list[str]:
    """A training run of two steps whose loss has a parameter of its own."""
    return [
        f"--data.train_store={folder / 'train'}", f"--data.data_root={folder / 'data'}",
        f"--output={folder / 'run'}", "--model.name=test-vit", "--data.batch_size=8", "--optim.max_steps=2",
        "--log.trackers=none", "--loss.name=sigmoid", "--loss.init_bias=-7",
    ]  # fmt: skip


def work(folder: Path) -> None:
    """What each process under torchrun does."""
    accelerator = Accelerator()
    result: dict[str, Any] = {
        name: gradients(accelerator, loss, micro_batch)
        for loss in LOSSES
        for name, micro_batch in ((loss, None), (f"{loss} in micro-batches", 2))
    }
    result |= {f"{loss}, excluding": gradients(accelerator, loss, exclude=0.6) for loss in EXCLUDING}
    chunked.rows_at_once = lambda *_: 3  # of four
    result |= {f"{loss} in chunks": gradients(accelerator, loss) for loss in LOSSES}
    try:
        gather_rows(torch.arange(3 + accelerator.process_index), 4, accelerator.device)
    except ShapeError as error:
        result["unequal"] = str(error)
    torch.save(result, folder / f"rank{accelerator.process_index}.pt")
    end_process(run(run_arguments(folder)))


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have worked: one launch, since most of its time is for imports."""
    from tests.training.tiny import write_store

    folder = tmp_path_factory.mktemp("two_processes")
    write_store(folder / "train", folder / "data", "train")
    run_in_two_processes(__file__, folder, timeout=120)
    return folder


@pytest.fixture(scope="module")
def ranks(launched: Path) -> list[dict[str, Any]]:
    """What rank 0 and rank 1 wrote."""
    return [torch.load(launched / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("loss", LOSSES)
def test_every_process_sees_all_ids_in_rank_order_and_its_own_offset(
    loss: str, ranks: list[dict[str, Any]]
) -> None:
    for rank, result in enumerate(ranks):
        _, calls = result[loss]
        assert [tuple(call) for call in calls] == [
            (batch[4 * rank :][:4], batch, 4 * rank) for batch in BATCHES
        ]


@pytest.mark.parametrize("loss", EXCLUDING)
def test_excluded_pairs_change_the_gradient(loss: str) -> None:
    plain, excluding = (
        gradients(Accelerator(cpu=True), loss, exclude=exclude)[0][0] for exclude in (None, 0.6)
    )
    assert max((plain[name] - excluding[name]).abs().max().item() for name in plain) > 1e-3


@pytest.mark.parametrize(
    ("loss", "passes"),
    [
        *((loss, passes) for loss in LOSSES for passes in ("", " in micro-batches", " in chunks")),
        *((loss, ", excluding") for loss in EXCLUDING),
    ],
)
def test_two_processes_get_the_gradient_of_one_on_the_whole_batch(
    loss: str, passes: str, ranks: list[dict[str, Any]]
) -> None:
    alone, _ = gradients(Accelerator(cpu=True), loss, exclude=0.6 if "excluding" in passes else None)
    for result in ranks:
        assert_gradients(result[loss + passes][0], alone)


def assert_gradients(found: list[dict[str, Tensor]], alone: list[dict[str, Tensor]]) -> None:
    """Those of several processes after each batch are those of one, to TOLERANCE."""
    for actual, expected in zip(found, alone, strict=True):
        norm = torch.cat([gradient.flatten() for gradient in expected.values()]).norm().item()
        assert actual.keys() == expected.keys()
        total = torch.cat([(actual[name] - expected[name]).flatten() for name in expected]).norm().item()
        assert total <= TOLERANCE * norm
        for name, gradient in expected.items():
            # A parameter whose gradient is but rounding (a key bias, say) is held to the whole gradient's size.
            size = max(gradient.norm().item(), 1e-2 * norm)
            assert (actual[name] - gradient).norm().item() <= TOLERANCE * size, name


def test_unequal_shares_of_a_batch_are_an_error_on_every_process(ranks: list[dict[str, Any]]) -> None:
    for result in ranks:
        assert result["unequal"].startswith("the processes hold 3, 4 images of this batch, not 4 each")


def test_a_run_of_two_processes_saves_the_learnt_bias_of_the_sigmoid_loss_for_open_clip(
    launched: Path,
) -> None:
    model = open_clip.create_model(f"local-dir:{launched / 'run' / 'checkpoint'}")
    assert model.logit_bias.item() == pytest.approx(-7, abs=0.1) and model.logit_bias.item() != -7
    (line, *_) = (launched / "run" / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["logit_bias"] == -7


if __name__ == "__main__":
    work(Path(sys.argv[1]))
