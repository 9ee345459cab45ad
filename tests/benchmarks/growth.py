"""How the cost of loss, ECE and temperature grows with samples, classes and checkpoints, as a plot."""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
from timing import Ways, least_seconds, say

sys.path.insert(0, str(Path(__file__).parents[1]))
from confshift import Predictions, Run, summarize
from confshift.scoring import score
from peer_answers import (
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

#: Loss, ECE and temperature of one checkpoint.
BUNDLES = {
    "confshift": (lambda logits, targets: score(logits, targets).loss.mean(), our_ece, our_temperature),
    "torch, torchmetrics, LBFGS recipe": (torch_loss, torchmetrics_ece, lbfgs_recipe),
    "scipy, netcal": (scipy_loss, netcal_ece, scipy_temperature),
    "probmetrics": (probmetrics_metric("logloss"), probmetrics_metric("ece-15"), probmetrics_temperature),
}
OF_A_RUN = "confshift, of a saved run"
COLOURS = {
    "confshift": "#1b4f9c",
    OF_A_RUN: "#1b4f9c",
    "torch, torchmetrics, LBFGS recipe": "#c8591d",
    "scipy, netcal": "#2f7d40",
    "probmetrics": "#8b5fbf",
}


class Point(TypedDict):
    """CPU seconds of one way at one size."""

    panel: str
    number: int
    who: str
    seconds: float


def growth(*, quick: bool) -> list[Point]:
    """Measure every bundle at every size; a saved run is read, which includes its check."""
    samples = (1000, 10_000) if quick else (1000, 3000, 10_000, 30_000, 100_000)
    classes = (3, 30) if quick else (3, 10, 30, 100, 300, 1000)
    checkpoints = (1, 3) if quick else (1, 3, 10, 30)
    each = 2_000 if quick else 10_000
    points = []
    for panel, sizes in (
        ("samples, 10 classes", [(number, (number, 10)) for number in samples]),
        (f"classes, {each // 2:,} samples", [(number, (each // 2, number)) for number in classes]),
    ):
        for number, size in sizes:
            data = draw(*size)
            ways = {name: partial(_all, bundle, data) for name, bundle in BUNDLES.items()}
            points += _points(panel, number, ways)
    for number in checkpoints:
        with tempfile.TemporaryDirectory() as folder:
            ways = _of_checkpoints(number, each, folder)
            points += _points(f"checkpoints of {each:,} × 10", number, ways)
    return points


def _of_checkpoints(number: int, samples: int, folder: str) -> Ways:
    run, every = Run(folder), []
    for epoch in range(number):
        logits, targets = draw(samples, 10)
        every.append(((0.7 + 0.02 * epoch) * logits, targets))
        run.append(Predictions(*every[-1]), epoch=epoch)
    run.flush()
    ways = {name: partial(_all_of, bundle, every) for name, bundle in BUNDLES.items()}
    return {**ways, OF_A_RUN: lambda: summarize(Run(folder)).table}


def _all(bundle: Any, data: Any) -> list[object]:
    return [answer(*data) for answer in bundle]


def _all_of(bundle: Any, every: list[Any]) -> list[object]:
    return [_all(bundle, data) for data in every]


def _points(panel: str, number: int, ways: Ways) -> list[Point]:
    start = time.process_time()
    for way in ways.values():
        way()
    times = least_seconds(ways, 3 if time.process_time() - start < 1 else 1)
    say(f"{panel}: {number:,}: " + ", ".join(f"{name} {seconds:.3g} s" for name, seconds in times.items()))
    return [Point(panel=panel, number=number, who=name, seconds=each) for name, each in times.items()]


def plot(points: list[Point]) -> str:
    """Draw a panel for samples, classes and checkpoints, both axes logarithmic; return it as SVG."""
    import altair
    import vl_convert

    rows = pd.DataFrame(points)
    shades = altair.Scale(domain=list(COLOURS), range=list(COLOURS.values()))
    dashes = altair.Scale(
        domain=list(COLOURS), range=[[4, 3] if name == OF_A_RUN else [1, 0] for name in COLOURS]
    )
    seconds = altair.Scale(type="log", domain=[rows["seconds"].min(), rows["seconds"].max()], nice=True)
    powers = altair.Axis(values=[10.0**power for power in range(-5, 5)], format="~g", grid=True)

    def panel(name: str, group: pd.DataFrame, *, first: bool) -> Any:
        numbers = altair.Axis(values=sorted({*group["number"]}), format=",", grid=False, labelOverlap=True)
        base = altair.Chart(group).encode(
            x=altair.X("number:Q", scale=altair.Scale(type="log", nice=False), title=name, axis=numbers),
            y=altair.Y("seconds:Q", scale=seconds, title="CPU seconds" if first else None, axis=powers),
            color=altair.Color("who:N", scale=shades, title=None),
            strokeDash=altair.StrokeDash("who:N", scale=dashes, title=None),
        )
        marks = base.mark_line() + base.mark_point(filled=True, size=30)
        return marks.properties(width=220, height=220)

    groups = rows.groupby("panel", sort=False)
    chart = altair.hconcat(*(panel(name, group, first=not at) for at, (name, group) in enumerate(groups)))
    legend = {"orient": "bottom", "columns": 3, "labelLimit": 400, "symbolType": "stroke", "symbolSize": 300}
    chart = chart.configure(background="white", font="sans-serif").configure_legend(**legend)
    return vl_convert.vegalite_to_svg(chart.to_json())
