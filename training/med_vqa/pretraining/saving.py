"""A pre-trained model's folder: a Med-VQA model without answers, what its run trained, and the heads beside it.

config.json, model.safetensors, tokenizer, answers.json   as training/med_vqa/saving.py writes them; no candidates
pretraining.json                                          stage, trained parts, width of the heads, temperatures
heads.safetensors                                         projections, matching head, temperatures
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.errors import CheckpointError
from training.med_vqa.build import MedVQA
from training.med_vqa.handover import FUSION, RECORD, TOWERS, read_record
from training.med_vqa.pretraining.model import TEMPERATURES, PretrainingModel
from training.med_vqa.saving import CONFIG, Answers, save_med_vqa

HEADS = "heads.safetensors"


def save_pretrained(folder: Path, model: PretrainingModel, vqa: MedVQA, dataset: str) -> None:
    """Write the folder; arguments and errors as of ``save_med_vqa``.

    Args:
        folder: a new or empty folder.
        model: unwrapped; its Med-VQA model is that of ``vqa``.
        vqa: model and tokenizer.
        dataset: what it was trained on.
    """
    none = Answers([], [], protocol="none", dataset=dataset, source="none: a pre-training knows no answers")
    save_med_vqa(folder, vqa.model, vqa.tokenizer, none)
    heads = model.heads
    try:
        save_file(
            {name: value.detach().contiguous() for name, value in heads.state_dict().items()}, folder / HEADS
        )
    except SafetensorError as error:  # how a full disk comes out of safetensors
        raise OSError(str(error)) from error
    shutil.copymode(folder / CONFIG, folder / HEADS)
    record: dict[str, Any] = {
        "stage": model.stage,
        "trained": [*TOWERS, *(FUSION if model.stage == "two" else ())],
        "embed_dim": heads.image.out_features,
        "temperatures": {name: round(heads.tau(name).item(), 6) for name in TEMPERATURES},
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def take_heads(model: PretrainingModel, start: Path) -> None:
    """Go on with the heads of stage one; temperatures only where they were, and are, learnt: else the configured ones.

    Args:
        model: takes them.
        start: folder of the model that stage one left.

    Raises:
        CheckpointError: the start is no pre-training, or its heads are of another width or damaged.
    """
    path, heads, record = start / HEADS, model.heads, read_record(start)
    if not record or not path.is_file():
        raise CheckpointError(
            f"model.start {start} is not a pre-training (no {RECORD} or no {HEADS}): stage two goes on from a "
            "run of stage one"
        )
    try:
        content = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    for name, value in heads.state_dict().items():
        there = content.get(name)
        if there is None:
            raise CheckpointError(f'{path} is damaged: it has no "{name}"')
        if there.shape != value.shape:
            raise CheckpointError(
                f"model.start {start}: its heads are {record.get('embed_dim')} wide and those of this "
                f"model {heads.image.out_features}: set model.embed_dim as in stage one"
            )
    learnt = {name for name, value in heads.named_parameters() if value.requires_grad}
    kept = {
        name: value if name.startswith("log_taus.") and name not in learnt else content[name]
        for name, value in heads.state_dict().items()
    }
    heads.load_state_dict(kept)
