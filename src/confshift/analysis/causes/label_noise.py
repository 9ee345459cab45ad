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
from confshift.analysis.dynamics import dynamics_of
from confshift.analysis.grouping import Codes, codes_at, folds_of, group_terms, mean_error
from confshift.analysis.panel import Panel
from confshift.checkpoint import Checkpoint

_FOLDS = 5
#: Logits read by one fit; the floor needs some forty passes over them.
_READ = 4_000_000
_FEWEST = 2_000
#: Bounds of log beta and of logit eps: eps from 6e-6 (nothing) to 0.95.
_BOUNDS = ((-10.0, 10.0), (-12.0, 3.0))
_NO_FLOOR = 1e-5
_SURE = 0.99
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
    key = b"" if codes is None else codes.tobytes()
    if key not in fits:
        if codes is not None:
            codes = codes[np.isfinite(checkpoint.scores.loss)]
        fits[key] = label_noise_floor(*checkpoint.scored_logits, codes=codes)
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

    Returns
    -------
    LabelNoise
        Zeros with NaN errors where no temperature is best (all right, or no better than uniform), or where
        there are fewer than five samples: nothing can be fitted then.

    Notes
    -----
    The lapse rate of psychometric functions: F. A. Wichmann, N. J. Hill, "The psychometric function: I",
    Perception & Psychophysics 63 (2001), 1293-1313. The standard error is from the outer product of scores.
    """
    rng = np.random.default_rng(seed)
    limit = max(_FEWEST, _READ // logits.shape[1])
    if len(targets) > limit:
        rows = np.sort(rng.choice(len(targets), limit, replace=False))
        logits, targets = logits[rows], targets[rows]
        codes = codes_at(codes, rows)
    beta, status = temperature.optimum(temperature.fit(logits, targets))
    if status != "ok" or len(targets) < _FOLDS:
        return LabelNoise(0.0, math.nan, 0.0, math.nan, math.nan, 0.0, math.nan, len(targets))
    best, eps = _fit(logits, targets, beta, 0.02)
    fold = folds_of(rng, len(targets), _FOLDS, codes)
    plain, gains, scaled = np.empty((3, len(targets)))
    for held_out in range(_FOLDS):
        test = fold == held_out
        plain[test], gains[test], scaled[test] = _held_out(
            logits[~test], targets[~test], logits[test], targets[test], (best, eps)
        )
    error, wrong = _floor_se(logits, targets, best, eps, codes), 1 - 1 / logits.shape[1]
    floor = eps if eps > _NO_FLOOR else 0.0
    return LabelNoise(
        floor,
        error,
        floor * wrong,
        error * wrong,
        1 / best,
        *_mean_and_error(gains, codes),
        len(targets),
        float(plain.mean()),
        *_mean_and_error(temperature.curve_at(logits, targets, 1.0).loss - scaled, codes),
    )


def _mean_and_error(values: NDArray[np.float64], codes: Codes | None) -> tuple[float, float]:
    return float(values.mean()), mean_error(values, codes)


def _held_out(
    logits: NDArray[Any],
    targets: NDArray[np.int64],
    test_logits: NDArray[Any],
    test_targets: NDArray[np.int64],
    start: tuple[float, float],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return three numbers of each test sample, all fitted to the others.

    The loss at one temperature, by how much the floor lowers it, and the loss at the temperature of that fit,
    without its floor.
    """
    beta, status = temperature.optimum(temperature.fit(logits, targets))
    plain = temperature.curve_at(test_logits, test_targets, beta).loss
    if status != "ok":
        return plain, np.zeros(len(test_targets)), plain
    best, eps = _fit(logits, targets, *start)
    log_p, _, _ = _mixture(test_logits, test_targets, best, eps)
    scaled = temperature.curve_at(test_logits, test_targets, best).loss
    return plain, np.asarray(plain + log_p), scaled


def _mixture(
    logits: NDArray[Any], targets: NDArray[np.int64], beta: float, eps: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return log p_y of the mixture and its derivatives in beta and in eps."""
    curve = temperature.curve_at(logits, targets, beta)
    uniform = -math.log(logits.shape[1])
    log_p = np.logaddexp(math.log1p(-eps) - curve.loss, math.log(eps) + uniform)
    share = np.exp(-curve.loss - log_p)
    return log_p, -(1 - eps) * share * curve.slope, np.exp(uniform - log_p) - share


def _fit(logits: NDArray[Any], targets: NDArray[np.int64], beta: float, eps: float) -> tuple[float, float]:
    """Return the beta and eps with the highest likelihood."""
    from scipy.optimize import minimize

    def objective(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        at, share = math.exp(parameters[0]), 1 / (1 + math.exp(-parameters[1]))
        log_p, by_beta, by_share = _mixture(logits, targets, at, share)
        gradient = [at * by_beta.mean(), share * (1 - share) * by_share.mean()]
        return -float(log_p.mean()), -np.array(gradient)

    start = np.clip([math.log(beta), math.log(eps / (1 - eps))], *np.transpose(_BOUNDS))
    optimum = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=_BOUNDS)
    return math.exp(optimum.x[0]), 1 / (1 + math.exp(-optimum.x[1]))


def _floor_se(
    logits: NDArray[Any], targets: NDArray[np.int64], beta: float, eps: float, codes: Codes | None
) -> float:
    """Return the error of eps, by the outer product of scores; with groups by a sandwich of totals."""
    _, by_beta, by_eps = _mixture(logits, targets, beta, eps)
    scores = np.stack([beta * by_beta, by_eps])
    information = scores @ scores.T
    if not np.linalg.det(information) > 0:
        return math.nan
    inverse = np.linalg.inv(information)
    if codes is None:
        return math.sqrt(inverse[1, 1])
    terms = np.stack([group_terms(of_parameter, codes) for of_parameter in scores])
    totals = terms * scores.shape[1] / terms.shape[1]
    return math.sqrt((inverse @ (totals @ totals.T) @ inverse)[1, 1])


def label_suspects(panel: Panel, *, limit: int | None = 100) -> pd.DataFrame:
    """Rank the samples by how little probability their label ever had.

    Parameters
    ----------
    panel : Panel
        The checkpoints of a run.
    limit : int or None
        The rows to return.

    Returns
    -------
    DataFrame
        Indexed by sample_id, the most suspect first: target, target_name; predicted, predicted_name and
        confidence at the last checkpoint; target_probability (mean over the checkpoints);
        correctness (share of checkpoints at which it is right); same_wrong_checkpoints (how many of the
        last ones in a row give the same wrong label); sure_checkpoints (how many of those, counted from
        the end, at a confidence above 0.99). The true label may of course be right and the sample hard.

    Notes
    -----
    S. Swayamdipta et al., "Dataset Cartography", EMNLP 2020, section 5; defined on training samples, used
    here on the inspected split.
    """
    dynamics = dynamics_of(panel)
    wrong = (panel.predicted == panel.predicted[-1]) & ~panel.correct & panel.answered
    names = panel.class_labels.to_numpy()
    last = panel.predicted[-1]
    table = pd.DataFrame(
        {
            "target": panel.targets,
            "target_name": names[panel.targets],
            "predicted": last,
            "predicted_name": np.where(last < 0, "", names[last]),
            "confidence": panel.confidence[-1],
            "target_probability": dynamics["target_probability"],
            "correctness": dynamics["correctness"],
            "same_wrong_checkpoints": _run_at_end(wrong),
            "sure_checkpoints": _run_at_end(wrong & (panel.confidence > _SURE)),
        },
        index=dynamics.index,
    )
    ranking = table.sort_values("target_probability", kind="stable")
    return ranking if limit is None else ranking.head(limit)


def _run_at_end(holds: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each column how many rows in a row hold at the end."""
    breaks = ~holds[::-1]
    return np.where(breaks.any(axis=0), breaks.argmax(axis=0), len(holds))
