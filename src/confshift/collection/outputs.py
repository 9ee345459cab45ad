"""Outputs: the logits in whatever a model returns, one row for each target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from confshift import advice
from confshift.errors import ConfshiftError

__all__ = ["FORWARD_ADVICE", "checked_rows", "logits_of"]

FORWARD_ADVICE = "pass forward=, a function (model, batch) -> (logits, targets)"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def logits_of(output: Any) -> Tensor:
    """Return the logits in a model's output: never chosen by a guess.

    They are the output itself; what it calls `logits`; or the first part of a tuple or list, after a scalar
    loss. Where the first part has no row of several columns for each sample, or a later part of another
    width could be meant just as well, nothing is chosen.

    Raises
    ------
    ConfshiftError
        Naming the shapes of all parts.
    """
    if isinstance(output, Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, Tensor):
        return named
    if isinstance(output, list | tuple):
        parts = [one for one in output if not (isinstance(one, Tensor) and one.ndim == 0)]
        if parts and isinstance(parts[0], Tensor) and (len(parts) == 1 or _is_plainly_first(parts)):
            return parts[0]
        if any(isinstance(one, Tensor) for one in parts):
            raise ConfshiftError(
                f"the model returned {_described(output)}: which are the logits? {FORWARD_ADVICE}"
            )
    shapes = f" with {_described(output)}" if isinstance(output, Mapping) else ""
    raise ConfshiftError(
        f"no logits in what the model returned, a {type(output).__name__}{shapes}; {FORWARD_ADVICE}"
    )


def _is_plainly_first(parts: list[Any]) -> bool:
    """Tell whether the first of several parts can be the logits, and no other part is of their form."""
    if not _is_rows(parts[0]):
        return False
    others = [one for part in parts[1:] for one in _tensors_in(part)]
    return all(one.shape == parts[0].shape for one in others if _is_rows(one))


def _tensors_in(part: Any) -> list[Tensor]:
    """Return the tensors in a part, however deep: logits may be within a pair or a dict."""
    if isinstance(part, Tensor):
        return [part]
    inner = part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ()
    return [one for within in inner for one in _tensors_in(within)]


def _is_rows(part: Any) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point() and part.ndim == 2 and part.shape[1] > 1


def _described(output: Any) -> str:
    """Name the shape of each part."""
    parts = (
        [(f"{name!r}: ", one) for name, one in output.items()]
        if isinstance(output, Mapping)
        else [("", one) for one in output]
    )
    shown = [
        f"{name}{tuple(one.shape) if isinstance(one, Tensor) else type(one).__name__}" for name, one in parts
    ]
    kind = "fields" if isinstance(output, Mapping) else "parts of shapes"
    return f"{kind} {', '.join(shown)}"


def checked_rows(logits: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """Check what can be checked of one batch, shapes (n, K) and (n,); the rest is checked on the whole set.

    A batch of one sample that the model squeezed to (K,) is a row.
    """
    try:
        logits, targets = torch.as_tensor(logits), torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfshiftError(
            f"logits or targets can't be made a tensor ({error}); {FORWARD_ADVICE}"
        ) from error
    if logits.ndim == 1 and len(logits) > 1 and targets.numel() == 1:
        logits, targets = logits[None], targets.reshape(1)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ConfshiftError(_shape_advice(logits, targets))
    if logits.dtype not in _FLOATS:
        raise ConfshiftError(f"the logits are {logits.dtype}; pass forward= that returns floating point")
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.shape != logits.shape[:1]:
        shapes = f"targets of shape {tuple(targets.shape)} for logits of shape {tuple(logits.shape)}"
        if targets.shape == logits.shape:
            raise ConfshiftError(f"{shapes}: {advice.on_columns(_numbers(targets))}: {FORWARD_ADVICE}")
        raise ConfshiftError(f"{shapes}; one class index for each row is expected: {FORWARD_ADVICE}")
    if targets.is_floating_point() or targets.is_complex() or targets.dtype is torch.bool:
        kind = "complex" if targets.is_complex() else advice.on_labels(_numbers(targets))
        raise ConfshiftError(
            f"the targets are {targets.dtype}, class indices are integers; {kind}: {FORWARD_ADVICE}"
        )
    return logits, targets


def _numbers(tensor: Tensor) -> Any:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()


def _shape_advice(logits: Tensor, targets: Tensor) -> str:
    """Say how what was returned becomes rows of K logits, by its values and by the targets' shape."""
    shape = f"the model returned shape {tuple(logits.shape)}"
    if logits.ndim < 2 or (logits.ndim == 2 and logits.shape[1] == 1):
        said = advice.on_one_output(
            _numbers(logits),
            logit="z = model(inputs).flatten(); logits = torch.stack([torch.zeros_like(z), z], 1)",
            probability=(
                "p = model(inputs).flatten(); logits = torch.stack([1 - p, p], 1), with "
                "outputs='probabilities'"
            ),
        )
        return f"{shape}, {said}. To do so, {FORWARD_ADVICE}"
    start = f"{shape}, and one row of K logits for each sample is expected"
    if logits.ndim > 2 and all(size == 1 for size in logits.shape[2:]):
        return f"{start}: {FORWARD_ADVICE}, with logits.flatten(1)"
    ways = [
        f"{_moved(axis, logits.ndim)}.reshape(-1, {logits.shape[axis]})"
        for axis in advice.class_axes(tuple(logits.shape), tuple(targets.shape))
    ]
    if not ways:
        return (
            f"{start}; targets of shape {tuple(targets.shape)} do not say which axis holds the classes: "
            f"{FORWARD_ADVICE} with one row for each target"
        )
    either = " or, by which axis holds the classes, ".join(ways)
    return (
        f"{start}; tokens or pixels go in as rows: {FORWARD_ADVICE}, with {either}, and "
        "targets.reshape(-1); and sample_ids= with one id for each row of the whole pass (np.arange of their "
        "number, where the loader does not shuffle)"
    )


def _moved(axis: int, axes: int) -> str:
    return "logits" if axis == axes - 1 else f"logits.movedim({axis}, -1)"
