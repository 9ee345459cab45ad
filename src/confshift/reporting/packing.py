"""The large arrays of the page, as small as they get: every sample at every epoch, every pair's cells."""

from __future__ import annotations

import base64
import gzip
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.decomposition import CELLS, pairwise_cells
from confshift.analysis.panel import Panel

__all__ = [
    "LOSS_FLOOR",
    "Selection",
    "pack",
    "pack_losses",
    "pack_pairs",
    "pack_predicted",
    "select_samples",
]

#: Losses are kept as log(loss + this), in 16 bits: 0.03 % of a large loss, 1e-7 of a small one.
LOSS_FLOOR = 1e-3
#: The code of a loss that is not finite.
_MISSING = 65535
#: Of a subset, so many are those whose loss changed most.
_MOVERS = 500


class Selection(NamedTuple):
    """The samples that the page carries one by one."""

    positions: NDArray[np.intp]  # in the panel, ascending
    weights: NDArray[np.float64]  # how many samples of the panel each stands for


def select_samples(changes: NDArray[np.float64], *, limit: int, seed: int = 0) -> Selection:
    """Choose samples to carry: all, or those that changed most and a random part of the others.

    Parameters
    ----------
    changes : ndarray, shape (N,)
        NaN where a sample can't be compared.
    limit : int
        Most samples to keep.
    """
    samples = len(changes)
    if samples <= limit:
        return Selection(np.arange(samples), np.ones(samples))
    order = np.argsort(-np.abs(np.nan_to_num(changes)), kind="stable")
    movers = order[: min(_MOVERS, limit // 2)]
    others = np.random.default_rng(seed).choice(order[len(movers) :], limit - len(movers), replace=False)
    positions = np.sort(np.concatenate([movers, others]))
    weight = (samples - len(movers)) / len(others)
    return Selection(positions, np.where(np.isin(positions, movers), 1.0, weight))


def pack(values: NDArray[Any]) -> str:
    """Write an array's bytes, little-endian, gzipped, as base64."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return base64.b64encode(gzip.compress(little.tobytes(), 6, mtime=0)).decode("ascii")


def pack_losses(panel: Panel, positions: NDArray[np.intp]) -> tuple[str, float]:
    """Pack the losses (T, n), 16 bits each, and the largest code's logarithm.

    65535 is no finite loss: an infinite one where there is a prediction, none where there is not.
    """
    losses = panel.loss[:, positions]
    finite = np.isfinite(losses)
    largest = float(losses[finite].max()) if finite.any() else 0.0
    span = float(np.log1p(largest / LOSS_FLOOR)) or 1.0
    codes = np.full(losses.shape, _MISSING, np.uint16)
    codes[finite] = np.round(np.log1p(losses[finite] / LOSS_FLOOR) / span * (_MISSING - 1))
    return pack(codes), span


def pack_predicted(panel: Panel, positions: NDArray[np.intp]) -> tuple[str, int]:
    """Pack the predicted classes (T, n), and say in how many bits; the largest code can't be scored."""
    classes = len(panel.class_names)
    bits = 8 if classes < 2**8 else 16 if classes < 2**16 else 32
    return pack(panel.predicted[:, positions].astype(f"u{bits // 8}")), bits


def pack_pairs(panel: Panel) -> tuple[str, str]:
    """Pack the contributions (pairs, 12) and the samples (pairs, 12) of every pair of checkpoints."""
    count = len(panel.checkpoints) * (len(panel.checkpoints) - 1) // 2
    contributions = np.zeros((len(CELLS), count), np.float32)
    samples = np.zeros((len(CELLS), count), np.uint32)
    for place, (_, _, sums, counts) in enumerate(pairwise_cells(panel)):
        contributions[:, place] = sums
        samples[:, place] = counts
    return pack(contributions), pack(samples)
