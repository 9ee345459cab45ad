"""Unfolding: rows of K logits from a batch in its task's own shape, with the place of each in its sample."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from confshift.collection.layouts import Layout
from confshift.collection.row_checks import Batch
from confshift.errors import ConfshiftError


class Unfolded(NamedTuple):
    """The rows of a batch whose targets count, in the order of samples and places."""

    logits: Tensor  #: (n, K)
    targets: Tensor  #: (n,) int64
    samples: Tensor  #: (n,) int64, the number of each row's sample in the batch
    places: Tensor  #: (n,) int64, where in its sample a row is
    ignored: int  #: How many targets are left out.

    def part(self, positions: NDArray[np.intp]) -> Unfolded:
        """Return these rows alone."""
        chosen = torch.from_numpy(positions)
        logits = self.logits[chosen.to(self.logits.device)]
        targets = self.targets[chosen.to(self.targets.device)]
        return Unfolded(logits, targets, self.samples[chosen], self.places[chosen], self.ignored)


def unfold(batch: Batch, layout: Layout, *, outputs: str, ignore_index: float | None) -> Unfolded:
    """Return the rows of a batch.

    Parameters
    ----------
    batch : Batch
    layout : Layout
        One of its own.
    outputs : {"logits", "probabilities"}
        What a single output z or p is: its rows are (0, z) or (1 - p, p).
    ignore_index : float or None
        Targets to leave out; NaN, too, where it is NaN.
    """
    logits, targets = batch.logits.detach(), batch.targets
    if layout.task == "causal_lm":  # an output is for the token after its own
        logits, targets = logits[:, :-1], targets[:, 1:]
    if layout.axis is not None:
        logits = logits.movedim(layout.axis, -1)
        targets = targets.reshape(logits.shape[:-1])
    else:
        shape = _shape_of_places(targets, layout)
        logits, targets = logits.reshape(shape), targets.reshape(shape)
    counts = _counts(targets, ignore_index)
    where = counts.nonzero().cpu()
    targets = _whole(targets[counts])
    rows = logits[counts.to(logits.device)]
    return Unfolded(
        rows if layout.axis is not None else _two_columns(rows, outputs),
        targets,
        where[:, 0],
        _places(where[:, 1:], tuple(counts.shape[1:]), layout),
        counts.numel() - len(where),
    )


def _shape_of_places(targets: Tensor, layout: Layout) -> tuple[int, ...]:
    """Return the targets' shape without an axis of length 1 beyond those of sample and places."""
    shape = list(targets.shape) or [1]
    while len(shape) > 1 + layout.axes:
        del shape[1 if shape[1] == 1 else -1]
    return tuple(shape)


def _counts(targets: Tensor, ignore_index: float | None) -> Tensor:
    """Tell which targets count."""
    if ignore_index is None:
        return torch.ones_like(targets, dtype=torch.bool)
    if math.isnan(ignore_index):
        return ~targets.isnan()
    return (targets if targets.is_floating_point() else targets.long()) != ignore_index


def _whole(targets: Tensor) -> Tensor:
    """Return targets as integers; those of one output may be of any type."""
    missing = int(targets.isnan().sum()) if targets.is_floating_point() else 0
    if missing:
        raise ConfshiftError(
            f"{missing} targets are NaN among whole numbers; pass ignore_index=float('nan') to leave them out"
        )
    return targets.long()


def _two_columns(values: Tensor, outputs: str) -> Tensor:
    """Return the columns of "no" and "yes" for one output each."""
    if outputs == "probabilities":
        shares = values if values.dtype is torch.float64 else values.float()
        return torch.stack([1 - shares, shares], 1)
    return torch.stack([torch.zeros_like(values), values], 1)


def _places(where: Tensor, sizes: tuple[int, ...], layout: Layout) -> Tensor:
    """Return a number for each place: by token or label, or by row and column, whatever a batch is padded to.

    Raises
    ------
    ConfshiftError
        Where a sample is larger than its part of an id.
    """
    if not layout.axes:
        return torch.zeros(len(where), dtype=torch.int64)
    each = layout.bits // layout.axes
    if max(sizes) > 2**each:
        raise ConfshiftError(
            f"a sample has {' x '.join(map(str, sizes))} places, and an axis may have {2**each}; cut the "
            "samples into parts, each with an id of its own"
        )
    places = where[:, 0]
    for axis in range(1, layout.axes):
        places = (places << each) | where[:, axis]
    return places + (layout.task == "causal_lm")
