"""Pictures of a store's targets."""

from pathlib import Path

from tests.builds import CAPTIONS, build
from training.retrieval.pictures import target_block


def test_targets_of_equal_captions_are_drawn(tmp_path: Path) -> None:
    store = build(tmp_path, [*[CAPTIONS[0]] * 12, CAPTIONS[7]])
    store.manifest["similarity"]["fit_p95"] = 1.0000000274  # by rounding
    target_block(tmp_path / "block.png", store, None)
    assert (tmp_path / "block.png").stat().st_size > 0
