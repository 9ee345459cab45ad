"""What is measured of a checkpoint: a row for each sample, in memory or in a file, and two fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from confshift import recalibration, temperature
from confshift.predictions import Predictions
from confshift.scoring import COLUMNS, SCORED, Scores, score

#: The columns kept for each sample beside its id. Everything but a new temperature fit and the
#: competitors follows from them, whatever K is. This is a stored format: add at the end, never change.
MEASURED = np.dtype(
    [*SCORED.descr, ("curve_loss", "<f8"), ("curve_slope", "<f8"), ("curve_curvature", "<f8")]
)
_CURVE = ("loss", "slope", "curvature")
#: What is kept beside them since schema 2 of the run folder. A stored format, too.
LEFT_OUT = np.dtype([("scaled_loss", "<f8"), ("calibrated_loss", "<f8")])


#: The columns that most of an analysis reads, by the names under which they are stored.
KEPT = ("predicted", "hedge", "mistake", "confidence", *(LEFT_OUT.names or ()))
PARTS = dict(zip(("scaled", "refinement"), LEFT_OUT.names or (), strict=True))
_ALL = slice(None)


class Table(Protocol):
    """The columns of MEASURED, and maybe those of LEFT_OUT, in memory or in a file."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        ...

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def part(self, name: str, span: slice) -> NDArray[Any]:
        """Return a column of consecutive rows."""
        ...

    def columns(self, names: Sequence[str]) -> list[NDArray[Any]]:
        """Return some columns, read together."""
        ...


class RowsInMemory:
    """A structured array as a `Table`."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self.rows = rows
        self.names: tuple[str, ...] = rows.dtype.names or ()

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, name: str, span: slice) -> NDArray[Any]:
        """Return a column of consecutive rows."""
        column: NDArray[Any] = self.rows[name][span]
        return column

    def columns(self, names: Sequence[str]) -> list[NDArray[Any]]:
        """Return some columns."""
        return [self.part(name, _ALL) for name in names]


class MadeLeftOut:
    """Left-out losses that are made of the logits, which takes long, when they are first asked for."""

    def __init__(self, make: Callable[[], recalibration.LeftOut]) -> None:
        self._make = make
        #: What was made, here or by another process.
        self.made: recalibration.LeftOut | None = None

    def __call__(self) -> recalibration.LeftOut:
        """Return them."""
        if self.made is None:
            self.made = self._make()
        return self.made


@dataclass(frozen=True, eq=False)
class Measurement:
    """What is stored of a checkpoint beside its logits: a row per sample, in the order of the ids."""

    sample_ids: NDArray[Any]  # (N,) int64 or text, ascending
    table: Table  # N rows
    beta: float  # where the curve_* columns were evaluated
    read_left_out: Callable[[], recalibration.LeftOut]  # a `MadeLeftOut` where it is not stored
    groups: NDArray[Any] | None = None  # (N,) int64 or text: which rows err together
    stored_fit: tuple[float, NDArray[np.float64]] | None = None  # `fit`, where no row need be read for it
    known_ties: int | None = None  # `tied_samples`, likewise
    known_optimum: tuple[float, str] | None = None  # `optimum`, likewise

    @property
    def rows(self) -> NDArray[Any]:
        """All rows (N,), of dtype MEASURED."""
        rows, names = np.empty(len(self.table), MEASURED), MEASURED.names or ()
        for name, column in zip(names, self.table.columns(names), strict=True):
            rows[name] = column
        return rows

    @property
    def curve(self) -> temperature.Curve:
        """Each sample's loss as a function of 1/T."""
        columns = self.table.columns([f"curve_{name}" for name in _CURVE])
        return temperature.Curve(self.beta, *map(np.ascontiguousarray, columns))

    @cached_property
    def optimum(self) -> tuple[float, str]:
        """The best 1/T and its status; see `temperature.optimum`."""
        return self.known_optimum or temperature.optimum(self.curve)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column, (N,)."""
        return self.column(name)

    def column(self, name: str, span: slice = _ALL) -> NDArray[Any]:
        """Return a column of consecutive rows: one of MEASURED, `scaled` or `refinement`."""
        stored = PARTS.get(name, name)
        if stored in self.table.names:
            return self.table.part(stored, span)
        column: NDArray[Any] = getattr(self.left_out, "scaled" if name == "scaled" else "calibrated")[span]
        return column

    @property
    def left_out(self) -> recalibration.LeftOut:
        """The fit of temperature and biases, and each sample's loss at the fits to all others."""
        return self.read_left_out()

    @property
    def fit(self) -> tuple[float, NDArray[np.float64]]:
        """1/T and the biases of the joint fit, as in `recalibration.LeftOut`."""
        return self.stored_fit or (self.left_out.beta, self.left_out.biases)

    @property
    def tied_samples(self) -> int:
        """How many rows have more than one class at the top."""
        return int(self.table.part("tied", _ALL).sum()) if self.known_ties is None else self.known_ties


@dataclass(frozen=True, eq=False)
class Part:
    """The columns of consecutive rows of a measurement."""

    measurement: Measurement
    span: slice

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column."""
        return self.measurement.column(name, self.span)


def columns_of(measurement: Measurement, rows: slice = slice(None)) -> dict[str, NDArray[Any]]:
    """Return the columns of some samples, by name; see :attr:`checkpoint.Checkpoint.columns`."""
    scores = Scores(Part(measurement, rows))
    scaled, calibrated = (measurement.column(name, rows) for name in PARTS)
    loss, (target, predicted, *others) = scores.loss, COLUMNS
    return {
        target: scores.target,
        predicted: scores.predicted,
        "correct": scores.correct,
        "loss": loss,
        **{name: getattr(scores, name) for name in others},
        "calibration_loss": loss - calibrated,
        "refinement_loss": calibrated,
        "answered": scores.answered,
        "finite": np.isfinite(loss),
        "scale_loss": loss - scaled,
        "balance_loss": scaled - calibrated,
        **({} if measurement.groups is None else {"group": measurement.groups[rows]}),
    }


def measure(predictions: Predictions, scores: Scores | None = None) -> Measurement:
    """Score every sample and fit what recalibrates; `scores`, where they are known, save the first pass."""
    logits, targets = predictions.logits, predictions.targets
    scores = scores or score(logits, targets)
    curve = temperature.fit(logits, targets)
    left_out = recalibration.left_out(logits, targets, curve, ~scores.correct)
    rows = np.empty(len(predictions), MEASURED)
    for name in COLUMNS:
        rows[name] = scores.rows[name]
    for name in _CURVE:
        rows[f"curve_{name}"] = getattr(curve, name)
    return Measurement(
        predictions.sample_ids, RowsInMemory(rows), curve.beta, lambda: left_out, predictions.groups
    )
