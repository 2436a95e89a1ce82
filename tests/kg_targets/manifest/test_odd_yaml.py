"""Manifests that PyYAML fails on with other errors than its own."""

from pathlib import Path

import pytest

from kg_targets.errors import ConfigError, KGTargetsError, ManifestError
from kg_targets.manifest import Manifest

ODD = {
    "nested": "name: " + "[" * 20_000 + "]" * 20_000,
    "number": "name: " + "9" * 6_000,
    "date": "name: 2024-99-99",
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("of", ["manifest", "grid"])
def test_it_is_one_line_that_names_the_file(tmp_path: Path, kind: str, of: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(ODD[kind])
    with pytest.raises(KGTargetsError, match=r"odd\.yaml is not valid YAML: ") as told:
        if of == "manifest":
            Manifest.load(path)
        else:
            pytest.importorskip("torch")
            from pipelines.experiments.grid import load

            load(path)
    assert isinstance(told.value, ManifestError if of == "manifest" else ConfigError)
    assert "\n" not in str(told.value)
