"""`kg-targets build`: one data set's captions → one target store per split.

Stage one reads and extracts shard by shard, in a pool of processes. Stage two makes the graph and the factors, which
need every image's concepts but none of its text. Stage three finds neighbours and writes the shards.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kg_targets.errors import ConfigError
from kg_targets.graph import Assertions, ConceptGraph
from kg_targets.manifest import ExcludedCases, Manifest
from kg_targets.ontology import Ontology, load_ontology
from kg_targets.scoring import ConceptStatistics, transe
from kg_targets.scoring.statistics import TRUSTED_CAPTIONS
from kg_targets.store import StoreWriter, TargetStore
from kg_targets.store.digest import json_sha256, key64
from kg_targets.store.extension import origin
from kg_targets.store.mixture import MIXTURE
from kg_targets.store.schema import TEACHER
from pipelines.build import extract, extractors, write
from pipelines.build.config import BuildConfig
from pipelines.build.executors import Say, Stopwatch
from pipelines.build.extend import check_not_extended, extend_store, recorded_options
from pipelines.build.extract import PartResult
from pipelines.build.mixture import mixture_stores
from pipelines.build.neighbors import find_neighbors
from pipelines.build.score import score_images
from pipelines.build.shards import Shards, pieces_of_shards, write_shards
from pipelines.build.split import Split
from pipelines.build.summary import confirmation, summary_lines

if TYPE_CHECKING:
    from pipelines.build.captions import CaptionEncoder

EMBEDDING, TRANSE = "embedding", "transe"


def build_data_set(config: BuildConfig, say: Say, given: frozenset[str] | None = None) -> list[TargetStore]:
    """Build every wanted split, the fit split first; a split whose store is up to date is left alone.

    Args:
        config: options of the build.
        say: receives one line at a time for the person watching.
        given: names of the options that were given, which with ``extend`` must not contradict the store's; None for
            those with another value than their default.

    Returns:
        The stores, in the order built.

    Raises:
        KGTargetsError: an option, a file or a row is not as it must be; nothing half-written is left.
    """
    config = recorded_options(config, given)
    manifest = Manifest.load(config.dataset)
    built = (
        mixture_stores(config, manifest, say) if config.scorer == MIXTURE else _stores(config, manifest, say)
    )
    stores: list[TargetStore] = []
    for store in built:
        for other in stores:  # a leak that a person must know of; some data sets are published so
            images = len(np.intersect1d(key64(other.image_ids), key64(store.image_ids)))
            cases = len(np.intersect1d(key64(other.group_ids), key64(store.group_ids)))
            if images or cases:
                say(
                    f"warning: {images:,} image ids and {cases:,} cases are in both {other.split} and {store.split}"
                )
        stores.append(store)
    return stores


def _stores(config: BuildConfig, manifest: Manifest, say: Say) -> Iterator[TargetStore]:
    """The store of each wanted split, from its captions."""
    root = config.data_root or manifest.default_root
    names = _wanted_splits(config.split, manifest, root, say)
    excluded = _excluded_cases(config.exclude, manifest, root, names, say) if config.exclude else None
    if config.extend is not None and len(names) > 1:
        raise ConfigError(f"--extend takes the rows of one split: --split {' or '.join(names)}")
    if config.extend is None and config.scorer != TEACHER:
        fit_split = _fit_split(config.fit_split, manifest, root, names, say)
        names = [fit_split, *(name for name in names if name != fit_split)]
    licences = frozenset(name.strip() for name in config.licences.split(",") if name.strip())
    splits = [Split(manifest, name, root, licences or None, excluded) for name in names]
    if config.scorer == TEACHER:
        from pipelines.build.teacher import teacher_stores  # which loads torch

        return teacher_stores(config, splits, say)
    return _knowledge_stores(config, splits, say)


def _knowledge_stores(config: BuildConfig, splits: list[Split], say: Say) -> Iterator[TargetStore]:
    """The store of each split, by a scorer of the concepts; statistics are fitted on the first."""
    extractors.check_extractor(config.extractor, config.extractor_options)
    ontology = load_ontology(config.ontology, config.cache)
    say(f"ontology: {ontology.release}")
    for line in ontology.report.lines():
        say(f"  {line}")
    if config.use_ontology and not ontology.report.edges.get("is_a"):
        say("warning: the ontology has no is_a edge: every concept stands alone (UMLS: try umls-broad:DIR)")
    encoder = None
    if config.scorer == TRANSE:
        transe.check_installed()
    if config.scorer == EMBEDDING:
        from pipelines.build.captions import CaptionEncoder  # which loads torch

        encoder = CaptionEncoder(config.settings.encoder, say)
    if config.extend is not None:
        yield extend_store(config, splits[0], ontology, encoder, say)
        return
    fitted: TargetStore | None = None
    for split in splits:
        store = _build_store(config, split, ontology, fitted, encoder, say)
        if fitted is None and len(store) < TRUSTED_CAPTIONS:
            say(_small_fit(store))
        fitted = fitted or store
        yield store


def _small_fit(store: TargetStore) -> str:
    """Warn that IC is counted on too few captions; the standard error is that of ``TRUSTED_CAPTIONS``."""
    error = sqrt(0.99 / (0.01 * len(store)))
    return (
        f"warning: IC and idf are fitted on {len(store):,} captions of {store.split} only: ±{error:.1f} nats for a "
        f"concept that one in a hundred has (standard error; ±0.5 from {TRUSTED_CAPTIONS} on)"
    )


def _build_store(
    config: BuildConfig,
    split: Split,
    ontology: Ontology,
    fitted: TargetStore | None,
    encoder: "CaptionEncoder | None",
    say: Say,
) -> TargetStore:
    """One split's way through the stages.

    Args:
        config: options of the build.
        split: the captions.
        ontology: concepts and their edges.
        fitted: the fit split's store, None for that split itself.
        encoder: for the scorer that needs one.
        say: receives one line at a time.
    """
    target = (config.out or Path("build") / split.manifest.name) / split.name
    inputs = {
        "config": config.stored(),
        "ontology_fingerprint": ontology.fingerprint,
        "fitted_on": origin(fitted) if fitted else None,
        "code_sha256": write.code_digest(),
        "option_files": extractors.option_file_digests(config.extractor_options),
        **split.inputs(),
        **(encoder.metadata() if encoder else {}),
    }
    if not config.force and (current := write.open_if_current(target, inputs, say)):
        return current
    check_not_extended(target, config.force, say)
    watch = Stopwatch()
    states = target.with_name(f".{target.name}.state")
    state = states / json_sha256(inputs, str)[:16]
    with StoreWriter(target) as writer:
        with watch.stage("extract"):
            parts = extract.extract_split(config, split, ontology, writer.folder, say)
        with watch.stage("graph"):
            asserted = Assertions.joined([each.asserted for each in parts])
            is_a = ontology if config.use_ontology else None
            halved = config.uncertain == "half"
            graph = ConceptGraph.build(asserted, is_a, config.max_hops, config.relations, halved)
        with watch.stage("factors"):
            statistics = (
                ConceptStatistics.fit(graph) if fitted is None else write.fit_statistics(fitted, unseen=False)
            )
            if is_a and fitted:
                statistics = statistics.with_unseen(graph, is_a, config.relations)
            factors = score_images(
                config,
                ontology,
                graph,
                statistics,
                [each.rows for each in parts],
                fitted=fitted.vectors if fitted else None,
                folder=writer.folder,
                state=state,
                encode=encoder.encode if encoder else None,
                say=say,
            )
        with watch.stage("neighbours"):
            neighbors, told = find_neighbors(
                factors,
                np.concatenate([each.angles for each in parts]),
                k=config.top_k,
                way=config.neighbors,
                folder=writer.folder,
                state=state,
                workers=config.worker_count,
                say=say,
            )
        with watch.stage("shards"):
            labels = tuple(dict.fromkeys(name for each in parts for name in each.labels))
            pieces = pieces_of_shards([each.rows for each in parts], config.rows_per_shard)
            counts = [each.mentions for each in parts]
            shards = Shards(writer.folder, pieces, counts, labels, factors, neighbors, config.rows_per_shard)
            write_shards(writer, shards, config.worker_count)
            images = np.bincount(graph.has_attribute.indices, minlength=len(graph.concepts))
            write.write_concepts(writer, graph.concepts, images, statistics, ontology)
            write.write_edges(writer, graph)
            write.write_vectors(writer, factors.vectors)
        with watch.stage("quantiles"):
            cases = np.concatenate([each.cases for each in parts])
            quantiles = write.off_diagonal_quantiles(factors, cases)
        unknown = sum((each.unknown_cuis for each in parts), Counter[str]())
        content = {
            "rows": graph.images,
            "labels": list(labels),
            "config": config.stored(),
            "ontology": {
                "release": ontology.release,
                "fingerprint": ontology.fingerprint,
                "report": ontology.report.lines(),
            },
            "factors": write.factor_shape(factors.matrix, len(graph.concepts)),
            "fit": {"split": fitted.split if fitted else split.name, "captions": statistics.captions},
            "similarity": {
                "quantiles": quantiles,
                "fit_p95": quantiles["p95"] if fitted is None else fitted.threshold,
            },
            "retired_cuis": dict(sum((each.retired_cuis for each in parts), Counter()).most_common(20)),
            "unknown_cuis": dict(unknown.most_common(20)),
            "unknown_cuis_count": len(unknown),
            "confirmation": confirmation(ontology, asserted.counts()),
            "inputs": inputs,
            **told,
            **_spoken(config, parts),
            **split.metadata(),
            **(encoder.metadata() if encoder else {}),
        }
        writer.finish(content, {"stages": watch.stages})
    shutil.rmtree(states, ignore_errors=True)
    store = TargetStore.open(target)
    say(f"{target}: {watch.total(len(store))}")
    say(f"  stages (seconds, peak memory so far): {watch.each()}")
    for line in summary_lines(store):
        say(f"  {line}")
    if not store.known.any():
        say(f"warning: nothing is known about any image of {split.name}: training on it is plain InfoNCE")
    return store


def _spoken(config: BuildConfig, parts: list[PartResult]) -> dict[str, dict[str, int]]:
    """Captions by language, the most frequent first, where the build looked."""
    counts = sum((each.languages for each in parts), Counter[str]())
    return {"languages": dict(counts.most_common())} if config.languages else {}


def _wanted_splits(wanted: str, manifest: Manifest, root: Path, say: Say) -> list[str]:
    """The wanted splits that are there; those left out are reported."""
    if wanted != "all":
        manifest.split_file(wanted, root)
        return [wanted]
    present = manifest.present_splits(root)
    if not present:
        manifest.split_file(manifest.fit_split, root)
    for split in manifest.splits:
        if split not in present:
            say(f"{split}: not present under {root}, left out")
    return present


def _excluded_cases(file: Path, manifest: Manifest, root: Path, wanted: list[str], say: Say) -> ExcludedCases:
    """The cases to leave out; a list that fits no split that is there is an error before anything is built."""
    excluded = ExcludedCases.read(file)
    excluded.check_fits(manifest, root, dict.fromkeys([*wanted, *manifest.present_splits(root)]))
    if not excluded.cases:
        say(f"warning: {file} lists no case: nothing is left out")
    return excluded


def _fit_split(option: str, manifest: Manifest, root: Path, wanted: list[str], say: Say) -> str:
    """The split that statistics are fitted on: the option's, the data set's own, or the first that is there."""
    if option:
        manifest.split_file(option, root)
        return option
    if manifest.fit_split in manifest.present_splits(root):
        return manifest.fit_split
    say(
        f"{manifest.fit_split} is not present: IC and idf are fitted on {wanted[0]} instead, so these stores are not "
        f"comparable with ones fitted on {manifest.fit_split} (--fit-split chooses another)"
    )
    return wanted[0]
