"""Guards: whatever an inspection does, the training goes on as if it had not happened."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module, *, generators: Iterable[torch.Generator] = ()) -> Iterator[None]:
    """Run the body in eval mode and inference mode; leave everything as it was, also after an error.

    Kept: the mode of each submodule, the random states of torch (CPU, the model's devices and
    `generators`), numpy and python, and the buffers of modules that refuse eval mode. Autocast stays as
    the caller set it.

    Parameters
    ----------
    model : torch.nn.Module
    generators : iterable of torch.Generator
        Those that the loader and its samplers draw from.
    """
    with ExitStack() as stack:
        stack.enter_context(_kept_random_states(model, generators))
        stack.callback(_release_caches, model)
        stack.enter_context(_evaluation_mode(model))
        stack.enter_context(torch.inference_mode())
        yield


@contextmanager
def _kept_random_states(model: nn.Module, generators: Iterable[torch.Generator]) -> Iterator[None]:
    """Keep every random state: iterating any DataLoader draws a seed from torch's global generator."""
    restore: list[Callable[[], Any]] = []

    def keep(state: Any, put_back: Callable[[Any], Any]) -> None:
        restore.append(lambda: put_back(state))

    keep(random.getstate(), random.setstate)
    keep(np.random.get_state(), np.random.set_state)
    keep(torch.get_rng_state(), torch.set_rng_state)
    for generator in generators:
        keep(generator.get_state(), generator.set_state)
    for device in _accelerators(model):
        keep(*_device_state(device))
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


def _accelerators(model: nn.Module) -> set[torch.device]:
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.device for tensor in tensors} - {torch.device("cpu"), torch.device("meta")}


def _device_state(device: torch.device) -> tuple[Any, Callable[[Any], Any]]:
    """Return the random state of a device, and how to put it back."""
    backend = getattr(torch, device.type)
    if device.type == "mps":  # one device, so its functions take none
        return backend.get_rng_state(), backend.set_rng_state
    return backend.get_rng_state(device), lambda state: backend.set_rng_state(state, device)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        # A module that overrides train() may stay in training mode, and a BatchNorm would learn from us.
        stubborn = [module for module, _ in modes if module.training]
        with _kept_buffers(stubborn):
            yield
    finally:
        _restore_modes(modes)


def _restore_modes(modes: list[tuple[nn.Module, bool]]) -> None:
    """Give each module its own mode back: `model.train()` would wake a frozen BatchNorm."""
    for module, training in modes:
        # A train() of the module's own may do more than set the flag (LoRA unmerges its weights there).
        if type(module).train is not nn.Module.train and module.training != training:
            module.train(training)
    for module, training in modes:
        if module.training != training:
            module.training = training


@contextmanager
def _kept_buffers(modules: list[nn.Module]) -> Iterator[None]:
    kept = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers(recurse=False)]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)


def _release_caches(model: nn.Module) -> None:
    """Undo what a forward pass without gradients leaves behind and training would stumble over.

    Autocast keeps the casted weights until its outermost context ends: without a gradient, if we made them
    (https://github.com/pytorch/pytorch/issues/112583, torch before 2.10). A module may keep a tensor (a
    mask, a table of positions): made in inference mode, it can't be saved for the backward pass.
    """
    torch.clear_autocast_cache()
    for module in model.modules():
        _replace_inference_tensors(vars(module))
        for value in list(vars(module).values()):
            if isinstance(value, MutableMapping):  # the buffers among them
                _replace_inference_tensors(value)


def _replace_inference_tensors(kept: MutableMapping[Any, Any]) -> None:
    for name, value in list(kept.items()):
        if isinstance(value, torch.Tensor) and value.is_inference():
            kept[name] = value.clone()
