"""Wrong labels: how large a share of them the logits can't explain, and which samples are suspect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift import temperature
from confshift.analysis.causes.mixture import fit_mixture, fits_without, floor_error, log_mixed, start_of
from confshift.analysis.grouping import Codes, codes_at, folds_of, key_of, mean_error
from confshift.analysis.loss_curves import LossCurves, curve_of
from confshift.checkpoint import Checkpoint
from confshift.draws import own_generator
from confshift.temperature import Curve

_FOLDS = 5
#: Logits read by one fit, and samples at least.
_READ, _FEWEST = 4_000_000, 2_000
_NO_FLOOR = 1e-5
#: A gain or a floor above this many standard errors is significant.
BEYOND_ERROR = 2.0
#: In standard errors, where one checkpoint alone is asked.
_SURE_ALONE = 3.0
#: A gain of this share of the loss is worth a word; the shares of two checkpoints agree within this factor.
WORTHWHILE, _AGREEMENT = 0.01, 1.5

Answer = Literal["yes", "no", "cannot tell"]
#: Why a fit that gains something is not enough.
Doubt = Literal["", "alone", "one of two", "small", "disagree"]


class LabelNoise(NamedTuple):
    """A floor under the probability of every label, fitted beside the temperature."""

    floor: float  # eps, the share of labels that look drawn at random
    floor_se: float
    wrong_labels: float  # eps (1 - 1/K): a label drawn at random is right once in K
    wrong_labels_se: float
    temperature: float  # of the rest
    gain: float  # by how much the floor lowers the refinement loss of held-out samples, in nats
    gain_se: float
    samples: int
    loss: float = math.nan  # of held-out samples without the floor: what `gain` is a part of
    temperature_gain: float = (
        math.nan
    )  # by how much `temperature` lowers the loss of held-out samples, in nats
    temperature_gain_se: float = math.nan


def looks_wrong(noise: LabelNoise | pd.Series) -> bool:
    """Tell whether labels look wrong to one checkpoint, which has to be surer than two that agree."""
    gains = noise.gain > _SURE_ALONE * noise.gain_se and noise.gain >= WORTHWHILE * noise.loss
    return bool(gains and noise.floor > _SURE_ALONE * noise.floor_se)


#: What was fitted to checkpoints that are still in use: a report asks several times, and a fit takes long.
_fits: WeakKeyDictionary[Checkpoint, dict[bytes, LabelNoise]] = WeakKeyDictionary()


def label_noise_of(checkpoint: Checkpoint, codes: Codes | None = None) -> LabelNoise:
    """Return :func:`label_noise_floor` of a checkpoint's samples with a finite loss; reads its logits.

    `codes`, (N,), are the groups of all its samples.
    """
    fits = _fits.setdefault(checkpoint, {})
    key = key_of(codes)
    if key not in fits:
        finite, curve, losses = checkpoint.finite, checkpoint.measurement.curve, checkpoint.scores.loss
        if not finite.all():
            curve, losses, codes = curve_of(curve, finite), losses[finite], codes_at(codes, finite)
        logits, targets = checkpoint.scored_logits
        fits[key] = label_noise_floor(logits, targets, codes=codes, curve=curve, losses=losses)
    return fits[key]


def fits_at(checkpoints: Sequence[Checkpoint], codes: Codes | None = None) -> pd.DataFrame:
    """Return the fits of some checkpoints, indexed by epoch, with the columns of LabelNoise."""
    fits = [label_noise_of(checkpoint, codes) for checkpoint in checkpoints]
    return pd.DataFrame(fits, index=pd.Index([one.epoch for one in checkpoints], name="epoch"))


def judge_labels(table: pd.DataFrame) -> tuple[Answer, Doubt]:
    """Tell whether labels look wrong to the checkpoints of a table of fits, and why that can't be told.

    Whatever a weak model can't fit looks like wrong labels: the share then depends on the checkpoint, and
    the gain is small. One checkpoint alone has to be surer.
    """
    gains = table["gain"] > BEYOND_ERROR * table["gain_se"]
    if not gains.any():
        suspected = (table["floor"] > BEYOND_ERROR * table["floor_se"]).any()
        return ("cannot tell" if suspected else "no"), ""
    if table.index.nunique() < 2:
        only = table.iloc[0]
        return ("yes", "") if looks_wrong(only) else ("cannot tell", "alone")
    if not gains.all():
        return "cannot tell", "one of two"
    if (table["gain"] < WORTHWHILE * table["loss"]).any():
        return "cannot tell", "small"
    if table["wrong_labels"].max() > _AGREEMENT * table["wrong_labels"].min():
        return "cannot tell", "disagree"
    return "yes", ""


def label_noise_floor(
    logits: NDArray[np.floating[Any]],
    targets: NDArray[np.int64],
    *,
    seed: int = 0,
    codes: Codes | None = None,
    curve: Curve | None = None,
    losses: NDArray[np.float64] | None = None,
) -> LabelNoise:
    """Fit p = (1 - eps) softmax(beta z) + eps/K, and test it against the temperature alone.

    A sample that is wrong at great confidence costs ever more as the logits grow, unless a share of the
    labels is allowed to be random. That share estimates the label noise of THESE samples, if wrong labels
    fall on all classes alike. It also counts other samples that the logits can't explain (ambiguous, of an
    unknown kind).

    Parameters
    ----------
    logits : ndarray, shape (N, K)
        Finite losses. Beyond four million logits a seeded subset of the samples is read.
    targets : ndarray of int64, shape (N,)
    seed : int
        Of the subset and of the five folds in which `gain` is cross-validated.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: the standard errors count them, and none is in two folds.
    curve : Curve, optional
        The fit of one temperature to these samples, and their losses in nats as they are, (N,), where they
        are known: each saves a pass over the logits.
    losses : ndarray, shape (N,), optional
        See `curve`.

    Returns
    -------
    LabelNoise
        Zeros with NaN errors where no temperature is best (all right, or no better than uniform), or where
        there are fewer than five samples: nothing can be fitted then.

    Notes
    -----
    The lapse rate of psychometric functions: F. A. Wichmann, N. J. Hill, "The psychometric function: I",
    Perception & Psychophysics 63 (2001), 1293-1313. The standard error is from the outer product of scores.

    The likelihood knows the logits of a sample by its loss as a function of beta only, which `LossCurves`
    interpolates: all fits together take some five passes over the logits. That moves floor, temperature and
    gain by less than a hundredth of their standard errors.

    Beyond 200,000 samples the fit begins at that of a part of them, ends with a step of a fifth of a standard
    error or less, of which only the square is then missing, and one step leads from it to the fit without
    each fold: all together take two to four passes. That moves floor, temperature and gain by less than a
    tenth of their standard errors. Where next to nothing is wrong but the labels, any high 1/T is as likely:
    `temperature_gain` then follows the one that was found, by more than its own error, which takes that for
    given.
    """
    rng, classes = own_generator(seed), logits.shape[1]
    limit = max(_FEWEST, _READ // classes)
    if len(targets) > limit:
        rows = np.sort(rng.choice(len(targets), limit, replace=False))
        logits, targets, codes = logits[rows], targets[rows], codes_at(codes, rows)
        curve = None if curve is None else curve_of(curve, rows)
        losses = None if losses is None else losses[rows]
    if curve is None or temperature.optimum(curve)[1] != "ok":
        curve = temperature.fit(logits, targets)
    if temperature.optimum(curve)[1] != "ok" or len(targets) < _FOLDS:
        return LabelNoise(0.0, math.nan, 0.0, math.nan, math.nan, 0.0, math.nan, len(targets))
    curves, everyone = LossCurves(logits, targets, curve), np.ones(len(targets))
    beta, status = curves.best(curve.beta, everyone)
    if status != "ok":
        return LabelNoise(0.0, math.nan, 0.0, math.nan, math.nan, 0.0, math.nan, len(targets))
    best, eps = fit_mixture(curves, everyone, start_of(own_generator(seed), curves, beta))
    fold = folds_of(rng, len(targets), _FOLDS, codes)
    plain, gains, scaled = _held_out(curves, fold, beta, (best, eps))
    error, wrong = floor_error(curves, best, eps, codes), 1 - 1 / classes
    floor = eps if eps > _NO_FLOOR else 0.0
    if losses is None:
        losses = temperature.curve_at(logits, targets, 1.0).loss
    return LabelNoise(
        floor,
        error,
        floor * wrong,
        error * wrong,
        1 / best,
        *_mean_and_error(gains, codes),
        len(targets),
        float(plain.mean()),
        *_mean_and_error(losses - scaled, codes),
    )


def _mean_and_error(values: NDArray[np.float64], codes: Codes | None) -> tuple[float, float]:
    return float(values.mean()), mean_error(values, codes)


def _held_out(
    curves: LossCurves, fold: NDArray[np.int8], beta: float, start: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return three numbers of each sample, all fitted to the other folds; searches begin at the whole's fits.

    The loss at one temperature, by how much the floor lowers it, and the loss at the temperature of that fit,
    without its floor.
    """
    plain, gains, scaled = np.empty((3, len(fold)))
    fits = dict[int, tuple[float, float, float]]()
    alone = curves.best_without(fold, _FOLDS, beta)
    fitted = [left_out for left_out, (_, status) in enumerate(alone) if status == "ok"]
    mixtures = fits_without(curves, fold, fitted, start)
    for left_out, (own, status) in enumerate(alone):
        if status == "ok":
            fits[left_out] = own, *mixtures[left_out]
            continue
        test = np.flatnonzero(fold == left_out)
        far = temperature.curve_at(curves.logits[test], curves.targets[test], own)
        plain[test], gains[test], scaled[test] = far.loss, 0.0, far.loss
    # One kind of fit after the other, fold by fold: few passes are held, and each fit may need its own.
    for left_out, (own, _, _) in fits.items():
        for rows in curves.blocks():
            test = rows.start + np.flatnonzero(fold[rows] == left_out)
            plain[test] = curves.at(own, test)[0]
    for left_out, (_, best, eps) in fits.items():
        for rows in curves.blocks():
            test = rows.start + np.flatnonzero(fold[rows] == left_out)
            scaled[test] = curves.at(best, test)[0]
            gains[test] = plain[test] + log_mixed(scaled[test], eps, curves.classes)
    return plain, gains, scaled
