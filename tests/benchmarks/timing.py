"""CPU time of several ways to the same answer, in turns."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

Ways = Mapping[str, Callable[[], object]]


def least_seconds(ways: Ways, rounds: int) -> dict[str, float]:
    """Return the least CPU time of each way, run in turn in random order.

    Whatever others do on the machine adds to a time, and so does what is loaded or compiled in a first call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(ways)):
            gc.collect()
            start = time.process_time()
            ways[name]()
            seconds[name].append(time.process_time() - start)
    return {name: min(times) for name, times in seconds.items()}


def ratios(seconds: Mapping[str, float]) -> dict[str, float]:
    """Return by way how many times as long it takes as the first."""
    first = next(iter(seconds.values()))
    return {name: each / first for name, each in seconds.items()}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
