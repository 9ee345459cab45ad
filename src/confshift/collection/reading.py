"""Reading: what the user says about outputs and targets, and the predictions that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

from confshift.collection.evaluation import Evaluation
from confshift.collection.layouts import Layout
from confshift.collection.loaders import class_names_of
from confshift.errors import ConfshiftError
from confshift.input_checks import check_names
from confshift.predictions import Predictions
from confshift.tasks import TASKS

_OUTPUTS = ("logits", "probabilities")


@dataclass(frozen=True)
class Reading:
    """How the batches of an evaluation are read; the fields are arguments of :func:`confshift.inspect`."""

    outputs: str = "logits"
    class_names: Any = None
    ignore_index: float | None = -100
    task: str | None = None
    rows: int | None = None

    def check(self) -> None:
        """Refuse what says nothing, before there is a batch."""
        if self.outputs not in _OUTPUTS:
            raise ConfshiftError(f"outputs={self.outputs!r}: pass 'logits' or 'probabilities'")
        if self.task is not None and (not isinstance(self.task, str) or self.task not in TASKS):
            raise ConfshiftError(
                f"task={self.task!r}: pass one of {', '.join(map(repr, TASKS))}, or leave it out"
            )
        rows = self.rows
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, Integral) or rows < 1):
            raise ConfshiftError(f"rows={rows!r}: pass how many rows to keep, a whole number above 0")

    def check_names(self, layout: Layout, columns: int) -> None:
        """Refuse another number of names than there are classes, or labels."""
        check_names(self.class_names, layout.labels or columns, layout.named)

    def predictions(self, evaluation: Evaluation, loader: Any) -> Predictions:
        """Return the rows as predictions; `loader.dataset` may name the classes."""
        names = self.class_names
        if names is None:
            names = class_names_of(loader, evaluation.names)
        return evaluation.predictions(self.outputs, names, self.ignore_index)
