"""The tables behind the charts add up, and hold what their results hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting import epoch_tables, pair_tables

AT = ("epoch 3", "epoch 6")


@pytest.fixture(scope="module")
def by_run(history):
    return epoch_tables.run_tables(history, history)


def test_a_part_of_the_epochs_is_marked_as_the_whole_run_is_and_judged_no_second_time(history, by_run):
    part = history.only({0, history.main.epochs[-1], *by_run["marks"]["epoch"]})
    pd.testing.assert_frame_equal(epoch_tables.run_tables(part, history)["marks"], by_run["marks"])
    assert not {"best", "recommendation", "judgement", "divergence"} & set(vars(part))


@pytest.fixture(scope="module")
def by_pair(comparison):
    return pair_tables.pair_tables(comparison, classes=[2, 0, 1, 3], at=AT)


def test_the_table_of_epochs_is_that_of_the_main_split(history):
    table = epoch_tables.epoch_table(history)
    assert table["split"].unique().tolist() == ["val"]
    panel = history.main
    wrong = ~panel.correct
    expected = [(panel.confidence[at][wrong[at]] > 0.9).mean() for at in range(len(panel.epochs))]
    assert table["sure_wrong"].tolist() == pytest.approx(expected)
    right = [(panel.confidence[at][~wrong[at]] > 0.9).mean() for at in range(len(panel.epochs))]
    assert table["sure_right"].tolist() == pytest.approx(right)


def test_a_share_of_no_answers_does_not_exist(make_run):
    run = make_run(20, 2, 1)
    logits = np.zeros((20, 2))
    logits[np.arange(20), run[0].predictions.targets] = 9
    perfect = type(run[0]).from_predictions(
        type(run[0].predictions)(logits, run[0].predictions.targets), epoch=0
    )
    table = epoch_tables.epoch_table(summarize([perfect]))
    assert math.isnan(table["sure_wrong"][0])
    assert table["sure_right"][0] == 1


def test_bands_reach_1_96_standard_errors_from_the_mean(by_run, history):
    table = history.table[history.table["split"] == "val"].reset_index(drop=True)
    series = by_run["loss_series"]
    loss = series[series["series"] == "loss"].reset_index(drop=True)
    np.testing.assert_allclose(loss["mean"], table["loss"])
    np.testing.assert_allclose(loss["high"] - loss["mean"], 1.96 * table["loss_se"])
    np.testing.assert_allclose(loss["mean"] - loss["low"], 1.96 * table["loss_se"])


def test_the_three_parts_stand_on_each_other_and_end_at_the_loss(by_run, history):
    parts = {label: rows.reset_index() for label, rows in by_run["part_series"].groupby("part", sort=False)}
    table = history.table[history.table["split"] == "val"].reset_index()
    assert list(parts) == ["the rest", "class balance", "scale"]
    np.testing.assert_allclose(parts["the rest"]["start"], 0.0)
    for lower, upper in itertools.pairwise(parts.values()):
        np.testing.assert_allclose(lower["end"], upper["start"])
    np.testing.assert_allclose(parts["scale"]["end"], table["loss"])
    for label, key in (
        ("the rest", "refinement_loss"),
        ("class balance", "balance_loss"),
        ("scale", "scale_loss"),
    ):
        np.testing.assert_allclose(parts[label]["mean"], table[key])
        np.testing.assert_allclose(parts[label]["end"] - parts[label]["start"], table[key], atol=1e-12)


def test_other_splits_are_drawn_beside_and_named_once(by_run, history):
    train = history.table[history.table["split"] == "train"]
    assert by_run["other_splits"]["mean"].tolist() == train["loss"].tolist()
    assert set(by_run["other_splits"]["label"]) == {"loss on train"}
    assert context_of(history).splits == ("loss on train",)


def context_of(*histories, **names):
    return epoch_tables.chart_context(histories, histories[0], classes=3, **names)


def test_the_best_checkpoints_and_the_one_to_keep_are_marked_and_named_with_their_epochs(by_run, history):
    epochs = history.best.loc[["loss", "refinement_loss"], "epoch"].tolist()
    kept = history.recommendation
    assert by_run["marks"]["epoch"].tolist() == [*epochs, kept.epoch]
    row = history.table[history.table["split"] == history.split].set_index("epoch").loc[kept.epoch]
    height = row["refinement_loss" if kept.calibrated else "loss"]
    assert by_run["marks"]["mean"].iloc[-1] == height
    names = [f"best loss, epoch {epochs[0]:g}", f"best once calibrated, epoch {epochs[1]:g}"]
    names.append(f"to keep, epoch {kept.epoch:g}")
    assert list(context_of(history).marks.values()) == names


def test_epochs_that_are_not_finite_have_a_strip_and_a_name(make_logits):
    history = summarize(_not_finite(make_logits))
    strips = epoch_tables.run_tables(history, history)["not_finite"]
    assert strips[["epoch", "start", "end"]].to_numpy().tolist() == [[1, 0.5, 1.5], [3, 2.5, 4], [5, 4, 5]]
    assert strips["unanswered_samples"].tolist() == [6, 15, 0]
    assert strips["infinite_samples"].tolist() == [0, 0, 3]
    names = {"unanswered": "not finite: up to 25.0 % left out", "infinite": "infinite loss: 3 samples"}
    assert context_of(history).not_finite == names


def test_of_two_runs_the_key_names_the_one_that_is_not_finite(make_logits, make_run):
    whole, broken = summarize(make_run(60, 3, 5)), summarize(_not_finite(make_logits)[:2])
    name = "not finite: 10.0 % left out"
    assert context_of(whole, broken, names=("a", "b")).not_finite == {"unanswered": f"{name} (B)"}
    assert context_of(broken, broken, names=("a", "b")).not_finite == {"unanswered": f"{name} (A, B)"}
    assert context_of(whole).not_finite == {}


def _not_finite(make_logits):
    """Return a run whose epochs 1 and 3 are not finite and whose loss at epoch 5 is infinite; without 4."""
    logits, targets = make_logits(60, 3, 6)
    logits[1, :6], logits[3, :15] = np.nan, np.nan
    logits[5, range(3), targets[:3]] = -np.inf
    return [
        Checkpoint.from_predictions(Predictions(logits[epoch], targets), epoch=epoch)
        for epoch in (0, 1, 2, 3, 5)
    ]


@pytest.mark.parametrize(
    ("status", "starts"), [("systematic", [12.0]), ("small", [12.0]), ("flat", []), ("within_jitter", [])]
)
def test_the_begin_of_a_rise_is_marked_only_where_there_is_one(status, starts):
    rise = pd.DataFrame({"status": [status], "since": [12.0]}, index=["loss"])
    assert epoch_tables.rise_starts(rise) == starts


def test_the_near_range_holds_every_band_after_the_initial_fall(make_run):
    run = make_run(200, 3, 12, churn=0.1)
    history = summarize(run)
    limits, table = epoch_tables.limits([history]), epoch_tables.epoch_table(history)
    settled = int(
        np.argmax(table["loss"] <= table["loss"].min() + 0.1 * (table["loss"][0] - table["loss"].min()))
    )
    tops = table["loss"] + 1.96 * table["loss_se"]
    assert limits["loss_near"]["domainMax"] == pytest.approx(tops[settled:].max())
    assert limits["loss_whole"]["domainMax"] == pytest.approx(tops.max())
    assert limits["part_near"]["domainMax"] == table["loss"][settled:].max()
    assert limits["part_whole"]["domainMax"] == table["loss"].max()
    assert limits["accuracy_near"]["domainMin"] < table["accuracy"][settled:].min()


def test_the_scale_of_the_losses_holds_the_lines_of_other_splits(make_run):
    low = [
        type(one).from_predictions(
            type(one.predictions)(9 * one.predictions.logits, one.predictions.targets),
            epoch=one.epoch,
            split="train",
        )
        for one in make_run(40, 3, 4, seed=1)
    ]
    history = summarize([*make_run(60, 3, 4), *low])
    assert epoch_tables.limits([history])["loss_near"]["domainMin"] <= history.table["loss"].min()


@pytest.mark.parametrize("span", ["near", "whole"])
def test_below_the_lowest_mark_there_is_room_for_its_name(make_run, span):
    history = summarize(make_run(200, 3, 12, churn=0.1))
    ends, table = epoch_tables.limits([history])[f"loss_{span}"], epoch_tables.epoch_table(history)
    lowest = table[["loss", "refinement_loss"]].min().min()
    height = 250  # pixels, of which a name takes 22
    assert (lowest - ends["domainMin"]) / (ends["domainMax"] - ends["domainMin"]) * height > 22


def test_losses_that_are_all_alike_have_no_limits(make_run):
    one = make_run(50, 3, 1)[0]
    still = type(one).from_predictions(
        type(one.predictions)(np.zeros((50, 3)), one.predictions.targets), epoch=0
    )
    assert epoch_tables.limits([summarize([still])])["loss_near"] == {}


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_losses_that_are_alike_up_to_rounding_have_no_limits(make_run, monkeypatch, size):
    history = summarize(make_run(50, 3, 6))
    table = epoch_tables.epoch_table(history)
    numbers = table.select_dtypes("number").columns.difference(["epoch"])
    errors = [name for name in numbers if name.endswith("_se")]
    noise = 1 + 1e-15 * np.random.default_rng(0).normal(size=(len(table), len(numbers)))
    alike = table.assign(**dict(zip(numbers, (size * noise).T, strict=True))).assign(
        **dict.fromkeys(errors, 0.0)
    )
    monkeypatch.setattr(epoch_tables, "epoch_table", lambda _: alike)
    found = epoch_tables.limits([history])
    assert found["accuracy_near"] == found["loss_near"] == found["loss_whole"] == {}


def test_the_steps_of_the_waterfall_lead_from_the_loss_before_to_the_loss_after(by_pair, comparison):
    account = by_pair["account"]
    loss = comparison.change.loc["loss"]
    assert account["start"].tolist()[0] == account["start"].tolist()[4] == 0
    assert account["end"][0] == loss["before"]
    assert account["end"][4] == loss["after"]
    for step in (1, 2, 3):
        assert account["start"][step] == pytest.approx(account["end"][step - 1])
        assert account["end"][step] - account["start"][step] == pytest.approx(account["value"][step])
    assert account["end"][3] == pytest.approx(loss["after"])
    assert (account["room"] > account["right"].max()).all()


def test_a_step_is_coloured_by_its_direction(by_pair):
    account = by_pair["account"]
    steps = account[account["kind"] != "total"]
    assert ((steps["value"] > 0) == (steps["kind"] == "up")).all()


def test_the_bars_of_the_cells_add_up_to_the_change(by_pair, comparison):
    assert by_pair["cells"]["contribution"].sum() == pytest.approx(comparison.change.loc["loss", "change"])
    assert len(by_pair["cells"]) == 8
    assert by_pair["cells"]["samples"].sum() <= len(comparison.panel.targets)


def test_all_competitors_of_few_classes_add_up_to_the_change(by_pair, comparison):
    shown = by_pair["competitors"]
    assert shown["contribution"].sum() == pytest.approx(comparison.change.loc["loss", "change"])
    assert set(shown["row"]) == set(shown["column"]) == {0, 1, 2, 3}
    assert (shown[shown["row"] == shown["column"]]["contribution"] == 0).all()


def test_of_many_classes_the_largest_contributions_are_shown(make_run):
    run = make_run(300, 30, 2)
    comparison = compare(*run)
    shown = pair_tables.shown_classes(comparison.classes, 5)
    sizes = comparison.classes["contribution"].abs()
    assert sizes[shown].min() >= sizes.drop(shown).max()
    competitors = pair_tables.pair_tables(comparison, classes=shown, at=AT)["competitors"]
    assert set(competitors["row"]) <= set(range(5))
    assert competitors["column"].max() < 5


def test_a_class_without_samples_is_not_shown(make_run):
    run = make_run(3, 10, 2)
    comparison = compare(*run)
    shown = pair_tables.shown_classes(comparison.classes, 20)
    assert set(shown) == set(comparison.panel.targets)


def test_the_range_of_two_runs_holds_both(make_run):
    histories = [summarize(make_run(100, 3, 8, seed=seed)) for seed in (0, 1)]
    both, each = epoch_tables.limits(histories), [epoch_tables.limits([one]) for one in histories]
    assert both["loss_near"]["domainMax"] == max(one["loss_near"]["domainMax"] for one in each)
    assert both["accuracy_near"]["domainMin"] == min(one["accuracy_near"]["domainMin"] for one in each)


def test_the_curves_of_two_runs_are_theirs(make_run):
    histories = [summarize(make_run(60, 3, checkpoints)) for checkpoints in (3, 5)]
    made = epoch_tables.two_run_tables(histories, ("one", "two"))
    for run, history in zip(("A: one", "B: two"), histories, strict=True):
        table = made["run_losses"]
        curve = table[(table["run"] == run) & (table["series"] == "loss")]
        assert curve["mean"].tolist() == history.table["loss"].tolist()
    assert len(made["epochs"]) == 8


@pytest.mark.parametrize(
    ("value", "of", "text"),
    [
        (0.014, 0.05, "+.014"),
        (-0.014, 0.05, "−.014"),
        (0.004, 0.05, ""),  # too little to matter
        (10.2, 12.0, "+10.20"),  # a zero inside a number stays
        (-1.25, 2.0, "−1.25"),
    ],
)
def test_an_amount_in_a_small_field_is_short_and_true(value, of, text):
    assert pair_tables._short(value, of=of) == text
