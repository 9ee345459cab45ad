"""Checkpoints become a panel, or it is said why they can't: other samples, classes or groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.grouping import ROWS, Codes, Groups, group_codes
from confshift.analysis.objective import PLAIN, Objective
from confshift.analysis.panel import Panel
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.input_checks import are_numbers
from confshift.predictions import describe_difference


def stack(
    checkpoints: Sequence[Checkpoint], *, groups: Groups | None = None, objective: Objective = PLAIN
) -> Panel:
    """Stack checkpoints over the same samples, with the groups that these are in.

    Those passed, see `group_codes`; else those that the checkpoints were saved with.

    Raises
    ------
    ConfshiftError
        Where the samples, the targets, the classes or their names differ: without the same samples no
        paired statement is valid. Checkpoints whose names are the default numbers take those of the others.
        Where a sample has no group, or the checkpoints were saved with different ones.
    """
    if not checkpoints:
        raise ConfshiftError("checkpoints is empty; inspect a model first")
    first = checkpoints[0]
    ids, targets = first.measurement.sample_ids, first.measurement["target"].astype(np.int64)
    names = shared_names(checkpoints)
    for other in checkpoints[1:]:
        _check_same_samples(first, other)

    return Panel(
        tuple(checkpoints), ids, targets, names, codes=codes_of(checkpoints, groups), objective=objective
    )


def codes_of(checkpoints: Sequence[Checkpoint], groups: Groups | None = None) -> Codes | None:
    """Return the codes of groups, else of those that checkpoints over the same samples were saved with."""
    labels = _stored_groups(checkpoints) if groups is None else groups
    return None if labels is None else group_codes(labels, checkpoints[0].measurement.sample_ids)


def _stored_groups(checkpoints: Sequence[Checkpoint]) -> NDArray[Any] | None:
    source, known = checkpoints[0], None
    for other in checkpoints:
        groups = other.measurement.groups
        if known is None and groups is not None:
            source, known = other, groups
        elif known is not None and groups is not None and not np.array_equal(known, groups):
            raise ConfshiftError(
                f"{source!r} and {other!r} were saved with other groups of the same samples; pass those "
                f"that err together, groups=..., or groups={ROWS!r} to count rows"
            )
    return known


def shared_names(checkpoints: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Return the class names that all checkpoints share; another order would mislabel every class."""
    source = checkpoints[0]
    for other in checkpoints[1:]:
        if len(source.class_names) != len(other.class_names):
            raise ConfshiftError(
                f"{other!r} has {len(other.class_names)} classes and {source!r} has "
                f"{len(source.class_names)}: they can't be paired"
            )
        if are_numbers(source.class_names):
            source = other
        differing = [k for k, name in enumerate(other.class_names) if name != source.class_names[k]]
        if differing and not are_numbers(other.class_names):
            at = differing[0]
            raise ConfshiftError(
                f"class_names: {len(differing)} of {len(source.class_names)} differ; class {at} is "
                f"{source.class_names[at]!r} in {source!r} and {other.class_names[at]!r} in {other!r}. "
                "Bring the logits and targets of one side into the other's order of classes; where only "
                "the spelling differs, pass the same class_names for both"
            )
    return source.class_names


def _check_same_samples(first: Checkpoint, other: Checkpoint) -> None:
    a, b = first.measurement, other.measurement
    same_ids = a.sample_ids is b.sample_ids or (
        len(a.sample_ids) == len(b.sample_ids) and np.array_equal(a.sample_ids, b.sample_ids)
    )
    if same_ids and np.array_equal(a["target"], b["target"]):
        return
    difference = describe_difference((a.sample_ids, a["target"], None), (b.sample_ids, b["target"], None))
    raise ConfshiftError(
        f"{first!r} and {other!r} do not hold the same samples: {difference}. "
        "Inspect both on one validation set"
    )
