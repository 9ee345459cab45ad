"""The charts of one change: the waterfall, the cells, the change summed up over the samples."""

from __future__ import annotations

from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import (
    COUNT,
    SIGNED,
    Chart,
    ChartContext,
    Spec,
    bare_axis,
    layered,
    room_layer,
    steps,
    table,
    tip,
    transition_colour,
    zero_rule,
)
from confshift.reporting.theme import CELL_LABELS, colour


def account_chart(context: ChartContext, _: str) -> Spec:
    """Draw the waterfall from the loss at A to the loss at B."""
    y = alt.Y("label:N", sort=alt.EncodingSortField("order", op="min"), title=None, axis=bare_axis())
    kinds = alt.Scale(
        domain=["total", "up", "down"], range=[colour(kind) for kind in ("total", "up", "down")]
    )
    base = table("account").encode(y=y)
    bars = base.mark_bar(orient="horizontal", height={"band": 0.62}).encode(
        x=alt.X("start:Q", title=context.unit, axis=alt.Axis(grid=True)),
        x2=alt.X2("end:Q"),
        color=alt.Color("kind:N", scale=kinds, legend=None),
        tooltip=[tip("label:N", "step"), tip("value:Q", "nats", SIGNED)],
    )
    joins = base.mark_rule(strokeDash=[2, 2]).encode(x=alt.X("end:Q"), y2=alt.Y2("next:N"))
    texts = base.mark_text(align="left", dx=6, fontSize=12)
    return layered(joins, bars, texts.encode(x=alt.X("right:Q"), text=alt.Text("text:N")), room_layer(base))


def cells_chart(context: ChartContext, _: str) -> Spec:
    """Draw what each of the eight cells adds to the change."""
    base = table("cells").encode(
        y=alt.Y("label:N", sort=list(CELL_LABELS.values()), title=None, axis=bare_axis())
    )
    strength = alt.when("datum.direction == 'up'").then(alt.value(1)).otherwise(alt.value(0.55))
    bars = base.mark_bar(height={"band": 0.66}).encode(
        x=alt.X(
            "contribution:Q", title=f"contribution to the change, {context.unit}", axis=alt.Axis(grid=True)
        ),
        color=transition_colour(None),
        opacity=strength,
        tooltip=[
            tip("label:N", "samples that"),
            tip("contribution:Q", "nats", SIGNED),
            tip("samples:Q", number=COUNT),
        ],
    )
    texts = base.mark_text(align="left", dx=6).encode(x=alt.X("right:Q"), text=alt.Text("text:N"))
    return layered(bars, zero_rule(vertical=True), texts, room_layer(base))


def concentration_chart(context: ChartContext, _: str) -> Spec:
    """Draw the change summed up over the samples, largest rise first."""
    title = "share of the samples, those that rose most first"
    x = alt.X("share:Q", title=title, axis=alt.Axis(format=".0%"))
    y = alt.Y("cumulative:Q", title=f"{context.unit} of change, summed up")
    tooltip = [tip("share:Q", "share of the samples", ".1%"), tip("cumulative:Q", "nats", SIGNED)]
    area = table("concentration").mark_area(
        fill=colour("up"), opacity=0.15, line={"color": colour("up"), "strokeWidth": 2}
    )
    level = alt.Y("cumulative:Q")
    net = table("net").mark_rule(strokeDash=[4, 3])
    # Names beside the points would lie on each other, on the curve or on the axis, for some run.
    dash = alt.StrokeDash("label:N", scale=alt.Scale(range=[[4, 3]]))
    points = table("tops").mark_point(filled=True, size=60, fill="var(--text)", opacity=1)
    one_below_another = alt.Legend(columns=1)  # beside the other entry, on the width of a phone
    scale = alt.Scale(range=["circle", "diamond"])
    shapes = alt.Shape("label:N", scale=scale, legend=one_below_another)
    return layered(
        area.encode(x=x, y=y, tooltip=tooltip),
        net.encode(y=level, strokeDash=dash),
        points.encode(x=x, y=y, shape=shapes, tooltip=tooltip),
    )


CHARTS = (
    Chart(
        "account",
        "From the loss at A to the loss at B in three steps",
        "account",
        account_chart,
        steps(40),
        note="Loss = hedging (how unsure the model is of its own answer) + error rate × cost of a mistake.",
        pair_only=True,
        half=True,
        still=540,
        paper=640,
    ),
    Chart(
        "cells",
        "The change by what became of the samples",
        "cells",
        cells_chart,
        steps(24),
        note="Every sample is in one bar; the bars add up to the change.",
        pair_only=True,
        half=True,
        still=540,
        paper=640,
    ),
    Chart(
        "concentration",
        "The change added up, samples that rose most first",
        "concentration",
        concentration_chart,
        250,
        note="The curve climbs where losses rose, falls where they fell, and ends at the change of the mean.",
        follows="samples",
        pair_only=True,
        half=True,
    ),
)
