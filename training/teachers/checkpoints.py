"""Reading other people's checkpoints: tensors only, and every parameter must find its place."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)

from training.errors import CheckpointError
from training.weights import LOAD_ERRORS, explain, quiet_loading, read_tensors

Weights = dict[str, Tensor]
_DERIVED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")


def find_weights(folder: Path, names: Iterable[str], kind: str) -> Path:
    """The first of ``names`` that is in a folder.

    Raises:
        CheckpointError: none is.
    """
    wanted = list(names)
    for name in wanted:
        if (folder / name).is_file():
            return folder / name
    state = "has none of" if folder.is_dir() else "does not exist; it must hold"
    raise CheckpointError(f"teacher {kind}:{folder} {state} {', '.join(wanted)}: see docs/teachers.md")


def read_weights(path: Path) -> Weights:
    """The tensors of a ``.safetensors`` or torch file; nothing else that was pickled is loaded.

    Raises:
        CheckpointError: it is not a file of tensors.
    """
    try:
        found = read_tensors(path)
    except LOAD_ERRORS as error:
        raise CheckpointError(f"{path}: {explain(error)}") from error
    if found is None:
        raise CheckpointError(f"{path} holds no dictionary of tensors: it is not a file of weights")
    return {"": found} if isinstance(found, Tensor) else found


def part(weights: Weights, prefix: str) -> Weights:
    """The entries below ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def fill(model: nn.Module, weights: Weights, where: str) -> None:
    """Load weights; buffers that follow from the architecture may be in the file or not.

    Raises:
        CheckpointError: a parameter is missing, left over or of another shape.
    """
    try:
        found = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{where}: {explain(error)}") from error
    _all_placed(found.missing_keys, found.unexpected_keys, where)


def filled(kind: type[PreTrainedModel], config: PretrainedConfig, weights: Weights, where: str) -> Any:
    """A model of transformers from its weights, under the names of any version of transformers.

    Raises:
        CheckpointError: a parameter is missing, left over or of another shape.
    """
    load: Any = kind.from_pretrained  # typed as if it gave the model alone
    try:
        with quiet_loading():
            model, info = load(None, config=config, state_dict=dict(weights), output_loading_info=True)
    except LOAD_ERRORS as error:
        raise CheckpointError(f"{where}: {explain(error)}") from error
    _all_placed(
        [*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])],
        info["unexpected_keys"],
        where,
    )
    return model


def _all_placed(missing: Iterable[str], unknown: Iterable[str], where: str) -> None:
    for state, names in (("is missing", missing), ("is not one of the model", unknown)):
        wrong = sorted(name for name in names if not name.endswith(_DERIVED))
        if wrong:
            raise CheckpointError(
                f'{where}: parameter "{wrong[0]}" {state}: it is a checkpoint of another kind'
            )


def required(weights: Weights, name: str, where: str) -> Tensor:
    """One entry.

    Raises:
        CheckpointError: there is none.
    """
    if name not in weights:
        raise CheckpointError(f'{where}: parameter "{name}" is missing: it is a checkpoint of another kind')
    return weights[name]


def count(weights: Weights, prefix: str) -> int:
    """How many numbered entries there are below ``prefix``: layers, blocks."""
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})


def bert_of(weights: Weights, where: str) -> BertModel:
    """A BERT as large as its weights say, with heads of 64 as all published ones, filled with them.

    Raises:
        CheckpointError: they are not a BERT's.
    """
    words = required(weights, "embeddings.word_embeddings.weight", where)
    positions = required(weights, "embeddings.position_embeddings.weight", where)
    wide = required(weights, "encoder.layer.0.intermediate.dense.weight", where)
    config = BertConfig(
        vocab_size=words.shape[0],
        hidden_size=words.shape[1],
        num_hidden_layers=count(weights, "encoder.layer."),
        num_attention_heads=max(1, words.shape[1] // 64),
        intermediate_size=wide.shape[0],
        max_position_embeddings=positions.shape[0],
    )
    bert: BertModel = filled(BertModel, config, weights, where)
    return bert


def read_tokenizer(folder: Path, kind: str) -> Any:
    """The tokenizer in a folder: its own files, or a bare ``vocab.txt`` as BERT reads one (lower case).

    Raises:
        CheckpointError: there is none.
    """
    find_weights(folder, ("tokenizer_config.json", "vocab.txt"), kind)
    try:
        with quiet_loading():
            if (folder / "tokenizer_config.json").is_file():
                return AutoTokenizer.from_pretrained(
                    os.fspath(folder), local_files_only=True, trust_remote_code=False
                )
            return BertTokenizer(os.fspath(folder / "vocab.txt"))
    except Exception as error:  # the tokenizers library raises nothing more special
        raise CheckpointError(
            f"teacher {kind}:{folder}: its tokenizer cannot be read: {explain(error)}"
        ) from error
