"""`kg-targets card` with images that cannot be read."""

from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.demo import write_demo


def test_broken_images_are_counted_and_the_card_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, store = tmp_path / "data", tmp_path / "stores" / "train"
    write_demo(data, images=60, seed=3)
    build = ["build", "demo", "--data-root", str(data), "--split", "train", "--out", str(store.parent)]
    assert main([*build, "--workers", "1"]) == 0
    card = ["card", str(store), "--data-root", str(data), "--out", str(tmp_path / "card.html")]
    assert main(card) == 0
    whole = (tmp_path / "card.html").read_text()
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for number, image in enumerate(sorted((data / "images").iterdir())):
        if number % 2:
            image.write_bytes(postscript if number % 4 == 1 else b"no picture")
    capsys.readouterr()
    assert main(card) == 0
    out = capsys.readouterr()
    assert "images that are broken and not on it: " in out.out + out.err
    page = (tmp_path / "card.html").read_text()
    assert 0 < page.count("data:image/png") < whole.count("data:image/png")
