"""``kg-targets diff A B``: what another ontology, extractor or scorer changed: concepts, pairs, and by how much.

Images are those that both stores have, by id. Similarities are compared on pairs drawn at random, of different cases:

    change of a pair = S_B − S_A;    means with 95 % intervals from a bootstrap over cases (weights w_i·w_j)
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from kg_targets.errors import ConfigError, StoreError, printable
from kg_targets.scoring.factors import pair_similarities
from kg_targets.store import TargetStore
from pipelines.audit.pairs import Pairs, different_case_pairs
from training.checks import all_within
from training.command import Work, add_json, print_json
from training.statistics.intervals import FloatArray, IntArray
from training.statistics.pair_correlation import PairWeights

DRAWS = 500
"""Bootstrap samples."""
LARGE = 0.1
"""A change of S that is called large."""
_SETTINGS = ("code_version", "config", "ontology", "fit", "mixture")
_LEFT_OUT = ("ontology.report", "ontology.fingerprint")


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets diff`."""
    parser.description = (
        "What another ontology, extractor or scorer changed: settings, concepts, pairs of images."
    )
    option = parser.add_argument
    option("before", type=Path, metavar="A", help="folder of a target store")
    option("after", type=Path, metavar="B", help="another of the same data set")
    option("--pairs", type=int, default=100_000, help="pairs of images drawn")
    option("--shown", type=int, default=10, help="concepts and pairs listed of each kind")
    option("--seed", type=int, default=0, help="of the pairs and the intervals")
    add_json(parser)
    return _diff


def _diff(options: argparse.Namespace) -> None:
    all_within("--", options, pairs=(1, 10_000_000), shown=(0, 10_000), seed=(0, 2**32 - 1))
    stores = [TargetStore.open(path) for path in (options.before, options.after)]
    found = difference(stores[0], stores[1], options.pairs, options.shown, options.seed)
    if options.json:
        print_json(found)
    else:
        sys.stdout.write("\n".join(lines(found)) + "\n")


@dataclass(frozen=True)
class Common:
    """The images that two stores have in common: the rows of each, and the cases of the first."""

    rows: tuple[IntArray, IntArray]
    cases: IntArray


def difference(before: TargetStore, after: TargetStore, pairs: int, shown: int, seed: int) -> dict[str, Any]:
    """What differs between two stores, as plain values.

    Args:
        before, after: stores of knowledge, of the same images at least in part.
        pairs: pairs of images to draw.
        shown: concepts and pairs to list of each kind.
        seed: of the pairs and the intervals.

    Raises:
        StoreError: a store is a teacher's.
        ConfigError: the stores have no two images of different cases in common.
    """
    for store in (before, after):
        if store.kind == "teacher":
            raise StoreError(
                f"{store.path} is a teacher's store, which has no concepts: compare stores of knowledge"
            )
    common = _common(before, after)
    drawn = different_case_pairs(common.cases, pairs, np.random.default_rng(seed))
    return {
        "stores": [str(before.path), str(after.path)],
        "images": {
            "common": len(common.cases),
            "only_before": len(before) - len(common.cases),
            "only_after": len(after) - len(common.cases),
        },
        "same_content": before.fingerprint == after.fingerprint,
        "settings": _settings(before, after),
        "concepts": _concepts(before, after, common, shown),
        "pairs": _pairs(before, after, common, drawn, shown, seed),
    }


def _common(before: TargetStore, after: TargetStore) -> Common:
    place = {name: row for row, name in enumerate(after.image_ids)}
    both = [(row, place[name]) for row, name in enumerate(before.image_ids) if name in place]
    rows = np.array(both, np.int64).reshape(-1, 2)
    cases = np.unique(before.cases[rows[:, 0]], return_inverse=True)[1]
    if not len(rows) or not cases.max(initial=0):
        raise ConfigError(
            f"{before.path} and {after.path} have no two images of different cases in common: compare stores of one "
            "data set"
        )
    return Common((rows[:, 0], rows[:, 1]), cases)


def _settings(before: TargetStore, after: TargetStore) -> list[dict[str, Any]]:
    """What the stores were built with, where it differs."""
    flat = [
        {
            key: value
            for name in _SETTINGS
            for key, value in _flat(name, store.manifest.get(name))
            if key not in _LEFT_OUT
        }
        for store in (before, after)
    ]
    names = sorted(flat[0].keys() | flat[1].keys())
    values = [(name, flat[0].get(name), flat[1].get(name)) for name in names]
    return [{"setting": name, "before": one, "after": other} for name, one, other in values if one != other]


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    return [pair for key, inner in value.items() for pair in _flat(f"{name}.{key}", inner)]


def _concepts(before: TargetStore, after: TargetStore, common: Common, shown: int) -> dict[str, Any]:
    """Images that assert each concept, in both stores, and images whose concepts changed."""
    names = {
        cui: name
        for store in (before, after)
        for cui, name in zip(store.concepts["cui"], store.concepts["name"], strict=True)
    }
    columns = {cui: column for column, cui in enumerate(sorted(names))}
    one, other = (
        _over(store, columns)[rows] for store, rows in zip((before, after), common.rows, strict=True)
    )
    change = sparse.csr_array(other - one)
    change.eliminate_zeros()
    counts = [np.asarray(matrix.sum(axis=0)).ravel().astype(int) for matrix in (one, other)]
    gained = np.asarray((change > 0).sum(axis=0)).ravel().astype(int)
    lost = np.asarray((change < 0).sum(axis=0)).ravel().astype(int)
    cuis = list(columns)
    order = sorted(
        np.flatnonzero(gained + lost).tolist(), key=lambda at: (-(gained[at] + lost[at]), cuis[at])
    )
    sizes = [float(matrix.sum() / matrix.shape[0]) for matrix in (one, other)]
    return {
        "per_image": sizes,
        "images_changed": int((np.diff(change.indptr) > 0).sum()),
        "concepts_changed": len(order),
        "most_changed": [
            {
                "cui": cuis[at],
                "name": names[cuis[at]],
                "before": int(counts[0][at]),
                "after": int(counts[1][at]),
                "gained": int(gained[at]),
                "lost": int(lost[at]),
            }
            for at in order[:shown]
        ],
    }


def _over(store: TargetStore, columns: dict[str, int]) -> sparse.csr_array:
    """What each image asserts, float32 [N, C], over the columns of both stores."""
    matrix = store.cui_matrix().tocoo()
    place = np.array([columns[cui] for cui in store.concepts["cui"]], np.int64)
    shape = (len(store), len(columns))
    return sparse.csr_array((matrix.data, (matrix.row, place[matrix.col])), shape=shape)


def _pairs(
    before: TargetStore, after: TargetStore, common: Common, drawn: Pairs, shown: int, seed: int
) -> dict[str, Any]:
    """How the similarity of random pairs changed, and the pairs that changed most."""
    one, other = (
        pair_similarities(store.factors, rows[drawn[0]], rows[drawn[1]])
        for store, rows in zip((before, after), common.rows, strict=True)
    )
    change = other - one
    weights = PairWeights(common.cases[drawn[0]], common.cases[drawn[1]], DRAWS, seed)
    measured = {
        "mean_before": one,
        "mean_after": other,
        "mean_change": change,
        "mean_size_of_change": np.abs(change),
        f"share_changed_by_more_than_{LARGE:g}": (np.abs(change) > LARGE).astype(float),
    }
    varies = bool(one.std() and other.std())
    return {
        "drawn": len(change),
        "seed": seed,
        "bootstrap": DRAWS,
        "measures": _intervals(measured, weights),
        "correlation": float(np.corrcoef(one, other)[0, 1]) if varies else None,
        "quantiles_of_change": {
            f"p{share}": float(np.percentile(change, share)) for share in (1, 5, 25, 50, 75, 95, 99)
        },
        "risen": _listed(before, common, drawn, one, other, np.argsort(-change, kind="stable"), shown),
        "fallen": _listed(before, common, drawn, one, other, np.argsort(change, kind="stable"), shown),
    }


def _intervals(values: dict[str, FloatArray], weights: PairWeights) -> dict[str, dict[str, float]]:
    """Weighted means of the data, with the 2.5th and 97.5th percentile of those of bootstrap samples of cases."""
    table = np.stack(list(values.values()))
    means = []
    for weight in weights.of(np.arange(table.shape[1])):
        if weight.sum():
            means.append(table @ weight / weight.sum())
    data, samples = means[0], np.stack(means[1:] or means)
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    return {
        name: {"mean": float(data[at]), "low": float(low[at]), "high": float(high[at])}
        for at, name in enumerate(values)
    }


def _listed(
    store: TargetStore,
    common: Common,
    drawn: Pairs,
    one: FloatArray,
    other: FloatArray,
    order: IntArray,
    shown: int,
) -> list[dict[str, Any]]:
    """The first pairs of an order, each image once, whose change is one of its direction."""
    found: list[dict[str, Any]] = []
    seen: set[int] = set()
    sign = np.sign(other[order[0]] - one[order[0]])
    for at in order.tolist():
        if len(found) == shown or np.sign(other[at] - one[at]) != sign or not sign:
            break
        left, right = int(common.rows[0][drawn[0][at]]), int(common.rows[0][drawn[1][at]])
        if left in seen or right in seen:
            continue
        seen |= {left, right}
        images = [{"image_id": store.image_ids[row], "caption": store.captions[row]} for row in (left, right)]
        found.append({"before": float(one[at]), "after": float(other[at]), "images": images})
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The same for a terminal."""
    images, concepts, pairs = found["images"], found["concepts"], found["pairs"]
    told = [
        f"A {found['stores'][0]}",
        f"B {found['stores'][1]}",
        f"{images['common']:,} images in both, {images['only_before']:,} only in A, {images['only_after']:,} only in B"
        + ("; the stores are the same" if found["same_content"] else ""),
        "",
        "built with" + ("" if found["settings"] else " the same settings"),
        *(f"  {one['setting']}: {one['before']} → {one['after']}" for one in found["settings"]),
        "",
        f"concepts: {concepts['per_image'][0]:.2f} → {concepts['per_image'][1]:.2f} an image; "
        f"{concepts['images_changed']:,} images ({concepts['images_changed'] / images['common']:.1%}) and "
        f"{concepts['concepts_changed']:,} concepts changed",
    ]
    for one in concepts["most_changed"]:
        counts = f"{one['before']:,} → {one['after']:,} images (+{one['gained']:,} −{one['lost']:,})"
        told.append(f"  {one['cui']} {printable(one['name'])}: {counts}")
    told += [
        "",
        f"pairs: {pairs['drawn']:,} of different cases drawn, seed {pairs['seed']}; [95 % interval over cases, "
        f"{pairs['bootstrap']} bootstrap samples]",
        *(
            f"  {name.replace('_', ' ')}: {one['mean']:.4f} [{one['low']:.4f}, {one['high']:.4f}]"
            for name, one in pairs["measures"].items()
        ),
    ]
    if pairs["correlation"] is not None:
        told.append(f"  correlation of S: {pairs['correlation']:.3f}")
    shares = ", ".join(f"{name} {value:+.3f}" for name, value in pairs["quantiles_of_change"].items())
    told.append(f"  quantiles of the change: {shares}")
    for title, kind in (("risen most", "risen"), ("fallen most", "fallen")):
        told += ["", title] if pairs[kind] else []
        for one in pairs[kind]:
            told.append(f"  {one['before']:.3f} → {one['after']:.3f}")
            told += [f"    {printable(_short(each))}" for each in one["images"]]
    return told


def _short(image: dict[str, str]) -> str:
    caption = image["caption"]
    return f"{image['image_id']}: {caption[:160]}{'…' if len(caption) > 160 else ''}"
