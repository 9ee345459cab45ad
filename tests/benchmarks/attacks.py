"""The attacks in their long form, and a table of what came of them.

Run as a script; their short forms are tests, in tests/attacks.

    python tests/benchmarks/attacks.py --long [--seed 0] [flips npz forgery kills rivals interrupts]

Without `--long` a hundredth of it, so that `make bench` shows in seconds that they still run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parents[1] / "attacks"))


def flips(folder, count, seed):
    from flips import flips

    return flips(folder, count, seed, pages=300)


def npz(folder, count, seed):
    from hostile_npz import hostile_npz

    return hostile_npz(folder, count, seed)


def forgery(folder, count, seed):
    from forgery import forgery

    return forgery(folder, count, seed, pages=250)


def kills(folder, count, seed):
    from kills import kills

    return kills(folder, count, seed)


def rivals(folder, count, seed):
    from rivals import rivals

    return rivals(folder, count, seed)


def interrupts(folder, count, seed):
    from interrupts import strikes_at_random

    results = list(strikes_at_random(count, seed=seed))
    failures = [f"{moment}: {problems}" for moment, _, problems in results if problems]
    return {"tried": len(results), "ended inspect": sum(out for _, out, _ in results), "failures": failures}


#: Each attack, and how often in the long form.
ATTACKS = {flips: 3000, npz: 600, forgery: 5000, kills: 300, rivals: 30, interrupts: 200}
NAMES = [attack.__name__ for attack in ATTACKS]


def say(text):
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="|".join(NAMES))
    parser.add_argument("--long", action="store_true", help="all of it: many minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--factor", type=float, default=1.0, help="of the counts")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"no attack is called {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    factor, failed = given.factor * (1 if given.long else 0.01), False
    say(f"{'attack':10s} {'tried':>6s} {'failed':>6s} {'CPU s':>6s}  what came of the rest")
    for attack, count in ATTACKS.items():
        if given.names and attack.__name__ not in given.names:
            continue
        start = time.process_time()
        try:
            with tempfile.TemporaryDirectory() as folder:
                figures = attack(Path(folder), max(2, round(factor * count)), given.seed)
        except ModuleNotFoundError as error:
            say(f"{attack.__name__:10s} not there: {error}")
            continue
        seconds, failures = time.process_time() - start, figures.pop("failures")
        rest = ", ".join(f"{key} {value}" for key, value in figures.items() if key != "tried")
        say(f"{attack.__name__:10s} {figures['tried']:6d} {len(failures):6d} {seconds:6.0f}  {rest}")
        for failure in failures[:20]:
            say(f"    {failure}")
        failed = failed or bool(failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
