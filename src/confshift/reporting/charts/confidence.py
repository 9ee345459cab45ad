"""The charts of confidence: reliability, right and wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import (
    COUNT,
    SHARE,
    Chart,
    ChartContext,
    Spec,
    filtered,
    layered,
    side_colour,
    side_legend,
    side_scale,
    table,
    tip,
)
from confshift.reporting.theme import LEFT, SIDES, colour

#: Heights of the reliability diagram, of the strip of counts below it, and of the gap between.
_RELIABILITY, _GAP, _STRIP = 380, 22, 60

_ODDS_LABEL = "format(1 / (1 + exp(-datum.value)), '.4~%')"


def _probability_axis(scale: str, ticks: Sequence[float], extent: int = 0) -> alt.Axis:
    label = _ODDS_LABEL if scale == "odds" else "format(datum.value, '.0%')"
    return alt.Axis(values=list(ticks), labelExpr=label, labelOverlap="greedy", minExtent=extent)


def reliability_chart(context: ChartContext, scale: str) -> Spec:
    """Draw accuracy against confidence on both sides, and below it how many samples have which confidence."""
    ticks = context.ticks(scale)
    limits = [ticks[0], ticks[-1]]
    axis = _probability_axis(scale, ticks, LEFT)
    y_scale = alt.Scale(domain=limits, nice=False, clamp=True, range=[_RELIABILITY, 0])
    x = _confidence_axis("x:Q", context, scale)
    y = alt.Y("y:Q", title="accuracy", scale=y_scale, axis=axis)
    low = alt.Y("low:Q", title="accuracy", scale=y_scale, axis=axis)
    diagonal = table("diagonal").mark_line(strokeDash=[3, 3], stroke="var(--soft)", strokeWidth=1)
    sides = list(SIDES) if context.paired else ["B"]
    layers: list[alt.Chart | Spec] = [
        table(f"band_{side}")
        .mark_area(fill="var(--soft)", opacity=0.14)
        .encode(x=x, y=low, y2=alt.Y2("high:Q"))
        for side in sides
    ]
    layers.append(diagonal.encode(x=x, y=y))
    for side in sides:
        layers += _reliability_of(side, context, x=x, y=y, low=low)
    return {
        **layered(layered(*layers), _counts(context, scale)),
        "resolve": {"scale": {"y": "independent"}},
    }


def _confidence_axis(field: str, context: ChartContext, scale: str) -> alt.X:
    ticks = context.ticks(scale)
    limits = alt.Scale(domain=[ticks[0], ticks[-1]], nice=False, clamp=True)
    axis = _probability_axis(scale, ticks)
    return alt.X(field, title="confidence", scale=limits, axis=axis)


def _reliability_of(side: str, context: ChartContext, *, x: alt.X, y: alt.Y, low: alt.Y) -> list[alt.Chart]:
    """Draw the curve of one side, and its bins with their intervals."""
    tooltip = [
        tip("side:N", "at"),
        tip("confidence:Q", number=SHARE),
        tip("accuracy:Q", number=SHARE),
        tip("samples:Q", number=COUNT),
    ]
    tint = side_colour(context)
    curve = table(f"isotonic_{side}").mark_line(stroke=colour(side), strokeWidth=2)
    dots = table(f"bins_{side}").encode(x=x, tooltip=tooltip)
    points = dots.mark_point(
        filled=True, size=46, opacity=1, shape=SIDES[side], stroke="var(--card)", strokeWidth=1
    )
    return [
        curve.encode(x=x, y=y),
        dots.mark_rule(stroke=colour(side), strokeWidth=1.4).encode(y=low, y2=alt.Y2("high:Q")),
        points.encode(y=y, color=tint),
    ]


def _counts(context: ChartContext, scale: str) -> Spec:
    """Draw the samples by confidence, in a strip below the diagram and on the same axis."""
    strip = alt.Scale(range=[_RELIABILITY + _GAP + _STRIP, _RELIABILITY + _GAP], nice=False)
    axis = alt.Axis(tickCount=2, format="~s", minExtent=LEFT, orient="left", titleY=_RELIABILITY + _GAP - 4)
    base = table("confidence_counts").encode(
        x=_confidence_axis("start:Q", context, scale),
        x2=alt.X2("end:Q"),
        y=alt.Y("samples:Q", title="samples", stack=None, scale=strip, axis=axis),
        tooltip=[tip("side:N", "at"), tip("from:N"), tip("to:N"), tip("samples:Q", number=COUNT)],
    )
    return layered(*_both_sides(base, context))


def confidence_chart(kind: str, context: ChartContext, scale: str) -> Spec:
    """Draw the confidences of the right or of the wrong answers at A and at B."""
    y = alt.Y(
        "samples:Q",
        title=f"{kind} samples",
        stack=None,
        axis=alt.Axis(tickCount=3, format="~s", minExtent=LEFT),
    )
    base = table(f"confidence_{kind}").encode(
        x=_confidence_axis("start:Q", context, scale),
        x2=alt.X2("end:Q"),
        y=y,
        tooltip=[tip("side:N", "at"), tip("from:N"), tip("to:N"), tip("samples:Q", number=COUNT)],
    )
    return layered(*_both_sides(base, context))


def _both_sides(base: alt.Chart, context: ChartContext) -> list[alt.Chart]:
    """Draw bars of the later side, and outlines of the earlier one above them."""
    tint = side_colour(context)
    bars = (
        filtered(base, "datum.side == 'B'").mark_bar(orient="vertical", fillOpacity=0.75).encode(color=tint)
    )
    if not context.paired:
        return [bars]
    outline = filtered(base, "datum.side == 'A'").mark_bar(
        orient="vertical", fillOpacity=0.1, strokeWidth=1.6
    )
    stroke = alt.Stroke("side:N", scale=side_scale(), legend=side_legend(context))
    return [bars, outline.encode(color=tint, stroke=stroke)]


CHARTS = (
    Chart(
        "reliability",
        "How often answers of each confidence are right",
        "reliability",
        reliability_chart,
        _RELIABILITY + _GAP + _STRIP,
        variant="scale",
        half=True,
        paper=420,
    ),
    *(
        Chart(
            f"confidence_{kind}",
            f"Confidence of {kind} answers",
            "reliability",
            partial(confidence_chart, kind),
            142,
            variant="scale",
            half=True,
        )
        for kind in ("right", "wrong")
    ),
)
