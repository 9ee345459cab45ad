"""The charts of confidence: reliability, right and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import altair as alt

from confshift.reporting.charts.parts import (
    COUNT,
    LEFT,
    SHARE,
    Chart,
    ChartContext,
    Spec,
    filtered,
    layered,
    side_scale,
    table,
    tip,
)
from confshift.reporting.theme import SIDES, colour

_ODDS_LABEL = "format(1 / (1 + exp(-datum.value)), '.4~%')"


def _probability_axis(scale: str, ticks: Sequence[float], extent: int = 0) -> alt.Axis:
    label = _ODDS_LABEL if scale == "odds" else "format(datum.value, '.0%')"
    return alt.Axis(values=list(ticks), labelExpr=label, grid=True, labelOverlap="greedy", minExtent=extent)


def reliability_chart(side: str, context: ChartContext, scale: str) -> Spec:
    """Draw accuracy against confidence on one side, with its uncertainty."""
    ticks = context.ticks(scale)
    limits = alt.Scale(domain=[ticks[0], ticks[-1]], nice=False, clamp=True)
    x = alt.X("x:Q", title="confidence", scale=limits, axis=_probability_axis(scale, ticks))
    axis = _probability_axis(scale, ticks, LEFT)
    y = alt.Y("y:Q", title="accuracy", scale=limits, axis=axis)
    low = alt.Y("low:Q", title="accuracy", scale=limits, axis=axis)
    tooltip = [
        tip("confidence:Q", number=SHARE),
        tip("accuracy:Q", number=SHARE),
        tip("samples:Q", number=COUNT),
    ]
    band = table(f"band_{side}").mark_area(fill="var(--soft)", opacity=0.2)
    diagonal = table("diagonal").mark_line(strokeDash=[3, 3], stroke="var(--soft)", strokeWidth=1)
    curve = table(f"isotonic_{side}").mark_line(stroke=colour(side), strokeWidth=2)
    dots = table(f"bins_{side}").encode(x=x, tooltip=tooltip)
    points = dots.mark_point(
        filled=True,
        size=46,
        opacity=1,
        shape=SIDES[side],
        fill=colour(side),
        stroke="var(--card)",
        strokeWidth=1,
    )
    return layered(
        band.encode(x=x, y=low, y2=alt.Y2("high:Q")),
        diagonal.encode(x=x, y=y),
        curve.encode(x=x, y=y),
        dots.mark_rule(stroke=colour(side), strokeWidth=1.4).encode(y=low, y2=alt.Y2("high:Q")),
        points.encode(y=y),
    )


def confidence_chart(kind: str, context: ChartContext, scale: str) -> Spec:
    """Draw the confidences of the right or of the wrong answers, before and after."""
    ticks = context.ticks(scale)
    limits = alt.Scale(domain=[ticks[0], ticks[-1]], nice=False, clamp=True)
    y = alt.Y(
        "samples:Q",
        title=f"{kind} samples",
        stack=None,
        axis=alt.Axis(tickCount=3, format="~s", minExtent=LEFT),
    )
    base = table(f"confidence_{kind}").encode(
        x=alt.X("start:Q", title="confidence", scale=limits, axis=_probability_axis(scale, ticks)),
        x2=alt.X2("end:Q"),
        y=y,
        color=alt.Color("side:N", scale=side_scale()),
        tooltip=[tip("side:N"), tip("from:N"), tip("to:N"), tip("samples:Q", number=COUNT)],
    )
    bars = filtered(base, "datum.side == 'after'").mark_bar(orient="vertical", opacity=0.75)
    if not context.paired:
        return layered(bars)
    outline = filtered(base, "datum.side == 'before'").mark_bar(
        orient="vertical", fillOpacity=0.1, strokeWidth=1.6
    )
    stroke = alt.Stroke("side:N", scale=side_scale())
    return layered(bars, outline.encode(stroke=stroke))


CHARTS = (
    *(
        Chart(
            f"reliability_{side}",
            f"Reliability at {letter}",
            "reliability",
            partial(reliability_chart, side),
            280,
            source=f"bins_{side}",
            variant="scale",
            pair_only=side == "before",
            half=True,
            paper=300,
        )
        for side, letter in (("before", "A"), ("after", "B"))
    ),
    *(
        Chart(
            f"confidence_{kind}",
            f"Confidence of {kind} answers",
            "reliability",
            partial(confidence_chart, kind),
            130,
            variant="scale",
            half=True,
        )
        for kind in ("right", "wrong")
    ),
)
