"""The declaration of a chart, and the parts of charts: named tables, tooltips, axes, the two epochs."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias, cast

from confshift.reporting.charts.lazy import alt
from confshift.reporting.theme import SIDES, TRANSITION_LABELS, colour

#: A Vega-Lite spec, or a part of one.
Spec: TypeAlias = dict[str, Any]

#: Number formats of tooltips.
LOSS, SIGNED, COUNT, SHARE = ".4f", "+.4f", ",", ".2%"
#: The height of a row of classes, in pixels.
STEP = 20
#: A curve has dots at its epochs where there are at most this many.
MOST_DOTS = 40

#: The tooltip of marks that come by the hundreds: the page's script writes it on demand. Making one for each
#: mark in advance would take a third of the drawing time.
WHOLE_ROW = {"content": "data"}

#: Above a chart over epochs: the tops of the strips with their colours, and the bottom of the names A and B.
STRIPS = {"unanswered": (-4, "not_finite"), "infinite": (-9, "infinite")}
_NAMES = -10

_LOSS_TICKS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]

_PROBABILITY_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 1)
#: The variants of a chart: by the span of losses, or by the scale of confidences.
VARIANTS = {"": ("",), "span": ("near", "whole"), "scale": ("probability", "odds")}


@dataclass(frozen=True)
class ChartContext:
    """What decides how the charts are drawn, apart from their data."""

    epochs: Sequence[float]  # ascending
    classes: int  # shown one by one
    odds_ticks: Sequence[float]  # the first and the last bound the axis of log-odds
    limits: Mapping[str, Mapping[str, float]]  # of the charts over epochs: the scale of each span
    splits: Sequence[str] = ()  # the names of the lines of other splits
    marks: Mapping[str, str] = field(default_factory=dict)  # marked checkpoints: label, name in the key
    rise: str = ""  # the name of the start of a rise, where there is one
    not_finite: Mapping[str, str] = field(default_factory=dict)  # what is not finite at some epoch: name
    runs: Sequence[str] = ()  # the names of two runs, of which one checkpoint each is compared
    sides: Sequence[str] = ()  # how legends name A and B of one run, where not by these letters
    unit: str = "nats"  # of means of losses: with how these are weighted
    lone: bool = False  # whether one of the two has no other checkpoint

    def ticks(self, scale: str) -> Sequence[float]:
        """Return the ticks of an axis of confidences, including its ends."""
        return self.odds_ticks if scale == "odds" else _PROBABILITY_TICKS

    @property
    def two_runs(self) -> bool:
        """Whether two runs are compared."""
        return len(self.runs) > 1

    @property
    def ends(self) -> tuple[float, float] | None:
        """The first and the last epoch of one run; those of other splits lie between them."""
        return (self.epochs[0], self.epochs[-1]) if self.paired and not self.two_runs else None

    @property
    def paired(self) -> bool:
        """Whether there are two checkpoints to compare."""
        return len(self.epochs) > 1


@dataclass(frozen=True)
class Chart:
    """A chart: how to draw it, its place on the page, what it does when the reader chooses another pair.

    Its caption is the reading of the same name, where there is one.
    """

    name: str  # of the picture; with the variant, of the spec
    title: str
    section: str  # the anchor of its place on the page; "top" is the first screen
    draw: Callable[[ChartContext, str], Spec]  # in a variant
    height: int | Spec | Callable[[ChartContext], int]  # in pixels; or of `steps`
    source: str = ""  # the table behind it, if it has another name
    note: str = ""  # how to read it
    follows: str = "exact"  # for another pair: "exact", "samples" (from the page's samples), "fixed"
    variant: str = ""  # a key of VARIANTS
    pair_only: bool = False  # needs two checkpoints
    one_run: bool = False  # follows the epochs of one run
    drag: bool = False  # dragging on it chooses two epochs
    half: bool = False  # two of them share a row
    still: int = 0  # the width of its still picture in the page; 0 where it has none
    paper: int = 0  # the width in which `plot` draws it; 0 where only the page's script has its rows

    @property
    def table(self) -> str:
        """The table behind it."""
        return self.source or self.name

    def height_in(self, context: ChartContext) -> int | Spec:
        """Return its height in a context."""
        return self.height(context) if callable(self.height) else self.height

    def variants(self) -> list[tuple[str, str]]:
        """Return the id and the variant of each spec."""
        return [("_".join(filter(None, (self.name, variant))), variant) for variant in VARIANTS[self.variant]]


def steps(size: int) -> Spec:
    """Return a height of this many pixels for each row."""
    return {"step": size}


def table(name: str) -> alt.Chart:
    """Start a chart of a named table."""
    return alt.Chart(alt.NamedData(name))


def filtered(chart: alt.Chart, condition: str) -> alt.Chart:
    """Keep the rows of a chart that meet a condition."""
    rows: alt.Chart = chart.transform_filter(condition)
    return rows


def layered(*layers: alt.Chart | Spec) -> Spec:
    """Draw charts above each other, the first at the bottom.

    Like `alt.layer`, but that copies every part several times, which took half of the time of a page.
    """
    return {"layer": [layer if isinstance(layer, dict) else _plain(layer) for layer in layers]}


def _plain(chart: alt.Chart) -> Spec:
    spec: Spec = chart.to_dict(validate=False, context={"top_level": False})
    return spec


def tip(field: str, title: str | None = None, number: str | None = None) -> alt.Tooltip:
    """Return one line of a tooltip."""
    settings: dict[str, Any] = {"title": title, "format": number}
    return alt.Tooltip(field, **{name: value for name, value in settings.items() if value is not None})


def bare_axis() -> alt.Axis:
    """Return an axis of names: no line, no ticks."""
    return alt.Axis(domain=False, ticks=False, labelLimit=190, labelPadding=6)


def epoch_axis(ends: tuple[float, float] | None = None) -> alt.X:
    """Return the axis of epochs.

    Parameters
    ----------
    ends : tuple of float, optional
        The first and the last epoch. With them the axis does not depend on the tables, so its chart need not
        be drawn anew when the reader moves the two epochs.
    """
    domain: dict[str, Any] = {"domain": list(ends)} if ends else {}
    return alt.X("epoch:Q", title="epoch", scale=alt.Scale(nice=False, zero=False, **domain))


def log_axis(title: str) -> dict[str, Any]:
    """Return the settings of an axis of single losses."""
    axis = alt.Axis(format="~g", values=_LOSS_TICKS, grid=True)
    return {"title": title, "scale": alt.Scale(type="log", nice=False), "axis": axis}


def transition_colour(legend: alt.Legend | None) -> alt.Color:
    """Return the colour of a sample's transition."""
    labels, range_ = list(TRANSITION_LABELS.values()), [colour(label) for label in TRANSITION_LABELS]
    return alt.Color("transition:N", scale=alt.Scale(domain=labels, range=range_), legend=legend)


def side_colour(context: ChartContext, **legend: Any) -> alt.Color:
    """Return the colour of a side; the legend names the runs where there are two."""
    return alt.Color("side:N", scale=side_scale(), legend=side_legend(context, **legend))


def side_scale() -> alt.Scale:
    """Return the colours of A and B."""
    return alt.Scale(domain=list(SIDES), range=[colour(side) for side in SIDES])


def side_legend(context: ChartContext, **settings: Any) -> alt.Legend | None:
    """Return the legend of A and B; None where there is one checkpoint."""
    if not context.paired:
        return None
    names = json.dumps(dict(zip(SIDES, context.runs or context.sides or SIDES, strict=True)))
    return alt.Legend(labelExpr=f"({names})[datum.value]", **settings)


def zero_rule(*, vertical: bool) -> alt.Chart:
    """Return the line of no change."""
    rule, place = table("zero").mark_rule(), "zero:Q"
    line: alt.Chart = rule.encode(x=alt.X(place)) if vertical else rule.encode(y=alt.Y(place))
    return line


def room_layer(chart: alt.Chart) -> alt.Chart:
    """Return an invisible layer that stretches the axis to make room for the text at the longest bar."""
    layer: alt.Chart = chart.mark_point(opacity=0, size=0).encode(x=alt.X("room:Q"))
    return layer


def not_finite_layers(kinds: Collection[str], *extra: alt.Tooltip) -> list[alt.Chart]:
    """Return a strip above the chart for each kind, over the epochs where something is not finite."""
    tooltip = [
        *extra,
        tip("epoch:Q"),
        tip("unanswered_samples:Q", "samples with outputs that are not finite", COUNT),
        tip("infinite_samples:Q", "samples with an infinite loss", COUNT),
        tip("finite_loss:Q", "loss of the others, nats", LOSS),
    ]
    layers: list[alt.Chart] = []
    for kind in kinds:
        top, tint = STRIPS[kind]
        rows = filtered(table("not_finite"), f"datum.{kind}_samples > 0")
        # The stroke keeps a single epoch among many visible.
        strip = rows.mark_rect(fill=colour(tint), stroke=colour(tint), strokeWidth=1.5)
        place = {"x": alt.X("start:Q"), "x2": alt.X2("end:Q"), "y": alt.value(top), "y2": alt.value(top + 3)}
        layers.append(strip.encode(**place, tooltip=tooltip))
    return layers


@cache
def pair_layers() -> tuple[Spec, ...]:
    """Return the two chosen epochs, which many charts have: a shade between two rules, A and B."""
    shade = table("pair").mark_rect(fill="var(--text)", opacity=0.06, clip=True)
    return _plain(shade.encode(x=alt.X("start:Q"), x2=alt.X2("end:Q"))), *end_layers()


@cache
def end_layers() -> tuple[Spec, ...]:
    """Return the rules at the two chosen epochs, with their names above the chart, each on its outer side."""
    ends = table("ends")
    layers: list[alt.Chart] = [
        ends.mark_rule(stroke="var(--text)", strokeWidth=1.2).encode(x=alt.X("epoch:Q"))
    ]
    for align, dx in (("right", -3), ("left", 3)):
        name = filtered(ends, f"datum.align == '{align}'")
        text = name.mark_text(baseline="bottom", dx=dx, align=cast(Any, align), fontWeight="bold")
        layers.append(text.encode(x=alt.X("epoch:Q"), y=alt.value(_NAMES), text=alt.Text("label:N")))
    return tuple(map(_plain, layers))
