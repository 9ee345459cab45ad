"""Calling the model: where it fails, the error says what it was called with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["call_model"]

_SHOWN = 8


def call_model(model: nn.Module, arguments: tuple[Any, ...], fields: Mapping[str, Any]) -> Any:
    """Return what the model makes of its inputs; an error of its own keeps its type and gets a note.

    The note (Python 3.11 and later) names the call, the shapes and types that were passed, and `forward=`.
    """
    try:
        return model(*arguments, **fields)
    except Exception as error:
        if sys.version_info >= (3, 11):
            passed = [_described(argument) for argument in arguments]
            passed += [f"{name}={_described(one)}" for name, one in fields.items()]
            error.add_note(
                f"confshift called model({', '.join(passed)}). If the model takes its inputs otherwise, "
                "pass forward=, a function (model, batch) -> (logits, targets)"
            )
        raise


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        shown = [f"{name}: {_described(one)}" for name, one in list(value.items())[:_SHOWN]]
        return f"{type(value).__name__} {{{_listed(shown, len(value))}}}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} of {_listed([_described(one) for one in value[:_SHOWN]], len(value))}"
    return type(value).__name__


def _listed(shown: list[str], count: int) -> str:
    return ", ".join([*shown, "..."] if count > len(shown) else shown)
