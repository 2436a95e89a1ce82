"""Exact ranking of a data set's questions beside the decoder's bare forward pass for the same tokens.

    PYTHONPATH=. python benchmarks/med_vqa_ranking.py [--preset small|paper|tiny] [--rounds 3] [--threads 2]

Random weights, drawn candidates with lengths and shared beginnings as VQA-RAD's training answers, drawn encoder states:
what is measured depends on sizes only. In each turn the lanes answer the same few questions, in shuffled order:

ranking       log-likelihoods of all candidates, their softmax and the best one, from the encoder states
packed        ``MedVQAModel.decode`` of the very tokens that ranking decodes, chunk by chunk; logits, and nothing more
packed_again  the same once more: what two equal turns differ by on this machine
flat          ``decode`` of every candidate by itself, padded in batches of about one length; logits, and nothing more

Every turn is told by the clock and by the CPU time of the process, which neighbours change less (with a GPU it
says nothing). Every lane makes the decoder's keys and values of the encoder states once per question. What ranking
prepares once for all questions is timed apart and counts in the ratio of a round.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from machine import command, head, report
from torch import Tensor

from training.clip.load import model_config
from training.med_vqa import MedVQAConfig, MedVQAModel
from training.med_vqa.answer.ranking import Ranker
from training.med_vqa.answer.trie import CHUNK, Pack, Trie, pack
from training.med_vqa.model.config import PRESETS
from training.med_vqa.model.modeling import Encoded
from training.med_vqa.model.vision import square

PACKAGES = ("torch", "transformers", "numpy")
START, END, FIRST = 1, 2, 3
LENGTHS = (62, 88, 97, 62, 36, 29, 18, 19, 17, 9, 9, 3, 1, 1, 2, 1, 2)
"""How many of VQA-RAD's distinct training answers have 1, 2, … word pieces of MiniLM; a few longer ones left out."""
WORDS = 800
"""Distinct word pieces in them."""
VOCABULARY = {"paper": 28_996, "small": 30_522, "tiny": 1_000}
IMAGE_TOKENS = {"paper": 325, "small": 17, "tiny": 5}


def drawn_candidates(count: int) -> tuple[tuple[int, ...], ...]:
    """Distinct token sequences; frequent words are frequent, so that beginnings are shared."""
    rng = np.random.default_rng(0)
    often = 1 / (np.arange(WORDS) + 10)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < count:
        length = 1 + rng.choice(len(LENGTHS), p=np.array(LENGTHS) / sum(LENGTHS))
        found[tuple((FIRST + rng.choice(WORDS, size=length, p=often / often.sum())).tolist())] = None
    return tuple(found)


def build(preset: str, decoder_only: bool = False) -> MedVQAModel:
    """A preset's model with random weights, in eval mode.

    Args:
        preset: its sizes.
        decoder_only: question encoder and co-attention of one layer each: nothing asks them.
    """
    sizes = PRESETS[preset]
    cfg = model_config(sizes.vision)
    if "timm_model_name" in cfg["vision_cfg"]:
        cfg["vision_cfg"]["timm_model_pretrained"] = False
    if sizes.image_size is not None:
        cfg["vision_cfg"]["image_size"] = sizes.image_size
    side = square(cfg["vision_cfg"]["image_size"])
    bert = {
        "vocab_size": VOCABULARY[preset], "hidden_size": sizes.text_width, "num_attention_heads": sizes.text_heads,
        "intermediate_size": sizes.text_ffn,
    }  # fmt: skip
    torch.manual_seed(0)
    model = MedVQAModel(
        MedVQAConfig(
            clip={"model_cfg": cfg, "preprocess_cfg": {"size": side, "mean": [0.5] * 3, "std": [0.5] * 3}},
            text=bert | {"num_hidden_layers": 1 if decoder_only else sizes.text_layers},
            decoder=bert | {"num_hidden_layers": sizes.decoder_layers},
            cross_attention_layers=sizes.cross_attention_layers,
            hidden_size=sizes.hidden_size,
            co_attention_layers=1 if decoder_only else sizes.co_attention_layers,
            co_attention_heads=sizes.heads,
            co_attention_ffn=sizes.ffn,
            gate_heads=sizes.heads,
            gate_ffn=sizes.ffn,
        )
    )
    return model.train(False)


class Lanes:
    """The decoder's work on a few questions in several ways.

    Args:
        model: the model.
        sequences: the candidates.
        options: of the command.
    """

    def __init__(
        self, model: MedVQAModel, sequences: tuple[tuple[int, ...], ...], options: argparse.Namespace
    ) -> None:
        self.model, self._sequences, self._chunk = model, sequences, options.chunk
        self._device = model.device
        self.packs = pack(Trie.of(sequences, START), END, options.chunk)
        self._inputs = [self._tensors(one) for one in self.packs]
        self._flat = self._padded(options.flat_rows)
        self._bare_batch = options.bare_batch
        self.ranker: Ranker | None = None

    def prepare(self) -> None:
        """What ranking does once for all questions."""
        self.ranker = Ranker(self.model, self._sequences, START, END, self._chunk)

    def ranking(self, encoded: Encoded) -> None:
        """Ours."""
        assert self.ranker is not None
        scores = self.ranker.log_likelihoods(self.model.precompute_cross_attention_kv(encoded))
        scores.softmax(dim=1).max(dim=1).values.tolist()

    def packed(self, encoded: Encoded) -> None:
        """The limit."""
        for start in range(0, len(encoded), self._bare_batch):
            part = _rows(encoded, start, start + self._bare_batch)
            remembered = self.model.precompute_cross_attention_kv(part)
            for tokens, mask, positions in self._inputs:
                self.model.decode(tokens.expand(len(part), -1), remembered, mask, positions)

    def flat(self, encoded: Encoded) -> None:
        """Candidate by candidate."""
        for row in range(len(encoded)):
            one = self.model.precompute_cross_attention_kv(_rows(encoded, row, row + 1))
            for tokens in self._flat:
                self.model.decode(tokens, _repeated(one, len(tokens)))

    def _tensors(self, one: Pack) -> tuple[Tensor, Tensor, Tensor]:
        tokens, positions = (
            torch.as_tensor(part, device=self._device) for part in (one.tokens, one.positions)
        )
        return tokens[None], torch.as_tensor(one.mask, device=self._device), positions

    def _padded(self, rows: int) -> list[Tensor]:
        by_length = sorted(self._sequences, key=len)
        batches = [by_length[start : start + rows] for start in range(0, len(by_length), rows)]
        return [
            torch.tensor(
                [[START, *ids, *[0] * (len(batch[-1]) - len(ids))] for ids in batch], device=self._device
            )
            for batch in batches
        ]

    @property
    def flat_tokens(self) -> int:
        """Tokens of all candidates, padding left out."""
        return sum(len(ids) + 1 for ids in self._sequences)


def _rows(encoded: Encoded, start: int, stop: int) -> Encoded:
    return encoded.map(lambda part: part[start:stop])


def _repeated(one: Encoded, times: int) -> Encoded:
    return one.map(lambda part: part.expand(times, *part.shape[1:]))


def timed(device: torch.device, work: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock seconds of ``work``, the device's share included, and this process's CPU seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began, used = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - used


def drawn_questions(model: MedVQAModel, options: argparse.Namespace) -> list[Encoded]:
    """Encoder states of all questions, a batch each, with as much padding as questions of 4 to 20 tokens have."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for start in range(0, options.questions, options.batch):
        count = min(options.batch, options.questions - start)
        lengths = torch.randint(4, 21, (count,), generator=generator)
        longest = int(lengths.max())
        mask = torch.arange(longest + options.image_tokens)[None].expand(count, -1) >= longest
        mask = mask | (torch.arange(longest + options.image_tokens)[None] < lengths[:, None])
        states = torch.randn(count, mask.shape[1], model.config.hidden_size, generator=generator)
        batches.append(Encoded(states.to(model.device), mask.to(model.device)))
    return batches


@torch.inference_mode()
def measure(lanes: Lanes, questions: list[Encoded], options: argparse.Namespace) -> dict[str, Any]:
    """Ratios of turns and rounds."""
    device, order = lanes.model.device, random.Random(0)
    work = {
        "ranking": lanes.ranking,
        "packed": lanes.packed,
        "packed_again": lanes.packed,
        "flat": lanes.flat,
    }
    lanes.prepare()
    for lane in work.values():
        lane(questions[0].map(lambda rows: rows[:1]))
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    rounds, prepared = list[float](), list[float]()
    for _ in range(options.rounds):
        prepared.append(timed(device, lanes.prepare)[0])
        spent = {name: 0.0 for name in work}
        for number, encoded in enumerate(questions):
            names = [name for name in work if name != "flat" or number < options.flat_batches]
            order.shuffle(names)
            for name in names:
                turns[name].append(timed(device, partial(work[name], encoded)))
                spent[name] += turns[name][-1][0]
        rounds.append((prepared[-1] + spent["ranking"]) / spent["packed"])
    return {
        "ranking_with_preparation_to_packed_by_round": [round(ratio, 4) for ratio in rounds],
        "ranking_with_preparation_to_packed": round(statistics.median(rounds), 4),
        **{
            clock: {
                f"{name}/packed": spread(ratios(turns, name, place, options))
                for name in work
                if name != "packed"
            }
            for place, clock in enumerate(("by_turn", "by_turn_cpu_time"))
        },
        "seconds_of_a_round": {
            "preparation": round(statistics.median(prepared), 3),
            **{
                name: round(sum(wall for wall, _ in turns[name]) / options.rounds, 3)
                for name in work
                if name != "flat"
            },
        },
    }


def ratios(
    turns: dict[str, list[tuple[float, float]]], name: str, clock: int, options: argparse.Namespace
) -> list[float]:
    """A lane's turns over the same turns of ``packed``; ``flat`` has its turns at the beginning of each round."""
    own, packed = turns[name], turns["packed"]
    per_round = len(packed) // options.rounds
    had = len(own) // options.rounds
    peers = [packed[number * per_round + turn] for number in range(options.rounds) for turn in range(had)]
    return [one[clock] / peer[clock] for one, peer in zip(own, peers, strict=True)]


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    first, middle, third = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": round(middle, 4), "quartile_1": round(first, 4), "quartile_3": round(third, 4)}


def main() -> None:
    """Measure, show, and write ``benchmarks/results/med_vqa_ranking.json``."""
    parser = command(__doc__, "med_vqa_ranking")
    add = parser.add_argument
    add("--preset", choices=sorted(VOCABULARY), default="small")
    add("--questions", type=int, default=451)
    add("--candidates", type=int, default=450)
    add("--image-tokens", type=int, help="of an image; by default the preset's")
    add("--batch", type=int, default=16, help="questions that ranking decodes at a time, and of a turn")
    add("--bare-batch", type=int, default=8, help="questions that the bare lanes decode at a time")
    add("--chunk", type=int, default=CHUNK)
    add("--flat-rows", type=int, default=64, help="candidates that the flat lane decodes at a time")
    add("--flat-batches", type=int, default=1, help="turns of a round in which the flat lane takes part")
    add("--rounds", type=int, default=3)
    add("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    options.image_tokens = options.image_tokens or IMAGE_TOKENS[options.preset]
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build(options.preset, decoder_only=True).to(device)  # type: ignore[arg-type]  # the wrapper hides the argument
    sequences = drawn_candidates(options.candidates)
    lanes = Lanes(model, sequences, options)
    with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
        measured = measure(lanes, drawn_questions(model, options), options)
    settings = {name: value for name, value in vars(options).items() if name not in ("out", "threads")}
    result = head(PACKAGES, device, **settings) | {
        "sizes": asdict(PRESETS[options.preset]) | {"vocabulary": VOCABULARY[options.preset]},
        "tokens_of_a_question": {
            "unique_prefixes": lanes.ranker.prefixes if lanes.ranker else 0,
            "packed": sum(len(one.tokens) for one in lanes.packs),
            "flat": lanes.flat_tokens,
        },
        **measured,
    }
    report(result, options.out)


if __name__ == "__main__":
    main()
