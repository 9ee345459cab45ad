"""The state of a model: its modes, parameters, gradients and buffers, and how to put them back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

_log = logging.getLogger("confshift")

#: At most this many bytes of a model are copied, buffers first; a change of the rest is only noticed.
_MAX_COPIED = 2**28
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

#: Models already warned about, for changes that can't be undone.
_warned: WeakSet[nn.Module] = WeakSet()


def saved_model_state(model: nn.Module) -> Iterator[Callable[[], object]]:
    """Record what an evaluation may change; yield functions that restore it, to be called in reverse order.

    Most models change only their modes. Others keep statistics in eval mode too, count passes, renormalise a
    weight, or call `backward` in their forward method.
    """
    yield from _saved_tensors(model)
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_leaf:
            yield partial(_put_back_gradient, tensor, tensor.grad, tensor.requires_grad)
            tensor.grad = None  # so that a backward pass does not add to it
    yield from _saved_modes(model)


def _put_back_gradient(tensor: Tensor, gradient: Tensor | None, required: bool) -> None:
    tensor.grad = gradient
    if tensor.requires_grad != required:
        tensor.requires_grad_(required)


def _saved_modes(model: nn.Module) -> Iterator[Callable[[], object]]:
    """Restore the mode of each module: `model.train()` would unfreeze a frozen BatchNorm."""
    modes = [(module, module.training) for module in model.modules()]
    yield partial(_put_back_modes, modes)
    for module, training in reversed(modes):
        # A module's own train() may do more than set the flag (LoRA unmerges its weights there).
        if type(module).train is not nn.Module.train:
            yield partial(_put_back_by_method, module, training)


def _put_back_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        if module.training != training:
            module.training = training


def _put_back_by_method(module: nn.Module, training: bool) -> None:
    if module.training != training:
        module.train(training)


def _saved_tensors(model: nn.Module) -> Iterator[Callable[[], object]]:
    slots: list[tuple[Any, dict[str, Tensor]]] = []
    for kind in ("_buffers", "_parameters"):
        for module in model.modules():
            holder = getattr(module, kind)
            present = {name: tensor for name, tensor in holder.items() if _is_there(tensor)}
            if present:
                slots.append((holder, present))
    tensors = {id(tensor): tensor for _, present in slots for tensor in present.values()}
    copied = 0
    watched = []
    for tensor in tensors.values():
        size = tensor.numel() * tensor.element_size()
        if _is_plain(tensor) and copied + size <= _MAX_COPIED:
            copied += size
            yield partial(_put_back_values, tensor, tensor.detach(), tensor.detach().clone())
        else:
            watched.append((tensor, _version(tensor)))
    yield partial(_report_changed, model, watched)
    yield partial(_put_back_slots, slots)


def _is_there(tensor: Tensor | None) -> bool:
    return tensor is not None and not nn.parameter.is_lazy(tensor)


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether a tensor's values can be compared and written here, and belong to this process alone."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
        and not _is_shared(tensor)
    )


def _is_shared(tensor: Tensor) -> bool:
    """Tell whether another process may be training it; of CUDA's memory all is called shared."""
    return tensor.device.type == "cpu" and tensor.untyped_storage().is_shared()


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _put_back_slots(slots: list[tuple[Any, dict[str, Tensor]]]) -> None:
    """Undo `self.running = 0.9 * self.running + ...`, a new tensor in place of the old one.

    A new tensor of another shape stays: a table that has grown, whose size the model may keep elsewhere.
    """
    for holder, tensors in slots:
        present = dict(holder.items())
        for name, before in tensors.items():
            now = present.get(name)
            if type(now) is type(before) and now is not before and _is_alike(now, before):
                holder[name] = before


def _is_alike(tensor: Tensor, other: Tensor) -> bool:
    return (tensor.shape, tensor.dtype, tensor.device) == (other.shape, other.dtype, other.device)


def _put_back_values(tensor: Tensor, before: Tensor, copy: Tensor) -> None:
    """Restore a tensor's values.

    `before` shares the memory that it had: a forward method may have set `weight.data` to another. Only what
    has changed is written, through `.data`, so that a backward pass may still use the tensor.
    """
    if tensor.is_inference():
        with torch.inference_mode():
            tensor.resize_(copy.shape).copy_(copy)
        return
    if not _is_alike(tensor, copy) or tensor.data_ptr() != before.data_ptr():
        tensor.data = before
    if not _same_bits(tensor, copy):
        tensor.data.copy_(copy)


def _same_bits(tensor: Tensor, other: Tensor) -> bool:
    if tensor.is_complex():
        tensor, other = torch.view_as_real(tensor), torch.view_as_real(other)
    integer = _INTEGERS[tensor.element_size()]
    return torch.equal(tensor.view(integer), other.view(integer))


def _report_changed(model: nn.Module, watched: list[tuple[Tensor, int | None]]) -> None:
    """Warn, once for each model, that a pass changed what is too large, or too special, to be copied."""
    changed = {id(tensor) for tensor, version in watched if _version(tensor) != version}
    if not changed or model in _warned:
        return
    _warned.add(model)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    names = [name for name, tensor in tensors if id(tensor) in changed]
    _log.warning(
        "in eval mode the model changes %s, which inspect did not copy (it copies %d MiB at most), so the "
        "training goes on from other values than without the inspection; if that matters, save and restore "
        "them around inspect",
        ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""),
        _MAX_COPIED >> 20,
    )
