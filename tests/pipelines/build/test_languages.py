"""``kg-targets build --languages``: captions that are not English are counted, or nothing is read in them."""

from pathlib import Path

import pytest

from kg_targets.concepts import languages
from kg_targets.errors import ConfigError
from pipelines.build.config import BuildConfig
from tests.builds import build

pytestmark = pytest.mark.e2e
CAPTIONS = (
    "Chest radiograph showing a right pleural effusion.",
    "Radiographie de face: fracture du radius.",
    "CT of the liver with a cyst.",
    "MRI of the brain: hydrocephalus.",
)


@pytest.fixture(autouse=True)
def detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector that needs no package: French is what says so."""
    monkeypatch.setattr(
        languages, "load", lambda: lambda caption: ("fr" if "Radiographie" in caption else "en", 1.0)
    )


def test_languages_are_counted_or_dropped_and_by_default_nobody_looks(tmp_path: Path) -> None:
    plain = build(tmp_path / "plain", CAPTIONS)
    assert "languages" not in plain.manifest and "languages" not in plain.manifest["config"]
    assert plain.cuis[1]  # "face", "fracture"
    counted = build(tmp_path / "counted", CAPTIONS, languages="count")
    assert counted.manifest["languages"] == {"fr": 1} and counted.cuis == plain.cuis
    dropped = build(tmp_path / "dropped", CAPTIONS, languages="drop")
    assert dropped.manifest["languages"] == {"fr": 1}
    assert dropped.cuis == [plain.cuis[0], [], *plain.cuis[2:]]
    assert set(dropped.mentions["image_id"]) == {"train000", "train002", "train003"}


def test_another_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--languages maybe is not one of count, drop"):
        BuildConfig(languages="maybe")
