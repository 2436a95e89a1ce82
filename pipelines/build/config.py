"""Options of a target build; every field is an option of ``kg-targets build`` with the same name."""

import dataclasses
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kg_targets.errors import ConfigError
from kg_targets.scoring import DENSE, SCORERS, SETTINGS
from kg_targets.scoring.ontology import parse_blocks
from kg_targets.store.mixture import MIXTURE
from kg_targets.store.schema import TEACHER
from pipelines.build.executors import available_cores
from pipelines.build.neighbors import APPROXIMATE, WAYS
from pipelines.build.options import scorer_settings
from training.checks import all_within

PART_OF, SHRINKAGE = True, 2.0
"""Of the ontology scorer, unless a build says otherwise; why: docs/results/targets.md."""
WEIGH_CONCEPTS = ("ontology", "permuted")
"""Scorers that read how much each concept weighs: shrinkage, blocks, flat ancestors."""
UNCERTAIN = ("keep", "half", "drop")
LANGUAGES = ("", "count", "drop")
PROCESSES, RAY = "processes", "ray"
EXECUTORS = (PROCESSES, RAY)


@dataclass(frozen=True)
class BuildConfig:
    """Options of a build."""

    dataset: str = "demo"
    """Data set: a name from `kg-targets datasets`, or the path of a manifest."""
    split: str = "all"
    """Split to build, or all; the split that IC and idf are fitted on is built first."""
    data_root: Path | None = None
    """Folder that holds the data set's files (default: data/<data set>)."""
    out: Path | None = None
    """Folder that receives one target store per split (default: build/<data set>)."""
    ontology: str = "seed"
    """Where concepts and is_a come from; sources are merged with |."""
    extractor: str = "dictionary"
    """How captions become concepts."""
    extractor_options: str = ""
    """For the extractor: key=value pairs separated by commas, such as kinds=finding|organ,stop_list=mine.tsv."""
    keep_unknown_cuis: bool = True
    """Keep shipped CUIs that the ontology lacks, as concepts without ancestors; otherwise they are only counted."""
    uncertain: str = "keep"
    """What counts of a concept that a caption only holds possible ("may represent pneumonia"): keep, half or drop."""
    languages: str = ""
    """Captions that are surely not English: count them, or drop what is read in them; empty does not look."""
    drop_mentions: float = 0.0
    """Share of the mentions to leave out at random, 0–1: how stable are the targets? See `evaluate targets`."""
    scorer: str = "ontology"
    """Where similarities come from: ontology, transe, embedding (of captions, by --scorer-options encoder=…), mixture
    (of finished stores, see --mix), noise, permuted or identity; or teacher: see --teacher."""
    scorer_options: str = ""
    """For the scorer: key=value pairs separated by commas; docs/methods.md lists each scorer's."""
    mix: str = ""
    """For --scorer mixture: folders joined by |, each with one finished store per split of the same rows."""
    mix_weights: str = ""
    """For --scorer mixture: a positive number for each folder, separated by commas (default: all alike); they are
    divided by their sum."""
    teacher: str = ""
    """For --scorer teacher: a name (clip, biomedclip, …), KIND:PATH, or none; see docs/teachers.md."""
    max_broken: int = 0
    """For --scorer teacher: images of a split that may be missing or unreadable, ≥ 0; more is an error."""
    use_ontology: bool = True
    """Follow is_a edges; without them only the captions' own concepts count."""
    part_of: bool = PART_OF
    """Follow part_of edges like is_a: what is part of the lung is lung, too."""
    max_hops: int | None = None
    """Longest is_a path followed, in edges, ≥ 1 (default: no limit)."""
    flat_ancestors: bool = False
    """Weigh all ancestors of a concept alike instead of by their information content: idf alone."""
    shrinkage: float = SHRINKAGE
    """λ of the ontology scorer, nats, ≥ 0: above 0, images of which little is known are less similar to others."""
    blocks: str = ""
    """Weights TECHNIQUE:ANATOMY:FINDING of three parts compared apart, such as 1:2:1 (default: one vector over all)."""
    top_k: int = 64
    """Neighbours kept per image, 0–1024, for looking and for neighbour-aware batches; 0 finds none, which saves most of
    the time of a large build."""
    neighbors: str = "auto"
    """How they are found: exact, approximate (recall is measured and reported), or auto: exact up to 100,000 distinct
    rows."""
    rows_per_shard: int = 4096
    """Images per Parquet shard, ≥ 1; the unit of parallel work."""
    seed: int = 0
    """For the scorers that draw random numbers, ≥ 0."""
    workers: int = 0
    """Worker processes, 0 for one per available core; never changes the result."""
    executor: str = PROCESSES
    """Where captions are read: processes of this machine, or ray; never changes the result. See docs/cluster.md."""
    ray_address: str = "local"
    """For --executor ray: a running cluster (auto, or HOST:PORT), or local, which starts one on this machine."""
    licences: str = ""
    """Keep only rows under these licences, separated by commas; empty keeps all."""
    exclude: Path | None = None
    """File with one case (group_id) a line, whose images are left out as if the data set never had them."""
    fit_split: str = ""
    """Split that IC and idf are fitted on; empty for the data set's own, or the first that is present."""
    cache: Path | None = Path(".cache/kg_targets")
    """Folder that keeps ontologies in the form in which they load fast."""
    extend: Path | None = None
    """A finished store that the rows of --split join, built as its own rows were; see docs/store.md."""
    force: bool = False
    """Build even if an up-to-date store exists."""

    def __post_init__(self) -> None:
        scorers = (*SCORERS, MIXTURE, TEACHER)
        if self.scorer not in scorers:
            raise ConfigError(f"--scorer {self.scorer} is not one of {', '.join(sorted(scorers))}")
        if self.uncertain not in UNCERTAIN:
            raise ConfigError(f"--uncertain {self.uncertain} is not one of {', '.join(UNCERTAIN)}")
        if self.languages not in LANGUAGES:
            raise ConfigError(f"--languages {self.languages} is not one of count, drop")
        if self.executor not in EXECUTORS:
            raise ConfigError(f"--executor {self.executor} is not one of {', '.join(EXECUTORS)}")
        if self.ray_address != "local" and self.executor != RAY:
            raise ConfigError("--ray-address needs --executor ray")
        if self.executor == RAY and self.scorer in (MIXTURE, TEACHER):
            raise ConfigError(
                f"--executor ray reads captions, which --scorer {self.scorer} does not: drop it"
            )
        if self.neighbors not in WAYS:
            raise ConfigError(f"--neighbors {self.neighbors} is not one of {', '.join(WAYS)}")
        if self.neighbors == APPROXIMATE and self.scorer in DENSE and self.top_k:
            raise ConfigError(
                f"--neighbors approximate is for scorers with sparse factors, those of {self.scorer} are dense: take "
                "exact, or --top-k 0 for none"
            )
        _ = self.settings, self.weights
        about_ancestors = {
            "--max-hops": self.max_hops is not None,
            "--part-of": self.part_of and not PART_OF,
            "--flat-ancestors": self.flat_ancestors,
        }
        about_weights = {
            "--flat-ancestors": self.flat_ancestors,
            "--shrinkage": self.shrinkage != SHRINKAGE,
            "--blocks": bool(self.blocks),
        }
        about_concepts = {
            **about_ancestors,
            **about_weights,
            "--no-ontology": not self.use_ontology,
            "--languages": bool(self.languages),
            "--drop-mentions": self.drop_mentions > 0.0,
            "--fit-split": bool(self.fit_split),
        }
        if self.scorer == TEACHER and not self.teacher:
            raise ConfigError(
                "--scorer teacher needs a teacher: --teacher biomedclip (TEACHER=biomedclip for make)"
            )
        for option, given in about_concepts.items():
            if given and self.scorer == TEACHER:
                raise ConfigError(f"{option} is about concepts, which a teacher has none of: drop it")
        about_captions = {"--licences": bool(self.licences), "--exclude": self.exclude is not None}
        for option, given in {**about_concepts, **about_captions}.items():
            if given and self.scorer == MIXTURE:
                raise ConfigError(
                    f"{option} is for the parts of a mixture: build them with it, and drop it here"
                )
        for option, given in about_weights.items():
            if given and self.scorer not in WEIGH_CONCEPTS:
                raise ConfigError(
                    f"{option} is for the scorers {' and '.join(WEIGH_CONCEPTS)}, {self.scorer} does not read it: "
                    "drop it"
                )
        for option, given in (("--teacher", bool(self.teacher)), ("--max-broken", self.max_broken > 0)):
            if given and self.scorer != TEACHER:
                read = "finished stores" if self.scorer == MIXTURE else "captions"
                reads = f"the {self.scorer} scorer reads {read} only"
                raise ConfigError(f"{option} needs --scorer teacher: {reads}")
        all_within("--", self, top_k=(0, 1024), rows_per_shard=(1, 10_000_000), seed=(0, 2**32 - 1))
        all_within("--", self, workers=(0, 1024), max_broken=(0, 10**9), shrinkage=(0, sys.float_info.max))
        parse_blocks(self.blocks)
        all_within("--", self, drop_mentions=(0, 1))
        if self.max_hops is not None and self.max_hops < 1:
            raise ConfigError(
                "--max-hops must be at least 1 (use --no-ontology to follow no is_a edge at all)"
            )
        for option, given in about_ancestors.items():
            if given and not self.use_ontology:
                raise ConfigError(f"{option} and --no-ontology contradict each other: drop one of them")

    @property
    def relations(self) -> tuple[str, ...]:
        """Relations that lead to ancestors."""
        return ("is_a", "part_of") if self.part_of else ("is_a",)

    @property
    def worker_count(self) -> int:
        """Number of processes to start."""
        return self.workers or available_cores()

    @property
    def parts(self) -> list[Path]:
        """Folders of a mixture's parts."""
        return [Path(part.strip()) for part in self.mix.split("|") if part.strip()]

    @property
    def weights(self) -> list[float]:
        """Weights of a mixture's parts, positive, with a sum of 1; empty for another scorer."""
        parts, given = self.parts, [text.strip() for text in self.mix_weights.split(",") if text.strip()]
        if self.scorer != MIXTURE:
            if parts or given:
                raise ConfigError(f"--mix and --mix-weights need --scorer mixture, not {self.scorer}")
            return []
        if len(parts) < 2:
            raise ConfigError(
                '--scorer mixture needs two folders or more: --mix "build/roco|build/roco_minilm"'
            )
        if given and len(given) != len(parts):
            raise ConfigError(f"--mix-weights has {len(given)} numbers, --mix {len(parts)} folders")
        try:
            values = [float(text) for text in given] or [1.0] * len(parts)
        except ValueError as error:
            raise ConfigError(f"--mix-weights {self.mix_weights} must be numbers, such as 0.5,0.5") from error
        if not all(0.0 < value < math.inf for value in values):
            raise ConfigError(f"--mix-weights {self.mix_weights} must be positive numbers")
        return [value / sum(values) for value in values]

    @property
    def settings(self) -> Any:
        """The scorer's own settings, from ``scorer_options``; None for a scorer without any."""
        return scorer_settings(self.scorer, SETTINGS.get(self.scorer), self.scorer_options)

    def stored(self) -> dict[str, Any]:
        """The fields that decide what a store holds; where it is written and by how many processes do not."""
        outside = {
            "data_root", "out", "workers", "force", "split", "dataset", "cache", "teacher", "max_broken", "exclude",
            "mix", "mix_weights", "extend", "executor", "ray_address",
        }  # fmt: skip
        # Where these are not used, stores are the same as before there were any.
        outside.update(
            name
            for name in ("scorer_options", "blocks", "drop_mentions", "languages")
            if not getattr(self, name)
        )
        if self.neighbors == "auto":
            outside.add("neighbors")
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in outside}
