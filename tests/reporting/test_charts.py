"""The charts: valid specs that read known tables, in colours the style sheet knows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files

import altair as alt
import pytest
from jsonschema import ValidationError
from jsonschema.validators import validator_for

from confshift.reporting import layout
from confshift.reporting.charts import CHARTS, chart_specs
from confshift.reporting.charts.key import line_entry, with_key
from confshift.reporting.charts.parts import ChartContext
from confshift.reporting.vega import compiled, pictures

LIMITS = {
    **{f"{chart}_{span}": {"domainMax": 2.0} for chart in ("loss", "part") for span in ("near", "whole")},
    "accuracy_near": {"domainMin": 0.5},
    "accuracy_whole": {},
}
NOT_FINITE = {"unanswered": "not finite: 40 % left out", "infinite": "infinite loss: 5 samples"}
#: Tables that the script makes for the chosen pair: the methods of Views in rows.js.
SCRIPT = (files("confshift.reporting") / "assets" / "rows.js").read_text(encoding="utf-8")
STYLE = (files("confshift.reporting") / "assets" / "style.css").read_text(encoding="utf-8")


def frame(epochs=5, classes=4):
    ticks = (-2.2, 0.0, 2.2, 4.6)
    named = {"splits": ["loss on train"], "rise": "worse from epoch 3 on", "not_finite": NOT_FINITE}
    marks = {"best loss": "best loss, epoch 1", "best once calibrated": "best once calibrated, epoch 2"}
    return ChartContext(list(range(epochs)), classes, ticks, LIMITS, marks=marks, **named)


@pytest.fixture(scope="module")
def specs():
    return chart_specs(frame())


def names_in(spec):
    return set(re.findall(r'"data": \{"name": "(\w+)"\}', json.dumps(spec)))


@pytest.fixture(scope="module")
def vega_lite():
    """Return the validator of the schema: alt.Chart.from_dict does the same in seven times the time."""
    schema = alt.load_schema()
    return validator_for(schema)(schema)


def test_every_spec_is_valid_vega_lite_and_compiles(specs, vega_lite):
    for name, vega in compiled(specs).items():
        vega_lite.validate(specs[name])
        assert vega["marks"], name


def test_a_word_that_vega_lite_does_not_know_is_refused(specs, vega_lite):
    (spec,) = chart_specs(frame(), only=["scatter"]).values()
    for place in (spec, spec["layer"][0], spec["layer"][0]["encoding"]):
        place["opacty"] = {"value": 0.5}
        with pytest.raises(ValidationError):
            vega_lite.validate(spec)
        del place["opacty"]
    vega_lite.validate(spec)


def test_no_spec_holds_data_or_an_address(specs):
    for name, spec in specs.items():
        text = json.dumps({key: value for key, value in spec.items() if key != "$schema"})
        assert '"values": [{' not in text, name
        assert "http" not in text, name
        assert '"url"' not in text, name


def test_every_table_is_known_to_python_or_to_the_script(specs, history, comparison):
    from confshift.reporting.epoch_tables import run_tables
    from confshift.reporting.pair_tables import pair_tables

    known = {*run_tables(history, history), *pair_tables(comparison, classes=[0, 1], at=("A", "B"))}
    methods = set(re.findall(r"^  (\w+)\(.*\) \{", SCRIPT, re.MULTILINE))
    for name, spec in specs.items():
        for table in names_in(spec):
            method = re.sub(r"_([AB]|right|wrong)$", "", table)
            assert table in known or table in methods or method in methods, (name, table)


def test_every_colour_is_defined_for_light_dark_and_print(specs):
    used = set(re.findall(r"var\(--(\w+)\)", json.dumps(specs)))
    assert used
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL):
        assert used <= set(re.findall(r"--(\w+):", block))


def test_every_chart_has_its_specs_and_a_place_on_the_page(specs):
    assert {name for chart in CHARTS.values() for name, _ in chart.variants()} == set(specs)
    places = {part for section in layout.SECTIONS for part in section.parts}
    assert {chart.section for chart in CHARTS.values()} <= {"top", *places}


def test_two_runs_have_their_own_curves_and_no_chart_of_one_run():
    specs = chart_specs(replace(frame(), runs=("A: one", "B: two")))
    assert not {"parts_near", "history", "trajectory"} & set(specs)
    assert {"run_losses", "ends"} <= names_in(specs["loss_near"])
    assert compiled(specs)


def test_legends_of_a_and_b_have_the_names_of_two_runs_whatever_these_are():
    runs = ('A: it\'s "one" </script>', "B: \\ {datum.value}")
    for name in ("reliability_probability", "confidence_right_odds", "class_accuracy"):
        spec = chart_specs(replace(frame(), runs=runs), only=[name])[name]
        text = json.dumps(compiled({name: spec}))
        assert '"domain": ["A", "B"]' in text
        assert '"before"' not in text
        assert '"after"' not in text
        for run in runs:
            assert json.dumps(json.dumps(run))[1:-1] in text
    alone = json.dumps(chart_specs(frame(epochs=1), only=["reliability_probability"]))
    assert "[datum.value]" not in alone  # one checkpoint is neither A nor B


def test_names_of_points_stand_above_the_curve_of_the_change_added_up():
    """Beside the points they would lie on each other where the loss falls."""
    layers = chart_specs(frame(), only=["concentration"])["concentration"]["layer"]
    assert "text" not in [layer["mark"]["type"] for layer in layers]
    assert [
        channel for layer in layers for channel in ("shape", "strokeDash") if channel in layer["encoding"]
    ] == [
        "strokeDash",
        "shape",
    ]


def test_every_line_mark_and_strip_of_the_losses_is_named_in_the_key():
    names = [
        "loss",
        "loss once calibrated",
        "loss on train",
        "best loss, epoch 1",
        "best once calibrated, epoch 2",
        "worse from epoch 3 on",
        *NOT_FINITE.values(),
    ]
    assert key_of(frame()) == names
    assert key_of(replace(frame(), splits=(), marks={}, rise="", not_finite={})) == names[:2]
    of_two_runs = replace(frame(), runs=("A: one", "B: two"), splits=(), rise="")
    assert key_of(of_two_runs) == ["A: one", "B: two", *names[:2], *NOT_FINITE.values()]


def key_of(context):
    """Return the labels of the key, from what Vega makes of the chart."""
    spec = chart_specs(context, only=["loss_near"])["loss_near"]
    (legend,) = compiled({"loss": spec})["loss"]["legends"]
    assert {"stroke", "fill", "shape", "strokeDash"} <= set(legend)
    scales = {scale["name"]: scale["domain"] for scale in compiled({"loss": spec})["loss"]["scales"]}
    assert scales[legend["shape"]] == scales[legend["stroke"]] == scales[legend["strokeDash"]]
    return scales[legend["shape"]]


def test_texts_inside_the_charts_over_epochs_are_the_two_epochs_above_them(specs):
    """Names of curves and marks inside a chart would lie on curves and on each other for some run."""
    for name in ("loss_near", "accuracy_near", "parts_near"):
        texts = [layer for layer in specs[name]["layer"] if layer["mark"]["type"] == "text"]
        assert len(texts) == 2, name
        assert all(layer["encoding"]["y"]["value"] < 0 for layer in texts)
        assert {layer["mark"]["align"] for layer in texts} == {"left", "right"}


@pytest.mark.parametrize(("width", "columns"), [(240, 1), (400, 2), (520, 3), (1200, 4)])
def test_the_key_has_as_many_columns_as_fit(width, columns):
    labels = ["loss", "loss once calibrated", "loss on train", "best loss, epoch 12"]
    labels += ["best once calibrated, epoch 13", "worse from epoch 15 on"]
    spec = with_key([], [line_entry(label, "loss") for label in labels])
    expression = spec["layer"][0]["encoding"]["shape"]["legend"]["columns"]["expr"]
    choices = re.findall(r" >= (\d+) \? (\d)", expression)
    assert next((int(number) for least, number in choices if width >= int(least)), 1) == columns
    assert expression.endswith(": 1")


def test_many_epochs_have_no_dots_and_one_has_no_pair():
    def marks(spec):
        return json.dumps(spec).count('"type": "point"')

    few, many = (chart_specs(frame(epochs), only=["loss_near"])["loss_near"] for epochs in (40, 41))
    assert marks(few) > marks(many)
    assert "pair" not in names_in(chart_specs(frame(epochs=1), only=["loss_near"])["loss_near"])


def test_amounts_are_written_where_there_is_room():
    for classes, written in ((12, True), (13, False)):
        specs = chart_specs(frame(classes=classes), only=["competitors"])
        assert ('"text"' in json.dumps(specs["competitors"]["layer"])) == written


def test_pictures_are_drawn_in_the_colours_of_the_style_sheet(specs, history, comparison):
    from confshift.reporting.epoch_tables import run_tables
    from confshift.reporting.pair_tables import pair_tables

    made = {
        **run_tables(history, history),
        **pair_tables(comparison, classes=[0, 1, 2, 3], at=("A", "B")),
    }
    charts = compiled(specs)
    drawn = pictures(charts, made, paired=True)
    assert set(drawn) == {"loss", "accuracy", "parts", "account", "cells"}
    for svg in drawn.values():
        assert svg.startswith("<svg")
        assert "var(--" in svg
        assert len(svg) < 60_000
    assert set(pictures(charts, made, paired=False)) == {"loss", "accuracy", "parts"}
