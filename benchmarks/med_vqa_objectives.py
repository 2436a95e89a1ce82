"""Med-VQA's pre-training objectives: optimal transport beside the published algorithm, soft labels beside hard ones.

    PYTHONPATH=. python benchmarks/med_vqa_objectives.py [--preset small|paper] [--repeats 25] [--threads 2]

Transport: the plan of a batch of drawn states, in turns with Algorithm 1 of Xie et al. as UNITER's code writes it (two
batched matrix-vector products a step), made to work in place; ``published_again`` is the same once more, what two
equal turns differ by on this machine. Buffers are storages of at least B·N·M floats alive at once, the caller's costs
included, counted by every operation's result.

Soft labels: whole steps of one model and optimizer on a batch in memory, the symmetric image-text term with the
identity, with a teacher's labels (Eq. 5, dense factors of 512), and with those mixed with the knowledge graph's
(evidence policy, sparse factors of ROCO's size). Labels are inside the step here, though a run computes them in a
thread meanwhile.
"""

import os
import weakref
from collections.abc import Callable
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as training/run.py does, before numpy is loaded

import torch
from accelerate import Accelerator
from machine import command, head, interleaved, median_ms, milliseconds, peak_memory_mb, ratio, report
from steps import PACKAGES, Lanes, SyntheticStore
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kg_targets.losses.policies import evidence_policy, pair_structure
from training.med_vqa.model.transport import ipot_plan, transport_loss
from training.med_vqa.pretrain.losses import soft_contrastive_loss
from training.med_vqa.pretrain.soft_labels import teacher_targets

SIZES = {"small": (64, 48, 16, 384), "paper": (256, 62, 324, 768)}
"""Items, words (the longest caption's), places, width."""
BETA, OUTER = 0.5, 50
TAU, SCALE, LAMBDA = 0.07, 100.0, 0.01


def published(cost: Tensor, x_mask: Tensor, y_mask: Tensor) -> Tensor:
    """UNITER's ``ipot``, in place."""
    n, m = (mask.sum(dim=1)[:, None, None] for mask in (x_mask, y_mask))
    padded = ~(x_mask[:, :, None] & y_mask[:, None, :])
    x_far, y_far = (~x_mask)[..., None] * 1e4, (~y_mask)[..., None] * 1e4
    kernel = (cost / -BETA).exp_().masked_fill_(padded, 0.0)
    plan = torch.ones_like(cost).masked_fill_(padded, 0.0)
    sigma = x_mask[..., None] / n
    for _ in range(OUTER):
        plan.mul_(kernel)
        delta = 1 / (m * plan.mT.bmm(sigma) + y_far)
        sigma = 1 / (n * plan.bmm(delta) + x_far)
        plan.mul_(sigma).mul_(delta.mT)
    return plan.masked_fill_(padded, 0.0)


class Buffers(TorchDispatchMode):
    """Most storages of at least ``size`` elements alive at once, among the results of operations."""

    def __init__(self, size: int, *given: Tensor) -> None:
        super().__init__()
        self._size, self.most = size, 0
        self._alive = [weakref.ref(tensor) for tensor in given]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.untyped_storage().nbytes() >= 4 * self._size:
            self._alive.append(weakref.ref(result))
        alive = {tensor.untyped_storage().data_ptr() for ref in self._alive if (tensor := ref()) is not None}
        self.most = max(self.most, len(alive))
        return result


def transport(preset: str, device: torch.device, repeats: int) -> dict[str, Any]:
    """The plan beside the published algorithm's; the whole loss with its gradient."""
    items, words, places, width = SIZES[preset]
    generator = torch.Generator().manual_seed(0)
    text, image = (
        torch.randn(items, count, width, generator=generator).to(device) for count in (words, places)
    )
    lengths = torch.randint(4, words + 1, (items, 1), generator=generator)
    x_mask = (torch.arange(words)[None] < lengths).to(device)
    y_mask = torch.ones(items, places, dtype=torch.bool, device=device)
    unit = [torch.nn.functional.normalize(states, dim=-1) for states in (text, image)]
    cost = 1 - unit[0] @ unit[1].mT
    with torch.no_grad():
        difference = (ipot_plan(cost, x_mask, y_mask) - published(cost, x_mask, y_mask)).abs().max().item()
        lanes: dict[str, Callable[[], Any]] = {
            "ours": lambda: ipot_plan(cost, x_mask, y_mask, BETA, OUTER),
            "published": lambda: published(cost, x_mask, y_mask),
            "published_again": lambda: published(cost, x_mask, y_mask),
        }
        times = interleaved(lanes, repeats)
        buffers = {}
        for name in ("ours", "published"):
            with Buffers(cost.numel(), cost) as counted:
                lanes[name]()
            buffers[name] = counted.most

    def loss() -> None:
        text.requires_grad_(), image.requires_grad_()
        torch.autograd.grad(transport_loss(text, image, x_mask, beta=BETA, outer=OUTER), [text, image])

    return {
        "items_words_places_width": list(SIZES[preset]),
        "plan_ms": round(median_ms(times["ours"]), 2),
        "plan_to_published": ratio(times, "ours", "published"),
        "published_to_itself": ratio(times, "published_again", "published"),
        "largest_difference_times_words_and_places": round(difference * words * places, 7),
        "buffers": buffers,
        "loss_and_gradient_ms": milliseconds(loss, max(3, repeats // 3)),
        "peak_memory_mb": peak_memory_mb(loss),
    }


class SoftLanes(Lanes):
    """Steps of the symmetric image-text term with labels of several sources."""

    def __init__(self, name: str, batch: int, accelerator: Accelerator, store: SyntheticStore) -> None:
        super().__init__(name, batch, accelerator, store)
        self._store = store
        generator = torch.Generator().manual_seed(1)
        drawn = torch.randn(2, len(store), 512, generator=generator)
        self._teacher = torch.nn.functional.normalize(drawn, dim=-1)

    def labels(self, source: str) -> tuple[Tensor, Tensor]:
        """Targets of both directions, on the device."""
        rows, device = next(self._rows), self.accelerator.device
        if source == "hard":
            hard = torch.eye(self.batch, device=device)
            return hard, hard
        block = SCALE * self._teacher[0][rows] @ self._teacher[1][rows].T
        ways = [teacher_targets(way, 0, LAMBDA, SCALE, "cosine") for way in (block, block.T)]
        if source == "mixed":
            similarity = torch.from_numpy(self._store.block(rows.numpy()))
            graph = evidence_policy(similarity, self._store.threshold, pairs=pair_structure(similarity))
            ways = [0.5 * way + 0.5 * graph for way in ways]
        return ways[0].to(device), ways[1].to(device)

    def step(self, source: str) -> Callable[[], None]:
        """Labels, forward, loss, backward, optimizer; nothing runs ahead."""

        def run() -> None:
            image_text, text_image = self.labels(source)
            output = self.model(self.images, self.tokens)
            image, text = output["image_features"], output["text_features"]
            loss = soft_contrastive_loss(image, text, image_text, TAU, 0)
            loss = loss + soft_contrastive_loss(text, image, text_image, TAU, 0)
            self.accelerator.backward(0.5 * loss + 0 * output["logit_scale"])
            self._update()

        return run


def soft_labels(name: str, batch: int, accelerator: Accelerator, repeats: int) -> dict[str, Any]:
    """Whole steps in turns, and labels alone."""
    lanes = SoftLanes(name, batch, accelerator, SyntheticStore(10_000))
    kinds = {"hard": "hard", "hard_again": "hard", "teacher": "teacher", "mixed": "mixed"}
    times = interleaved({lane: lanes.step(source) for lane, source in kinds.items()}, repeats)
    hard = median_ms(times["hard"])
    labels = {
        source: milliseconds(lambda source=source: lanes.labels(source), 30)
        for source in ("hard", "teacher", "mixed")
    }
    return {
        "model": name,
        "batch": batch,
        "step_hard_ms": round(hard, 1),
        "teacher_to_hard": ratio(times, "teacher", "hard"),
        "mixed_to_hard": ratio(times, "mixed", "hard"),
        "hard_to_itself": ratio(times, "hard_again", "hard"),
        "labels_ms": labels,
        "by_parts": {
            source: round(1 + (labels[source] - labels["hard"]) / hard, 4) for source in ("teacher", "mixed")
        },
    }


def main() -> None:
    """Measure, print, and write ``benchmarks/results/med_vqa_objectives.json``."""
    parser = command(__doc__, "med_vqa_objectives")
    add = parser.add_argument
    add("--preset", choices=sorted(SIZES), default="small")
    add("--model", default="demo-resnet", help="open_clip architecture of the soft-label steps")
    add("--batch", type=int, default=64, help="of the soft-label steps")
    add("--repeats", type=int, default=25, help="turns")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    accelerator = Accelerator()
    result = head(PACKAGES, accelerator.device, repeats=options.repeats) | {
        "transport": {options.preset: transport(options.preset, accelerator.device, options.repeats)},
        "soft_labels": soft_labels(options.model, options.batch, accelerator, options.repeats),
    }
    report(result, options.out)


if __name__ == "__main__":
    main()
