"""The dictionary: reading speed, and what a lexicon costs to build, to open and to keep, by its size.

    python benchmarks/lexicon.py --captions ../shared/data/roco/validation/radiology/captions.txt \
        --ontology "seed|tsv:../shared/data/ontologies" --sizes 640000,2000000,4000000

Without ``--captions`` the generated captions of the demo are read, with the seed ontology. The peer is
`ahocorasick_rs` with the same patterns and texts, where it is installed (``pip install ahocorasick_rs``). All times are
CPU seconds of this process. Lexicons of a size are those of made-up UMLS releases
with that many names (`synthetic_umls.py`); each is built by a process of its own, so that its peak memory is known.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from machine import command, head, report
from offline import read_captions
from synthetic_umls import write_release

from kg_targets.concepts import DictionaryExtractor
from kg_targets.concepts.matcher import TextBatch
from kg_targets.concepts.text import break_words, fold
from kg_targets.ontology import load_ontology

BATCH = 1024


def cpu(run: Callable[[], object], repeats: int) -> list[float]:
    """CPU seconds of each of some calls, sorted."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return sorted(times)


def per_second(count: int, times: list[float]) -> dict[str, int]:
    """Rate of the best and of the median call."""
    return {"best": round(count / times[0]), "median": round(count / times[len(times) // 2])}


def reading(ontology: str, captions: list[str], cache: str, repeats: int) -> dict[str, Any]:
    """Captions per second with and without rules, of the search alone, and of the peer."""
    loaded = load_ontology(ontology, cache)
    extractors = {
        "with_rules": DictionaryExtractor(loaded),
        "without_rules": DictionaryExtractor(loaded, context=False),
    }
    index = extractors["with_rules"].lexicon.index
    texts = [fold(caption).text for caption in captions]
    parts = [texts[low : low + BATCH] for low in range(0, len(texts), BATCH)]
    runs: dict[str, Callable[[], object]] = {
        name: lambda extractor=extractor: extractor.extract(captions)  # type: ignore[misc]
        for name, extractor in extractors.items()
    }
    runs["search_alone"] = lambda: [index.find(TextBatch.of(part)) for part in parts]
    result: dict[str, Any] = {"aliases": sum(1 for _ in loaded.aliases()), "patterns": len(index)}
    peer = _peer([*extractors["with_rules"].lexicon.patterns()])
    if peer is None:
        result["ahocorasick_rs"] = "not installed"
    else:
        searched = [f" {break_words(text)} " for text in texts]
        runs["ahocorasick_rs"] = lambda: [
            peer.find_matches_as_indexes(text, overlapping=True) for text in searched
        ]
    for run in runs.values():
        run()  # warm
    result |= {name: per_second(len(captions), cpu(run, repeats)) for name, run in runs.items()}
    single = cpu(lambda: [extractors["with_rules"].extract([caption]) for caption in captions[:200]], repeats)
    result["one_caption_ms"] = round(single[len(single) // 2] / 200 * 1e3, 3)
    return result


def _peer(patterns: list[str]) -> Any:
    """An automaton over the same patterns; None where the package is absent."""
    if find_spec("ahocorasick_rs") is None:
        return None
    from ahocorasick_rs import AhoCorasick, Implementation

    needles = [" " + break_words(pattern) for pattern in patterns]
    return AhoCorasick(needles, implementation=Implementation.ContiguousNFA, store_patterns=False)


def lexicon_of(folder: Path) -> dict[str, Any]:
    """Read a release and build its lexicon, then open both again; for a process of its own."""
    cache, spec = str(folder / "cache"), f"umls:{folder / 'META'}"
    ontology = load_ontology(spec, cache)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    extractor = DictionaryExtractor(ontology, context=False)
    build = time.process_time() - start
    again = time.process_time()
    DictionaryExtractor(load_ontology(spec, cache), context=False).extract(["a caption"])
    start = time.process_time() - again
    (entry,) = Path(cache).glob("lexicon-*")
    patterns = len(extractor.lexicon.index)
    size = sum(file.stat().st_size for file in entry.iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "patterns": patterns,
        "build_seconds": round(build, 1),
        "second_start_seconds": round(start, 2),
        "bytes_per_pattern": round(size / max(patterns, 1), 1),
        "peak_mb": round(peak / 1024),
        "peak_mb_of_the_ontology": round(before / 1024),
    }


def growth(sizes: list[int]) -> list[dict[str, Any]]:
    """Cost of lexicons of made-up names."""
    results = []
    for size in sizes:
        with TemporaryDirectory() as folder:
            write_release(Path(folder, "META"), size, size // 10)
            found = subprocess.run(
                [sys.executable, __file__, "--of", folder], check=True, capture_output=True, text=True
            )
            results.append({"names": size} | json.loads(found.stdout))
    return results


def options() -> argparse.Namespace:
    """Of the command."""
    parser = command(__doc__, "lexicon", threads=1, ontology="seed", sizes="160000,640000", repeats=7)
    parser.add_argument("--captions", type=Path, default=None)
    parser.add_argument("--of", type=Path, default=None, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write ``benchmarks/results/lexicon.json``."""
    chosen = options()
    if chosen.of is not None:
        report(lexicon_of(chosen.of), None)
        return
    data, captions = read_captions(chosen.captions)
    result = head() | {
        "captions": {"from": data, "count": len(captions)},
        "reading": reading(chosen.ontology, captions, ".cache/kg_targets", chosen.repeats),
        "growth": growth([int(size) for size in chosen.sizes.split(",")]),
    }
    report(result, chosen.out)


if __name__ == "__main__":
    main()
