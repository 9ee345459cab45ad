"""The exact account of one change of the mean loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis import competitors, decomposition, reliability
from confshift.analysis.attributes import Attribute, Slices, attributes_in
from confshift.analysis.calibration import calibration_share
from confshift.analysis.causes.class_bias import ClassBias, class_bias_test
from confshift.analysis.change import change_of
from confshift.analysis.competitors import Pairs
from confshift.analysis.grouping import Groups, codes_at, mean_error, second_half
from confshift.analysis.objective import ClassWeight, Smoothing, objective_of
from confshift.analysis.panel import Panel
from confshift.analysis.sample_rows import SIDES, sample_rows, side_by_side, top_rows
from confshift.analysis.significance import Interval, Switches, mcnemar, paired_interval
from confshift.analysis.stacking import stack
from confshift.analysis.subsets import subsets_of
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions

_BEFORE, _AFTER = 0, 1


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What changed in the mean loss between two checkpoints, in which samples.

    Every table is an unrounded DataFrame; every difference is after minus before, so a positive change
    of the loss is worse. Made by :func:`compare`. Tables are computed on first use.

    Attributes
    ----------
    before, after : Checkpoint
    whole : Panel
        All samples, both sides, the groups that they are in and what their classes weigh.
    attributes : tuple of Attribute
        The subsets of these samples, as `slices` gave them.

    Notes
    -----
    Losses, and every table that adds up to their change, are over the samples whose loss is finite on both
    sides: `panel`. Accuracy, error rate, confidence and what follows from them (reliability, confusion) are
    over the samples with an answer on both sides: `answered`, which also includes wrong answers with an
    infinite loss, whose true class has a probability of 0. So the error rate of the account, whose parts add
    up to the change of the loss, may differ from that of `change`.

    Where classes have weights, losses, what a mistake costs, and every table that adds up to the change of
    the loss are weighted as in `torch.nn.CrossEntropyLoss(weight=)`, divided by the sum of the weights; so is
    the error rate of the account. Accuracy, error rate and confidence in `change`, reliability and confusion
    are not, nor are numbers of samples. Temperature and biases are fitted to the plain loss.
    """

    before: Checkpoint
    after: Checkpoint
    whole: Panel
    attributes: tuple[Attribute, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Comparison({self.before.split} epoch {self.before.epoch:g} -> {self.after.epoch:g}, "
            f"{len(self.panel.targets)} samples)"
        )

    @cached_property
    def panel(self) -> Panel:
        """The samples whose loss is finite on both sides."""
        return self.whole.take(self.whole.at_all(Panel.finite))

    @cached_property
    def answered(self) -> Panel:
        """The samples with an answer on both sides."""
        return self.whole.take(self.whole.at_all(Panel.answered))

    @property
    def samples_left_out(self) -> int:
        """How many samples have no finite loss on at least one side: left out of every table of losses."""
        return len(self.whole.targets) - len(self.panel.targets)

    @property
    def samples_unanswered(self) -> int:
        """How many samples have no answer on at least one side: left out of every table."""
        return len(self.whole.targets) - len(self.answered.targets)

    @cached_property
    def left_out(self) -> pd.DataFrame:
        """As `samples`, but for its last three columns: the samples without a finite loss on some side."""
        return side_by_side(self.whole.take(~self.whole.at_all(Panel.finite)))

    @property
    def infinite_samples(self) -> tuple[int, int]:
        """How many samples have an infinite loss before, and after: such a side's whole mean is infinite."""
        before, after = self.whole.counts.infinite
        return int(before), int(after)

    @cached_property
    def change(self) -> pd.DataFrame:
        """Before, after and change of each quantity, with a paired 95 % interval.

        Indexed by quantity, "loss" first; columns before, after, change, change_se, change_low,
        change_high, unit (nats, fraction, ratio), samples (how many it is over), units (samples, or groups
        where given). The two checkpoints are taken as given: the interval is not corrected for picking the
        best one. Means by Hall's interval; mistake cost and temperature by their influence functions;
        with label smoothing, smoothing_loss is what it adds and trained_loss the sum with the loss;
        accuracy and error rate by `significance.accuracy_bounds`, from the answers that switched; the
        confidence gap from the intervals of confidence and accuracy. NaN where a
        quantity is not defined: the mistake cost where no sample is wrong, the temperature where no value of
        it is best. With groups, Hall's interval is over their means, and each answer that switched counts for
        less; see `grouping.counted_share`.
        """
        return change_of(self.before, self.after, self.panel, self.answered)

    @property
    def added(self) -> NDArray[np.float64]:
        """What each sample in `panel` adds to N times the change of the mean loss: its own one, weighted."""
        return self.panel.share(self.panel.changes(_BEFORE, _AFTER))

    def interval(self, differences: NDArray[np.float64]) -> Interval:
        """Return the 95 % interval of a mean over the samples in `panel`; by groups where given."""
        return paired_interval(self.panel.terms(differences))

    def beyond_share(self, part: NDArray[np.float64], share: float) -> Interval:
        """Return the 95 % interval of a part of the change of the loss minus so large a share of the change.

        Above 0 the part is more than that share, however uncertain the change itself is.

        Parameters
        ----------
        part : ndarray, shape (N,)
            What each sample in `panel` adds to the part.
        share : float
            Taken as given, also where it follows from the sizes of classes.

        Notes
        -----
        E. C. Fieller, "Some problems in interval estimation", JRSS B 16 (1954), 175-185.
        """
        return self.interval(part - share * self.panel.changes(_BEFORE, _AFTER))

    @cached_property
    def account(self) -> pd.DataFrame:
        """Hedging, error rate and mistake cost: before, after, contribution in nats; they add up.

        The error rate is that of the samples whose loss is finite on both sides. With label smoothing a
        further row, label_smoothing, is what it adds to the mean loss: all rows add up to the change of the
        trained loss, the first three to that of the cross-entropy.
        """
        return decomposition.account_of(self.panel, _BEFORE, _AFTER)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The change by transition and direction, always 12 rows; see `decomposition.cells_of`."""
        return decomposition.cells_of(self.panel, _BEFORE, _AFTER)

    @property
    def by_transition(self) -> pd.Series:
        """What the samples of each transition add to the change, in nats, over both directions."""
        sums: pd.Series = self.cells["contribution"].groupby(level="transition", observed=True).sum()
        return sums

    @cached_property
    def classes(self) -> pd.DataFrame:
        """The change by true class; see `decomposition.classes_of`."""
        return decomposition.classes_of(self.panel, self.answered, _BEFORE, _AFTER)

    @cached_property
    def labels(self) -> pd.DataFrame:
        """The change by label of a multi-label task; see `decomposition.labels_of`."""
        return decomposition.labels_of(self.panel, self.answered, _BEFORE, _AFTER)

    @cached_property
    def slices(self) -> pd.DataFrame:
        """The change by subset, as `slices=` named them; see `subsets.subsets_of`."""
        return subsets_of(self.whole, self.panel, self.answered, self.attributes)

    def by(self, slices: Slices | None, groups: Groups | None = None) -> Comparison:
        """Return the comparison with the subsets of `slices`; arguments as of :func:`compare`."""
        if slices is None:
            return self
        return replace(self, attributes=attributes_in(self.whole, slices, groups))

    @property
    def competitors(self) -> pd.DataFrame:
        """The change by (true class, competitor): which wrong class gained. Reads the logits."""
        return self._competitors[0]

    @property
    def largest_pairs(self) -> Pairs:
        """The pair (class, competitor) that adds most: over all samples, and over each half of them."""
        return self._competitors[1]

    @cached_property
    def _competitors(self) -> tuple[pd.DataFrame, Pairs]:
        return competitors.competitors_of(
            *self.logits,
            self.panel.targets,
            class_labels=self.panel.class_labels,
            second_half=self.second_half,
            weights=self.panel.weights,
            losses=self.panel.loss,
        )

    @cached_property
    def second_half(self) -> NDArray[np.bool_]:
        """Which samples of `panel` are in the second of two halves; see `grouping.second_half`."""
        return second_half(self.panel.targets, self.panel.codes)

    @cached_property
    def scale(self) -> pd.DataFrame:
        """The change by transition, split into growth of the logits' scale and change of their shape.

        Indexed by transition; columns samples, contribution, scale, shape (nats; scale + shape =
        contribution) and kappa, how many times larger the logits became. Reads the logits.
        """
        kappa, scale = self._scale_parts
        codes = self.cell_codes // len(decomposition.DIRECTIONS)
        total, count = len(codes), len(decomposition.TRANSITIONS)
        contribution = np.bincount(codes, self.added, count) / total
        part = np.bincount(codes, self.panel.share(scale), count) / total
        return pd.DataFrame(
            {
                "samples": np.bincount(codes, minlength=count),
                "contribution": contribution,
                "scale": part,
                "shape": contribution - part,
                "kappa": kappa,
            },
            index=pd.Index(decomposition.TRANSITIONS, name="transition"),
        )

    @cached_property
    def _scale_parts(self) -> tuple[float, NDArray[np.float64]]:
        return competitors.scale_parts(*self.logits, self.panel.targets, self.panel.loss)

    @property
    def scale_changes(self) -> NDArray[np.float64]:
        """The part of each sample's change that is growth of the logits' scale, in nats, as in `panel`."""
        return self._scale_parts[1]

    @property
    def logits(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The logits of the samples in `panel`, before and after."""
        sides = (self.before.predictions, self.after.predictions)
        if not self.samples_left_out:
            return sides[0].logits, sides[1].logits
        return self.panel.of_members(sides[0].logits), self.panel.of_members(sides[1].logits)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample with a finite loss on both sides, by sample_id; `left_out` has the others.

        Columns target, predicted_before/after, loss_before/after, confidence_before/after,
        margin_before/after, change (nats), transition, direction.
        """
        return sample_rows(self.panel)

    def top_samples(self, number: int) -> pd.DataFrame:
        """Return the rows of `samples` whose loss rose most, the largest rise first."""
        return top_rows(self.panel, number)

    @property
    def cell_codes(self) -> NDArray[np.intp]:
        """The cell of each sample in `panel`, as a position in `decomposition.CELLS`."""
        return decomposition.cell_codes(self.panel, _BEFORE, _AFTER)

    @cached_property
    def reliability(self) -> pd.DataFrame:
        """Confidence against accuracy in bins: side, binning, and the columns of `reliability_bins`."""
        parts = []
        for side, one in zip(SIDES, self.answered.ones(), strict=True):
            for binning in reliability.BINNINGS:
                part = reliability.reliability_bins(
                    one.confidence[0],
                    one.correct[0],
                    binning=binning,
                    codes=self.answered.codes,
                )
                part.insert(0, "side", side)
                part.insert(1, "binning", binning)
                parts.append(part)
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def reliability_curve(self) -> pd.DataFrame:
        """The isotonic curve of both sides: side, confidence, accuracy."""
        return self._by_side(lambda one: reliability.isotonic_curve(one.confidence[0], one.correct[0]))

    @cached_property
    def reliability_band(self) -> pd.DataFrame:
        """The 90 % consistency band of both sides: side, confidence, low, high."""

        def band(one: Panel) -> pd.DataFrame:
            confidence = one.confidence[0]
            share = calibration_share(confidence, one.correct[0], one.codes)
            return reliability.consistency_band(confidence, share=share)

        return self._by_side(band)

    def _by_side(self, make: Callable[[Panel], pd.DataFrame]) -> pd.DataFrame:
        parts = [make(one).assign(side=side) for side, one in zip(SIDES, self.answered.ones(), strict=True)]
        table = pd.concat(parts, ignore_index=True)
        return table[["side", *table.columns.drop("side")]]

    @cached_property
    def confusion(self) -> pd.DataFrame:
        """Samples by side, true class and predicted class; only combinations that occur."""
        frames = []
        for side, one in zip(SIDES, self.answered.ones(), strict=True):
            answers = pd.DataFrame({"class": one.targets, "predicted": one.predicted[0]})
            counts = answers.value_counts(sort=False).rename("samples").reset_index()
            counts.insert(0, "side", side)
            frames.append(counts)
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def switches(self) -> Switches:
        """How many samples were learned and forgotten, with McNemar's test; see `significance.mcnemar`."""
        before, after = self.answered.correct
        return mcnemar(before, after, codes=self.answered.codes)

    @cached_property
    def class_bias(self) -> ClassBias:
        """Whether the later side gives classes too much probability; reads its logits. See `class_bias`."""
        after, codes = self.after, codes_at(self.whole.codes, self.whole.one(_AFTER).finite[0])
        fitted = after.fit_status == "ok"
        return class_bias_test(*after.scored_logits, beta=1 / after.temperature, fitted=fitted, codes=codes)

    @cached_property
    def balance(self) -> pd.DataFrame:
        """What one bias for each class gains beside the temperature, on both sides, by left-out samples.

        Indexed by side (before, after); columns epoch, gain (the balance loss, in nats), gain_se.
        """
        gains = self.panel.balance
        se = [mean_error(self.panel.terms(of_side)) for of_side in gains]
        return pd.DataFrame(
            {"epoch": [self.before.epoch, self.after.epoch], "gain": self.panel.mean(gains), "gain_se": se},
            index=pd.Index(SIDES, name="side"),
        )

    @cached_property
    def concentration(self) -> pd.DataFrame:
        """How few samples carry the rise; see `decomposition.concentration_of`."""
        return decomposition.concentration_of(self.added)


def compare(
    before: Checkpoint | Predictions,
    after: Checkpoint | Predictions,
    *,
    groups: Groups | None = None,
    class_weight: ClassWeight = "stored",
    label_smoothing: Smoothing = "stored",
    slices: Slices | None = None,
) -> Comparison:
    """Give the exact account of a change of the mean loss between two sets of predictions.

    Parameters
    ----------
    before, after : Checkpoint or Predictions
        Of the SAME samples with the same targets, matched by their ids, and of the same classes in the
        same order; a side without class names takes those of the other side.
    groups : sequence of length N or mapping from sample id, or "rows", optional
        Samples with the same label (patient, document) err together: the intervals of `change` and the test
        of `switches` then allow for it. A sequence is in the order of ascending sample id. Default: the
        groups that a side was saved with, if any; "rows" counts each row for itself all the same.
    class_weight, label_smoothing
        As in `summarize`.
    slices : DataFrame, Series or mapping, optional
        What is known of the samples, such as their site or length: indexed by sample id or group, with a
        column for each attribute. `Comparison.slices` then has the change by subset; see
        `attributes.attributes_of`.

    Returns
    -------
    Comparison

    Raises
    ------
    ConfshiftError
        Where the samples or the class names differ (saying which and how many), no sample can be scored
        on both sides, or `groups`, `class_weight`, `label_smoothing` or `slices` can't be used.

    Examples
    --------
    >>> import numpy as np
    >>> logits, targets = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 1])
    >>> comparison = compare(Predictions(logits, targets), Predictions(3 * logits, targets))
    >>> comparison.change.loc["loss", ["before", "after", "change"]].astype(float).round(3).tolist()
    [0.584, 1.033, 0.449]
    >>> comparison.account["contribution"].round(3).to_dict()
    {'hedging': -0.218, 'error_rate': 0.0, 'mistake_cost': 0.667}
    """
    sides = [_as_checkpoint(side) for side in (before, after)]
    whole = stack(sides, groups=groups)
    objective = objective_of(sides, whole.class_names, whole.targets, class_weight, label_smoothing)
    comparison = comparison_of(sides[0], sides[1], whole.trained_by(objective))
    return comparison.by(slices, groups)


def comparison_of(before: Checkpoint, after: Checkpoint, whole: Panel) -> Comparison:
    """Compare two checkpoints, as a panel of both counts their samples.

    Raises
    ------
    ConfshiftError
        Where no sample can be scored on both sides.
    """
    comparison = Comparison(before, after, whole)
    if not len(comparison.panel.targets):
        raise ConfshiftError(
            "before, after: no sample has a finite loss on both sides; look for NaN in the model's outputs, "
            "and for true classes with a probability of 0"
        )
    return comparison


def _as_checkpoint(side: Checkpoint | Predictions) -> Checkpoint:
    if isinstance(side, Predictions):
        return Checkpoint.from_predictions(side)
    if not isinstance(side, Checkpoint):
        raise ConfshiftError(
            f"compare takes checkpoints or Predictions, not {type(side).__name__}; "
            "use run[epoch] or Predictions(logits, targets)"
        )
    return side
