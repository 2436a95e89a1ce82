"""Manifests that PyYAML fails on with other errors than its own."""

from pathlib import Path

import pytest

from kg_targets.errors import ConfigError, ManifestError
from kg_targets.manifest import Manifest
from pipelines.experiments.grid import load

ODD = {
    "nested": "name: " + "[" * 20_000 + "]" * 20_000,
    "number": "name: " + "9" * 6_000,
    "date": "name: 2024-99-99",
}


@pytest.mark.parametrize("kind", ODD)
def test_it_is_one_line_that_names_the_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD[kind])
    for read, error in ((Manifest.load, ManifestError), (load, ConfigError)):
        with pytest.raises(error, match=r"odd\.yaml is not valid YAML: ") as told:
            read(path)
        assert "\n" not in str(told.value)
