"""Pictures for papers: every chart, every format, with the numbers of its results."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.reporting.binning import odds_ticks
from confshift.reporting.pair_tables import paper_tables, shown_classes
from confshift.reporting.plotting import figures, plot


@pytest.fixture(scope="module")
def made(history, comparison):
    classes = shown_classes(comparison.classes, 20)
    ticks = odds_ticks(history.main)
    return {
        scale: paper_tables(comparison, classes=classes, ticks=ticks, scale=scale)
        for scale in ("probability", "odds")
    }


@pytest.mark.parametrize("figure", [*figures()])
def test_every_figure_is_a_picture_with_colours_of_its_own(run, tmp_path, figure):
    path = plot(run, figure, tmp_path / "figure.svg")
    svg = path.read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "var(" not in svg
    assert len(re.findall(r"<(path|text)", svg)) > 10
    assert [one.name for one in tmp_path.iterdir()] == ["figure.svg"]


def test_a_picture_may_be_png_or_pdf(run, tmp_path):
    pixels = Image.open(plot(run, "account", tmp_path / "figure.PNG"))
    assert pixels.size[0] > 1500
    assert pixels.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert plot(run, "account", tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_the_pair_and_the_axis_can_be_chosen(run, tmp_path):
    def texts(**options):
        svg = plot(run, "reliability", tmp_path / "one.svg", **options).read_text(encoding="utf-8")
        return re.findall(r"<text[^>]*>([^<]*)</text>", svg)

    assert "99.9%" in texts(scale="odds") or "99%" in texts(scale="odds")
    assert "40%" in texts(scale="probability")
    svg = plot(run, "account", tmp_path / "two.svg", before=1, after=4).read_text(encoding="utf-8")
    assert "loss at epoch 1" in svg
    assert "loss at epoch 4" in svg


def test_a_whole_range_reaches_the_first_loss(run, tmp_path):
    rows = run[0].predictions
    first = Checkpoint.from_predictions(Predictions(-9 * rows.logits, rows.targets), epoch=-1)

    def highest(*, whole):
        svg = plot([first, *run], "loss", tmp_path / "one.svg", whole=whole).read_text(encoding="utf-8")
        axis = re.findall(r'<text text-anchor="end"[^>]*>([\d.]+)</text>', svg)
        return max(map(float, axis))

    loss = first.loss
    assert highest(whole=False) < loss / 2
    assert highest(whole=True) > 0.8 * loss


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "a.svg"), "figure='nothing': give one of loss,"),
        (("reliabilty", "a.svg"), "did you mean 'reliability'"),
        (("scatter", "a.svg"), "figure='scatter' is drawn by the page only: write it with report"),
        (("loss", "a.jpg"), r"ends in \.svg, \.png, \.pdf"),
        (("loss", "missing/a.svg"), "folder that exists"),
    ],
)
def test_what_cannot_be_drawn_is_named_with_the_remedy(run, tmp_path, arguments, message):
    figure, name = arguments
    with pytest.raises(ConfshiftError, match=message):
        plot(run, figure, tmp_path / name)


def test_a_scale_that_is_unknown_is_named(run, tmp_path):
    with pytest.raises(ConfshiftError, match="scale='log'"):
        plot(run, "reliability", tmp_path / "a.svg", scale="log")


def test_one_checkpoint_has_no_picture_of_a_change(make_run, tmp_path):
    one = make_run(checkpoints=1)
    with pytest.raises(ConfshiftError, match="compares two checkpoints"):
        plot(one, "account", tmp_path / "a.svg")
    for figure in ("loss", "reliability"):
        assert plot(one, figure, tmp_path / "a.svg").exists()


@pytest.mark.parametrize("scale", ["probability", "odds"])
def test_the_dots_of_a_reliability_diagram_are_those_of_the_comparison(made, comparison, scale):
    dots = made[scale]["bins_B"]
    expected = comparison.reliability.query("side == 'after' and binning == 'equal_mass'")
    if scale == "odds":
        back = 1 / (1 + np.exp(-dots["x"]))
        np.testing.assert_allclose(back, expected["confidence"].clip(upper=back.max()))
    else:
        np.testing.assert_array_equal(dots[["x", "y"]], expected[["confidence", "accuracy"]])
    assert (dots["low"] <= dots["y"]).all()


def test_every_split_in_a_picture_adds_up_to_the_change(made, comparison):
    change = comparison.change.loc["loss", "change"]
    tables = made["probability"]
    assert tables["class_cells"]["contribution"].sum() == pytest.approx(change)
    assert tables["class_totals"]["contribution"].sum() == pytest.approx(change)


def test_a_class_that_is_named_like_a_colour_keeps_its_name(make_run, tmp_path):
    names = ["transparent", "var(--blue)", "var(--evil)", "plain"]
    svg = plot(make_run(class_names=names), "class_accuracy", tmp_path / "one.svg").read_text(
        encoding="utf-8"
    )
    assert set(names) <= set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def test_names_on_a_picture_stand_out_from_the_lines_behind_them(run, tmp_path):
    halo = "paint-order:stroke"
    assert halo in plot(run, "loss", tmp_path / "a.svg").read_text(encoding="utf-8")
    assert halo not in plot(run, "competitors", tmp_path / "b.svg").read_text(
        encoding="utf-8"
    )  # amounts on tints
