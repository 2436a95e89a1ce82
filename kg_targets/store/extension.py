"""Extensions of a store: rows that joined it later, as ``extensions`` in its manifest lists them, oldest first."""

from typing import Any

from kg_targets.store.reader import TargetStore

EXTENSIONS = "extensions"


def extensions(store: TargetStore) -> list[dict[str, Any]]:
    """The entry of each extension: data set and split, ``rows``, ``concepts`` (columns that it added), …"""
    return list(store.manifest.get(EXTENSIONS, ()))


def origin(store: TargetStore) -> str:
    """Fingerprint of the store before it was extended: what was fitted on it stays fitted on it."""
    entries = extensions(store)
    return str(entries[0]["extended"]) if entries else store.fingerprint


def concept_runs(store: TargetStore) -> list[list[str]]:
    """The store's concepts in the order of their columns, by the build or extension that brought them."""
    cuis = store.concepts["cui"].tolist()
    later = [int(entry["concepts"]) for entry in extensions(store)]
    start, runs = len(cuis) - sum(later), []
    runs.append(cuis[:start])
    for count in later:
        runs.append(cuis[start : start + count])
        start += count
    return runs
