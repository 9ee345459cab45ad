import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from confshift.analysis.simultaneous import (
    EpochMeans,
    critical_value,
    maxima,
    mean_errors,
    sequential_values,
    spending,
)
from simulated_runs import simulated_losses


@pytest.fixture(scope="module")
def losses():
    return simulated_losses(400, 12, np.random.default_rng(0))


def test_the_covariance_is_that_of_the_means(losses):
    errors = mean_errors(losses)
    np.testing.assert_allclose(errors.covariance, np.cov(losses) / 400, rtol=1e-12)
    np.testing.assert_allclose(errors.means, losses.mean(axis=1), rtol=1e-14)
    assert errors.units == 400


def test_standard_errors_and_t_values_are_those_of_the_paired_t_test(losses):
    errors = mean_errors(losses)
    for after, before in [(11, 3), (5, 0), (2, 9)]:
        test = stats.ttest_rel(losses[after], losses[before])
        assert errors.t_values[after, before] == pytest.approx(test.statistic, rel=1e-9)
        expected = stats.sem(losses[after] - losses[before])
        assert errors.standard_errors[after, before] == pytest.approx(expected, rel=1e-9)


def test_groups_of_one_sample_change_nothing(losses):
    alone = mean_errors(losses, groups=np.random.default_rng(0).permutation(400))
    np.testing.assert_allclose(alone.covariance, mean_errors(losses).covariance, rtol=1e-12)


def test_groups_give_the_cluster_formula(losses):
    groups = np.random.default_rng(1).integers(0, 37, 400)
    errors = mean_errors(losses, groups=groups)
    expected = np.zeros((12, 12))
    for group in range(37):
        total = (losses - losses.mean(axis=1, keepdims=True))[:, groups == group].sum(axis=1)
        expected += np.outer(total, total)
    np.testing.assert_allclose(errors.covariance, expected * 37 / 36 / 400**2, rtol=1e-10)
    assert errors.units == 37


@pytest.mark.parametrize("weights", [None, np.tile([0.5, 1.5], 200)])
def test_one_group_shows_no_error_as_one_sample_does(losses, weights):
    errors = mean_errors(losses, groups=np.zeros(400, int), weights=weights)
    assert errors.units == 1
    assert not errors.covariance.any()  # not the rounding of a sum that is 0
    assert not errors.t_values.any()


def test_copies_put_into_groups_count_once(losses):
    twice = mean_errors(np.repeat(losses, 2, axis=1), groups=np.repeat(np.arange(400), 2))
    np.testing.assert_allclose(twice.covariance, mean_errors(losses).covariance, rtol=1e-12)


def test_draws_have_the_law_of_multipliers_put_on_the_samples(losses):
    errors = mean_errors(losses)
    random = np.random.default_rng(3)
    noise = random.standard_normal((4000, 400)) @ (losses - losses.mean(axis=1, keepdims=True)).T / 400
    literal = np.empty((12, 4000))
    for epoch in range(12):
        others = [other for other in range(12) if other != epoch]
        differences = (noise[:, [epoch]] - noise[:, others]) * errors.inverse_errors[epoch, others]
        literal[epoch] = differences.max(axis=1)
    null = maxima(errors)
    for epoch in (0, 5, 11):
        assert stats.ks_2samp(null.others[epoch], literal[epoch].clip(min=0)).pvalue > 0.001
    assert stats.ks_2samp(null.earlier[11], literal[11].clip(min=0)).pvalue > 0.001


def test_a_new_epoch_leaves_the_draws_of_the_earlier_ones_as_they_were(losses):
    before, after = maxima(mean_errors(losses[:8])), maxima(mean_errors(losses))
    np.testing.assert_allclose(before.earlier, after.earlier[:8], rtol=1e-9)


def test_the_order_of_the_samples_changes_nothing_but_rounding(losses):
    shuffled = np.random.default_rng(0).permutation(losses.T).T
    np.testing.assert_allclose(
        maxima(mean_errors(shuffled)).others, maxima(mean_errors(losses)).others, rtol=1e-6
    )


def test_the_draws_may_be_made_in_blocks_of_any_size(losses, monkeypatch):
    whole = maxima(mean_errors(losses), draws=700)
    monkeypatch.setattr("confshift.analysis.simultaneous._BLOCK", 37)
    np.testing.assert_array_equal(maxima(mean_errors(losses), draws=700).others, whole.others)


def test_identical_checkpoints_are_left_out_of_every_maximum(losses):
    doubled = np.concatenate([losses, losses[[4, 4, 7]]])
    errors = mean_errors(doubled)
    assert errors.standard_errors[12, 4] == errors.standard_errors[14, 7] == 0
    assert errors.t_values[12, 4] == 0
    null = maxima(errors)
    assert np.isfinite(null.others).all()
    # The copy competes with the same epochs as its original.
    assert critical_value(null.others[12], alpha=0.05, units=400) == pytest.approx(
        critical_value(null.others[4], alpha=0.05, units=400), rel=1e-9
    )


def test_more_epochs_than_samples_are_no_obstacle():
    errors = mean_errors(np.random.default_rng(0).standard_normal((30, 10)))
    null = maxima(errors)
    spread = null.earlier[1][null.earlier[1] > 0]
    assert np.isfinite(null.others).all()
    assert np.mean(spread**2) == pytest.approx(1, abs=0.1)  # half of a standard normal


@pytest.mark.parametrize(("units", "degrees"), [(10_000, 9999), (12, 11)])
def test_two_epochs_need_no_more_than_one_t_test(units, degrees):
    errors = EpochMeans(np.zeros(2), np.eye(2), units)
    null = maxima(errors, draws=200_000)
    found = critical_value(null.earlier[1], alpha=0.05, units=units)
    assert found == pytest.approx(stats.t.ppf(0.95, degrees), rel=0.02)


@given(st.integers(1, 300), st.one_of(st.none(), st.integers(1, 300)))
def test_spending_grows_and_never_exceeds_the_whole(look, planned):
    assert 0 < spending(look, planned=planned) <= 1
    assert spending(look, planned=planned) <= spending(look + 1, planned=planned)
    if planned and look >= planned:
        assert spending(look, planned=planned) == 1


@pytest.mark.parametrize("planned", [None, 11, 100])
def test_as_many_draws_cross_by_each_look_as_may_be_spent(losses, planned):
    null = maxima(mean_errors(losses))
    limits = sequential_values(null.earlier, alpha=0.05, planned=planned, units=10**9)
    crossed = np.zeros(4000, dtype=bool)
    for look in range(1, 12):
        crossed |= null.earlier[look] > limits[look] * (1 + 1e-9)
        allowed = 0.05 * spending(look, planned=planned)
        assert allowed - 1.5 / 4000 <= crossed.mean() <= allowed + 1e-9
    assert math.isinf(limits[0])


def test_looking_at_every_epoch_asks_for_more_than_looking_once(losses):
    null = maxima(mean_errors(losses))
    once = critical_value(null.earlier[-1], alpha=0.05, units=400)
    planned = sequential_values(null.earlier, alpha=0.05, planned=11, units=400)[-1]
    assert planned > once
    assert (sequential_values(null.earlier, alpha=0.05, planned=None, units=400)[1:] > 1.6).all()


def test_a_set_of_candidates_holds_the_best_epoch_as_often_as_it_promises():
    random = np.random.default_rng(7)
    truth = np.array([0.05, 0.0, 0.01, 0.02, 0.05, 0.1])
    held = []
    for _ in range(200):
        losses = simulated_losses(150, 6, random) + truth[:, None]
        errors = mean_errors(losses)
        limit = critical_value(maxima(errors, draws=1000).others[1], alpha=0.05, units=150)
        held.append(errors.t_values[1].max() <= limit)
    assert np.mean(held) >= 0.92
