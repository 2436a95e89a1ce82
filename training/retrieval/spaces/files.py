"""The files of a comparison of spaces, and what tells one comparison from another."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from training.retrieval.outputs import evaluation_key
from training.retrieval.runs import RunGroup
from training.retrieval.spaces.config import SpacesConfig

RESULT, MARKDOWN = "spaces.json", "spaces.md"
SIMILARITY, WINS, LOSSES = "similarity.png", "wins.png", "losses.png"
NAMES = (MARKDOWN, SIMILARITY, WINS, LOSSES, RESULT)
_FORMAT = 1
"""Of RESULT; a comparison in another one is done again."""


def spaces_key(
    store: str, targets: str, images: str, groups: Sequence[RunGroup], config: SpacesConfig
) -> str:
    """Tells one comparison from another: stores, images, finished runs and options, each by its content."""
    evaluation = evaluation_key(store, images, groups, config.evaluation)
    options = json.dumps(asdict(config), sort_keys=True)
    return hashlib.sha256(f"{_FORMAT}\n{evaluation}\n{targets}\n{options}".encode()).hexdigest()
