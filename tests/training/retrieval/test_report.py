"""Groups of seeds, zero-shot tasks, and what a report says of them."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from training.errors import CheckpointError, ConfigError
from training.retrieval.command import OUTPUTS, RESULT, is_current, write_outputs
from training.retrieval.config import EvalConfig, read_prompts, read_templates
from training.retrieval.measures import Measures, Scored
from training.retrieval.report import Report, as_json, as_markdown, as_text, describe, make_report
from training.retrieval.runs import RunGroup, read_groups
from training.retrieval.zero_shot import (
    Task,
    class_features,
    is_right,
    majority_class,
    tasks,
)
from training.statistics.intervals import case_interval
from training.statistics.paired_tests import Difference, Pair, compare_all
from training.statistics.seed_variance import paired_test


def write_run(folder: Path, seed: int, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    config = {
        "output": str(folder),
        "seed": seed,
        "loss": {"name": "info_nce"},
        "log": {"every": 5},
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "finished.json").write_text(json.dumps({"key": f"key of {folder.name}"}))
    return folder


def test_runs_are_named_by_folder_or_by_hand_and_grouped_by_seed(tmp_path: Path) -> None:
    a, b, c = (write_run(tmp_path / name, seed) for seed, name in enumerate("abc"))
    alone, grouped = read_groups([str(a), f"both={b},{c}"])
    assert (alone.name, alone.seeds) == ("a", (0,))
    assert (grouped.name, grouped.folders, grouped.seeds) == ("both", (b, c), (1, 2))
    assert grouped.keys == ("key of b", "key of c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["both={a},{other}"], "differ in loss.name (info_nce and mse)"),
        (["both={a},{again}"], "two runs have the same seed (0, 0)"),
        (["{a}", "a={b}"], 'have the name "a"'),
        (["both={a},"], "names an empty folder"),
        (["chance={a}"], '"chance" is no name for a run'),
        (["{nowhere}"], "is not a finished training run"),
        (["both={a},{damaged}"], "config.yaml is missing or damaged"),
        (["{keyless}"], "finished.json is missing or damaged"),
    ],
)
def test_runs_that_cannot_be_compared_are_one_line(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    folders = {name: write_run(tmp_path / name, seed) for seed, name in enumerate("ab")}
    folders["again"] = write_run(tmp_path / "again", 0)
    folders["other"] = write_run(tmp_path / "other", 1, loss={"name": "mse"})
    folders["damaged"] = write_run(tmp_path / "damaged", 3)
    (folders["damaged"] / "config.yaml").write_text("seed: [")
    folders["keyless"] = write_run(tmp_path / "keyless", 4)
    (folders["keyless"] / "finished.json").write_text("{}")
    folders["nowhere"] = tmp_path / "nowhere"
    with pytest.raises((ConfigError, CheckpointError)) as error:
        read_groups([argument.format(**folders) for argument in arguments])
    assert message in str(error.value) and "\n" not in str(error.value)


def report(
    draws: int = 200, baseline: tuple[int, ...] = (0,), seeds: tuple[int, ...] = (0, 1, 2)
) -> tuple[Report, dict[str, list[np.ndarray]], np.ndarray]:
    """Three seeds against one, ten cases of three images, the last image without a score."""
    rng = np.random.default_rng(0)
    cases = np.repeat(np.arange(10), 3)
    values = {
        "one": [rng.random(30) for _ in baseline], "three": [rng.random(30) + 0.1 for _ in seeds]
    }  # fmt: skip
    for runs in values.values():
        for scores in runs:
            scores[-1] = np.nan

    def measures(scores: np.ndarray) -> Measures:
        return {"CUI@50": Scored(scores, "some section"), "x|y P@5": Scored(scores / 2, "another")}

    made = make_report(
        header={"data": "made up"},
        data=SimpleNamespace(cases=cases),  # type: ignore[arg-type]
        scores={name: [measures(scores) for scores in runs] for name, runs in values.items()},
        chance=measures(np.full(30, np.nan)),
        draws=draws,
        seed=0,
        primary="CUI@50",
        keys={"one": ("a",), "three": ("b", "c", "d")},
        seeds={"one": baseline, "three": seeds},
    )
    return made, values, cases


def test_scores_of_several_seeds_are_averaged_per_query_before_anything_else() -> None:
    made, values, cases = report()
    mean = np.mean(values["three"], axis=0)
    assert made.intervals["three"]["CUI@50"] == case_interval(mean, cases, 200)
    assert made.comparisons["three"]["CUI@50"] == Difference.of(
        compare_all([Pair(mean, values["one"][0])], cases, 200)[0]
    )
    means = [float(np.nanmean(scores)) for scores in values["three"]]
    assert made.seed_means["three"]["CUI@50"] == pytest.approx(means)
    assert made.seed_deviation("three", "CUI@50") == pytest.approx(np.std(means, ddof=1))
    assert made.seed_deviation("one", "CUI@50") is None
    assert set(made.holm["three"]) == {"x|y P@5"}


def test_runs_of_three_seeds_in_common_are_compared_by_the_test_that_contains_seeds() -> None:
    """Their seeds are given in another order, and one of each has no partner."""
    made, values, cases = report(baseline=(3, 1, 0, 2), seeds=(0, 1, 2, 7))
    by_hand = paired_test(
        np.stack([values["three"][a] - values["one"][b] for a, b in ((0, 2), (1, 1), (2, 3))]),
        cases,
        np.zeros(30, dtype=np.int64),
    )
    found = made.comparisons["three"]["CUI@50"]
    assert (found.interval, found.p_value, found.noise) == (by_hand.interval, by_hand.p, by_hand.error)
    assert found.seeds == (0, 1, 2) and not math.isnan(found.p_value)
    kept = as_json(made)["runs"]["three"]["against_first"]["CUI@50"]
    assert kept["p"] == by_hand.p and kept["noise"]["degrees"] > 0 and list(kept["seeds"]) == [0, 1, 2]


def test_two_seeds_in_common_are_not_estimable_and_one_is_a_test_of_these_runs() -> None:
    two, _, _ = report(baseline=(0, 1), seeds=(0, 1, 2))
    found = two.comparisons["three"]["CUI@50"]
    assert math.isnan(found.p_value) and found.seeds == (0, 1) and "not estimable" in as_text(two)
    one, _, _ = report(baseline=(0, 5), seeds=(0, 1, 2))
    found = one.comparisons["three"]["CUI@50"]
    assert found.seeds == () and found.noise is None and not math.isnan(found.p_value)


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ((0, 1, 2), "sm − infonce: t over cases and training seeds 0, 1, 2"),
        ((0, 1), "sm − infonce: t over cases and training seeds 0, 1, not estimable: train a third"),
        (
            (2, 9),
            "sm − infonce: paired sign flips over cases (10,000), of these runs only: no claim about other seeds",
        ),
    ],
)
def test_the_header_says_which_test_each_run_gets(seeds: tuple[int, ...], expected: str) -> None:
    data = SimpleNamespace(
        store=SimpleNamespace(dataset="d", split="s"),
        rows=np.arange(3),
        cases=np.arange(3),
        caption_codes=np.arange(3),
    )
    groups = [RunGroup("infonce", (), (0, 1, 2), ()), RunGroup("sm", (), seeds, ())]
    header = describe(data, groups, EvalConfig(), [], 10_000)  # type: ignore[arg-type]
    assert header["tests"] == expected and "t below 200 cases" in header["intervals"]
    assert "tests" not in describe(data, groups[:1], EvalConfig(), [], 10_000)  # type: ignore[arg-type]


def test_a_report_prints_queries_and_spread_and_is_strict_json(tmp_path: Path) -> None:
    made, _, _ = report()
    text = as_text(made)
    line = next(line for line in text.splitlines() if line.startswith("CUI@50 *"))
    assert line.split()[2] == "29" and line.count("±") == 1
    assert "[some section]" in text and "[another]" in text
    assert "x\\|y P@5" in as_markdown(made) and "## Some section" in as_markdown(made)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / OUTPUTS[3]).write_text("of another evaluation")
    (tmp_path / "out" / "card.html").write_text("of another command")
    writers = {"retrieval.txt": lambda path: path.write_text(text)}
    assert write_outputs(tmp_path / "out", writers, as_json(made), "key") == ["retrieval.txt", RESULT]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"retrieval.txt", RESULT, "card.html"}

    def refuse(name: str) -> float:
        raise AssertionError(name)

    content = json.loads((tmp_path / "out" / RESULT).read_text(), parse_constant=refuse)
    assert content["runs"]["chance"]["measures"]["CUI@50"]["mean"] is None
    assert len(content["runs"]["three"]["measures"]["CUI@50"]["seed_means"]) == 3
    assert content["runs"]["three"]["keys"] == ["b", "c", "d"] and "keys" not in content["runs"]["chance"]
    assert is_current(tmp_path / "out", "key") and not is_current(tmp_path / "out", "other")
    (tmp_path / "out" / "retrieval.txt").unlink()
    assert not is_current(tmp_path / "out", "key")


def test_the_table_says_how_many_comparisons_of_all_runs_are_corrected_together() -> None:
    rng = np.random.default_rng(0)
    unscored = np.full(30, np.nan)

    def measures() -> Measures:
        names = ("CUI@50", "CUI@5", "finding P@5")
        return {name: Scored(rng.random(30), "a") for name in names} | {"lost P@5": Scored(unscored, "a")}

    def head(*runs: str) -> str:
        made = make_report(
            header={},
            data=SimpleNamespace(cases=np.arange(30)),  # type: ignore[arg-type]
            scores={run: [measures()] for run in runs},
            chance=measures(),
            draws=20,
            seed=0,
            primary="CUI@50",
            keys={run: (run,) for run in runs},
            seeds={run: (0,) for run in runs},
        )
        corrected = [p for values in made.holm.values() for p in values.values() if not math.isnan(p)]
        assert len(corrected) == 2 * (len(runs) - 1)
        return as_text(made).splitlines()[0]

    assert head("a", "b") == "* primary endpoint; Holm corrects all 2 other comparisons"
    assert head("a", "b", "c", "d").endswith("corrects all 6 other comparisons of 3 runs together")
    assert head("a") == "* primary endpoint"


def test_a_class_is_the_mean_of_its_prompts_and_an_image_the_nearest_class() -> None:
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [-1.0, 0.0]}
    task = Task("x", ("one", "two"), (("a", "b"), ("c",)))
    classes = class_features(task, lambda texts: np.array([vectors[t] for t in texts], np.float32))
    np.testing.assert_allclose(classes, [[math.sqrt(0.5)] * 2, [-1, 0]], atol=1e-6)
    images = np.array([[1, 0], [-1, 0], [0, 1], [0, 1]], np.float32)
    right = is_right(images, classes, np.array([0, 0, 0, -1]))
    assert right[:3].tolist() == [1, 0, 1] and math.isnan(right[3])


def test_the_baseline_always_answers_the_most_frequent_class() -> None:
    truth = np.array([0, 1, 1, 1, 2, -1])
    assert np.nanmean(majority_class(truth)) == pytest.approx(3 / 5)
    balanced = case_interval(majority_class(truth), np.arange(6), strata=truth).mean
    assert balanced == pytest.approx(1 / 3)


def test_a_class_with_prompts_of_its_own_does_not_use_the_templates(tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text("modality: {ct: [a CT, tomography], mri: an MRI}")
    (tmp_path / "templates.txt").write_text("# a comment\n{} image\n\nan image: {}\n")
    config = EvalConfig(
        zero_shot=("modality",),
        prompts=read_prompts(tmp_path / "prompts.yaml"),
        templates=read_templates(tmp_path / "templates.txt"),
    )
    (task,) = tasks(config, lambda _: ["x-ray", "ct", "", "mri"], ["modality"])
    assert task.classes == ("ct", "mri", "x-ray")
    assert task.prompts == (("a CT", "tomography"), ("an MRI",), ("x-ray image", "an image: x-ray"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modality: [ct]", "must map labels to classes"),
        ("modality: {ct: []}", "must be a prompt or a list of prompts"),
        ("modality: {ct: ", "is not valid YAML"),
        ("modality: {pet: a PET}", 'modality has no value "pet"'),
        ("region: {chest: a chest}", '"region" is not classified: add --zero-shot region'),
    ],
)
def test_prompts_that_fit_nothing_are_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        prompts = read_prompts(tmp_path / "prompts.yaml")
        tasks(
            EvalConfig(zero_shot=("modality",), prompts=prompts),
            lambda _: ["ct", "mri"],
            ["modality", "region"],
        )
    assert message in str(error.value) and "\n" not in str(error.value)
