"""Metadata of training data for a model card: counts, licences, how the targets were made; never a caption or id."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from kg_targets.store import TargetStore

NONE_STATED = "none stated"
METADATA = frozenset(
    ("dataset", "split", "images", "cases", "known", "licence", "licences", "fingerprint", "targets")
)
"""Keys of what ``describe_data`` gives."""
_UNSTATED = {"", "-", "n/a", "na", "none", "null", "unknown", "no-cc code"}
"""Entries of a licence column that state no licence; ``NO-CC CODE`` is ROCO's word for an article without one."""


def describe_data(store: TargetStore) -> dict[str, Any]:
    """The metadata of one split that a run records beside its metrics, as plain JSON values.

    Args:
        store: the split's target store.

    Returns:
        ``dataset``, ``split``, ``images``, ``cases``, ``known`` (images with a concept), ``licence`` (of the data set,
        as its manifest states it), ``licences`` (text of the licence column to number of images), ``fingerprint``
        and ``targets`` (configuration and ontology that the store was built with).
    """
    manifest = store.manifest
    ontology = manifest.get("ontology", {})
    return {
        "dataset": store.dataset,
        "split": store.split,
        "images": len(store),
        "cases": len(set(store.group_ids)),
        "known": int(store.known.sum()),
        "licence": str(manifest.get("licence") or NONE_STATED),
        "licences": dict(sorted(Counter(store.licences).items(), key=lambda item: (-item[1], item[0]))),
        "fingerprint": store.fingerprint,
        "targets": {
            **manifest["config"],
            "ontology_release": ontology.get("release"),
            "ontology_fingerprint": ontology.get("fingerprint"),
        },
    }


def is_stated(licence: str) -> bool:
    """Whether a licence text states a licence at all."""
    text = " ".join(licence.lower().split())
    return text not in _UNSTATED and not text.startswith(
        (NONE_STATED, "not stated", "no licence", "no license")
    )


def unstated_images(data: Mapping[str, Any]) -> int:
    """How many of the images come without a stated licence, by their own entry or else their data set's."""
    whole = is_stated(str(data["licence"]))
    return sum(
        count
        for licence, count in data["licences"].items()
        # An empty entry leaves it to the data set; "NO-CC CODE" and the like say that there is none.
        if not (is_stated(licence) or (whole and not licence.strip()))
    )
