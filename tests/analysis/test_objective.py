"""Class weights: losses, accounts, errors and verdicts count what each class weighs; nothing else does."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import checkpoints, pairs, rounding

from confshift.analysis.comparison import compare
from confshift.analysis.grouping import unit_terms
from confshift.analysis.history import summarize
from confshift.analysis.recalibrators import by_gain
from confshift.analysis.significance import paired_interval
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.reporting.calibration_file import calibrate

WEIGHTS = np.array([1.0, 2.0, 3.0, 2.0])
PLAIN = ["error_rate", "accuracy", "confidence", "confidence_gap", "temperature"]
WEIGHTED = [
    "loss",
    "hedge",
    "mistake_cost",
    "calibration_loss",
    "refinement_loss",
    "scale_loss",
    "balance_loss",
]


@pytest.fixture(scope="module")
def run(make_logits):
    logits, targets = make_logits(240, 4, 12, churn=0.3)
    return checkpoints(logits, targets)


@pytest.fixture(scope="module")
def weighted(run):
    return summarize(run, class_weight=WEIGHTS)


def repeated(run):
    """Each sample as often as its class weighs, and which of these are copies of one."""
    times = WEIGHTS[run[0].predictions.targets].astype(int)
    logits = [np.repeat(one.predictions.logits, times, axis=0) for one in run]
    targets = np.repeat(run[0].predictions.targets, times)
    return checkpoints(logits, targets), np.repeat(np.arange(len(times)), times)


@st.composite
def weighted_pairs(draw):
    before, after, targets = draw(pairs())
    weights = draw(st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.7]), min_size=40, max_size=40))
    weights = np.array(weights[: before.shape[1]])
    weights[targets[0]] = draw(st.sampled_from([0.5, 2.0]))  # some finite loss counts
    return before, after, targets, weights


@settings(max_examples=40)
@given(weighted_pairs())
def test_everything_that_splits_a_weighted_change_adds_up_to_it(sides):
    before, after, targets, weights = sides
    comparison = compare(*checkpoints([before, after], targets), class_weight=weights)
    change, limit = comparison.change["change"], 40 * rounding(comparison) * max(1, weights.max())
    panel = comparison.panel
    counts = weights[panel.targets]
    for name, losses in (("loss", panel.loss), ("refinement_loss", panel.refinement)):
        expected = (counts * (losses[1] - losses[0])).sum() / counts.sum()
        assert change[name] == pytest.approx(expected, abs=limit)
    sums = {
        "account": comparison.account["contribution"].sum(),
        "cells": comparison.cells["contribution"].sum(),
        "parts of the cells": comparison.cells[["hedge", "mistake"]].sum().sum(),
        "classes": comparison.classes["contribution"].sum(),
        "cells of the classes": comparison.classes.filter(regex="_(up|down|unchanged)$").sum().sum(),
        "competitors": comparison.competitors["contribution"].sum(),
        "scale": comparison.scale[["scale", "shape"]].sum().sum(),
        "parts": change[["scale_loss", "balance_loss", "refinement_loss"]].sum(),
        "samples": comparison.added.mean(),
    }
    for name, total in sums.items():
        assert total == pytest.approx(change["loss"], abs=limit), name
    assert comparison.classes["weight"].sum() == pytest.approx(1)


def test_the_loss_and_its_account_are_those_of_torch(run):
    comparison = compare(run[2], run[-1], class_weight=WEIGHTS)
    for side, column in ((run[2], "before"), (run[-1], "after")):
        expected = torch.nn.functional.cross_entropy(
            torch.tensor(side.predictions.logits, dtype=torch.float64),
            torch.tensor(side.predictions.targets),
            weight=torch.tensor(WEIGHTS),
        )
        account = comparison.account[column]
        total = account["hedging"] + account["error_rate"] * account["mistake_cost"]
        assert comparison.change.loc["loss", column] == pytest.approx(float(expected), rel=1e-12)
        assert total == pytest.approx(float(expected), rel=1e-12)


def test_whole_weights_are_as_many_copies_of_each_sample(run):
    copies, groups = repeated(run)
    weighted = compare(run[1], run[-1], class_weight=WEIGHTS)
    often = compare(copies[1], copies[-1], groups=groups)
    # The fit of each side is to other samples there: only what does not depend on it is the same.
    names = ["loss", "hedge", "mistake_cost"]
    columns = ["before", "after", "change", "change_se", "change_low", "change_high"]
    np.testing.assert_allclose(weighted.change.loc[names, columns], often.change.loc[names, columns])
    pd.testing.assert_frame_equal(weighted.account, often.account)
    np.testing.assert_allclose(
        weighted.cells[["contribution", "contribution_se"]], often.cells[["contribution", "contribution_se"]]
    )
    np.testing.assert_allclose(weighted.classes["contribution"], often.classes["contribution"])
    np.testing.assert_allclose(weighted.scale["contribution"], often.scale["contribution"])


def test_the_verdicts_are_those_on_as_many_copies_of_each_sample(run, weighted):
    copies, groups = repeated(run)
    often = summarize(copies, groups=groups)
    columns = ["amount", "lower_bound", "upper_bound", "statistic", "critical_value", "best_epoch", "since"]
    np.testing.assert_allclose(
        weighted.rise.loc["loss", columns].astype(float), often.rise.loc["loss", columns].astype(float)
    )
    assert weighted.rise.loc["loss", "status"] == often.rise.loc["loss", "status"] == "systematic"
    np.testing.assert_allclose(
        weighted.candidates.loc["loss"].astype(float), often.candidates.loc["loss"].astype(float)
    )
    table, expected = weighted.table, often.table
    for name in ("loss", "hedge", "finite_loss"):
        np.testing.assert_allclose(table[[name, f"{name}_se"]], expected[[name, f"{name}_se"]])
    np.testing.assert_allclose(table["mistake_cost"], expected["mistake_cost"])
    assert weighted.best.loc["loss", "epoch"] == often.best.loc["loss", "epoch"]


def test_every_pair_has_the_means_and_the_interval_of_its_comparison(run):
    broken = [one.predictions.logits.copy() for one in run[:5]]
    broken[1][:30], broken[3][20:40] = np.nan, np.nan
    for labels in (None, np.arange(240) // 3):
        history = summarize(
            checkpoints(broken, run[0].predictions.targets), class_weight=[0, 1, 2, 5], groups=labels
        )
        for first, last in ((0, 1), (1, 3), (2, 4)):
            row = history.pairs.loc[(first, last)]
            comparison = history.compare(*(history.main.checkpoints[at] for at in (first, last)))
            change = comparison.change
            for name, quantity in (
                ("loss", "loss"),
                ("refinement", "refinement_loss"),
                ("accuracy", "accuracy"),
            ):
                found = row[[f"{name}_{end}" for end in ("before", "after", "low", "high")]]
                expected = change.loc[quantity, ["before", "after", "change_low", "change_high"]]
                np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=1e-9, atol=1e-12)
            parts = row[["hedging", "error_rate", "mistake_cost"]]
            np.testing.assert_allclose(parts, comparison.account["contribution"], atol=1e-12)


def test_what_is_not_a_loss_is_never_weighted(run, weighted):
    plain = summarize(run)
    names = ["accuracy", "accuracy_se", "error_rate", "confidence", "confidence_gap", "ece", "temperature"]
    pd.testing.assert_frame_equal(weighted.table[names], plain.table[names])
    pd.testing.assert_frame_equal(
        weighted.rise.loc[["error_rate"], "amount":"resolution"],
        plain.rise.loc[["error_rate"], "amount":"resolution"],
    )
    ends = run[1], run[-1]
    changes = weighted.compare(*ends).change, plain.compare(*ends).change
    pd.testing.assert_frame_equal(*(change.loc[PLAIN] for change in changes))
    assert not np.isclose(*(change.loc[WEIGHTED, "change"].astype(float) for change in changes)).any()
    assert weighted.compare(*ends).switches == plain.compare(*ends).switches
    pd.testing.assert_frame_equal(*(one.compare(*ends).confusion for one in (weighted, plain)))
    assert weighted.compare(*ends).cells["samples"].equals(plain.compare(*ends).cells["samples"])


def test_equal_weights_change_no_bit_and_a_common_factor_changes_nothing(run, weighted):
    plain, equal = summarize(run), summarize(run, class_weight=[0.3] * 4)
    pd.testing.assert_frame_equal(equal.table, plain.table, check_exact=True)
    pd.testing.assert_frame_equal(equal.rise, plain.rise, check_exact=True)
    pd.testing.assert_frame_equal(equal.pairs, plain.pairs, check_exact=True)
    larger = summarize(run, class_weight=10 * WEIGHTS)
    pd.testing.assert_frame_equal(larger.table, weighted.table)
    pd.testing.assert_frame_equal(larger.rise, weighted.rise)


def test_samples_of_a_class_without_weight_are_no_evidence(run):
    kept = run[0].predictions.targets != 0
    some = [
        Checkpoint.from_predictions(
            Predictions(one.predictions.logits[kept], one.predictions.targets[kept]), epoch=at
        )
        for at, one in enumerate(run)
    ]
    alone, with_others = summarize(some), summarize(run, class_weight=[0, 1, 1, 1])
    for name in ("loss", "loss_se", "hedge", "mistake_cost"):
        np.testing.assert_allclose(with_others.table[name], alone.table[name])
    columns = ["amount", "lower_bound", "critical_value", "units"]
    np.testing.assert_allclose(
        with_others.rise.loc["loss", columns].astype(float), alone.rise.loc["loss", columns].astype(float)
    )
    found = with_others.compare(run[1], run[-1])
    columns = ["change", "change_low", "change_high"]
    expected = alone.compare(some[1], some[-1]).change.loc["loss", columns]
    np.testing.assert_allclose(found.change.loc["loss", columns].astype(float), expected.astype(float))
    assert found.classes.loc[0, "contribution"] == 0


@given(st.data())
def test_the_terms_of_a_weighted_mean_have_its_spread(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    number = data.draw(st.integers(3, 30))
    values, weights = rng.normal(size=number), rng.choice([0.0, 1.0, 5.0], number)
    weights[:3] = 2.0
    weights /= weights.mean()
    mean = (weights * values).mean()
    kept = weights > 0
    influence = (weights * (values - mean))[kept]
    terms = unit_terms(weights * values, None, weights)
    assert terms.mean() == pytest.approx(mean)
    error = math.sqrt((influence**2).sum() * kept.sum() / (kept.sum() - 1)) / number
    assert paired_interval(terms).se == pytest.approx(error)
    alone = np.arange(number)
    assert np.sort(unit_terms(weights * values, alone, weights)) == pytest.approx(np.sort(terms))


@pytest.mark.parametrize("method", ["temperature", "temperature_and_biases"])
def test_a_recalibration_is_chosen_by_its_weighted_gain_and_fitted_to_the_plain_loss(run, method):
    plain, weighted = by_gain(run[-1]), by_gain(run[-1], WEIGHTS)
    one, other = (next(t for t in choice.trials if t.method == method) for choice in (plain, weighted))
    assert one.recalibrator == other.recalibrator
    weights = WEIGHTS[run[-1].predictions.targets]
    assert other.gain == pytest.approx(np.average(run[-1].scores.loss - one.losses, weights=weights))


def test_calibrate_chooses_by_the_loss_that_the_run_is_judged_by(run):
    stored = replace(run[-1], metadata={"class_weights": WEIGHTS.tolist()})
    found = calibrate(stored).table
    assert found.equals(calibrate(run[-1], class_weight=WEIGHTS).table)
    counts = WEIGHTS[stored.predictions.targets]
    plain = np.average(stored.scores.loss, weights=counts)
    assert found.loc["none", "expected_loss"] == pytest.approx(plain)
    scaled = np.average(stored.measurement.left_out.scaled, weights=counts)
    assert found.loc["temperature", "expected_loss"] == pytest.approx(scaled)
    temperature = found.loc["temperature", "temperature"]
    fitted = torch.nn.functional.cross_entropy(
        torch.tensor(stored.predictions.logits / temperature),
        torch.tensor(stored.predictions.targets),
        weight=torch.tensor(WEIGHTS),
    )
    assert found.loc["temperature", "fitted_loss"] == pytest.approx(float(fitted))
    history = summarize([stored])
    expected = found.loc[history.recommendation.method, "expected_loss"]
    assert history.recommendation.loss == pytest.approx(expected, abs=0.01)


def test_the_kept_epoch_is_the_one_with_the_lowest_weighted_loss():
    targets = np.repeat([0, 1], [192, 8])
    # The common class gets surer, the rare one wrong (too few for a temperature): only the plain loss falls.
    tops = [np.where(targets == 0, common, rare) for common, rare in ((1.0, -1.0), (2.0, 1.0))]
    sides = [np.stack([top, np.zeros(200)], axis=1) for top in tops]
    ends = checkpoints(sides, targets)
    assert summarize(ends).recommendation.epoch == 1
    kept = summarize(ends, class_weight="balanced").recommendation.kept
    assert (kept.epoch, kept.lowest) == (0, 0)
    assert summarize(ends).best.loc["loss", "epoch"] == 1
    assert summarize(ends, class_weight="balanced").best.loc["loss", "epoch"] == 0


def test_the_final_number_is_weighted_by_the_same_classes(run, make_logits):
    logits, targets = make_logits(150, 4, len(run), churn=0.3, seed=1)
    test = checkpoints(logits, targets, split="test")
    history = summarize([*run, *test], class_weight=WEIGHTS)
    row, chosen = history.best.loc["test"], history.recommendation
    one = test[int(row["epoch"])]
    logits = one.predictions.logits / chosen.temperature + np.array(chosen.biases)
    for name, values in (("loss", one.predictions.logits), ("calibrated_loss", logits)):
        expected = torch.nn.functional.cross_entropy(
            torch.tensor(values), torch.tensor(targets), weight=torch.tensor(WEIGHTS)
        )
        assert row[name] == pytest.approx(float(expected)), name


def named(values, metadata=None, names=("cat", "dog", "owl")):
    logits = np.random.default_rng(0).normal(size=(6, 3)) - 9
    predictions = Predictions(logits, [0, 0, 0, 1, 1, 2], class_names=names)
    return [Checkpoint.from_predictions(predictions, epoch=at, metadata=one) for at, one in enumerate(values)]


@pytest.mark.parametrize(
    "given",
    [
        [1, 2, 3],
        np.array([1, 2, 3]),
        torch.tensor([1.0, 2.0, 3.0]),
        {"cat": 1, "dog": 2, "owl": 3},
        {0: 1, 1: 2, 2: 3},
        {"cat": 1, 1: 2, "owl": 3},
        {"0": 1, "1": 2, "owl": 3},
    ],
)
def test_weights_may_be_given_in_order_or_by_name_or_number(given):
    assert summarize(named([{}]), class_weight=given).main.objective.class_weights.tolist() == [1, 2, 3]


def test_balanced_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    found = summarize(named([{}]), class_weight="balanced").main.objective.class_weights
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=np.array([0, 0, 0, 1, 1, 2]))
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 2], "class_weight has 2 weights; pass one for each of the 3 classes"),
        ([1, -2, 3], "class_weight of class 'dog' is -2; pass a finite number of at least 0"),
        ([1, math.nan, 3], "class_weight of class 'dog' is nan"),
        ([1, "a", 3], "class_weight of class 'dog' is 'a'"),
        ({"cat": 1, "dgo": 2, "owl": 3}, "class_weight names a class 'dgo'"),
        ({"cat": 1, "dog": 2}, "class_weight has no weight for class 'owl'; add it"),
        ([0, 0, 0], "class_weight is 0 for every class that has samples"),
        ("even", "class_weight='even': pass \"stored\""),
        (3, "class_weight has 3; pass one for each"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_with_the_remedy(given, words):
    for call in (summarize, lambda run, **options: compare(*run, **options)):
        with pytest.raises(ConfshiftError, match=words):
            call(named([{}, {}]), class_weight=given)


@pytest.mark.parametrize("given", [-0.1, 1.1, math.nan, "a", None, True])
def test_a_smoothing_that_is_no_share_is_refused(given):
    with pytest.raises(ConfshiftError, match="not a number from 0 to 1; pass 0 for none"):
        summarize(named([{}]), label_smoothing=given)


def test_what_all_checkpoints_store_is_used_unless_the_caller_says_otherwise():
    stored = {"class_weights": [1, 2, 3], "label_smoothing": 0.1}
    run = named([stored, stored])
    assert summarize(run).main.objective.class_weights.tolist() == [1, 2, 3]
    assert summarize(run).main.objective.smoothing == 0.1
    assert compare(*run).whole.objective.class_weights.tolist() == [1, 2, 3]
    assert not summarize(run, class_weight=None, label_smoothing=0).main.objective
    assert summarize(run, class_weight=[3, 1, 1]).main.objective.class_weights.tolist() == [3, 1, 1]


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({}, "class_weights'] differ between checkpoints"),
        ({"class_weights": [1, 2, 4]}, "class_weights'] differ between checkpoints"),
        ({"class_weights": [1, 2]}, "class_weights'] can't be read"),
    ],
)
def test_weights_on_which_checkpoints_disagree_are_not_used_and_that_is_known(second, words):
    objective = summarize(named([{"class_weights": [1, 2, 3]}, second])).main.objective
    assert not objective
    assert words in objective.doubt


def test_stored_weights_that_count_no_sample_are_not_used_and_that_is_known():
    objective = summarize(
        named([{"class_weights": [0, 0, 0, 1]}], names=("cat", "dog", "owl"))
    ).main.objective
    assert not objective
    assert "can't be read" in objective.doubt
