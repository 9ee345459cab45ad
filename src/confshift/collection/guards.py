"""Guards: whatever an inspection does, the training goes on as if it had not happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from confshift.collection.interrupts import Interrupts
from confshift.collection.model_state import saved_model_state
from confshift.collection.random_states import generators_in, modules_in, saved_random_states
from confshift.collection.turns import one_at_a_time

__all__ = ["undisturbed"]


@contextmanager
def undisturbed(model: nn.Module, loader: Any, *functions: Any, interrupts: Interrupts) -> Iterator[None]:
    """Run the body in eval mode and without gradients; leave everything as it was, also after an error.

    Kept: the mode of each submodule; parameters, their gradients and `requires_grad`; buffers; the random
    states of torch (CPU and the model's devices), numpy and python, and of the generators found in what the
    pass uses. Autocast stays as the caller set it. What a model keeps in attributes of its own, or a dataset
    in its, stays as the pass left it.

    Parameters
    ----------
    model : torch.nn.Module
    loader : iterable
    *functions : Any
        What else the pass calls, or None. Modules found in these are treated as the model is.
    interrupts : Interrupts
        Hold signals back on the way in and out, but not while this waits for another thread that inspects
        the same model or loader.
    """
    present = set(model.modules())
    others = [module for module in modules_in(*functions) if module not in present]
    model = nn.ModuleList([model, *others]) if others else model
    generators = [*generators_in(model), *generators_in(loader, *functions)]
    shared = [*model.modules(), *model.parameters(), *model.buffers(), loader, *generators]
    with one_at_a_time(shared, interrupts), ExitStack() as stack:
        # Under inference mode a tensor that the forward pass keeps anywhere could not be trained with. So
        # its caller's is left too, unless the model was made in it and may change its tensors in place.
        stack.enter_context(torch.inference_mode(torch.is_inference_mode_enabled() and _is_inference(model)))
        stack.enter_context(torch.no_grad())
        # Autocast keeps the casted weights until its outermost context ends: without a gradient, if we made
        # them (https://github.com/pytorch/pytorch/issues/112583, torch before 2.10).
        stack.callback(torch.clear_autocast_cache)
        put_back: list[Callable[[], object]] = []
        stack.callback(_call_backwards, put_back)
        for function in chain(saved_random_states(model, generators), saved_model_state(model)):
            put_back.append(function)
        model.eval()
        yield


def _call_backwards(functions: list[Callable[[], object]]) -> None:
    """Call them all, the last first, whichever fails; then raise the first error."""
    errors = []
    while functions:
        try:
            functions.pop()()
        except BaseException as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _is_inference(model: nn.Module) -> bool:
    return any(tensor.is_inference() for tensor in chain(model.parameters(), model.buffers()))
