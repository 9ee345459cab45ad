"""The charts of two runs over their epochs."""

from __future__ import annotations

from typing import Any

import altair as alt

from confshift.reporting.charts.parts import (
    LEFT,
    LOSS,
    SHARE,
    ChartContext,
    Spec,
    end_layers,
    epoch_axis,
    filtered,
    infinite_layer,
    layered,
    table,
    tip,
)
from confshift.reporting.theme import LOSSES, RUNS, SERIES, colour


def run_loss_chart(context: ChartContext, span: str) -> Spec:
    """Draw the losses of both runs, as they are and once calibrated."""
    scale = alt.Scale(domain=list(LOSSES.values()), range=[SERIES[key][1] for key in LOSSES])
    dash = alt.StrokeDash("series:N", scale=scale, legend=alt.Legend(symbolType="stroke", symbolSize=400))
    limits = context.limits[f"loss_{span}"]
    spec = _curves(context, "run_losses", limits, "nats", ".4~f", LOSS, dash)
    if context.infinite:
        spec["layer"] += layered(infinite_layer(tip("run:N")))["layer"]
    return spec


def run_accuracy_chart(context: ChartContext, span: str) -> Spec:
    """Draw the accuracies of both runs."""
    return _curves(
        context, "run_accuracies", context.limits[f"accuracy_{span}"], "accuracy", ".3~%", SHARE, None
    )


def _curves(
    context: ChartContext,
    name: str,
    limits: Any,
    unit: str,
    number: str,
    tooltip: str,
    dash: alt.StrokeDash | None,
) -> Spec:
    tints = [colour(role) for role in RUNS.values()]
    tint = alt.Color("run:N", scale=alt.Scale(domain=list(context.runs), range=tints))
    scale = alt.Scale(zero=False, **limits)
    y = alt.Y("mean:Q", title=unit, scale=scale, axis=alt.Axis(format=number, minExtent=LEFT, tickCount=5))
    base = table(name).encode(x=epoch_axis(), color=tint, detail=alt.Detail("series:N"))
    band = base.mark_area(opacity=0.14, clip=True).encode(y=alt.Y("low:Q", title=unit), y2=alt.Y2("high:Q"))
    line = base.mark_line(strokeWidth=2, clip=True).encode(y=y)
    lines = line.encode(strokeDash=dash) if dash else line
    points = base.mark_point(filled=True, size=60, opacity=0, clip=True).encode(
        y=y, tooltip=[tip("run:N"), tip("epoch:Q"), tip("series:N"), tip("mean:Q", unit, tooltip)]
    )
    layers: list[alt.Chart | Spec] = [*end_layers(), band, lines]
    if context.lone:
        alone = filtered(base, "datum.alone")
        low, high = alt.Y("low:Q", title=unit), alt.Y2("high:Q")
        layers.append(alone.mark_rule(strokeWidth=1.5, opacity=1).encode(y=low, y2=high))
        layers.append(alone.mark_point(filled=True, size=50, opacity=1).encode(y=y))
    return layered(*layers, points)
