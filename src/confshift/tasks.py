"""Kinds of classification: what a row of logits stands for, and which rows err together."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.errors import ConfshiftError
from confshift.input_checks import listed_names


class Nouns(NamedTuple):
    """What a row, a group of rows and the true class of a row are called."""

    sample: str = "sample"
    group: str = "group"
    label: str = "label"


#: By task: what its rows, and the groups they come in, are called.
TASKS = MappingProxyType(
    {
        **dict.fromkeys(("multiclass", "binary"), Nouns()),
        "multilabel": Nouns("label", "sample", "target"),
        **dict.fromkeys(("tokens", "causal_lm"), Nouns("token", "document")),
        "pixels": Nouns("pixel", "image"),
    }
)
#: Bits of a row's id that say where in its sample it is, by the number of axes, which share them out.
PLACE_BITS = MappingProxyType({1: 24, 2: 32, 3: 32})
#: The classes of tasks that ask of each row whether something is so.
ANSWERS = ("no", "yes")


def check_task(task: Any, classes: int) -> str:
    """Refuse a task that is not known, or that has another number of classes."""
    if not isinstance(task, str) or task not in TASKS:
        raise ConfshiftError(f"task={task!r}: pass one of {', '.join(map(repr, TASKS))}")
    if task in ("binary", "multilabel") and classes != 2:
        raise ConfshiftError(
            f"task={task!r} asks of each row whether it is so, and the logits have {classes} columns; pass "
            "two for each row, 0 and the output, or leave task out"
        )
    return task


def check_labels(label_names: Any, task: str, sample_ids: NDArray[Any]) -> tuple[str, ...]:
    """Return the names of the labels of a multi-label task, after checking that each id is of one of them."""
    if label_names is None or (names := listed_names(label_names)) == ():
        return ()
    if names is None:
        raise ConfshiftError(f"label_names={label_names!r}: pass a list of text, the name of each label")
    if task != "multilabel":
        raise ConfshiftError(
            f"label_names is for task='multilabel', and task is {task!r}; name classes by class_names"
        )
    if sample_ids.dtype.kind != "i":
        raise ConfshiftError(f"label_names needs integer sample_ids, {_rule(len(names))}; these are text")
    labels = label_numbers(sample_ids, len(names))
    if (beyond := labels >= len(names)).any():
        first = int(np.argmax(beyond))
        raise ConfshiftError(
            f"label_names has {len(names)} names, and {int(beyond.sum())} sample_ids are of others, such as "
            f"{sample_ids[first]} of label {labels[first]}; make the ids by {_rule(len(names))}"
        )
    return names


def label_numbers(sample_ids: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """Return which of so many labels each row of a multi-label task is of; its id says it."""
    return sample_ids & (places(labels) - 1)


def places(parts: int) -> int:
    """Return what a sample's number is multiplied by in the ids of its parts: a power of two."""
    return 1 << max(parts - 1, 0).bit_length()


def _rule(labels: int) -> str:
    return f"sample * {places(labels)} + label with labels from 0 to {labels - 1}"
