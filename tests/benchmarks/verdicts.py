"""How often the rise verdict is wrong and how often it finds a rise, on simulated runs.

Run it as a script: `python tests/benchmarks/verdicts.py [flat] [rises] [looks] [--runs 400]`; about half an
hour. With `--earlier FILE`, `persistence.py` of another version, each share stands beside that of its jitter
test, on the same runs:

    git show 5465015:src/confshift/analysis/persistence.py > earlier.py

flat     runs whose population mean does not rise; "systematic" is a false alarm
rises    runs whose population mean rises
looks    the question asked after every epoch: alarms at any look, beside a paired t test at 5 % against the
         best epoch so far (naive) and ten epochs without a new minimum (patience)

Per-sample losses are not drawn one by one. A sample's loss at an epoch is a movement of its own, normal and
autoregressive from epoch to epoch with coefficient .95; jitter that all samples share; and the rise times a
normal slope of its own. The standard deviation of the movement differs widely between samples, but has ten
values only: means and covariance of the samples of one value are independent, normal and Wishart, and are
drawn as such, in a time that does not grow with the number of samples.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

sys.path.insert(0, str(Path(__file__).parents[1]))
from confshift.analysis import persistence
from confshift.analysis.jitter import FEWEST
from confshift.analysis.persistence import TAIL
from confshift.analysis.series import ALPHA, Looks, Series, judge_series
from confshift.analysis.simultaneous import (
    EpochMeans,
    Maxima,
    critical_value,
    maxima,
    sequential_values,
)
from simulated_runs import correlated

PATIENCE = 10
SAMPLES = (100, 1000, 5000, 20_000)
EPOCHS = (10, 20, 40, 100, 200)

#: Of the movement of a sample from epoch to epoch, and of the slopes of a rise.
MEMORY = 0.95
SLOPE_SD = 2.9

#: The scale of a movement is .25 exp(z), z normal: so many bins of equal mass, each at its root mean square.
STRATA = 10
_EDGES = ndtri(np.linspace(0, 1, STRATA + 1))
SCALES = 0.25 * np.sqrt(np.exp(2) * STRATA * (ndtr(_EDGES[1:] - 2) - ndtr(_EDGES[:-1] - 2)))


@dataclass(frozen=True)
class Case:
    """A kind of run: the jitter that all samples share, and the course of the population mean."""

    name: str
    jitter: float = 0.02
    correlation: float = 0.0  # 1 is a random walk
    steps: tuple[float, ...] = (1.0,)  # of the jitter, over equal parts of the run
    rise: float = 0.0
    shape: str = "line"
    fall: float = 0.0
    samples: int = 0
    epochs: int = 0

    def course(self) -> NDArray[np.float64]:
        """Return the rise of the population mean: it begins after a quarter of the run."""
        begin = self.epochs // 4
        part = np.clip((np.arange(self.epochs) - begin) / (self.epochs - 1 - begin), 0, 1)
        shapes = {
            "line": part,
            "saturating": (1 - np.exp(-5 * part)),
            "half back": np.where(part < 1 / 3, 6 * part, 2 - (part - 1 / 3) * 1.5),
        }
        return self.rise * shapes[self.shape]

    def shared(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Return the initial fall and the jitter."""
        time = np.arange(self.epochs)
        if self.correlation == 1:
            jitter = random.standard_normal(self.epochs).cumsum()
        else:
            jitter = correlated(self.epochs, random, self.correlation)
        steps = np.array(self.steps)[time * len(self.steps) // self.epochs]
        return self.fall * np.exp(-15 * time / self.epochs) + self.jitter * steps * jitter


FALLING = (5.0, 1.0, 0.2)
FLAT = (
    Case("no jitter", jitter=0.0),
    Case("jitter .02"),
    Case("jitter .02 AR(.5)", correlation=0.5),
    Case("jitter .02 AR(.8)", correlation=0.8),
    Case("jitter .1, .02, .004", steps=FALLING),
    Case("jitter .1, .02, .004 AR(.8)", steps=FALLING, correlation=0.8),
    Case("random walk of .02", correlation=1.0),
)
RISES = (
    Case("rise .06, jitter .02", rise=0.06),
    Case("rise .15, jitter .02", rise=0.15),
    Case("rise .15, jitter .02 AR(.8)", rise=0.15, correlation=0.8),
    Case("rise .30, jitter .02 AR(.8)", rise=0.3, correlation=0.8),
    Case("rise .15 that saturates, jitter .02 AR(.8)", rise=0.15, shape="saturating", correlation=0.8),
    Case("rise .30, half taken back, jitter .02", rise=0.15, shape="half back"),
    Case("fall of 1, rise .15, jitter .02", rise=0.15, fall=1.0),
    Case("fall of 1, rise .15, jitter .1, .02, .004", rise=0.15, fall=1.0, steps=FALLING),
)


class SimulatedRun:
    """The means of the samples' losses at once, their covariance when it is asked for."""

    def __init__(self, case: Case, random: np.random.Generator) -> None:
        self.case, self.random = case, random
        self.sizes = np.full(STRATA, case.samples // STRATA)
        normal = random.standard_normal((STRATA, case.epochs + 1)) / np.sqrt(self.sizes)[:, None]
        self.centres = (self._scales() * normal) @ self._mixture().T
        shared = case.course() + case.shared(random)
        self.means = self.sizes @ self.centres / case.samples + shared

    def errors(self) -> EpochMeans:
        """Draw the covariance within each stratum from Wishart's law; add that between them."""
        within = np.concatenate(
            [
                scales[:, None] * _wishart_root(len(scales), size - 1, self.random)
                for scales, size in zip(self._scales(), self.sizes.tolist(), strict=True)
            ],
            axis=1,
        )
        apart = self.centres - self.sizes @ self.centres / self.case.samples
        root = np.concatenate([self._mixture() @ within, (np.sqrt(self.sizes)[:, None] * apart).T], axis=1)
        return EpochMeans(
            self.means, root @ root.T / (self.case.samples * (self.case.samples - 1)), self.case.samples
        )

    def _scales(self) -> NDArray[np.float64]:
        """Return the standard deviations of movement and slope, shape (STRATA, epochs + 1)."""
        movement = np.repeat(SCALES[:, None], self.case.epochs, axis=1)
        return np.concatenate([movement, np.full((STRATA, 1), SLOPE_SD)], axis=1)

    def _mixture(self) -> NDArray[np.float64]:
        return np.concatenate([_movement_root(self.case.epochs), self.case.course()[:, None]], axis=1)


@cache
def _movement_root(epochs: int) -> NDArray[np.float64]:
    time = np.arange(epochs)
    return np.linalg.cholesky(MEMORY ** np.abs(time[:, None] - time))


def _wishart_root(size: int, freedom: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Return a root of a Wishart matrix of unit scale: Bartlett's, or the normal draws themselves."""
    if freedom <= size:
        return random.standard_normal((size, freedom))
    root = np.tril(random.standard_normal((size, size)), -1)
    root[np.diag_indices(size)] = np.sqrt(random.chisquare(freedom - np.arange(size)))
    return root


# ------------------------------------------------------------------------------------------- asked once
def once(case: Case, random: np.random.Generator, tests: dict[str, Callable[..., Any]]) -> dict[str, bool]:
    """Return whether the run is called systematically rising with each jitter test."""
    run = SimulatedRun(case, random)
    # The covariance only makes a rise less clear, and drawing it takes long.
    if not any(_lasting(test(run.means, None)) for test in tests.values()):
        return dict.fromkeys(tests, False)
    errors = run.errors()
    beyond = _beyond_sampling_error(errors)
    return {name: beyond and _lasting(test(errors.means, errors.covariance)) for name, test in tests.items()}


def _lasting(found: Any) -> bool:
    """Read a jitter test as `series` does."""
    return bool(found.rising and found.tail >= TAIL and getattr(found, "settled", FEWEST) >= FEWEST)


def _beyond_sampling_error(errors: EpochMeans, draws: int = 1000) -> bool:
    """Hold the last epoch against all earlier ones, as `judge_series` does, which draws all maxima."""
    values, vectors = np.linalg.eigh(errors.covariance)
    normal = np.random.default_rng(0).standard_normal((len(values), draws))
    drawn = (vectors * np.sqrt(np.maximum(values, 0))) @ normal
    null = ((drawn[-1] - drawn[:-1]) * errors.inverse_errors[-1, :-1, None]).max(axis=0)
    return bool(errors.t_values[-1, :-1].max() > critical_value(null, alpha=ALPHA, units=errors.units))


# ---------------------------------------------------------------------------------- asked after every epoch
def at_looks(case: Case, random: np.random.Generator) -> dict[str, bool]:
    """Return whether any look at the run raises an alarm, by each rule."""
    run = SimulatedRun(case, random)
    errors, means = run.errors(), run.means
    best = [int(np.argmin(means[:look])) for look in range(1, case.epochs)]
    naive = [errors.t_values[look + 1, epoch] > 1.645 for look, epoch in enumerate(best)]
    alarms = {f"{case.epochs} planned": case.epochs, "every epoch": "every epoch"}
    return {
        **{name: _at_any_look(errors, looks) for name, looks in alarms.items()},
        "naive": any(naive),
        "patience": any(look - int(np.argmin(means[: look + 1])) >= PATIENCE for look in range(case.epochs)),
    }


def _at_any_look(errors: EpochMeans, looks: Looks) -> bool:
    """Judge the run as it was at each look where its jitter test fires; the draws are the same as now."""
    planned = looks if isinstance(looks, int) else None
    epochs, null = np.arange(float(len(errors.means))), None
    for count in range(TAIL + 1, len(epochs) + 1):
        so_far = errors.means[:count], errors.covariance[:count, :count]
        if not _lasting(persistence.persistence_of(*so_far, alpha=ALPHA, repeated=True)):
            continue
        if null is None:
            null = maxima(errors, draws=2000)
            limits = sequential_values(null.earlier, alpha=ALPHA, planned=planned, units=errors.units)
            beyond = np.tril(errors.t_values, -1).max(axis=1) > limits
        if not beyond[count - 1]:
            continue
        then = EpochMeans(*so_far, errors.units)
        known = Series(epochs[:count], then, Maxima(null.earlier[:count], null.others[:count]))
        if judge_series(known, looks=looks)["status"] == "systematic":
            return True
    return False


# ------------------------------------------------------------------------------------------------ tables
def sized(cases: tuple[Case, ...], samples: tuple[int, ...], epochs: tuple[int, ...]) -> Iterator[Case]:
    for case, count, length in product(cases, samples, epochs):
        yield replace(case, samples=count, epochs=length)


def table(cases: Iterator[Case], alarms: Callable[..., dict[str, bool]], runs: int) -> pd.DataFrame:
    """Return the share of alarms of each rule, a row for each case."""
    rows = {}
    for number, case in enumerate(cases):
        started, random = time.perf_counter(), np.random.default_rng(number)
        found = pd.DataFrame([alarms(case, random) for _ in range(runs)]).mean()
        rows[case.name, case.samples, case.epochs] = found
        shares = ", ".join(f"{name} {share:.3f}" for name, share in found.items())
        sys.stderr.write(f"{case.name}, N = {case.samples}, T = {case.epochs}: {shares} ")
        sys.stderr.write(f"({time.perf_counter() - started:.0f} s)\n")
    frame = pd.DataFrame(rows).T.rename_axis(["case", "N", "T"])
    return frame.unstack("T") if len(frame.columns) <= 2 else frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tables", nargs="*", default=["flat", "rises", "looks"])
    parser.add_argument("--runs", type=int, default=400, help="simulated runs of each case")
    parser.add_argument("--earlier", type=Path, help="persistence.py of an earlier version")
    options = parser.parse_args()
    tests = {"now": lambda means, covariance: persistence.persistence_of(means, covariance, alpha=ALPHA)}
    if options.earlier:
        spec = importlib.util.spec_from_file_location("earlier", options.earlier)
        earlier = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(earlier)
        tests["earlier"] = lambda means, covariance: earlier.persistence_of(means, alpha=ALPHA)
    asked = [replace(case, name=f"{case.name}, looked at") for case in (*FLAT[:4], FLAT[5], *RISES[:3])]
    tables = {
        "flat": (sized(FLAT, SAMPLES, EPOCHS), lambda *given: once(*given, tests)),
        "rises": (sized(RISES, SAMPLES, EPOCHS), lambda *given: once(*given, tests)),
        "looks": (sized(tuple(asked), (1000, 5000), (40, 100)), at_looks),
    }
    for name in options.tables:
        frame = table(*tables[name], options.runs)
        sys.stdout.write(f"\n{name}: shares of {options.runs} runs\n\n{frame.round(3).to_string()}\n")


if __name__ == "__main__":
    main()
