"""Which recalibration of a checkpoint gains anything: each method's loss on samples it was not fitted to."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from types import EllipsisType
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis import linear_maps
from confshift.analysis.causes.label_noise import LabelNoise, label_noise_of, looks_wrong
from confshift.analysis.grouping import Codes, Units
from confshift.analysis.recalibrator import Recalibrator
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.recalibration import FEW_WRONG, FEWEST_SAMPLES, SAMPLES_A_CLASS, biases_take_part
from confshift.temperature import curve_at

#: From the simplest to the richest; the last is for labels that look wrong.
METHODS = ("none", "temperature", "temperature_and_biases", "vector", "matrix", "label_noise_temperature")

#: Those that are fitted to the logits in five folds.
_RICHER: tuple[Literal["vector", "matrix"], ...] = ("vector", "matrix")
#: A method is recommended where its gain over each simpler one exceeds so many standard errors.
_BEYOND_ERROR = 2.0
_ALIKE = Units()
_WHY_NO_FIT = {
    "uniform": "no finite temperature beats equal probabilities",
    "separable": "every sample is right: the lower the temperature, the lower the loss, without end",
    "unscored": "no sample has a finite loss",
}


@dataclass(frozen=True, eq=False)
class Trial:
    """A method as fitted to the samples of a checkpoint with a finite loss, or why it was not."""

    recalibrator: Recalibrator  # with a temperature of NaN where nothing was fitted
    gain: float = math.nan  # by how much it lowers the loss of samples it was not fitted to, in nats
    gain_se: float = math.nan
    losses: NDArray[np.float64] | None = None  # of those samples, in nats; None where it is not compared
    rows: NDArray[np.intp] | EllipsisType = ...  # which of the samples with a finite loss those are
    hits: NDArray[np.bool_] | None = None  # which of `hit_rows` it predicts right; None: as many as before
    hit_rows: NDArray[np.intp] | EllipsisType = ...
    units: Units = _ALIKE  # what each sample with a finite loss counts for, and the groups that it is in
    folds: NDArray[np.float64] | None = None  # the losses of `hit_rows` by five folds, where it was fitted so
    reason: str = ""  # why it was not fitted

    @property
    def method(self) -> str:
        """One of METHODS."""
        return self.recalibrator.method

    @property
    def fitted(self) -> bool:
        """Whether there is a fit."""
        return not math.isnan(self.recalibrator.temperature)


@dataclass(frozen=True, eq=False)
class Choice:
    """The methods that were tried on one checkpoint, and the one that is recommended."""

    trials: tuple[Trial, ...]  # in the order of METHODS
    recommended: Trial
    labels: str = ""  # what is known about wrong labels
    caution: str = ""  # why a fit is not to be trusted, whatever it gains

    def lead(self, trial: Trial) -> tuple[str, float, float]:
        """Return the simpler method that a trial beats least clearly, its gain over that and the error."""
        leads = [
            (simpler.method, *gain_over(simpler, trial))
            for simpler in self.trials[: self.trials.index(trial)]
            if simpler.losses is not None and trial.losses is not None
        ]
        return min(leads, key=_in_errors, default=("", math.nan, math.nan))

    def leads(self, trial: Trial) -> bool:
        """Tell whether a trial beats each simpler method beyond its error."""
        _, gain, error = self.lead(trial)
        return gain > _BEYOND_ERROR * error

    def reason(self, trial: Trial) -> str:
        """Say why a method is recommended, or why not."""
        if not trial.fitted:
            return trial.reason
        if self.caution:
            return self.caution
        chosen = self.recommended.method
        if chosen == "label_noise_temperature":
            return self.labels if trial.method == chosen else "takes every label for right"
        if trial.method == "none":
            found = "no method gains" if chosen == "none" else "the recommended method gains"
            return f"{found} more than two standard errors"
        if trial is self.recommended:
            return "gains more than two standard errors over each simpler method"
        rival, gain, _ = self.lead(trial)
        if self.leads(trial):
            return "gains less than the recommended method"
        return f"gains {'less than two standard errors' if gain > 0 else 'nothing'} over {rival}"


def choose(
    checkpoint: Checkpoint,
    *,
    quick: bool = False,
    wrong_labels: bool | None = None,
    class_weights: NDArray[np.float64] | None = None,
    codes: Codes | None = None,
) -> Choice:
    """Try each recalibration on a checkpoint and choose one.

    Parameters
    ----------
    checkpoint : Checkpoint
    quick : bool
        Whether to leave out what takes longest: scales, a matrix, and the accuracy with biases.

    wrong_labels : bool, optional
        Whether labels look wrong, where the run says; else the checkpoint alone is asked.
    class_weights : ndarray, shape (K,), optional
        What the classes weigh in the gains. Every fit is to the plain loss.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: errors count them, and no group is in two folds.

    Returns
    -------
    Choice
        The richest method whose gain over each simpler one exceeds two standard errors of the paired
        difference, over samples that it was not fitted to; the plain logits where there is none, or where
        fewer than 10 samples are wrong: a fit that rests on so few is theirs. Where labels look wrong, the
        temperature of the label-noise fit: one that takes them for right would doubt a model that is right.
    """
    noise, labels = _label_noise(checkpoint, wrong_labels, codes)
    units = _units(checkpoint, class_weights, codes)
    trials = [
        *_from_columns(checkpoint, units),
        *(_untried(method, "was not tried") for method in METHODS[3:5]),
        _noisy(noise, labels, checkpoint, units),
    ]
    if not quick:
        trials[2:5] = _cross_fitted(checkpoint, trials[2])
    choice = _richest(checkpoint, *trials)
    if trials[-1].fitted and not choice.caution:
        return replace(choice, recommended=trials[-1], labels=labels)
    return choice


def by_gain(
    checkpoint: Checkpoint,
    class_weights: NDArray[np.float64] | None = None,
    codes: Codes | None = None,
) -> Choice:
    """Choose between none, temperature, and temperature and biases, taking every label for right."""
    return _richest(checkpoint, *_from_columns(checkpoint, _units(checkpoint, class_weights, codes)))


def _units(checkpoint: Checkpoint, class_weights: NDArray[np.float64] | None, codes: Codes | None) -> Units:
    """Return what each sample with a finite loss counts for, and the groups that it is in."""
    finite = checkpoint.finite
    weights = None if class_weights is None else class_weights[checkpoint.scores.target]
    return Units(codes, weights if weights is not None and weights[finite].any() else None).at(finite)


def _richest(checkpoint: Checkpoint, *trials: Trial) -> Choice:
    """Choose the richest method that beats each simpler one; none where few samples are wrong."""
    choice = Choice(trials, trials[0])
    wrong = int((checkpoint.finite & ~checkpoint.scores.correct).sum())
    if wrong < FEW_WRONG:
        return replace(choice, caution=f"{wrong} wrong samples are too few to fit a temperature to")
    for trial in trials[1:]:
        if choice.leads(trial):
            choice = replace(choice, recommended=trial)
    return choice


def table_of(
    choice: Choice, checkpoint: Checkpoint, class_weights: NDArray[np.float64] | None = None
) -> pd.DataFrame:
    """Return the methods that were tried as a table; see `Calibration.table`."""
    losses, correct = checkpoint.scores.loss, checkpoint.scores.correct
    finite = np.isfinite(losses)
    plain = choice.trials[0].units.mean_and_error(losses[finite])[0]
    share = finite.sum() / max(1, checkpoint.scores.answered.sum())
    rows = []
    for trial in choice.trials:
        rival, lead, lead_se = choice.lead(trial)
        more = 0.0 if trial.hits is None else trial.hits.mean() - correct[finite][trial.hit_rows].mean()
        rows.append(
            {
                "temperature": trial.recalibrator.temperature,
                "gain": trial.gain,
                "gain_se": trial.gain_se,
                "expected_loss": plain - trial.gain,
                "accuracy": checkpoint.accuracy + share * more if trial.fitted else math.nan,
                "fitted_loss": _fitted_loss(trial, checkpoint, class_weights),
                "rival": rival,
                "lead": lead,
                "lead_se": lead_se,
                "recommended": trial is choice.recommended,
                "reason": choice.reason(trial),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(METHODS, name="method"))


def _fitted_loss(trial: Trial, checkpoint: Checkpoint, class_weights: NDArray[np.float64] | None) -> float:
    """Return the mean loss of the samples that a method was fitted to; NaN where their logits are lost."""
    if trial.fitted:
        with contextlib.suppress(ConfshiftError):
            return trial.recalibrator.mean_loss(*checkpoint.scored_logits, class_weights)[0]
    return math.nan


def _from_columns(checkpoint: Checkpoint, units: Units) -> tuple[Trial, Trial, Trial]:
    """Return the plain logits, one temperature, and temperature and biases: known from what is stored."""
    losses, parts, status = checkpoint.scores.loss, checkpoint.measurement.left_out, checkpoint.fit_status
    finite, classes = np.isfinite(losses), len(checkpoint.class_names)
    losses, scaled, calibrated = losses[finite], parts.scaled[finite], parts.calibrated[finite]
    none = Trial(_map("none", 1.0, classes), 0.0, 0.0, losses, units=units)
    if status != "ok":
        temperature, biases = (_untried(method, _WHY_NO_FIT[status]) for method in METHODS[1:3])
        return none, temperature, biases
    scale = _map("temperature", checkpoint.temperature, classes)
    temperature = Trial(scale, *units.mean_and_error(losses - scaled), scaled, units=units)
    if not math.isfinite(checkpoint.joint_temperature):
        reason = (
            "no finite temperature beats the frequencies of the classes"
            if biases_take_part(len(finite), classes)
            else f"needs {SAMPLES_A_CLASS} samples a class, {FEWEST_SAMPLES} in all"
        )
        return none, temperature, _untried("temperature_and_biases", reason)
    joint = replace(
        _map("temperature_and_biases", checkpoint.joint_temperature, classes), biases=checkpoint.biases
    )
    gain = units.mean_and_error(losses - calibrated)
    return none, temperature, Trial(joint, *gain, calibrated, units=units)


def _cross_fitted(checkpoint: Checkpoint, biases: Trial) -> tuple[Trial, Trial, Trial]:
    """Return temperature and biases with what they predict; scales and a matrix where they can be fitted."""
    if not biases.fitted:
        return biases, *_without_richer("starts from temperature_and_biases")
    try:
        logits, targets = checkpoint.scored_logits
    except ConfshiftError as error:
        return biases, *_without_richer(_unread(error))
    folds = linear_maps.cross_fit(logits, targets, "biases", codes=biases.units.codes)
    biases = replace(biases, hits=folds.hits, hit_rows=folds.rows, folds=folds.losses)
    plain = checkpoint.scores.loss[checkpoint.finite]
    vector, matrix = (_richer(kind, logits, targets, plain, biases.units) for kind in _RICHER)
    return biases, vector, matrix


def _richer(
    kind: Literal["vector", "matrix"],
    logits: NDArray[Any],
    targets: NDArray[np.int64],
    plain: NDArray[np.float64],
    units: Units,
) -> Trial:
    """Return scales or a matrix, compared with the plain losses over five folds."""
    if reason := linear_maps.why_not(kind, *logits.shape):
        return _untried(kind, reason)
    found = linear_maps.cross_fit(logits, targets, kind, codes=units.codes)
    beta, scales, biases = found.whole
    recalibrator = replace(_map(kind, 1 / beta, len(biases)), biases=tuple(biases.tolist()))
    if kind == "vector":
        recalibrator = replace(recalibrator, scales=tuple(scales.tolist()))
    else:
        recalibrator = replace(recalibrator, matrix=tuple(map(tuple, scales.tolist())))
    gain = units.at(found.rows).mean_and_error(plain[found.rows] - found.losses)
    return Trial(recalibrator, *gain, found.losses, found.rows, found.hits, found.rows, units, found.losses)


def _without_richer(reason: str) -> tuple[Trial, Trial]:
    return _untried("vector", reason), _untried("matrix", reason)


def gain_over(simpler: Trial, trial: Trial) -> tuple[float, float]:
    """Return by how much a method lowers the loss of a simpler one, and its error; both are compared methods.

    Over the samples of the richer one, and by the same folds where both have them.
    """
    assert simpler.losses is not None
    assert trial.losses is not None
    has_folds = trial.folds is not None and simpler.folds is not None
    losses = simpler.folds if has_folds else simpler.losses[trial.rows]
    assert losses is not None
    return trial.units.at(trial.rows).mean_and_error(losses - trial.losses)


def _label_noise(
    checkpoint: Checkpoint, wrong: bool | None, codes: Codes | None
) -> tuple[LabelNoise | None, str]:
    """Return the label-noise fit where labels look wrong, and what is known about them."""
    if wrong is False:
        return None, "labels do not look wrong"
    try:
        noise = label_noise_of(checkpoint, codes)
    except ConfshiftError as error:
        return None, f"whether labels look wrong is not known: {_unread(error)}"
    if not (looks_wrong(noise) if wrong is None else math.isfinite(noise.temperature)):
        return None, "labels do not look wrong" if wrong is None else "wrong labels can't be fitted here"
    return noise, "some labels look wrong: it is for right ones, and on these labels the loss looks higher"


def _noisy(noise: LabelNoise | None, labels: str, checkpoint: Checkpoint, units: Units) -> Trial:
    method, classes = METHODS[-1], len(checkpoint.class_names)
    if noise is None:
        return _untried(method, labels)
    gain = noise.temperature_gain, noise.temperature_gain_se
    if units.weights is not None:
        at_1, at_best = (curve_at(*checkpoint.scored_logits, 1 / t).loss for t in (1.0, noise.temperature))
        gain = units.mean_and_error(at_1 - at_best)
    return Trial(_map(method, noise.temperature, classes), *gain)


def _unread(error: ConfshiftError) -> str:
    return f"the logits can't be used ({error})"


def _map(method: str, temperature: float, classes: int) -> Recalibrator:
    return Recalibrator(method, temperature, (0.0,) * classes, (1.0,) * classes)


def _untried(method: str, reason: str) -> Trial:
    return Trial(_map(method, math.nan, 0), reason=reason)


def _in_errors(lead: tuple[str, float, float]) -> float:
    _, gain, error = lead
    return gain / error if error else math.copysign(math.inf, gain)
