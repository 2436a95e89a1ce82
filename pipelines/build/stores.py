"""`kg-targets build`: one data set's captions → one target store per split.

Stage one reads and extracts shard by shard, in a pool of processes. Stage two makes the graph and the factors, which
need every image's concepts but none of its text. Stage three finds neighbours and writes the shards.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import kg_targets
from kg_targets.digest import file_sha256
from kg_targets.errors import DataError, StoreError
from kg_targets.graph import ConceptGraph
from kg_targets.manifest import ExcludedCases, Manifest, ReadReport
from kg_targets.ontology import Ontology, load_ontology
from kg_targets.scoring import SCORERS, ConceptStatistics, Factors, ScoringInput
from kg_targets.store import StoreWriter, TargetStore
from kg_targets.store.schema import TEACHER
from pipelines.build.config import BuildConfig
from pipelines.build.executors import map_in_order
from pipelines.build.extract import ShardInput, ShardResult, extract_shard, initialise, mentions_file
from pipelines.build.extractors import option_file_digests
from pipelines.build.similarity import off_diagonal_quantiles
from pipelines.build.stopwatch import Stopwatch, progress
from pipelines.build.write import write_concepts, write_targets

Say = Callable[[str], None]


def build_data_set(config: BuildConfig, say: Say) -> list[TargetStore]:
    """Build every split asked for, the fit split first; a split whose store is up to date is left alone.

    Args:
        say: receives one line at a time for the person watching.

    Returns:
        The stores, in the order built.

    Raises:
        KGTargetsError: an option, a file or a row is not as it must be; nothing half-written is left.
    """
    manifest = Manifest.load(config.dataset)
    root = config.data_root or manifest.default_root
    wanted = wanted_splits(config, manifest, root, say)
    excluded = _excluded_cases(config, manifest, root, wanted, say)
    if config.scorer == TEACHER:
        from pipelines.build.teacher_stores import build_teacher_stores  # which loads torch

        return build_teacher_stores(config, manifest, wanted, excluded, say)
    fit_split = _fit_split(config, manifest, root, wanted, say)
    ontology = load_ontology(config.ontology, config.cache)
    say(f"ontology: {ontology.release}")
    for line in ontology.report.lines():
        say(f"  {line}")
    if config.use_ontology and not ontology.report.edges.get("is_a"):
        say("warning: the ontology has no is_a edge: every concept stands alone (UMLS: try umls-broad:DIR)")
    fitted: TargetStore | None = None
    stores: list[TargetStore] = []
    for split in [fit_split, *(split for split in wanted if split != fit_split)]:
        store = _SplitBuild(config, manifest, split, excluded, ontology, fitted, say).run()
        fitted = fitted or store
        for other in stores:
            report_overlap(other, store, say)
        stores.append(store)
    return stores


def report_overlap(first: TargetStore, second: TargetStore, say: Say) -> None:
    """Images or cases in two splits are a leak that a person must know of; some data sets are published so."""
    images = len(set(first.image_ids) & set(second.image_ids))
    cases = len(set(first.group_ids) & set(second.group_ids))
    if images or cases:
        say(f"warning: {images:,} image ids and {cases:,} cases are in both {first.split} and {second.split}")


def wanted_splits(config: BuildConfig, manifest: Manifest, root: Path, say: Say) -> list[str]:
    """The splits asked for that are there; those left out are said."""
    if config.split != "all":
        manifest.split_file(config.split, root)
        return [config.split]
    present = manifest.present_splits(root)
    if not present:
        manifest.split_file(manifest.fit_split, root)
    for split in manifest.splits:
        if split not in present:
            say(f"{split}: not present under {root}, left out")
    return present


def _excluded_cases(
    config: BuildConfig, manifest: Manifest, root: Path, wanted: list[str], say: Say
) -> ExcludedCases:
    """The cases to leave out; a list that fits no split that is there is an error before anything is built."""
    excluded = ExcludedCases.read(config.exclude)
    excluded.check_fits(manifest, root, dict.fromkeys([*wanted, *manifest.present_splits(root)]))
    if config.exclude is not None and not excluded.cases:
        say(f"warning: {config.exclude} lists no case: nothing is left out")
    return excluded


def _fit_split(config: BuildConfig, manifest: Manifest, root: Path, wanted: list[str], say: Say) -> str:
    """The split that statistics are fitted on: the one asked for, the data set's own, or the first that is there."""
    if config.fit_split:
        manifest.split_file(config.fit_split, root)
        return config.fit_split
    if manifest.fit_split in manifest.present_splits(root):
        return manifest.fit_split
    say(
        f"{manifest.fit_split} is not present: IC and idf are fitted on {wanted[0]} instead, so these stores are not "
        f"comparable with ones fitted on {manifest.fit_split} (--fit-split chooses another)"
    )
    return wanted[0]


class _SplitBuild:
    """One split's way through the stages."""

    def __init__(
        self,
        config: BuildConfig,
        manifest: Manifest,
        split: str,
        excluded: ExcludedCases,
        ontology: Ontology,
        fitted: TargetStore | None,
        say: Say,
    ) -> None:
        self.config, self.manifest, self.split = config, manifest, split
        self.root = config.data_root or manifest.default_root
        self.excluded, self.ontology, self.fitted, self.say = excluded, ontology, fitted, say
        self.target = (config.out or Path("build") / manifest.name) / split
        self.read = ReadReport()
        self.watch = Stopwatch()

    def run(self) -> TargetStore:
        """Build the split's store, or open it if it is up to date."""
        inputs = self._inputs()
        if not self.config.force and is_current(self.target, inputs):
            self.say(f"{self.target}: up to date")
            return TargetStore.open(self.target)
        with StoreWriter(self.target) as writer:
            shards = self._extract(writer)
            graph, statistics, factors = self._score(shards)
            manifest = self._write(writer, shards, graph, statistics, factors)
            writer.finish({**manifest, "inputs": inputs}, {"stages": self.watch.stages})
        store = TargetStore.open(self.target)
        self._summarise(store)
        return store

    def _inputs(self) -> dict[str, Any]:
        """Everything that the store's content follows from."""
        return {
            "captions_sha256": self.manifest.split_digest(self.split, self.root),
            "config": self.config.stored(),
            "ontology_fingerprint": self.ontology.fingerprint,
            "fitted_on": self.fitted.fingerprint if self.fitted else None,
            "code_sha256": _code_digest(),
            "option_files": option_file_digests(self.config.extractor_options),
            **self.excluded.inputs(),
        }

    def _extract(self, writer: StoreWriter) -> list[ShardResult]:
        config = self.config
        with self.watch.stage("extract"):
            results = map_in_order(
                extract_shard,
                self._shards(writer.folder),
                config.worker_count,
                initialise,
                (config.extractor, config.extractor_options, self.ontology, config.keep_unknown_cuis),
            )
            expected = self.manifest.split_spec(self.split, self.root).expected_rows
            total = None if expected is None else -(-expected // self.config.rows_per_shard)
            shards = list(progress(results, total, f"{self.split}: captions → concepts", " shard"))
        for line in self.read.lines():
            self.say(f"{self.split}: {line}")
        if not self.read.read:
            source = self.manifest.split_file(self.split, self.root)
            reasons = "; ".join(self.read.lines()[:3])
            raise DataError(f"{source} has no usable row: a store needs at least one caption. {reasons}")
        if config.extractor == "provided" and not any(shard.provided for shard in shards):
            raise DataError(
                f"{self.manifest.name}/{self.split} ships no CUIs: use --extractor dictionary or union"
            )
        for shard in shards:
            writer.adopt(mentions_file(shard.index), shard.mentions)
        return shards

    def _shards(self, folder: Path) -> Iterator[ShardInput]:
        config = self.config
        records = self.manifest.records(
            self.split, self.root, self.read, config.licence_set, self.excluded.cases
        )
        index = 0
        while chunk := list(islice(records, config.rows_per_shard)):
            yield ShardInput(index, chunk, folder)
            index += 1

    def _score(self, shards: list[ShardResult]) -> tuple[ConceptGraph, ConceptStatistics, Factors]:
        with self.watch.stage("graph"):
            ontology = self.ontology if self.config.use_ontology else None
            asserted = [cuis for shard in shards for cuis in shard.cuis]
            graph = ConceptGraph.build(asserted, ontology, self.config.max_hops, self.config.relations)
        with self.watch.stage("factors"):
            statistics = ConceptStatistics.fit(graph) if self.fitted is None else _statistics_of(self.fitted)
            image_ids = [image_id for shard in shards for image_id in shard.image_ids]
            data = ScoringInput(
                graph,
                statistics,
                image_ids,
                shrinkage=self.config.shrinkage,
                flat_ancestors=self.config.flat_ancestors,
                seed=self.config.seed,
            )
            factors = SCORERS[self.config.scorer](data)
        return graph, statistics, factors

    def _write(
        self,
        writer: StoreWriter,
        shards: list[ShardResult],
        graph: ConceptGraph,
        statistics: ConceptStatistics,
        factors: Factors,
    ) -> dict[str, Any]:
        with self.watch.stage("neighbours and shards"):
            labels = write_targets(writer, shards, factors, self.config)
            write_concepts(writer, graph, statistics, self.ontology)
        with self.watch.stage("quantiles"):
            groups = [group for shard in shards for group in shard.group_ids]
            quantiles = off_diagonal_quantiles(factors, groups)
        return {
            "dataset": self.manifest.name,
            "split": self.split,
            "rows": graph.images,
            "labels": labels,
            "licence": self.manifest.licence,
            "code_version": kg_targets.__version__,
            "config": self.config.stored(),
            "ontology": {
                "release": self.ontology.release,
                "fingerprint": self.ontology.fingerprint,
                "report": self.ontology.report.lines(),
            },
            "factors": {"dense": None if factors.is_sparse else int(factors.matrix.shape[1])},
            "fit": {
                "split": self.fitted.split if self.fitted else self.split,
                "captions": statistics.captions,
            },
            "similarity": {
                "quantiles": quantiles,
                "fit_p95": quantiles["p95"] if self.fitted is None else self.fitted.threshold,
            },
            "skipped_rows": self.read.skipped,
            **self.excluded.facts(self.read),
            "unknown_cuis": dict(sum((shard.unknown_cuis for shard in shards), Counter()).most_common(20)),
        }

    def _summarise(self, store: TargetStore) -> None:
        from kg_targets.inspect.summary import summary_lines

        stages = self.watch.stages
        seconds = sum(stage["seconds"] for stage in stages.values())
        peak = max(stage["peak_mib"] for stage in stages.values())
        self.say(f"{self.target}: {len(store):,} images in {seconds:.1f} s, peak memory {peak:,.0f} MiB")
        each = (
            f"{name} {stage['seconds']:.1f} s {stage['peak_mib']:,.0f} MiB" for name, stage in stages.items()
        )
        self.say(f"  stages (seconds, peak memory so far): {', '.join(each)}")
        for line in summary_lines(store):
            self.say(f"  {line}")
        if not store.known.any():
            self.say(
                f"warning: nothing is known about any image of {self.split}: training on it is plain InfoNCE"
            )


def is_current(target: Path, inputs: dict[str, Any]) -> bool:
    """Whether ``target`` is a whole store that was made of these inputs."""
    try:
        store = TargetStore.open(target)
    except StoreError:
        return False
    if digest_of(store.manifest.get("inputs")) != digest_of(inputs):
        return False
    return all(file_sha256(target / entry["file"]) == entry["sha256"] for entry in store.manifest["files"])


def digest_of(value: Any) -> str:
    """sha256 of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _code_digest() -> str:
    """sha256 of the code and tables that make stores, so that one made by other code is never taken as up to date."""
    library, stages = Path(kg_targets.__file__).parent, Path(__file__).parent
    files = [path for path in library.rglob("*") if path.suffix in (".py", ".tsv")] + list(
        stages.glob("*.py")
    )
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()


def _statistics_of(store: TargetStore) -> ConceptStatistics:
    concepts = store.concepts
    return ConceptStatistics(
        captions=store.manifest["fit"]["captions"],
        asserted=dict(zip(concepts["cui"], concepts["fit_asserted"].tolist(), strict=True)),
        covered=dict(zip(concepts["cui"], concepts["fit_covered"].tolist(), strict=True)),
    )
