"""Every figure of docs/statistics.md comes from the committed results of benchmarks/paired_tests.py."""

import json
import re
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest

from tests import REPOSITORY

PAGE = (REPOSITORY / "docs" / "statistics.md").read_text(encoding="utf-8")
PROSE = re.sub(r"\s+", " ", PAGE)
RESULT: dict[str, Any] = json.loads(
    (REPOSITORY / "benchmarks" / "results" / "paired_tests.json").read_text(encoding="utf-8")
)


@pytest.fixture
def benchmark_(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import paired_tests  # type: ignore[import-not-found]

    return paired_tests  # type: ignore[no-any-return]


def of(name: str, seeds: int, place: int, kept: Iterable[str]) -> list[float]:
    """False positives, coverage or power in cells, for every size of seed effects."""
    return [
        shares[place]
        for cell in kept
        for key, shares in RESULT["cells"][cell].items()
        if key.startswith(f"{seeds} ") and key.endswith(f" {name}")
    ]


def cells(effect: str, score: str = "", least: int = 20, most: int = 600) -> list[str]:
    found = {key: json.loads(key) for key in RESULT["cells"]}
    return [
        key
        for key, (_, of_cell, kind, size) in found.items()
        if of_cell == effect and score in kind and least <= size <= most
    ]


def per_cent(share: float) -> str:
    """With the digits of the page's tables."""
    return f"{100 * float(f'{share:.3f}'):.1f}"


def span(values: Iterable[float]) -> str:
    shares = list(values)
    return f"{per_cent(min(shares))} to {per_cent(max(shares))}"


def coverage(values: Iterable[float]) -> str:
    shares = list(values)
    return f"{min(shares):.3f} to {max(shares):.3f}".replace("0.", ".")


def test_the_tables_are_those_of_the_results(benchmark_: ModuleType) -> None:
    begin, end = benchmark_.MARKS
    assert PAGE.split(begin)[1].split(end)[0] == benchmark_.tables(RESULT)
    assert RESULT["draws"] >= 10_000 and f"--draws {RESULT['draws']}" in PAGE


def test_what_the_page_says_of_conservative_cells_is_in_the_results() -> None:
    assert f"it calls {span(of('paired_test', 3, 0, cells('none')))} % different instead of 5" in PROSE
    ours = [span(of("paired_test", seeds, 0, cells("independent"))) for seeds in (3, 4, 5)]
    assert f"{ours[0]} % with three seeds, {ours[1]} with four, {ours[2]} with five" in PROSE
    before = [span(of("version 0.2.0", seeds, 0, cells("independent"))) for seeds in (3, 4, 5)]
    assert f"(version 0.2.0: {before[0]}, {before[1]} and {before[2]})" in PROSE
    gain = {
        name: [f"{100 * RESULT['gain'][f'{seeds} {name}'][1]:.0f}" for seeds in (3, 4, 5)]
        for name in ("paired_test", "version 0.2.0")
    }
    found = ["{}, {} and {}".format(*shares) for shares in gain.values()]
    assert f"found in {found[0]} % of samples (before: {found[1]})" in PROSE


def test_what_the_page_says_of_liberal_cells_is_in_the_results() -> None:
    three, four, five = (
        per_cent(max(of("paired_test", seeds, 0, cells("shared × 3")))) for seeds in (3, 4, 5)
    )
    assert f"three seeds have up to {three} % false positives, four {four} and five {five}." in PROSE


def test_the_page_names_all_cells_whose_coverage_is_below_the_level() -> None:
    of_all_seeds = {
        key: [shares[1] for name, shares in cell.items() if name.endswith(" paired_test")]
        for key, cell in RESULT["cells"].items()
    }
    low = {key for key, shares in of_all_seeds.items() if min(shares) < 0.93}
    ten, twenty = cells("shared", "binary", 10, 10), cells("shared × 3", "binary", 20, 20)
    rest = low - {*ten, *twenty}
    assert {*ten, *twenty} <= low and rest <= set(cells("shared × 3"))
    assert min(min(of("paired_test", 3, 1, [key])) for key in rest) == pytest.approx(0.929, abs=5e-4)
    assert all(min(of("paired_test", seeds, 1, rest)) >= 0.93 for seeds in (4, 5))
    smallest = [[min(of("paired_test", seeds, 1, [key])) for seeds in (3, 4, 5)] for key in (*ten, *twenty)]
    assert f"ten cases with seed effects ({coverage(smallest[0])})" in PROSE
    assert f"three times the error of cases ({coverage(smallest[1])})" in PROSE


def test_the_limit_of_percentile_intervals_follows_from_the_results() -> None:
    means = RESULT["intervals"]
    few = coverage(means["accuracy 80 %"][size]["t"] for size in ("10", "15", "20"))
    rare = coverage(means["accuracy 95 %"][size]["t"] for size in ("40", "60", "100"))
    assert f"{few} up to twenty cases at an accuracy of 80 %" in PROSE
    assert f"{rare} from 40 to 100 cases at 95 %" in PROSE
    others = [
        kinds["t"]
        for name, by_size in means.items()
        for size, kinds in by_size.items()
        if (name, size) not in {("accuracy 80 %", "10"), ("accuracy 80 %", "15"), ("accuracy 80 %", "20")}
        and (name, size) not in {("accuracy 95 %", "40"), ("accuracy 95 %", "60"), ("accuracy 95 %", "100")}
    ]
    assert min(others) >= 0.93
    ahead = {
        (name, int(size)): round(kinds["t"] - kinds["percentiles"], 3)
        for name, by_size in means.items()
        for size, kinds in by_size.items()
    }
    behind = {place for place, by in ahead.items() if by < 0}
    assert behind == {("accuracy 95 %", 40), ("accuracy 95 %", 60)}
    assert f"t is ahead by up to {max(ahead.values()):.3f}".replace("0.", ".") in PROSE
    assert max(by for (_, size), by in ahead.items() if size >= 200) <= 0.005
