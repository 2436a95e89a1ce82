"""Suggest a policy for a store: ``kg-targets suggest-policy --store FOLDER --batch-size 256``.

What was learned on MedPix (docs/results/search.md) is carried over by what a batch's targets are like, not by the
temperature itself: similarities of another ontology, extractor or batch size lie elsewhere, and the same temperature
would give targets that are nearly hard or nearly uniform (R, ours). A store of noise looks like one of knowledge here.
"""

import argparse
import math
import sys
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from kg_targets.losses.policies import Pairs, fixed_mass_policy, pair_structure
from kg_targets.store import TargetStore
from training.command import Work, add_json, print_json
from training.errors import ConfigError
from training.nb_clip.config import PolicyConfig

ALPHA = 0.7
"""Mass that the true pair keeps: the best on dev of the values tried."""
SOFT_POSITIVES = 7.0
"""Effective number of soft positives, exp(entropy of the soft part), of the best setting on dev."""
LEAST_RELATED = 0.05
"""Share of rows with a soft positive of any similarity below which soft targets are label smoothing."""
BATCHES = 8
TEMPERATURES = (1e-3, 1.0)
"""Range of the temperature, units of similarity."""
_STEPS = 30


@dataclass(frozen=True)
class Suggestion:
    """A policy and why."""

    policy: PolicyConfig
    """``identity`` where the store knows too little: train with ``loss.name info_nce`` then."""
    soft_positives: float
    """Effective number of soft positives of a row that has any, under this policy; 0 for identity."""
    related: float
    """Share of rows that have a soft positive with a similarity above 0."""
    reason: str
    """One sentence."""


def suggest_policy(store: TargetStore, batch_size: int, *, seed: int = 0) -> Suggestion:
    """A policy whose targets are as soft on this store as those that did best on MedPix.

    ``fixed_mass`` with α = 0.7 and the τ at which exp(H), H the entropy of a row's soft part, is 7 on average over rows
    (or as near as the store's similarities allow); found by bisection, since exp(H) rises with τ.

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
    blocks = list(_blocks(store, batch_size, seed))
    soft = [((similarity > 0) & pairs.soft_positives).any(dim=1) for similarity, pairs in blocks]
    related = float(torch.cat(soft).float().mean())
    if related < LEAST_RELATED:
        reason = f"only {related:.1%} of rows have a soft positive with any similarity: there is nothing to soften by"
        return Suggestion(PolicyConfig(name="identity"), 0.0, related, reason)
    low, high = map(math.log, TEMPERATURES)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _soft_positives(blocks, math.exp(middle)) > SOFT_POSITIVES else (middle, high)
        )
    temperature = float(f"{math.exp(low):.2g}")
    found = _soft_positives(blocks, temperature)
    spread = f"soft mass spread over {found:.1f} soft positives in batches of {batch_size:,}"
    reason = f"{spread}, true pairs keep {ALPHA:g} or more"
    policy = PolicyConfig(name="fixed_mass", alpha=ALPHA, temperature=temperature)
    return Suggestion(policy, found, related, reason)


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


def _soft_positives(blocks: "list[tuple[Tensor, Pairs]]", temperature: float) -> float:
    """Mean over rows of exp(entropy of the soft part)."""
    counts = []
    for similarity, pairs in blocks:
        soft = fixed_mass_policy(similarity, ALPHA, temperature, pairs=pairs) * pairs.soft_positives
        mass = soft.sum(dim=1, keepdim=True)
        soft = (soft / mass)[mass.squeeze(1) > 0]
        counts.append(torch.exp(-torch.xlogy(soft, soft).sum(dim=1)))
    return float(torch.cat(counts).mean())


def command(parser: argparse.ArgumentParser) -> Work:
    """`kg-targets suggest-policy`: print the policy as a block of a training config."""
    parser.description = (
        "Suggest a target policy for a store: one whose targets are as soft as those that did best on MedPix."
    )
    parser.add_argument("--store", required=True, help="folder of the training split's target store")
    parser.add_argument(
        "--batch-size", type=int, default=128, help="images per step, over all processes, ≥ 2"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the batches looked at")
    add_json(parser)
    return _suggest


def _suggest(given: argparse.Namespace) -> None:
    found = suggest_policy(TargetStore.open(given.store), given.batch_size, seed=given.seed)
    if given.json:
        print_json(asdict(found))
    else:
        sys.stdout.write(_as_yaml(found))


def _as_yaml(found: Suggestion) -> str:
    if found.policy.name == "identity":
        return f"# {found.reason}\nloss:\n  name: info_nce\n"
    policy = found.policy
    return (
        f"# {found.reason}\npolicy:\n  name: {policy.name}\n"
        f"  alpha: {policy.alpha:g}\n  temperature: {policy.used_temperature:g}\n"
    )
