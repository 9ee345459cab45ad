import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from confshift.analysis.persistence import mann_kendall, persistence_of
from simulated_runs import correlated


def literal_jitter(series, centre):
    """The robust jitter about one place, written out."""
    length = min(len(series), 17)
    start = min(max(centre - length // 2, 0), len(series) - length)
    return literal_deviation(series[start : start + length])


def literal_deviation(series):
    found = []
    for lag in (1, 3):
        seconds = [series[i + lag] - 2 * series[i] + series[i - lag] for i in range(lag, len(series) - lag)]
        if len(seconds) >= 3:
            found.append(1.4826 * np.median(np.abs(seconds)) / math.sqrt(6))
    return max(found)


def literal_level(series):
    window = 3 if len(series) >= 10 else 2
    means = [np.mean(series[i : i + window]) for i in range(len(series) - 2 * window + 1)]
    lowest = int(np.argmin(means))
    jitter = max(
        literal_jitter(series, lowest + window // 2),
        literal_jitter(series, len(series) - 1 - window // 2),
    )
    return (np.mean(series[-window:]) - means[lowest]) / (jitter * math.sqrt(2 / window)), jitter


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


@pytest.mark.parametrize("epochs", [8, 9, 10, 13, 20, 60])
def test_the_level_is_the_literal_one(epochs):
    random = np.random.default_rng(epochs)
    for _ in range(20):
        series = random.standard_normal(epochs)
        series[0] = series.min() - 1e-9  # no initial fall is cut off
        found = persistence_of(series, alpha=0.05)
        assert (found.level, found.jitter_sd) == pytest.approx(literal_level(series), rel=1e-9)


@pytest.mark.parametrize("epochs", [8, 12, 40])
def test_jitter_alone_exceeds_the_critical_level_as_often_as_promised(epochs):
    random = np.random.default_rng(1)
    above = []
    for _ in range(500):
        series = random.standard_normal(epochs)
        level, _ = literal_level(series)
        series[0] = -1e-9 + series.min()  # keeps the fall from being cut, for a critical value of this length
        above.append(level > persistence_of(series, alpha=0.05).level_critical)
    assert np.mean(above) == pytest.approx(0.025, abs=0.016)


@given(st.integers(0, 10**6), st.integers(8, 60), st.floats(-100, 100), st.sampled_from([0.001, 0.5, 40.0]))
def test_neither_origin_nor_unit_of_the_series_matters(seed, epochs, origin, unit):
    series = np.random.default_rng(seed).standard_normal(epochs)
    one, other = (persistence_of(values, alpha=0.05) for values in (series, unit * series + origin))
    same = ("rising", "tail", "trend_p", "level_critical")
    assert [getattr(one, name) for name in same] == pytest.approx(
        [getattr(other, name) for name in same], nan_ok=True
    )
    assert other.level == pytest.approx(one.level, rel=1e-6, nan_ok=True)
    assert other.jitter_sd == pytest.approx(unit * one.jitter_sd, rel=1e-6, nan_ok=True)
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
    series = np.concatenate([np.linspace(2, 1, 8), np.linspace(1.3, 2.2, 6), np.linspace(1.9, 1.7, 26)])
    found = persistence_of(series + 0.02 * random.standard_normal(40), alpha=0.05)
    assert found.trend_p > 0.5
    assert found.level > found.level_critical
    assert found.rising


def test_the_initial_fall_is_not_taken_for_jitter():
    random = np.random.default_rng(5)
    plateau = 0.5 + 0.01 * random.standard_normal(30)
    with_fall = np.concatenate([0.5 + 2 * np.exp(-np.arange(12) / 2), plateau])
    assert persistence_of(with_fall, alpha=0.05).jitter_sd < 0.03


def test_slow_fluctuations_are_called_rising_far_less_often_than_without_the_correlation():
    random = np.random.default_rng(6)
    found = [persistence_of(correlated(80, random, 0.8), alpha=0.05) for _ in range(100)]
    apart = [one.trend_p < 0.025 or one.level > one.level_critical for one in found]
    assert np.mean([one.rising for one in found]) < 0.6 * np.mean(apart)


def test_under_correlation_the_level_is_held_against_the_slow_part_of_the_jitter_where_that_is_larger():
    random = np.random.default_rng(9)
    decided = set()
    for _ in range(300):
        series = 1.5 * np.linspace(0, 1, 60) ** 2 + correlated(60, random, 0.85)
        series[0] = series.min() - 1e-9
        series[-1] += random.choice([0.0, 3.0])
        found = persistence_of(series, alpha=0.05)
        r, tail = found.autocorrelation, series[1:]
        if r <= 0.5:
            continue
        level, jitter = literal_level(series)
        slow = 1.2 * literal_deviation(tail) * math.sqrt((1 + r) / (1 - r))
        apart = found.trend_p < 0.025 or level > found.level_critical
        assert found.rising == (apart and level * jitter / max(jitter, slow) > found.level_critical)
        decided.add((apart, found.rising))
    assert decided == {(True, True), (True, False), (False, False)}


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
    assert np.mean([one.rising for one in found]) >= 0.95


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
    assert (found.trend_p, found.level, found.jitter_sd, found.autocorrelation) == (1.0, 0.0, 0.0, 0.0)


def test_a_short_series_has_no_level_and_no_autocorrelation():
    found = persistence_of(np.arange(6.0), alpha=0.05)
    assert found.tail == 5
    assert math.isnan(found.level)
    assert math.isnan(found.autocorrelation)
    assert found.rising == (found.trend_p < 0.025)


def test_at_a_look_of_many_only_the_trend_counts_and_for_less():
    random = np.random.default_rng(8)
    series = np.arange(30) / 15 + random.standard_normal(30)
    once, look = persistence_of(series, alpha=0.05), persistence_of(series, alpha=0.05, look_alpha=1e-6)
    assert once.rising
    assert not look.rising
    assert look.trend_p == once.trend_p
