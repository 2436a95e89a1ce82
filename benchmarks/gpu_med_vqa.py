"""AMiF's Med-VQA model on a GPU: training steps per second, peak memory, milliseconds per answered question.

    PYTHONPATH=. python benchmarks/gpu_med_vqa.py                                 # preset paper, batch 64, bf16
    PYTHONPATH=. python benchmarks/gpu_med_vqa.py --preset tiny --device cpu --precision no --repeats 2

Random weights, drawn images, questions and answers with the lengths of VQA-RAD's: what is measured depends on sizes
only, so neither data nor weights nor a network are needed. A question is answered by the whole way: image, question,
and the ranking of all candidates, exactly and by the short-list of AMiF's released code.
"""

import argparse
import sys
from functools import partial
from typing import Any

import torch
from machine import RESULTS, command, head, milliseconds, peak_memory_mb, report
from med_vqa_ranking import END, FIRST, PACKAGES, START, VOCABULARY, build, drawn_candidates, padded
from torch import Tensor

from training.med_vqa.answer.ranking import Ranker, shortlist

QUESTION_LENGTHS = (4, 21)
"""Word pieces of a question, both special ones included: VQA-RAD's quartiles and a little more."""
VQA_RAD_QUESTIONS = 3_064
"""Training questions of the protocol ``paper``."""
PAPER_EPOCHS = 60


def drawn_batch(batch: int, side: int, candidates: tuple[tuple[int, ...], ...]) -> dict[str, Tensor]:
    """Arguments of the model's forward pass."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(*QUESTION_LENGTHS, (batch,), generator=draw).tolist()
    questions = [
        [START, *torch.randint(FIRST, 900, (length - 2,), generator=draw).tolist(), END] for length in lengths
    ]
    chosen = torch.randint(len(candidates), (batch,), generator=draw).tolist()
    texts = {
        "question": questions,
        "answer": [[START, *candidates[row], END] for row in chosen],
        "knowledge": [list(candidate) for candidate in candidates],
    }
    found = {"images": torch.randn(batch, 3, side, side, generator=draw)}
    for name, rows in texts.items():
        found[f"{name}_ids"], found[f"{name}_mask"] = padded(rows)
    return found


class Bench:
    """Turns of training and answering on one device.

    Args:
        options: of the command.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device(options.device)
        self.model = build(options.preset).to(self.device)  # type: ignore[arg-type]  # transformers' wrapper hides the argument
        self.candidates = drawn_candidates(options.candidates)
        drawn = drawn_batch(options.batch, self.model.vision.image_size, self.candidates)
        self.batch = {name: value.to(self.device) for name, value in drawn.items()}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=2e-5, fused=True)
        mixed = options.precision == "bf16"
        self.cast = partial(torch.autocast, self.device.type, torch.bfloat16, enabled=mixed)
        self.k = options.k

    def step(self) -> None:
        """Forward, backward, gradient norm and AdamW on one batch."""
        self.model.train()
        with self.cast():
            loss = self.model(**self.batch, with_logits=False)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.inference_mode()
    def exact(self) -> None:
        """One question, all candidates."""
        ranker = Ranker(self.model.train(False), self.candidates, START, END)
        with self.cast():
            ranker.log_likelihoods(self._encoded()).argmax(dim=1).tolist()

    @torch.inference_mode()
    def listed(self) -> None:
        """One question, the short-list."""
        self.model.train(False)
        with self.cast():
            encoded = self._encoded()
            logits = self.model.next_token_logits(
                torch.full((1, 1), START, device=self.model.device), encoded
            )
            rows = shortlist(logits, self.candidates, self.k)[0].tolist()
            ranker = Ranker(self.model, tuple(self.candidates[row] for row in rows), START, END)
            ranker.log_likelihoods(encoded).argmax(dim=1).tolist()

    def _encoded(self) -> Any:
        one = {name: value[:1] for name, value in self.batch.items() if not name.startswith("knowledge")}
        knowledge = self.model.knowledge(self.batch["knowledge_ids"], self.batch["knowledge_mask"])
        tokens = self.model.image_tokens(one["images"])
        encoded = self.model.encode(tokens, one["question_ids"], one["question_mask"], knowledge)
        return self.model.precompute_cross_attention_kv(encoded)


def main() -> int:
    """Measure, print, and write the JSON file."""
    parser = command(__doc__, "gpu_med_vqa", device="cuda", candidates=450, repeats=20)
    parser.add_argument("--preset", choices=tuple(VOCABULARY), default="paper")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--batch", type=int, default=64, help="questions of a step")
    parser.add_argument("--k", type=int, default=32, help="candidates of a short-list")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("error: no CUDA device here; --device cpu --preset tiny tries the script out\n")
        return 2
    bench = Bench(options)
    step = milliseconds(bench.step, options.repeats) / 1e3
    steps = PAPER_EPOCHS * (VQA_RAD_QUESTIONS // options.batch)
    settings = {name: getattr(options, name) for name in ("preset", "precision", "batch", "candidates")}
    result = head(PACKAGES, bench.device, **settings) | {
        "parameters": sum(parameter.numel() for parameter in bench.model.parameters()),
        "steps_per_s": round(1 / step, 3),
        "peak_memory_step_mb": peak_memory_mb(bench.step),
        "projected_hours_vqa_rad_60_epochs": round(steps * step / 3600, 3),
        "ms_per_question_exact": round(milliseconds(bench.exact, options.repeats), 1),
        f"ms_per_question_shortlist_{options.k}": round(milliseconds(bench.listed, options.repeats), 1),
        "peak_memory_exact_mb": peak_memory_mb(bench.exact),
        "paper": "270 ms per question, fine-tuning 8 h on two A100 (supplement, all data sets)",
    }
    trial = options.device != "cuda" and options.out == RESULTS / "gpu_med_vqa.json"
    report(result, None if trial else options.out)  # a trial on a CPU is no GPU's result
    return 0


if __name__ == "__main__":
    sys.exit(main())
