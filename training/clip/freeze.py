"""Freezing parts of the towers.

A frozen part stays in eval mode whatever ``train()`` is called on: dropout would only blur what cannot adapt to it, and
BatchNorm would go on changing. BatchNorm with fixed statistics treats each image by itself, which gradients that must
be equal over processes or micro-batches need.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from typing import Any

from torch import nn

from training.clip.config import ModelConfig
from training.errors import ConfigError, one_line

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_REFUSALS = (
    AssertionError, AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def freeze(model: nn.Module, config: ModelConfig) -> None:
    """Freeze and checkpoint what is configured, in place; before the model is prepared for several processes.

    Args:
        model: an open_clip model with its weights.
        config: ``lock_image``, ``lock_text``, their unlocked parts, ``freeze_batch_norm``, ``grad_checkpointing``.

    Raises:
        ConfigError: the tower cannot be locked like this, or nothing would be left to learn.
    """
    towers: Any = model
    if config.lock_image:
        groups = config.lock_image_unlocked_groups
        _lock(
            partial(towers.lock_image_tower, unlocked_groups=groups),
            model,
            f"model.lock_image_unlocked_groups {groups}" if groups else "model.lock_image",
        )
    if config.lock_text:
        layers = config.lock_text_unlocked_layers
        _lock(
            partial(_lock_text, towers, layers),
            model,
            f"model.lock_text_unlocked_layers {layers}" if layers else "model.lock_text",
        )
    learning = [name for name, value in model.named_parameters() if value.requires_grad]
    if not set(learning) - {"logit_scale", "logit_bias"}:
        raise ConfigError(
            "model.lock_image and model.lock_text freeze every weight of this model: leave one out, or unlock some"
        )
    if config.grad_checkpointing:
        _checkpoint_gradients(towers)
    hold_in_eval(_frozen(model))
    if config.freeze_batch_norm:
        hold_in_eval(module for module in model.modules() if isinstance(module, BATCH_NORMS))


def hold_in_eval(modules: Any) -> None:
    """Put modules into eval mode, where ``train()`` of the model around them leaves them.

    Args:
        modules: iterable of modules; copies and pickles of them behave alike.
    """
    for module in modules:
        module.train = partial(_stay_in_eval, module)
        module.eval()


def learning_batch_norm(model: nn.Module) -> str:
    """Name of the first BatchNorm layer in training mode; empty if there is none."""
    found = (
        name for name, module in model.named_modules() if isinstance(module, BATCH_NORMS) and module.training
    )
    return next(found, "")


def refuse_batch_norm(
    model: nn.Module, field: str = "loss.micro_batch", remedy: str = "--model.freeze_batch_norm=true"
) -> None:
    """Refuse a model whose features depend on who else is in the forward pass.

    Args:
        model: in the mode (train or eval) in which it will be called.
        field: of the configuration, that asks for micro-batches.
        remedy: what else keeps such layers from learning.

    Raises:
        ConfigError: a BatchNorm layer of it is in training mode.
    """
    name = learning_batch_norm(model)
    if name:
        raise ConfigError(
            f"{field}: {name} normalises by the images of one forward pass, so that micro-batches would not give "
            f"the whole batch's gradient; set {remedy} or --{field}=null"
        )


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    """In the place of ``module.train``, with its arguments."""
    return type(module).train(module, False)


def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The largest parts without a parameter that learns."""
    parameters = list(module.parameters())
    if parameters and not any(value.requires_grad for value in parameters):
        yield module
        return
    for child in module.children():
        yield from _frozen(child)


def _lock(lock: Callable[[], None], model: nn.Module, field: str) -> None:
    before = sum(value.requires_grad for value in model.parameters())
    try:
        # open_clip tells how many layers it unlocks, and imports timm by a deprecated name.
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            lock()
    except _REFUSALS as error:
        raise ConfigError(f"{field}: open_clip cannot lock this tower so ({one_line(error)})") from error
    if sum(value.requires_grad for value in model.parameters()) == before:
        raise ConfigError(f"{field}: unlocks the whole tower: choose fewer, or leave the lock out")


def _lock_text(towers: Any, unlocked: int) -> None:
    text: Any = getattr(towers, "text", None)
    if not unlocked or not hasattr(text, "pooler"):
        towers.lock_text_tower(unlocked_layers=unlocked)
        return
    # open_clip does not know where a BERT keeps its layers.
    encoder = getattr(text.transformer, "encoder", text.transformer)
    layers = encoder.layer if hasattr(encoder, "layer") else encoder.block
    if unlocked > len(layers):
        raise ValueError(f"it has {len(layers)} layers")
    towers.lock_text_tower(unlocked_layers=0)
    for layer in layers[-unlocked:]:
        layer.requires_grad_(True)


def _checkpoint_gradients(towers: Any) -> None:
    visual = towers.visual
    trunk = getattr(visual, "trunk", None)
    try:
        if trunk is not None:
            trunk.set_grad_checkpointing(True)  # open_clip would only log that there is none
        elif hasattr(visual, "attnpool"):
            raise RuntimeError("the ResNet of open_clip has none")
        else:
            visual.set_grad_checkpointing(True)
        text: Any = getattr(towers, "text", towers)
        if hasattr(text, "pooler"):
            # Not by open_clip's wrapper: the reentrant kind loses the gradients behind frozen embeddings.
            # transformers 5.23 has the first name, older ones the second; both take the same first argument.
            encoder = text.transformer
            new = getattr(encoder, "activation_checkpointing_enable", None)
            (new or encoder.gradient_checkpointing_enable)({"use_reentrant": False})
        else:
            text.transformer.grad_checkpointing = True
    except _REFUSALS as error:
        raise ConfigError(
            f"model.grad_checkpointing: a tower does not offer it ({one_line(error)})"
        ) from error
