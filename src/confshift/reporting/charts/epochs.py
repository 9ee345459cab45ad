"""The charts over epochs: losses, accuracy, the two parts of the loss, the cells of every epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from confshift.reporting.charts.key import (
    RULE,
    SHAPES,
    Entry,
    dash_scale,
    line_entry,
    not_finite_entries,
    with_key,
)
from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import (
    LOSS,
    MOST_DOTS,
    SHARE,
    SIGNED,
    STEP,
    WHOLE_ROW,
    Chart,
    ChartContext,
    Spec,
    epoch_axis,
    filtered,
    layered,
    not_finite_layers,
    pair_layers,
    table,
    tip,
    transition_colour,
    zero_rule,
)
from confshift.reporting.charts.runs import run_accuracy_chart, run_key, run_loss_chart
from confshift.reporting.theme import KEPT, LEFT, LOSSES, MARKS, PARTS, SERIES, colour

#: The accuracy is drawn as high as the classes beside it, but no lower than this.
_LOWEST = 190
#: The dashes of the lines of other splits, and of the rule where a rise begins.
_DASHES: tuple[Sequence[float], ...] = ((1, 0), (5, 2), (2, 2))
_DOTS = (2, 3)


def _curves(
    name: str,
    series: Mapping[str, str],
    context: ChartContext,
    key: Sequence[Entry] = (),
    *,
    unit: str | None,
    number: str,
    span: str,
) -> list[alt.Chart | Spec]:
    """Means over epochs with bands of 1.96 standard errors, and the two chosen epochs."""
    chart = name.removesuffix("_series")
    keys, labels = list(series), list(series.values())
    tints = alt.Scale(domain=labels, range=[colour(SERIES[key][0]) for key in keys])
    tint = alt.Color("series:N", scale=tints, legend=None)
    limits: Any = context.limits[f"{chart}_{span}"]
    scale = alt.Scale(zero=False, **limits)
    axis = alt.Axis(format=number, minExtent=LEFT, tickCount=5)
    y = alt.Y("mean:Q", title=unit, scale=scale, axis=axis)
    base = table(name).encode(x=epoch_axis(context.ends), color=tint)
    low = alt.Y("low:Q", title=unit, scale=scale, axis=axis)
    band = base.mark_area(opacity=0.18, clip=True).encode(y=low, y2=alt.Y2("high:Q"))
    line = base.mark_line(strokeWidth=2, clip=True).encode(y=y)
    if key:
        line = line.encode(strokeDash=alt.StrokeDash("series:N", scale=alt.Scale(**dash_scale(key))))
    layers: list[alt.Chart | Spec] = [*(pair_layers() if context.paired else []), band, line]
    if not context.paired:
        layers.append(base.mark_rule(strokeWidth=1.5, opacity=1).encode(y=low, y2=alt.Y2("high:Q")))
    if len(context.epochs) <= MOST_DOTS:
        layers.append(base.mark_point(filled=True, size=20, opacity=1, clip=True).encode(y=y))
    return [*layers, _hover()]


def _hover() -> alt.Chart:
    """Return an invisible rule at every epoch whose tooltip has its numbers."""
    tooltip = [
        tip("epoch:Q"),
        tip("loss:Q", "loss, nats", LOSS),
        tip("scale_loss:Q", "scale", LOSS),
        tip("balance_loss:Q", "class balance", LOSS),
        tip("refinement_loss:Q", "the rest: once calibrated", LOSS),
        tip("accuracy:Q", "accuracy", SHARE),
        tip("temperature:Q", "temperature", ".3f"),
    ]
    rule: alt.Chart = (
        table("epochs").mark_rule(strokeWidth=8, strokeOpacity=0).encode(x=alt.X("epoch:Q"), tooltip=tooltip)
    )
    return rule


def loss_chart(context: ChartContext, span: str) -> Spec:
    """Draw the loss and the loss once calibrated over epochs."""
    if context.two_runs:
        return run_loss_chart(context, span)
    key = _key(context)
    layers = _curves("loss_series", LOSSES, context, key, unit=context.unit, number=".4~f", span=span)
    layers += _other_splits(key) if context.splits else []
    layers += _rise() if context.rise else []
    layers += _marks(context) if context.paired else []
    return with_key([*layers, *not_finite_layers(context.not_finite)], key)


def key_labels(context: ChartContext) -> list[str]:
    """Return the names in the key of the losses, of one run or of two."""
    return [entry.label for entry in (run_key(context) if context.two_runs else _key(context))]


def _key(context: ChartContext) -> list[Entry]:
    """Name everything that the chart of the loss draws."""
    entries = [line_entry(label, *SERIES[key]) for key, label in LOSSES.items()]
    entries += [
        line_entry(name, "other", dash) for name, dash in zip(context.splits, cycle(_DASHES), strict=False)
    ]
    if context.paired:
        black = "var(--text)"
        entries += [
            Entry(
                context.marks[label], SHAPES[shape], black, fill="transparent" if shape == KEPT[1] else black
            )
            for label, shape in (*MARKS.values(), KEPT)
            if label in context.marks
        ]
    if context.rise:
        entries.append(Entry(context.rise, RULE, "var(--soft)", _DOTS))
    return entries + not_finite_entries(context)


def _other_splits(key: Sequence[Entry]) -> list[alt.Chart]:
    line = table("other_splits").mark_line(stroke=colour("other"), strokeWidth=1.3, clip=True)
    dash = alt.StrokeDash("label:N", scale=alt.Scale(**dash_scale(key)))
    tooltip = [tip("split:N"), tip("epoch:Q"), tip("mean:Q", "loss, nats", LOSS)]
    return [line.encode(x=alt.X("epoch:Q"), y=alt.Y("mean:Q"), strokeDash=dash, tooltip=tooltip)]


def _rise() -> list[alt.Chart]:
    """Mark the epoch after which every epoch is worse than the best."""
    rule = table("rise").mark_rule(strokeDash=list(_DOTS), strokeWidth=1.5)
    return [rule.encode(x=alt.X("epoch:Q"))]


def _marks(context: ChartContext) -> list[alt.Chart]:
    """Mark the best checkpoints on their curves, and the one to keep by a ring around whatever lies there.

    The rim shows both where they lie on each other.
    """
    layers = []
    solid: dict[str, Any] = {
        "filled": True,
        "size": 110,
        "fill": "var(--text)",
        "stroke": "var(--page)",
        "opacity": 1,
    }
    looks: dict[str, dict[str, Any]] = {label: {"shape": shape, **solid} for label, shape in MARKS.values()}
    looks[KEPT[0]] = {"filled": False, "size": 340, "stroke": "var(--text)", "strokeWidth": 2, "opacity": 1}
    for label, look in looks.items():
        points = filtered(table("marks"), f"datum.label == '{label}'").mark_point(**look)
        tooltip = [tip("label:N", "checkpoint"), tip("epoch:Q")]
        layers.append(points.encode(x=alt.X("epoch:Q"), y=alt.Y("mean:Q"), tooltip=tooltip))
    return layers


def accuracy_chart(context: ChartContext, span: str) -> Spec:
    """Draw the accuracy over epochs."""
    if context.two_runs:
        return run_accuracy_chart(context, span)
    return layered(
        *_curves("accuracy_series", {"accuracy": "accuracy"}, context, unit=None, number=".3~%", span=span)
    )


def parts_chart(context: ChartContext, span: str) -> Spec:
    """Draw the three parts of the loss over epochs on top of each other, and the loss, their sum."""
    limits: Any = context.limits[f"part_{span}"]
    scale = alt.Scale(zero=True, nice=False, **limits)
    axis = alt.Axis(format=".4~f", minExtent=LEFT, tickCount=5)
    end = alt.Y("end:Q", title=context.unit, scale=scale, axis=axis)
    roles, labels = zip(*reversed(PARTS.values()), strict=True)  # the legend reads as the bands lie
    fill = alt.Color(
        "part:N",
        scale=alt.Scale(domain=list(labels), range=[colour(role) for role in roles]),
        legend=alt.Legend(symbolType="square"),
    )
    base = table("part_series").encode(x=epoch_axis(context.ends), color=fill)
    start = alt.Y2("start:Q")
    if len(context.epochs) == 1:
        bands = base.mark_bar(width=60, opacity=0.75).encode(y=end, y2=start)
    else:
        bands = base.mark_area(opacity=0.75, clip=True, line=False).encode(y=end, y2=start)
    line = table("epochs").mark_line(stroke="var(--text)", strokeWidth=1.8, clip=True)
    loss = line.encode(x=alt.X("epoch:Q"), y=alt.Y("loss:Q"))
    return layered(bands, *(pair_layers() if context.paired else []), loss, _hover())


def history_chart(context: ChartContext, _: str) -> Spec:
    """Draw the change of every epoch against epoch A, by transition of the samples."""
    x = alt.X(
        "epoch:O",
        title="epoch",
        scale=alt.Scale(paddingInner=0.12),
        axis=alt.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=24),
    )
    y = alt.Y("contribution:Q", title=context.unit, axis=alt.Axis(minExtent=LEFT))
    bars = (
        table("history")
        .mark_bar(tooltip=WHOLE_ROW)
        .encode(x=x, y=y, color=transition_colour(alt.Legend(columns=2)), key="key:N")
    )
    total = table("history_total").encode(x=x, y=alt.Y("change:Q"))
    line = total.mark_line(stroke="var(--text)", strokeWidth=1.8)
    points = total.mark_point(filled=True, size=16, fill="var(--text)", opacity=1)
    whole = [tip("epoch:O"), tip("change:Q", "change of the loss", SIGNED)]
    return layered(bars, zero_rule(vertical=False), line, points.encode(tooltip=whole, key="epoch:Q"))


CHARTS = (
    Chart(
        "loss",
        "Loss over epochs",
        "top",
        loss_chart,
        128,
        source="epochs",
        note="Bands: 95 % intervals. Grey: from A to B.",
        variant="span",
        drag=True,
        still=640,
        paper=640,
    ),
    Chart(
        "accuracy",
        "Accuracy",
        "accuracy",
        accuracy_chart,
        lambda context: max(_LOWEST, STEP * context.classes),
        source="epochs",
        variant="span",
        drag=True,
        half=True,
        still=540,
        paper=640,
    ),
    Chart(
        "history",
        "Change since epoch A by what became of the samples",
        "history",
        history_chart,
        192,
        note="The bars of an epoch add up to the line, the change of the loss since epoch A. The epochs of "
        "the initial fall are left out.",
        pair_only=True,
        one_run=True,
        half=True,
    ),
    Chart(
        "parts",
        "The loss in three parts: scale, class balance and the rest",
        "parts",
        parts_chart,
        200,
        source="part_series",
        note="The three add up to the loss, the line. A temperature repairs the scale, a bias for each class "
        "the class balance. A part below 0 lies inside the one beneath it.",
        variant="span",
        one_run=True,
        drag=True,
        half=True,
        still=540,
        paper=640,
    ),
)
