"""Shape of the rows of P that training would see: for each batch size and target policy.

Batches are random, one image per case, so no pair needs masking. Per row, with P_ii the true pair's probability:

    entropy H_i = −Σ_j P_ij ln P_ij (nats)        effective positives = exp(H_i)

Where the data set has labels: the share of the soft mass Σ_i Σ_{j≠i} P_ij that lies on images of the same label.

A row without soft positives (P_ii = 1) is trained as plain InfoNCE. S is symmetric, so text→image rows look the same.
Policies: docs/methods.md#target-policies, from ``kg_targets.losses``; they need torch.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_targets.errors import MissingExtraError
from kg_targets.store import TargetStore
from pipelines.audit.report import Section, Table
from pipelines.audit.subjects import EvaluationSettings, Subjects
from training.retrieval.metrics import label_codes
from training.statistics.intervals import FloatArray, IntArray

Target = Callable[[NDArray[np.float32], NDArray[np.bool_]], FloatArray]
"""S float32 [B, B] and known bool [B] → P float64 [B, B]."""

TITLE = "Shape of the target rows"
_ALPHA, _SOFT_TEMPERATURE, _SATURATION = 0.7, 0.05, 1.0
_STATISTICS = ("diagonal_mass", "effective_positives", "entropy", "without_soft_positives")


def shape_section(subjects: Subjects, settings: EvaluationSettings) -> Section:
    """Mean diagonal mass, effective positives, entropy and share of rows without soft positives."""
    try:
        policies = [_policies(store) for store in subjects.stores]
    except MissingExtraError as error:
        return Section("shape", TITLE, [f"left out: {error}"])
    sizes, lines = _sizes(subjects.case_count, settings.batch_sizes)
    lines.append(
        f"means over {settings.batches} random batches of B images of different cases; softmax(τ), "
        f"fixed_mass(α {_ALPHA}, τ_o {_SOFT_TEMPERATURE}), evidence(the store's θ, α {_ALPHA}, m₀ {_SATURATION:g})"
    )
    reference = subjects.reference
    labels = {name: label_codes(reference.label(name)) for name in reference.labels}
    rows = [
        {
            "policy": name,
            "store": number,
            "batch_size": size,
            **_summary(store, target, batches),
            "soft_mass_on": {
                name: _soft_mass_on(store, target, batches, codes) for name, codes in labels.items()
            },
        }
        for size in sizes
        for batches in [_batches(subjects.cases, size, settings)]
        for number, (store, targets) in enumerate(zip(subjects.stores, policies, strict=True), 1)
        for name, target in targets.items()
    ]
    return Section("shape", TITLE, lines, _table(rows), data={"batches": settings.batches, "rows": rows})


def target_statistics(targets: FloatArray) -> FloatArray:
    """Diagonal mass, effective positives, entropy and share of rows without soft positives, each a mean over rows.

    Args:
        targets: P, [B, B]; rows sum to 1, row i's true pair in column i.

    Returns:
        float64 [4].
    """
    logarithm = np.log(targets, out=np.zeros_like(targets), where=targets > 0)
    entropy = -(targets * logarithm).sum(axis=1)
    diagonal = np.diagonal(targets)
    alone = targets.sum(axis=1) - diagonal < 1e-6
    return np.array([diagonal.mean(), np.exp(entropy).mean(), entropy.mean(), alone.mean()])


def _summary(store: TargetStore, target: Target, batches: list[IntArray]) -> dict[str, Any]:
    """Mean and standard deviation over batches of every statistic."""
    found = np.array([target_statistics(target(store.block(b), store.known[b])) for b in batches])
    spread = found.std(axis=0, ddof=1) if len(found) > 1 else np.zeros(len(_STATISTICS))
    return {
        name: {"mean": float(mean), "sd_of_batches": float(sd)}
        for name, mean, sd in zip(_STATISTICS, found.mean(axis=0), spread, strict=True)
    }


def _soft_mass_on(store: TargetStore, target: Target, batches: list[IntArray], codes: IntArray) -> float:
    """Share of the soft mass of labelled rows that lies on images of the same label, over all batches; NaN without."""
    same = total = 0.0
    for batch in batches:
        targets, own = target(store.block(batch), store.known[batch]), codes[batch]
        soft = np.where((own[:, None] >= 0) & (own[None, :] >= 0), targets, 0.0)
        np.fill_diagonal(soft, 0.0)
        same += float(soft[own[:, None] == own[None, :]].sum())
        total += float(soft.sum())
    return same / total if total > 0 else float("nan")


def _table(rows: list[dict[str, Any]]) -> Table:
    """Policy by policy; within one, batch size by batch size, the stores below one another."""
    names = list(dict.fromkeys(row["policy"] for row in rows))
    measures = ["diagonal mass", "effective positives", "entropy, nats", "% no soft positives"]
    measures += [f"% on same {label}" for label in (rows[0]["soft_mass_on"] if rows else ())]
    lines = []
    for row in sorted(rows, key=lambda row: names.index(row["policy"])):
        diagonal, positives, entropy, alone = (row[name]["mean"] for name in _STATISTICS)
        numbers = [f"{diagonal:.3f}", f"{positives:.2f}", f"{entropy:.2f}", f"{100 * alone:.1f}"]
        shares = ["–" if np.isnan(share) else f"{100 * share:.1f}" for share in row["soft_mass_on"].values()]
        lines.append([row["policy"], f"[{row['store']}]", f"{row['batch_size']:,}", *numbers, *shares])
    return Table(("policy", "store", "B", *measures), lines, left=2)


def _policies(store: TargetStore) -> dict[str, Target]:
    """The policies by name, with their parameters bound."""
    from kg_targets.losses.registry import bind_policy

    bound = {
        "softmax τ=1": bind_policy("softmax", 1.0, _ALPHA, 0.0, _SATURATION),
        "softmax τ=0.1": bind_policy("softmax", 0.1, _ALPHA, 0.0, _SATURATION),
        "fixed_mass": bind_policy("fixed_mass", _SOFT_TEMPERATURE, _ALPHA, 0.0, _SATURATION),
        "uniform": bind_policy("uniform", 1.0, _ALPHA, 0.0, _SATURATION),
        "evidence": bind_policy("evidence", 1.0, _ALPHA, store.threshold, _SATURATION),
    }
    return {name: _target(policy) for name, policy in bound.items()}


def _target(policy: Any) -> Target:
    import torch

    from kg_targets.losses.policies import pair_structure

    def target(similarity: NDArray[np.float32], known: NDArray[np.bool_]) -> FloatArray:
        block, mask = torch.from_numpy(similarity), torch.from_numpy(known)
        pairs = pair_structure(block, known_rows=mask, known_columns=mask)
        return np.asarray(policy(block, pairs=pairs).numpy(), dtype=np.float64)

    return target


def _sizes(cases: int, wanted: tuple[int, ...]) -> tuple[list[int], list[str]]:
    """Batch sizes that one image per case can fill; all cases in one batch if none can."""
    sizes = [size for size in wanted if size <= cases]
    missing = ", ".join(str(size) for size in wanted if size > cases)
    note = f"B = {missing} left out: there are {cases:,} cases"
    if not sizes:
        return [cases], [f"{note}, all of which make one batch here"]
    return sizes, [note] if missing else []


def _batches(cases: IntArray, size: int, settings: EvaluationSettings) -> list[IntArray]:
    """Rows of each batch: ``size`` cases without replacement, one random image of each."""
    generator = np.random.default_rng([settings.seed, 3, size])
    batches = []
    for _ in range(settings.batches):
        shuffled = generator.permutation(len(cases))
        first = np.unique(cases[shuffled], return_index=True)[1]  # a random image of every case
        batches.append(shuffled[generator.permutation(first)[:size]])
    return batches
