"""Checkpoints over the SAME samples, stacked: the arrays that every comparison and history reads."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.grouping import ROWS, Codes, Groups, codes_at, group_codes, unit_terms
from confshift.analysis.objective import PLAIN, Objective, uniform_losses
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.input_checks import are_numbers
from confshift.predictions import describe_difference


@dataclass(frozen=True, eq=False)
class Panel:
    """T checkpoints of N samples. Arrays are (T, N), rows in the order of the checkpoints.

    `codes` holds the group of each sample, where those of a group err together: every error and every verdict
    on the panel then counts groups. `objective` says what each class weighs in a mean of losses: `share`,
    `mean` and `terms` weigh; an accuracy is a plain mean.
    """

    checkpoints: tuple[Checkpoint, ...]
    sample_ids: NDArray[Any]  # (N,)
    targets: NDArray[np.int64]  # (N,)
    class_names: tuple[str, ...]
    predicted: NDArray[np.int32]
    hedge: NDArray[np.float64]
    mistake: NDArray[np.float64]
    confidence: NDArray[np.float64]
    margin: NDArray[np.float64]
    scaled: NDArray[np.float64]
    refinement: NDArray[np.float64]
    codes: Codes | None = None  # (N,); also with gaps
    objective: Objective = PLAIN

    @cached_property
    def loss(self) -> NDArray[np.float64]:
        """Cross-entropy in nats; NaN without an answer, infinite where the true class has probability 0."""
        return self.hedge + self.mistake

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the first class that attains the maximum is the true one."""
        return np.asarray(self.predicted == self.targets)

    @cached_property
    def answered(self) -> NDArray[np.bool_]:
        """Whether a sample has an answer at a checkpoint; without one it is left out of everything."""
        return np.asarray(self.predicted >= 0)

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """Whether a sample's loss at a checkpoint is finite: what every sum of losses is over."""
        return np.isfinite(self.loss)

    @cached_property
    def infinite(self) -> NDArray[np.bool_]:
        """Whether a sample's answer gives its true class a probability of 0: wrong, at an infinite loss."""
        return np.asarray(self.answered & ~self.finite)

    def changes(self, before: int, after: int) -> NDArray[np.float64]:
        """Return each sample's change of loss; NaN where one side's loss is not finite."""
        change: NDArray[np.float64] = self._scored_loss[after] - self._scored_loss[before]
        return change

    @cached_property
    def _scored_loss(self) -> NDArray[np.float64]:
        # NaN rather than infinity, because numpy warns of inf - inf.
        return np.where(self.finite, self.loss, np.nan)

    def same_losses(self, one: int, other: int) -> bool:
        """Tell whether two checkpoints agree on every finite loss that they share: one model, seen twice."""
        shared = self.finite[one] & self.finite[other]
        return np.array_equal(self.loss[one][shared], self.loss[other][shared])

    @cached_property
    def calibration(self) -> NDArray[np.float64]:
        """The part of each loss that the checkpoint's own recalibration would remove, in nats."""
        return self.loss - self.refinement

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """The part of `calibration` that one temperature would remove."""
        return self.loss - self.scaled

    @cached_property
    def balance(self) -> NDArray[np.float64]:
        """The part of `calibration` that one bias for each class would remove beside the temperature."""
        return self.scaled - self.refinement

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
    def weights(self) -> NDArray[np.float64] | None:
        """What each sample counts for in a mean of losses, (N,): 1 on average; None where all count alike."""
        if self.objective.class_weights is None:
            return None
        weights = self.objective.class_weights[self.targets]
        with np.errstate(invalid="ignore"):  # no sample counts: no mean of losses
            return np.asarray(weights / weights.mean() if len(weights) else weights)

    def share(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what each sample adds, of values (..., N): the mean of that is the weighted mean."""
        if self.weights is None:
            return values
        return np.where(self.weights != 0, self.weights * values, 0.0)

    @cached_property
    def smoothing(self) -> NDArray[np.float64] | None:
        """What label smoothing adds to each sample's share of a mean loss, (T, N), in nats; None without it.

        NaN at a checkpoint whose logits can't be read.
        """
        if not self.objective.smoothing:
            return None
        of_class, scale = self.objective.class_weights, 1.0
        if of_class is not None:
            scale = 1 / float(of_class[self.targets].mean())
        uniform = np.full(self.loss.shape, np.nan)
        for row, checkpoint in zip(uniform, self.checkpoints, strict=True):
            members = np.isin(checkpoint.measurement.sample_ids, self.sample_ids, assume_unique=True)
            with contextlib.suppress(ConfshiftError):
                row[:] = scale * uniform_losses(checkpoint, of_class)[members]
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

    @property
    def units(self) -> int:
        """How many samples, or groups of them, an error of the panel is estimated from."""
        return len(self.targets) if self.codes is None else len(np.unique(self.codes))

    @property
    def plain(self) -> Panel:
        """The panel whose means are plain ones, whatever is trained."""
        return replace(self, objective=PLAIN) if self.objective else self

    def at(self, places: Sequence[int]) -> Panel:
        """Return the panel of the checkpoints at some positions."""
        return replace(
            self,
            checkpoints=tuple(self.checkpoints[place] for place in places),
            **{name: getattr(self, name)[list(places)] for name in _STACKED},
        )

    def take(self, samples: NDArray[np.bool_]) -> Panel:
        """Return the panel of some of the samples."""
        if samples.all():
            return self
        return replace(
            self,
            sample_ids=self.sample_ids[samples],
            targets=self.targets[samples],
            codes=codes_at(self.codes, samples),
            **{name: getattr(self, name)[:, samples] for name in _STACKED},
        )


#: The columns that a panel stacks, by their names in a measurement.
_STACKED = [field.name for field in fields(Panel)][4:-2]


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
    ids, targets = first.measurement.sample_ids, first.measurement.rows["target"].astype(np.int64)
    names = shared_names(checkpoints)
    for other in checkpoints[1:]:
        _check_same_samples(first, other)

    measurements = [checkpoint.measurement for checkpoint in checkpoints]
    columns = {
        name: np.stack([measurement.column(name) for measurement in measurements]) for name in _STACKED
    }
    codes = codes_of(checkpoints, groups)
    return Panel(tuple(checkpoints), ids, targets, names, **columns, codes=codes, objective=objective)


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
    same_ids = len(a.sample_ids) == len(b.sample_ids) and np.array_equal(a.sample_ids, b.sample_ids)
    if same_ids and np.array_equal(a.rows["target"], b.rows["target"]):
        return
    difference = describe_difference(
        (a.sample_ids, a.rows["target"], None), (b.sample_ids, b.rows["target"], None)
    )
    raise ConfshiftError(
        f"{first!r} and {other!r} do not hold the same samples: {difference}. "
        "Inspect both on one validation set"
    )
