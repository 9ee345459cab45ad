"""Random states: finding what a pass may draw from, and restoring it."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

#: The search for generators ends after this many objects, and this many members of one container.
_MAX_OBJECTS = 5000
_MAX_MEMBERS = 100

_GENERATORS = (
    torch.Generator,
    np.random.Generator,
    np.random.RandomState,
    np.random.BitGenerator,
    random.Random,
)
_CONTAINERS = (dict, OrderedDict, list, tuple, set, frozenset, deque)
#: They hold no generator, and there are many of them. By exact type, since this is checked very often.
_LEAVES = {
    *(str, bytes, bytearray, int, float, complex, bool, range, type(None)),
    *(torch.Tensor, nn.Parameter, torch.Size, torch.dtype, torch.device, np.ndarray, np.dtype),
    *(types.ModuleType, types.BuiltinFunctionType),
}
#: Classes of these packages draw from the global states, or from generators among their attributes.
_KNOWN = {*sys.stdlib_module_names, "numpy", "torch", "torchvision", "PIL", "pandas"}


def saved_random_states(model: nn.Module, generators: Iterable[Any]) -> Iterator[Callable[[], object]]:
    """Record every random state; yield, for each, a function that restores it.

    The global ones are those of python, numpy, torch and the model's devices. Iterating over any
    DataLoader draws a seed from torch's.
    """
    yield functools.partial(random.setstate, random.getstate())
    yield functools.partial(np.random.set_state, np.random.get_state())
    yield functools.partial(torch.set_rng_state, torch.get_rng_state())
    for device in _accelerators(model):
        yield _saved_device(device)
    for generator in generators:
        try:
            yield _saved(generator)
        except NotImplementedError:  # it has no state: random.SystemRandom, a bit generator from elsewhere
            continue


def _accelerators(model: nn.Module) -> set[torch.device]:
    tensors = [*model.parameters(), *model.buffers()]
    return {tensor.device for tensor in tensors} - {torch.device("cpu"), torch.device("meta")}


def _saved_device(device: torch.device) -> Callable[[], object]:
    backend = getattr(torch, device.type)
    if device.type == "mps":  # one device, so its functions take none
        return functools.partial(backend.set_rng_state, backend.get_rng_state())
    return functools.partial(backend.set_rng_state, backend.get_rng_state(device), device)


def _saved(generator: Any) -> Callable[[], object]:
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.BitGenerator):
        return functools.partial(setattr, generator, "state", generator.state)
    return functools.partial(generator.set_state, generator.get_state())


def generators_in(*roots: Any) -> list[Any]:
    """Return the random generators that can be reached from these objects.

    It follows attributes, those of classes too, members of containers (the first 100), closures, and the
    globals that a function names: a dataset's transforms, a sampler's sampler, a `collate_fn`, the layers
    and hooks of a model. It visits the nearest objects first, and ends after 5,000.
    """
    return _reached(roots, _GENERATORS)


def modules_in(*roots: Any) -> list[nn.Module]:
    """Return the modules that can be reached in the same way, but not those inside them."""
    return _reached(roots, (nn.Module,))


def _reached(roots: Iterable[Any], kinds: tuple[type, ...]) -> list[Any]:
    results: list[Any] = []
    visited: dict[int, Any] = {}
    waiting = deque(roots)
    while waiting and len(visited) < _MAX_OBJECTS:
        value = waiting.popleft()
        if id(value) in visited:
            continue
        visited[id(value)] = value
        if isinstance(value, kinds):
            results.append(value)
        else:
            waiting.extend(part for part in _parts(value) if _is_worth_a_look(part))
    return results


def _is_worth_a_look(value: Any) -> bool:
    kind = type(value)
    return kind not in _LEAVES and (kind not in _CONTAINERS or bool(value))


def _parts(value: Any) -> Iterator[Any]:
    """Yield what an object holds, without calling any code of its own."""
    if isinstance(value, dict):
        yield from islice(value.values(), _MAX_MEMBERS)
    elif isinstance(value, _CONTAINERS):
        yield from islice(value, _MAX_MEMBERS)
    if type(value) in _CONTAINERS:
        return
    if isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, types.FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, staticmethod | classmethod):
        yield value.__func__
    elif isinstance(value, property):
        yield value.fget
    elif isinstance(value, type):
        if value.__module__.partition(".")[0] not in _KNOWN:
            yield from (*vars(value).values(), *value.__bases__)
        return
    yield from _attributes(value)
    yield type(value)


def _parts_of_function(function: types.FunctionType) -> Iterator[Any]:
    if function.__module__ is None or function.__module__.partition(".")[0] in _KNOWN:
        return
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # still empty
            continue
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        beside = isinstance(value, types.FunctionType) and value.__module__ == function.__module__
        if beside or isinstance(value, (*_GENERATORS, nn.Module)):
            yield value


def _attributes(value: Any) -> Iterator[Any]:
    try:
        yield from list(vars(value).values())
    except TypeError:  # it has none, or slots
        for kind in type(value).__mro__:
            slots = vars(kind).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                member = vars(kind).get(slot)
                if isinstance(member, types.MemberDescriptorType):
                    try:
                        yield member.__get__(value)
                    except AttributeError:
                        continue
