"""The charts of single samples: the scatter plot and one sample over the epochs."""

from __future__ import annotations

from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import (
    LOSS,
    WHOLE_ROW,
    Chart,
    ChartContext,
    Spec,
    epoch_axis,
    layered,
    log_axis,
    pair_layers,
    table,
    tip,
    transition_colour,
)
from confshift.reporting.theme import TRANSITION_LABELS, colour


def scatter_chart(_: ChartContext, __: str) -> Spec:
    """Draw each sample's loss at A and at B."""
    x = alt.X("before:Q", **log_axis("loss at A, nats"))
    y = alt.Y("after:Q", **log_axis("loss at B, nats"))
    shapes = ["circle", "triangle-down", "triangle-up", "square"]
    shape = alt.Shape("transition:N", scale=alt.Scale(domain=list(TRANSITION_LABELS.values()), range=shapes))
    diagonal = table("even").mark_line(stroke="var(--soft)", strokeDash=[3, 3], strokeWidth=1)
    dots = table("samples").mark_point(
        filled=True, size=26, opacity=1, fillOpacity=0.6, cursor="pointer", tooltip=WHOLE_ROW
    )
    ring = table("pinned").mark_point(size=170, stroke="var(--text)", strokeWidth=2, filled=False)
    return layered(
        diagonal.encode(x=x, y=y),
        dots.encode(x=x, y=y, color=transition_colour(alt.Legend(columns=2)), shape=shape, key="i:Q"),
        ring.encode(x=x, y=y, opacity=alt.Opacity("seen:Q", scale=None)),
    )


def trajectory_chart(context: ChartContext, _: str) -> Spec:
    """Draw one sample over the epochs."""
    y = alt.Y("loss:Q", **log_axis("nats"))
    base = table("trajectory").encode(x=epoch_axis(context.ends), y=y)
    kinds = ["right", "wrong"]
    tints = [colour("stayed_right"), colour("stayed_wrong")]
    points = base.mark_point(filled=True, size=40, opacity=1).encode(
        color=alt.Color("verdict:N", scale=alt.Scale(domain=kinds, range=tints)),
        shape=alt.Shape("verdict:N", scale=alt.Scale(domain=kinds, range=["circle", "cross"])),
        tooltip=[tip("epoch:Q"), tip("exact:Q", "loss", LOSS), tip("said:N", "predicted")],
    )
    level = table("uniform").encode(y=y)
    label = level.mark_text(align="left", x=4, dy=-7, fill="var(--soft)").encode(text=alt.Text("label:N"))
    line = base.mark_line(stroke="var(--soft)", strokeWidth=1.2)
    return layered(
        *(pair_layers() if context.paired else []), line, level.mark_rule(strokeDash=[4, 3]), label, points
    )


CHARTS = (
    Chart(
        "scatter",
        "Each sample's loss at A and at B",
        "samples",
        scatter_chart,
        250,
        source="samples",
        note="Hover for the sample, click to follow it. Losses below 0.001 stand at the edge.",
        follows="samples",
        pair_only=True,
        half=True,
    ),
    Chart(
        "trajectory",
        "The chosen sample over the epochs",
        "samples",
        trajectory_chart,
        260,
        follows="samples",
        one_run=True,
    ),
)
