"""Guards: whatever an inspection does, the training goes on as if it had not happened."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from confshift.collection.interrupts import Interrupts
from confshift.collection.model_state import saved_model_state
from confshift.collection.random_states import generators_in, modules_in, saved_random_states


@contextmanager
def undisturbed(model: nn.Module, loader: Any, *functions: Any, interrupts: Interrupts) -> Iterator[None]:
    """Run the body in eval mode and without gradients; leave everything as it was, also after an error.

    Restored: the mode of each submodule; parameters, their gradients and `requires_grad`; buffers; the random
    states of torch (CPU and the model's devices), numpy and python, and of the generators in what the
    pass uses. Autocast stays as the caller set it. What a model or a dataset keeps in its own
    attributes stays as the pass left it.

    Parameters
    ----------
    model : torch.nn.Module
    loader : iterable
    *functions : Any
        Anything else that the pass calls, or None. Modules inside these are treated as the model is.
    interrupts : Interrupts
        Holds signals back on the way in and out, but not while this waits for another thread that inspects
        the same model or loader.
    """
    present = set(model.modules())
    others = [module for module in modules_in(*functions) if module not in present]
    model = nn.ModuleList([model, *others]) if others else model
    generators = [*generators_in(model), *generators_in(loader, *functions)]
    shared = [*model.modules(), *model.parameters(), *model.buffers(), loader, *generators]
    with one_at_a_time(shared, interrupts), ExitStack() as stack:
        # A tensor that the forward pass keeps under inference mode could not be trained with. So the
        # caller's inference mode is left too, unless the model was made in it and may change its tensors.
        stack.enter_context(torch.inference_mode(torch.is_inference_mode_enabled() and _is_inference(model)))
        stack.enter_context(torch.no_grad())
        # Autocast keeps the cast weights until its outermost context ends: without a gradient, if they were
        # cast here (https://github.com/pytorch/pytorch/issues/112583, torch before 2.10).
        stack.callback(torch.clear_autocast_cache)
        put_back: list[Callable[[], object]] = []
        stack.callback(_call_backwards, put_back)
        for function in chain(saved_random_states(model, generators), saved_model_state(model)):
            put_back.append(function)
        model.eval()
        yield


def _call_backwards(functions: list[Callable[[], object]]) -> None:
    """Call all of them, the last first, even if some fail; then raise the first error."""
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


#: The thread that inspects an object, by the object's id. An id is not reused while a pass holds the object.
_threads: dict[int, int] = {}
_changed = threading.Condition()


@contextmanager
def one_at_a_time(things: Iterable[Any], interrupts: Interrupts) -> Iterator[None]:
    """Wait until no other thread inspects any of these objects, then reserve all of them for this thread.

    They are reserved together, so that two threads can't wait for each other. A thread that inspects
    within its own inspection doesn't wait.
    """
    me = threading.get_ident()
    objects = list(things)
    with _changed:
        while any(_threads.get(id(thing), me) != me for thing in objects):
            with interrupts.delivered():
                _changed.wait()
        own = {id(thing) for thing in objects} - _threads.keys()
        _threads.update(dict.fromkeys(own, me))
    try:
        yield
    finally:
        with _changed:
            for key in own:
                _threads.pop(key, None)
            _changed.notify_all()


def _start_anew() -> None:
    """In a forked process the other threads are gone, and one may have held the lock."""
    global _changed
    _changed = threading.Condition()
    _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
