import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from confshift.analysis.jitter import jitter_test
from confshift.analysis.persistence import mann_kendall, persistence_of
from simulated_runs import correlated


@given(hnp.arrays(np.int64, st.integers(4, 25), elements=st.integers(-6, 6)))
def test_mann_kendall_is_kendalls_tau_with_time_made_continuous(values):
    score, ties = 0, []
    for one, other in itertools.combinations(values.tolist(), 2):
        score += (other > one) - (other < one)
    size = len(values)
    variance = size * (size - 1) * (2 * size + 5) / 18
    for value in set(values.tolist()):
        ties = int((values == value).sum())
        variance -= ties * (ties - 1) * (2 * ties + 5) / 18
    if variance < 1e-9:
        assert mann_kendall(values) == 1
    else:
        continuous = score - (score > 0) + (score < 0)
        assert mann_kendall(values) == pytest.approx(
            stats.norm.sf(continuous / math.sqrt(variance)), rel=1e-9
        )
        assert (stats.kendalltau(np.arange(size), values).statistic > 0) == (score > 0)


def test_mann_kendall_is_close_to_its_exact_permutation_law():
    scores = [mann_kendall(np.array(order)) for order in itertools.permutations(range(7))]
    for level in (0.01, 0.025, 0.05, 0.1):
        assert 0.5 * level <= np.mean(np.array(scores) <= level) <= 1.05 * level


def test_three_values_have_no_trend():
    assert mann_kendall(np.arange(3.0)) == 1


@given(st.integers(0, 10**6), st.integers(1, 60), st.floats(-100, 100), st.sampled_from([0.001, 0.5, 40.0]))
def test_neither_origin_nor_unit_of_the_series_matters(seed, epochs, origin, unit):
    series = np.random.default_rng(seed).standard_normal(epochs)
    one, other = (persistence_of(values, alpha=0.05) for values in (series, unit * series + origin))
    same = ("rising", "settled", "tail", "trend_p")
    assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
    assert other.autocorrelation == pytest.approx(one.autocorrelation, abs=1e-6, nan_ok=True)


def test_jitter_alone_rarely_looks_lasting():
    random = np.random.default_rng(2)
    assert np.mean([persistence_of(random.standard_normal(40), alpha=0.05).rising for _ in range(400)]) < 0.09


@pytest.mark.parametrize("jitter", [0.0, 0.01, 1.0])
@pytest.mark.parametrize(
    "shape",
    [
        lambda t: 6 * t,
        lambda t: 6 * np.log1p(8 * t) / 2.2,
        lambda t: 6 * t**2,
        lambda t: 6 * (1 - np.exp(-5 * t)),
    ],
    ids=["line", "logarithm", "square", "saturating"],
)
def test_a_large_rise_is_lasting_whatever_its_shape(shape, jitter):
    random = np.random.default_rng(3)
    time = np.arange(40) / 40
    found = [persistence_of(shape(time) + jitter * random.standard_normal(40), alpha=0.05) for _ in range(20)]
    assert np.mean([one.rising for one in found]) >= 0.95


def test_a_rise_that_stopped_and_came_back_in_part_is_lasting_although_its_trend_is_down():
    random = np.random.default_rng(4)
    series = np.concatenate([np.linspace(2, 1, 8), np.linspace(1, 2.2, 10), np.linspace(1.9, 1.7, 42)])
    found = persistence_of(series + 0.02 * random.standard_normal(60), alpha=0.05)
    assert found.trend_p > 0.5
    assert found.rising


@pytest.mark.parametrize("fall", [0.5, 2, 20])
def test_a_loss_that_falls_and_then_rises_by_less_is_rising(fall):
    random, time = np.random.default_rng(5), np.arange(60)
    course = fall * np.exp(-time / 4) + 0.2 * np.maximum(0, time - 15) / 44
    assert persistence_of(course + 0.01 * random.standard_normal(60), alpha=0.05).rising
    assert not persistence_of(fall * np.exp(-time / 4) + 0.01 * random.standard_normal(60), alpha=0.05).rising


def test_the_initial_fall_ends_where_an_epoch_is_not_above_the_median_of_the_rest():
    random = np.random.default_rng(5)
    for _ in range(50):
        series = 3 * np.exp(-np.arange(40) / random.uniform(1, 20)) + random.standard_normal(40)
        settled = persistence_of(series, alpha=0.05).settled
        assert series[-settled] <= np.median(series[-settled:])
        assert all(series[at] > np.median(series[at:]) for at in range(40 - settled))
    assert persistence_of(np.linspace(1, 0, 30), alpha=0.05).settled == 1


def test_the_initial_fall_is_not_taken_for_jitter():
    random = np.random.default_rng(5)
    plateau = 0.5 + 0.01 * random.standard_normal(30)
    with_fall = np.concatenate([0.5 + 2 * np.exp(-np.arange(12) / 2), plateau])
    assert persistence_of(with_fall, alpha=0.05).jitter_sd < 0.03


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("calmer", [1.0, 0.2], ids=["one rate", "the rate drops twice"])
@pytest.mark.parametrize("fall", [0.0, 20.0])
def test_jitter_that_wanders_is_rarely_called_rising(correlation, calmer, fall):
    random, time = np.random.default_rng(6), np.arange(60)
    scale = calmer ** (time // 20)
    series = [fall * np.exp(-time / 3) + scale * correlated(60, random, correlation) for _ in range(150)]
    assert np.mean([persistence_of(one, alpha=0.05).rising for one in series]) < 0.09


def test_the_covariance_is_that_of_the_epochs_after_the_initial_fall():
    random = np.random.default_rng(9)
    series = np.concatenate([[5.0, 3.0], np.linspace(0, 1, 20) + 0.1 * random.standard_normal(20)])
    root = random.standard_normal((22, 22))
    found = persistence_of(series, root @ root.T, alpha=0.05)
    expected = jitter_test(series[-found.settled :], (root @ root.T)[-found.settled :, -found.settled :])
    assert found.settled < 22
    assert found[-len(expected) :] == expected


def learning_rate_dropped(random, *, jitter, shape, before, after):
    """A loss that falls, jitters much (and rises by `before`), drops with its jitter, and rises smoothly."""
    time = np.arange(60)
    means = np.where(time < 3, 3 - 0.6 * time, 1.2 + before * (time - 3) / 17)
    late = np.clip((time - 20) / 39, 0, 1)
    means = np.where(time < 20, means, 0.8 + before + after * shape(late))
    noise = np.where(time < 3, 0.1 * jitter, np.where(time < 20, jitter, 0.01))
    return means + noise * random.standard_normal(60)


@pytest.mark.parametrize("jitter", [0.15, 0.3])
@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (0.3, 1.0)])
@pytest.mark.parametrize(
    "shape",
    [lambda t: t, lambda t: np.log1p(8 * t) / np.log(9), lambda t: 1 - np.exp(-5 * t)],
    ids=["line", "logarithm", "saturating"],
)
def test_a_smooth_rise_after_a_drop_of_the_learning_rate_is_not_taken_for_slow_jitter(
    shape, before, after, jitter
):
    random = np.random.default_rng(10)
    found = [
        persistence_of(
            learning_rate_dropped(random, jitter=jitter, shape=shape, before=before, after=after), alpha=0.05
        )
        for _ in range(40)
    ]
    assert np.mean([one.rising for one in found]) >= 0.85


def test_the_autocorrelation_is_about_the_line_after_the_minimum():
    random = np.random.default_rng(7)
    series = np.concatenate([[-1.0], 0.1 * np.arange(200) + correlated(200, random, 0.7)])
    residual = series[1:] - np.polyval(np.polyfit(np.arange(200), series[1:], 1), np.arange(200))
    expected = (residual[1:] @ residual[:-1]) / (residual @ residual)
    found = persistence_of(np.concatenate([[-50.0], series[1:]]), alpha=0.05).autocorrelation
    assert found == pytest.approx(expected, rel=1e-6)
    assert 0.5 < found < 0.8


def test_a_constant_series_does_not_rise():
    found = persistence_of(np.full(20, 0.3), alpha=0.05)
    assert not found.rising
    assert (found.settled, found.trend_p, found.autocorrelation) == (20, 1.0, 0.0)


def test_fewer_than_eight_epochs_are_never_called_rising():
    found = persistence_of(np.arange(7.0), alpha=0.05)
    assert (found.settled, found.tail, found.rising) == (7, 6, False)
    assert found.trend_p < 0.025
    assert math.isnan(found.level)
    assert math.isnan(found.autocorrelation)
    assert persistence_of(np.arange(8.0), alpha=0.05).rising


def test_the_trend_counts_in_few_epochs_only():
    random = np.random.default_rng(8)
    decided = set()
    for epochs in (10, 15, 16, 40):
        for _ in range(100):
            series = np.linspace(0, 2, epochs) + random.standard_normal(epochs)
            found = persistence_of(series, alpha=0.05)
            fitted = found.hinge > found.hinge_critical or found.shape > found.shape_critical
            fitted = fitted or found.level > found.slow_level_critical
            trend = found.settled < 16 and found.trend_p < 0.025
            assert found.rising == (fitted or trend)
            decided.add((fitted, trend))
    assert len(decided) == 4


@pytest.mark.parametrize("epochs", [12, 30])
def test_asked_after_every_epoch_a_rise_must_be_clearer_and_no_trend_counts(epochs):
    random = np.random.default_rng(8)
    decided = set()
    for _ in range(60):
        series = np.linspace(0, 4, epochs) + random.standard_normal(epochs)
        once, look = (persistence_of(series, alpha=0.05, repeated=repeated) for repeated in (False, True))
        assert (look.trend_p, look.hinge) == (once.trend_p, once.hinge)
        assert look.hinge_critical == pytest.approx(once.hinge_critical * 2.4 / 1.4)
        assert look.shape_critical == pytest.approx(once.shape_critical * 2.4 / 1.4)
        assert look.slow_level_critical == pytest.approx(once.slow_level_critical * 1.8)
        assert look.rising == (
            look.hinge > look.hinge_critical
            or look.shape > look.shape_critical
            or look.level > look.slow_level_critical
        )
        decided.add((once.rising, look.rising))
    assert (True, False) in decided
    assert persistence_of(np.arange(float(epochs)), alpha=0.05, repeated=True).rising
