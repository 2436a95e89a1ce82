"""Fits: determinism, resumption, seeds, early stopping; and the vectors of images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kg_targets.errors import ConfigError  # noqa: E402
from kg_targets.transe.fit import fit  # noqa: E402
from kg_targets.transe.seed_fit import Callbacks, Evaluation  # noqa: E402
from kg_targets.transe.settings import TransESettings  # noqa: E402
from kg_targets.transe.triples import Triples  # noqa: E402
from tests.kg_targets.transe.graphs import clusters, graph_of  # noqa: E402

SETTINGS = TransESettings(dim=16, epochs=20, every=5, batch=32, seeds=2, holdout=0.1, device="cpu")
TRIPLES = Triples.of(clusters())


def test_a_fit_learns_the_graph() -> None:
    evaluations: list[Evaluation] = []
    fitted = fit(TRIPLES, SETTINGS, callbacks=Callbacks(evaluated=evaluations.append))
    assert [evaluation.epoch for evaluation in evaluations].count(5) == 2
    assert all(evaluation.mrr > 0.3 and evaluation.hits_at_10 > 0.7 for evaluation in fitted.evaluations)
    assert min(evaluation.loss for evaluation in evaluations if evaluation.epoch == 20) < min(
        evaluation.loss for evaluation in evaluations if evaluation.epoch == 5
    )
    images = fitted.table[: TRIPLES.images]
    np.testing.assert_allclose(np.linalg.norm(fitted.table[: TRIPLES.nodes], axis=1), 1.0, atol=1e-5)
    similarity, kind = images @ images.T, np.arange(TRIPLES.images) % 4
    same = kind[:, None] == kind[None]
    assert similarity[same].mean() > similarity[~same].mean() + 0.3


def test_the_same_seed_gives_the_same_bytes_whatever_runs_beside_it() -> None:
    first = fit(TRIPLES, SETTINGS, workers=1).table
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert fit(TRIPLES, SETTINGS, workers=2).table.tobytes() == first.tobytes()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert fit(TRIPLES, SETTINGS, seed=1).table.tobytes() != first.tobytes()


def test_similarities_of_several_seeds_are_the_mean_of_theirs() -> None:
    table = fit(TRIPLES, SETTINGS).table[: TRIPLES.nodes].astype(np.float64)
    each = [table[:, part] * np.sqrt(2) for part in (slice(0, 16), slice(16, 32))]
    np.testing.assert_allclose(each[0] @ each[0].T + each[1] @ each[1].T, 2 * table @ table.T, atol=1e-6)
    alone = fit(TRIPLES, replace(SETTINGS, seeds=1)).table[: TRIPLES.nodes]
    np.testing.assert_allclose(each[0], alone, atol=1e-6)
    assert not np.allclose(each[0], each[1], atol=0.1)


class KilledError(Exception):
    """What ends a fit in these tests."""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_fit_continues_and_ends_with_the_same_bytes(tmp_path: Path, workers: int) -> None:
    expected = fit(TRIPLES, SETTINGS).table
    steps = 0

    def kill(triples: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 100:
            raise KilledError

    with pytest.raises(KilledError):
        fit(TRIPLES, SETTINGS, state=tmp_path, workers=workers, callbacks=Callbacks(advance=kill))
    lines: list[str] = []
    advanced: list[int] = []
    callbacks = Callbacks(say=lines.append, advance=advanced.append)
    assert fit(TRIPLES, SETTINGS, state=tmp_path, callbacks=callbacks).table.tobytes() == expected.tobytes()
    assert "continues after epoch" in lines[0]
    fitted_on, _ = TRIPLES.hold_out(SETTINGS.holdout, 0)
    assert sum(advanced) == 2 * 20 * len(fitted_on)
    finished = fit(
        TRIPLES,
        SETTINGS,
        state=tmp_path,
        callbacks=Callbacks(evaluated=lambda evaluation: pytest.fail("fitted again")),
    )
    assert finished.table.tobytes() == expected.tobytes()


@pytest.mark.parametrize("harm", ["cut", "flipped", "other settings"])
def test_a_state_that_does_not_fit_is_told_and_not_used(tmp_path: Path, harm: str) -> None:
    fit(TRIPLES, replace(SETTINGS, seeds=1), state=tmp_path)
    file = tmp_path / "seed-0.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "cut":
        file.write_bytes(content[:-100])
    if harm == "flipped":
        content[-3] ^= 1
        file.write_bytes(content)
    settings = replace(SETTINGS, seeds=1, margin=4.0 if harm == "other settings" else 5.0)
    lines: list[str] = []
    table = fit(TRIPLES, settings, state=tmp_path, callbacks=Callbacks(say=lines.append)).table
    assert len(lines) == 1 and "the fit starts again" in lines[0]
    assert table.tobytes() == fit(TRIPLES, settings).table.tobytes()


def test_a_fit_without_progress_ends_early_with_its_best_vectors() -> None:
    evaluations: list[Evaluation] = []
    settings = replace(SETTINGS, seeds=1, epochs=400, every=2, patience=3)
    fitted = fit(TRIPLES, settings, callbacks=Callbacks(evaluated=evaluations.append))
    best = max(evaluations, key=lambda evaluation: evaluation.mrr)
    assert evaluations[-1].epoch < 400
    assert fitted.evaluations == [best] and evaluations[-1].epoch == best.epoch + 6
    until_best = fit(TRIPLES, replace(settings, epochs=best.epoch))
    assert until_best.table.tobytes() == fitted.table.tobytes()


def test_without_held_out_edges_the_last_epoch_counts() -> None:
    fitted = fit(Triples.of(graph_of([["C0000001"], ["C0000002"]], [])), replace(SETTINGS, seeds=1))
    assert fitted.evaluations[0].epoch == 20 and fitted.evaluations[0].mrr == 0.0


def test_a_missing_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no usable GPU"):
        fit(TRIPLES, replace(SETTINGS, device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_learns_as_well_as_a_cpu() -> None:
    on_gpu, on_cpu = (fit(TRIPLES, replace(SETTINGS, device=device)) for device in ("cuda", "cpu"))
    assert (
        min(evaluation.mrr for evaluation in on_gpu.evaluations)
        > min(evaluation.mrr for evaluation in on_cpu.evaluations) - 0.15
    )
