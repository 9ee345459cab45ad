"""The checkpoints of a run as panels, one for each split, the main one first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from confshift.analysis import final_number
from confshift.analysis.grouping import Groups, where_named
from confshift.analysis.mapping import fit_each
from confshift.analysis.objective import ClassWeight, Objective, Smoothing, objective_of
from confshift.analysis.panel import Panel
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError

#: By the names of the splits.
Panels = tuple[tuple[str, Panel], ...]


def panels_of(
    run: Iterable[Checkpoint],
    *,
    split: str,
    groups: Groups | None,
    class_weight: ClassWeight,
    label_smoothing: Smoothing,
) -> Panels:
    """Return the panel of each split by its name, the main one first; `history.summarize` has the parameters.

    Raises
    ------
    ConfshiftError
        As `summarize`.
    """
    by_split: dict[str, list[Checkpoint]] = {}
    for checkpoint in _checkpoints_in(run):
        by_split.setdefault(checkpoint.split, []).append(checkpoint)
    if not by_split:
        raise ConfshiftError("run holds no checkpoint; call confshift.inspect(model, loader, run=...) first")
    if split == final_number.SPLIT:
        final_number.refuse_to_judge_by(by_split)
    # Without the split that was asked for, the first one is judged, but not the test split.
    names = sorted(by_split, key=lambda name: (name != split, name == final_number.SPLIT))
    panels = tuple(
        (name, _stacked(_in_order(by_split[name]), groups, main=name == names[0])) for name in names
    )
    final_number.check_test_split(panels)
    checkpoints, main = [one for _, panel in panels for one in panel.checkpoints], panels[0][1]
    fit_each(checkpoints)
    objective = objective_of(checkpoints, main.class_names, main.targets, class_weight, label_smoothing)
    return trained_by(panels, objective)


def trained_by(panels: Panels, objective: Objective) -> Panels:
    """Return the panels with the means of another objective."""
    return tuple((name, panel.trained_by(objective)) for name, panel in panels)


def _stacked(checkpoints: list[Checkpoint], groups: Groups | None, *, main: bool) -> Panel:
    """Stack the checkpoints of a split; where it is not the main one, `groups` may be of others."""
    ids = checkpoints[0].measurement.sample_ids
    return stack(checkpoints, groups=groups if main else where_named(groups, ids))


def _checkpoints_in(run: Iterable[Checkpoint]) -> Iterator[Checkpoint]:
    """Yield the checkpoints; refuse whatever else was passed, saying what it is."""
    if isinstance(run, str | os.PathLike):
        path = os.fspath(run)
        raise ConfshiftError(f"run={path!r} is a path: pass confshift.Run({path!r})")
    if not isinstance(run, Iterable):
        raise ConfshiftError(f"run is a {type(run).__name__}: pass a confshift.Run or a list of checkpoints")
    for checkpoint in run:
        if not isinstance(checkpoint, Checkpoint):
            raise ConfshiftError(
                f"run is a {type(run).__name__} that holds a {type(checkpoint).__name__}: "
                "pass a confshift.Run or a list of checkpoints"
            )
        yield checkpoint


def _in_order(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    """Sort by epoch; refuse checkpoints that share an epoch, or lack one (NaN)."""
    epochs = np.array([checkpoint.epoch for checkpoint in checkpoints])
    if len(np.unique(epochs)) < len(epochs):
        raise ConfshiftError(
            f"run holds {len(epochs)} checkpoints of split {checkpoints[0].split!r} with epochs "
            f"{', '.join(f'{epoch:g}' for epoch in epochs)}: give each its own, "
            "Checkpoint.from_predictions(..., epoch=)"
        )
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.epoch)
