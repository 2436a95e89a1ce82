"""The local site: every page over HTTP, hostile captions and addresses among them."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import numpy as np
import pytest
import uvicorn
from PIL import Image

from pipelines.browse.command import _listening
from pipelines.browse.marks import Mark, add_mark, read_marks
from pipelines.browse.pages import open_pages
from pipelines.browse.site import site
from tests.builds import RICH, build
from tests.processes import kg_targets

HOSTILE = "<script>alert(1)</script> CT of the chest with a pleural effusion & 'quotes' \x1b[31m"


@contextmanager
def served(pages: object, marks: Path) -> Iterator[str]:
    """The address of a running site."""
    with _listening("127.0.0.1", 0) as listener:
        hosts = ["127.0.0.1", "localhost"]
        server = uvicorn.Server(uvicorn.Config(site(pages, marks, hosts), log_level="error", lifespan="off"))  # type: ignore[arg-type]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores of the same images, and the images but one."""
    folder = tmp_path_factory.mktemp("browse")
    build(folder, (*RICH, HOSTILE))
    shutil.copytree(folder / "out" / "train", folder / "first")
    build(folder, (*RICH, HOSTILE), use_ontology=False)
    shutil.move(folder / "out" / "train", folder / "second")
    (folder / "data" / "images").mkdir()
    for row in range(1, len(RICH) + 1):
        pixels = np.full((40, 60), 10 * row, np.uint8)
        Image.fromarray(pixels).save(folder / "data" / "images" / f"train{row:03d}.png")
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    pages = open_pages(folder / "first", folder / "second", folder / "data", None, None)
    with served(pages, folder / "marks.csv") as address:
        yield address


def get(address: str, data: dict[str, str] | None = None, **headers: str) -> tuple[int, str, str]:
    """Status, body and content type."""
    body = urlencode(data).encode() if data is not None else None
    request = urllib.request.Request(address, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            return answer.status, answer.read().decode("utf-8", "replace"), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers["Content-Type"]


def test_words_and_concepts_are_searched_for(address: str) -> None:
    status, page, _ = get(f"{address}/?q=pleural+EFFUSION")
    assert status == 200 and "7 captions with" in page
    assert "6 captions that assert Pleural effusion" in get(f"{address}/?q=C0032227")[1]  # one denies it
    assert "captions that assert" in get(f"{address}/?q=concept:+haemorrhage")[1]
    assert "Nothing found" in get(f"{address}/?q=zebra")[1]
    assert "15 images in random order" in get(address)[1]


def test_an_image_has_its_mentions_and_neighbours_by_both_stores(address: str) -> None:
    status, page, _ = get(f"{address}/image?id=train001")
    assert status == 200 and "line-through" in page and "negated" in page
    assert "this store [1]" in page and "the store beside it [2]" in page
    assert re.search(r"/pair\?a=train001&amp;b=train\d+", page)


def test_a_pair_is_taken_apart_by_both_stores(address: str) -> None:
    status, page, _ = get(f"{address}/pair?a=train000&b=train004")
    assert status == 200 and page.count(": similarity ") == 2 and "Pleural effusion" in page


@pytest.mark.parametrize("policy", ["softmax", "fixed_mass", "evidence", "uniform", "identity"])
def test_a_batch_shows_what_each_policy_makes_of_it(address: str, policy: str) -> None:
    pytest.importorskip("torch")
    status, page, _ = get(f"{address}/batch?policy={policy}&size=8&seed=1")
    assert status == 200 and "mass of the own caption" in page
    (picture,) = re.findall(r'src="(/batch.png[^"]*)"', page)
    status, _, kind = get(address + picture.replace("&amp;", "&"))
    assert status == 200 and kind == "image/png"


def test_more_mass_of_its_own_is_what_alpha_says(folder: Path) -> None:
    pytest.importorskip("torch")
    from kg_targets.store import TargetStore
    from pipelines.browse.batch import BatchChoice, batch_targets

    store = TargetStore.open(folder / "first")
    low, high = (
        batch_targets(store, BatchChoice(size=8, policy="uniform", alpha=alpha)) for alpha in (0.3, 0.9)
    )
    assert np.allclose(np.diag(high.targets), 0.9) and np.allclose(np.diag(low.targets), 0.3)
    assert np.allclose(low.targets.sum(axis=1), 1)


def test_pictures_and_graphs_are_png_and_a_missing_one_is_not_found(address: str) -> None:
    assert get(f"{address}/picture?row=3&side=99999")[2] == "image/png"
    assert get(f"{address}/picture?row=0")[0] == 404  # this image is missing
    assert get(f"{address}/graph.png?a=train000&b=train004")[2] == "image/png"
    assert get(f"{address}/graph.png?a=train003")[0] == 404  # nothing is known about it


def test_captions_cannot_bring_scripts(address: str) -> None:
    for path in ("/?q=quotes", "/image?id=train014", "/pair?a=train014&b=train000"):
        page = get(address + path)[1]
        assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "<b>" not in get(f"{address}/image?id={quote('<b>x</b>')}")[1].split("<main>")[1]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/image?id=nobody", "no image"),
        ("/image", "no id="),
        ("/batch?alpha=7", "alpha 7"),
        ("/batch?size=many", "no number"),
        ("/batch?size=100000", "2 to 512"),
        ("/batch?policy=magic", "not one of"),
        ("/batch?alpha=nan", "finite"),
        ("/?page=99", "no page 99"),
        ("/ask", "--vqa"),
        ("/picture?row=99", "no row 99"),
    ],
)
def test_wrong_addresses_are_answered_in_one_line(address: str, path: str, told: str) -> None:
    if path.startswith("/batch"):
        pytest.importorskip("torch")
    status, page, _ = get(address + path)
    assert status == 400 and told in re.search(r'role="alert">(.*?)</p>', page, re.S)[1].replace("&#39;", "'")  # type: ignore[index]


def test_a_pair_is_marked_once_the_page_was_seen_and_exported(address: str, folder: Path) -> None:
    page = get(f"{address}/pair?a=train000&b=train004")[1]
    (token,) = re.findall(r'name="token" value="([^"]+)"', page)
    form = {"a": "train000", "b": "train004", "remark": "=HYPERLINK(1)"}
    assert (
        get(f"{address}/marks", form | {"token": "guessed"})[0] == 400 and not (folder / "marks.csv").exists()
    )
    status, page, _ = get(f"{address}/marks", form | {"token": token})
    assert status == 200 and "=HYPERLINK(1)" in page  # back on the pair's page
    assert "'=HYPERLINK(1)" in get(f"{address}/marks.csv")[1]  # no formula for a spreadsheet
    (one,) = read_marks(folder / "marks.csv")
    assert (one.first, one.second, one.remark) == ("train000", "train004", "=HYPERLINK(1)")
    assert "1 pairs marked" in get(f"{address}/marks")[1]


def test_other_sites_do_not_reach_it_by_a_name_of_their_own(address: str) -> None:
    with pytest.raises(AssertionError, match="400"):
        status = get(address, Host="evil.example")[0]
        assert status != 400, str(status)


def test_marks_that_are_none_and_folders_that_are_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Exception, match="not a file of marked pairs"):
        read_marks(tmp_path / "x.csv")
    with pytest.raises(Exception, match="cannot be written"):
        add_mark(tmp_path / "x.csv" / "y.csv", Mark("a", "b", "c", "d", "e", "f"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--beside", "{first}/nothing"], "not a target store"),
        (["--run", "{first}"], "--data-root"),
        (["--port", "99999999"], "choose another --port"),
        (["--data-root", "{first}"], "check --data-root"),
    ],
)
def test_what_cannot_be_browsed_is_told_before(
    folder: Path, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.format(first=folder / "first") for option in options]
    assert kg_targets("browse")([str(folder / "first"), *given]) == 2
    error = capsys.readouterr().err
    assert told in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_no_page_makes_a_browser_complain(address: str, tmp_path: Path) -> None:
    for path in ("/", "/image?id=train014", "/pair?a=train014&b=train000", "/batch", "/marks"):
        options = ["--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=3000"]
        options.append(f"--user-data-dir={tmp_path / 'profile'}")
        command = ["chromium", "--headless", *options, "--dump-dom", address + path]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "CONSOLE" not in found.stderr and "</html>" in found.stdout
