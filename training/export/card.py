"""The model card: what the model is, what it was trained on and under which licence, how it did, what it is not for."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from training.clip.config import is_folder
from training.clip.starts import LITE0, MINILM
from training.data.facts import is_stated, unstated_images
from training.export.run import ReportedNumbers, RunRecord

NO_LICENCE = "no stated licence, do not publish weights"
_PERCENT = ("cui@", "p@", "recall@")

LOAD = """\
```python
import torch
import open_clip
from PIL import Image

folder = "local-dir:PATH/TO/THIS/FOLDER"
model, _, preprocess = open_clip.create_model_and_transforms(folder)
tokenizer = open_clip.get_tokenizer(folder)
model.eval()
with torch.no_grad():
    image = model.encode_image(preprocess(Image.open("image.png")).unsqueeze(0), normalize=True)
    text = model.encode_text(tokenizer(["CT of the chest"]), normalize=True)
print(image @ text.T)
```
"""
HF_NOTE = """\
The text tower is a Hugging Face model: open_clip asks the hub, or its cache, for the architecture `{name}`. Without
either, name this folder, which holds it, too (`config.json`):

```python
import json

path = folder.removeprefix("local-dir:")
text_cfg = json.load(open(path + "/open_clip_config.json"))["model_cfg"]["text_cfg"]
text_cfg |= {{"hf_model_name": path, "hf_model_pretrained": False}}
model, _, preprocess = open_clip.create_model_and_transforms(folder, text_cfg=text_cfg)
```
"""
LIMITS = """\
## Limits

Research only: **not for clinical use**, not for diagnosis and not for decisions about people. The model has seen the
data named above and nothing else of medicine; it inherits their selection of modalities, body regions, languages and
patients. Image similarity is not evidence of a shared diagnosis. Numbers hold for the split and protocol stated here.
"""


def model_card(
    record: RunRecord, open_clip_config: Mapping[str, Any], evaluation: ReportedNumbers | None = None
) -> str:
    """README.md with YAML front matter.

    Args:
        record: the run.
        open_clip_config: content of the exported folder's open_clip_config.json.
        evaluation: its numbers on another split.
    """
    train = record.data["train"]
    title = (
        f"NB-CLIP on {train['dataset']} ({record.config['model']['name']}, {record.config['loss']['name']})"
    )
    parts = [_front_matter(record), f"# {title}\n"]
    unstated = _unstated(record)
    if unstated:
        parts.append(f"**{NO_LICENCE[0].upper()}{NO_LICENCE[1:]}.** {unstated}\n")
    parts.append(
        "An open_clip image-text model for radiology-like images and captions. Its loss is "
        f"`{record.config['loss']['name']}`; soft targets come from what a knowledge graph says about the captions' "
        "concepts (kg-targets).\n"
    )
    parts += [_start(record.config["model"]), "## Load it\n", LOAD]
    hf_model = open_clip_config["model_cfg"]["text_cfg"].get("hf_model_name")
    if hf_model:
        parts.append(HF_NOTE.format(name=hf_model))
    parts += ["## Data\n", _data_table(record.data), _targets(train)]
    parts += ["## Result\n", _metrics(record)]
    if evaluation is not None:
        parts.append(_evaluation(evaluation))
    parts += [
        "## Training configuration\n",
        f"Seed {record.config['seed']}. Folders are shortened to their last part.\n",
        f"```yaml\n{yaml.safe_dump(without_folders(record.config), sort_keys=False, allow_unicode=True)}```\n",
        LIMITS,
    ]
    return "\n".join(parts)


def _start(model: Mapping[str, Any]) -> str:
    """What the weights were before the training, in a sentence."""
    if is_folder(model["name"]) or model.get("pretrained"):
        start = without_folders(model.get("pretrained") or model["name"])
        return f"It started from the weights `{start}`: their licence applies, too.\n"
    known = {LITE0: " (ImageNet, Apache-2.0)", MINILM: " (all-MiniLM-L6-v2, Apache-2.0)"}
    towers = []
    for tower in ("image", "text"):
        weights = model.get(f"{tower}_weights")
        shown = f"`{without_folders(weights)}`{known.get(weights, '')}" if weights else "random weights"
        towers.append(f"the {tower} tower from {shown}")
    return f"It started with {' and '.join(towers)}.\n"


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
    return f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True, width=1000)}---\n"


def _unstated(record: RunRecord) -> str:
    """A sentence per split with images of no stated licence; empty if there are none."""
    sentences = [
        f"{unstated_images(split):,} of the {split['images']:,} images of {split['dataset']}/{split['split']} come "
        f"without a stated licence (data set: {split['licence']})."
        for split in record.data.values()
        if unstated_images(split)
    ]
    return " ".join(sentences)


def _data_table(data: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (
            role,
            f"{split['dataset']}/{split['split']}",
            f"{split['images']:,}",
            f"{split['cases']:,}",
            f"{split['known']:,}",
            ", ".join(
                f"{_shown(licence, str(split['licence']))} ({count:,})"
                for licence, count in split["licences"].items()
            ),
        )
        for role, split in data.items()
    ]
    return _table(
        ("used for", "data set/split", "images", "cases", "with concepts", "licences (images)"), rows
    )


def _shown(licence: str, whole: str) -> str:
    if licence.strip():
        return licence
    return f"as the data set: {whole}" if is_stated(whole) else "none stated"


def _targets(train: Mapping[str, Any]) -> str:
    built = ", ".join(f"{key} {value}" for key, value in train["targets"].items() if value not in (None, ""))
    return f"Targets: store fingerprint `{train['fingerprint']}`; built with {built}.\n"


def _metrics(record: RunRecord) -> str:
    rows = [(key.replace("_", " "), _number(key, value)) for key, value in _flat(record.metrics)]
    return "The run's own record (metrics.json):\n\n" + _table(("what", "value"), rows)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _number(key: str, value: Any) -> str:
    share = any(part in key.lower() for part in _PERCENT) and isinstance(value, float)
    return f"{100 * value:.1f} %" if share else f"{value:,}" if isinstance(value, int) else str(value)


def _evaluation(evaluation: ReportedNumbers) -> str:
    lines = [f"- {key}: {value}" for key, value in evaluation.header.items()]
    rows = [
        (name, _interval(evaluation.chance.get(name, {}), short=True), _interval(entry))
        for name, entry in evaluation.measures.items()
    ]
    head = ("measure (%)", "chance", f"{evaluation.name} [interval]")
    return "\n".join(["ReportedNumbers (retrieval.json):\n", *lines, "", _table(head, rows)])


def _interval(entry: Mapping[str, float | None], *, short: bool = False) -> str:
    mean, low, high = (entry.get(part) for part in ("mean", "low", "high"))
    if mean is None:
        return "–"
    if short or low is None or high is None:
        return f"{100 * mean:.1f}"
    return f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [tuple(head), *map(tuple, rows)]
    lines = [
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in cells
    ]
    lines.insert(1, "|" + " --- |" * len(cells[0]))
    return "\n".join(lines) + "\n"
