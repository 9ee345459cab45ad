"""Do errors and tests that count groups hold where the samples of a group err together?

    python tests/benchmarks/groups.py [--runs 400] [--groups 60]

Two models answer yes or no about samples in groups of 1 to 19. Logits and, by a Gaussian copula, answers are
alike within a group; the first model is calibrated, the second is 1.6 times as sure, with noise that a group
shares. The script writes how many 95 % intervals hold the true value and how many tests reject a truth at
5 %, by groups and by rows, and standard errors over those of a bootstrap over groups, from one data set.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from confshift import Predictions, compare, summarize
from confshift.analysis.calibration import calibration_errors
from confshift.analysis.comparison import Comparison
from confshift.checkpoint import Checkpoint

#: How alike the samples of a group are: correlations of their logits, their answers, and the second's noise.
_ALIKE = 0.5
_QUANTITIES = ("loss", "refinement_loss", "error_rate", "mistake_cost", "confidence_gap", "temperature")


def write(*parts: object) -> None:
    sys.stdout.write(" ".join(map(str, parts)) + "\n")


def draw(
    random: np.random.Generator, groups: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the logits of both models for yes, (N,) each, whether it is yes, and the groups."""
    codes = np.repeat(np.arange(groups), random.integers(1, 20, groups))
    alike, other, noise = (
        np.sqrt(_ALIKE) * random.normal(size=groups)[codes]
        + np.sqrt(1 - _ALIKE) * random.normal(size=len(codes))
        for _ in range(3)
    )
    logit = 1.5 * alike
    yes = ndtr(other) < 1 / (1 + np.exp(-logit))
    return logit, 1.6 * logit + 0.7 * noise, yes, codes


def compared(data: tuple[NDArray[Any], ...], groups: Any = None) -> Comparison:
    """Compare the two models on some data."""
    first, second, yes, codes = data
    sides = [
        Checkpoint.from_predictions(
            Predictions(np.c_[0 * logit, logit], yes.astype(int), groups=codes), epoch=epoch
        )
        for epoch, logit in enumerate((first, second))
    ]
    return compare(*sides, groups=groups)


def coverage(runs: int, groups: int) -> None:
    """Print how often intervals and tests are right."""
    truth = compared(draw(np.random.default_rng(99), 40_000)).change["change"]
    for name, counted in (("by groups", None), ("by rows", "rows")):
        random, held, rejected, nulls = np.random.default_rng(0), [], [], []
        for _ in range(runs):
            data = draw(random, groups)
            found = compared(data, counted)
            change = found.change
            held.append((change["change_low"] <= truth) & (truth <= change["change_high"]))
            shares = 1 / (1 + np.exp(-data[0]))
            confidence, correct = np.maximum(shares, 1 - shares), (shares > 0.5) == data[2]
            codes = None if counted else data[3]
            errors = calibration_errors(confidence, correct.astype(float), codes)
            bins = summarize([found.before], groups=counted).reliability.query("binning == 'equal_mass'")
            inside = (bins["accuracy_low"] <= bins["confidence"]) & (
                bins["confidence"] <= bins["accuracy_high"]
            )
            backwards = compare(found.after, found.before, groups=counted)
            rejected.append((errors.ecce_p < 0.05, backwards.class_bias.p_value < 0.05, 1 - inside.mean()))
            nulls.append((errors.ece, errors.ece_null))
        write(f"{name}, {runs} runs of {groups} groups")
        write(
            "  95 % intervals hold the truth:", np.mean(held, axis=0)[truth.index.isin(_QUANTITIES)].round(3)
        )
        write("  rejected at 5 %: ecce, class bias; bins that miss:", np.mean(rejected, axis=0).round(3))
        write("  ece and ece_null, mean:", np.mean(nulls, axis=0).round(4))


def errors(groups: int, draws: int) -> None:
    """Print standard errors over those of a bootstrap over groups."""
    random = np.random.default_rng(1)
    data = draw(random, groups)
    found = compared(data).change
    members = [np.flatnonzero(data[3] == group) for group in range(groups)]
    changes = []
    for _ in range(draws):
        chosen = random.integers(0, groups, groups)
        rows = np.concatenate([members[group] for group in chosen])
        codes = np.repeat(np.arange(groups), [len(members[group]) for group in chosen])
        changes.append(compared((data[0][rows], data[1][rows], data[2][rows], codes)).change["change"])
    write((found["change_se"] / np.std(changes, axis=0, ddof=1)).round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--groups", type=int, default=60)
    options = parser.parse_args()
    coverage(options.runs, options.groups)
    write("standard errors over those of a bootstrap over 200 groups")
    errors(200, options.runs)


if __name__ == "__main__":
    main()
