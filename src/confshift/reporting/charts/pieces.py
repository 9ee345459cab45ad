"""What the charts are made of: named tables, tooltips, axes, the two chosen epochs."""

from __future__ import annotations

from typing import Any, TypeAlias

import altair as alt

from confshift.reporting.theme import SIDES, TRANSITION_LABELS, colour

__all__ = [
    "COUNT",
    "LEFT",
    "LOSS",
    "SHARE",
    "SIGNED",
    "WHOLE_ROW",
    "Spec",
    "bare_axis",
    "end_layers",
    "epoch_axis",
    "filtered",
    "infinite_layer",
    "layered",
    "log_axis",
    "pair_layers",
    "room_layer",
    "side_scale",
    "table",
    "tip",
    "transition_colour",
    "zero_rule",
]

#: A Vega-Lite spec, or a part of one.
Spec: TypeAlias = dict[str, Any]

#: Number formats of tooltips.
LOSS, SIGNED, COUNT, SHARE = ".4f", "+.4f", ",", ".2%"
#: Room for the labels of every chart over epochs, so that their epochs stand above each other.
LEFT = 40

#: The tooltip of a mark that comes by the hundreds: the page's script writes it when it is asked for. Made
#: beforehand for each mark, it would take a third of the time in which the chart is drawn.
WHOLE_ROW = alt.TooltipContent("data")

_LOSS_TICKS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]


def table(name: str) -> alt.Chart:
    """Start a chart of a named table."""
    return alt.Chart(alt.NamedData(name))


def filtered(chart: alt.Chart, condition: str) -> alt.Chart:
    """Keep the rows of a chart that meet a condition."""
    kept: alt.Chart = chart.transform_filter(condition)
    return kept


def layered(*layers: alt.Chart) -> Spec:
    """Draw charts above each other, the first at the bottom.

    As `alt.layer` does, which copies every part several times over: that took half of the time of a page.
    """
    plain = {"top_level": False}
    return {"layer": [one.to_dict(validate=False, context=dict(plain)) for one in layers]}


def tip(field: str, title: str | None = None, number: str | None = None) -> alt.Tooltip:
    """Return one line of a tooltip."""
    chosen: dict[str, Any] = {"title": title, "format": number}
    return alt.Tooltip(field, **{name: value for name, value in chosen.items() if value is not None})


def bare_axis() -> alt.Axis:
    """Return an axis of names: no line, no ticks."""
    return alt.Axis(domain=False, ticks=False, labelLimit=190, labelPadding=6)


def epoch_axis(ends: tuple[float, float] | None = None) -> alt.X:
    """Return the axis of epochs.

    Parameters
    ----------
    ends : tuple of float, optional
        The first and the last epoch. An axis that is told them does not look them up in the tables, so that
        its chart need not be drawn anew when the two chosen epochs move.
    """
    domain: dict[str, Any] = {"domain": list(ends)} if ends else {}
    return alt.X("epoch:Q", title="epoch", scale=alt.Scale(nice=False, zero=False, **domain))


def log_axis(title: str) -> dict[str, Any]:
    """Return the settings of an axis of single losses."""
    axis = alt.Axis(format="~g", values=_LOSS_TICKS, grid=True)
    return {"title": title, "scale": alt.Scale(type="log", nice=False), "axis": axis}


def transition_colour(legend: alt.Legend | None) -> alt.Color:
    """Return the colour of what became of a sample."""
    labels, range_ = list(TRANSITION_LABELS.values()), [colour(one) for one in TRANSITION_LABELS]
    return alt.Color("transition:N", scale=alt.Scale(domain=labels, range=range_), legend=legend)


def side_scale() -> alt.Scale:
    """Return the colours of before and after."""
    return alt.Scale(domain=list(SIDES), range=[colour(side) for side in SIDES])


def zero_rule(*, vertical: bool) -> alt.Chart:
    """Return the line of no change."""
    rule, place = table("zero").mark_rule(), "zero:Q"
    made: alt.Chart = rule.encode(x=alt.X(place)) if vertical else rule.encode(y=alt.Y(place))
    return made


def room_layer(chart: alt.Chart) -> alt.Chart:
    """Return nothing to see: it stretches the axis so that the text at the longest bar has a place."""
    made: alt.Chart = chart.mark_point(opacity=0, size=0).encode(x=alt.X("room:Q"))
    return made


def infinite_layer(*extra: alt.Tooltip) -> alt.Chart:
    """Return a sign at the top of each epoch whose loss is infinite: no axis has a place for it."""
    told = [
        *extra,
        tip("epoch:Q"),
        tip("infinite_samples:Q", "samples with an infinite loss", COUNT),
        tip("finite_loss:Q", "loss of the others, nats", LOSS),
    ]
    sign = table("infinite").mark_text(text="\u221e", fontSize=15, fontWeight="bold", baseline="top")
    made: alt.Chart = sign.encode(x=alt.X("epoch:Q"), y=alt.value(28), tooltip=told)
    return made


def pair_layers() -> list[alt.Chart]:
    """Return the two chosen epochs: a shade between two rules, A and B."""
    shade = table("pair").mark_rect(fill="var(--text)", opacity=0.06, clip=True)
    return [shade.encode(x=alt.X("start:Q"), x2=alt.X2("end:Q")), *end_layers()]


def end_layers() -> list[alt.Chart]:
    """Return the rules at the two chosen epochs, with their names."""
    ends = table("ends")
    layers: list[alt.Chart] = [
        ends.mark_rule(stroke="var(--text)", strokeWidth=1.2).encode(x=alt.X("epoch:Q"))
    ]
    places: list[tuple[str, int, Any]] = [("A", -5, "right"), ("B", 5, "left")]
    for label, dx, align in places:
        name = filtered(ends, f"datum.label == '{label}'")
        text = name.mark_text(baseline="top", dx=dx, align=align, fontWeight="bold")
        layers.append(text.encode(x=alt.X("epoch:Q"), y=alt.value(0), text=alt.Text("label:N")))
    return layers
