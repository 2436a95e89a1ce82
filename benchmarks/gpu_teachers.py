"""What is computed before training, on a GPU: a teacher's embeddings per second, and TransE's triples per second.

    PYTHONPATH=. python benchmarks/gpu_teachers.py                                  # ViT-B-16, a graph of ROCO's size
    PYTHONPATH=. python benchmarks/gpu_teachers.py --device cpu --model demo-resnet --batch 8 --images 200

Random weights, images, captions and edges: neither data nor weights nor a network are needed. Teachers run in float32,
as a store's factors are computed. Reading images is left out.
"""

import sys

import torch
from machine import RESULTS, command, head, milliseconds, peak_memory_mb, report, seconds
from steps import PACKAGES
from transe import drawn

from kg_targets.transe.fit import fit
from kg_targets.transe.settings import TransESettings
from training.clip.load import Clip, load_clip
from training.teachers.openclip import OpenClipTeacher

CAPTION = "Axial CT of the chest shows a nodule in the left upper lobe, number"


class DrawnTeacher(OpenClipTeacher):
    """A teacher of random weights, which others refuse: it has nothing to teach, at the same cost."""

    def _load(self, source: str, name: str) -> Clip:
        return load_clip(source)


def main() -> int:
    """Measure, print, and write the JSON file; 2 without a card."""
    parser = command(
        __doc__, "gpu_teachers", device="cuda", model="ViT-B-16", batch=256, repeats=8, images=65_000, epochs=3
    )  # fmt: skip
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(
            "error: no CUDA device here; --device cpu --model demo-resnet tries the script out\n"
        )
        return 2
    device = torch.device(options.device)
    settings = {name: getattr(options, name) for name in ("model", "batch", "images", "epochs")}
    result = head(PACKAGES, device, **settings)

    teacher = DrawnTeacher(options.model, "drawn", device)
    side = teacher.clip.preprocess.transforms[0].size
    pixels = torch.randn(options.batch, 3, *([side] * 2 if isinstance(side, int) else side))
    captions = [f"{CAPTION} {number}" for number in range(options.batch)]
    for name, run in {
        "images": lambda: teacher.image(pixels),
        "captions": lambda: teacher.text(captions),
    }.items():
        result[f"teacher_{name}_per_s"] = round(1e3 * options.batch / milliseconds(run, options.repeats), 1)
        result[f"peak_memory_{name}_mb"] = peak_memory_mb(run)

    triples = drawn(options.images, max(20, options.images // 3), 9 * options.images)
    graph = TransESettings(
        device=options.device, seeds=1, epochs=options.epochs, every=options.epochs, holdout=0.0
    )
    taken = seconds(lambda: fit(triples, graph, workers=1))
    result["transe"] = {"edges": len(triples.edges), "nodes": triples.nodes, "dim": graph.dim}
    result["transe_triples_per_s"] = round(len(triples.edges) * options.epochs / taken.wall)
    trial = options.device != "cuda" and options.out == RESULTS / "gpu_teachers.json"
    report(result, None if trial else options.out)  # a trial on a CPU is no GPU's result
    return 0


if __name__ == "__main__":
    sys.exit(main())
