"""Checkpoints over the SAME samples, stacked: the arrays that every comparison and history reads."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import Codes, codes_at, unit_terms
from confshift.analysis.matrices import KEPT_NUMBERS, Counts, Matrix, Number, PartOf
from confshift.analysis.objective import PLAIN, Objective, uniform_losses
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError


def _column(name: str, doc: str) -> Matrix[Any]:
    def make(panel: Panel) -> NDArray[Any]:
        return panel._stacked(name)

    make.__doc__ = doc
    return Matrix(make)


#: Returns a column of a checkpoint, of the samples of a panel.
Column = Callable[[str], NDArray[Any]]


def _loss(column: Column) -> NDArray[np.float64]:
    return np.asarray(column("hedge") + column("mistake"))


@dataclass(frozen=True, eq=False)
class Panel:
    """T checkpoints of N samples. Matrices are (T, N), rows in the order of the checkpoints.

    `codes` holds the group of each sample, where those of a group err together: every error and every verdict
    on the panel then counts groups. `objective` says what each class weighs in a mean of losses: `share`,
    `mean` and `terms` weigh; an accuracy is a plain mean.

    A run may be larger than the memory: where T is not 1 or 2, take the matrices of `one`, `ones`, `blocks`.
    """

    checkpoints: tuple[Checkpoint, ...]
    sample_ids: NDArray[Any]  # (N,)
    targets: NDArray[np.int64]  # (N,)
    class_names: tuple[str, ...]
    codes: Codes | None = None  # (N,); also with gaps
    objective: Objective = PLAIN
    #: The rows of the checkpoints that the samples are among.
    span: slice = field(default_factory=lambda: slice(None))
    members: NDArray[np.bool_] | None = None  # and which of those they are; None: all
    weights_in_whole: NDArray[np.float64] | None = None  # (N,) of a block: `weights` of the panel it is from
    part_of: PartOf | None = None
    _matrices: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    predicted: ClassVar[Matrix[np.int32]] = _column("predicted", "The predicted class; -1 without an answer.")
    hedge: ClassVar[Matrix[np.float64]] = _column("hedge", "-log of the top probability, in nats.")
    mistake: ClassVar[Matrix[np.float64]] = _column("mistake", "Log-odds of a wrong top label, in nats.")
    confidence: ClassVar[Matrix[np.float64]] = _column("confidence", "The top label's probability.")
    margin: ClassVar[Matrix[np.float64]] = _column("margin", "The true class's logit above all others'.")
    scaled: ClassVar[Matrix[np.float64]] = _column("scaled", "The loss at a temperature, in nats.")
    refinement: ClassVar[Matrix[np.float64]] = _column("refinement", "The loss once recalibrated, in nats.")

    @property
    def is_small(self) -> bool:
        """Whether its matrices stay in memory."""
        return len(self.checkpoints) * len(self.targets) <= KEPT_NUMBERS

    def of_members(self, column: NDArray[Number]) -> NDArray[Number]:
        """Return, of a checkpoint's column, the rows of the panel's samples."""
        part = column[self.span]
        return part if self.members is None else part[self.members]

    def _stacked(self, name: str) -> NDArray[Any]:
        return self._made(lambda column: column(name), np.int32 if name == "predicted" else np.float64)

    def _made(self, make: Callable[[Column], NDArray[Any]], dtype: type[np.generic]) -> NDArray[Any]:
        """Return a matrix made row by row, of a checkpoint's columns: no others are in memory meanwhile."""
        rows = (make(partial(self._column, checkpoint)) for checkpoint in self.checkpoints)
        if len(self.checkpoints) == 1:  # nothing to copy
            return next(rows)[None]
        matrix = np.empty((len(self.checkpoints), len(self.targets)), dtype)
        for place, row in zip(matrix, rows, strict=True):
            place[:] = row
        return matrix

    def _column(self, checkpoint: Checkpoint, name: str) -> NDArray[Any]:
        column = checkpoint.measurement.column(name, self.span)
        return column if self.members is None else column[self.members]

    @Matrix
    def loss(self) -> NDArray[np.float64]:
        """Cross-entropy in nats; NaN without an answer, infinite where the true class has probability 0."""
        return self._made(_loss, np.float64)

    @Matrix
    def correct(self) -> NDArray[np.bool_]:
        """Whether the first class that attains the maximum is the true one."""
        return self._made(lambda column: column("predicted") == self.targets, np.bool_)

    @Matrix
    def wrong(self) -> NDArray[np.bool_]:
        """Whether it is another one, or there is no answer."""
        return self._made(lambda column: column("predicted") != self.targets, np.bool_)

    @Matrix
    def answered(self) -> NDArray[np.bool_]:
        """Whether a sample has an answer at a checkpoint; without one it is left out of everything."""
        return self._made(lambda column: column("predicted") >= 0, np.bool_)

    @Matrix
    def finite(self) -> NDArray[np.bool_]:
        """Whether a sample's loss at a checkpoint is finite: what every sum of losses is over."""
        return self._made(lambda column: np.isfinite(_loss(column)), np.bool_)

    @Matrix
    def infinite(self) -> NDArray[np.bool_]:
        """Whether a sample's answer gives its true class a probability of 0: wrong, at an infinite loss."""
        return np.asarray(self.answered & ~self.finite)

    @Matrix
    def calibration(self) -> NDArray[np.float64]:
        """The part of each loss that the checkpoint's own recalibration would remove, in nats."""
        return self._made(lambda column: _loss(column) - column("refinement"), np.float64)

    @Matrix
    def scale(self) -> NDArray[np.float64]:
        """The part of `calibration` that one temperature would remove."""
        return self._made(lambda column: _loss(column) - column("scaled"), np.float64)

    @Matrix
    def balance(self) -> NDArray[np.float64]:
        """The part of `calibration` that one bias for each class would remove beside the temperature."""
        return self._made(lambda column: column("scaled") - column("refinement"), np.float64)

    def changes(self, before: int, after: int) -> NDArray[np.float64]:
        """Return each sample's change of loss; NaN where one side's loss is not finite."""
        # NaN rather than infinity, because numpy warns of inf - inf.
        first, last = (np.where(np.isfinite(loss), loss, np.nan) for loss in self.at([before, after]).loss)
        change: NDArray[np.float64] = last - first
        return change

    def same_losses(self, one: int, other: int) -> bool:
        """Tell whether two checkpoints agree on every finite loss that they share: one model, seen twice."""
        pair = self.at([one, other])
        shared = pair.finite.all(axis=0)
        return np.array_equal(*pair.loss[:, shared])

    @property
    def epochs(self) -> NDArray[np.float64]:
        """The epochs of the checkpoints, in their order."""
        return np.array([checkpoint.epoch for checkpoint in self.checkpoints])

    def checkpoint_at(self, epoch: float) -> Checkpoint:
        """Return the checkpoint of an epoch that the panel has."""
        return next(checkpoint for checkpoint in self.checkpoints if checkpoint.epoch == epoch)

    @cached_property
    def class_labels(self) -> pd.Index[str]:
        """The class names, made unique where two classes share one."""
        names = pd.Series(self.class_names)
        twice = names.duplicated(keep=False)
        return pd.Index(names.where(~twice, names + " #" + names.index.astype(str)))

    @cached_property
    def counts(self) -> Counts:
        """How many samples each checkpoint can be judged by."""
        whole = self.part_of
        if whole is not None and whole.all_samples:
            return Counts(*(counts[whole.places] for counts in whole.panel.counts))
        rows = [(one.answered.sum(), one.finite.sum(), one.infinite.sum()) for one in self.ones()]
        return Counts(*np.array(rows, np.int64).reshape(-1, 3).T)

    @property
    def all_finite(self) -> bool:
        """Whether every loss is finite."""
        return bool((self.counts.finite == len(self.targets)).all())

    @property
    def all_answered(self) -> bool:
        """Whether every sample has an answer at every checkpoint."""
        return bool((self.counts.answered == len(self.targets)).all())

    @cached_property
    def weights(self) -> NDArray[np.float64] | None:
        """What each sample counts for in a mean of losses, (N,): 1 on average; None where all count alike."""
        if self.weights_in_whole is not None:
            return self.weights_in_whole
        if self.objective.class_weights is None:
            return None
        weights = self.objective.class_weights[self.targets]
        with np.errstate(invalid="ignore"):  # no sample counts: no mean of losses
            return np.asarray(weights / weights.mean() if len(weights) else weights)

    def share(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what each sample adds, of values (..., N): the mean of that is the weighted mean."""
        if self.weights is None:
            return values
        with np.errstate(invalid="ignore"):  # an infinite loss that counts for nothing
            return np.where(self.weights != 0, self.weights * values, 0.0)

    @cached_property
    def _smoothing(self) -> NDArray[np.float64] | None:
        return self._make_smoothing()

    @property
    def smoothing(self) -> NDArray[np.float64] | None:
        """What label smoothing adds to each sample's share of a mean loss, (T, N), in nats; None without it.

        NaN at a checkpoint whose logits can't be read.
        """
        return self._smoothing if self.is_small else self._make_smoothing()

    def _make_smoothing(self) -> NDArray[np.float64] | None:
        if not self.objective.smoothing:
            return None
        of_class, scale = self.objective.class_weights, 1.0
        if of_class is not None:
            scale = 1 / float(of_class[self.targets].mean()) if len(self.targets) else math.nan
        uniform = np.full((len(self.checkpoints), len(self.targets)), np.nan)
        for row, checkpoint in zip(uniform, self.checkpoints, strict=True):
            with contextlib.suppress(ConfshiftError):
                row[:] = scale * self.of_members(uniform_losses(checkpoint, of_class))
        with np.errstate(invalid="ignore"):
            return np.asarray(self.objective.smoothing * (uniform - self.share(self.loss)))

    def mean(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the weighted mean over the samples, of values of shape (..., N)."""
        return np.asarray(self.share(values).mean(axis=-1))

    def terms(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return `grouping.unit_terms` of values of shape (N,), whose mean is their weighted mean."""
        return self.terms_of(self.share(values))

    def terms_of(self, shares: NDArray[Any]) -> NDArray[np.float64]:
        """Return `grouping.unit_terms` of shares of shape (N,)."""
        return unit_terms(shares, self.codes, self.weights)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels of a multi-label task whose rows these are; () where they have no names."""
        return self.checkpoints[-1].provenance.label_names

    @cached_property
    def units(self) -> int:
        """How many samples, or groups of them, an error of the panel is estimated from."""
        return len(self.targets) if self.codes is None else len(np.unique(self.codes))

    @property
    def plain(self) -> Panel:
        """The panel whose means are plain ones, whatever is trained."""
        return self.trained_by(PLAIN) if self.objective else self

    def trained_by(self, objective: Objective) -> Panel:
        """Return the panel with the means of another objective."""
        return replace(
            self,
            objective=objective,
            weights_in_whole=None,
            part_of=PartOf(self, slice(None), slice(None)),
        )

    def at(self, places: Sequence[int]) -> Panel:
        """Return the panel of the checkpoints at some positions."""
        places = list(places)
        checkpoints = tuple(self.checkpoints[place] for place in places)
        return replace(self, checkpoints=checkpoints, part_of=PartOf(self, places, slice(None)))

    def one(self, place: int) -> Panel:
        """Return the panel of one checkpoint."""
        part = PartOf(self, slice(place, place + 1), slice(None))
        return replace(self, checkpoints=(self.checkpoints[place],), part_of=part)

    def ones(self) -> Iterator[Panel]:
        """Yield the panel of each checkpoint."""
        return map(self.one, range(len(self.checkpoints)))

    def at_all(self, usable: Matrix[np.bool_]) -> NDArray[np.bool_]:
        """Return for which samples a matrix of truth values is true at every checkpoint."""
        samples = np.ones(len(self.targets), bool)
        if (usable is Panel.finite and self.all_finite) or (usable is Panel.answered and self.all_answered):
            return samples
        for one in self.ones():
            samples &= usable.of(one)[0]
        return samples

    def take(self, samples: NDArray[np.bool_]) -> Panel:
        """Return the panel of some of the samples."""
        if samples.all():
            return self
        return self._part(samples, self._members_of(samples), weights=self.weights_in_whole)

    def _members_of(self, samples: NDArray[np.bool_]) -> NDArray[np.bool_]:
        if self.members is None:
            return samples
        members = self.members.copy()
        members[members] = samples
        return members

    def _part(
        self,
        samples: NDArray[np.bool_] | slice,
        members: NDArray[np.bool_] | None,
        *,
        span: slice | None = None,
        weights: NDArray[np.float64] | None = None,
    ) -> Panel:
        return replace(
            self,
            sample_ids=self.sample_ids[samples],
            targets=self.targets[samples],
            codes=codes_at(self.codes, samples),
            span=span or self.span,
            members=members,
            weights_in_whole=None if weights is None else weights[samples],
            part_of=PartOf(self, slice(None), samples),
        )

    def blocks(self) -> Iterator[Panel]:
        """Yield small panels of all checkpoints and consecutive samples, which weigh what they do here."""
        return (block for _, block in self.blocks_with_samples())

    def blocks_with_samples(self) -> Iterator[tuple[slice, Panel]]:
        """Yield `blocks`, each with the place of its samples in the panel."""
        if self.is_small:
            yield slice(0, len(self.targets)), self
            return
        step = max(1, KEPT_NUMBERS // len(self.checkpoints))
        rows = len(self.targets) if self.members is None else len(self.members)
        offset, done = self.span.start or 0, 0
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            members = None if self.members is None else self.members[start:stop]
            samples = slice(done, done + (stop - start if members is None else int(members.sum())))
            if samples.stop > done:
                span = slice(offset + start, offset + stop)
                yield samples, self._part(samples, members, span=span, weights=self.weights)
            done = samples.stop
