"""Who took the mass: exact, antisymmetric, the path integral; scale against shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import EPS, checkpoints, comparison_of, pairs
from scipy.special import logsumexp, softmax

from confshift.analysis import competitors
from confshift.analysis.comparison import compare
from confshift.analysis.competitors import competitor_contributions, scale_parts


def losses(logits, targets):
    return logsumexp(logits - logits[np.arange(len(targets)), targets][:, None], axis=1)


def span(*logits):
    """The largest log-odds among them: their rounding is what the split is exact to."""
    return max(np.ptp(np.where(np.isfinite(z), z, np.nanmax(z)), axis=1).max() for z in logits)


@given(pairs(broken=False, scales=(1e-3, 1.0, 30.0, 1e3)))
def test_rows_add_up_to_each_samples_change(data):
    before, after, targets = data
    parts = competitor_contributions(before, after, targets)
    change = losses(after, targets) - losses(before, targets)
    size = 1 + span(before, after)
    np.testing.assert_allclose(parts.sum(axis=1), change, rtol=0, atol=8 * EPS * size * max(1, size / 16))
    assert (parts[np.arange(len(targets)), targets] == 0).all()


@given(pairs(broken=False, scales=(1e-3, 1.0, 30.0, 1e3)))
def test_exchanging_the_sides_changes_the_sign_to_the_last_bit(data):
    before, after, targets = data
    there = competitor_contributions(before, after, targets)
    np.testing.assert_array_equal(there, -competitor_contributions(after, before, targets))


@given(pairs(broken=False, scales=(1.0, 30.0)), st.integers(-1000, 1000))
def test_a_constant_added_to_a_row_moves_no_mass(data, constant):
    before, after, targets = data
    parts = competitor_contributions(before, after, targets)
    moved = competitor_contributions(before + constant, after - constant, targets)
    np.testing.assert_allclose(moved, parts, rtol=0, atol=1e-9)


@given(pairs(broken=False))
def test_identical_logits_move_exactly_nothing(data):
    before, _, targets = data
    assert (competitor_contributions(before, before.copy(), targets) == 0).all()


@given(pairs(classes=(2,), broken=False))
def test_with_two_classes_the_only_competitor_takes_all(data):
    before, after, targets = data
    parts = competitor_contributions(before, after, targets)
    change = losses(after, targets) - losses(before, targets)
    np.testing.assert_allclose(parts[np.arange(len(targets)), 1 - targets], change, atol=1e-12)


@given(pairs(masked=False, broken=False))
def test_the_weights_are_the_logarithmic_means_of_the_literal_formula(data):
    before, after, targets = data
    parts = competitor_contributions(before, after, targets)

    def logarithmic_mean(u, v):
        return u if u == v else (u - v) / (math.log(u) - math.log(v))

    for i, target in enumerate(targets):
        p, q = softmax(before[i]), softmax(after[i])
        if min(p.min(), q.min()) < 1e-300 or (np.abs(p / q - 1) < 1e-6).any():
            continue  # the literal formula has no digits there
        weights = np.array([logarithmic_mean(*two) for two in zip(p.tolist(), q.tolist(), strict=True)])
        odds = [side[i] - side[i, target] for side in (before, after)]
        expected = weights / weights.sum() * (odds[1] - odds[0])
        np.testing.assert_allclose(parts[i], expected, rtol=1e-8, atol=1e-9)


def test_the_split_is_close_to_the_integral_along_the_straight_path(make_logits):
    (before, after), targets = make_logits(200, 10, 2, churn=0.3)
    rows = np.arange(200)
    a, b = (side - side[rows, targets][:, None] for side in (before, after))
    steps = (np.arange(400) + 0.5) / 400
    mean_probability = np.mean([softmax(a + t * (b - a), axis=1) for t in steps], axis=0)
    path = mean_probability * (b - a)
    parts = competitor_contributions(before, after, targets)
    away = np.ones(path.shape, bool)
    away[rows, targets] = False
    assert np.corrcoef(path[away], parts[away])[0, 1] > 0.999
    assert np.polyfit(path[away], parts[away], 1)[0] == pytest.approx(1, abs=0.02)


def test_a_masked_class_is_the_limit_of_ever_lower_logits():
    rng = np.random.default_rng(1)
    before, after, targets = rng.normal(size=(30, 5)), rng.normal(size=(30, 5)), np.zeros(30, int)
    masked, low = after.copy(), after.copy()
    masked[:, 2] = -np.inf
    exact = competitor_contributions(before, masked, targets)
    errors = []
    for depth in (1e2, 1e4, 1e6):
        low[:, 2] = -depth
        errors.append(np.abs(competitor_contributions(before, low, targets) - exact).max())
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-5
    both = before.copy()
    both[:, 2] = -np.inf
    assert (competitor_contributions(both, masked, targets)[:, 2] == 0).all()


@given(pairs(masked=False, broken=False, scales=(1e-3, 1.0, 30.0)))
def test_where_no_class_is_masked_the_short_way_is_the_long_one(data):
    before, after, targets = data
    rows = np.arange(len(targets))
    odds = [side - side[rows, targets][:, None] for side in (before, after)]
    of_sides = np.stack([losses(side, targets) for side in (before, after)])
    logs = [side - loss[:, None] for side, loss in zip(odds, of_sides, strict=True)]
    short, long = (
        among(*(side.copy() for side in logs), of_sides)
        for among in (competitors._among_all, competitors._among_some)
    )
    np.testing.assert_allclose(short, long, rtol=1e-9, atol=1e-12 * span(before, after))


@given(pairs(broken=False))
def test_losses_that_are_known_save_a_pass_and_change_nothing(data):
    before, after, targets = data
    known = np.stack([losses(side, targets) for side in (before, after)])
    parts = competitor_contributions(before, after, targets, known)
    np.testing.assert_allclose(parts, competitor_contributions(before, after, targets), atol=1e-10, rtol=0)


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=80), st.integers(1, 12))
def test_the_largest_are_the_first_of_a_stable_sort(values, count):
    values = np.array(values, float)
    expected = np.argsort(-np.abs(values), kind="stable")[:count]
    np.testing.assert_array_equal(competitors._largest(values, count), expected)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_the_table_does_not_depend_on_how_many_samples_are_split_at_a_time(size, make_logits, monkeypatch):
    sides, targets = make_logits(90, 5, 2, churn=0.3)
    whole, _ = table_of(*sides, targets)
    monkeypatch.setattr(competitors, "_BLOCK", size * 5)
    parts, comparison = table_of(*sides, targets)
    assert parts.drop(columns="contribution").equals(whole.drop(columns="contribution"))
    np.testing.assert_allclose(parts["contribution"], whole["contribution"], rtol=1e-12)
    literal = competitor_contributions(*sides, targets)
    halves = [literal[(targets == 3) & (comparison.second_half == half)].sum(axis=0) for half in (0, 1)]
    of_class = parts[parts["class"] == 3].set_index("competitor")["contribution"]
    np.testing.assert_allclose(of_class, (sum(halves) / 90)[of_class.index], rtol=1e-12)


def table_of(before, after, targets, **given):
    comparison = comparison_of(before, after, targets, **given)
    return comparison.competitors, comparison


def test_the_table_sums_the_samples_of_each_class(make_logits):
    (before, after), targets = make_logits(80, 4, 2, churn=0.2)
    names = ["a", "b", "c", "d"]
    table, comparison = table_of(before, after, targets, class_names=names)
    parts = competitor_contributions(before, after, targets)
    assert len(table) == 12
    assert table["contribution"].abs().is_monotonic_decreasing
    for _, row in table.iterrows():
        expected = parts[targets == row["class"], row["competitor"]].sum() / 80
        assert row["contribution"] == pytest.approx(expected, rel=1e-12)
        assert (row["class_name"], row["competitor_name"]) == (
            names[row["class"]],
            names[row["competitor"]],
        )
    change = comparison.change.loc["loss", "change"]
    assert table["contribution"].sum() == pytest.approx(change, abs=1e-13)


def test_with_many_classes_the_small_pairs_are_one_row_and_nothing_is_lost():
    rng = np.random.default_rng(0)
    targets = np.repeat(np.arange(150), 2)
    before = rng.normal(size=(300, 150))
    after = before + 0.3 * rng.normal(size=(300, 150))
    table, comparison = table_of(before, after, targets)
    rest = table.iloc[-1]
    assert (rest["class"], rest["class_name"], rest["competitor"], rest["competitor_name"]) == (
        -1,
        "rest",
        -1,
        "rest",
    )
    assert table["class"].dtype.kind == table["competitor"].dtype.kind == "i"
    assert 9_000 < len(table) <= 10_001
    assert (table["class"] == -1).sum() == 1
    assert table["contribution"].sum() == pytest.approx(comparison.change.loc["loss", "change"], abs=1e-13)
    kept = table[table["class"] == 7].set_index("competitor")["contribution"]
    left = competitor_contributions(before, after, targets)[targets == 7].sum(axis=0) / 300
    left = np.delete(left, [7, *kept.index])
    assert np.abs(left).max() <= kept.abs().min()  # what is named is larger than what is not


def test_identical_checkpoints_have_no_competitor(make_logits):
    (before,), targets = make_logits(20, 3, 1)
    table, _ = table_of(before, before.copy(), targets)
    assert table.empty
    assert list(table) == ["class", "class_name", "competitor", "competitor_name", "contribution"]


def test_samples_that_cannot_be_scored_take_no_part(make_logits):
    (before, after), targets = make_logits(50, 3, 2, churn=0.2)
    after[:5] = np.nan
    before[7, targets[7]] = -np.inf
    keep = np.r_[5, 6, 8:50]
    clean, _ = table_of(before[keep], after[keep], targets[keep])
    table, _ = table_of(before, after, targets)
    np.testing.assert_allclose(table["contribution"], clean["contribution"], rtol=1e-12)


# ---- scale and shape


@settings(max_examples=25)
@given(pairs(broken=False))
def test_scale_and_shape_add_up_in_every_transition(data):
    comparison = comparison_of(*data)
    table = comparison.scale
    by_cell = comparison.cells["contribution"].groupby("transition", observed=True).sum()
    size = 1 + span(*data[:2])
    np.testing.assert_allclose(table["contribution"], by_cell[table.index], atol=8 * EPS * size)
    np.testing.assert_allclose(table["scale"] + table["shape"], table["contribution"], atol=8 * EPS * size)
    assert np.isfinite(table[["scale", "shape"]].to_numpy()).all()


@pytest.mark.parametrize("kappa", [0.2, 1.0, 3.7])
@pytest.mark.parametrize("classes", [2, 3, 40])
def test_logits_that_only_grew_have_no_change_of_shape(make_logits, classes, kappa):
    (before,), targets = make_logits(60, classes, 1)
    found, scale = scale_parts(before, kappa * before, targets)
    assert found == pytest.approx(kappa, rel=1e-12)
    change = losses(kappa * before, targets) - losses(before, targets)
    np.testing.assert_allclose(scale, change, atol=1e-12)


def test_scale_parts_are_the_four_corner_losses(make_logits):
    (before, after), targets = make_logits(60, 5, 2, churn=0.4)
    before = before + np.arange(60)[:, None]  # centring: a constant is no size
    sizes = [np.sqrt(((z - z.mean(axis=1, keepdims=True)) ** 2).mean()) for z in (before, after)]
    kappa = sizes[1] / sizes[0]
    corners = [losses(z, targets) for z in (before, kappa * before, after, after / kappa)]
    found, scale = scale_parts(before, after, targets)
    assert found == pytest.approx(kappa)
    np.testing.assert_allclose(scale, (corners[1] - corners[0] + corners[2] - corners[3]) / 2, atol=1e-12)


@given(pairs(broken=False))
def test_scale_parts_change_their_sign_with_the_sides(data):
    before, after, targets = data
    _, there = scale_parts(before, after, targets)
    _, back = scale_parts(after, before, targets)
    np.testing.assert_array_equal(there, -back)


@pytest.mark.parametrize("masked", [False, True])
def test_a_head_that_starts_at_zero_is_half_scale_and_half_shape(make_logits, masked):
    (after,), targets = make_logits(40, 3, 1)
    targets[:] = 1
    before = np.zeros_like(after)
    if masked:
        before[:, 0] = after[:, 0] = -np.inf
    kappa, scale = scale_parts(before, after, targets)
    assert kappa == math.inf
    np.testing.assert_allclose(scale, (losses(after, targets) - np.log(2 if masked else 3)) / 2, atol=1e-12)
    assert scale_parts(after, before, targets)[0] == 0
    kappa, scale = scale_parts(before, before, targets)
    assert kappa == 1
    assert (scale == 0).all()


def test_half_precision_logits_are_split_in_double(make_logits):
    logits, targets = make_logits(40, 5, 2, churn=0.2)
    half = logits.astype(np.float16)
    one = compare(*checkpoints(half, targets))
    other = compare(*checkpoints(half.astype(np.float64), targets))
    np.testing.assert_array_equal(one.competitors["contribution"], other.competitors["contribution"])
    np.testing.assert_array_equal(one.scale["scale"], other.scale["scale"])
