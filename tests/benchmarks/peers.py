"""What confshift and other packages take for the same answers, from the same arrays in one run.

    pip install -e '.[bench]'
    python tests/benchmarks/peers.py [--rounds 3] [--quick] [--write]

Each answer is first compared with confshift's: one that differs without a known reason ends the script.
Rounds are in random order, on one thread; a ratio is that of the least CPU (and wall) times of the rounds, as
whatever others do on the machine adds to a time. With `--write` docs/benchmarks.md and its plot are made
anew, without wall times where others use the machine; `--quick` takes smaller arrays.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from confshift import Predictions, Run, summarize
from confshift.scoring import score
from peer_answers import (
    QUESTIONS,
    RECALIBRATIONS,
    SLOW,
    draw,
    lbfgs_recipe,
    netcal_ece,
    our_ece,
    our_temperature,
    probmetrics_metric,
    probmetrics_temperature,
    scipy_loss,
    scipy_temperature,
    torch_loss,
    torchmetrics_ece,
)

PACKAGES = ("netcal", "probmetrics", "relplot", "torchmetrics", "numba")  # numba: wanted by probmetrics
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
PLOT = PAGE.with_suffix(".svg")
BEGIN, END = "<!-- by tests/benchmarks/peers.py -->\n", "<!-- end of what it wrote -->\n"

SIZES = ((50_000, 10), (50_000, 100), (5_000, 1000))
FITTED = ((20_000, 10), (20_000, 100))  # half of the samples; the others judge
QUICK_SIZES, QUICK_FITTED = ((5_000, 10), (5_000, 100)), ((5_000, 10),)
#: Short answers are asked for in more rounds than the option says: for so many seconds, up to so many rounds.
SECONDS, MOST_ROUNDS = 1, 15
#: Below this, another package counts as quicker.
FIRST = 0.95
LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
QUIET = (os.cpu_count() or 1) - 0.5 > LOAD
HEAD = "times as long: CPU (wall)" if QUIET else "times as long: CPU"


class Times(NamedTuple):
    """Seconds of each round."""

    cpu: np.ndarray
    wall: np.ndarray


def measure(ways, rounds):
    """Return the times of each way, run in turn in random order; each has run before, or pays for it."""
    seconds = {name: [] for name in ways}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(ways)):
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            ways[name]()
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {name: Times(*np.array(times).T) for name, times in seconds.items()}


def ratios(times):
    """Return by way how many times as long it takes as the first, by least CPU and least wall times."""
    first = next(iter(times.values()))
    return {
        name: tuple(float(a.min() / b.min()) for a, b in zip(each, first, strict=True))
        for name, each in times.items()
    }


def shown(cpu, wall):
    """Write a ratio; that of wall time only where a core is left for this script."""
    return f"{digits(cpu)} ({digits(wall)})" if QUIET else digits(cpu)


def digits(ratio):
    """Write a ratio with two digits, or as a whole number."""
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:.0f}"


def say(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# --------------------------------------------------------------------------------------------- the questions
def check(question, logits, targets):
    """Compare every answer with confshift's; return a sentence for each that differs for a known reason."""
    found = {
        name: question.value(way(logits, targets), logits, targets) for name, way in question.ways.items()
    }
    ours, notes = found["confshift"], []
    for name, value in found.items():
        distance = float(np.abs(value - ours).max()) / (1 + float(np.abs(ours).max()))
        if distance <= question.tolerance:
            continue
        if name not in question.known:
            raise SystemExit(f"{question.name}: {name} says {value}, confshift {ours}")
        if question.judge and value < ours:
            raise SystemExit(f"{question.name}: {name} reaches {value}, confshift only {ours}")
        notes.append((name, f"{value:.4f} where confshift has {ours:.4f}", question.known[name]))
    return notes


def ask(question, size, rounds):
    """Return a row of the table, and the notes about what differs."""
    logits, targets = draw(*size)
    start = time.process_time()
    notes = check(question, logits, targets)
    rounds = max(rounds, min(MOST_ROUNDS, int(SECONDS / (time.process_time() - start))))
    ways = {name: partial(way, logits, targets) for name, way in question.ways.items()}
    times = measure(ways, rounds)
    own = 1e3 * float(times["confshift"].cpu.min())
    others = sorted((ratio, name) for name, ratio in ratios(times).items() if name != "confshift")
    differing = {name for name, *_ in notes}
    cells = [
        _bold(f"{name}{'*' * (name in differing)} {shown(cpu, wall)}", cpu < FIRST)
        for (cpu, wall), name in others
    ]
    where = f"{size[0]:,} × {size[1]:,}"
    row = f"| {question.name} | {where} | {own:.3g} ms | {', '.join(cells)} |"
    say(row)
    quicker = [name for (cpu, _), name in others if cpu < FIRST]
    return row, [(question.name, where, *note) for note in notes], quicker


def _bold(text, is_bold):
    return f"**{text}**" if is_bold else text


def questions_part(sizes, rounds):
    rows, notes, quicker = [], [], {}
    for question in QUESTIONS:
        for size in sizes:
            row, differing, first = ask(question, size, rounds)
            rows.append(row)
            notes += differing
            quicker.setdefault(question, []).extend(first)
    head = f"| from float32 logits | samples × classes | confshift | {HEAD} |\n|--|--|--|--|\n"
    return head + "\n".join(rows) + "\n\n" + _beside(quicker) + _differing(notes)


def _beside(quicker):
    """Say of each question whether confshift is first, and what its answer holds besides."""
    lines = []
    for question, names in quicker.items():
        others = list(dict.fromkeys(names))
        first = f"**not first: {', '.join(others)} took less time**" if others else "first"
        lines.append(f"- {question.name}: {first}. It also gives {question.beside}.")
    return "Where confshift is first, and what its time is for:\n\n" + "\n".join(lines) + "\n\n"


def _differing(notes):
    """Say whose numbers differ, once for each question and reason."""
    if not notes:
        return "All answers agree with confshift's.\n\n"
    reasons = {}
    for question, where, name, values, reason in notes:
        reasons.setdefault((question, reason), {}).setdefault(where, (name, values))
    lines = [
        f"- {question}: "
        + "; ".join(f"{where}, {name} {values}" for where, (name, values) in found.items())
        + f". {reason[0].upper()}{reason[1:]}."
        for (question, reason), found in reasons.items()
    ]
    text = "All answers agree with confshift's but those with a star (for a temperature, the loss at it):\n\n"
    return text + "\n".join(lines) + "\n\n"


# --------------------------------------------------------------------------------------------- recalibration
def recalibration_part(sizes, rounds):
    text = ""
    for samples, classes in sizes:
        logits, targets = draw(samples, classes, seed=1)
        half = samples // 2
        ways = {name: fit for name, fit in RECALIBRATIONS.items() if classes <= SLOW.get(name, classes)}
        losses = {}
        for name, fit in ways.items():
            shares = fit(logits[:half], targets[:half])(logits[half:])
            with np.errstate(divide="ignore"):
                losses[name] = -np.log(shares[np.arange(half), targets[half:]].astype(np.float64)).mean()
        times = measure(
            {name: partial(fit, logits[:half], targets[:half]) for name, fit in ways.items()}, rounds
        )
        own, relative = float(times["confshift `calibrate`"].cpu.min()), ratios(times)
        text += f"| fitted to {half:,} × {classes} | loss of {half:,} others | {HEAD} |\n|--|--|--|\n"
        for name in sorted(losses, key=losses.get):
            cpu, wall = relative[name]
            took = f"1 ({own:.2g} s)" if name == "confshift `calibrate`" else shown(cpu, wall)
            text += f"| {name} | {losses[name]:.4f} | {took} |\n"
        left = [name for name in RECALIBRATIONS if name not in ways]
        text += f"\nLeft out, as it takes minutes: {', '.join(left)}.\n\n" if left else "\n"
    text += (
        "`calibrate` fits a temperature, biases, a scale for each class and a matrix, measures each on what "
        "is left out of its fit, and takes the richest that is surely better; the others are one fit.\n\n"
    )
    say(text)
    return text


# ----------------------------------------------------------------------------------------------- growing cost
#: Loss, ECE and temperature of one checkpoint.
BUNDLES = {
    "confshift": (lambda logits, targets: score(logits, targets).loss.mean(), our_ece, our_temperature),
    "torch, torchmetrics, LBFGS recipe": (torch_loss, torchmetrics_ece, lbfgs_recipe),
    "scipy, netcal": (scipy_loss, netcal_ece, scipy_temperature),
    "probmetrics": (
        probmetrics_metric("logloss"),
        probmetrics_metric("ece-15"),
        probmetrics_temperature,
    ),
}


def growth(quick):
    """Return the CPU seconds of loss, ECE and temperature by number of samples, classes and checkpoints."""
    samples = (1000, 3000, 10_000) if quick else (1000, 3000, 10_000, 30_000, 100_000)
    classes = (3, 10, 30, 100) if quick else (3, 10, 30, 100, 300, 1000)
    checkpoints = (1, 3, 10) if quick else (1, 3, 10, 30)
    each = 2_000 if quick else 10_000
    rows = []
    for panel, sizes in (
        ("samples (10 classes)", [(number, (number, 10)) for number in samples]),
        (f"classes ({each // 2:,} samples)", [(number, (each // 2, number)) for number in classes]),
    ):
        for number, size in sizes:
            data = draw(*size)
            ways = {name: partial(_all, bundle, data) for name, bundle in BUNDLES.items()}
            rows += _points(panel, number, ways)
    for number in checkpoints:
        with tempfile.TemporaryDirectory() as folder:
            ways = _of_checkpoints(number, each, folder)
            rows += _points(f"checkpoints ({each:,} × 10)", number, ways)
    return pd.DataFrame(rows, columns=["panel", "number", "who", "seconds"])


def _of_checkpoints(number, samples, folder):
    run, every = Run(folder), []
    for epoch in range(number):
        logits, targets = draw(samples, 10)
        logits = (0.7 + 0.02 * epoch) * logits
        every.append((logits.astype(np.float32), targets))
        run.append(Predictions(*every[-1]), epoch=epoch)
    run.flush()
    ways = {
        name: (lambda bundle=bundle: [_all(bundle, data) for data in every])
        for name, bundle in BUNDLES.items()
    }
    return {**ways, "confshift, `summarize` of a saved run": lambda: summarize(Run(folder)).table}


def _all(bundle, data):
    return [answer(*data) for answer in bundle]


def _points(panel, number, ways):
    start = time.process_time()
    for way in ways.values():
        way()
    times = measure(ways, 3 if time.process_time() - start < 1 else 1)
    say(f"{panel} {number:,}: " + ", ".join(f"{name} {t.cpu.min():.3g} s" for name, t in times.items()))
    return [(panel, number, name, float(each.cpu.min())) for name, each in times.items()]


def plot(rows):
    """Draw a panel for samples, classes and checkpoints, and return it as SVG."""
    import altair
    import vl_convert

    names = list(dict.fromkeys(rows["who"]))
    colours = altair.Scale(domain=names, range=["#1b4f9c", "#d1672c", "#3a8f4d", "#8b5fbf", "#1b4f9c"])
    dashes = altair.Scale(domain=names, range=[[1, 0]] * 4 + [[4, 3]])
    seconds = altair.Scale(type="log", domain=[rows["seconds"].min(), rows["seconds"].max()], nice=True)
    powers = altair.Axis(values=[10.0**power for power in range(-4, 4)], format="~g", grid=True)

    def panel(name, group):
        numbers = altair.Axis(values=sorted(set(group["number"])), format="~s", grid=False)
        base = altair.Chart(group).encode(
            x=altair.X("number:Q", scale=altair.Scale(type="log", nice=False), title=name, axis=numbers),
            y=altair.Y("seconds:Q", scale=seconds, title="CPU seconds", axis=powers),
            color=altair.Color("who:N", scale=colours, title=None),
        )
        line = base.mark_line().encode(strokeDash=altair.StrokeDash("who:N", scale=dashes, title=None))
        return (line + base.mark_point(filled=True, size=30)).properties(width=230, height=230)

    chart = altair.hconcat(*(panel(name, group) for name, group in rows.groupby("panel", sort=False)))
    legend = {"orient": "bottom", "direction": "vertical", "labelLimit": 400, "symbolType": "stroke"}
    chart = chart.configure(background="white", font="sans-serif").configure_legend(**legend)
    return vl_convert.vegalite_to_svg(chart.to_json())


# --------------------------------------------------------------------------------------------------- the page
def machine():
    """Name the processor, its load and the versions, in a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    flags = next((line for line in lines if line.startswith("flags")), "")
    wide = " with AVX-512" if "avx512f" in flags else " without AVX-512" if flags else ""
    names = ("numpy", "scipy", "scikit-learn", "torch", *PACKAGES[:-1])
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    others = "" if QUIET else f" (at a load of {LOAD:.0f}, so without wall times)"
    return (
        f"Measured on {model or platform.machine()}{wide}, {os.cpu_count()} cores, one thread used{others}: "
        f"Python {platform.python_version()}, {versions}."
    )


def put(text):
    """Replace what stands between the two marks of the page; make the page where there is none."""
    if not PAGE.exists():
        PAGE.write_text(f"# Beside other packages\n\n{BEGIN}{END}", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="smaller arrays, a tenth of the time")
    parser.add_argument("--write", action="store_true", help="make docs/benchmarks.md and its plot anew")
    chosen = parser.parse_args()
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        say(f"left out, as {', '.join(missing)} is not installed: pip install -e '.[bench]'")
        return
    warnings.simplefilter("ignore")  # of the other packages
    torch.set_num_threads(1)
    about = machine()
    say(about)
    asked = questions_part(QUICK_SIZES if chosen.quick else SIZES, chosen.rounds)
    say(asked)
    fitted = recalibration_part(QUICK_FITTED if chosen.quick else FITTED, min(chosen.rounds, 2))
    rows = growth(chosen.quick)
    picture = plot(rows)
    if chosen.write:
        put(
            f"{about}\n\n{asked}## Recalibration\n\n{fitted}## How the cost grows\n\n"
            f"![CPU seconds by the number of samples, classes and checkpoints]({PLOT.name})\n"
        )
        PLOT.write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
