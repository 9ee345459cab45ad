"""What the three parts of a loss cost beside one temperature, as ratios of CPU time.

    OMP_NUM_THREADS=1 python tests/benchmarks/measurement.py

Columns: the temperature's fit in ms, how many times as long the joint fit with all left-out losses takes, and
how many ms more. The limits: 3 times from 10,000 samples on, 6 times with 1,000 classes; 5 ms more below.
Lines "accurate" have 99 % right, and many samples with fits of their own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))
from confshift import recalibration, temperature
from logit_kinds import accurate

SIZES = [
    *((150, 2), (150, 3), (300, 3), (1000, 10), (5000, 10), (5000, 100)),
    *((10_000, 10), (10_000, 100), (50_000, 100), (50_000, 1000)),
]
ACCURATE = [(1000, 10), (2000, 20), (10_000, 100), (50_000, 100), (50_000, 1000)]


def plain(samples: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits of about 80 % accuracy, too large, with a bias for each class."""
    random = np.random.default_rng(0)
    targets = random.integers(0, classes, samples)
    logits = 2 * random.normal(size=(samples, classes)) + 0.5 * random.normal(size=classes)
    logits[np.arange(samples), targets] += 3
    return (2 * logits).astype(np.float32), targets


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Return the least CPU time of some repeats."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def write(kind: str, logits: NDArray[np.float32], targets: NDArray[np.int64]) -> None:
    """Write one line."""
    samples, classes = logits.shape
    curve, wrong = temperature.fit(logits, targets), logits.argmax(axis=1) != targets
    repeats = 2 if classes > 100 else 5
    one = milliseconds(lambda: temperature.fit(logits, targets), repeats)
    joint = milliseconds(lambda: recalibration.left_out(logits, targets, curve, wrong), repeats)
    sys.stdout.write(
        f"{samples:7,} {classes:5,} {one:9.1f} ms {joint / one:20.1f} {joint - one:7.1f} ms  {kind}\n"
    )
    sys.stdout.flush()


def main() -> None:
    sys.stdout.write("      N     K  temperature  joint / temperature    more\n")
    for size in SIZES:
        write("", *plain(*size))
    for size in ACCURATE:
        write("accurate", *accurate(*size))


if __name__ == "__main__":
    main()
