"""The CUDA path of a fit on a device of its own: no mixed devices, no waits of the host inside a step, same vectors."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from kg_targets.transe import fit as fit_module  # noqa: E402
from kg_targets.transe.corruption import Corruption  # noqa: E402
from kg_targets.transe.fit import fit  # noqa: E402
from kg_targets.transe.model import Batch, TransE  # noqa: E402
from kg_targets.transe.placing import place  # noqa: E402
from kg_targets.transe.seed_fit import Callbacks  # noqa: E402
from kg_targets.transe.settings import TransESettings  # noqa: E402
from kg_targets.transe.triples import Triples  # noqa: E402
from tests.kg_targets.transe.graphs import clusters  # noqa: E402
from tests.training.fake_device import DEVICE, DeviceTensor, FakeDevice, fake_device  # noqa: E402
from tests.training.inline import Inline  # noqa: E402

SETTINGS = TransESettings(dim=16, epochs=4, every=2, batch=32, seeds=2, holdout=0.1, device="cpu")
ON_DEVICE = replace(SETTINGS, device="cuda")
TRIPLES = Triples.of(clusters())


class Generator(torch.Generator):
    """A generator that says it is the device's; its numbers are the CPU's."""

    def __new__(cls, device: object = "cpu") -> "Generator":
        made = super().__new__(cls, device="cpu")
        made.stated = torch.device(str(device), 0) if str(device) == "cuda" else torch.device(str(device))
        return made

    @property
    def device(self) -> torch.device:
        return self.stated


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(fit_module, "ThreadPoolExecutor", Inline)
    with fake_device(monkeypatch) as mode:
        yield mode


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_a_fit_makes_every_tensor_on_its_device_and_finds_what_the_cpu_finds(
    device: FakeDevice, norm: str
) -> None:
    on_cpu = fit(TRIPLES, replace(SETTINGS, norm=norm))
    on_device = fit(TRIPLES, replace(ON_DEVICE, norm=norm))
    assert (on_cpu.device, on_device.device) == ("cpu", "cuda")
    np.testing.assert_allclose(on_device.table, on_cpu.table, atol=1e-4)
    for one, other in zip(on_device.evaluations, on_cpu.evaluations, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4) and one.mrr == pytest.approx(
            other.mrr, abs=0.02
        )


def test_a_step_never_makes_the_host_wait(device: FakeDevice) -> None:
    generator = torch.Generator("cuda")
    edges = torch.from_numpy(TRIPLES.edges).to("cuda")
    relations = len(TRIPLES.relations)
    model = TransE.start(TRIPLES.nodes, relations, ON_DEVICE, generator)
    corruption = Corruption.fit(TRIPLES.edges, relations, TRIPLES.images, TRIPLES.nodes, ON_DEVICE, "cuda")
    assert isinstance(model.table, DeviceTensor) and model.table.device == DEVICE
    device.waits.clear()
    for _ in range(2):
        heads, kinds, tails = edges[:32].T.contiguous()
        corrupted = corruption.draw(kinds, 25, generator)
        model.step(Batch(heads, kinds + TRIPLES.nodes, tails, *corrupted))
    assert device.waits == []


def test_images_are_placed_on_the_device(device: FakeDevice) -> None:
    graph, vectors = clusters(), fit(TRIPLES, SETTINGS)
    concepts, relation = vectors.table[TRIPLES.concept_nodes], vectors.table[TRIPLES.nodes]
    placed = [
        place(graph.has_attribute, concepts, relation, settings, seed=0) for settings in (ON_DEVICE, SETTINGS)
    ]
    np.testing.assert_allclose(placed[0], placed[1], atol=1e-4)


def test_a_fit_on_the_device_continues_where_it_was_killed(device: FakeDevice, tmp_path: Path) -> None:
    expected, steps = fit(TRIPLES, ON_DEVICE).table, 0

    def kill(triples: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(TRIPLES, ON_DEVICE, state=tmp_path, callbacks=Callbacks(advance=kill))
    lines: list[str] = []
    again = fit(TRIPLES, ON_DEVICE, state=tmp_path, callbacks=Callbacks(say=lines.append))
    assert "continues after epoch" in lines[0]
    np.testing.assert_array_equal(again.table, expected)
