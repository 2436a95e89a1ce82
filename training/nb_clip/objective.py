"""The NB-CLIP objective: features of all processes and targets to loss and gradients.

A batch that does not fit goes through the model in micro-batches, in two passes (GradCache, Gao et al. 2021,
arXiv 2101.06983). A contrastive loss couples all images of a batch, so gradients of small batches do not add up to that
of the big one. But it looks at a model only through its features, and the chain rule splits there:

1. **first pass**: features of each micro-batch without gradient, and the state of the random number generators
   before it;
2. the loss on the features of the whole batch (of all processes), and its gradient g = ∂L/∂f, which is kept;
3. **second pass**: each micro-batch again, with the same random numbers, now with gradient; the surrogate Σ⟨f, g⟩ has
   the gradient (∂f/∂θ)ᵀ·g, and those of the micro-batches add up to ∂L/∂θ exactly.

Activations are those of one micro-batch; the price is a second forward pass. The scale and the bias of the logits are
cached like features and enter the last surrogate, the only one after which DDP exchanges gradients.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from kg_targets.losses.chunked import chunked_loss
from kg_targets.losses.contrastive import ContrastiveBatch, gather_features, measure
from kg_targets.losses.registry import LOSSES
from training.clip.freeze import refuse_batch_norm
from training.engine.sharing import slices
from training.errors import ConfigError, ShapeError
from training.nb_clip.batch_targets import RowTargets
from training.nb_clip.config import LossConfig

RandomState = tuple[Tensor, Tensor | None]
"""State of the generators that dropout and the like draw from: the CPU's, and the device's on CUDA."""
Encode = Callable[[int, int], dict[str, Tensor]]
"""Features (and logit_scale, logit_bias) of the images and texts start … stop − 1 of the local batch."""
FEATURES = ("image_features", "text_features")
SCALARS = ("logit_scale", "logit_bias")


class NBClipObjective:
    """Takes the loss of a batch back to the model's parameters, and says what a log line tells about it."""

    def __init__(self, loss: LossConfig, accelerator: Accelerator) -> None:
        self.loss = LOSSES[loss.name]
        self._compute = self.loss.load()
        self.accelerator = accelerator
        self.micro_batch = loss.micro_batch

    def freeze_unused(self, model: nn.Module) -> None:
        """Freeze the scale or bias that this loss does not look at: DDP waits for every trained parameter's gradient.

        Args:
            model: an open_clip model, before it is prepared for several processes.
        """
        for name, used in (("logit_scale", self.loss.scaled), ("logit_bias", self.loss.biased)):
            parameter = getattr(model, name, None)
            if parameter is not None and not used:
                parameter.requires_grad_(False)

    def backward(
        self,
        model: nn.Module,
        images: Callable[[int, int], Tensor],
        tokens: Tensor,
        targets: RowTargets,
        offset: int,
        *,
        measured: bool = True,
    ) -> dict[str, Tensor]:
        """Add the gradient of the global batch's loss to the parameters, in micro-batches where they are asked for.

        Args:
            model: returns image_features, text_features ``[B, D]`` (unit length), logit_scale (already
                exponentiated) and, where the loss is biased, logit_bias.
            images: start, stop to that slice of the local batch, float32 ``[stop − start, 3, S, S]``, normalised;
                asked twice for each micro-batch, and must give the same.
            tokens: int64 ``[B_local, context_length]``.
            targets: of the local batch's rows against all ranks'; B_local is the same on every process.
            offset: rank · B_local.
            measured: also return what ``measure`` tells, for a step that is logged.

        Returns:
            Detached scalars of this process's rows: loss, logit_scale, logit_bias if the loss has one, and, where
            measured, kl, diagonal, positives, entropy. If the loss is not finite, the gradients are of no use.

        Raises:
            ConfigError: the loss needs a logit bias and the model has none, or micro-batches would change the
                gradient because of a BatchNorm in training mode.
            ShapeError: targets are not those of this batch.
        """
        size, processes = len(tokens), self.accelerator.num_processes

        def encode(start: int, stop: int) -> dict[str, Tensor]:
            output: dict[str, Tensor] = model(images(start, stop), tokens[start:stop])
            return output

        parts = slices(size, self.micro_batch)
        if len(parts) == 1:
            loss, values = self._score(encode(0, size), targets, offset, measured)
            self.accelerator.backward(loss)
            return values
        refuse_batch_norm(model)
        features, states = first_pass(encode, parts, self.accelerator.device)
        loss, values = self._score(features, targets, offset, measured)
        # Several processes go on together whatever each one finds: those that wait for gradients would wait for ever.
        # On a GPU to look would be to wait for it; the engine looks once, at the end of the step.
        if processes > 1 or loss.device.type != "cpu" or bool(torch.isfinite(loss)):
            # Not the accelerator's backward: to the features only, in float32, which needs no scaling.
            loss.backward()  # type: ignore[no-untyped-call]
            second_pass(self.accelerator, model, encode, parts, states, features)
        return values

    def _score(
        self, output: dict[str, Tensor], targets: RowTargets, offset: int, measured: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of this process's rows against all ranks', and what to log."""
        if self.loss.biased and "logit_bias" not in output:
            raise ConfigError(
                "loss.name sigmoid needs a model with a logit bias: build it by load_clip(logit_bias=…)"
            )
        scale, bias = output["logit_scale"], output["logit_bias"] if self.loss.biased else None
        # float32 even under bf16: a softmax over B columns needs the mantissa.
        image, text = output["image_features"].float(), output["text_features"].float()
        all_image, all_text = gather_features(image, text)
        sums: dict[str, Tensor] = {}

        def loss_of_rows(logits_i2t: Tensor, logits_t2i: Tensor, start: int, stop: int) -> Tensor:
            part = targets(start, stop)
            if part.i2t.shape != logits_i2t.shape:
                raise ShapeError(
                    f"targets are {list(part.i2t.shape)}, not {list(logits_i2t.shape)}: each of "
                    f"{self.accelerator.num_processes} processes needs the same number of images"
                )
            batch = ContrastiveBatch(
                logits_i2t, logits_t2i, part.i2t.to(image.device), part.t2i.to(image.device), offset + start,
                None if part.mask is None else part.mask.to(image.device),
            )  # fmt: skip
            if measured:
                share = (stop - start) / len(image)
                for name, value in measure(batch, distributions=self.loss.targets != "similarity").items():
                    sums[name] = sums.get(name, 0.0) + share * value
            return self._compute(*batch.arguments(self.loss.targets), mask=batch.mask)

        loss = chunked_loss(
            image, text, loss_of_rows, scale=scale if self.loss.scaled else None, bias=bias,
            all_image=all_image, all_text=all_text,
        )  # fmt: skip
        values = {"loss": loss.detach(), **sums}
        # Copies: a bias is the parameter itself, and the optimizer moves it before the log reads it.
        values["logit_scale"] = scale.detach().float().clone()
        if bias is not None:
            values["logit_bias"] = bias.detach().float().clone()
        return loss, values


@torch.no_grad()
def first_pass(
    encode: Encode, parts: Sequence[tuple[int, int]], device: torch.device
) -> tuple[dict[str, Tensor], list[RandomState]]:
    """Features of the local batch, micro-batch by micro-batch, without the activations behind them.

    Args:
        encode: the forward pass of a slice.
        parts: the slices, in order.
        device: where the model draws random numbers besides the CPU.

    Returns:
        float32 leaves that collect gradients: features ``[B_local, D]`` and the scalars the model returns; and the
        random state before each slice.
    """
    states: list[RandomState] = []
    outputs: list[dict[str, Tensor]] = []
    for start, stop in parts:
        on_cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        states.append((torch.get_rng_state(), on_cuda))
        outputs.append(encode(start, stop))
    leaves = {name: torch.cat([output[name] for output in outputs]).float() for name in FEATURES}
    # A copy: what the model returns may be its parameter itself, whose gradient is the second pass's business.
    leaves |= {name: outputs[0][name].detach().float().clone() for name in SCALARS if name in outputs[0]}
    return {name: leaf.requires_grad_() for name, leaf in leaves.items()}, states


def second_pass(
    accelerator: Accelerator,
    model: nn.Module,
    encode: Encode,
    parts: Sequence[tuple[int, int]],
    states: Sequence[RandomState],
    leaves: dict[str, Tensor],
) -> None:
    """Add the whole batch's gradient to the parameters, from that of the leaves.

    Processes exchange gradients once, after the last micro-batch. The generators end where the first pass left them.

    Args:
        accelerator: scales (fp16) and synchronises as in any step.
        model: the prepared model that ``encode`` calls.
        encode: the forward pass of a slice; must give what it gave in the first pass.
        parts: the slices, in order.
        states: the random state before each.
        leaves: what ``first_pass`` returned, after the backward pass of the loss.
    """
    for (start, stop), (on_cpu, on_cuda) in zip(parts, states, strict=True):
        last = stop == parts[-1][1]
        with nullcontext() if last else accelerator.no_sync(model):
            torch.set_rng_state(on_cpu)
            if on_cuda is not None:
                torch.cuda.set_rng_state(on_cuda, accelerator.device)
            output = encode(start, stop)
            # The scalars of one forward pass only: they are the same in all of them.
            gradients = {name: _gradient(leaves, name, slice(start, stop)) for name in FEATURES}
            if last:
                gradients |= {name: _gradient(leaves, name, slice(None)) for name in SCALARS}
            with torch.autocast(device_type=output[FEATURES[0]].device.type, enabled=False):
                surrogate = torch.stack(
                    [(output[name].float() * g).sum() for name, g in gradients.items() if g is not None]
                ).sum()
            accelerator.backward(surrogate)


def _gradient(leaves: dict[str, Tensor], name: str, part: slice) -> Tensor | None:
    """∂L/∂leaf of a slice; None where the model does not return it or the loss does not look at it."""
    gradient = leaves[name].grad if name in leaves else None
    return gradient if gradient is None or part == slice(None) else gradient[part]
