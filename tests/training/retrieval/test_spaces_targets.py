"""What a store's targets are like in batches: diagonal, entropy, relatives, and where soft mass goes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kg_targets.store import TargetStore
from tests.training.engine.test_runs import write_store
from training.config import TrainConfig
from training.data.config import DataConfig
from training.errors import ConfigError
from training.nb_clip.config import LossConfig, PolicyConfig
from training.retrieval.spaces.targets import CONCEPTS, coverage, default_policy, softness


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TargetStore:
    """Sixteen images, two a case and four of each finding; the last one without concepts."""
    folder = tmp_path_factory.mktemp("store")
    return TargetStore.open(write_store(folder / "train", folder / "data", "train"))


def config(**policy: object) -> TrainConfig:
    return TrainConfig(
        output="out",
        data=DataConfig(train_store="train", data_root="data", batch_size=16),
        policy=PolicyConfig(**policy),  # type: ignore[arg-type]
    )


def test_coverage_counts_images_concepts_and_similarities(store: TargetStore) -> None:
    found = coverage(store)
    assert (found.images, found.cases, found.known) == (16, 8, 15 / 16)
    assert found.concepts["mean"] == pytest.approx(30 / 16) and found.concepts["min"] == 0
    # 15 known images, 7 of whose 105 pairs are of one case; images of one finding have S = 1, others 0.36.
    assert found.pairs == 98
    assert found.similarity["min"] == pytest.approx(0.36) and found.similarity["max"] == pytest.approx(1)
    assert found.similarity["above threshold"] == pytest.approx(14 / 98)


def test_fixed_mass_has_the_diagonal_entropy_and_agreement_of_its_formula(store: TargetStore) -> None:
    found = softness(store, config(name="fixed_mass", alpha=0.6, temperature=0.2))
    # By hand: all 16 images are one batch. Row of a known image: its relatives are the 13 (12 where its finding is that
    # of the unknown image's sibling: 14) known images of other cases.
    similarity = store.block(np.arange(16)).astype(np.float64)
    cases, findings = np.array(store.group_ids), np.array(store.label("finding"))
    allowed = (cases[:, None] != cases) & store.known[:, None] & store.known
    shares = np.where(allowed, np.exp(similarity / 0.2), 0)
    shares = shares[:15] / shares[:15].sum(axis=1, keepdims=True)
    entropy = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)
    same = (findings[:, None] == findings)[:15]
    assert found.diagonal == pytest.approx((15 * 0.6 + 1) / 16, abs=1e-6)
    assert found.without == pytest.approx(1 / 16)
    assert found.entropy == pytest.approx(entropy.mean(), abs=1e-5)
    assert found.relatives == pytest.approx(np.exp(entropy).mean(), abs=1e-4)
    assert found.similarity == pytest.approx((shares * similarity[:15]).sum(axis=1).mean(), abs=1e-5)
    agrees, chance = found.agreement["finding"]
    assert agrees == pytest.approx((shares * same).sum(axis=1).mean(), abs=1e-5)
    assert chance == pytest.approx(
        ((allowed[:15] & same).sum(axis=1) / allowed[:15].sum(axis=1)).mean(), abs=1e-5
    )
    assert found.agreement[CONCEPTS][0] == pytest.approx(1)  # C0000009 is in every caption


def test_label_smoothing_agrees_as_chance_does(store: TargetStore) -> None:
    found = softness(store, config(), policy="uniform", batch_size=12)
    assert found.policy["name"] == "uniform" and found.batch_size == 12 and found.batches == 32
    for agrees, chance in (*found.agreement.values(), (found.similarity, found.similarity_by_chance)):
        assert agrees == pytest.approx(chance, abs=1e-6)


def test_targets_without_soft_mass_have_no_relatives_to_describe(store: TargetStore) -> None:
    found = softness(store, config(), policy="identity")
    assert (found.diagonal, found.without) == (1.0, 1.0)
    assert np.isnan(found.entropy) and np.isnan(found.agreement["finding"][0])


def test_images_without_a_label_are_not_judged(store: TargetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = softness(store, config(name="fixed_mass"))
    blank = [name if name == "mass" else "" for name in store.label("finding")]
    monkeypatch.setattr(store, "label", lambda name: blank)
    found = softness(store, config(name="fixed_mass"))
    assert found.agreement["finding"] == (1.0, 1.0) and whole.agreement["finding"][0] < 1


def test_the_runs_sampler_draws_the_batches(store: TargetStore) -> None:
    settings = config(name="fixed_mass")
    aware = replace(settings, data=replace(settings.data, sampler="case_aware", batch_size=8))
    found = softness(store, aware)
    assert found.sampler == "case_aware"
    # Two images a case and two batches an epoch: no case meets itself, so rows of known images all have relatives.
    assert found.without == pytest.approx(1 / 16)
    assert torch.isfinite(torch.tensor(found.entropy))


def test_a_batch_larger_than_the_store_is_told_unless_it_is_the_runs_own(store: TargetStore) -> None:
    assert softness(store, replace(config(), data=replace(config().data, batch_size=128))).batch_size == 16
    with pytest.raises(ConfigError, match="--batch-size: 17 exceeds the 16 images"):
        softness(store, config(), batch_size=17)


def test_the_first_run_with_a_policy_is_described() -> None:
    plain = replace(config(), loss=LossConfig(name="info_nce"))
    soft, other = config(name="evidence"), config(name="fixed_mass")
    assert default_policy([plain, soft, other]) is soft
    assert default_policy([plain]) is plain
