"""Left-out losses beside brute force: each sample left out and both fits made anew; a few minutes.

    python tests/benchmarks/left_out.py [--sizes 150x2 5000x100] [--seeds 1] [--definition [0.05]]

For each size and kind of logits: how many samples are wrong, the exact left-out means under one temperature
("one") and under a temperature with one bias for each class ("rest"), and how far from each the library is,
in the mean and in its farthest sample. From 5,000 samples on, the reference is ten-fold cross-validation, the
mean of three, and single samples are not compared. A star marks a mean farther off than 1e-3 nats (2e-3 from
cross-validation) or a sample farther off than .02.

At last, of accurate models, the samples of largest loss alone. With --definition, the procedure written
down literally stands in for the library: one step from the fit of all samples for each; with a number, a
refit for samples whose loss would rise by more nats than that. First, some refits are held against
scipy.optimize. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

sys.path.insert(0, str(Path(__file__).parents[1]))
from confshift import Checkpoint, Predictions
from exact_refits import Parts, Rows, by_definition, exactly, fits, folded, minimise, refitted
from logit_kinds import KINDS, accurate, draw

SIZES = ("150x2", "150x3", "300x3", "600x10", "2000x10", "5000x100")
FOLDED_FROM = 5000
ACCURATE, LARGEST = ((1000, 10), (4000, 20), (10_000, 100)), 30
REPEATS = 3
HEAD = (
    "    N    K kind                wrong     one    rest | one: mean      row  |rest: mean      row  | CPU s"
)


def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()


def library(logits, targets):
    columns = Checkpoint.from_predictions(Predictions(logits, targets)).columns
    loss, scale, rest = (columns[name].to_numpy() for name in ("loss", "scale_loss", "refinement_loss"))
    return Parts(loss, loss - scale, rest)


def beside_scipy(samples=150, classes=3, left_out=(0, 77)):
    """Print by how much scipy's minimum, found by differences, is lower than that of the refits: rounding."""
    logits, targets = draw("biased", samples, classes)
    rows = Rows(logits, targets)
    for theta in fits(rows):
        for row in left_out:
            rest, weights = np.arange(samples) != row, np.ones(samples)
            weights[row] = 0

            def objective(at, z=logits[rest], y=targets[rest]):
                scores = at[0] * z + at[1:] if len(at) > 1 else at[0] * z
                losses = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
                return losses.sum() + at[1:] @ at[1:] / 2

            ours = minimise(rows, theta, weights)
            precision = {"xatol": 1e-9, "fatol": 1e-12}
            theirs = minimize(objective, theta, method="Nelder-Mead", options=precision).x
            apart, above = np.abs(ours - theirs).max(), objective(ours) - objective(theirs)
            write(f"{len(theta)} parameters without row {row}: apart from scipy's by {apart:.1e}, ")
            write(f"objective above scipy's by {above:.1e}\n")


def repeatedly_folded(logits, targets):
    return Parts(*np.mean([folded(logits, targets, seed=seed) for seed in range(REPEATS)], axis=0))


def line(kind, samples, classes, seed, measured):
    logits, targets = draw(kind, samples, classes, seed)
    folds = samples >= FOLDED_FROM
    start = time.process_time()
    reference = repeatedly_folded(logits, targets) if folds else exactly(logits, targets)
    seconds = time.process_time() - start
    found = measured(logits, targets)
    write(f"{samples:5} {classes:4} {kind:18} {Rows(logits, targets).wrong.sum():6}")
    write(f"  {reference.one.mean():6.4f}  {reference.joint.mean():6.4f}")
    for ours, exact in ((found.one, reference.one), (found.joint, reference.joint)):
        mean, farthest = (ours - exact).mean(), np.abs(ours - exact).max()
        star = abs(mean) > (2e-3 if folds else 1e-3) or (not folds and farthest > 0.02)
        write(f" | {mean:+9.1e} {'' if folds else f'{farthest:.1e}':>8}{'*' if star else ' '}")
    write(f"| {seconds:5.1f}\n")


def beside_accurate(samples, classes, measured):
    """Print how far those samples are from their refits, the largest of them too in parts of the loss."""
    logits, targets = accurate(samples, classes)
    rows, found = Rows(logits, targets), measured(logits, targets).joint
    joint = fits(rows)[1]
    which = np.argsort(-rows.losses(joint)[0])[:LARGEST]
    exact = refitted(rows, joint, which, factor=2)
    apart = found[which] - exact
    write(f"{samples:6} {classes:4} accurate: {rows.wrong.sum()} wrong; {LARGEST} of largest loss: ")
    write(f"mean of all {apart.sum() / samples:+.1e}, row {np.abs(apart).max():.1e}, ")
    write(f"of its loss {np.abs(apart / exact).max():.1e}\n")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--definition", type=float, nargs="?", const=math.inf)
    arguments = parser.parse_args()
    above = arguments.definition
    measured = library if above is None else partial(by_definition, refit_above=above)
    beside_scipy()
    write(HEAD + "\n")
    for size in arguments.sizes:
        samples, classes = map(int, size.split("x"))
        for kind in KINDS:
            for seed in range(arguments.seeds):
                line(kind, samples, classes, seed, measured)
    for size in ACCURATE:
        beside_accurate(*size, measured)


if __name__ == "__main__":
    main()
