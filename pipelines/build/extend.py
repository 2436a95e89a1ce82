"""`kg-targets build DATA --split NEW --extend STORE`: new images join a store.

Nothing that the store says of its rows changes: neither their factors nor the statistics behind them, which stay those
of the fit split. New rows are read and scored as the store's were, by what its manifest records, and follow the others
in shards of their own. Concepts that the store lacks get columns behind those it has, ascending; a concept that means
the same as one that is there (``same_as``) shares its column. Neighbours are those among all rows, old and new.

The extended store is written beside the store, whose shards it shares as hard links, and takes its place at the end.
"""

import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

import kg_targets
from kg_targets.errors import ConfigError, DataError, StoreError
from kg_targets.graph import Assertions, ConceptGraph, representatives
from kg_targets.ontology import Ontology
from kg_targets.scoring import ConceptStatistics, Factors
from kg_targets.scoring.factors import in_columns
from kg_targets.scoring.neighbors import id_angles
from kg_targets.store import StoreWriter, TargetStore, TeacherStore, schema
from kg_targets.store.digest import json_sha256, key64
from kg_targets.store.extension import EXTENSIONS, concept_runs, extensions, origin
from kg_targets.store.factors import AnyFactors, sparse_matrix
from kg_targets.store.mixture import MIXTURE
from pipelines.build import extract, extractors, write
from pipelines.build.config import BuildConfig
from pipelines.build.executors import Say, Stopwatch
from pipelines.build.extract import PartResult
from pipelines.build.neighbors import find_neighbors
from pipelines.build.score import score_images
from pipelines.build.shards import Shards, StagedColumn, keep_shards, pieces_of_shards, write_shards
from pipelines.build.split import Split
from pipelines.build.summary import confirmation, summary_lines

_OF_ROWS = ("dataset", "split", "data_root", "exclude", "extend", "workers", "cache")
"""Options that go with ``--extend``: where the new rows are, and what never changes a store."""
_EXCLUDED = "excluded_sha256"
_OPTIONAL = ("scorer_options", "blocks", "drop_mentions", "languages", "neighbors")
"""Options that a manifest records only where they are used."""


def recorded_options(config: BuildConfig, given: frozenset[str] | None = None) -> BuildConfig:
    """The options with which the store of ``config.extend`` was built, and those of ``config`` that say what joins it.

    Args:
        config: options of the command.
        given: names of those that were given; None for those with another value than their default.

    Raises:
        KGTargetsError: there is no store, it is of a kind that cannot be extended, or an option contradicts it.
    """
    path = config.extend
    if path is None:
        return config
    store = TargetStore.open(path)
    again = "build it again from all rows"
    if isinstance(store, TeacherStore):
        raise ConfigError(f"--extend: {path} is a teacher's store, which is not extended: {again}")
    if MIXTURE in store.manifest:
        raise ConfigError(f"--extend: {path} is a mixture: extend its parts, and mix them again")
    recorded, plain = store.manifest["config"], BuildConfig()
    if store.manifest["schema_version"] != schema.SCHEMA_VERSION or not plain.stored().keys() <= {
        *recorded,
        *_OPTIONAL,
    }:
        raise ConfigError(f"--extend: {path} was written by an older version, which recorded less: {again}")
    if given is None:
        given = frozenset(
            each.name for each in fields(config) if getattr(config, each.name) != getattr(plain, each.name)
        )
    names = {*plain.stored(), *_OPTIONAL}
    wanted = {name: recorded.get(name, getattr(plain, name)) for name in names}
    for name in sorted(given - {*_OF_ROWS}):
        flag = f"--{name.replace('_', '-')}"
        if name not in wanted:
            raise ConfigError(f"{flag} does not go with --extend: drop it")
        if getattr(config, name) != wanted[name]:
            raise ConfigError(
                f"{flag}: {path} was built with {wanted[name]!r}, and new rows are built as its rows were: drop the "
                "option"
            )
    found = replace(plain, **{name: getattr(config, name) for name in _OF_ROWS}, **wanted)
    if found.scorer == "permuted" or getattr(found.settings, "mode", "") == "transductive":
        raise ConfigError(
            f"--extend: by the {found.scorer} scorer, as {path} was built, an image's factor depends on all others: "
            f"{again}"
        )
    return found


def check_not_extended(target: Path, force: bool, say: Say) -> None:
    """Before a build replaces a store.

    Args:
        target: its folder.
        force: whether a warning will do.
        say: receives it.

    Raises:
        ConfigError: rows have joined it, which the new store would be without.
    """
    try:
        entries = extensions(TargetStore.open(target))
    except StoreError:  # there is none, or one that has to be replaced
        return
    rows = sum(entry["rows"] for entry in entries)
    if rows and force:
        say(f"warning: --force builds {target} without the {rows:,} rows that it was extended by")
    elif rows:
        raise ConfigError(
            f"{target} was extended by {rows:,} rows, and a build with what is there now would drop them: add --force, "
            "then --extend it again"
        )


def extend_store(
    config: BuildConfig, split: Split, ontology: Ontology, encoder: Any, say: Say
) -> TargetStore:
    """Let the rows of a split join the store ``config.extend``, or say that they have joined already.

    Args:
        config: of ``recorded_options``.
        split: the new rows.
        ontology: the store's own.
        encoder: of captions, for the scorer that needs one.
        say: receives one line at a time.

    Raises:
        KGTargetsError: the store was made of something else than is there now, it is damaged, or an image is in it.
    """
    store = TargetStore.open(str(config.extend))
    named = f"{split.manifest.name}/{split.name}"
    inputs = {"dataset": split.manifest.name, "split": split.name, **split.inputs()}
    if any(entry["inputs"] == inputs for entry in extensions(store)):
        say(f"{store.path}: up to date, the rows of {named} have joined it")
        return store
    fit = _fit_store(store)
    _check_same(store, config, ontology, encoder)
    if store.manifest["inputs"].get("code_sha256") != write.code_digest():
        say(
            f"warning: {store.path} was built by other code (kg-targets {store.manifest['code_version']}): its rows "
            f"stay as they are, the new ones are read by kg-targets {kg_targets.__version__}"
        )
    if (split.manifest.name == store.dataset) and split.name != store.split:
        say(f"warning: rows of {named} join {store.split}: what is trained on the store has seen them")
    if store.manifest["inputs"].get(_EXCLUDED) != inputs.get(_EXCLUDED):
        how = "with" if _EXCLUDED in store.manifest["inputs"] else "without"
        say(
            f"warning: {store.path} was built {how} a list of cases to leave out, and these rows are not read with "
            "the same: see --exclude"
        )
    watch = Stopwatch()
    states = store.path.with_name(f".{store.path.name}.state")
    state = states / json_sha256([store.fingerprint, inputs], str)[:16]
    with StoreWriter(store.path) as writer:
        if TargetStore.open(store.path).fingerprint != store.fingerprint:
            raise StoreError(f"{store.path} was just written by another build: run the command again")
        with watch.stage("extract"):
            parts = extract.extract_split(config, split, ontology, writer.folder, say)
            rows = sum(each.rows for each in parts)
            _check_new(store, split, list(StagedColumn(writer.folder, len(parts), "image_id", rows)))
        with watch.stage("graph"):
            is_a = ontology if config.use_ontology else None
            asserted, runs = Assertions.joined([each.asserted for each in parts]), concept_runs(store)
            halved = config.uncertain == "half"
            graph = ConceptGraph.build(asserted, is_a, config.max_hops, config.relations, halved, runs)
            known = {cui for run in runs for cui in run}
            added = [cui for cui in graph.concepts if cui not in known]
            cuis = [*store.concepts["cui"], *added]
        with watch.stage("factors"):
            statistics = _statistics(store, fit, graph, is_a, config.relations)
            new = score_images(
                config,
                ontology,
                graph,
                statistics,
                [each.rows for each in parts],
                fitted=fit.vectors,
                folder=writer.folder,
                state=state,
                encode=encoder.encode if encoder else None,
                say=say,
            )
            factors = Factors(
                _stacked(store.factors, in_columns(new.matrix, graph.concepts, cuis)),
                np.concatenate([store.known, new.known]),
            )
        with watch.stage("neighbours"):
            neighbors, told = find_neighbors(
                factors,
                np.concatenate([id_angles(store.image_ids), *(each.angles for each in parts)]),
                k=config.top_k,
                way=config.neighbors,
                folder=writer.folder,
                state=state,
                workers=config.worker_count,
                say=say,
            )
        with watch.stage("shards"):
            labels = tuple(dict.fromkeys([*store.labels, *(name for each in parts for name in each.labels)]))
            pieces = pieces_of_shards([each.rows for each in parts], config.rows_per_shard)
            first = (len(schema.table_files(store.manifest, schema.TARGETS)), len(store))
            counts = [each.mentions for each in parts]
            shards = Shards(
                writer.folder, pieces, counts, labels, factors, neighbors, config.rows_per_shard, first
            )
            keep_shards(writer, store, shards, config.worker_count)
            write_shards(writer, shards, config.worker_count)
            images = _images(store, graph, cuis)
            write.write_concepts(writer, cuis, images, statistics, ontology)
            write.write_edges(writer, graph)
        with watch.stage("quantiles"):
            cases = np.concatenate([key64(store.group_ids), *(each.cases for each in parts)])
            quantiles = write.off_diagonal_quantiles(factors, cases)
        entry = {
            **split.metadata(),
            "rows": graph.images,
            "concepts": len(added),
            "extended": store.fingerprint,
            "inputs": inputs,
        }
        licences = dict.fromkeys([store.manifest["licence"], split.manifest.licence])
        content: dict[str, Any] = {
            **{key: value for key, value in store.manifest.items() if key not in _WRITTEN},
            **_counted(store, parts, config, ontology),
            "rows": len(store) + graph.images,
            "labels": list(labels),
            "licence": "; ".join(filter(None, licences)),
            "factors": write.factor_shape(factors.matrix, len(cuis)),
            "similarity": {"quantiles": quantiles, "fit_p95": store.manifest["similarity"]["fit_p95"]},
            "confirmation": confirmation(
                ontology, {cui: count for cui, count in zip(cuis, images.tolist(), strict=True) if count}
            ),
            EXTENSIONS: [*extensions(store), entry],
            **told,
        }
        writer.finish(content, {"stages": watch.stages})
    shutil.rmtree(states, ignore_errors=True)
    found = TargetStore.open(store.path)
    say(f"{found.path}: {watch.total(graph.images)}, now {len(found):,}; {len(added):,} concepts are new")
    for line in summary_lines(found):
        say(f"  {line}")
    return found


_WRITTEN = ("schema_version", "files", "fingerprint", "neighbors")
"""Entries of the manifest that the writer or the search of neighbours writes anew."""


def _stacked(old: AnyFactors, new: AnyFactors) -> AnyFactors:
    """Old rows and new rows; old ones have nothing in columns that are new."""
    own = sparse_matrix(old)
    if own is None:
        return np.concatenate([np.asarray(old), np.asarray(new)])
    wide = sparse.csr_array((own.data, own.indices, own.indptr), shape=(own.shape[0], new.shape[1]))
    return sparse.csr_array(sparse.vstack([wide, new], format="csr"))


def _statistics(
    store: TargetStore,
    fit: TargetStore,
    graph: ConceptGraph,
    is_a: Ontology | None,
    relations: tuple[str, ...],
) -> ConceptStatistics:
    """Counts of the fit split; where one is 0, the store's own values if an old row was scored by them."""
    found = write.fit_statistics(fit, unseen=False)
    if is_a:
        found = found.with_unseen(graph, is_a, relations)
    concepts = store.concepts
    names, asserted = concepts["cui"].to_numpy(), np.flatnonzero(concepts["images"].to_numpy())
    edges = list(store.edges[schema.EDGE_COLUMNS.names].itertuples(index=False, name=None))
    used = np.union1d(asserted, representatives(names.tolist(), edges, concept_runs(store))[asserted])
    return replace(
        found,
        unseen_ic={**found.unseen_ic, **dict(zip(names, concepts["ic"].tolist(), strict=True))},
        unseen_idf={
            **found.unseen_idf,
            **dict(zip(names[used], concepts["idf"].to_numpy()[used].tolist(), strict=True)),
        },
    )


def _images(store: TargetStore, graph: ConceptGraph, cuis: list[str]) -> np.ndarray[Any, Any]:
    """Images that assert each concept, old and new, int64 [C]."""
    new = np.bincount(graph.has_attribute.indices, minlength=len(graph.concepts)).tolist()
    count = dict(zip(graph.concepts, new, strict=True))
    total = np.array([count[cui] for cui in cuis], dtype=np.int64)
    total[: len(store.concepts)] += store.concepts["images"].to_numpy()
    return total


def _fit_store(store: TargetStore) -> TargetStore:
    """The store whose statistics this one has: itself, or the one beside it."""
    split, fitted_on = store.manifest["fit"]["split"], store.manifest["inputs"].get("fitted_on")
    if fitted_on is None:
        return store
    folder = store.path.parent / str(split)
    try:
        fit = TargetStore.open(folder)
    except StoreError as error:
        raise StoreError(
            f"{folder} is needed, the store that IC and idf of {store.path} were fitted on: {error}"
        ) from error
    if origin(fit) != fitted_on:
        raise StoreError(
            f"{folder} is not the store that {store.path} was fitted on: build both again, then extend"
        )
    return fit


def _check_same(store: TargetStore, config: BuildConfig, ontology: Ontology, encoder: Any) -> None:
    """Is the store whole, and are its ontology, encoder and files of options those of now?"""
    store.check_files()
    inputs, again = store.manifest["inputs"], "build the store again from all rows"
    if ontology.fingerprint != inputs["ontology_fingerprint"]:
        raise StoreError(
            f"{store.path} was built with {store.manifest['ontology']['release']}, and --ontology {config.ontology} is "
            f"{ontology.release} of another content now: {again}"
        )
    if extractors.option_file_digests(config.extractor_options) != inputs.get("option_files", {}):
        raise StoreError(f"a file of --extractor-options is not what {store.path} was built with: {again}")
    if encoder and encoder.metadata() != {"encoder": store.manifest.get("encoder")}:
        raise StoreError(f"the encoder is not the one that {store.path} was built with: {again}")


def _check_new(store: TargetStore, split: Split, ids: list[str]) -> None:
    """Is none of the images in the store?"""
    seen = np.flatnonzero(np.isin(key64(ids), key64(store.image_ids)))
    if len(seen):
        raise DataError(
            f"{split.manifest.name}/{split.name}: {len(seen):,} of {len(ids):,} image ids are in {store.path} already "
            f"(such as {ids[seen[0]]}): name a data set or split of new images only"
        )


def _counted(
    store: TargetStore, parts: list[PartResult], config: BuildConfig, ontology: Ontology
) -> Mapping[str, Any]:
    """Counts of CUIs and languages over old and new rows."""
    retired, unknown, spoken = (
        sum((getattr(each, name) for each in parts), Counter[str]())
        for name in ("retired_cuis", "unknown_cuis", "languages")
    )
    unknown += _unknown(store, config, ontology)
    found: dict[str, Any] = {
        "retired_cuis": dict((Counter(store.manifest["retired_cuis"]) + retired).most_common(20)),
        "unknown_cuis": dict(unknown.most_common(20)),
        "unknown_cuis_count": len(unknown),
    }
    if config.languages:
        found["languages"] = dict((Counter(store.manifest["languages"]) + spoken).most_common())
    return found


def _unknown(store: TargetStore, config: BuildConfig, ontology: Ontology) -> Counter[str]:
    """CUIs that old rows assert and the ontology lacks."""
    if config.keep_unknown_cuis:
        pairs = zip(store.concepts["cui"], store.concepts["images"].tolist(), strict=True)
        return Counter({cui: count for cui, count in pairs if count and cui not in ontology})
    mentions = store.mentions
    stated = ~mentions[["negated", "hypothetical", "historical", "family"]].any(axis=1)
    if config.uncertain == "drop":
        stated &= ~mentions["uncertain"]
    asserted = mentions.loc[stated, ["image_id", "cui"]].drop_duplicates()["cui"]
    return Counter(cui for cui in asserted if cui not in ontology)
