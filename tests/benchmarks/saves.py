"""What a save costs beside 2, 200 and 2,000 checkpoints: CPU time of the process, by how many there are.

    python tests/benchmarks/saves.py [--checkpoints 2 200 2000] [--samples 50] [--classes 10] [--rounds 20]

The runs are saved to in turn, so that a change of the machine's speed meets all of them; printed are the
median milliseconds of a save and their ratio to the first run's. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from confshift import Predictions, Run


def predictions(seed, samples, classes):
    logits = np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32)
    return Predictions(logits, np.arange(samples) % classes)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", nargs="+", type=int, default=[2, 200, 2000])
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for count in chosen.checkpoints:
            runs[count] = Run(Path(folder) / str(count))
            for seed in range(count):
                runs[count].append(predictions(seed, chosen.samples, chosen.classes))
            runs[count].flush()
        seconds = {count: [] for count in runs}
        for seed in range(chosen.rounds):
            for count, run in runs.items():
                given = predictions(-1 - seed + 10**6, chosen.samples, chosen.classes)
                start = time.process_time()
                run.append(given)
                run.flush()
                seconds[count].append(time.process_time() - start)
    first = np.median(seconds[chosen.checkpoints[0]])
    for count, times in seconds.items():
        middle = np.median(times)
        print(f"{count:6d} checkpoints: {1e3 * middle:6.2f} ms  {middle / first:5.2f}")  # noqa: T201


if __name__ == "__main__":
    main()
