"""The charts of two runs over their epochs."""

from __future__ import annotations

from typing import Any

from confshift.reporting.charts.key import (
    LINE,
    Entry,
    dash_scale,
    line_entry,
    not_finite_entries,
    with_key,
)
from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import (
    LOSS,
    SHARE,
    ChartContext,
    Spec,
    end_layers,
    epoch_axis,
    filtered,
    layered,
    not_finite_layers,
    table,
    tip,
)
from confshift.reporting.theme import LEFT, LOSSES, SERIES, SIDES, colour


def run_loss_chart(context: ChartContext, span: str) -> Spec:
    """Draw the losses of both runs, as they are and once calibrated."""
    key = run_key(context)
    dash = alt.StrokeDash("series:N", scale=alt.Scale(**dash_scale(key)))
    layers = _curves(context, "run_losses", context.limits[f"loss_{span}"], context.unit, ".4~f", LOSS, dash)
    return with_key([*layers, *not_finite_layers(context.not_finite, tip("run:N"))], key)


def run_key(context: ChartContext) -> list[Entry]:
    """Name everything that the chart of the losses of two runs draws."""
    runs = [line_entry(run, side) for run, side in zip(context.runs, SIDES, strict=True)]
    losses = [Entry(label, LINE, "var(--text)", SERIES[name][1]) for name, label in LOSSES.items()]
    return [*runs, *losses, *not_finite_entries(context)]


def run_accuracy_chart(context: ChartContext, span: str) -> Spec:
    """Draw the accuracies of both runs."""
    limits = context.limits[f"accuracy_{span}"]
    return layered(*_curves(context, "run_accuracies", limits, None, ".3~%", SHARE, None))


def _curves(
    context: ChartContext,
    name: str,
    limits: Any,
    unit: str | None,
    number: str,
    tooltip: str,
    dash: alt.StrokeDash | None,
) -> list[alt.Chart | Spec]:
    tints = alt.Scale(domain=list(context.runs), range=[colour(side) for side in SIDES])
    legend = None if dash else alt.Legend()  # where curves have dashes, the chart has a key
    tint = alt.Color("run:N", scale=tints, legend=legend)
    scale = alt.Scale(zero=False, **limits)
    y = alt.Y("mean:Q", title=unit, scale=scale, axis=alt.Axis(format=number, minExtent=LEFT, tickCount=5))
    base = table(name).encode(x=epoch_axis(), color=tint, detail=alt.Detail("series:N"))
    band = base.mark_area(opacity=0.14, clip=True).encode(y=alt.Y("low:Q", title=unit), y2=alt.Y2("high:Q"))
    line = base.mark_line(strokeWidth=2, clip=True).encode(y=y)
    lines = line.encode(strokeDash=dash) if dash else line
    points = base.mark_point(filled=True, size=60, opacity=0, clip=True).encode(
        y=y,
        tooltip=[tip("run:N"), tip("epoch:Q"), tip("series:N"), tip("mean:Q", unit or "accuracy", tooltip)],
    )
    layers: list[alt.Chart | Spec] = [*end_layers(), band, lines]
    if context.lone:
        alone = filtered(base, "datum.alone")
        low, high = alt.Y("low:Q", title=unit), alt.Y2("high:Q")
        layers.append(alone.mark_rule(strokeWidth=1.5, opacity=1).encode(y=low, y2=high))
        layers.append(alone.mark_point(filled=True, size=50, opacity=1).encode(y=y))
    return [*layers, points]
