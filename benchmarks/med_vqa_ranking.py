"""Exact ranking of a data set's questions beside the decoder's bare forward pass for the same tokens.

    PYTHONPATH=. python benchmarks/med_vqa_ranking.py [--preset small|paper|tiny] [--rounds 3] [--threads 2]

Random weights, drawn candidates with lengths and shared beginnings as VQA-RAD's training answers, drawn encoder states:
what is measured depends on sizes only. In a turn the lanes answer the same few questions, each turn in another order:

ranking       log-likelihoods of all candidates, their softmax and the best one, from the encoder states
packed        ``MedVQAModel.decode`` of the very tokens that ranking decodes, chunk by chunk; logits, and nothing more
packed_again  the same once more: what two equal turns differ by on this machine
flat          ``decode`` of every candidate alone, padded in batches of about one length; logits, and nothing more

Every turn is timed by the clock and by the CPU time of the process, which neighbours change less (with a GPU it
says nothing). Every lane makes the decoder's keys and values of the encoder states once per question. What ranking
prepares once for all questions is timed apart and counts in the ratio of a round. flat and packed have turns of their
own.
"""

import argparse
import statistics
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from machine import Times, command, head, interleaved, report, seconds, spread
from torch import Tensor
from transformers import BertConfig

from training.med_vqa import MedVQAModel
from training.med_vqa.answer.ranking import CHUNK, Ranker, Trie, pack
from training.med_vqa.model.build import architecture, pretrained_vision
from training.med_vqa.model.config import PRESETS, VQAModelConfig
from training.med_vqa.model.modeling import Encoded

PACKAGES = ("torch", "transformers", "numpy")
START, END, FIRST = 1, 2, 3
LENGTHS = (62, 88, 97, 62, 36, 29, 18, 19, 17, 9, 9, 3, 1, 1, 2, 1, 2)
"""Numbers of VQA-RAD's distinct training answers with 1, 2, … word pieces of MiniLM; a few longer ones left out."""
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


def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask of rows of different lengths."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return ids, torch.arange(longest)[None] < torch.tensor([len(row) for row in rows])[:, None]


def build(preset: str, decoder_only: bool = False) -> MedVQAModel:
    """A preset's model with random weights, in eval mode.

    Args:
        preset: its sizes.
        decoder_only: one layer each of question encoder and co-attention, which are not used.
    """
    sizes, fewer = PRESETS[preset], {"text_layers": 1, "co_attention_layers": 1} if decoder_only else {}
    config = VQAModelConfig(preset=preset, text=None, tokenizer="none", **fewer)
    bert = BertConfig(
        vocab_size=VOCABULARY[preset], hidden_size=sizes.text_width, num_attention_heads=sizes.text_heads,
        intermediate_size=sizes.text_ffn, num_hidden_layers=max(sizes.text_layers, sizes.decoder_layers),
    )  # fmt: skip
    clip, _ = pretrained_vision(config)
    torch.manual_seed(0)
    return MedVQAModel(architecture(config, clip, bert)).train(False)


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
        self.model, self._sequences, self._options = model, sequences, options
        self.packs = pack(Trie.of(sequences, START), END, options.chunk)
        self._inputs = [
            [part.to(model.device) for part in (one.tokens, one.mask, one.positions)] for one in self.packs
        ]
        by_length = sorted(sequences, key=len)
        batches = [
            by_length[at : at + options.flat_rows] for at in range(0, len(sequences), options.flat_rows)
        ]
        self._flat = [padded([[START, *ids] for ids in batch])[0].to(model.device) for batch in batches]
        self.ranker: Ranker | None = None

    def prepare(self) -> None:
        """Do what ranking does once for all questions."""
        self.ranker = Ranker(self.model, self._sequences, START, END, self._options.chunk)

    def ranking(self, encoded: Encoded) -> None:
        """Ours."""
        assert self.ranker is not None
        scores = self.ranker.log_likelihoods(self.model.precompute_cross_attention_kv(encoded))
        scores.softmax(dim=1).max(dim=1).values.tolist()

    def packed(self, encoded: Encoded) -> None:
        """The limit."""
        size = self._options.bare_batch
        for start in range(0, len(encoded), size):
            part = encoded.map(lambda states: states[start : start + size])  # noqa: B023 - called at once
            memory, decoder = self.model.precompute_cross_attention_kv(part).memory, self.model.decoder
            for tokens, mask, positions in self._inputs:
                decoder.scores(decoder(tokens.expand(len(part), -1), mask, positions, memory, part.mask))

    def flat(self, encoded: Encoded) -> None:
        """Candidate by candidate."""
        for row in range(len(encoded)):
            part = encoded.map(lambda states: states[row : row + 1])  # noqa: B023 - called at once
            one = self.model.precompute_cross_attention_kv(part)
            for tokens in self._flat:
                repeated = one.map(lambda states: states.expand(len(tokens), *states.shape[1:]))  # noqa: B023
                self.model.decode(tokens, repeated)


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

    def turns(names: tuple[str, ...], batches: list[Encoded]) -> Times:
        coming = {name: iter(batches) for name in names}
        work = {
            name: lambda name=name: getattr(lanes, name.removesuffix("_again"))(next(coming[name]))
            for name in names
        }
        return interleaved(work, len(batches), warmup=0)

    lanes.prepare()
    turns(("ranking", "packed", "flat"), [questions[0].map(lambda rows: rows[:1])])
    prepared = [seconds(lanes.prepare).wall for _ in range(options.rounds)]
    times = turns(("ranking", "packed", "packed_again"), questions * options.rounds)
    flat = turns(("flat", "packed"), questions[: options.flat_batches] * options.rounds)
    walls = {
        name: np.reshape([turn.wall for turn in times[name]], (options.rounds, -1)).sum(1) for name in times
    }
    rounds = ((prepared + walls["ranking"]) / walls["packed"]).tolist()
    pairs = {
        f"{name}/packed": list(zip(found[name], found["packed"], strict=True))
        for name, found in (("ranking", times), ("packed_again", times), ("flat", flat))
    }
    return {
        "ranking_with_preparation_to_packed_by_round": [round(ratio, 4) for ratio in rounds],
        "ranking_with_preparation_to_packed": round(statistics.median(rounds), 4),
        **{
            clock: {
                name: spread([own[place] / peer[place] for own, peer in pair]) for name, pair in pairs.items()
            }
            for place, clock in enumerate(("by_turn", "by_turn_cpu_time"))
        },
        "seconds_of_a_round": {
            "preparation": round(statistics.median(prepared), 3),
            **{name: round(float(spent.mean()), 3) for name, spent in walls.items()},
        },
    }


def main() -> None:
    """Measure, show, and write ``benchmarks/results/med_vqa_ranking.json``."""
    parser = command(__doc__, "med_vqa_ranking", questions=451, candidates=450, chunk=CHUNK, rounds=3)
    add = parser.add_argument
    add("--preset", choices=sorted(VOCABULARY), default="small")
    add("--image-tokens", type=int, help="of an image; by default the preset's")
    add("--batch", type=int, default=16, help="questions that ranking decodes at a time, and of a turn")
    add("--bare-batch", type=int, default=8, help="questions that the bare lanes decode at a time")
    add("--flat-rows", type=int, default=64, help="candidates that the flat lane decodes at a time")
    add("--flat-batches", type=int, default=1, help="turns of a round in which the flat lane takes part")
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
            "unique_prefixes": sum(one.own for one in lanes.packs),
            "packed": sum(len(one.tokens) for one in lanes.packs),
            "flat": sum(len(ids) + 1 for ids in sequences),
        },
        **measured,
    }
    report(result, options.out)


if __name__ == "__main__":
    main()
