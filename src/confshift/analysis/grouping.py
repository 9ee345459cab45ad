"""Samples that err together: their groups, and how much fewer samples they are worth."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from confshift.errors import ConfshiftError

#: A label for each sample; "rows" for none.
Groups = Sequence[Any] | NDArray[Any] | Mapping[Any, Any] | str
ROWS = "rows"
#: The group of each sample, as a number.
Codes = NDArray[np.intp]


def group_codes(groups: Groups, sample_ids: NDArray[Any]) -> Codes | None:
    """Return a code for each sample, equal where their group is, without gaps; None where rows are to count.

    Parameters
    ----------
    groups : sequence of length N or mapping from sample id, or "rows"
        A label for each sample: patient, document, series of frames. A sequence is in the order of
        `sample_ids`.
    sample_ids : ndarray, shape (N,)

    Raises
    ------
    ConfshiftError
        Where a sample has no label.
    """
    if isinstance(groups, str):
        if groups != ROWS:
            raise ConfshiftError(
                f"groups={groups!r}: pass a label for each sample, or {ROWS!r} to count rows"
            )
        return None
    return np.unique(group_labels(groups, sample_ids), return_inverse=True)[1]


def group_labels(groups: Groups, sample_ids: NDArray[Any]) -> NDArray[Any]:
    """Return the label of each sample's group; arguments and errors as of `group_codes`, but for "rows"."""
    if isinstance(groups, (Mapping, pd.Series)):
        missing = [sample_id for sample_id in sample_ids.tolist() if sample_id not in groups]
        if missing:
            raise ConfshiftError(
                f"groups has no entry for {len(missing)} of {len(sample_ids)} sample ids, such as "
                f"{missing[0]!r}; give every sample a group"
            )
        groups = [groups[sample_id] for sample_id in sample_ids.tolist()]
    labels = np.asarray(groups)
    if labels.shape != sample_ids.shape:
        raise ConfshiftError(
            f"groups has shape {labels.shape}, the run has {len(sample_ids)} samples; give one label for "
            "each, in the order of checkpoint.columns, or a mapping from sample id"
        )
    return labels


def codes_at(codes: Codes | None, rows: Any) -> Codes | None:
    """Return the codes of some of the samples; None where there are none."""
    return None if codes is None else codes[rows]


def key_of(codes: Codes | None) -> bytes:
    """Return a short key under which what depends on codes is kept; that of none is empty."""
    return b"" if codes is None else hashlib.sha256(np.ascontiguousarray(codes).data).digest()


def where_named(groups: Groups | None, sample_ids: NDArray[Any]) -> Groups | None:
    """Return the groups of another split's samples: a mapping that names them all; None: those stored."""
    if isinstance(groups, (Mapping, pd.Series)):
        return groups if all(one in groups for one in sample_ids.tolist()) else None
    return groups if isinstance(groups, str) else None


def second_half(targets: NDArray[np.int64], codes: Codes | None = None) -> NDArray[np.bool_]:
    """Return which samples are in the second of two halves, alike in their classes.

    Parameters
    ----------
    targets : ndarray, shape (N,)
    codes : ndarray of int, shape (N,), optional
        Of groups that err together: no group is in both halves.
    """
    units = np.arange(len(targets)) if codes is None else codes
    first_class = np.full(int(units.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first_class, units, targets)
    is_second = np.zeros(len(first_class), bool)
    is_second[np.argsort(first_class, kind="stable")[1::2]] = True
    return is_second[units]


def folds_of(
    random: np.random.Generator, samples: int, folds: int, codes: Codes | None = None
) -> NDArray[np.int8]:
    """Return the number of each sample's fold, at random; a group is in one, where there are two groups.

    A sample beside a copy of itself is not left out.
    """
    units, members = samples, None
    if codes is not None:
        labels, members = np.unique(codes, return_inverse=True)
        units, members = (len(labels), members) if len(labels) > 1 else (samples, None)
    fold = (np.arange(units) % folds).astype(
        np.int8
    )  # as a permutation of the units, in an eighth of the memory
    random.shuffle(fold)
    return fold if members is None else fold[members]


def group_terms(differences: NDArray[np.float64], codes: Codes) -> NDArray[np.float64]:
    """Return a number for each group: their mean is that of the samples, their spread that of the groups.

    Parameters
    ----------
    differences : ndarray, shape (N,)
        One for each sample.
    codes : ndarray of int, shape (N,)
        Of groups; also with gaps.

    Returns
    -------
    ndarray, shape (G,)
    """
    if not len(differences):
        return differences
    mean = differences.mean()
    members = np.bincount(codes)
    totals = np.bincount(codes, differences - mean)[members > 0]
    return np.asarray(mean + totals * len(totals) / len(differences))


def unit_terms(
    shares: NDArray[np.float64], codes: Codes | None = None, weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return a number for each sample, or group: their mean is that of the shares, their spread its error's.

    Parameters
    ----------
    shares : ndarray, shape (N,)
        What each sample adds to N times a mean.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together.
    weights : ndarray, shape (N,), optional
        What each sample counts for, 1 on average. A share is then that of a weighted mean, and more or fewer
        samples of a weight change what it is divided by. Samples without weight or share are no evidence.
    """
    if weights is not None and len(shares):
        counts, mean = (weights > 0) | (shares != 0), shares.mean()
        shares = mean + counts.mean() * (shares[counts] - weights[counts] * mean)
        codes = None if codes is None else codes[counts]
    return shares if codes is None else group_terms(shares, codes)


def mean_error(values: NDArray[np.float64], codes: Codes | None = None) -> float:
    """Return the standard error of a mean, over groups where given; NaN for fewer than two of either.

    Parameters
    ----------
    values : ndarray, shape (N,)
        One for each sample.
    codes : ndarray of int, shape (N,), optional
        Of groups that err together.
    """
    terms = values if codes is None else group_terms(values, codes)
    return float(terms.std(ddof=1) / math.sqrt(len(terms))) if len(terms) > 1 else math.nan


@dataclass(frozen=True, eq=False)
class Units:
    """The groups that samples are in, and what each counts for in a mean; None where all count alike."""

    codes: Codes | None = None
    weights: NDArray[np.float64] | None = None

    def at(self, rows: Any) -> Units:
        """Return those of some of the samples."""
        return Units(codes_at(self.codes, rows), None if self.weights is None else self.weights[rows])

    def mean_and_error(self, values: NDArray[np.float64]) -> tuple[float, float]:
        """Return a mean and its standard error, infinite for fewer than two values, or groups of them."""
        if not len(values):
            return math.nan, math.inf
        weights = None if self.weights is None else self.weights / self.weights.mean()
        terms = unit_terms(values if weights is None else weights * values, self.codes, weights)
        error = mean_error(terms)
        return float(terms.mean()), math.inf if math.isnan(error) else error


def counted_share(differences: NDArray[np.float64], codes: Codes) -> float:
    """Return what one sample counts for, where the samples of a group err together: 1 or less.

    Counts times this are those of so many independent samples that a share among them would be as uncertain.

    Parameters
    ----------
    differences, codes
        As in `group_terms`.

    Returns
    -------
    float
        NaN where there is one group only. Where all differences are equal nothing shows how samples err
        together, and a group counts as one sample.

    Notes
    -----
    E. L. Korn, B. I. Graubard, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data", Survey Methodology 24 (1998), 193-201: divided by the design effect,
    the variance of the mean over groups by that over samples (never below 1), and by the squared ratio of
    Student's quantiles for so many groups and samples.
    """
    terms, samples = group_terms(differences, codes), len(differences)
    if len(terms) < 2:
        return math.nan
    return float(share_of(terms.var(ddof=1), differences.var(ddof=1), len(terms), samples))


def share_of(
    between: ArrayLike, within: ArrayLike, groups: ArrayLike, samples: ArrayLike
) -> NDArray[np.float64]:
    """Return `counted_share` from variances of `group_terms` and of the differences; arrays are broadcast."""
    from scipy.special import stdtrit

    between, within, groups, samples = (
        np.asarray(values, np.float64) for values in (between, within, groups, samples)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = np.where(within > 0, between / groups / (within / samples), samples / groups)
        quantiles = stdtrit(samples - 1, 0.975) / stdtrit(groups - 1, 0.975)
        return np.where(groups > 1, quantiles**2 / np.maximum(effect, 1.0), np.nan)
