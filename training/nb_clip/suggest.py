"""Suggest scorer and policy for a store: ``kg-targets suggest STORE --batch-size 256``.

What a batch's targets would be like is counted on this store; which scorer finds more was measured without training
(docs/results/targets.md). How much training gains from either is not known yet: docs/results/findings.md.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from kg_targets.losses.policies import Pairs, evidence_policy, pair_structure
from kg_targets.store import TargetStore, TeacherStore
from kg_targets.store.factors import lengths
from training.command import Work, add_json, print_json
from training.errors import ConfigError
from training.nb_clip.config import PolicyConfig

LEAST_RELATED = 0.05
"""Share of rows with a soft positive below which there is nothing to soften by."""
STRANGER = 0.99
"""Cosine above which two images of different cases are as good as identical to a store, however long its factors."""
BATCHES = 8
_RESULTS = "docs/results/targets.md"
_BEFORE = (
    "with both, as by default, images of the same organ are found more often: P@30 +8.3 points [+6.6, +10.1] on MedPix "
    f"({_RESULTS})"
)
_MIXTURE = (
    "where a sentence encoder is at hand, half of it and half the captions' embedding (--scorer mixture) finds more of "
    f"the same modality: P@30 +4.4 points [+2.8, +6.0] on MedPix ({_RESULTS})"
)


@dataclass(frozen=True)
class Suggestion:
    """A policy, what its targets are like on this store, and what is known of the store's scorer."""

    policy: PolicyConfig
    """``identity`` where the store knows too little: train with ``loss.name info_nce`` then."""
    batch_size: int
    own_mass: float
    """Mean probability of the true pair."""
    soft_positives: float
    """Effective number of soft positives, exp(entropy of the soft part), of a row that has any; 0 without."""
    related: float
    """Share of rows that have a soft positive."""
    unknown: float
    """Share of images about which the store knows nothing."""
    strangers: float | None
    """Share of images with a kept neighbour of another case at cosine > 0.99; None where the store keeps no neighbours.
    Not of S, which shrinkage keeps below 0.99 throughout."""
    scorer: str
    """The store's scorer, and what is known to be better."""


def suggest(store: TargetStore, batch_size: int, *, seed: int = 0) -> Suggestion:
    """``evidence`` with α = 0.7 and the store's θ, unless hardly any row of a batch would have a soft positive.

    Why ``evidence``: of the mass that policies take from the true pair, it gives most to images of the same organ and
    modality, it gives none where nothing is similar, and θ makes it independent of the scorer's scale.

    Args:
        store: of the training split.
        batch_size: over all processes, at least 2.
        seed: of the batches looked at.

    Raises:
        ConfigError: the batch size is below 2 or exceeds the store.
    """
    if not 2 <= batch_size <= len(store):
        raise ConfigError(
            f"--batch-size: {batch_size} must be at least 2 and at most {len(store)} (the store's images)"
        )
    policy = PolicyConfig(name="evidence")
    own, effective = [], []
    for similarity, pairs in _blocks(store, batch_size, seed):
        targets = evidence_policy(similarity, store.threshold, policy.alpha, policy.saturation, pairs=pairs)
        soft = targets * pairs.soft_positives
        own.append(1.0 - soft.sum(dim=1))
        shares = soft[soft.sum(dim=1) > 0]
        shares = shares / shares.sum(dim=1, keepdim=True)
        effective.append(torch.exp(-torch.xlogy(shares, shares).sum(dim=1)))
    masses, counts = torch.cat(own), torch.cat(effective)
    related = len(counts) / len(masses)
    enough = related >= LEAST_RELATED
    return Suggestion(
        policy=policy if enough else PolicyConfig(name="identity"),
        batch_size=batch_size,
        own_mass=float(masses.mean()),
        soft_positives=float(counts.mean()) if len(counts) else 0.0,
        related=related,
        unknown=float((~store.known).mean()),
        strangers=_strangers(store),
        scorer=_scorer(store),
    )


def _blocks(store: TargetStore, size: int, seed: int) -> "list[tuple[Tensor, Pairs]]":
    """Similarities of random batches and which pairs may be soft positives."""
    generator = torch.Generator().manual_seed(seed)
    known, cases = torch.as_tensor(store.known), torch.as_tensor(store.cases)
    blocks = []
    for _ in range(BATCHES):
        rows = torch.randperm(len(store), generator=generator)[:size]
        similarity = torch.as_tensor(store.block(rows.numpy()))
        same = cases[rows][:, None] == cases[rows][None, :]
        blocks.append((similarity, pair_structure(similarity, 0, known[rows], known[rows], same)))
    return blocks


def _strangers(store: TargetStore) -> float | None:
    """Share of known images that have a stranger among the neighbours that the store keeps."""
    if not store.kept_neighbors or not store.known.any():
        return None
    kept, scores = (store.column(name).combine_chunks() for name in ("neighbor_rows", "neighbor_scores"))
    rows, others = pc.list_parent_indices(kept).to_numpy(), pc.list_flatten(kept).to_numpy()
    length, cases = lengths(store.factors), store.cases
    cosines = pc.list_flatten(scores).to_numpy() / (length[rows] * length[others])
    strangers = rows[(cases[rows] != cases[others]) & (cosines > STRANGER)]
    return float(np.isin(np.flatnonzero(store.known), strangers).mean())


def _scorer(store: TargetStore) -> str:
    """The store's scorer in words, and what was measured to be better."""
    config: dict[str, Any] = store.manifest["config"]
    name = config["scorer"]
    if name in ("noise", "permuted", "identity"):
        return f"{name}, a control without meaning: build with --scorer ontology to learn from knowledge"
    if name != "ontology":
        return f"{name}; beside the others: {_RESULTS}"
    if not config["use_ontology"] or config.get("flat_ancestors") or config.get("blocks"):
        return f"ontology, not as by default; beside the others: {_RESULTS}"
    part_of, shrinkage = config["part_of"], config["shrinkage"]
    if part_of and shrinkage:
        return f"ontology, with part_of and shrinkage, as by default; {_MIXTURE}"
    if part_of or shrinkage:
        return f"ontology, without {'shrinkage' if part_of else 'part_of'}, which the default has: {_RESULTS}"
    return f"ontology, without part_of and shrinkage; {_BEFORE}"


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets suggest`: what to train with, as comments and a block of a training config."""
    parser.description = "Suggest scorer and target policy for a store, and say what its targets are like."
    parser.add_argument("store", help="folder of the training split's target store")
    parser.add_argument(
        "--batch-size", type=int, default=128, help="images per step, over all processes, ≥ 2"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the batches looked at")
    add_json(parser)
    return _suggest


def _suggest(given: argparse.Namespace) -> None:
    store = TargetStore.open(given.store)
    if isinstance(store, TeacherStore):
        raise ConfigError(f"{store.path} is a teacher's store, whose policy is softmax: docs/teachers.md")
    found = suggest(store, given.batch_size, seed=given.seed)
    if given.json:
        print_json(asdict(found))
    else:
        sys.stdout.write(_as_yaml(found))


def _as_yaml(found: Suggestion) -> str:
    close = (
        "" if found.strangers is None else f"; {found.strangers:.1%} have a stranger, cosine > {STRANGER:g}"
    )
    lines = [
        f"# scorer: {found.scorer}",
        f"# images: nothing is known about {found.unknown:.1%}{close}",
    ]
    if found.policy.name == "identity":
        lines.append(
            f"# policy: only {found.related:.1%} of rows in batches of {found.batch_size:,} have a soft positive: "
            "there is nothing to soften by"
        )
        return "\n".join([*lines, "loss:", "  name: info_nce", ""])
    lines.append(
        f"# policy: in batches of {found.batch_size:,} the own caption keeps {found.own_mass:.2f} on average; the rest "
        f"goes to {found.soft_positives:.1f} soft positives; {1 - found.related:.1%} of rows have none"
    )
    return "\n".join(
        [*lines, "policy:", f"  name: {found.policy.name}", f"  alpha: {found.policy.alpha:g}", ""]
    )
