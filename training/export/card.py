"""The model card: what the model is, what it was trained on and under which licence, how it did, what it is not for."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from training.arguments import flat
from training.clip.config import is_folder
from training.clip.pretrained import LITE0, MINILM
from training.data.metadata import is_stated, unstated_images
from training.export.run import ReportedNumbers, RunRecord
from training.rendering import NOTHING, render

NO_LICENCE = "no stated licence, do not publish weights"
KNOWN_WEIGHTS = {LITE0: " (ImageNet, Apache-2.0)", MINILM: " (all-MiniLM-L6-v2, Apache-2.0)"}
_PERCENT = ("cui@", "p@", "recall@")


def model_card(
    record: RunRecord, open_clip_config: Mapping[str, Any], evaluation: ReportedNumbers | None = None
) -> str:
    """README.md with YAML front matter.

    Args:
        record: the run.
        open_clip_config: content of the exported folder's open_clip_config.json.
        evaluation: its numbers on another split.
    """
    model = record.config["model"]
    return render(
        "training.export", "card.md.j2", config=record.config, model=model, data=record.data,
        train=record.data["train"], evaluation=evaluation, metrics=flat(record.metrics),
        hf_model=open_clip_config["model_cfg"]["text_cfg"].get("hf_model_name"),
        whole=model.get("pretrained") or (model["name"] if is_folder(model["name"]) else None),
        front_matter=_front_matter(record), config_yaml=_yaml(without_folders(record.config)),
        no_licence=NO_LICENCE, unstated=_unstated(record), known_weights=KNOWN_WEIGHTS, is_stated=is_stated,
        unstated_images=unstated_images, without_folders=without_folders, figure=_figure, shares=_shares,
    )  # fmt: skip


def without_folders(value: Any) -> Any:
    """The same tree with every path shortened to its last part: a card does not tell a machine's folders."""
    if isinstance(value, dict):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_folders(part) for part in value]
    if isinstance(value, str) and "/" in value and not value.startswith("hf-hub:"):
        scheme = "local-dir:" if value.startswith("local-dir:") else ""
        return f"{scheme}…/{value.rstrip('/').rsplit('/', 1)[-1]}"
    return value


def _front_matter(record: RunRecord) -> str:
    licences: Counter[str] = Counter()
    for split in record.data.values():
        for licence, count in split["licences"].items():
            licences[licence or str(split["licence"])] += count
    unstated = bool(_unstated(record))
    matter = {
        "library_name": "open_clip",
        "pipeline_tag": "zero-shot-image-classification",
        "tags": ["clip", "medical-imaging", "kg-targets"],
        "datasets": sorted({str(split["dataset"]) for split in record.data.values()}),
        "license": "other",
        "license_name": NO_LICENCE if unstated else "see the licences of the training data",
        "data_licences": dict(licences),
        "publish_weights": not unstated,
        "target_fingerprint": record.data["train"]["fingerprint"],
    }
    return _yaml(matter, width=1000)


def _yaml(content: Any, width: int = 80) -> str:
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=width))


def _unstated(record: RunRecord) -> list[dict[str, Any]]:
    """Splits with images of no stated licence."""
    return [split for split in record.data.values() if unstated_images(split)]


def _figure(key: str, value: Any) -> str:
    share = any(part in key.lower() for part in _PERCENT) and isinstance(value, float)
    return f"{100 * value:.1f} %" if share else f"{value:,}" if isinstance(value, int) else str(value)


def _shares(entry: Mapping[str, float | None], bounds: bool = True) -> str:
    mean, low, high = (entry.get(part) for part in ("mean", "low", "high"))
    if mean is None:
        return NOTHING
    if not bounds or low is None or high is None:
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
