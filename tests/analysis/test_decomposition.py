"""Every split adds up to the change of the mean loss; each against a literal decomposition in plain loops."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pairs import EPS, checkpoints, comparison_of, pairs, rounding, scored

from confshift.analysis.decomposition import (
    CELLS,
    cells_of,
    concentration_of,
    pairwise_cells,
)
from confshift.analysis.stacking import stack

#: Each example fits two temperatures.
few = settings(max_examples=25)

SWAPPED = {"learned": "forgotten", "forgotten": "learned", "up": "down", "down": "up"}


def literal(before, after, targets):
    """Section 1 of the statistics, one sample and one term after the other."""

    def parts(row, target):
        top = max(row)
        predicted = list(row).index(top)
        others = math.fsum(math.exp(z - top) for j, z in enumerate(row) if j != predicted)
        return predicted, math.log1p(others), top - row[target], others

    cells, classes = defaultdict(lambda: defaultdict(float)), defaultdict(float)
    sides = {"hedge": [0.0, 0.0], "wrong": [0, 0], "mistake": [0.0, 0.0]}
    samples = len(targets)
    for row_a, row_b, target in zip(before.tolist(), after.tolist(), targets.tolist(), strict=True):
        both = [parts(row, target) for row in (row_a, row_b)]
        (label_a, hedge_a, mistake_a, others_a), (label_b, hedge_b, mistake_b, others_b) = both
        surer = others_b < others_a  # 1 / (1 + others) is the top probability
        for side, (label, hedge, mistake, _) in enumerate(both):
            sides["hedge"][side] += hedge / samples
            sides["mistake"][side] += mistake / samples
            sides["wrong"][side] += label != target
        change = (hedge_b + mistake_b) - (hedge_a + mistake_a)
        was, now = label_a == target, label_b == target
        transition = {(True, True): "stayed_right", (True, False): "forgotten", (False, True): "learned"}.get(
            (was, now), "stayed_wrong"
        )
        cell = cells[transition, "up" if change > 0 else "down" if change < 0 else "unchanged"]
        cell["samples"] += 1
        cell["contribution"] += change / samples
        cell["hedge"] += (hedge_b - hedge_a) / samples
        cell["mistake"] += (mistake_b - mistake_a) / samples
        cell["confidence_up_samples"] += surer
        cell["confidence_up_contribution"] += change / samples if surer else 0
        cell["same_label_samples"] += label_a == label_b
        classes[target] += change / samples
    return cells, classes, sides


def kitagawa(sides, samples):
    rate = [wrong / samples for wrong in sides["wrong"]]
    cost = [m / r if r else None for m, r in zip(sides["mistake"], rate, strict=True)]
    filled = [(cost[1] if c is None else c) for c in cost]
    filled[1] = cost[0] if cost[1] is None else cost[1]
    a, b = (c or 0.0 for c in filled)
    hedging = sides["hedge"][1] - sides["hedge"][0]
    return [hedging, (a + b) / 2 * (rate[1] - rate[0]), (rate[0] + rate[1]) / 2 * (b - a)]


@few
@given(pairs())
def test_cells_and_classes_and_account_are_those_of_the_literal_decomposition(data):
    before, after, targets = data
    comparison = comparison_of(before, after, targets)
    keep = scored(before, after, targets)
    cells, classes, sides = literal(before[keep], after[keep], targets[keep])
    tolerance = rounding(comparison)
    for cell, row in comparison.cells.iterrows():
        for name in ("samples", "confidence_up_samples", "same_label_samples"):
            assert row[name] == cells[cell][name], (cell, name)
        for name in ("contribution", "hedge", "mistake", "confidence_up_contribution"):
            assert row[name] == pytest.approx(cells[cell][name], rel=1e-12, abs=tolerance), (cell, name)
    for label, contribution in comparison.classes["contribution"].items():
        assert contribution == pytest.approx(classes[label], rel=1e-12, abs=tolerance)
    expected = kitagawa(sides, keep.sum())
    size = 64 * EPS * (np.abs(expected).sum() + sum(sides["mistake"]))
    np.testing.assert_allclose(
        comparison.account["contribution"], expected, rtol=1e-12, atol=tolerance + size
    )


@few
@given(pairs())
def test_every_split_adds_up_to_the_change_of_the_mean_loss(data):
    comparison = comparison_of(*data)
    means = comparison.panel.loss.mean(axis=1)
    change, tolerance = means[1] - means[0], rounding(comparison)
    cells, classes = comparison.cells, comparison.classes
    assert abs(cells["contribution"].sum() - change) <= tolerance
    assert abs(classes["contribution"].sum() - change) <= tolerance
    assert abs(comparison.samples["change"].mean() - change) <= tolerance
    np.testing.assert_allclose(cells["hedge"] + cells["mistake"], cells["contribution"], atol=tolerance)
    refined = 8 * EPS * np.abs(comparison.panel.refinement).mean(axis=1).sum()
    both = cells["calibration"] + cells["refinement"]
    np.testing.assert_allclose(both, cells["contribution"], atol=tolerance + refined)
    of_cells = classes[[f"{transition}_{direction}" for transition, direction in CELLS]]
    np.testing.assert_allclose(of_cells.sum(axis=1), classes["contribution"], atol=tolerance)
    np.testing.assert_allclose(of_cells.sum(axis=0), cells["contribution"], atol=tolerance)


@few
@given(pairs())
def test_the_account_adds_up_and_its_mistake_parts_are_those_of_the_cells(data):
    comparison = comparison_of(*data)
    part = comparison.account["contribution"]
    means = comparison.panel.loss.mean(axis=1)
    # Rate and cost may each be far larger than their sum, so they are exact only to their own rounding.
    tolerance = rounding(comparison) + 8 * EPS * part.abs().sum()
    assert abs(part.sum() - (means[1] - means[0])) <= tolerance
    assert abs(part["hedging"] - comparison.cells["hedge"].sum()) <= tolerance
    mistakes = part["error_rate"] + part["mistake_cost"]
    assert abs(mistakes - comparison.cells["mistake"].sum()) <= tolerance


@pytest.mark.parametrize("wrong_side", [0, 1])
def test_where_nobody_is_wrong_on_one_side_all_goes_to_the_rate(wrong_side):
    targets = np.array([0, 1, 0])
    right = np.array([[-1.0, -3.0], [-3.0, -1.0], [-1.0, -3.0]])
    sides = [right, right]
    sides[wrong_side] = right * [[1], [1], [-1]] - 9
    account = comparison_of(*sides, targets).account
    assert account.loc["mistake_cost", "contribution"] == 0
    sign = 1 if wrong_side else -1
    assert account.loc["error_rate", "contribution"] == pytest.approx(sign * 2 / 3)
    assert math.isnan(account.loc["mistake_cost", ("before", "after")[1 - wrong_side]])


@few
@given(pairs())
def test_exchanging_the_sides_changes_every_sign_and_nothing_else(data):
    before, after, targets = data
    there, back = comparison_of(before, after, targets), comparison_of(after, before, targets)
    swapped = [(SWAPPED.get(transition, transition), SWAPPED.get(d, d)) for transition, d in CELLS]
    for name in ("contribution", "hedge", "mistake", "calibration", "refinement"):
        np.testing.assert_array_equal(there.cells[name], -back.cells.loc[swapped, name].to_numpy())
    for name in ("samples", "same_label_samples", "contribution_se"):
        np.testing.assert_array_equal(there.cells[name], back.cells.loc[swapped, name])
    np.testing.assert_array_equal(there.account["contribution"], -back.account["contribution"])
    np.testing.assert_array_equal(there.classes["contribution"], -back.classes["contribution"])


@few
@given(pairs(), st.integers(0, 2**32 - 1))
def test_a_constant_added_to_a_row_changes_nothing(data, seed):
    before, after, targets = data
    shift = np.random.default_rng(seed).integers(-50, 50, (2, len(targets), 1))
    one, other = comparison_of(*data), comparison_of(before + shift[0], after + shift[1], targets)
    if one.before.columns["tied"].any() or one.after.columns["tied"].any():
        return  # the rounding of the sum may break a tie
    for name in ("contribution", "hedge", "mistake"):
        part, moved = (
            one.cells[name].groupby("transition").sum(),
            other.cells[name].groupby("transition").sum(),
        )
        np.testing.assert_allclose(part, moved, atol=1e-12, rtol=0)  # as exact as logits around 100 are


@few
@given(pairs(broken=False), st.randoms(use_true_random=False))
def test_classes_by_other_numbers_give_the_same_account(data, random):
    before, after, targets = data
    order = list(range(before.shape[1]))
    random.shuffle(order)
    other = comparison_of(before[:, order], after[:, order], np.argsort(order)[targets])
    one = comparison_of(before, after, targets)
    if one.before.columns["tied"].any() or one.after.columns["tied"].any():
        return  # the first of tied classes is predicted: another one, by other numbers
    np.testing.assert_allclose(other.cells, one.cells, rtol=1e-9, atol=rounding(one))
    np.testing.assert_allclose(
        other.classes["contribution"], one.classes["contribution"].iloc[order], rtol=1e-9, atol=rounding(one)
    )


@few
@given(pairs(), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_the_rounding_only(data, random):
    before, after, targets = data
    order = list(range(len(targets)))
    random.shuffle(order)
    one = comparison_of(before, after, targets)
    other = comparison_of(before[order], after[order], targets[order])
    columns = ["samples", "contribution", "hedge", "mistake", "confidence_up_contribution"]
    np.testing.assert_allclose(
        other.cells[columns], one.cells[columns], rtol=1e-12, atol=rounding(one) + 1e-300
    )


@few
@given(pairs())
def test_identical_checkpoints_change_by_exactly_nothing(data):
    before, _, targets = data
    comparison = comparison_of(before, before.copy(), targets)
    parts = ["contribution", "hedge", "mistake", "calibration", "refinement", "confidence_up_samples"]
    assert (comparison.cells[parts] == 0).all().all()
    assert (comparison.account["contribution"] == 0).all()
    assert (comparison.classes["contribution"] == 0).all()
    assert comparison.cells.xs("unchanged", level="direction")["samples"].sum() == len(
        comparison.panel.targets
    )


@few
@given(pairs(classes=(2,), broken=False))
def test_with_two_classes_a_wrong_sample_rises_exactly_where_its_confidence_does(data):
    samples = comparison_of(*data).samples
    clear = samples["change"].abs() > 1e-9
    for transition, sign in (("stayed_wrong", 1), ("stayed_right", -1)):
        some = samples[clear & (samples["transition"] == transition)]
        surer = np.sign(some["confidence_after"] - some["confidence_before"])
        saturated = some["confidence_after"] > 1 - 1e-9
        assert ((surer == sign * np.sign(some["change"])) | saturated).all()


@few
@given(pairs(broken=False))
def test_the_cells_standard_error_is_that_of_the_mean_of_the_cells_changes(data):
    comparison = comparison_of(*data)
    samples = comparison.samples
    for (transition, direction), row in comparison.cells.iterrows():
        inside = (samples["transition"] == transition) & (samples["direction"] == direction)
        terms = samples["change"].where(inside, 0.0).to_numpy()
        if len(terms) < 2:
            assert math.isnan(row["contribution_se"])
            continue
        expected = terms.std(ddof=1) / math.sqrt(len(terms))
        assert row["contribution_se"] == pytest.approx(expected, rel=1e-6, abs=1e-8 * np.abs(terms).max())


def test_the_class_table_describes_each_class_alone(make_logits):
    logits, targets = make_logits(60, 4, 2, churn=0.3)
    targets[targets == 2] = 1  # class 2 has no samples
    comparison = comparison_of(*logits, targets)
    for label, row in comparison.classes.iterrows():
        of_class = comparison.samples[comparison.samples["target"] == label]
        assert row["samples"] == len(of_class)
        if label == 2:
            assert row.filter(like="_before").isna().all()
            assert row["contribution"] == 0
            continue
        for side in ("before", "after"):
            right = of_class[f"predicted_{side}"] == label
            assert row[f"accuracy_{side}"] == pytest.approx(right.mean())
            assert row[f"loss_{side}"] == pytest.approx(of_class[f"loss_{side}"].mean())
            gap = of_class[f"confidence_{side}"].mean() - right.mean()
            assert row[f"confidence_gap_{side}"] == pytest.approx(gap)
    weighted = comparison.classes["samples"] / 60 * comparison.classes.eval("loss_after - loss_before")
    np.testing.assert_allclose(weighted.dropna(), comparison.classes["contribution"].drop(2), atol=1e-14)


@pytest.mark.parametrize("signal", [1.5, 0.0])  # without any, the best temperature is infinite
def test_a_class_masked_everywhere_might_as_well_not_be_there(signal):
    rng = np.random.default_rng(4)
    targets = rng.integers(0, 3, 80)
    logits = rng.normal(size=(2, 80, 4)) - 9
    logits[:, np.arange(80), targets] += signal
    logits[..., 3] = -np.inf
    one, other = comparison_of(*logits, targets), comparison_of(*logits[..., :3], targets)
    np.testing.assert_allclose(one.cells, other.cells, rtol=1e-9, atol=1e-14)
    columns = ["before", "after", "change", "change_se"]
    np.testing.assert_allclose(one.change[columns], other.change[columns], rtol=1e-7, atol=1e-12)
    assert one.before.fit_status == other.before.fit_status


def test_pairwise_cells_are_those_of_each_pair(make_logits):
    logits, targets = make_logits(50, 3, 4, churn=0.3)
    logits[2, :7] = np.nan
    panel = stack(checkpoints(logits, targets))
    found = list(pairwise_cells(panel))
    assert [(a, b) for a, b, _, _ in found] == [(a, b) for a in range(4) for b in range(a + 1, 4)]
    for a, b, contributions, samples in found:
        expected = cells_of(panel.take(panel.finite[a] & panel.finite[b]), a, b)
        np.testing.assert_allclose(contributions, expected["contribution"], rtol=1e-13, atol=1e-15)
        np.testing.assert_array_equal(samples, expected["samples"])


changes = arrays(np.float64, st.integers(1, 40), elements=st.floats(-100, 100, allow_subnormal=False))


@given(changes)
def test_the_cancelling_samples_are_the_fewest_whose_removal_leaves_no_rise(d):
    found = concentration_of(d).loc["cancelling_samples", "value"]
    falling = sorted(d.tolist(), reverse=True)
    sums = [math.fsum(falling[m:]) for m in range(len(d) + 1)]
    if min(abs(s) for s in sums[:-1]) < 1e-9 * np.abs(d).max():
        return  # on the edge, rounding decides
    assert found == next(m for m, left in enumerate(sums) if left <= 0)


def test_where_every_sample_rises_all_of_them_must_go():
    assert concentration_of(np.full(1000, 0.1)).loc["cancelling_samples", "value"] == 1000


def test_concentration_of_one_exploding_sample():
    d = np.r_[np.full(99, -0.01), 50.0]
    value = concentration_of(d)["value"]
    assert value["top_1_percent"] == 1
    assert value["cancelling_samples"] == 1
    assert value["effective_samples"] < 2


def test_concentration_of_equal_rises_is_the_share_itself():
    d = np.r_[np.full(100, 1.0), np.full(100, -0.5)]
    value = concentration_of(d)["value"]
    assert value[["top_1_percent", "top_5_percent", "top_10_percent"]].tolist() == pytest.approx(
        [0.02, 0.1, 0.2]
    )
    assert value["cancelling_samples"] == 50
    assert value["effective_samples"] == pytest.approx(200)  # two values equally often: kurtosis 1


def test_a_fall_has_no_share_of_a_rise():
    value = concentration_of(np.array([-1.0, -2.0, 0.0]))["value"]
    assert value.filter(like="top").isna().all()
    assert value["cancelling_samples"] == 0
