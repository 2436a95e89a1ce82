import io
import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.images import write_tar
from tests.processes import kg_targets
from tests.training.vqa.fakes import picture, rows, write_data
from training.leakage.hashing import BITS, RADIUS, dhash, hash_images, near
from training.leakage.overlap import shared
from training.rendering import render
from training.vqa.protocols import prepare

main = kg_targets("leakage")


def bits_apart(one: Image.Image, other: Image.Image) -> int:
    first, second = dhash(one), dhash(other)
    assert first is not None and second is not None and first.shape == (BITS,)
    return int((first != second).sum())


def test_a_copy_is_near_and_another_picture_is_far() -> None:
    original = picture(1, (256, 200))
    stream = io.BytesIO()
    original.resize((128, 100)).save(stream, "JPEG", quality=75)
    assert bits_apart(original, Image.open(stream)) <= RADIUS
    assert bits_apart(original, original.convert("RGB")) == 0
    assert min(bits_apart(original, picture(seed, (256, 200))) for seed in range(2, 30)) > 2 * RADIUS


def test_pictures_of_one_grey_have_no_hash() -> None:
    assert dhash(Image.new("L", (50, 50), 7)) is None


def test_images_that_cannot_be_hashed_are_counted(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "good.png")
    Image.new("L", (9, 9)).save(tmp_path / "flat.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    names = ["good", "flat", "broken", "absent"]
    hashes = hash_images(tmp_path, names, [f"{name}.png" for name in names])
    assert (hashes.names, hashes.flat, hashes.unreadable, hashes.missing) == (
        ["good"], ["flat"], ["broken"], ["absent"],
    )  # fmt: skip
    pairs = {"bits": 256, "radius": 16, "images_hashed": 1, "pairs": []}
    report = {"dataset": "d", "protocol": "p", "split_seed": 0, "parts": {}, "shared": [], "near": pairs}
    lines = render("training.leakage", "report.txt.j2", report=report, hashes=hashes).splitlines()
    assert lines[-1] == "d: 1 missing, 1 unreadable, 1 of one grey (first: absent): not compared by hash"
    assert list(near(hashes, hashes)) == [("good", "good", 0)]
    assert list(near(hashes, hash_images(tmp_path, [], []))) == []


def test_shared_images_and_repeated_questions_are_found(tmp_path: Path) -> None:
    repeated = rows(range(1), 2000)[0] | {"question": " is there a  SHADOW", "answer": "unsure"}
    split = prepare(write_data(tmp_path, test=[repeated, *rows(range(20, 22), 1000)]), tmp_path, "paper")
    found = {one.parts: one for one in shared(split)}["train", "test"]
    assert found.images == ("synpic0",)
    assert (found.questions, found.same_answer) == (("2000",), 0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Test images of their own, but synpic101 is a smaller copy of a training image."""
    root = tmp_path / "vqa"
    write_data(root, test=rows(range(100, 103), 1000), pictures=True)
    picture(3).resize((32, 24)).save(root / "images" / "synpic101.png")
    return root


@pytest.fixture
def pretraining(tmp_path: Path, data: Path) -> Path:
    """Cases of two images: one has a test image by its id, one by its picture, one by a neighbouring number."""
    root = tmp_path / "pretraining"
    (root / "images").mkdir(parents=True)
    lines = ["image_id,filepath,caption,group_id"]
    for image, case, seed in (
        ("A_synpic100", "case_id", 900), ("A_synpic500", "case_id", 901), ("B_x", "case_hash", 102),
        ("C_synpic103", "case_near", 902), ("D_synpic700", "case_far", 903),
    ):  # fmt: skip
        picture(seed).save(root / "images" / f"{image}.png")
        lines.append(f"{image},images/{image}.png,text,{case}")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    manifest = {
        "name": "pre",
        "title": "t",
        "format": "csv",
        "licence": "none",
        "how_to_get": "Invented.",
        "fit_split": "train",
        "splits": {"train": {"files": {"captions": "train.csv"}, "images": "images"}},
    }
    (root / "pre.yaml").write_text(yaml.safe_dump(manifest))
    return root


def options(data: Path, *more: object) -> list[str]:
    manifest = data / "tiny_vqa.yaml"
    return ["--dataset", str(manifest), "--data-root", str(data), "--protocol", "strict", *map(str, more)]


def against(pretraining: Path, *more: object) -> list[object]:
    return ["--against", pretraining / "pre.yaml", "--against-root", pretraining, *more]


def test_a_copy_under_another_name_is_found_and_enforced(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "leaks.json"
    assert main(options(data, "--out", out)) == 0
    assert [pair["images"] for pair in json.loads(out.read_text())["near"]["pairs"]] == [
        ["synpic101", "synpic3"]
    ]
    capsys.readouterr()
    assert main(options(data, "--json")) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    assert main(options(data, "--enforce", "images,questions")) == 0
    assert main(options(data, "--enforce")) == 2
    assert "1 pairs of pictures" in capsys.readouterr().err


def test_pretraining_cases_are_found_by_id_then_hash(data: Path, pretraining: Path, tmp_path: Path) -> None:
    out, cases = tmp_path / "leaks.json", tmp_path / "cases.txt"
    more = against(pretraining, "--out", out, "--exclude-out", cases)
    assert main(options(data, *more)) == 0
    found = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text()
    assert cases.read_text() == "case_hash\ncase_id\n"
    assert {pair["case"]: pair["by"] for pair in found["against"]["pairs"]} == {
        "case_id": "id",
        "case_hash": "hash",
    }
    first = out.read_bytes()
    assert main(options(data, *more, "--enforce", "against")) == 2
    assert out.read_bytes() == first  # the report is there although the command refuses


def test_near_numbers_are_asked_for(data: Path, pretraining: Path, tmp_path: Path) -> None:
    cases = tmp_path / "cases.txt"
    assert main(options(data, *against(pretraining, "--id-distance", 1, "--exclude-out", cases))) == 0
    assert cases.read_text().split() == ["case_hash", "case_id", "case_near"]


def test_without_images_nothing_passes_for_clean(
    data: Path, pretraining: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (data / "images").iterdir():
        path.unlink()
    assert main(options(data, *against(pretraining))) == 0
    assert "15 missing" in capsys.readouterr().out
    assert main(options(data, "--enforce", "near", "--max-broken", 99)) == 2
    assert "nothing was compared" in capsys.readouterr().err


def test_a_bare_enforce_tells_that_pretraining_was_not_looked_at(
    data: Path, pretraining: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "synpic101.png").unlink()
    picture(101).save(data / "images" / "synpic101.png")
    assert main(options(data, "--enforce")) == 0
    assert "pre-training: not looked at" in capsys.readouterr().out
    assert main(options(data, *against(pretraining, "--enforce"))) == 2
    assert "pre-training cases that touch test images" in capsys.readouterr().err
    assert main(options(data, "--enforce", "near,against")) == 2
    assert "--enforce against: against what?" in capsys.readouterr().err


def test_missing_images_do_not_pass_unless_allowed(
    data: Path, pretraining: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "images" / "synpic101.png").unlink()
    (data / "images" / "synpic5.png").write_bytes(b"torn")
    assert main(options(data, "--enforce", "images,questions")) == 0
    assert main(options(data, "--enforce", "near", "--max-broken", 1)) == 2
    assert "2 images are missing or unreadable and were not compared, 1 allowed" in capsys.readouterr().err
    assert main(options(data, "--enforce", "near", "--max-broken", 2)) == 0
    for name in ("A_synpic100", "B_x"):
        (pretraining / "images" / f"{name}.png").unlink()
    (pretraining / "train.csv").write_text(
        (pretraining / "train.csv").read_text().replace("A_synpic100", "A_synpic1000")
    )
    assert main(options(data, *against(pretraining, "--enforce", "against", "--max-broken", 2))) == 2
    assert "3 images are missing" in capsys.readouterr().err  # one of ours, two of theirs
    assert main(options(data, *against(pretraining, "--enforce", "against", "--max-broken", 3))) == 0


def test_pretraining_images_in_shards_are_compared_like_files(
    data: Path, pretraining: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(data, *against(pretraining))) == 0
    files = capsys.readouterr().out
    images = sorted((pretraining / "images").iterdir())
    write_tar(
        pretraining / "a.tar",
        [f"images/{path.name}" for path in images],
        [path.read_bytes() for path in images],
    )
    shutil.rmtree(pretraining / "images")
    assert main(options(data, *against(pretraining))) == 0
    assert capsys.readouterr().out == files and "1 by hash" in files


def test_where_nothing_was_hashed_no_count_is_told(
    data: Path, pretraining: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(pretraining / "images")
    (pretraining / "a.tar").write_bytes(b"no tar")
    assert main(options(data, *against(pretraining))) == 0
    told = capsys.readouterr().out
    assert "none looked for by hash: no image can be read" in told and "0 by hash" not in told
    assert "is not a readable plain tar" in told


def test_where_neither_ids_nor_pictures_can_match_nothing_was_compared(
    data: Path, pretraining: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (pretraining / "images").iterdir():
        path.unlink()
    lines = (pretraining / "train.csv").read_text().replace("synpic", "picture")
    (pretraining / "train.csv").write_text(lines)
    assert main(options(data, *against(pretraining, "--enforce", "against", "--max-broken", 99))) == 2
    assert "--enforce against: nothing was compared" in capsys.readouterr().err


def test_a_test_part_alone_can_be_looked_at(
    data: Path, pretraining: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "trainset.json").unlink()
    out = tmp_path / "leaks.json"
    given = ["--dataset", data / "tiny_vqa.yaml", "--data-root", data, *against(pretraining, "--out", out)]
    assert main(list(map(str, given))) == 0
    assert "2 cases touch test" in capsys.readouterr().out
    assert json.loads(out.read_text())["protocol"] == "published"
    (data / "testset.json").unlink()
    assert main(list(map(str, given))) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ["--enforce", "pictures"],
        ["--touching", "train"],
        ["--radius", "300"],
        ["--exclude-out", "x.txt"],
        ["--against", "medpicks"],
        ["--protocol", "fair"],
        ["--max-broken", "-1"],
        ["--enforce", "against"],
        ["--split-seed", "-1"],
    ],
)
def test_wrong_options_are_one_line_and_code_2(
    data: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(data, *wrong)) == 2
    assert capsys.readouterr().err.count("\n") == 1
