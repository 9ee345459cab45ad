"""Layouts: which task a batch is of, and which of its axes holds the classes, by the shapes or a word."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from confshift.tasks import PLACE_BITS, places

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """What the axes of a batch mean; the first is that of the samples."""

    task: str = "multiclass"
    axis: int | None = -1  #: Of the classes, 1 or -1; None where there is one output for each target.
    axes: int = 0  #: How many say where in its sample a target is.
    labels: int = 0  #: Of a multi-label task.

    @property
    def bits(self) -> int:
        """How many bits of a row's id say where in its sample it is."""
        if self.task == "multilabel":
            return places(self.labels).bit_length() - 1
        return PLACE_BITS[self.axes] if self.axes else 0

    @property
    def named(self) -> str:
        """What each of the class names is the name of."""
        if self.task == "multilabel":
            return "label"
        return "column of logits" if self.axis is not None else "answer, those to 0 and to 1"


#: A row of K logits for each sample.
PLAIN = Layout()


def layouts_of(logits: Tensor, targets: Tensor, task: str | None) -> list[Layout]:
    """Return every layout that these shapes allow; `task` may be the user's word.

    One without doubt: several where more than one axis can be that of the classes, none where the shapes
    don't fit, or where only a word would tell what they mean.
    """
    found = [*_with_classes(logits, targets), *_with_one_output(logits, targets)]
    if task is None:
        return [layout for layout, is_sure in found if is_sure]
    labels = targets.shape[1] if task == "multilabel" and targets.ndim > 1 else 0
    return [layout._replace(task=task, labels=labels) for layout, _ in found if _fits(layout, task, logits)]


def _fits(layout: Layout, task: str, logits: Tensor) -> bool:
    """Tell whether a task may have this layout."""
    if task in ("binary", "multilabel"):
        two = layout.axis is None or logits.shape[layout.axis] == 2
        return two and layout.axes == (task == "multilabel")
    if task == "multiclass":
        return layout.axis is not None and not layout.axes
    if task == "causal_lm":
        return layout.axes == 1 and layout.axis == -1
    return layout.axes == 1 if task == "tokens" else layout.axes > 1


def _task(axes: int) -> str:
    return "tokens" if axes == 1 else "pixels"


def _with_classes(logits: Tensor, targets: Tensor) -> list[tuple[Layout, bool]]:
    """Return the layouts with an axis for the classes, which the targets lack or have with length 1."""
    shape, found = tuple(logits.shape), []
    for axis in dict.fromkeys((1, len(shape) - 1)):
        if len(shape) < 2 or shape[axis] < 2:
            continue
        rest = shape[:axis] + shape[axis + 1 :]
        if rest in _channelless(targets):
            axes = len(rest) - 1
            place = 1 if axis == 1 and axes else -1
            found.append((Layout(_task(axes) if axes else "multiclass", place, axes), True))
    return found


def _with_one_output(logits: Tensor, targets: Tensor) -> list[tuple[Layout, bool]]:
    """Return the layouts with one output for each target.

    Several places without an axis of length 1 for the classes may be labels as well: only a word tells.
    """
    found: list[tuple[Layout, bool]] = []
    for shape in sorted(set(_channelless(logits)) & set(_channelless(targets)), key=len):
        axes = len(shape) - 1
        is_sure = not found and (not axes or logits.ndim > len(shape))
        found.append((Layout(_task(axes) if axes else "binary", None, axes), is_sure))
    return found


def _channelless(tensor: Tensor) -> list[Shape]:
    """Return the shapes of a tensor with and without an axis of length 1, where classes would be."""
    shape = tuple(tensor.shape)
    if not shape:
        return [(1,)]
    axes = [axis for axis in {1, len(shape) - 1} if 0 < axis < len(shape) and shape[axis] == 1]
    return [shape, *(shape[:axis] + shape[axis + 1 :] for axis in axes)]
