"""Rows: checks of one batch's logits and targets; other forms are refused with code that converts them."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from confshift import advice
from confshift.collection.outputs import Source
from confshift.errors import ConfshiftError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_OWN = Source()  # of the user's own forward=


def checked_rows(logits: Any, targets: Any, source: Source = _OWN) -> tuple[Tensor, Tensor]:
    """Check one batch, shapes (n, K) and (n,), as far as that is possible without the whole set.

    The logits (K,) of one sample, which the model squeezed, count as a row.
    """
    try:
        logits, targets = torch.as_tensor(logits), torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfshiftError(
            f"logits or targets can't be made a tensor ({error}); {source.advice}"
        ) from error
    _check_storage(logits, "logits", source)
    _check_storage(targets, "targets", source)
    if logits.ndim == 1 and len(logits) > 1 and targets.numel() == 1:
        logits, targets = logits[None], targets.reshape(1)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ConfshiftError(_shape_advice(logits, targets, source))
    if logits.dtype not in _FLOATS:
        raise ConfshiftError(
            f"the logits are {logits.dtype}, and floating point is expected; {source.advice}"
        )
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.shape != logits.shape[:1]:
        raise ConfshiftError(_targets_advice(logits, targets, source))
    if targets.is_floating_point() or targets.is_complex() or targets.dtype is torch.bool:
        raise ConfshiftError(
            f"the targets are {targets.dtype}, and class indices are integers; {_on_labels(targets, source)}"
        )
    return logits, targets


def _on_labels(targets: Tensor, source: Source) -> str:
    if targets.is_complex():
        return "complex; return real integers"
    return advice.on_labels(_numbers(targets), code=source.code("return logits, targets.long()"))


def _check_storage(tensor: Tensor, name: str, source: Source) -> None:
    """Refuse tensors that are not a dense array of values, and say how to make them one."""
    if tensor.is_meta:
        raise ConfshiftError(
            f"{name}: on the meta device, which holds no values; load the weights first, "
            "model.to_empty(device='cpu') and then model.load_state_dict(...)"
        )
    if tensor.is_nested:
        raise ConfshiftError(f"{name}: a nested tensor, with rows of different lengths; {source.advice}")
    if tensor.layout is not torch.strided:
        raise ConfshiftError(f"{name}: a sparse tensor ({tensor.layout}); return {name}.to_dense()")
    if tensor.is_quantized:
        raise ConfshiftError(f"{name}: a quantized tensor; return {name}.dequantize()")


def _numbers(tensor: Tensor) -> NDArray[Any]:
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    in_numpy = tensor.dtype in _FLOATS[2:] or not tensor.is_floating_point()
    return (tensor if in_numpy else tensor.float()).numpy()


def _labels_code(targets: Tensor) -> str:
    """Return the code for the class indices in the targets of a single output."""
    flat = "targets" if targets.ndim == 1 else "targets.flatten()"
    whole = flat if targets.dtype is torch.long else f"{flat}.long()"
    signs = targets.numel() and advice.are_signs(_numbers(targets))
    return f"({whole} + 1) // 2" if signs else whole


def _shape_advice(logits: Tensor, targets: Tensor, source: Source) -> str:
    """Say how to turn the output into rows of K logits, by its values and by the targets' shape."""
    shape = f"{source.returned} logits of shape {tuple(logits.shape)}"
    if logits.is_complex():
        return f"{shape} and {logits.dtype}; return real numbers"
    if logits.ndim == 0 and targets.numel() != 1:
        return f"{shape}, one number for {targets.numel()} targets, as a loss is; return the logits instead"
    if _same_places(logits, targets):
        return f"{shape}, {_on_one_output(logits, targets, source)}"
    start = f"{shape}, and one row of K logits for each sample is expected"
    target_shape = f"targets of shape {tuple(targets.shape)}"
    if logits.ndim == 1 and targets.ndim == 1 and targets.numel() and not len(logits) % len(targets):
        code = source.code("return logits.reshape(len(targets), -1), targets")
        return f"{start}; if these are the rows one after the other, for {len(targets)} targets, pass {code}"
    if logits.ndim < 3:
        return f"{start}, not one number, with {target_shape}: {source.advice}"
    if all(size == 1 for size in logits.shape[2:]):
        return f"{start}: pass {source.code('return logits.flatten(1), targets')}"
    return f"{start}; {_on_places(logits, targets, source, target_shape)}"


def _same_places(logits: Tensor, targets: Tensor) -> bool:
    """Tell whether there is one output for each target: the shapes agree, apart from axes of length one.

    Targets of the same shape may still be one-hot, with one of the axes for the classes.
    """
    if logits.ndim > 2 and logits.shape == targets.shape and advice.one_hot_axes(_numbers(targets)):
        return False
    sizes = [[size for size in tensor.shape if size != 1] for tensor in (logits, targets)]
    return sizes[0] == sizes[1]


def _on_one_output(logits: Tensor, targets: Tensor, source: Source) -> str:
    if targets.is_complex() or not advice.are_whole(_numbers(targets)):
        return f"for targets that are {_on_labels(targets, source)}"
    labels = _labels_code(targets)
    logit = source.code("z = logits.flatten()", f"return torch.stack([-z / 2, z / 2], 1), {labels}")
    probability = source.code("p = logits.flatten()", f"return torch.stack([1 - p, p], 1), {labels}")
    places = max(logits.ndim, targets.ndim) > 2
    text = advice.on_one_output(
        _numbers(logits),
        each="target" if places else "sample",
        logit=logit,
        probability=f"outputs='probabilities' and {probability}",
    )
    return text + (f"\n{source.ids}" if places else "")


def _on_places(logits: Tensor, targets: Tensor, source: Source, target_shape: str) -> str:
    """Say how to turn tokens or pixels into rows: by the axis of the classes, shifted for next tokens."""
    shape, labels = tuple(logits.shape), tuple(targets.shape)
    axes = advice.class_axes(shape, labels)
    if shape == labels and targets.numel():
        axes = advice.one_hot_axes(_numbers(targets))
    if not axes:
        start = f"{target_shape} do not say which axis holds the classes"
        return f"{start}: {source.advice} with one row for each target"
    codes = []
    for axis in axes:
        flat = f"targets.argmax({axis}).reshape(-1)" if shape == labels else "targets.reshape(-1)"
        rows = f"{_moved(axis, logits.ndim)}.reshape(-1, {shape[axis]})"
        codes.append(source.code(f"return {rows}, {flat}"))
    if axes[-1] == 2 == logits.ndim - 1 and _are_inputs(targets, source):
        shifted = source.code(
            "logits, targets = logits[:, :-1], targets[:, 1:]",
            f"return logits.reshape(-1, {shape[2]}), targets.reshape(-1)",
        )
        return (
            "the targets are the inputs. If each output is for the next token (a causal language model), "
            f"pass {shifted}\nIf each output is for its own token (an autoencoder), pass {codes[-1]}\n"
            f"{source.ids}"
        )
    either = "\nor, by which axis holds the classes, pass ".join(codes)
    shift = ""
    if logits.ndim == 3 and not source.logits:
        shift = (
            "\nWhere the targets are the inputs of a model of the next token, first "
            "logits, targets = logits[:, :-1], targets[:, 1:]"
        )
    return f"tokens or pixels go in as rows: pass {either}{shift}\n{source.ids}"


def _are_inputs(targets: Tensor, source: Source) -> bool:
    """Tell whether the targets are tensor of the inputs, apart from negative ones, which are left out."""
    for tensor in source.inputs:
        if isinstance(tensor, Tensor) and tensor.shape == targets.shape and not tensor.is_floating_point():
            labels = targets.cpu()
            if ((tensor.cpu() == labels) | (labels < 0)).all():
                return True
    return False


def _targets_advice(logits: Tensor, targets: Tensor, source: Source) -> str:
    shapes = f"targets of shape {tuple(targets.shape)} for logits of shape {tuple(logits.shape)}"
    if targets.shape != logits.shape or not targets.numel() or targets.is_complex():
        return f"{shapes}; one class index for each row is expected: {source.advice}"
    start = "k = 0  # one label, in a run of its own"
    labels = "targets[:, k].long()"
    logit = source.code(start, "z = logits[:, k]", f"return torch.stack([-z / 2, z / 2], 1), {labels}")
    share = source.code(start, "p = logits[:, k]", f"return torch.stack([1 - p, p], 1), {labels}")
    return f"{shapes}: " + advice.on_columns(
        _numbers(targets),
        one_hot=source.code("return logits, targets.argmax(1)"),
        each=advice.on_one_label(
            _numbers(logits), logit=logit, probability=f"outputs='probabilities' and {share}"
        ),
    )


def _moved(axis: int, axes: int) -> str:
    return "logits" if axis == axes - 1 else f"logits.movedim({axis}, -1)"
