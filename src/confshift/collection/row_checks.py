"""Row checks: which layout a batch has; a form that is not read is refused with the word or code to add."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from confshift import advice
from confshift.collection.layouts import PLAIN, Layout, layouts_of
from confshift.collection.outputs import Source
from confshift.errors import ConfshiftError

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

#: What a word promises, for the message about other shapes.
_FORMS = {
    "multiclass": "logits (n, K) and targets (n,)",
    "binary": "one logit for each sample, (n,) or (n, 1), or two, (n, 2), and targets (n,) of 0 and 1",
    "multilabel": "one logit for each label, (n, L), and targets (n, L) of 0 and 1",
    "tokens": "logits (n, T, K) or (n, K, T) and targets (n, T)",
    "causal_lm": "logits (n, T, K) and targets (n, T), both not shifted yet",
    "pixels": "logits (n, K, H, W) or (n, H, W, K) and targets (n, H, W)",
}


class Batch(NamedTuple):
    """A batch whose shapes are understood."""

    logits: Tensor
    targets: Tensor
    layouts: list[Layout]  #: Several where more than one axis can be that of the classes.

    @property
    def samples(self) -> int:
        """How many samples it has."""
        return self.targets.shape[0]

    @property
    def outputs(self) -> int:
        """How many outputs a model needs for each sample, token or pixel: a head has as many."""
        layout = self.layouts[0]
        return layout.labels or 1 if layout.axis is None else self.logits.shape[layout.axis]


def checked_tensors(logits: Any, targets: Any, source: Source) -> tuple[Tensor, Tensor]:
    """Return both as tensors, which hold values."""
    try:
        logits = logits if isinstance(logits, Tensor) else torch.as_tensor(logits)
        targets = targets if isinstance(targets, Tensor) else torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfshiftError(
            f"logits or targets can't be made a tensor ({error}); {source.advice}"
        ) from error
    _check_storage(logits, "logits", source)
    _check_storage(targets, "targets", source)
    return logits, targets


def is_plain(logits: Tensor, targets: Tensor) -> bool:
    """Tell whether these can only be a row of K logits and a class index for each sample."""
    shape = logits.shape
    return (
        len(shape) == 2
        and targets.shape == shape[:1]
        and shape[1] > 1
        and logits.dtype in _FLOATS
        and _are_integers(targets)
    )


def _are_integers(targets: Tensor) -> bool:
    return not (targets.is_floating_point() or targets.is_complex() or targets.dtype is torch.bool)


def checked_batch(logits: Tensor, targets: Tensor, source: Source, task: str | None = None) -> Batch:
    """Return a batch with its layouts, as far as it can be checked without the whole set.

    The logits of one sample, whose first axis the model squeezed away, count as a batch of one.

    Parameters
    ----------
    logits, targets : torch.Tensor
    source : Source
        Where they come from.
    task : str, optional
        The user's word, or that of the model's name.

    Raises
    ------
    ConfshiftError
        Where the shapes fit no task, or a word is missing.
    """
    targets = targets.reshape(1) if not targets.ndim else targets
    layouts = layouts_of(logits, targets, task)
    if not layouts and len(targets) == 1 and logits.ndim:
        layouts = layouts_of(logits[None], targets, task)
        logits = logits[None] if layouts else logits
    if not layouts:
        raise ConfshiftError(_on_shapes(logits, targets, source, task))
    if logits.dtype not in _FLOATS:
        kind = "real numbers are" if logits.is_complex() else "floating point is"
        raise ConfshiftError(f"the logits are {logits.dtype}, and {kind} expected; {source.advice}")
    targets = _checked_targets(logits, targets, source, layouts[0])
    return Batch(logits, targets.reshape(len(logits)) if PLAIN in layouts else targets, layouts)


def _checked_targets(logits: Tensor, targets: Tensor, source: Source, layout: Layout) -> Tensor:
    """Return targets of the type that the layout has: answers, 0 or 1, may be of any."""
    if layout.axes > 3:
        code = {
            1: "logits.flatten(4), targets.flatten(3)",
            -1: "logits.flatten(3, -2), targets.flatten(3)",
            None: "logits.flatten(3), targets.flatten(3)",
        }[layout.axis]
        raise ConfshiftError(
            f"the targets have {layout.axes} axes within a sample, and up to 3 are read; fold the others: "
            f"pass {source.code(f'return {code}')}"
        )
    if layout.axis is None:
        _check_answers(targets, source)
        return targets
    if _are_integers(targets):
        return targets
    if logits.shape[layout.axis] == 2 and not targets.is_complex() and advice.are_whole(_numbers(targets)):
        return targets.long()
    raise ConfshiftError(
        f"the targets are {targets.dtype}, and class indices are integers; {_on_labels(targets, source)}"
    )


def _check_answers(targets: Tensor, source: Source) -> None:
    """Refuse targets of one output that are not whole numbers, or are -1 and 1."""
    numbers = None if targets.is_complex() else _numbers(targets)
    if numbers is None or not advice.are_whole(numbers[numbers == numbers]):
        raise ConfshiftError(f"one output for each target, and the targets are {_on_labels(targets, source)}")
    if numbers.size and advice.are_signs(numbers):
        code = source.code("return logits, (targets + 1) // 2")
        raise ConfshiftError(f"one output for each target, and the targets are -1 and 1; pass {code}")


def refuse_inputs(batch: Batch, source: Source) -> None:
    """Ask for a word where a batch's targets are its inputs, apart from negative ones, which are left out."""
    labels = batch.targets.cpu()
    is_shiftable = any(layout.axis == -1 and layout.axes == 1 for layout in batch.layouts)
    if not is_shiftable or not (labels >= 0).any():
        return
    alike = (
        isinstance(tensor, Tensor)
        and tensor.shape == labels.shape
        and not tensor.is_floating_point()
        and ((tensor.cpu() == labels) | (labels < 0)).all()
        for tensor in source.inputs
    )
    if any(alike):
        raise ConfshiftError(
            "the targets are the inputs. If each output is for the next token (a causal language model), "
            f"{source.word('causal_lm')}, and if it is for its own token (an autoencoder), "
            f"{source.word('tokens')}"
        )


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


def _on_shapes(logits: Tensor, targets: Tensor, source: Source, task: str | None) -> str:
    """Say which word or code makes rows of these shapes."""
    shape = f"{source.returned} logits of shape {tuple(logits.shape)}"
    shapes = f"{shape} for targets of shape {tuple(targets.shape)}"
    if not logits.ndim:
        return f"{shape}, one number for {targets.numel()} targets, as a loss is; return the logits instead"
    if task is not None:
        fits = [layout.task for layout in layouts_of(logits, targets, None)]
        remedy = f"these are of task={fits[0]!r}" if fits else source.advice
        return f"{shapes}; task={task!r} has {_FORMS[task]}: {remedy}"
    if logits.shape == targets.shape and targets.numel() and not targets.is_complex():
        return f"{shapes}: {_on_same_shape(logits, targets, source)}"
    if logits.ndim == 2 and targets.ndim < 3:
        return f"{shapes}; one class index for each row is expected: {source.advice}"
    start = f"{shapes}, and one row of K logits for each target is expected"
    if logits.ndim == 1 and targets.ndim == 1 and len(targets) and not len(logits) % len(targets):
        code = source.code("return logits.reshape(len(targets), -1), targets")
        return f"{start}; if these are the rows one after the other, for {len(targets)} targets, pass {code}"
    if logits.ndim > 2 and targets.ndim == 1 and all(size == 1 for size in logits.shape[2:]):
        return f"{start}: pass {source.code('return logits.flatten(1), targets')}"
    if layouts_of(logits, targets, "pixels"):
        return f"{shapes}: if there is one output for each pixel, {source.word('pixels')}"
    if logits.ndim == targets.ndim + 1 > 3 and logits.shape[0] == targets.shape[0]:
        code = "return torch.nn.functional.interpolate(logits, targets.shape[1:]), targets"
        return f"{start}. Where maps (n, K, H, W) are smaller than the targets, pass {source.code(code)}"
    return f"{start}; they do not say which axis holds the classes: {source.advice}"


def _on_same_shape(logits: Tensor, targets: Tensor, source: Source) -> str:
    """Say what targets of the logits' shape can be: one-hot or soft, several labels, one output a pixel."""
    if logits.ndim == 2:
        return advice.on_columns(
            _numbers(targets),
            one_hot=source.code("return logits, targets.argmax(1)"),
            several=f"{source.word('multilabel')}, or 'tokens' where each is a token",
        )
    hot = [
        source.code(f"return logits, targets.argmax({axis})")
        for axis in advice.one_hot_axes(_numbers(targets))
        if axis in (1, logits.ndim - 1)
    ]
    if hot:
        either = "\nor, by which axis holds the classes, pass ".join(hot)
        return f"one-hot labels; pass {either}"
    if logits.ndim == 1:
        return source.advice
    return f"if there is one output for each pixel, {source.word('pixels')}; soft targets are not read"


def _on_labels(targets: Tensor, source: Source) -> str:
    if targets.is_complex():
        return "complex; return real integers"
    return advice.on_labels(_numbers(targets), code=source.code("return logits, targets.long()"))
