"""The critical values of the jitter test, `confshift.analysis.jitter._CRITICAL`, by simulation.

Run it as a script, `python tests/benchmarks/jitter_critical.py [--runs 100000]`: ten minutes. It draws flat
series of normal jitter, autoregressive with each of `CORRELATIONS`:

1. Hinge and shape, raised together until one or the other is exceeded in 5 % at the worst correlation. The
   level, where it is exceeded in 1 % at the worst correlation, and where in 2.5 % at none.
2. The test asked after every epoch, from the twentieth to the last: in what share of series it fires at any
   of these looks, by how many times the critical values of one look are asked.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from confshift.analysis.jitter import ENOUGH, FEWEST, Critical, critical_values, hinge, level, shape

CORRELATIONS = (0.0, 0.3, 0.5, 0.7, 0.8)
LENGTHS = (FEWEST, 9, 10, 13, 16, ENOUGH, 26, 32, 40, 52, 64, 80, 100, 140, 200)
LOOKS = (40, 100, 200)
TIMES = (1.0, 1.25, 1.5, 1.75, 2.0)
_ROWS = 500  # series handled together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="series of each length and correlation")
    runs = parser.parse_args().runs
    for epochs in LENGTHS:
        values = ", ".join(f"{value:.2f}" for value in of_one_look(epochs, runs))
        sys.stdout.write(f"    {epochs}: Critical({values}),\n")
        sys.stdout.flush()
    for correlation in (*CORRELATIONS, 0.9):
        at_any_look(correlation, runs // 20)


def flat(runs: int, epochs: int, correlation: float) -> NDArray[np.float64]:
    """Return stationary series of variance 1, shape (runs, epochs)."""
    noise = np.random.default_rng((epochs, round(10 * correlation))).standard_normal((runs, epochs))
    series = noise.copy()
    for epoch in range(1, epochs):
        series[:, epoch] = correlation * series[:, epoch - 1]
        series[:, epoch] += np.sqrt(1 - correlation**2) * noise[:, epoch]
    return series


def of_one_look(epochs: int, runs: int) -> Critical:
    """Return the critical values where the question is asked once."""
    series = [flat(runs, epochs, correlation) for correlation in CORRELATIONS]
    hinges, shapes, levels = ([_by_rows(f, rows) for rows in series] for f in (_hinge, _shape, _level))
    least, most = 0.95, 0.995
    for _ in range(20):
        share = (least + most) / 2
        limits = [max(np.quantile(values, share) for values in found) for found in (hinges, shapes)]
        above = [np.mean((a > limits[0]) | (b > limits[1])) for a, b in zip(hinges, shapes, strict=True)]
        least, most = (least, share) if max(above) <= 0.05 else (share, most)
    slow_level = max(np.quantile(values, 0.99) for values in levels)
    return Critical(*limits, slow_level, np.quantile(levels[0], 0.975))


def at_any_look(correlation: float, runs: int) -> None:
    """Print in what share of series a statistic is beyond so many times its critical value at any look."""
    series = flat(runs, max(LOOKS), correlation)
    excess = np.zeros((2, runs))
    for look in range(ENOUGH, max(LOOKS) + 1):
        limits, so_far = critical_values(look), series[:, :look]
        fitted = _by_rows(_hinge, so_far) / limits.hinge, _by_rows(_shape, so_far) / limits.shape
        excess = np.maximum(excess, [np.maximum(*fitted), _by_rows(_level, so_far) / limits.slow_level])
        if look not in LOOKS:
            continue
        for name, largest in zip(("hinge or shape", "level"), excess, strict=True):
            shares = ", ".join(f"{np.mean(largest > times):.3f} beyond {times}" for times in TIMES)
            ends = ", ".join(f"{np.quantile(largest, 1 - p):.2f} in {p}" for p in (0.05, 0.025, 0.01))
            sys.stdout.write(f"correlation {correlation}, {look} looks, {name}: {shares}; {ends}\n")
            sys.stdout.flush()


def _hinge(series: NDArray[np.float64]) -> NDArray[np.float64]:
    return hinge(series)[0]


def _shape(series: NDArray[np.float64]) -> NDArray[np.float64]:
    return shape(series)[0]


def _level(series: NDArray[np.float64]) -> NDArray[np.float64]:
    return level(series)[0]


def _by_rows(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], series: NDArray[np.float64]
) -> NDArray[np.float64]:
    parts = [statistic(series[first : first + _ROWS]) for first in range(0, len(series), _ROWS)]
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
