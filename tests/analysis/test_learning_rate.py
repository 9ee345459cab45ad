"""Drops of the learning rate: found where they are, and rarely where there are none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis.causes.learning_rate import (
    FEWEST_CHECKPOINTS,
    at_the_last_rate,
    lasting_drops,
    learning_rates,
    rate_drops,
    unread_rates,
)
from confshift.analysis.objective import Objective
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint, Provenance
from confshift.predictions import Predictions

COLUMNS = ("loss", "error_rate", "calibration_loss", "refinement_loss")


def curves(checkpoints, *, seed=0, drops=(), ratio=30.0, fall=0.05, correlation=0.0):
    """Means over the epochs: a fall, then jitter; a drop of the rate makes it smaller, with a step."""
    rng = np.random.default_rng(seed)
    at = np.arange(checkpoints)
    stage = np.searchsorted(drops, at, side="right")
    shared = rng.normal(size=(checkpoints, 1))
    noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.normal(size=(checkpoints, 4))
    level = 2 * np.exp(-at / 2) - fall * stage
    values = level[:, None] + 0.02 * noise / ratio ** stage[:, None]
    table = pd.DataFrame(values, columns=COLUMNS).assign(epoch=at.astype(float))
    calibration = table["calibration_loss"]
    return table.assign(scale_loss=0.7 * calibration, balance_loss=0.3 * calibration)


def unknown(table):
    return np.full(len(table), np.nan)


@pytest.mark.parametrize("drops", [[20], [25, 45]])
def test_a_collapse_of_the_jitter_is_found_at_its_epoch(drops):
    table = curves(60, drops=drops)
    found = rate_drops(table, unknown(table))
    assert found.index.tolist() == drops
    assert (found["jitter_ratio"] > 6).all()
    assert found["rate_before"].isna().all()
    for name in COLUMNS:
        change = found[f"{name}_change"].to_numpy()
        np.testing.assert_allclose(change, -0.05, atol=0.03)


def test_the_jitter_behind_a_change_is_its_standard_error():
    tables = [curves(40, seed=seed, drops=[20]) for seed in range(120)]
    found = [rate_drops(table, np.where(np.arange(40) < 20, 0.1, 0.01)).iloc[0] for table in tables]
    spread = np.std([one["loss_change"] for one in found])
    # The level before is the mean of five epochs with jitter, the one after has next to none.
    assert spread == pytest.approx(0.02 / np.sqrt(5), rel=0.2)
    assert np.sqrt(np.mean([one["loss_jitter"] ** 2 for one in found])) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("checkpoints", [30, 60, 100])
@pytest.mark.parametrize("correlation", [0.0, 1.0])
def test_runs_at_one_rate_seldom_show_a_collapse(checkpoints, correlation):
    tables = (curves(checkpoints, seed=seed, correlation=correlation) for seed in range(100))
    alarms = [len(rate_drops(table, unknown(table))) > 0 for table in tables]
    assert np.mean(alarms) <= 0.10


def test_the_steep_start_is_no_drop():
    table = curves(60, seed=1)
    table[list(COLUMNS)] += 20 * np.exp(-np.arange(60) / 4)[:, None]
    assert rate_drops(table, unknown(table)).empty


def test_too_short_a_run_shows_nothing():
    table = curves(FEWEST_CHECKPOINTS - 1, drops=[8])
    assert rate_drops(table, unknown(table)).empty


def test_known_rates_decide_whatever_the_jitter_is():
    table = curves(40, drops=[20])
    assert rate_drops(table, np.full(40, 0.1)).empty
    rates = np.where(np.arange(40) < 10, 0.1, 0.02)
    found = rate_drops(table, rates)
    assert found.index.tolist() == [10]
    assert found[["rate_before", "rate_after"]].iloc[0].tolist() == [0.1, 0.02]


def test_a_checkpoint_from_before_training_needs_no_rate():
    table = curves(30)
    rates = np.where(np.arange(30) < 15, 0.1, 0.01)
    rates[0] = np.nan
    assert rate_drops(table, rates).index.tolist() == [15]


def test_a_rate_that_falls_smoothly_has_no_drop():
    table = curves(30)
    assert rate_drops(table, 0.1 * 0.9 ** np.arange(30)).empty


def test_curves_that_stand_still_are_no_drop():
    table = curves(40)
    table[list(COLUMNS)] = 1.0
    assert rate_drops(table, unknown(table)).empty


def test_a_drop_at_the_last_checkpoint_is_shown_without_a_ratio():
    table = curves(20)
    found = rate_drops(table, np.where(np.arange(20) < 19, 0.1, 0.01))
    assert found.index.tolist() == [19]
    assert found["jitter_ratio"].isna().all()
    assert found["loss_change"].notna().all()


def test_scale_and_class_balance_make_up_the_calibration_loss_at_a_drop():
    found = rate_drops(curves(40, drops=[20]), np.where(np.arange(40) < 20, 0.1, 0.01)).iloc[0]
    parts = found["scale_loss_change"], found["balance_loss_change"]
    assert parts == pytest.approx(
        (0.7 * found["calibration_loss_change"], 0.3 * found["calibration_loss_change"])
    )


def test_a_drop_is_judged_by_the_epochs_up_to_its_neighbours():
    """One drop's step is no jitter of the next, and no part of its change."""
    table = curves(40, drops=[12, 16, 18], ratio=1.0)
    table["loss"] = 0.01 * (-1.0) ** np.arange(40) + np.repeat([9.0, 5.0, 2.0, 1.0], [12, 4, 2, 22])
    found = rate_drops(table, np.repeat([1.0, 0.1, 0.01, 0.001], [12, 4, 2, 22]))
    assert found.index.tolist() == [12, 16, 18]
    np.testing.assert_allclose(found["loss_change"], [-4, -3, -1], atol=0.01)
    # With steps of +-0.01 the second differences are 0.04; two epochs have none.
    jitter = 0.04 / np.sqrt(6)
    assert found["loss_jitter"].iloc[0] == pytest.approx(jitter * np.sqrt(1 / 5 + 1 / 3))
    assert found["loss_jitter"].iloc[1:].isna().all()


def test_the_rate_is_read_from_metadata_or_from_what_was_logged():
    predictions = Predictions([[2.0, 0.0]], [0])
    with_metadata = Checkpoint.from_predictions(predictions, epoch=1, metadata={"lr": 0.1})
    logged = Checkpoint(
        2, "val", ("0", "1"), lambda: None, lambda: predictions, provenance=Provenance(logged={"lr": 0.01})
    )
    without = Checkpoint.from_predictions(predictions, epoch=3, metadata={"lr": "cosine"})
    np.testing.assert_equal(learning_rates([with_metadata, logged, without]), [0.1, 0.01, np.nan])
    assert unread_rates([with_metadata, logged, without]).to_dict() == {3: "cosine"}


@pytest.mark.parametrize(
    ("rates", "drops"),
    [
        ([0.1] * 4 + [0.01] * 4, (4,)),
        ([0.1] * 4 + [0.01] * 4 + [0.001] * 4, (4, 8)),
        ([0.02] * 4 + [0.15] * 2 + [0.005] * 4, (6,)),  # a rate that was too high for a while
        ([0.1] * 4 + [0.01] * 4 + [0.1] * 4, ()),  # taken back
        ([0.1] * 4 + [0.01] * 4 + [0.05] * 4, (4,)),
        (0.1 * 0.9 ** np.arange(12), ()),
        ([None] * 6 + [0.1] * 2 + [0.01] * 2, ()),  # mostly unknown
        ([], ()),
    ],
)
def test_a_lasting_drop_is_a_step_that_the_rate_never_takes_back(rates, drops):
    predictions = Predictions([[2.0, 0.0]], [0])
    run = [
        Checkpoint.from_predictions(predictions, epoch=epoch, metadata={} if rate is None else {"lr": rate})
        for epoch, rate in enumerate(rates)
    ]
    assert lasting_drops(run) == drops


def noted(metadata, logged=None):
    predictions = Predictions([[2.0, 0.0]], [0])
    one = Checkpoint.from_predictions(predictions, epoch=1, metadata=metadata)
    return replace(one, provenance=Provenance(logged=logged or {}))


@pytest.mark.parametrize(
    ("metadata", "rate"),
    [
        ({"lr": [0.1]}, 0.1),
        ({"lr": [0.01, 0.1, 0.001]}, 0.1),
        ({"lr": (0.5, 1)}, 1.0),
        ({"lr": np.float32(0.25)}, 0.25),
        ({"lr": np.array(0.25)}, 0.25),
        ({"lr": torch.tensor(0.25, requires_grad=True)}, 0.25),
        ({"lr": [torch.tensor(0.25), np.float64(0.5)]}, 0.5),
        ({"learning_rate": 0.1}, 0.1),
        ({"lr": None, "learning_rate": 0.1}, 0.1),
        ({"lr": "cosine", "learning_rate": 0.1}, 0.1),
        ({"lr": 0}, 0.0),
    ],
)
def test_a_rate_is_read_in_every_form_that_a_training_has_it_in(metadata, rate):
    for one in (noted(metadata), noted({}, logged=metadata)):
        assert learning_rates([one]).tolist() == [rate]
        assert unread_rates([one]).empty


@pytest.mark.parametrize(
    "value", ["0.1", [], [0.1, "x"], [0.1, math.nan], math.inf, True, {"a": 0.1}, 10**400]
)
def test_what_is_no_number_is_no_rate_and_is_told_from_none(value):
    assert np.isnan(learning_rates([noted({"lr": value})])).all()
    assert unread_rates([noted({"lr": value})]).tolist() == [value]
    assert unread_rates([noted({"lr": None})]).empty


@given(st.floats(1e-3, 1e3), st.floats(-10, 10), st.floats(-0.1, 0.1))
def test_the_jitter_ratio_knows_no_unit_no_level_and_no_line(unit, level, slope):
    table = curves(40, drops=[20])
    rates = np.where(np.arange(40) < 20, 1.0, 0.1)
    plain = rate_drops(table, rates)
    table[list(COLUMNS)] = unit * (table[list(COLUMNS)] + level + slope * np.arange(40)[:, None])
    other = rate_drops(table, rates)
    assert other["jitter_ratio"].iloc[0] == pytest.approx(plain["jitter_ratio"].iloc[0], rel=1e-4)
    # The middle of the five epochs before and that of the three after are four epochs apart.
    shifted = unit * (plain["loss_change"].iloc[0] + slope * 4)
    assert other["loss_change"].iloc[0] == pytest.approx(shifted, rel=1e-6, abs=1e-6 * unit)


def restarted(strengths, rates, samples=800):
    """A run whose epochs know as much as their strength says, with the rate recorded."""
    random = np.random.default_rng(2)
    targets, noise = random.integers(0, 3, samples), random.normal(size=(samples, 3))
    return stack(
        [
            Checkpoint.from_predictions(
                Predictions(strength * np.eye(3)[targets] + noise - 9, targets),
                epoch=float(epoch),
                metadata={"lr": rate},
            )
            for epoch, (strength, rate) in enumerate(zip(strengths, rates, strict=True))
        ]
    )


#: Three cycles of four epochs, and how much is known in each phase of a cycle.
RATES, PHASES = np.tile([0.1, 0.07, 0.03, 0.001], 3), np.tile([1.6, 1.8, 1.9, 2.0], 3)


def test_an_epoch_at_a_high_rate_is_held_against_others_at_that_rate():
    strengths = np.r_[0.2, PHASES[1:-3]]  # ends at the start of the last cycle, which knows less by its phase
    table = at_the_last_rate(restarted(strengths, RATES[:-3]))
    row = table.loc["refinement_loss"]
    assert (row["learning_rate"], row["epochs"], row["best_epoch"], row["last_epoch"]) == (0.1, 2, 4, 8)
    assert row["amount"] == 0
    assert row["share_of_fall"] == 0
    assert not table["certain"].any()


def test_what_is_lost_since_the_same_phase_is_held_against_what_was_learned():
    strengths = PHASES - np.repeat([0, 0, 0.5], 4)
    strengths[0] = 0.2
    panel = restarted(strengths, RATES)
    table = at_the_last_rate(panel)
    means = panel.refinement.mean(axis=1)
    row = table.loc["refinement_loss"]
    assert row["best_epoch"] in (3, 7)
    assert row["amount"] == pytest.approx(means[11] - means[3])
    assert row["share_of_fall"] == pytest.approx((means[11] - means[3]) / (means[0] - means.min()))
    assert row["share_of_fall"] > 0.1
    assert table["certain"].all()
    weighted = replace(panel, objective=Objective(np.arange(1.0, 1 + len(panel.class_names))))
    by_class, means = at_the_last_rate(weighted), weighted.mean(weighted.refinement)
    best = int(by_class.loc["refinement_loss", "best_epoch"])
    assert by_class.loc["refinement_loss", "amount"] == pytest.approx(means[11] - means[best])
    pd.testing.assert_series_equal(by_class.loc["error_rate"], table.loc["error_rate"])
    pair = np.arange(800) // 400
    assert not at_the_last_rate(replace(panel, codes=pair)).loc[
        "refinement_loss", "certain"
    ]  # two groups are no evidence


@pytest.mark.parametrize("rates", [RATES[:4], [0.1] * 12, [None] * 12, [0.1, None, None] * 4])
def test_without_cycles_or_recorded_rates_there_is_nothing_to_hold_against(rates):
    assert at_the_last_rate(restarted(PHASES[: len(rates)], rates)).empty
