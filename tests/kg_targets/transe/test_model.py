"""The step against autograd and against a reference in plain float64 numpy."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kg_targets.transe.model import Batch, TransE  # noqa: E402
from kg_targets.transe.settings import TransESettings  # noqa: E402

NODES, RELATIONS, DIM, TRIPLES, NEGATIVES = 9, 2, 6, 14, 3


def table_and_batch(seed: int) -> tuple[torch.Tensor, Batch]:
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(NODES + RELATIONS, DIM, generator=generator, dtype=torch.float64)
    table[:NODES] = torch.nn.functional.normalize(table[:NODES])

    def draw(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator)

    batch = Batch(
        heads=draw(0, NODES, TRIPLES),
        relations=draw(NODES, NODES + RELATIONS, TRIPLES),
        tails=draw(0, NODES, TRIPLES),
        replaces_head=torch.rand(TRIPLES, NEGATIVES, generator=generator) < 0.5,
        negatives=draw(0, NODES, TRIPLES, NEGATIVES),
    )
    return table, batch


def loss_by_definition(table: torch.Tensor, batch: Batch, settings: TransESettings) -> torch.Tensor:
    """Mean of max(0, margin + D(h, r, t) − D(h′, r, t′)), each corrupted triple written out."""
    power = 1 if settings.norm == "l1" else 2

    def distance(h: torch.Tensor, r: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(table[h] + table[r] - table[t], ord=power, dim=-1)

    def wide(rows: torch.Tensor) -> torch.Tensor:
        return rows[:, None].expand(-1, NEGATIVES)

    side = batch.replaces_head
    heads = torch.where(side, batch.negatives, wide(batch.heads))
    tails = torch.where(side, wide(batch.tails), batch.negatives)
    true = distance(batch.heads, batch.relations, batch.tails)
    return (
        (settings.margin + true[:, None] - distance(heads, wide(batch.relations), tails)).clamp(min=0).mean()
    )


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("margin", [0.3, 5.0])
def test_gradients_in_closed_form_are_those_of_autograd(
    norm: str, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kg_targets.transe.model._BLOCK_FLOATS", 4 * NEGATIVES * DIM)  # several blocks
    settings = TransESettings(dim=DIM, norm=norm, margin=margin, negatives=NEGATIVES)
    for seed in range(5):
        table, batch = table_and_batch(seed)
        model = TransE(table.clone(), NODES, settings)
        loss = model.accumulate(batch)
        table.requires_grad_()
        expected = loss_by_definition(table, batch, settings)
        expected.backward()
        assert torch.isclose(loss, expected.detach(), rtol=1e-12)
        torch.testing.assert_close(model.gradient, table.grad, rtol=0, atol=1e-12)


def step_in_numpy(table: np.ndarray, batch: Batch, squares: np.ndarray, settings: TransESettings) -> None:
    """One step, triple by triple, with dense Adagrad; changes table and squares."""
    gradient = np.zeros_like(table)
    scale = 1.0 / (TRIPLES * NEGATIVES)

    def length_and_direction(x: np.ndarray) -> tuple[float, np.ndarray]:
        if settings.norm == "l1":
            return float(np.abs(x).sum()), np.sign(x)
        return float(np.sqrt((x * x).sum())), x / np.sqrt((x * x).sum())

    for i in range(TRIPLES):
        h, r, t = (int(rows[i]) for rows in (batch.heads, batch.relations, batch.tails))
        true, toward = length_and_direction(table[h] + table[r] - table[t])
        for node, replaces_head in zip(batch.negatives[i].tolist(), batch.replaces_head[i], strict=True):
            h2, t2 = (node, t) if replaces_head else (h, node)
            false, away = length_and_direction(table[h2] + table[r] - table[t2])
            if settings.margin + true - false > 0:
                for row, change in (
                    (h, toward),
                    (r, toward),
                    (t, -toward),
                    (h2, -away),
                    (r, -away),
                    (t2, away),
                ):
                    gradient[row] += scale * change
    squares += gradient**2
    table -= settings.lr * gradient / (np.sqrt(squares) + 1e-10)
    # a node that no gradient reaches is on the sphere already
    table[:NODES] /= np.linalg.norm(table[:NODES], axis=1, keepdims=True)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_three_steps_match_a_reference_in_numpy(norm: str) -> None:
    settings = TransESettings(dim=DIM, norm=norm, margin=2.0, negatives=NEGATIVES)
    table, _ = table_and_batch(0)
    expected, squares = table.numpy().copy(), np.zeros(tuple(table.shape))
    model = TransE(table.clone(), NODES, settings)
    for seed in (1, 2, 3):
        _, batch = table_and_batch(seed)
        model.step(batch)
        step_in_numpy(expected, batch, squares, settings)
        np.testing.assert_allclose(model.table.numpy(), expected, rtol=0, atol=1e-12)
    assert not model.gradient.any()


def test_rows_that_are_not_trainable_stay_as_they_are() -> None:
    table, batch = table_and_batch(0)
    model = TransE(table.clone(), NODES, TransESettings(dim=DIM, negatives=NEGATIVES), trainable=4)
    model.step(batch)
    assert torch.equal(model.table[4:], table[4:])
    assert not torch.equal(model.table[:4], table[:4])
    assert not model.gradient.any()
