"""What one pass over float32 logits costs, beside scipy's `log_softmax` and torch's loss of each sample.

    OMP_NUM_THREADS=1 python tests/benchmarks/scoring.py
    NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL" ...   # numpy as on AVX2 (2.4 and later)

CPU time; the ways take turns, and each number is the median. Neither of the two gives what `score` does:
theirs are losses of single precision alone, which are 0 where the model is very sure. The last columns: the
largest relative error of a loss and how many losses are 0, of `score` and of torch's. Where a new array does
not fit into memory that is there from the array before (above 32 MB with glibc), the others' times are mostly
page faults.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch.nn import functional

from confshift.scoring import score

SIZES = [
    *((1_000_000, 2), (100_000, 2), (100_000, 3), (100_000, 10), (50_000, 31), (50_000, 32), (10_000, 100)),
    *((50_000, 100), (4_000, 1000), (50_000, 1000), (200, 20_000), (40, 150_000)),
]
_ROUNDS = 9


def logits_of(samples: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits whose losses are between 1e-20 and 30 nats."""
    random = np.random.default_rng(0)
    targets = random.integers(0, classes, samples)
    logits = random.normal(size=(samples, classes)).astype(np.float32)
    logits *= 4
    logits[np.arange(samples), targets] += random.uniform(0, 60, samples).astype(np.float32)
    return logits, targets


def seconds(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the median CPU seconds of each way; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, way in ways.items():
            start = time.process_time()
            way()
            times[name].append(time.process_time() - start)
    return {name: float(np.median(some)) for name, some in times.items()}


def exact_losses(logits: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.longdouble]:
    """Return the losses in extended precision, without cancellation."""
    below = logits.astype(np.longdouble)
    rows, top = np.arange(len(below)), below.argmax(axis=1)
    below -= below[rows, top][:, None]
    mistake = -below[rows, targets]
    below[rows, top] = -np.inf
    return np.log1p(np.exp(below).sum(axis=1)) + mistake


def write(samples: int, classes: int) -> None:
    """Write one line."""
    logits, targets = logits_of(samples, classes)
    tensor, labels = torch.from_numpy(logits), torch.from_numpy(targets)
    times = seconds(
        {
            "score": lambda: score(logits, targets),
            "scipy": lambda: log_softmax(logits, axis=1),
            "torch": lambda: functional.cross_entropy(tensor, labels, reduction="none"),
        }
    )
    some = slice(max(1, 5_000_000 // classes))
    exact = exact_losses(logits[some], targets[some])
    ours = score(logits[some], targets[some]).loss
    theirs = functional.cross_entropy(tensor[some], labels[some], reduction="none").numpy()
    errors = [np.abs(losses / exact - 1).max() for losses in (ours, theirs)]
    zeros = [(losses == 0).mean() for losses in (ours, theirs)]
    sys.stdout.write(
        f"{samples:9,} {classes:7,} {1e3 * times['score']:9.1f} ms {times['score'] / times['scipy']:8.2f}"
        f" {times['score'] / times['torch']:8.2f} {errors[0]:12.1e} {zeros[0]:6.1%}"
        f" {errors[1]:12.1e} {zeros[1]:6.1%}\n"
    )
    sys.stdout.flush()


def main() -> None:
    torch.set_num_threads(1)
    sys.stdout.write("        N       K     score      / scipy  / torch  error, zeros         torch's\n")
    for size in SIZES:
        write(*size)


if __name__ == "__main__":
    main()
