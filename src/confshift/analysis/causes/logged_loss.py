"""The loss that the user's own loop logged, against the mean over the samples, and why they differ."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis.causes.loss_ways import ELABORATE, recomputed_losses
from confshift.analysis.panel import Panel
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.input_checks import as_number

_TOLERANCE = 1e-5
#: A loss printed with this many decimals or more counts as not rounded.
_EXACT_DECIMALS = 7
#: Rounding to fewer decimals than this is rare, and fewer different numbers than this may be round by chance.
_LIKELY_DECIMALS, _CONFIRMING = 2, 3
#: The significant bits of a bfloat16 and of a float16.
_HALF_BITS = (8, 11)
#: A way is named only where the chance that some way fits an unrelated number is at most this.
_MOST_BY_CHANCE = 0.05
_VALIDATION = ("val", "valid", "validation", "eval")
_ACCURACIES = (
    "accuracy",
    "acc",
    "top1",
    "top_1",
    "acc1",
    "acc_1",
    "accuracy_top1",
    "top1_accuracy",
    "top1_acc",
)
#: The ways are recomputed at no more epochs than this, nor over more logits, but at three epochs in any case.
_MOST_EPOCHS, _MOST_LOGITS = 20, 50_000_000


def logged_loss_of(checkpoint: Checkpoint) -> Any:
    """Return what was logged as the loss, under any of its usual names; None where nothing was.

    The split's own name comes first ("probe_loss"). For the split val, "val_loss", "valid_loss",
    "validation_loss" and "eval_loss" follow, then "loss" and "test_loss", since beside those "loss" is often
    the training loss; for any other split "eval_loss", "loss" and the others. "val/loss" is read as
    "val_loss".
    """
    return _logged_value(checkpoint, ("loss",))


def unread_names(checkpoint: Checkpoint) -> list[str]:
    """Return the names in `logged` that are not read as a loss or an accuracy of this split."""
    readable = {*_names(checkpoint.split, ("loss",)), *_names(checkpoint.split, _ACCURACIES)}
    return [name for name in checkpoint.provenance.logged if _plain(name) not in readable]


def _logged_value(checkpoint: Checkpoint, nouns: tuple[str, ...]) -> Any:
    values = {_plain(name): value for name, value in checkpoint.provenance.logged.items()}
    names = _names(checkpoint.split, nouns)
    return next((values[name] for name in names if values.get(name) is not None), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _names(split: str, nouns: tuple[str, ...]) -> list[str]:
    """Return the names of a split's number, the clearest first."""
    plain_split = _plain(split)
    prefixes = (
        [plain_split, *_VALIDATION, "", "test"]
        if plain_split in _VALIDATION
        else [plain_split, "eval", "", *_VALIDATION, "test"]
    )
    if plain_split == "train":
        prefixes = [plain_split, ""]
    return [f"{prefix}_{noun}" if prefix else noun for prefix in prefixes for noun in nouns]


def logged_losses(panel: Panel) -> pd.DataFrame:
    """Compare the loss that was logged with the mean over the samples: see :func:`logged_loss_of`.

    Returns
    -------
    DataFrame
        Indexed by epoch, a row for each checkpoint with a finite logged loss and samples that can be
        scored: position (in the panel), logged, sample_mean (nats), relative_difference (logged over
        sample mean, minus 1), tolerance (1e-5 of the larger, half a unit of the last decimal shown, or the
        step of a float of 16 bits) and equal (within it).
    """
    rows = []
    for position, checkpoint in enumerate(panel.checkpoints):
        loss = as_number(logged_loss_of(checkpoint))
        if not math.isfinite(loss):
            continue
        one = panel.one(position)
        scored = one.take(one.finite[0])
        if len(scored.targets):
            mean = float(scored.mean(scored.loss[0]))
            if scored.smoothing is not None:
                mean += float(scored.smoothing.mean())
            rows.append((checkpoint.epoch, position, loss, mean))
    table = pd.DataFrame(rows, columns=["epoch", "position", "logged", "sample_mean"]).set_index("epoch")
    table["relative_difference"] = table["logged"] / table["sample_mean"] - 1
    larger = table[["logged", "sample_mean"]].abs().max(axis=1)  # a float32 sum is as exact as it is large
    table["tolerance"] = np.maximum(_TOLERANCE * larger, _rounding(table["logged"]))
    table["equal"] = (table["logged"] - table["sample_mean"]).abs() <= table["tolerance"]
    return table


def _rounding(values: pd.Series) -> Any:
    """Return how far each value may have been rounded: in decimals, or to a float of 16 bits.

    In decimals: half a unit of the last one that any of them shows. A single number may be round by chance
    (1.5 for 1.5004), so fewer decimals than two, or 16 bits, count only where three values differ.
    """
    numbers = values.to_numpy(np.float64)
    confirmed = values.nunique() >= _CONFIRMING
    spellings = [min(repr(float(number)), str(np.float32(number)), key=len) for number in numbers]
    decimals = max((-int(Decimal(spelling).as_tuple().exponent) for spelling in spellings), default=0)
    decimals = decimals if confirmed else max(decimals, _LIKELY_DECIMALS)
    for bits in _HALF_BITS if confirmed else ():
        steps = np.frexp(numbers)[0] * 2**bits
        coarser = steps / 16
        if (steps == steps.round()).all() and (coarser != coarser.round()).any():
            return np.abs(numbers) * 2.0**-bits
    return 0.5 * 10.0**-decimals if decimals < _EXACT_DECIMALS else 0.0


def logged_accuracies(panel: Panel) -> pd.DataFrame:
    """Compare the accuracy that was logged ("val_acc" and the like) with that of the samples' answers.

    Returns
    -------
    DataFrame
        Indexed by epoch: logged and saved (shares; what was logged is in percent where any is above 1) and
        equal (to the precision it was logged with).
    """
    rows = []
    for checkpoint in panel.checkpoints:
        accuracy = as_number(_logged_value(checkpoint, _ACCURACIES))
        if math.isfinite(accuracy) and checkpoint.unanswered_samples < len(checkpoint):
            rows.append((checkpoint.epoch, accuracy, checkpoint.accuracy))
    table = pd.DataFrame(rows, columns=["epoch", "logged", "saved"]).set_index("epoch")
    unit = 100.0 if (table["logged"] > 1).any() else 1.0
    tolerance = np.maximum(_TOLERANCE, _rounding(table["logged"]) / unit)
    table["logged"] /= unit
    table["equal"] = (table["logged"] - table["saved"]).abs() <= tolerance * (1 + _TOLERANCE)
    return table


def possible_causes(panel: Panel, table: pd.DataFrame) -> pd.DataFrame:
    """Recompute the loss in the ways in which training loops differ, and see which gives what was logged.

    At the epochs with a logged loss: all of them, or as many as are cheap, including the first, the last and
    the one with the largest difference.

    Parameters
    ----------
    panel : Panel
    table : DataFrame
        As returned by :func:`logged_losses`, not empty.

    Returns
    -------
    DataFrame
        A row for each way that can be recomputed (see `loss_ways`): cause, detail
        (the value tried), error (the largest relative difference from what was logged), epochs (at which it
        can be recomputed), agreeing (of these, within the tolerance), chance (how likely some way as
        simple would agree with an unrelated number) and fits (it agrees at all of them, chance is ruled out,
        and no simpler way fits), the best first. A fit proves nothing: other ways may give the same. Its
        attrs hold how many epochs were "tried", and by epoch why the logits of others were "unreadable".

    Raises
    ------
    ConfshiftError
        If no epoch's logits can be read.
    """
    probes, unreadable = _readable(panel, _probes(panel, table))
    results: dict[tuple[str, str], NDArray[np.float64]] = {}
    means = np.array([one.loss.mean() for one in panel.ones()])
    for row, position in enumerate(probes["position"]):
        for cause, detail, value in recomputed_losses(panel, int(position), means):
            results.setdefault((cause, detail), np.full(len(probes), math.nan))[row] = value
    values = np.array(list(results.values()))
    logged, tolerance = (probes[name].to_numpy() for name in ("logged", "tolerance"))
    counts = (~np.isnan(values)).sum(axis=1)
    # A way without a value at the first checkpoint only is one that needs the checkpoint before.
    fewest = counts.max() - int(probes["position"].iloc[0] == 0)
    complete = (counts > 0) & (counts >= fewest)
    names = [way for way, is_complete in zip(results, complete, strict=True) if is_complete]
    values, counts = values[complete], counts[complete]
    difference = np.abs(values - logged)
    causes = pd.DataFrame(names, columns=["cause", "detail"])
    causes["error"] = np.nanmax(difference / np.abs(logged), axis=1)
    causes["epochs"], causes["agreeing"] = counts, (difference <= tolerance).sum(axis=1)
    simple = ~causes["cause"].isin(ELABORATE).to_numpy()
    causes["chance"] = np.where(simple, _chance(values[simple], probes), _chance(values, probes))
    fits = (causes["agreeing"] == causes["epochs"]) & (causes["chance"] <= _MOST_BY_CHANCE)
    causes["fits"] = fits & simple if (fits & simple).any() else fits
    causes = causes.sort_values("error", ignore_index=True, kind="stable")
    causes.attrs.update(tried=len(probes), unreadable=unreadable)
    return causes


def _probes(panel: Panel, table: pd.DataFrame) -> pd.DataFrame:
    """Choose the epochs at which to try the ways, evenly."""
    work = len(panel.targets) * len(panel.class_names)
    most = max(3, min(_MOST_EPOCHS, _MOST_LOGITS // work))
    largest = int(table["relative_difference"].abs().to_numpy().argmax())
    places = np.linspace(0, len(table) - 1, min(len(table), most - 1)).round().astype(int)
    return table.iloc[sorted({*places.tolist(), largest})]


def _readable(panel: Panel, probes: pd.DataFrame) -> tuple[pd.DataFrame, dict[float, str]]:
    """Return the probes whose logits can be read, and by epoch why the others can't."""
    errors: dict[float, ConfshiftError] = {}
    for label, position in probes["position"].items():
        try:
            panel.checkpoints[int(position)].predictions  # noqa: B018
        except ConfshiftError as error:
            errors[float(label)] = error
    if len(errors) == len(probes):
        raise next(iter(errors.values()))
    return probes.drop(index=list(errors)), {label: str(error) for label, error in errors.items()}


def _chance(values: NDArray[np.float64], probes: pd.DataFrame) -> float:
    """Return how likely some way agrees with an unrelated number at every epoch where it has a value.

    The unrelated number is taken to lie anywhere within twice the logged loss's distance from the mean over
    the samples. Ways that the tolerance can't distinguish there count once. A logged loss that is the same
    multiple of the mean at each epoch counts as one epoch: the others add no evidence.
    """
    logged, mean, tolerance = (probes[name].to_numpy() for name in ("logged", "sample_mean", "tolerance"))
    reach = np.maximum(2 * np.abs(logged - mean), tolerance)
    chance = np.minimum(tolerance / reach, 1)
    ratio, precision = logged / mean, tolerance / np.abs(mean)
    finest = int(chance.argmin())
    constant = bool((np.abs(ratio - ratio[finest]) <= precision + precision[finest]).all())
    near = np.abs(values - mean) <= reach
    chances = np.where(near, chance, np.where(np.isnan(values), 1.0, 0.0))
    by_way = chances.min(axis=1) if constant else chances.prod(axis=1)
    cells = np.nan_to_num(values / (2 * tolerance), posinf=0.0, neginf=0.0).round()
    _, first = np.unique(cells, axis=0, return_index=True)
    return float(min(1.0, by_way[first].sum()))
