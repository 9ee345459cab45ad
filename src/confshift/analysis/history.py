"""One row per checkpoint, and how each differs from the one before it and from the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pandas as pd

from confshift.analysis import dynamics, final_number, reliability
from confshift.analysis.best_epochs import best_position, best_rows, pair_by_loss, share_finite, start_of
from confshift.analysis.calibration import CalibratedAccuracy, calibrated_accuracy
from confshift.analysis.causes import baseline
from confshift.analysis.causes.baseline import LabelOrder, label_order
from confshift.analysis.causes.divergence import Divergence, divergence_of
from confshift.analysis.causes.label_noise import fits_at, judge_labels
from confshift.analysis.causes.learning_rate import at_the_last_rate, learning_rates, rate_drops
from confshift.analysis.comparison import Comparison, comparison_of
from confshift.analysis.dynamics import Suspects, suspects_of
from confshift.analysis.epoch_rows import assemble, cells_table, class_columns, row_of
from confshift.analysis.grouping import Groups, mean_error
from confshift.analysis.mapping import of_each
from confshift.analysis.objective import ClassWeight, Objective, Smoothing
from confshift.analysis.pairs import pairs_of
from confshift.analysis.panel import Panel
from confshift.analysis.recommendation import (
    Kept,
    Recommendation,
    Richer,
    keep,
    reason_to_stop,
    recommend,
    richer_than,
)
from confshift.analysis.rise import Judgement, balance_share, check_looks, judge, leading, repairs_errors
from confshift.analysis.series import Looks
from confshift.analysis.splits import Panels, panels_of, trained_by
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """A run as tables: unrounded DataFrames, made by :func:`summarize`, computed on first use.

    Attributes
    ----------
    panels : tuple of (str, Panel)
        The checkpoints of each split, in order of epoch, and the groups of its samples; the main split first.
    looks, groups
        As :func:`summarize` took them.
    """

    panels: Panels
    looks: Looks = "once"
    groups: Groups | None = None

    @property
    def split(self) -> str:
        """The name of the main split."""
        return self.panels[0][0]

    def __repr__(self) -> str:
        splits = ", ".join(f"{name}: {len(panel.checkpoints)} checkpoints" for name, panel in self.panels)
        return f"History({splits})"

    @property
    def main(self) -> Panel:
        """The panel of the main split, which `best`, `rise`, `dynamics` and the findings are about."""
        return self.panels[0][1]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per checkpoint and split.

        Columns: split, epoch; samples, nonfinite_samples, unanswered_samples; the means loss, finite_loss,
        hedge, calibration_loss, refinement_loss, scale_loss, balance_loss (nats), accuracy, error_rate,
        confidence (fractions), each with `_se`; mistake_cost (nats), temperature, fit_status,
        joint_temperature; confidence_gap with its se, ece, ece_null, smooth_ece, ecce, ecce_p; units;
        tied_samples, ignored_samples, duplicate_samples, id_source, writer. calibration_loss is scale_loss
        (what one temperature repairs) + balance_loss (what one bias for each class repairs beside it), and
        refinement_loss the rest of the loss.

        Where classes have weights losses and mistake_cost are weighted, nothing else is: see `Comparison`.
        With label smoothing also smoothing_loss, what it adds, and trained_loss, that and the loss (nats),
        each with `_se`, over the samples with a finite loss.

        Means are over the samples with an answer: all but `unanswered_samples`. Where one of them gives its
        true class a probability of 0, loss, refinement_loss and mistake_cost are infinite. finite_loss,
        calibration_loss and temperature are over the `samples` with a finite loss.

        Standard errors count `units`: the groups that the split was saved with; in place of them those of
        `groups`, for the main split, and for another where it is a mapping that names all of its samples;
        without any the samples.
        """
        rows = [{"split": split, **row} for split, panel in self.panels for row in of_each(row_of, panel)]
        return pd.DataFrame(rows)

    @cached_property
    def classes(self) -> pd.DataFrame:
        """By split, epoch and class: class_name; counts and means as in `table`.

        samples, nonfinite_samples, unanswered_samples; accuracy, loss, finite_loss, confidence.
        """
        parts = [
            ({"split": split, "epoch": epoch}, class_columns(one))
            for split, panel in self.panels
            for epoch, one in zip(panel.epochs, panel.ones(), strict=True)
        ]
        return assemble(parts).set_index(["split", "epoch", "class"])

    @cached_property
    def reliability(self) -> pd.DataFrame:
        """By split, epoch and binning: the columns of `reliability.reliability_bins`."""
        parts = []
        for split, panel in self.panels:
            for epoch, one in zip(panel.epochs, panel.ones(), strict=True):
                part = one.take(one.answered[0])
                confidence, correct = part.confidence[0], part.correct[0]
                for binning in reliability.BINNINGS:
                    keys = {"split": split, "epoch": epoch, "binning": binning}
                    parts.append(
                        (
                            keys,
                            reliability.bin_columns(confidence, correct, binning=binning, codes=part.codes),
                        )
                    )
        return assemble(parts)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """The account of each checkpoint against its predecessor and against the best of its split.

        Indexed by split, against ("previous" or "best"), epoch, transition, direction; columns
        against_epoch and those of `decomposition.cells_of`.
        """
        return cells_table((split, panel, best_position(panel, "loss")) for split, panel in self.panels)

    @cached_property
    def best(self) -> pd.DataFrame:
        """The best checkpoint by loss, by refinement loss and by accuracy, on the main split.

        Indexed by criterion; columns epoch (the earliest of equals), loss, loss_se, refinement_loss,
        refinement_loss_se, accuracy, accuracy_se, finite_loss, nonfinite_samples, temperature, fit_status;
        calibrated_accuracy, with the temperature and biases of refinement_loss, each fold of the samples
        predicted by the fit to the others (NaN without logits, and for more than 282 classes). A checkpoint
        with more samples without a finite loss (for accuracy: without an answer) than another is
        never the best: its mean may be over the easier ones. Checkpoints that leave out equally many, but
        different, samples are compared on those that none of them leaves out.

        Where the run has a split "test" with the epoch of `recommendation`, a further row "test" measures
        that checkpoint there: its calibrated_accuracy, and calibrated_loss, NaN in the other rows, are those
        recalibrated as recommended. Those samples chose and fitted nothing.
        """
        found = {
            epoch: calibrated_accuracy(self.main.checkpoint_at(epoch), self.main.codes)
            for epoch in self._best["epoch"]
        }
        values = [found[epoch].value for epoch in self._best["epoch"]]
        best = self._best.assign(calibrated_accuracy=values)
        return final_number.with_test_row(best, self.table, self.panels, self.recommendation)

    @cached_property
    def _main_rows(self) -> pd.DataFrame:
        return self.table[self.table["split"] == self.split]

    @cached_property
    def _best(self) -> pd.DataFrame:
        return best_rows(self.main, self._main_rows)

    @cached_property
    def judgement(self) -> Judgement:
        """`rise` and `candidates`."""
        return judge(self.main, looks=self.looks)

    @property
    def rise(self) -> pd.DataFrame:
        """Whether loss, refinement loss and error rate of the main split rise, each with its evidence.

        Indexed by series, "loss" first. The last epoch is compared with the lowest earlier mean:
        verdict and status; unit (nats, fraction); amount, the last minus the lowest; lower_bound and
        upper_bound of the rise (95 % each, whichever epoch is the best); since, the last of the epochs that
        can't be told from the lowest one (NaN where no rise beyond sampling error is seen): every later
        epoch is worse; resolution, the smallest such rise that this validation set shows four times out of
        five; best_epoch and best_value, the lowest mean among the epochs BEFORE the last (not the best of
        the run where that is the last, see `best`); last_epoch, last_value; statistic and critical_value of
        the sampling part;
        the fields of `persistence.Persistence` (with the sampling error in its scale where the last epoch is
        beyond that error) and `series.Hump`; epochs, units (samples or groups), samples,
        samples_left_out (without a finite value at some epoch that was judged), epochs_left_out (most
        samples have no answer there); infinite_epochs, whose mean is infinite, and infinite_samples, which
        make it so at the last epoch. Then amount, bounds and last_value are inf; finite_best_value and
        finite_last_value are over the finite_samples whose loss is finite at both. share_of_rise is the
        share of the loss's rise (errors at their cost in nats), share_of_fall that of the fall from the first
        epoch to the lowest, upper_share_of_fall that of the upper bound; inf where the loss did not rise, or
        nothing fell.
        """
        return self.judgement.rise

    @property
    def candidates(self) -> pd.DataFrame:
        """The epochs that may be the best: those statistically tied with the lowest mean.

        Indexed by criterion (loss, refinement_loss, accuracy) and epoch; columns value, statistic,
        critical_value, in_set. The set holds the epoch with the best population mean with 95 % confidence.
        """
        return self.judgement.candidates

    @cached_property
    def recommendation(self) -> Recommendation:
        """The checkpoint of the main split to keep, and its recalibration: what every sentence recommends."""
        return recommend(self.main, self._main_rows, self._kept, wrong_labels=self.labels_look_wrong)

    @cached_property
    def _kept(self) -> Kept:
        return keep(self.main, self._main_rows, self._best.loc["accuracy", "epoch"])

    @cached_property
    def calibrated_accuracy(self) -> CalibratedAccuracy:
        """The accuracy of the recommended checkpoint once recalibrated, on samples that chose no bias."""
        return calibrated_accuracy(self.main.checkpoint_at(self.recommendation.epoch), self.main.codes)

    @cached_property
    def richer_map(self) -> Richer | None:
        """What a scale for each class, or a matrix, gains over `recommendation`; None where not tried."""
        return richer_than(self.recommendation, self.main)

    @property
    def should_stop(self) -> bool:
        """Whether the training should end: the rest of the loss, what the model knows, rises systematically.

        Or it has diverged for three checkpoints: a collapse may be taken back. A loss that rises by
        confidence is no reason: recalibration repairs it. In runs whose rest does not rise, one of many
        looks is wrong as often as `rise` says of "every epoch".

        Raises
        ------
        ConfshiftError
            Where the history was made for one look: asked after each epoch, its false alarms would add up.
        """
        return bool(self.stop_reason)

    @property
    def stop_reason(self) -> str:
        """Why the training should end, and which checkpoint to keep; "" where it should go on."""
        if self.looks == "once":
            raise ConfshiftError(
                'looks="once": should_stop is asked after every epoch; make the history by '
                'summarize(run, looks="every epoch"), or with the number of epochs that are planned'
            )
        return reason_to_stop(self.divergence, self.rise.loc["refinement_loss"], self._kept.epoch)

    @cached_property
    def balance_share(self) -> float:
        """The share of the loss's rise, in `rise`, that is class balance; 0 where that may be noise."""
        return balance_share(self.main, self.rise.loc["loss"])

    @cached_property
    def biases_repair_errors(self) -> bool:
        """Whether biases repair the mistakes added in `rise`; asked of the logits of two checkpoints."""
        return repairs_errors(self.main, self.rise.loc["error_rate"])

    @cached_property
    def divergence(self) -> Divergence:
        """Whether the main split's outputs end in saying nothing about its labels; see `divergence_of`."""
        return divergence_of(self.main, self.table[self.table["split"] == self.split])

    @cached_property
    def dynamics(self) -> pd.DataFrame:
        """Each sample over the epochs of the main split; see `dynamics.dynamics_of`."""
        return dynamics.dynamics_of(self.main)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Every pair of checkpoints of the main split: means, intervals, account; see `pairs.pairs_of`."""
        return pairs_of(self.main)

    def counts_groups(self, split: str) -> bool:
        """Tell whether the standard errors of a split count groups."""
        return dict(self.panels)[split].codes is not None

    @property
    def constant_error(self) -> float:
        """The standard error of the accuracy of always naming the most frequent class, on the main split."""
        targets = self.main.targets
        return mean_error((targets == np.bincount(targets).argmax()).astype(np.float64), self.main.codes)

    @cached_property
    def references(self) -> pd.DataFrame:
        """Loss and accuracy of guesses without a model, on the main split; see `baseline.references`."""
        return baseline.references(self.main.targets, len(self.main.class_names), self.main.weights)

    @cached_property
    def start_test(self) -> pd.DataFrame:
        """Whether the first checkpoint's head is too good to be untrained; reads its logits.

        Indexed by quantity (loss, accuracy); columns value, p_value, permutations, samples. See
        `baseline.column_permutation_test`.
        """
        return baseline.start_test(self.main.checkpoints[0])

    @cached_property
    def label_order(self) -> LabelOrder:
        """Whether the last checkpoint's outputs would fit better under other names; see `label_order`."""
        last = self.main.one(len(self.main.checkpoints) - 1)
        panel = last.take(last.answered[0])
        return label_order(panel.predicted[0], panel.targets, len(panel.class_names), panel.codes)

    @cached_property
    def label_noise(self) -> pd.DataFrame:
        """The share of labels that the logits of `pair` can't explain, by epoch; see `LabelNoise`."""
        return fits_at(self.pair, self.main.codes)

    @cached_property
    def labels_look_wrong(self) -> bool:
        """Whether labels look wrong to `pair`: every sentence and every advised temperature follows this."""
        try:
            return judge_labels(self.label_noise)[0] == "yes"
        except ConfshiftError:  # logits that can't be read
            return False

    @property
    def label_suspects(self) -> pd.DataFrame:
        """The samples of the main split, least plausible label first; see `dynamics.label_suspects`."""
        return self.suspects.table(None)

    @cached_property
    def suspects(self) -> Suspects:
        """What `label_suspects` is made of."""
        return suspects_of(self.main)

    @cached_property
    def rate_drops(self) -> pd.DataFrame:
        """Drops of the learning rate and what the means did there; see `learning_rate.rate_drops`."""
        table = self.table[(self.table["split"] == self.split) & np.isfinite(self.table["loss"])]
        if table.empty:
            return pd.DataFrame()
        return rate_drops(table, learning_rates([self.main.checkpoints[at] for at in table.index]))

    def only(self, epochs: set[float]) -> History:
        """Return the history of some epochs, as if the others had not been inspected; judged once."""
        parts = (
            (name, panel.at(np.flatnonzero(np.isin(panel.epochs, list(epochs))).tolist()))
            for name, panel in self.panels
        )
        panels = tuple(part for part in parts if part[1].checkpoints)
        return self._with_rows(History(panels, groups=self.groups), self.table["epoch"].isin(epochs))

    def _with_rows(self, part: History, rows: pd.Series[bool]) -> History:
        """Return the history of some of the checkpoints, with their rows of `table`: they are its own."""
        vars(part)["table"] = self.table[rows].reset_index(drop=True)
        return part

    @cached_property
    def until(self) -> Callable[[int], History]:
        """Return the history of the first so many of the main checkpoints, as judged then; made once each."""
        name, panel = self.panels[0]

        def first(number: int) -> History:
            part = replace(self, panels=((name, panel.at(range(number))),))
            return self._with_rows(part, self.table.index < number)

        return cache(first)

    def compare(self, before: Checkpoint, after: Checkpoint) -> Comparison:
        """Compare two of the main checkpoints, as this history counts their samples."""
        places = [self.main.checkpoints.index(side) for side in (before, after)]
        return comparison_of(before, after, self.main.at(places))

    def trained_by(self, objective: Objective) -> History:
        """Return the history whose losses are those of another objective."""
        return replace(self, panels=trained_by(self.panels, objective))

    @cached_property
    def same_rate(self) -> pd.DataFrame:
        """The last epoch against the best at its learning rate, in cycles; see `at_the_last_rate`."""
        return at_the_last_rate(self.main)

    @cached_property
    def pair(self) -> tuple[Checkpoint, Checkpoint]:
        """The two checkpoints that a report compares by default: those that the verdict on the run is about.

        The best by loss and the last; where the last is the best, the first and the last. Where the model
        gets worse while the loss does not rise, the best by what rises (see `rise.leading`) and the last.
        Where the run diverged, the one to keep and the last. Checkpoints at which most samples have no
        answer, or no sample has a finite loss that it also has at the other, are passed over, unless all are
        like that.
        """
        by_loss = pair_by_loss(self.main)
        if self.divergence:
            kept = self.main.checkpoint_at(self._kept.epoch)
            pair = kept, by_loss[1]
        else:
            row = self.rise.loc[leading(self.rise)]
            if row["status"] not in ("systematic", "setback"):
                return by_loss
            pair = self.main.checkpoint_at(row["best_epoch"]), self.main.checkpoint_at(row["last_epoch"])
        return pair if pair[0].epoch < pair[1].epoch and share_finite(*pair) else by_loss

    def pair_ending_at(self, after: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
        """Return the pair to compare if the run had ended at one of its checkpoints."""
        position = self.main.checkpoints.index(after)
        is_last = position == len(self.main.checkpoints) - 1
        pair = self.pair if is_last else self.until(position + 1).pair
        return pair if pair[1] is after else (self.main.checkpoints[start_of(self.main, position)], after)


def summarize(
    run: Iterable[Checkpoint],
    *,
    split: str = "val",
    looks: Looks = "once",
    groups: Groups | None = None,
    class_weight: ClassWeight = "stored",
    label_smoothing: Smoothing = "stored",
) -> History:
    """Turn an ordered collection of checkpoints into tables.

    Parameters
    ----------
    run : Run or iterable of Checkpoint
        Checkpoints of one split must hold the same samples.
    split : str
        The main split; where the run has no such split, its first one is. It is never "test" where there is
        another: that is for the final number, see `History.best`.
    looks : {"once", "every epoch"} or int
        How often you ask whether the run rises: once, at the end; after every epoch; after each epoch of a
        planned number. `rise` and `candidates` keep their error rate over all these looks.
    groups : sequence of length N or mapping from sample id, or "rows", optional
        Samples with the same label (patient, document) err together; then groups are counted. A sequence is
        in the order of ascending sample id. Default: the groups that the checkpoints were saved with, if any;
        "rows" counts each row for itself all the same.
    class_weight : "stored", "balanced", mapping, sequence or None
        What each class weighs in the loss: losses, the verdicts on them, their errors and what adds up to
        them are weighted, accuracy and calibration figures are not. "stored": `metadata["class_weights"]`
        where all checkpoints agree on it, else nothing. "balanced": N / (K n_k), as in scikit-learn. Or a
        weight for each class, by its name or number, or in their order. None: all weigh the same.
    label_smoothing : "stored" or float
        That of the loss that is trained; "stored": `metadata["label_smoothing"]` where all checkpoints agree.
        What it adds is a part of its own beside the cross-entropy.

    Returns
    -------
    History

    Raises
    ------
    ConfshiftError
        Where `run` holds no checkpoints (a path does not: `Run(path)` does), or samples differ within a
        split, two of its checkpoints have one epoch, or `looks` is none of those above; where `split` is
        "test" and there is another, or the split "test" holds the samples of another one; where `groups`,
        `class_weight` or `label_smoothing` can't be used.

    Examples
    --------
    >>> import numpy as np
    >>> from confshift.predictions import Predictions
    >>> logits, targets = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), np.array([0, 1, 1])
    >>> run = [
    ...     Checkpoint.from_predictions(Predictions(factor * logits, targets), epoch=epoch)
    ...     for epoch, factor in enumerate([0.1, 1.0, 3.0])
    ... ]
    >>> history = summarize(run)
    >>> history.table["loss"].round(3).tolist(), int(history.best.loc["loss", "epoch"])
    ([0.662, 0.584, 1.033], 1)
    """
    check_looks(looks)
    panels = panels_of(
        run, split=split, groups=groups, class_weight=class_weight, label_smoothing=label_smoothing
    )
    return History(panels, looks, groups)
