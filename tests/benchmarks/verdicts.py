"""Size and power of the rise verdict on simulated runs, beside what is commonly done; a few minutes.

Run it as a script: `python tests/benchmarks/verdicts.py [--runs 150]`. Shares of runs in which each rule
raised an alarm. The first cases are flat but for noise, so an alarm is false; in the others the
population mean rises. Rules asked once, after the last epoch:

    systematic   the verdict: beyond sampling error and beyond jitter
    sampling     its first half alone: the last epoch against every earlier one
    lasting      its second half alone: trend or level of the epoch means
    trend        Mann-Kendall on the epochs after the minimum

Rules asked after every epoch, with an alarm wherever one look raised it:

    planned      the verdict with looks=40, the number of epochs planned
    unplanned    the verdict with looks="every epoch"
    max-t        the first half alone at 5 % at each look, without spending
    naive        a paired one-sided t test at 5 % against the best epoch so far
    patience     ten epochs without a new minimum
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from confshift.analysis.persistence import mann_kendall
from confshift.analysis.series import ALPHA, Looks, Series, judge_series, series_of
from confshift.analysis.simultaneous import EpochMeans, Maxima, critical_value, sequential_values
from simulated_runs import simulated_losses

EPOCHS = 40
PATIENCE = 10

CASES: dict[str, dict[str, Any]] = {
    "flat, lasting sampling noise, N=1000": {"samples": 1000},
    "flat, random walk of each sample, N=1000": {"samples": 1000, "memory": 1.0},
    "flat, lasting sampling noise, N=100": {"samples": 100},
    "flat, jitter .02, N=5000": {"samples": 5000, "jitter": 0.02},
    "flat, jitter .02 AR(-.4), N=5000": {"samples": 5000, "jitter": 0.02, "jitter_correlation": -0.4},
    "flat, jitter .02 AR(.3), N=5000": {"samples": 5000, "jitter": 0.02, "jitter_correlation": 0.3},
    "flat, jitter .02 AR(.5), N=5000": {"samples": 5000, "jitter": 0.02, "jitter_correlation": 0.5},
    "flat, jitter .02 AR(.8), N=5000": {"samples": 5000, "jitter": 0.02, "jitter_correlation": 0.8},
    "rise .06, N=1000": {"samples": 1000, "rise": 0.06},
    "rise .15, N=1000": {"samples": 1000, "rise": 0.15},
    "rise .3, N=300": {"samples": 300, "rise": 0.3},
    "rise .06, jitter .02, N=5000": {"samples": 5000, "rise": 0.06, "jitter": 0.02},
    "rise .15, jitter .02, N=5000": {"samples": 5000, "rise": 0.15, "jitter": 0.02},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="simulated runs of each case")
    runs = parser.parse_args().runs
    started = time.perf_counter()
    rows = {}
    for number, (name, case) in enumerate(CASES.items()):
        random = np.random.default_rng(number)
        alarms = [_alarms(simulated_losses(epochs=EPOCHS, random=random, **case)) for _ in range(runs)]
        rows[name] = pd.DataFrame(alarms).mean()
        sys.stderr.write(f"{name}: {time.perf_counter() - started:.0f} s\n")
    sys.stdout.write(f"Shares of {runs} runs of {EPOCHS} epochs with an alarm\n\n")
    sys.stdout.write(pd.DataFrame(rows).T.round(3).to_string() + "\n")


def _alarms(losses: np.ndarray) -> dict[str, bool]:
    series = series_of(losses, np.arange(float(EPOCHS)))
    means = series.errors.means
    row = judge_series(series)
    return {
        "systematic": row["status"] == "systematic",
        "sampling": row["statistic"] > row["critical_value"],
        "lasting": row["rising"],
        "trend": mann_kendall(means[int(np.argmin(means)) + 1 :]) < ALPHA,
        "planned": _at_any_look(series, EPOCHS),
        "unplanned": _at_any_look(series, "every epoch"),
        "max-t": any(_beyond(series, look) for look in range(1, EPOCHS)),
        "naive": any(_naive(series, look) for look in range(1, EPOCHS)),
        "patience": any(look - int(np.argmin(means[: look + 1])) >= PATIENCE for look in range(EPOCHS)),
    }


def _at_any_look(series: Series, looks: Looks) -> bool:
    """Judge the run as it stood after each epoch that is beyond its limit; the draws are the same as now."""
    errors, null = series.errors, series.null
    planned = looks if isinstance(looks, int) else None
    limits = sequential_values(null.earlier, alpha=ALPHA, planned=planned, units=errors.units)
    statistics = np.tril(errors.t_values, -1).max(axis=1)
    for look in np.flatnonzero(statistics > limits):
        count = look + 1
        then = EpochMeans(errors.means[:count], errors.covariance[:count, :count], errors.units)
        known = Series(series.epochs[:count], then, Maxima(null.earlier[:count], null.others[:count]))
        if judge_series(known, looks=looks)["status"] == "systematic":
            return True
    return False


def _beyond(series: Series, look: int) -> bool:
    limit = critical_value(series.null.earlier[look], alpha=ALPHA, units=series.errors.units)
    return bool(series.errors.t_values[look, :look].max() > limit)


def _naive(series: Series, look: int) -> bool:
    best = int(np.argmin(series.errors.means[:look]))
    return bool(series.errors.t_values[look, best] > 1.645)


if __name__ == "__main__":
    main()
