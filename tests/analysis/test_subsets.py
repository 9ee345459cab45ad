"""The change by subset: every number by pandas and a loop, and which subsets stand out beyond chance."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import comparison_of, pairs, rounding, scored
from scipy.stats import norm, ttest_ind

from confshift.analysis.comparison import compare
from confshift.analysis.decomposition import CELLS
from confshift.analysis.significance import paired_interval
from confshift.analysis.subsets import ALPHA, chance_of_excess, holm
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions


@pytest.fixture
def sides(make_logits):
    logits, targets = make_logits(400, 5, 2, seed=3, churn=0.3)
    logits[1, 7] = np.nan
    logits[0, 11, targets[11]] = -np.inf
    return logits, targets


def attributes(samples, seed=0):
    draw = np.random.default_rng(seed)
    return pd.DataFrame(
        {"site": draw.choice(list("ABC"), samples, p=[0.7, 0.25, 0.05]), "length": draw.gamma(2, 9, samples)}
    )


def test_every_number_is_that_of_a_loop_over_the_samples(sides):
    logits, targets = sides
    frame, groups = attributes(400), np.arange(400) // 2
    comparison = compare(*(Predictions(z, targets) for z in logits), groups=groups, slices=frame)
    table, samples = comparison.slices, comparison.samples
    assert len(samples) == 398
    quartile = pd.cut(frame["length"], [-1, *np.sort(frame["length"])[[99, 199, 299]], 1e9], labels=False)
    panel = comparison.panel
    parts = {
        name: values[1] - values[0]
        for name in ("scale", "balance", "refinement")
        if (values := getattr(panel, name)) is not None
    }
    for name, values in (("site", frame["site"]), ("length", quartile)):
        rows = table.loc[name]
        for row, (_, members) in zip(rows.itertuples(), frame.groupby(values), strict=True):
            inside = samples.index.isin(members.index)
            some, whole = samples[inside], len(samples)
            assert row.samples == len(some)
            assert row.units == len({at // 2 for at in some.index})
            assert row.weight == pytest.approx(len(some) / whole)
            assert row.loss_before == pytest.approx(some["loss_before"].mean())
            assert row.loss_after == pytest.approx(some["loss_after"].mean())
            assert row.change == pytest.approx(some["change"].mean())
            assert row.change_elsewhere == pytest.approx(samples["change"][~inside].mean())
            assert row.contribution == pytest.approx(some["change"].sum() / whole)
            assert row.excess == pytest.approx(row.contribution - row.weight * samples["change"].mean())
            assert row.share_of_change == pytest.approx(some["change"].sum() / samples["change"].sum())
            own = paired_interval(some["change"].to_numpy(), codes=np.array(some.index) // 2)
            assert (row.change_low, row.change_high) == pytest.approx((own.low, own.high))
            for part, change in parts.items():
                assert getattr(row, part) == pytest.approx(change[inside].sum() / whole)
            for transition, direction in CELLS:
                cell = some[(some["transition"] == transition) & (some["direction"] == direction)]
                expected = cell["change"].sum() / whole
                assert getattr(row, f"{transition}_{direction}") == pytest.approx(expected)
            answered = members.index[members.index != 7]  # an infinite loss is a wrong answer
            assert row.answered_samples == len(answered)
            right = (logits[1].argmax(axis=1) == targets)[answered]
            assert row.accuracy_after == pytest.approx(right.mean())


def test_with_weights_of_classes_every_mean_is_weighted_and_the_sums_add_up(sides):
    logits, targets = sides
    frame, weights = attributes(400), np.array([0, 1, 2, 3, 10.0])
    frame["counts"] = targets > 0
    comparison = compare(*(Predictions(z, targets) for z in logits), class_weight=weights, slices=frame)
    samples, table = comparison.samples, comparison.slices
    weight = weights[samples["target"]]
    total = comparison.change.loc["loss", "change"]
    np.testing.assert_allclose(table.groupby(level=0)["contribution"].sum(), total)
    np.testing.assert_allclose(table.groupby(level=0)["weight"].sum(), 1)
    for value, row in table.loc["site"].iterrows():
        inside = (frame["site"] == value).to_numpy()[samples.index]
        for name, column in (
            ("change", "change"),
            ("loss_before", "loss_before"),
            ("loss_after", "loss_after"),
        ):
            assert row[name] == pytest.approx(np.average(samples[column][inside], weights=weight[inside]))
        rest = np.average(samples["change"][~inside], weights=weight[~inside])
        assert row["change_elsewhere"] == pytest.approx(rest)
        assert row["weight"] == pytest.approx(weight[inside].sum() / weight.sum())
        assert row["excess"] == pytest.approx(row["weight"] * (1 - row["weight"]) * (row["change"] - rest))
    nothing = table.loc[("counts", "False")]
    assert nothing["samples"] == (targets[samples.index] == 0).sum() > 20
    assert nothing[["weight", "contribution"]].tolist() == [0, 0]
    assert nothing[["change", "change_low", "p_value"]].isna().all()
    alike = comparison_of(*logits, targets).by(frame).slices
    twice = compare(*(Predictions(z, targets) for z in logits), class_weight=[2] * 5, slices=frame).slices
    np.testing.assert_allclose(twice.astype(float), alike.astype(float))


def test_a_sample_that_weighs_as_much_as_its_copies_names_no_subset_sooner():
    """Weights are no samples: what a few heavy samples say is as uncertain as they are."""
    rng = np.random.default_rng(0)
    member, false = np.arange(400) < 60, 0
    for _ in range(60):
        weights = np.where(rng.random(400) < 0.2, 5.0, 1.0)
        false += chance_of_excess(rng.normal(size=400), member, None, weights) <= ALPHA
    assert false <= 7


@settings(max_examples=12, deadline=None)
@given(pairs(), st.data())
def test_the_subsets_of_each_attribute_add_up_to_the_change_and_its_parts(pair, data):
    before, after, targets = pair
    values = st.lists(st.sampled_from(["a", "b", None, "c"]), min_size=len(targets), max_size=len(targets))
    frame = pd.DataFrame({name: data.draw(values) for name in "xy"})
    comparison = comparison_of(before, after, targets).by(frame)
    change, limit = comparison.change.loc["loss", "change"], rounding(comparison)
    rows = comparison.slices.groupby(level="attribute")
    assert (rows["samples"].sum() == scored(before, after, targets).sum()).all()
    assert (rows["contribution"].sum() - change).abs().max() <= limit
    parts = comparison.slices[["scale", "balance", "refinement"]].sum(axis=1)
    np.testing.assert_allclose(parts, comparison.slices["contribution"], atol=limit)
    assert comparison.slices["p_value"].isna().all()  # of at most 12 samples


def test_the_order_of_rows_and_of_attributes_changes_nothing(sides):
    logits, targets = sides
    frame = attributes(400)
    comparison = comparison_of(*logits, targets)
    table = comparison.by(frame).slices
    shuffled = frame.sample(frac=1, random_state=1)[["length", "site"]]
    pd.testing.assert_frame_equal(comparison.by(shuffled).slices.loc[["site", "length"]], table)


def test_without_subsets_the_table_says_how_to_have_them(sides):
    logits, targets = sides
    with pytest.raises(ConfshiftError, match="pass slices= to confshift"):
        comparison_of(*logits, targets).slices  # noqa: B018


def test_of_two_symmetric_samples_the_chance_is_that_of_the_stricter_of_two_tests():
    rng = np.random.default_rng(0)
    half = rng.normal(size=150)
    change = np.concatenate([half + 0.3, 0.3 - half, *(2 * [2 * half]), *(2 * [-2 * half])])
    member = np.arange(900) < 300
    welch = ttest_ind(change[member], change[~member], equal_var=False, alternative="greater").pvalue
    pooled = norm.sf(0.3 / math.sqrt(change.var() * (1 / 300 + 1 / 600)))
    assert chance_of_excess(change, member) == pytest.approx(max(welch, pooled), rel=0.02)
    assert chance_of_excess(-change, member) == 1.0


def test_a_tail_to_the_right_makes_a_large_mean_likelier_and_one_to_the_left_less_likely():
    rng = np.random.default_rng(0)
    member = np.arange(1000) < 200
    skewed = np.where(member, 3.0, 1.0) * (rng.exponential(size=1000) - 1)
    for sign in (1, -1):
        change = sign * skewed + 0.6 * member
        change[member] += 0.6 - change[member].mean()
        welch = ttest_ind(change[member], change[~member], equal_var=False, alternative="greater").pvalue
        chance = chance_of_excess(change, member)
        assert (chance < 0.8 * welch) if sign > 0 else (chance > 1.2 * welch)


def test_the_limit_is_excluded_for_all_subsets_together():
    draw = np.random.default_rng(0)
    margins = np.full(400, 2.0), draw.normal(1.5, 0.5, 400)
    frame = pd.DataFrame({at: draw.integers(0, 2, 400) for at in range(20)})
    sides = [np.stack([margin, np.zeros(400)], axis=1) for margin in margins]
    comparison = comparison_of(*sides, np.zeros(400, int)).by(frame)
    change, excluded = comparison.samples["change"].to_numpy(), []
    for name in frame:
        for value in (0, 1):
            member = (frame[name] == value).to_numpy()
            limit = 1.5 * member.mean() / (1 + 0.5 * member.mean())
            levels = (1 - 0.1 / 40, 0.9)
            excluded.append(
                [paired_interval(change * (member - limit), level=one).high < 0 for one in levels]
            )
    together, alone = np.array(excluded).T.tolist()
    assert comparison.slices["limit_excluded"].tolist() == together
    assert any(alone)
    assert together != alone


@given(st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_groups_of_one_sample_are_no_groups_and_copies_in_a_group_count_once(seed):
    rng = np.random.default_rng(seed)
    change, member = rng.gamma(1, 1, 80), rng.random(80) < 0.4
    change[member] += 0.3
    alone = chance_of_excess(change, member)
    assert chance_of_excess(change, member, np.arange(80)) == pytest.approx(alone)
    twice = [np.repeat(values, 2) for values in (change, member, np.arange(80))]
    assert chance_of_excess(*twice) == pytest.approx(alone)


def test_equal_changes_and_none_at_all_are_no_evidence():
    member = np.arange(60) < 30
    assert chance_of_excess(np.ones(60), member) == 1.0
    assert chance_of_excess(np.zeros(60), member) == 1.0
    assert chance_of_excess(member.astype(float), member) < 1e-9


def test_holms_correction_leaves_out_what_was_not_judged():
    corrected = holm(np.array([0.03, np.nan, 0.01, 0.04, 0.9]))
    np.testing.assert_allclose(corrected, [0.09, np.nan, 0.04, 0.09, 0.9])
    assert np.isnan(holm(np.array([np.nan]))).all()


def heavy(rng, samples, *, up):
    """Changes of which one in a hundred is very large, up or down."""
    return rng.normal(0.02, 0.1, samples) + up * (rng.random(samples) < 0.01) * rng.exponential(10, samples)


def named(rng, change, codes=None, planted=None):
    """Whether any of 50 random subsets is named, or which ones with the planted one first."""
    shares = rng.uniform(24 / len(change), 0.5, 50)
    members = [rng.random(len(change)) < share for share in shares]
    members[:0] = [] if planted is None else [planted]
    chances = [chance_of_excess(change, member, codes) for member in members]
    return holm(np.array(chances)) <= ALPHA


@pytest.mark.parametrize("up", [1, -1])
def test_random_subsets_of_heavy_tailed_changes_are_hardly_ever_named(up):
    rng = np.random.default_rng(1)
    assert sum(named(rng, heavy(rng, 600, up=up)).any() for _ in range(40)) <= 4


def test_groups_that_err_together_name_no_random_subset_of_groups():
    rng = np.random.default_rng(2)
    codes, false, naive = np.arange(1000) // 20, 0, 0
    for _ in range(40):
        change = rng.normal(0.1, 1, 50)[codes] + rng.normal(0, 0.5, 1000)
        member = rng.permutation(np.arange(50) < 22)[codes]
        false += chance_of_excess(change, member, codes) <= ALPHA
        naive += chance_of_excess(change, member) <= ALPHA
    assert false <= 5
    assert naive >= 12


def test_a_planted_subset_of_a_fifth_is_found_among_fifty():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(20):
        change, planted = heavy(rng, 2000, up=1), rng.random(2000) < 0.2
        change[planted] += rng.gamma(0.5, 1.6, planted.sum())
        found += named(rng, change, planted=planted)[0]
    assert found >= 16
