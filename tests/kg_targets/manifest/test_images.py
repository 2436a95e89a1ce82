"""One way to find an image: any ending, either Unicode form, one listing a folder, nothing outside the root."""

import os
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from kg_targets.manifest.images import IMAGE_ENDINGS, ImageFolder, endings_text, without_ending

DECOMPOSED = unicodedata.normalize("NFD", "Röntgen é")
COMPOSED = unicodedata.normalize("NFC", "Röntgen é")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize("ending", [*IMAGE_ENDINGS, ".PNG", ".Jpeg", ".DCM"])
@pytest.mark.parametrize("asked", ["images/MPX1", "images/MPX1.jpg"])
def test_an_image_is_found_whatever_its_ending(tmp_path: Path, ending: str, asked: str) -> None:
    root = touch(tmp_path, f"images/MPX1{ending}", "images/MPX1.txt", "images/MPX10.png")
    assert ImageFolder(root).find(asked) == f"images/MPX1{ending}"


def test_the_very_file_wins_and_of_others_the_first_ending(tmp_path: Path) -> None:
    folder = ImageFolder(touch(tmp_path, "a.tif", "a.jpg", "a.png", "b.dcm", "b.webp"))
    assert folder.find("a.tif") == "a.tif"
    assert folder.find("a") == "a.png"
    assert folder.find("b.jpg") == "b.webp"


@pytest.mark.parametrize(("written", "asked"), [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)])
def test_folders_and_names_of_another_unicode_form_are_found(
    tmp_path: Path, written: str, asked: str
) -> None:
    folder = ImageFolder(touch(tmp_path, f"{written}/{written}/{written}.png"))
    assert folder.find(f"{asked}/{asked}/{asked}.jpg") == f"{written}/{written}/{written}.png"


def test_dots_in_names_are_no_endings_and_case_is_part_of_a_name(tmp_path: Path) -> None:
    folder = ImageFolder(touch(tmp_path, "1.2.840.113.dcm", "x.y.png", "Case.png"))
    assert folder.find("1.2.840.113") == "1.2.840.113.dcm"
    assert folder.find("x.y") == "x.y.png"
    assert folder.find("x") is None and folder.find("case") is None
    assert without_ending("a.b/c.d.JPG") == "a.b/c.d"


@pytest.mark.parametrize(
    "path", ["../secret.png", "/etc/passwd", "a/../../secret", "a\0b", "", ".", "x" * 5000]
)
def test_what_leads_out_of_the_root_or_is_no_name_is_not_found(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "secret.png")
    assert ImageFolder(touch(tmp_path / "root", "a/b.png")).find(path) is None


def test_links_count_if_they_lead_to_a_file(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.png")
    (tmp_path / "root" / "dir.png").mkdir(parents=True)
    os.symlink(tmp_path / "elsewhere" / "a.png", tmp_path / "root" / "a.png")
    os.symlink(tmp_path / "gone.png", tmp_path / "root" / "b.png")
    folder = ImageFolder(tmp_path / "root")
    assert [folder.find(name) for name in ("a", "b", "dir")] == ["a.png", None, None]


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, listed = touch(tmp_path, *(f"images/{number}.png" for number in range(50))), Counter[str]()
    scandir = os.scandir

    def counted(path: Path) -> "os._ScandirIterator[str]":
        listed[os.fspath(path)] += 1
        return scandir(os.fspath(path))

    monkeypatch.setattr(os, "scandir", counted)
    folder = ImageFolder(root)
    assert all(folder.find(f"images/{number}") for number in range(50))
    assert not any(folder.find(f"absent/{number}") for number in range(50))
    assert listed[str(root / "images")] == 1 and listed[str(root / "absent")] == 1


def test_endings_beside_say_what_is_there_instead(tmp_path: Path) -> None:
    folder = ImageFolder(touch(tmp_path, "i/a.nii", "i/b.nii", "i/c.svg", "i/README", "j/d.png"))
    beside = folder.endings_beside(["i/a.jpg", "i/b.jpg"])
    assert endings_text(beside) == ".nii 2, .svg 1, no ending 1"
    assert endings_text(folder.endings_beside(["k/a.jpg"])) == "no file"
