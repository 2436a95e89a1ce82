"""A pre-trained model's folder: a Med-VQA model without answers, what its run trained, and the heads beside it.

config.json, model.safetensors, tokenizer, answers.json   as training/med_vqa/model/saving.py writes them; no candidates
pretraining.json                                          stage, trained parts, width of the heads, temperatures and
                                                          which are learnt; every pre-training run up to this one,
                                                          and whether a fine-tuning run came before it
heads.safetensors                                         projections, matching head, temperatures
trained_on.json                                           of that fine-tuning, where it is recorded
"""

import shutil
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from training.errors import CheckpointError
from training.folders import write_json
from training.med_vqa.model.history import (
    PRETRAINING,
    Part,
    Pretraining,
    PretrainingRecord,
    Temperature,
    TrainingHistory,
    read_pretraining,
    save_trained_on,
)
from training.med_vqa.model.saving import CONFIG, Answers, MedVQA, save_med_vqa
from training.med_vqa.pretrain.corpus import Corpus, Exclusions
from training.med_vqa.pretrain.model import TEMPERATURES, Heads, PretrainingModel
from training.weights import explain

HEADS = "heads.safetensors"
TOWERS: tuple[Part, ...] = ("vision", "text", "image_projection", "text_projection")
"""Parts that stage one trains."""
FUSION: tuple[Part, ...] = ("co_attention",)
"""Those that stage two adds."""


def pretraining_of(stage: str, corpus: Corpus, exclusions: Exclusions) -> Pretraining:
    """Record of a run's data, for whoever scores the model later."""
    store = corpus.store
    return Pretraining(
        stage=stage,
        dataset=store.dataset,
        split=store.split,
        store=store.fingerprint,
        images=len(corpus.images),
        dev_images=0 if corpus.dev is None else len(corpus.dev),
        excluded=exclusions.made,
    )


def save_pretrained(
    folder: Path, model: PretrainingModel, vqa: MedVQA, pretraining: Pretraining, history: TrainingHistory
) -> None:
    """Write the folder; errors as of ``save_med_vqa``.

    Args:
        folder: a new or empty folder.
        model: unwrapped; its Med-VQA model is that of ``vqa``.
        vqa: model and tokenizer.
        pretraining: what it was trained on.
        history: of its initial model, which is kept.
    """
    none = Answers([], [], "none", pretraining.dataset, source="none: a pre-training knows no answers")
    save_med_vqa(folder, vqa.model, vqa.tokenizer, none)
    heads = model.heads
    tensors = {name: value.detach().contiguous() for name, value in heads.state_dict().items()}
    try:
        save_file(tensors, folder / HEADS)
    except SafetensorError as error:  # how a full disk comes out of safetensors
        raise OSError(str(error)) from error
    shutil.copymode(folder / CONFIG, folder / HEADS)
    record = PretrainingRecord(
        stage=model.stage,
        trained=TOWERS + (FUSION if model.stage == "two" else ()),
        embed_dim=heads.image.out_features,
        temperatures={name: round(heads.tau(name).item(), 6) for name in TEMPERATURES},
        learnt_temperatures=_learnt(heads),
        fine_tuned=history.fine_tuned,
        pretrainings=(*history.pretrainings, pretraining),
    )
    write_json(folder / PRETRAINING, asdict(record))
    if history.fine_tuning is not None:
        save_trained_on(folder, history.fine_tuning)


def take_heads(model: PretrainingModel, start: Path) -> list[str]:
    """Take over the heads of a pre-training, and those of its temperatures that were, and are, learnt.

    Stage one begins with new heads where there are none of its width; stage two needs them.

    Args:
        model: takes them.
        start: folder of the initial model, ``model.init_from``.

    Returns:
        Notes for a person on what is not taken over, a line each.

    Raises:
        CheckpointError: the heads are damaged; in stage two also: it is no pre-training, or its heads are of
            another width.
    """
    path, heads, record = start / HEADS, model.heads, read_pretraining(start)
    two = model.stage == "two"
    if record is None or not path.is_file():
        if two:
            raise CheckpointError(
                f"model.init_from {start} is not a pre-training (no {PRETRAINING} or no {HEADS}): stage two continues "
                "a run of stage one, or of stage two"
            )
        return [f"model.init_from {start} has no heads: those of this run are new"]
    own = heads.state_dict()
    try:
        found = load_file(path)
        content = {name: found[name] for name in own}
    except KeyError as error:
        raise CheckpointError(f"{path} is damaged: it has no {error}") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {explain(error)}") from error
    if any(content[name].shape != value.shape for name, value in own.items()):
        widths = f"its heads are {record.embed_dim} wide and those of this"
        if two:
            raise CheckpointError(
                f"model.init_from {start}: {widths} model {heads.image.out_features}: set model.embed_dim as in the "
                "pre-training"
            )
        return [f"model.init_from {start}: {widths} run {heads.image.out_features}: they are new"]
    here, there = _learnt(heads), record.learnt_temperatures or ()
    configured = {
        name: value
        for name, value in own.items()
        if name.startswith("log_taus.") and name.removeprefix("log_taus.") not in set(here) & set(there)
    }
    heads.load_state_dict({**content, **configured})
    if here and record.learnt_temperatures is None:
        unknown = "does not record whether it learnt its temperatures: they start as configured"
        return [f"model.init_from {start} {unknown}"]
    dropped = [
        f"{name} {content[f'log_taus.{name}'].exp().item():.4g} there, {heads.tau(name).item():.4g} here"
        for name in there
        if name not in here
    ]
    if not dropped:
        return []
    return [f"temperatures that model.init_from learnt are fixed here, as configured: {'; '.join(dropped)}"]


def _learnt(heads: Heads) -> tuple[Temperature, ...]:
    return tuple(name for name in TEMPERATURES if heads.log_taus[name].requires_grad)
