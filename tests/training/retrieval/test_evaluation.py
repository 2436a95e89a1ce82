"""The evaluation command in all directions, with several seeds, and beside ten lines of plain open_clip."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from kg_targets.store import TargetStore
from tests.processes import kg_targets
from tests.training.tiny import arguments, write_store, write_world
from training.retrieval import command as evaluation
from training.retrieval.pictures import Sheet
from training.run import main as run

pytestmark = pytest.mark.e2e

FOLDERS = ("infonce", "sm0", "sm1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/, stores and three finished runs, two of them seeds of one configuration."""
    folder = tmp_path_factory.mktemp("tiny")
    write_world(folder)
    options = (("--loss.name=info_nce", "--seed=0"), ("--seed=0",), ("--seed=1",))
    for name, extra in zip(FOLDERS, options, strict=True):
        AcceleratorState._reset_state(reset_partial_state=True)
        assert run(arguments(folder, folder / name, "--optim.max_steps=2", *extra)) == 0
    return folder


def evaluate(world: Path, out: Path, *extra: str, runs: tuple[str, ...] = ("infonce",)) -> int:
    named = [f"--run={name.format(world=world) if '=' in name else world / name}" for name in runs]
    return kg_targets("evaluate retrieval")([
        "--store", str(world / "dev"), "--data-root", str(world / "data"), "--out", str(out),
        "--draws", "50", *named, *extra,
    ])  # fmt: skip


def result(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "retrieval.json").read_text()))


def test_a_table_of_labels_is_evaluated_like_the_data_sets_own(world: Path, tmp_path: Path) -> None:
    table, store = tmp_path / "labels.csv", TargetStore.open(world / "dev")
    rows = zip(store.image_ids, store.label("modality"), strict=True)
    table.write_text("id,copied\n" + "".join(f"{image},{value}\n" for image, value in rows))
    assert evaluate(world, tmp_path / "out", f"--label-table={table}", "--labels=modality,copied") == 0
    measures = result(tmp_path / "out")["runs"]["infonce"]["measures"]
    assert measures["copied P@5"] == measures["modality P@5"]


def plain_precision(checkpoint: Path, store: TargetStore, data_root: Path, label: str, k: int) -> float:
    """Image to image P@K with open_clip and numpy alone."""
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{checkpoint}")
    images = torch.stack([preprocess(Image.open(data_root / path)) for path in store.image_paths])
    with torch.no_grad():
        features = torch.nn.functional.normalize(model.eval().encode_image(images), dim=-1)
    scores = (features @ features.T).numpy()
    cases, labels = np.array(store.group_ids), np.array(store.label(label))
    scores[(cases[:, None] == cases) | (labels == "")[None, :]] = -np.inf
    found = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    kept = np.isfinite(np.take_along_axis(scores, found, axis=1))
    right = kept & (labels[found] == labels[:, None])
    return float((right.sum(1) / kept.sum(1))[labels != ""].mean())


def test_plain_open_clip_code_gives_the_same_precision(world: Path, tmp_path: Path) -> None:
    assert evaluate(world, tmp_path, "--features=after", "--labels=modality,finding", runs=FOLDERS) == 0
    runs, store = result(tmp_path)["runs"], TargetStore.open(world / "dev")
    for name in FOLDERS:
        for label in ("modality", "finding"):
            for k in (5, 10, 30):
                expected = plain_precision(world / name / "checkpoint", store, world / "data", label, k)
                measured = runs[name]["measures"][f"projected {label} P@{k}"]["mean"]
                assert measured == pytest.approx(expected, abs=1e-12)


def test_plain_open_clip_code_gives_the_same_recall_of_captions(world: Path, tmp_path: Path) -> None:
    assert evaluate(world, tmp_path, "--group-exclusion=image") == 0
    store, checkpoint = TargetStore.open(world / "dev"), f"local-dir:{world / 'infonce' / 'checkpoint'}"
    model, _, preprocess = open_clip.create_model_and_transforms(checkpoint)
    texts = open_clip.get_tokenizer(checkpoint)(store.captions)
    images = torch.stack([preprocess(Image.open(world / "data" / path)) for path in store.image_paths])
    with torch.no_grad():
        left, right = (
            model.eval().encode_image(images, normalize=True),
            model.encode_text(texts, normalize=True),
        )
    scores, captions = (left @ right.T).numpy(), np.array(store.captions)
    ranks = [
        # Beyond rounding: captions that are equal may get features that differ in the last bit here.
        1 + np.sum((scores[query] >= scores[query, query] - 1e-6) & (captions != captions[query]))
        for query in range(len(store))
    ]
    for k in (1, 5, 10):
        measured = result(tmp_path)["runs"]["infonce"]["measures"][f"image→text Recall@{k}"]["mean"]
        assert measured == pytest.approx(np.mean([rank <= k for rank in ranks]), abs=1e-12)


def test_captions_are_read_as_the_run_read_them_and_counted(tmp_path: Path) -> None:
    write_store(tmp_path / "train", tmp_path / "data", "train", before="The table is seen. " * 30)
    write_store(tmp_path / "dev", tmp_path / "data", "dev", before="The table is seen. " * 30)
    scores = {}
    for mode, truncated in (("truncate", 16), ("best_sentence", 0)):
        AcceleratorState._reset_state(reset_partial_state=True)
        options = ("--optim.max_steps=2", f"--data.long_captions={mode}")
        assert run(arguments(tmp_path, tmp_path / mode, *options)) == 0
        assert evaluate(tmp_path, tmp_path / "out" / mode, runs=(mode,)) == 0
        told = result(tmp_path / "out" / mode)["runs"][mode]
        assert told["long_captions"] == {"mode": mode, "longer": 16, "truncated": truncated, "captions": 16}
        page = (tmp_path / "out" / mode / "retrieval.md").read_text()
        assert f"captions of {mode}: 16 of 16 captions (100.0 %) are longer" in page
        scores[mode] = told["measures"]["image→text Recall@10"]["mean"]
    # Cut off after equal words, captions are one text to the model: the own one is never before the others.
    assert scores["truncate"] < scores["best_sentence"]


def test_strict_and_semantic_recall_stand_side_by_side(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(world, tmp_path, "--semantic-recall=0.5,1", runs=("infonce",)) == 0
    text = capsys.readouterr().out
    assert "semantic Recall@K: the same, where other images' concepts overlap" in text
    names = [line.split("  ")[0] for line in text.splitlines() if "Recall@5" in line and "→" in line]
    kinds = ("Recall@5", "semantic Recall@5 (0.5)", "semantic Recall@5 (1)")
    assert names == [f"{view} {kind}" for view in ("image→text", "text→image") for kind in kinds]
    for one in result(tmp_path)["runs"].values():
        strict, half, equal = (one["measures"][f"image→text {kind}"]["mean"] for kind in kinds)
        assert strict <= equal <= half
    assert not any("semantic" in name for name in names_without(world, tmp_path / "plain"))


def names_without(world: Path, out: Path) -> list[str]:
    """The measures of an evaluation that does not ask for it."""
    assert evaluate(world, out, runs=("infonce",)) == 0
    return list(result(out)["runs"]["infonce"]["measures"])


@pytest.mark.parametrize(
    ("options", "labels", "ordered_by"),
    [
        ((), ("modality", "finding"), "finding"),
        (("--labels=finding",), ("finding",), "finding"),
        (("--labels=modality+finding,modality",), ("modality", "finding"), "modality"),
    ],
)
def test_pictures_go_by_the_labels_that_are_asked_for(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    labels: Any,
    ordered_by: str,
) -> None:
    sheets: list[Sheet] = []
    blocks: list[str | None] = []
    monkeypatch.setattr(Sheet, "image_to_image", lambda sheet, path: (sheets.append(sheet), path.touch()))
    monkeypatch.setattr(
        "training.retrieval.command.target_block",
        lambda path, store, label, seed: (blocks.append(label), path.touch()),
    )
    assert evaluate(world, tmp_path, "--no-recall", *options, runs=("infonce",)) == 0
    assert sheets[0].labels == labels and f"green: same {', '.join(labels)};" in sheets[0].title
    assert blocks == [ordered_by]


def test_every_direction_variant_and_task_in_one_report(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = (
        "--direction=image-image,image-text", "--direction=text-image", "--features=before,after",
        "--cui-variants=oracle,hits,share,jaccard,union,ndcg", "--zero-shot=label=modality", "--queries=2",
    )  # fmt: skip
    assert evaluate(world, tmp_path / "out", *extra, runs=("infonce", "sm={world}/sm0,{world}/sm1")) == 0
    text = capsys.readouterr().out
    for expected in (
        "[image → image, features before the projection]", "[image → image, features after the projection]",
        "[image → text, features after the projection]", "[text → image, features after the projection]",
        "projected modality+finding P@5", "text→image CUI@10 NDCG", "image→text CUI@50 |q∩r|/|q|",
        "zero-shot modality balanced accuracy", "text→image Recall@10", "training seeds: infonce 0; sm 0, 1",
        "± is the standard deviation between seeds", "images share theirs",
    ):  # fmt: skip
        assert expected in text
    names = {path.name for path in (tmp_path / "out").iterdir()}
    pictures = {"contact_sheet.png", "image_to_text.png", "text_to_image.png", "target_block.png"}
    assert names == {"retrieval.json", "retrieval.md", "retrieval.txt", *pictures}
    measures = result(tmp_path / "out")["runs"]["sm"]["measures"]
    assert len(measures) > 51 and f"over cases ({200 * (len(measures) - 1):,}), of these runs only" in text
    keys = [json.loads((world / name / "finished.json").read_text())["key"] for name in FOLDERS]
    assert [result(tmp_path / "out")["runs"][name]["keys"] for name in ("infonce", "sm")] == [
        keys[:1],
        keys[1:],
    ]
    seeds = measures["CUI@5"]["seed_means"]
    assert len(seeds) == 2 and measures["CUI@5"]["mean"] == pytest.approx(np.mean(seeds))
    assert measures["CUI@5 hit share"]["queries"] == measures["CUI@5"]["queries"] == 11
    chance = result(tmp_path / "out")["runs"]["chance"]["measures"]
    assert chance["zero-shot modality balanced accuracy"]["mean"] == pytest.approx(1 / 2)
    # Fewer directions afterwards: pictures of the former evaluation must not stay as if they were this one's.
    assert evaluate(world, tmp_path / "out", "--no-recall", runs=("infonce",)) == 0
    assert "image_to_text.png" not in {path.name for path in (tmp_path / "out").iterdir()}
    assert not any("Recall" in name for name in result(tmp_path / "out")["runs"]["infonce"]["measures"])


def test_a_query_finds_its_sibling_only_if_images_are_excluded_instead_of_cases(
    world: Path, tmp_path: Path
) -> None:
    for exclusion in ("case", "image"):
        assert evaluate(world, tmp_path / exclusion, f"--group-exclusion={exclusion}") == 0
    chance = {e: result(tmp_path / e)["runs"]["chance"]["measures"] for e in ("case", "image")}
    # Twelve images in pairs of one finding: with siblings in the gallery, more of it has the label.
    assert chance["image"]["finding P@5"]["mean"] > chance["case"]["finding P@5"]["mean"]
    assert "only itself excluded" in result(tmp_path / "image")["protocol"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ("--direction=image-sound",),
            '--direction: "image-sound" is not one of image-image, image-text, text-image',
        ),
        (("--features=between",), '--features: "between" is not one of before, after'),
        (("--cui-variants=",), '--cui-variants: "" is not one of oracle'),
        (("--group-exclusion=patient",), '--group-exclusion: "patient" is not one of case, image'),
        (("--zero-shot=organ",), '--zero-shot: the store has no label "organ"; it has modality, finding'),
        (("--templates=nowhere.txt",), "--templates: nowhere.txt cannot be read"),
        (("--templates={world}/no_place.txt",), '"an image" must contain {} once'),
        (("--prompts={world}/no_place.txt",), "must map labels to classes"),
        (("--run=x={world}/sm0,{world}/infonce",), "differ in loss.name"),
        (("--run=x={world}/sm0,{world}/sm0",), "two runs have the same seed"),
        (("--run={world}/none",), "is not a finished training run"),
        (
            ("--draws=x",),
            "argument --draws: invalid int value: 'x': see kg-targets evaluate retrieval --help",
        ),
        (("--semantic-recall=half",), "--semantic-recall: 'half' is not a number in (0, 1]"),
        (("--unknown=1",), "unrecognized arguments: --unknown: see"),
    ],
)
def test_wrong_options_are_one_line_before_anything_is_encoded(
    extra: tuple[str, ...],
    message: str,
    world: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (world / "no_place.txt").write_text("an image\n")
    monkeypatch.setattr(evaluation, "evaluate_runs", None)
    assert evaluate(world, tmp_path / "out", *(part.format(world=world) for part in extra)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_same_command_is_up_to_date_and_another_prompt_is_another_evaluation(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    templates = tmp_path / "templates.txt"
    for text, expected in (("{}", False), ("{}", True), ("an image of {}", False)):
        templates.write_text(text)
        capsys.readouterr()
        assert evaluate(world, tmp_path / "out", "--zero-shot=modality", f"--templates={templates}") == 0
        assert ("up to date" in capsys.readouterr().out) is expected
    assert (
        evaluate(world, tmp_path / "out", "--zero-shot=modality", f"--templates={templates}", "--json") == 0
    )
    assert json.loads(capsys.readouterr().out) == result(tmp_path / "out")


def test_broken_images_are_left_out_of_queries_and_gallery(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "world")
    (tmp_path / "world" / "data" / "images" / "dev3.png").write_bytes(b"no image")
    assert evaluate(tmp_path / "world", tmp_path / "none") == 2
    assert evaluate(tmp_path / "world", tmp_path / "out", "--max-broken=1") == 0
    assert result(tmp_path / "out")["data"].startswith("tiny, split dev, 11 images")
    assert result(tmp_path / "out")["runs"]["infonce"]["measures"]["modality P@5"]["queries"] == 11


def test_weights_that_are_not_finite_are_told_and_not_ranked(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(world / "infonce", tmp_path / "broken")
    weights = tmp_path / "broken" / "checkpoint" / "open_clip_model.safetensors"
    content = load_file(weights)
    content["visual.proj"][:] = torch.nan
    save_file(content, weights, metadata={"format": "pt"})
    assert evaluate(world, tmp_path / "out", f"--run={tmp_path / 'broken'}") == 2
    assert "features that are not finite" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
