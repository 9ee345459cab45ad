"""The charts of classes: accuracy, contributions, competitors."""

from __future__ import annotations

from typing import Any

from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import (
    COUNT,
    SHARE,
    SIGNED,
    STEP,
    Chart,
    ChartContext,
    Spec,
    bare_axis,
    layered,
    side_colour,
    side_legend,
    steps,
    table,
    tip,
    transition_colour,
    zero_rule,
)
from confshift.reporting.theme import SIDES, colour

#: Up to so many columns there is room for horizontal names, and for amounts.
SIZES = _FEW, _LABELLED = 5, 12


def _class_axis() -> alt.Y:
    order = alt.EncodingSortField("order", op="min")
    return alt.Y("class_name:N", sort=order, title=None, axis=bare_axis())


def class_accuracy_chart(context: ChartContext, _: str) -> Spec:
    """Draw the accuracy of each class at A and at B."""
    tooltip = [
        tip("class_name:N", "class"),
        tip("samples:Q", number=COUNT),
        *(tip(f"{side}:Q", f"accuracy at {side}", SHARE) for side in SIDES),
    ]
    base = table("class_accuracy").encode(y=_class_axis(), tooltip=tooltip)
    scale, axis = alt.Scale(zero=False), alt.Axis(format=".3~%", grid=True)
    joins = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("A:Q", title="accuracy", scale=scale, axis=axis), x2=alt.X2("B:Q")
    )
    shapes = alt.Scale(domain=list(SIDES), range=list(SIDES.values()))
    shape = alt.Shape("side:N", scale=shapes, legend=side_legend(context, offset=8))
    sides = base.transform_fold(list(SIDES), as_=["side", "accuracy"]).mark_point(
        filled=True, size=64, opacity=1
    )
    return layered(
        joins,
        sides.encode(
            x=alt.X("accuracy:Q"),
            color=side_colour(context, offset=8),
            shape=shape,
        ),
    )


def class_contributions_chart(context: ChartContext, _: str) -> Spec:
    """Draw what each class adds to the change, by what became of its samples."""
    title = f"contribution to the change, {context.unit}"
    x = alt.X("contribution:Q", title=title, axis=alt.Axis(grid=True))
    tooltip = [tip("class_name:N", "class"), tip("transition:N"), tip("contribution:Q", "nats", SIGNED)]
    bars = (
        table("class_cells")
        .mark_bar()
        .encode(
            y=_class_axis(), x=x, color=transition_colour(alt.Legend(columns=2, offset=8)), tooltip=tooltip
        )
    )
    total = table("class_totals").mark_point(
        shape="diamond", filled=True, size=50, fill="var(--text)", opacity=1
    )
    whole = [tip("class_name:N", "class"), tip("contribution:Q", "together", SIGNED)]
    return layered(
        bars,
        zero_rule(vertical=True),
        total.encode(y=_class_axis(), x=alt.X("contribution:Q"), tooltip=whole),
    )


#: The title above the columns names both axes: a title of the rows would cover their first label.
_BOTH_AXES = "columns: wrong class, rows: true class"


def competitors_chart(context: ChartContext, _: str) -> Spec:
    """Draw which wrong class gained on which true class; with the amounts where they fit."""
    few = context.classes <= _FEW
    slanted: dict[str, Any] = {"labelAngle": -45, "labelAlign": "left", "labelLimit": 90}
    level: dict[str, Any] = {"labelAngle": 0, "labelLimit": 150}
    top = alt.Axis(orient="top", domain=False, ticks=False, **(level if few else slanted))
    by_row, by_column = (alt.EncodingSortField(name, op="min") for name in ("row", "column"))
    base = table("competitors").encode(
        y=alt.Y("class_name:N", sort=by_row, title=None, axis=bare_axis()),
        x=alt.X("competitor_name:N", sort=by_column, title=_BOTH_AXES, axis=top),
        tooltip=[
            tip("class_name:N", "true class"),
            tip("competitor_name:N", "wrong class"),
            tip("contribution:Q", "nats", SIGNED),
        ],
    )
    signs = alt.Scale(domain=["up", "down"], range=[colour("up"), colour("down")])
    strength = alt.Scale(domainMin=0, range=[0, 0.85])
    squares = base.mark_rect(stroke="var(--card)").encode(
        color=alt.Color("direction:N", scale=signs, legend=None),
        fillOpacity=alt.FillOpacity("size:Q", scale=strength, legend=None),
    )
    texts = base.mark_text(fontSize=10).encode(text=alt.Text("text:N"))
    return layered(squares, texts) if context.classes <= _LABELLED else layered(squares)


CHARTS = (
    Chart(
        "class_contributions",
        "Which classes the change comes from",
        "classes",
        class_contributions_chart,
        steps(STEP),
        source="class_cells",
        note="Diamond: what a class adds in all; the classes add up to the change.",
        follows="samples",
        pair_only=True,
        half=True,
        paper=640,
    ),
    Chart(
        "class_accuracy",
        "Accuracy by true class",
        "classes",
        class_accuracy_chart,
        steps(STEP),
        pair_only=True,
        half=True,
        paper=640,
    ),
    Chart(
        "competitors",
        "Which wrong class gained on which true class",
        "classes",
        competitors_chart,
        steps(STEP),
        note="Nats of the change. Vermilion, +: the wrong class gained on the true one; blue, −: it lost.",
        follows="fixed",
        pair_only=True,
        half=True,
        paper=640,
    ),
)
