"""A CUDA device for machines without one: tensors that say they are on it, computed on the CPU.

It refuses what a real one refuses, operations on tensors of both devices, and counts what makes the host wait for a
real one: scalars and other values that are read, and shapes that follow from values.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_map, tree_map_only

DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten
_READS_VALUES = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.is_nonzero.default, aten.masked_select.default,
    aten.equal.default, aten.unique_consecutive.default, aten._unique2.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
_MAY_MIX = {aten._to_copy.default, aten.copy_.default}


class MixedDevicesError(RuntimeError):
    """An operation met tensors of both devices."""


class DeviceTensor(torch.Tensor):
    """A tensor on ``DEVICE`` whose values are ``inner``, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls: type["DeviceTensor"], inner: Tensor) -> "DeviceTensor":
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device="meta", requires_grad=False,
        )  # fmt: skip
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """What Python asks for; autograd's engine, which would ask a driver for ``DEVICE``, sees ``meta``."""
        return DEVICE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """As a real one says."""
        return True

    def tolist(self) -> Any:
        """Torch has none for subclasses."""
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, None)


def _run(func: Any, args: Any, kwargs: dict[str, Any], waits: list[str] | None) -> Any:
    on_device: list[Tensor] = []
    on_host: list[Tensor] = []

    def sort(value: Any) -> None:
        if isinstance(value, DeviceTensor):
            on_device.append(value)
        elif isinstance(value, Tensor):
            on_host.append(value)

    tree_map(sort, (args, kwargs))
    # Scalars of the host take part everywhere; an index of the host is copied, and the copy waits.
    strays = [one for one in on_host if one.dim()]
    if on_device and strays and func not in _MAY_MIX:
        raise MixedDevicesError(
            f"{func} of tensors on {DEVICE} and on the CPU {[list(s.shape) for s in strays]}"
        )
    wanted = kwargs.get("device")
    target = bool(on_device) if wanted is None else torch.device(wanted).type != "cpu"
    if func is aten.copy_.default:
        target = isinstance(args[0], DeviceTensor)
    reads = on_device and (func in _READS_VALUES or not target or _by_mask(func, args))
    if waits is not None and (reads or _blocking_copy(func, args, kwargs, target, bool(on_device))):
        waits.append(_where(func))
    inner_args, inner_kwargs = tree_map_only(DeviceTensor, lambda one: one.inner, (args, kwargs))
    if inner_kwargs.get("pin_memory"):
        inner_kwargs["pin_memory"] = False
    if wanted is not None:
        inner_kwargs["device"] = torch.device("cpu")
    out = func(*inner_args, **inner_kwargs)
    if not target:
        return out
    wrapped = tree_map_only(torch.Tensor, DeviceTensor, out)
    if not on_device:
        return wrapped
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _by_mask(func: Any, args: Any) -> bool:
    """Whether an index is a mask, whose number of True decides the shape."""
    indexed = func in (aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default)
    return indexed and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1])


def _blocking_copy(func: Any, args: Any, kwargs: dict[str, Any], target: bool, on_device: bool) -> bool:
    """Whether a copy from the host waits for all that the device has to do before it."""
    if func is aten._to_copy.default:
        return target and not on_device and not kwargs.get("non_blocking", False)
    into_device = func is aten.copy_.default and target and not isinstance(args[1], DeviceTensor)
    return into_device and args[1].dim() > 0 and not kwargs.get("non_blocking", len(args) > 2 and args[2])


def _where(func: Any) -> str:
    ours = [frame for frame in traceback.extract_stack() if "/site-packages/" not in frame.filename]
    ours = [frame for frame in ours if not frame.filename.endswith("fake_device.py")]
    frame = ours[-1]
    return f"{func} at {frame.filename.rpartition('/training/')[2]}:{frame.lineno} {frame.line}"


class FakeDevice(TorchDispatchMode):
    """While entered, tensors made on or taken to ``DEVICE`` are ``DeviceTensor``; ``waits`` says where a host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.waits)


def _to_device(module: nn.Module) -> None:
    made: dict[int, tuple[Tensor, Any]] = {}  # with the former one, whose id would be given to another
    for part in module.modules():
        for values in (part._parameters, part._buffers):
            for name, value in values.items():
                if value is None or isinstance(value, DeviceTensor):
                    continue
                if id(value) not in made:
                    moved: Any = DeviceTensor(value.detach())
                    if values is part._parameters:
                        moved = nn.Parameter(moved, value.requires_grad)
                    made[id(value)] = value, moved
                values[name] = made[id(value)][1]


@contextmanager
def fake_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    """The device, and modules that can be taken to it."""
    original: Callable[..., nn.Module] = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        place, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if place is None or place.type != DEVICE.type:
            return original(self, *args, **kwargs)
        _to_device(self)
        return self

    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))
    torch._C._ensureCUDADeviceGuardSet()
    with torch.autograd.set_multithreading_enabled(False), FakeDevice() as mode:
        yield mode
