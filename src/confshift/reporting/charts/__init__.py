"""The charts: each says how a named table is drawn. No data, no arithmetic; altair lives here only."""

from __future__ import annotations

from typing import Any

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
from confshift.reporting.charts.pieces import AnyChart
from confshift.reporting.charts.runs import run_accuracy_chart, run_loss_chart
from confshift.reporting.charts.samples import scatter_chart, trajectory_chart
from confshift.reporting.theme import CONFIG, SIDES

__all__ = ["Frame", "chart_specs"]

_PROBABILITY_TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1]


def chart_specs(frame: Frame) -> dict[str, dict[str, Any]]:
    """Return the Vega-Lite spec of every chart, by its id; each reads tables by name."""
    odds = {"probability": _PROBABILITY_TICKS, "odds": frame.odds_ticks}
    charts: dict[str, tuple[AnyChart, int | alt.Step]] = {
        **_over_epochs(frame),
        "account": (account_chart(), alt.Step(34)),
        "cells": (cells_chart(), alt.Step(27)),
        "class_accuracy": (class_accuracy_chart(), alt.Step(20)),
        "class_contributions": (class_contributions_chart(), alt.Step(20)),
        "competitors": (
            competitors_chart(frame.classes),
            alt.Step(26 if frame.classes <= LABELLED else 20),
        ),
        "concentration": (concentration_chart(), 240),
        "scatter": (scatter_chart(), 340),
    }
    for scale, ticks in odds.items():
        for side in SIDES:
            charts[f"reliability_{side}_{scale}"] = (reliability_chart(side, scale, ticks), 280)
        for kind in ("right", "wrong"):
            charts[f"confidence_{kind}_{scale}"] = (
                confidence_chart(kind, scale, ticks, paired=frame.paired),
                130,
            )
    return {name: _spec(chart, height) for name, (chart, height) in charts.items()}


def _over_epochs(frame: Frame) -> dict[str, tuple[AnyChart, int | alt.Step]]:
    loss, accuracy = (run_loss_chart, run_accuracy_chart) if frame.two_runs else (loss_chart, accuracy_chart)
    charts: dict[str, tuple[AnyChart, int | alt.Step]] = {}
    for span in ("near", "whole"):
        charts[f"loss_{span}"] = (loss(frame, span), 250)
        charts[f"accuracy_{span}"] = (accuracy(frame, span), 130)
        if not frame.two_runs:
            charts[f"parts_{span}"] = (parts_chart(frame, span), 240)
    if not frame.two_runs:
        charts |= {"history": (history_chart(), 240), "trajectory": (trajectory_chart(frame), 340)}
    return charts


def _spec(chart: AnyChart, height: int | alt.Step) -> dict[str, Any]:
    # The schema is checked by the tests, once for all charts: it takes seconds.
    spec: dict[str, Any] = chart.properties(width="container", height=height).to_dict(validate=False)
    return {**spec, "config": CONFIG}
