"""What the code of commit a7fe849 wrote (tests/data/written_by_v0) is read today and says the same.

``make.py`` beside the files recorded what each function of ``MEASURES`` returned then. Everything is reached by public
names and command lines; those that may move stand in ``COMMANDS``.
"""

import contextlib
import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from transformers import AutoTokenizer

from kg_targets.store import TargetStore
from tests.processes import kg_targets
from training.med_vqa import MedVQAModel
from training.run import main as train

FOLDER = Path(__file__).parents[1] / "data" / "written_by_v0"
EXPECTED = "expected.json"
NOT_WRITTEN_BY_V0 = ("README.md", "make.py", EXPECTED)
COMMANDS = {
    "kg-targets": kg_targets(""),
    "train": train,
    "evaluate": kg_targets("evaluate retrieval"),
    "evaluate-vqa": kg_targets("evaluate vqa"),
    "compare-vqa": kg_targets("compare-vqa"),
    "predict": kg_targets("predict"),
}
"""Command to what runs it on its arguments and returns its exit code."""
STORES = ("stores/train", "stores/dev", "stores/test", "noise/test", "teacher/train")
RENAMED = {"nb_clip_unfinished": ("--policy.name=fixed_mass_softmax",)}
"""Run to the flags that say today what v0 meant: its default policy fixed_mass has another name now."""
STORED = 1e-6
"""Largest difference of what is only read and multiplied."""
COMPUTED = 1e-4
"""Of what networks compute: another CPU adds in another order, and a dozen optimizer steps carry that on."""

pytestmark = pytest.mark.e2e


def command(name: str, *arguments: str) -> None:
    """Run a command in this process; it must end well."""
    AcceleratorState._reset_state(reset_partial_state=True)
    assert COMMANDS[name](list(arguments)) == 0


def read_store(path: str) -> dict[str, Any]:
    """What a store holds, as far as its public names tell."""
    store = TargetStore.open(path)
    first, rows = store.image_ids[0], range(min(8, len(store)))
    found: dict[str, Any] = {
        "ids": store.image_ids, "captions": store.captions, "groups": store.group_ids, "known": store.known.tolist(),
        "paths": store.image_paths, "fingerprint": store.fingerprint, "scale": store.scale,
        "labels": {name: store.label(name) for name in store.labels},
        "blocks": {kind: store.block(rows, [2, 0], kind=kind).tolist() for kind in ("image_text", "text_text")},
        "block": store.block(rows).tolist(),
        "neighbors": store.neighbors(first, k=2)[["image_id", "score"]].to_numpy().tolist(),
    }  # fmt: skip
    if store.kind == "knowledge":
        found |= {"threshold": store.threshold, "cuis": store.cuis}
        found["similarity"] = store.explain(first, store.image_ids[1]).similarity
        found["mentions"] = store.mentions[["image_id", "cui", "start", "end", "negated"]].to_numpy().tolist()
        found["concepts"] = store.concepts[["cui", "name", "ic", "idf"]].to_numpy().tolist()
        found["edges"] = sorted(store.to_networkx(first, hops=2).edges())
    return found


def open_clip_features() -> dict[str, Any]:
    """Of an image and two captions, by a model that plain open_clip loads."""
    image = Image.open("data/images/demo_000000.png")
    with contextlib.chdir("nb_clip/checkpoint"), torch.no_grad(), image:  # its text tower is named "."
        model, _, preprocess = open_clip.create_model_and_transforms("local-dir:.")
        tokens = open_clip.get_tokenizer("local-dir:.")(["pleural effusion of the left lung", "no fracture"])
        return {
            "tokens": tokens.tolist(),
            "image": model.eval().encode_image(preprocess(image)[None]).tolist(),
            "texts": model.encode_text(tokens).tolist(),
        }


def retrieval() -> list[str]:
    """Measures that an evaluation of a finished run reports."""
    run = ("--run", "nb_clip", "--draws", "50", "--out", "report")
    command("evaluate", "--store", "stores/test", "--data-root", "data", *run)
    content = json.loads(Path("report/retrieval.json").read_text(encoding="utf-8"))
    return sorted(content["runs"]["nb_clip"]["measures"])


def resumed(output: str) -> dict[str, Any]:
    """Every logged loss of an unfinished run that the same command ends."""
    arguments = json.loads(Path(EXPECTED).read_text(encoding="utf-8"))["commands"][output]
    command("train", *arguments, *RENAMED.get(output, ()), "--resume=must")
    lines = [json.loads(line) for line in (Path(output) / "log.jsonl").read_text().splitlines()]
    assert (Path(output) / "finished.json").is_file()
    return {name: [line[name] for line in lines if name in line] for name in ("step", "loss", "grad_norm")}


def med_vqa_logits() -> dict[str, Any]:
    """Of a question and an answer, by ``from_pretrained``."""
    folder = "med_vqa/checkpoint"
    model, tokenizer = MedVQAModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    question, said = (tokenizer([text], return_tensors="pt") for text in ("where is the bright side", "left"))
    knowledge = tokenizer(["yes", "x ray"], add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model(
            images=torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32),
            question_ids=question["input_ids"], question_mask=question["attention_mask"],
            answer_ids=said["input_ids"], answer_mask=said["attention_mask"],
            knowledge_ids=knowledge["input_ids"], knowledge_mask=knowledge["attention_mask"],
        )  # fmt: skip
    return {"loss": found["loss"].item(), "logits": found["logits"].tolist()}


def predicted() -> list[list[str | float]]:
    """Answers to every test question by a finished run; those that v0 gave are read by the comparison."""
    data = ("--dataset", "vqa_rad", "--data-root", "vqa")
    command("evaluate-vqa", "--model", "med_vqa", *data, "--out", "again")
    both = ("v0=predictions/predictions.csv", "now=again/predictions.csv")
    command("compare-vqa", *both, "--out", "comparison.md", "--draws", "100")
    rows = Path("again/predictions.csv").read_text(encoding="utf-8").splitlines()
    return [[float(cell) if cell.startswith("0.") else cell for cell in line.split(",")] for line in rows[1:]]


MEASURES: dict[str, Callable[[], Any]] = {
    **{path: (lambda path=path: read_store(path)) for path in STORES},  # type: ignore[misc]
    "open_clip": open_clip_features,
    "retrieval": retrieval,
    "nb_clip_unfinished": lambda: resumed("nb_clip_unfinished"),
    "med_vqa_unfinished": lambda: resumed("med_vqa_unfinished"),
    "med_vqa": med_vqa_logits,
    "predictions": predicted,
}


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file that v0 wrote."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in names.items()
        if name not in NOT_WRITTEN_BY_V0
    }


def differences(found: Any, expected: Any, tolerance: float, where: str = "") -> list[str]:
    """Places where two JSON values are not the same, numbers within ``tolerance``."""
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        pairs = [(found[key], expected[key], f"{where}/{key}") for key in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [
            (one, other, f"{where}/{i}") for i, (one, other) in enumerate(zip(found, expected, strict=True))
        ]
    else:
        numbers = isinstance(expected, int | float) and isinstance(found, int | float)
        same = math.isclose(found, expected, rel_tol=0, abs_tol=tolerance) if numbers else found == expected
        return [] if same else [f"{where}: {found!r}, recorded {expected!r}"]
    return [line for one, other, place in pairs for line in differences(one, other, tolerance, place)]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make a copy of the files the current folder; what was recorded."""
    shutil.copytree(FOLDER, tmp_path / "written")
    monkeypatch.chdir(tmp_path / "written")
    recorded: dict[str, Any] = json.loads(Path(EXPECTED).read_text(encoding="utf-8"))
    return recorded


def test_the_files_are_those_that_v0_wrote(written: dict[str, Any]) -> None:
    assert digests(FOLDER) == written["sha256"]


@pytest.mark.parametrize("name", MEASURES)
def test_what_v0_wrote_says_the_same(name: str, written: dict[str, Any]) -> None:
    found = json.loads(json.dumps(MEASURES[name]()))
    assert not differences(found, written["measured"][name], STORED if name in STORES else COMPUTED)


def test_an_unfinished_run_of_v0_does_not_go_on_under_another_policy(
    written: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train([*written["commands"]["nb_clip_unfinished"], "--resume=must"]) == 2
    assert "--policy.name fixed_mass_softmax continues it" in capsys.readouterr().err


@pytest.mark.parametrize("path", STORES)
def test_a_store_of_v0_is_whole(path: str, written: dict[str, Any]) -> None:
    command("kg-targets", "verify", path)


def test_a_damaged_store_of_v0_is_not(written: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    path = Path("stores/test/concepts.parquet")
    path.write_bytes(path.read_bytes() + b"\n")
    assert COMMANDS["kg-targets"](["verify", "stores/test"]) == 2
    assert "does not match its checksum" in capsys.readouterr().err
