"""What confshift and other packages take for the same answers, from the same arrays in one run.

    pip install -e '.[bench]'
    python tests/benchmarks/peers.py [--rounds 3] [--quick] [--write] [--kept]

Each answer is first compared with confshift's: one that differs without a known reason ends the script.
Rounds are in random order, on one thread; a ratio is that of the least CPU times of the rounds, as whatever
others do on the machine adds to a time. With `--write` the results go to docs/benchmarks.json, their page is
docs/benchmarks.md and their plot docs/benchmarks.svg; `--quick` takes smaller arrays.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
import warnings
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from growth import growth, plot
from pages import BENCHMARKS, keep, kept, machine, put
from peers_page import OURS, page, row
from timing import least_seconds, ratios, say

from peer_answers import QUESTIONS, RECALIBRATIONS, SLOW, draw

PACKAGES = ("netcal", "probmetrics", "relplot", "torchmetrics", "numba")  # numba: wanted by probmetrics
PLOT = BENCHMARKS.with_suffix(".svg")

SIZES = ((50_000, 10), (50_000, 100), (5_000, 1000))
FITTED = ((20_000, 10), (20_000, 100))  # half of the samples; the others judge
QUICK_SIZES, QUICK_FITTED = ((5_000, 10), (5_000, 100)), ((5_000, 10),)
#: Short answers are asked for in more rounds than the option says: for so many seconds, up to so many rounds.
SECONDS, MOST_ROUNDS = 1, 15


# --------------------------------------------------------------------------------------------- the questions
def check(question, logits, targets):
    """Compare every answer with confshift's; return the largest distance, and who differs, and why."""
    found = {
        name: question.value(way(logits, targets), logits, targets) for name, way in question.ways.items()
    }
    ours, largest, differing = found["confshift"], 0.0, []
    for name, value in found.items():
        distance = float(np.abs(value - ours).max()) / (1 + float(np.abs(ours).max()))
        if distance <= question.tolerance:
            largest = max(largest, distance)
            continue
        if name not in question.known:
            raise SystemExit(f"{question.name}: {name} says {value}, confshift {ours}")
        if question.judge and value < ours:
            raise SystemExit(f"{question.name}: {name} reaches {value}, confshift only {ours}")
        answers = {"who": name, "value": float(value), "ours": float(ours)}
        differing.append({**answers, "reason": question.known[name]})
    return largest, differing


def ask(question, size, rounds):
    """Return a row of the results."""
    logits, targets = draw(*size)
    start = time.process_time()
    distance, differing = check(question, logits, targets)
    rounds = max(rounds, min(MOST_ROUNDS, int(SECONDS / (time.process_time() - start))))
    ways = {name: partial(way, logits, targets) for name, way in question.ways.items()}
    seconds = least_seconds(ways, rounds)
    others = {name: ratio for name, ratio in ratios(seconds).items() if name != "confshift"}
    found = {
        "question": question.name,
        **dict(zip(("samples", "classes"), size, strict=True)),
        **{"ms": 1e3 * seconds["confshift"], "ratios": others},
        **{"distance": distance, "differing": differing},
    }
    say(row(found))
    return found


# --------------------------------------------------------------------------------------------- recalibration
def recalibrate(samples, classes, rounds):
    """Fit every map to half of the samples, and judge it by the others."""
    logits, targets = draw(samples, classes, seed=1)
    half = samples // 2
    ways = {name: fit for name, fit in RECALIBRATIONS.items() if classes <= SLOW.get(name, classes)}
    losses = {}
    for name, fit in ways.items():
        shares = fit(logits[:half], targets[:half])(logits[half:])
        with np.errstate(divide="ignore"):
            losses[name] = -np.log(shares[np.arange(half), targets[half:]].astype(np.float64))
    times = {name: partial(fit, logits[:half], targets[:half]) for name, fit in ways.items()}
    seconds = least_seconds(times, rounds)
    rows = []
    for name, ratio in ratios(seconds).items():
        with np.errstate(invalid="ignore"):  # an infinite loss
            more = losses[name] - losses[OURS]
        error = float(more.std()) / half**0.5
        judged = {"loss": float(losses[name].mean()), "more": float(more.mean()), "error": error}
        rows.append({"who": name, **judged, "ratio": ratio})
        say(f"{half:,} x {classes}: {rows[-1]}")
    left_out = [name for name in RECALIBRATIONS if name not in ways]
    about = {"samples": half, "classes": classes, "seconds": seconds[OURS]}
    return {**about, "rows": rows, "left_out": left_out}


def measure(*, quick, rounds):
    """Return all results."""
    sizes, fitted = (QUICK_SIZES, QUICK_FITTED) if quick else (SIZES, FITTED)
    about = machine("numpy", "scipy", "scikit-learn", "torch", *PACKAGES[:-1])
    return {
        "machine": about,
        "questions": [ask(question, size, rounds) for question in QUESTIONS for size in sizes],
        "recalibration": [recalibrate(*size, min(rounds, 2)) for size in fitted],
        "growth": growth(quick=quick),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="smaller arrays, a tenth of the time")
    parser.add_argument("--write", action="store_true", help="make docs/benchmarks.md and its plot anew")
    parser.add_argument(
        "--kept", action="store_true", help="write the page of what was measured last, measure nothing"
    )
    chosen = parser.parse_args()
    if chosen.kept:
        return write(kept()["peers"])
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return say(f"left out, as {', '.join(missing)} is not installed: pip install -e '.[bench]'")
    warnings.simplefilter("ignore")  # of the other packages
    torch.set_num_threads(1)
    results = measure(quick=chosen.quick, rounds=chosen.rounds)
    say(page(results, PLOT.name))
    if chosen.write:
        keep("peers", results)
        write(kept()["peers"])
    return None


def write(results):
    """Write the page and its plot."""
    put(BENCHMARKS, "peers", page(results, PLOT.name))
    PLOT.write_text(plot(results["growth"]), encoding="utf-8")


if __name__ == "__main__":
    main()
