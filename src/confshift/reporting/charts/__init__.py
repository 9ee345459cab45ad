"""The charts: each says how a named table is drawn. No data, no arithmetic; altair lives here only."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import TypeAlias

import altair as alt

from confshift.reporting.charts.change import account_chart, cells_chart, concentration_chart
from confshift.reporting.charts.classes import (
    LABELLED,
    class_accuracy_chart,
    class_contributions_chart,
    competitors_chart,
)
from confshift.reporting.charts.confidence import confidence_chart, reliability_chart
from confshift.reporting.charts.epochs import accuracy_chart, history_chart, loss_chart, parts_chart
from confshift.reporting.charts.frame import Frame
from confshift.reporting.charts.pieces import Spec
from confshift.reporting.charts.runs import run_accuracy_chart, run_loss_chart
from confshift.reporting.charts.samples import scatter_chart, trajectory_chart
from confshift.reporting.theme import CONFIG, SIDES

__all__ = ["Frame", "chart_specs"]

#: How a chart is made, and its height.
_Makers: TypeAlias = dict[str, tuple[Callable[[], Spec], int | alt.Step]]

_PROBABILITY_TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1]


def chart_specs(frame: Frame, *, only: Collection[str] | None = None) -> dict[str, Spec]:
    """Return the Vega-Lite spec of every chart, or of some, by its id; each reads tables by name."""
    chosen = _makers(frame).items()
    return {name: _spec(make(), height) for name, (make, height) in chosen if only is None or name in only}


def _makers(frame: Frame) -> _Makers:
    row = 26 if frame.classes <= LABELLED else 20
    makers: _Makers = {
        **_over_epochs(frame),
        "account": (account_chart, alt.Step(34)),
        "cells": (cells_chart, alt.Step(27)),
        "class_accuracy": (class_accuracy_chart, alt.Step(20)),
        "class_contributions": (class_contributions_chart, alt.Step(20)),
        "competitors": (partial(competitors_chart, frame.classes), alt.Step(row)),
        "concentration": (concentration_chart, 240),
        "scatter": (scatter_chart, 340),
    }
    for scale, ticks in (("probability", _PROBABILITY_TICKS), ("odds", frame.odds_ticks)):
        for side in SIDES:
            makers[f"reliability_{side}_{scale}"] = (partial(reliability_chart, side, scale, ticks), 280)
        for kind in ("right", "wrong"):
            make = partial(confidence_chart, kind, scale, ticks, paired=frame.paired)
            makers[f"confidence_{kind}_{scale}"] = (make, 130)
    return makers


def _over_epochs(frame: Frame) -> _Makers:
    loss, accuracy = (run_loss_chart, run_accuracy_chart) if frame.two_runs else (loss_chart, accuracy_chart)
    makers: _Makers = {}
    for span in ("near", "whole"):
        makers[f"loss_{span}"] = (partial(loss, frame, span), 250)
        makers[f"accuracy_{span}"] = (partial(accuracy, frame, span), 130)
        if not frame.two_runs:
            makers[f"parts_{span}"] = (partial(parts_chart, frame, span), 240)
    if not frame.two_runs:
        makers |= {"history": (history_chart, 240), "trajectory": (partial(trajectory_chart, frame), 340)}
    return makers


def _spec(layers: Spec, height: int | alt.Step) -> Spec:
    # The schema is checked by the tests, once for all charts: it takes seconds.
    tall = {"step": height.step} if isinstance(height, alt.Step) else height
    return {"$schema": alt.SCHEMA_URL, "width": "container", "height": tall, **layers, "config": CONFIG}
