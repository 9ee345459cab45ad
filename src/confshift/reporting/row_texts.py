"""The ids of rows as text: beside that of a token, pixel or label, which of its sample it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.panel import Panel
from confshift.tasks import PLACE_BITS, TASKS, places

#: Axes that say where in its sample a row is; of pixels they may be three, see `_written`.
_AXES = {"tokens": 1, "causal_lm": 1, "pixels": 2}
#: Bits of a pixel's column, and of each place of a voxel.
_COLUMN_BITS, _VOXEL_BITS = 16, 10
_COLUMN = (1 << _COLUMN_BITS) - 1


def row_texts(panel: Panel, rows: NDArray[np.intp]) -> list[str]:
    """Return the ids of some rows as text, such as "16777219 (document 1, token 3)".

    Ids say of which sample a row is where they are those that `inspect` makes, sample * 2**k + place: where
    the number of each sample is its group, or the rank of its group's text. Other ids stand alone.

    Parameters
    ----------
    panel : Panel
    rows : ndarray of int
        Positions in the panel.
    """
    ids, bits, groups = panel.sample_ids, _bits(panel), _groups(panel)
    texts = [str(row_id) for row_id in ids[rows].tolist()]
    if ids.dtype.kind != "i" or not bits or groups is None or not _are_made(ids >> bits, groups):
        return texts
    within = ids & ((1 << bits) - 1)
    write = _written(panel, within)
    numbered = zip(texts, groups[rows].tolist(), within[rows].tolist(), strict=True)
    return [f"{text} ({write(group, place)})" for text, group, place in numbered]


def _bits(panel: Panel) -> int:
    """Return how many bits of an id say where in its sample a row is; 0 where that is not known."""
    if panel.label_names:
        return places(len(panel.label_names)).bit_length() - 1
    axes = _AXES.get(panel.checkpoints[-1].provenance.task)
    return PLACE_BITS[axes] if axes else 0


def _groups(panel: Panel) -> NDArray[Any] | None:
    """Return the groups that the rows were saved with."""
    stored = (checkpoint.measurement.groups for checkpoint in panel.checkpoints)
    return next((groups for groups in stored if groups is not None), None)


def _are_made(samples: NDArray[Any], groups: NDArray[Any]) -> bool:
    numbers = groups if groups.dtype.kind == "i" else np.unique(groups, return_inverse=True)[1]
    return np.array_equal(samples, numbers)


def _written(panel: Panel, within: NDArray[np.int64]) -> Callable[[Any, int], str]:
    """Return how the sample of a row is written, and the place in it."""
    words, names = TASKS[panel.checkpoints[-1].provenance.task], panel.label_names
    if names:  # the page says "label" for "sample", but leaves what is followed by "=" alone
        return lambda group, place: f"sample={group}, {names[place]}"
    if words.sample != "pixel":
        return lambda group, place: f"{words.group} {group}, {words.sample} {place}"
    if ((within & _COLUMN) >> _VOXEL_BITS).any():  # voxels, or very wide images: ids do not say which
        return lambda group, place: f"{words.group} {group}"
    return lambda group, place: (
        f"{words.group} {group}, row {place >> _COLUMN_BITS}, column {place & _COLUMN}"
    )
