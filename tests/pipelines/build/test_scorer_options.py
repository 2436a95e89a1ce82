"""`--scorer-options`: settings of a scorer, what it fits on the fit split, and where a long fit keeps its state."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from kg_targets.errors import ConfigError
from kg_targets.scoring import SCORERS, SETTINGS, Factors, ScoringInput
from kg_targets.store import TargetStore, verify_store
from kg_targets.store.factors import MixedFactors
from pipelines.build.config import BuildConfig
from pipelines.build.recipe import build_data_set
from tests.builds import CAPTIONS, digests, write_split


@dataclass(frozen=True)
class Settings:
    """Settings of a scorer of these tests."""

    width: int = 3
    slope: float = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError("width must be at least 1")


def lengths(data: ScoringInput) -> Factors:
    """Captions' lengths as dense columns beside one sparse column; fits their mean."""
    values = np.array([len(caption) for caption in data.captions()], dtype=np.float32)
    fitted = data.fitted or {"mean": np.array([values.mean()], np.float32), "source": np.zeros(2, np.float32)}
    assert data.state is not None and not data.state.exists()
    data.state.mkdir(parents=True)
    with data.progress(len(values), "lengths", "caption") as shown:
        shown.update(len(values))
    dense = np.repeat(((values - fitted["mean"]) / 200)[:, None], data.options.width, axis=1)
    narrow = sparse.csr_array(np.full((len(values), 1), 0.5, np.float32))
    return Factors(MixedFactors(narrow, dense.astype(np.float32)), np.ones(len(values), bool), fitted)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(SCORERS, "lengths", lengths)
    monkeypatch.setitem(SETTINGS, "lengths", Settings)
    write_split(tmp_path / "data", "train", CAPTIONS)
    write_split(tmp_path / "data", "dev", CAPTIONS[:3])
    return tmp_path / "data"


def built(data: Path, out: Path, options: str = "width=2") -> list[TargetStore]:
    config = BuildConfig(
        "demo", data_root=data, out=out, scorer="lengths", scorer_options=options, workers=1, rows_per_shard=3
    )
    return build_data_set(config, lambda line: None)


def test_what_was_fitted_is_kept_and_reused_for_other_splits(data: Path, tmp_path: Path) -> None:
    train, dev = built(data, tmp_path / "out")
    mean = np.mean([len(caption) for caption in CAPTIONS])
    for store in (train, dev):
        assert list(store.vectors) == ["mean", "source"]
        np.testing.assert_allclose(store.vectors["mean"], [mean])
        assert store.vectors["source"].tolist() == [0, 0]
        np.testing.assert_allclose(store.factors.dense[0], [(len(CAPTIONS[0]) - mean) / 200] * 2, rtol=1e-5)
        assert verify_store(store.path)
        assert store.manifest["config"]["scorer_options"] == "width=2"
        assert "## vectors: 2 rows" in (store.path / "README.md").read_text()
    assert pq.read_table(train.path / "vectors").column_names == ["name", "vector"]
    first = digests(train.path)
    assert not list((tmp_path / "out").glob(".*")), "the state of the fit is gone"
    built(data, tmp_path / "again")
    assert digests(tmp_path / "again" / "train") == first


def test_mixed_factors_are_read_as_they_were_written(data: Path, tmp_path: Path) -> None:
    store = built(data, tmp_path / "out")[0]
    assert store.manifest["factors"] == {"dense": 2, "sparse": 1}
    values = np.hstack([store.factors.sparse.toarray(), store.factors.dense]).astype(np.float64)
    expected = np.clip(values @ values.T, -1, 1)
    np.fill_diagonal(expected, 1)
    np.testing.assert_allclose(store.block(range(len(store))), expected, atol=1e-6)
    neighbours = store.neighbors(0, 3)
    assert neighbours["score"].tolist() == pytest.approx(sorted(expected[0, 1:])[::-1][:3], abs=1e-5)


def test_stores_of_scorers_that_fit_nothing_have_no_vectors(tmp_path: Path) -> None:
    write_split(tmp_path / "data", "train", CAPTIONS)
    config = BuildConfig("demo", "train", tmp_path / "data", tmp_path / "out", workers=1)
    store = build_data_set(config, lambda line: None)[0]
    assert store.vectors == {} and not (store.path / "vectors").exists()
    assert "scorer_options" not in store.manifest["config"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("widht=2", r"widht is not one of width, slope, source \(did you mean width\?\)"),
        ("width", "'width' is not key=value"),
        ("width=two", "width: .*integer.*got 'two'"),
        ("width=0", "width must be at least 1"),
        ("source=[", "the value of .* cannot be read"),
    ],
)
def test_wrong_options_are_named_in_one_line(data: Path, tmp_path: Path, options: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        built(data, tmp_path / "out", options)
    assert "\n" not in str(caught.value)


def test_options_for_a_scorer_without_any_are_an_error() -> None:
    with pytest.raises(ConfigError, match="the noise scorer has no options, drop width"):
        BuildConfig(scorer="noise", scorer_options="width=2")


@pytest.mark.parametrize("scorer", ["noise", "identity", "embedding", "transe"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("shrinkage", 7.0), ("shrinkage", 0.0), ("blocks", "1:2:1"), ("flat_ancestors", True)],
)
def test_options_that_a_scorer_does_not_read_are_an_error(scorer: str, field: str, value: object) -> None:
    message = (
        f"--{field.replace('_', '-')} is for the scorers ontology and permuted, {scorer} does not read it"
    )
    with pytest.raises(ConfigError, match=message) as caught:
        BuildConfig(scorer=scorer, **{field: value})
    assert "\n" not in str(caught.value)
    for reader in ("ontology", "permuted"):
        assert getattr(BuildConfig(scorer=reader, **{field: value}), field) == value


def test_other_options_build_again(data: Path, tmp_path: Path) -> None:
    one, other = built(data, tmp_path / "out")[0], built(data, tmp_path / "out", "width=2,slope=2")[0]
    assert one.fingerprint != other.fingerprint
