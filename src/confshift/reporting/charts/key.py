"""The key of the losses over epochs: a name for every line, mark and strip, above the chart.

Names inside the chart would lie on curves and on each other, for some run at some width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import STRIPS, ChartContext, Spec, layered
from confshift.reporting.theme import LEFT, colour

#: Symbols, as paths between -1 and 1: Vega's own would all be as large as a line is long.
LINE, RULE, STRIP = "M-1,0L1,0", "M0,-0.7L0,0.7", "M-1,-0.25L1,-0.25L1,0.25L-1,0.25Z"
SHAPES = {
    "circle": "M0.55,0A0.55,0.55,0,1,1,-0.55,0A0.55,0.55,0,1,1,0.55,0Z",
    "ring": "M0.9,0A0.9,0.9,0,1,1,-0.9,0A0.9,0.9,0,1,1,0.9,0Z",
    "diamond": "M0,-0.65L0.65,0L0,0.65L-0.65,0Z",
}
#: Widths in pixels: of a symbol with its gaps, and at most of a letter on average.
_SYMBOL, _LETTER = 36, 5.6
_FONT, _MOST_COLUMNS = 11, 4
_FULL = (1, 0)
_WIDTH = f"(isFinite(containerSize()[0]) ? containerSize()[0] - {LEFT + 10} : width)"


@dataclass(frozen=True)
class Entry:
    """A line of the key."""

    label: str
    shape: str
    stroke: str
    dash: Sequence[float] = _FULL
    fill: str = "transparent"


def line_entry(label: str, role: str, dash: Sequence[float] = _FULL) -> Entry:
    """Return the entry of a curve."""
    return Entry(label, LINE, colour(role), dash)


def not_finite_entries(context: ChartContext) -> list[Entry]:
    """Return the entries of the strips above the chart."""
    tints = {kind: colour(STRIPS[kind][1]) for kind in context.not_finite}
    return [Entry(name, STRIP, tints[kind], fill=tints[kind]) for kind, name in context.not_finite.items()]


def dash_scale(entries: Sequence[Entry]) -> Spec:
    """Return the dashes by label; curves share this scale with the key."""
    return {
        "domain": [entry.label for entry in entries],
        "range": [list(entry.dash) for entry in entries],
    }


def with_key(layers: Sequence[alt.Chart | Spec], entries: Sequence[Entry]) -> Spec:
    """Draw layers above each other, and the key of all they draw, which stands for their own legends."""
    # Vega-Lite would merge the legend that a colour does not have with a key of the same names.
    return {**layered(*layers, _key_layer(entries)), "resolve": {"legend": {"color": "independent"}}}


def _key_layer(entries: Sequence[Entry]) -> Spec:
    """Return a layer that draws nothing and has the legend of all entries, in as many columns as fit."""
    labels = [entry.label for entry in entries]
    legend = {
        "columns": {"expr": columns_for(labels)},
        "symbolSize": 260,
        "labelFontSize": _FONT,
        "labelLimit": 0,
        "columnPadding": 12,
        "rowPadding": 0,
    }

    def channel(value: Callable[[Entry], object]) -> Spec:
        scale = {"domain": labels, "range": list(map(value, entries))}
        return {"field": "label", "type": "nominal", "scale": scale, "legend": legend}

    encoding = {
        "stroke": channel(lambda entry: entry.stroke),
        "fill": channel(lambda entry: entry.fill),
        "strokeDash": channel(lambda entry: list(entry.dash)) | {"scale": dash_scale(entries)},
        "shape": channel(lambda entry: entry.shape),
    }
    no_rows: Spec = {"data": {"name": "zero"}, "transform": [{"filter": "false"}]}
    return {**no_rows, "mark": {"type": "point"}, "encoding": encoding}


def columns_for(labels: Sequence[str]) -> str:
    """Return the number of columns, as an expression of the chart's width.

    On a page that is the width of its place without the labels of the axis: Vega changes `width` itself while
    it makes room for the legend, and a legend that then had more rows would be cut.
    """
    text = "1"
    for count in range(2, min(_MOST_COLUMNS, len(labels)) + 1):
        longest = [max(map(len, labels[at::count])) for at in range(count)]
        text = f"{_WIDTH} >= {sum(_SYMBOL + _LETTER * length for length in longest):.0f} ? {count} : {text}"
    return text
