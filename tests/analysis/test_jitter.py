"""The jitter test: its three statistics against literal ones, and how often jitter alone exceeds them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis.jitter import ENOUGH, JitterTest, critical_values, hinge, jitter_test, level, shape
from simulated_runs import correlated

LENGTHS = [8, 9, 10, 13, 20, 41, 70]


# ------------------------------------------------------------------------------------ literal statistics
def literal_contrast(series, columns, weights, *, sampling, critical, bias, lost, largest, freedom):
    """The contrast over its standard error, its critical value and the residual variance of one regression.

    Sampling error has a covariance; two standard errors of it count as much as `critical` of the jitter.
    """
    epochs, design = len(series), np.array(columns).T
    coefficients = np.linalg.lstsq(design, series, rcond=None)[0]
    residual = series - design @ coefficients
    # The weight of each epoch in the contrast: what it becomes where that epoch alone is 1.
    unit = [np.linalg.lstsq(design, one, rcond=None)[0] @ weights for one in np.eye(epochs)]
    effective = np.clip(3 * sum(residual**2) ** 2 / sum(residual**4), 8, epochs)
    r = sum(residual[i] * residual[i - 1] for i in range(1, epochs)) / sum(residual**2)
    r = np.clip((effective * r + bias) / max(effective - lost, 4), -0.3, largest)
    pooled = weighted = weight = 0.0
    for i in range(1, epochs):
        innovation = (residual[i] - r * residual[i - 1]) ** 2
        pooled += innovation
        weighted += unit[i] ** 2 * innovation
        weight += unit[i] ** 2
    variance = max(pooled, (epochs - 1) * weighted / weight) / freedom
    error = math.sqrt(variance * sum(one**2 for one in unit)) / (1 - r)
    critical = critical(effective)
    error = math.hypot(error, 2 / critical * math.sqrt(np.array(unit) @ sampling @ unit))
    return coefficients @ weights / error, critical, sum(residual**2) / freedom


def literal_hinge(series, sampling):
    last, time = len(series) - 1, np.arange(len(series))
    found = [
        literal_contrast(
            series,
            [np.ones(last + 1), np.maximum(0, time - start)],
            [0, 1],
            sampling=sampling,
            critical=lambda _: critical_values(last + 1).hinge,
            bias=2,
            lost=5,
            largest=0.95,
            freedom=last - 3,
        )
        for start in np.array([0, 0.2, 0.4, 0.6, 0.75]) * last
        if last - start >= 3.5
    ]
    return max(found)[:2]


def literal_shape(series, sampling):
    last, time, found = len(series) - 1, np.arange(len(series)), []
    for start in np.array([0, 0.15, 0.3, 0.45, 0.6, 0.75]) * last:
        for length in (0.08, 0.2, 0.4, 1.0):
            end = min(start + max(length * last, 1.5), last)
            if last - start < 3.5 or (length < 1 and end > 0.95 * last):
                continue
            ramp = [0 if t < start else 1 if t > end else (t - start) / (end - start) for t in time]
            columns, weights = [np.ones(last + 1), ramp], [0, 1]
            if last - end >= 4:
                columns.append(np.maximum(0, time - end))
                weights.append(last - end)
            k = len(columns)
            numbers = {"bias": 1 + k / 2, "lost": 3 + k, "largest": 0.9, "freedom": last - k}
            numbers |= {"sampling": sampling, "critical": lambda number: critical_values(number).shape}
            found.append(literal_contrast(series, columns, weights, **numbers))
    return min(found, key=lambda one: one[2])[:2]


def literal_jitter(series, centre):
    """The robust jitter about one place, written out."""
    length = min(len(series), max(12, min(17, len(series) // 2)))
    start = min(max(centre - length // 2, 0), len(series) - length)
    local, found = series[start : start + length], []
    for lag in (1, 3):
        seconds = [local[i + lag] - 2 * local[i] + local[i - lag] for i in range(lag, len(local) - lag)]
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


def courses(epochs, count=5):
    """Jitter of every kind about rises of every kind."""
    random = np.random.default_rng(epochs)
    slow = [correlated(epochs, random, correlation) for correlation in (-0.4, 0, 0.5, 0.8, 0.99)]
    calmer = np.where(np.arange(epochs) < epochs // 3, 1, 0.1)
    line, step = np.linspace(0, 4, epochs), 5 * (np.arange(epochs) > epochs // 2)
    return np.array([one * sd + rise for one in slow for sd in (1, calmer) for rise in (0, line, step)])


def wandering(epochs, variance=1.0, memory=0.95):
    """The covariance of the sampling errors of means whose samples move slowly."""
    time = np.arange(epochs)
    return variance * memory ** np.abs(time[:, None] - time)


@pytest.mark.parametrize("epochs", [8, 9, 10, 13, 20, 41])
@pytest.mark.parametrize("variance", [0.0, 0.3], ids=["means alone", "sampling error"])
@pytest.mark.parametrize(
    ("statistic", "literal"), [(hinge, literal_hinge), (shape, literal_shape)], ids=["hinge", "shape"]
)
def test_hinge_and_shape_are_the_literal_ones(statistic, literal, epochs, variance):
    series, sampling = courses(epochs), wandering(epochs, variance)
    found = statistic(series, sampling if variance else None)
    expected = [literal(one, sampling) for one in series]
    np.testing.assert_allclose(np.transpose(found), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("epochs", LENGTHS)
def test_the_level_and_the_jitter_are_the_literal_ones(epochs):
    series = courses(epochs)
    np.testing.assert_allclose(np.transpose(level(series)), [literal_level(one) for one in series], rtol=1e-9)


# ------------------------------------------------------------------------------------------ what they see
@given(st.integers(0, 10**6), st.integers(8, 60), st.floats(-100, 100), st.sampled_from([0.001, 0.5, 40.0]))
def test_neither_origin_nor_unit_of_the_series_matters(seed, epochs, origin, unit):
    series = np.random.default_rng(seed).standard_normal(epochs)
    covariance = wandering(epochs, 0.5)
    one, other = jitter_test(series, covariance), jitter_test(unit * series + origin, unit**2 * covariance)
    assert other._replace(jitter_sd=other.jitter_sd / unit) == pytest.approx(one, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("epochs", [8, 20, 50])
def test_a_constant_series_has_neither_jitter_nor_a_rise(epochs):
    found = jitter_test(np.full(epochs, 0.3))
    assert not found.rising
    assert max(found.level, found.hinge, found.shape) < 1e-3
    assert found.jitter_sd < 2e-9


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize(
    "course",
    [np.arange(30.0), np.arange(30.0) > 14, np.minimum(np.arange(30.0), 10), np.log1p(np.arange(30.0))],
    ids=["line", "step", "saturating", "logarithm"],
)
def test_a_rise_without_jitter_is_a_rise(course, scale):
    assert jitter_test(scale * course).rising
    assert not jitter_test(-scale * course).rising


def test_rounding_is_no_rise():
    random = np.random.default_rng(0)
    for origin in (0.3, 1e6):
        series = origin * (1 + 1e-15 * np.cumsum(random.random(40)))
        assert not jitter_test(series).rising


def test_jitter_before_the_rate_falls_is_not_measured_by_that_after_it():
    random = np.random.default_rng(1)
    sd = np.where(np.arange(60) < 20, 1.0, 0.04)
    fired = [jitter_test(sd * correlated(60, random, 0.8)).rising for _ in range(300)]
    assert np.mean(fired) < 0.09


# ----------------------------------------------------------------------------- how often jitter exceeds them
@pytest.mark.parametrize("epochs", [10, 20, 40, 80])
def test_jitter_exceeds_the_critical_values_as_often_as_they_say(epochs):
    critical = critical_values(epochs)
    above, beyond_level = [], []
    for correlation in (0.0, 0.5, 0.8):
        random = np.random.default_rng(epochs)
        series = np.array([correlated(epochs, random, correlation) for _ in range(2000)])
        either = (hinge(series)[0] > critical.hinge / 1.4) | (shape(series)[0] > critical.shape / 1.4)
        above.append(either.mean())
        beyond_level.append((level(series)[0] > critical.slow_level).mean())
        if correlation == 0:
            assert (level(series)[0] > critical.level).mean() == pytest.approx(0.025, abs=0.012)
    assert max(above) == pytest.approx(0.05, abs=0.017)
    assert max(beyond_level) == pytest.approx(0.01, abs=0.008)


def beyond(series, covariance, **options):
    """Which series hinge or shape calls rising."""
    found = (statistic(series, covariance, **options) for statistic in (hinge, shape))
    return np.logical_or(*(value > critical for value, critical in found))


def with_sampling_error(random, runs, epochs, correlation):
    """Flat means whose sampling error is as large as their jitter."""
    root = np.linalg.cholesky(wandering(epochs))
    jitter = np.array([correlated(epochs, random, correlation) for _ in range(runs)])
    return random.standard_normal((runs, epochs)) @ root.T + jitter


@pytest.mark.parametrize("epochs", [40, 100])
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_jitter_and_sampling_error_of_one_size_are_rarely_called_rising(epochs, correlation):
    series = with_sampling_error(np.random.default_rng(epochs), 1000, epochs, correlation)
    assert beyond(series, wandering(epochs)).mean() < 0.05


def test_at_many_looks_jitter_and_sampling_error_of_one_size_are_rarely_called_rising():
    series = with_sampling_error(np.random.default_rng(3), 500, 100, 0.0)
    at_looks = [beyond(series[:, :n], wandering(n), repeated=True) for n in range(20, 101, 5)]
    assert np.any(at_looks, axis=0).mean() < 0.03


def test_sampling_error_makes_a_rise_less_clear_and_no_sampling_error_changes_nothing():
    series = np.linspace(0, 3, 30) + np.random.default_rng(4).standard_normal((20, 30))
    for statistic in (hinge, shape):
        alone, critical = statistic(series)
        np.testing.assert_array_equal(statistic(series, np.zeros((30, 30)))[0], alone)
        some, more = (statistic(series, wandering(30, variance)) for variance in (0.1, 10.0))
        assert np.all((np.abs(more[0]) < np.abs(some[0])) & (np.abs(some[0]) < np.abs(alone)))
        np.testing.assert_array_equal(more[1], critical)


@pytest.mark.parametrize("epochs", [20, 30, 40])
def test_a_level_known_from_few_wide_epochs_is_held_against_the_values_of_few(epochs):
    random = np.random.default_rng(epochs)
    even = np.array([correlated(epochs, random, 0.8) for _ in range(3000)])
    falling = even * np.repeat(
        [5.0, 1.0, 0.2], [epochs // 3 + 1, epochs // 3, epochs - 2 * (epochs // 3) - 1]
    )
    value, critical = shape(falling)
    assert np.mean(value > critical) < 0.045
    assert np.median(critical) > 1.2 * np.median(shape(even)[1])
    assert np.median(shape(even)[1]) < 1.1 * critical_values(epochs).shape


@given(st.integers(8, 1000))
def test_critical_values_lie_between_those_of_the_neighbouring_lengths(epochs):
    here, next_one = critical_values(epochs), critical_values(epochs + 1)
    assert next_one.hinge <= here.hinge
    assert next_one.shape <= here.shape
    assert here.level < here.slow_level
    if epochs >= 200:
        assert next_one == here


def test_values_for_every_look_are_larger_than_those_for_one():
    once, repeated = critical_values(ENOUGH), critical_values(ENOUGH, repeated=True)
    assert repeated.hinge > once.hinge
    assert repeated.shape > once.shape
    assert repeated.slow_level > once.slow_level
    assert repeated.level == once.level


def test_seven_epochs_say_nothing():
    assert all(math.isnan(value) for value in jitter_test(np.arange(7.0)))
    assert not JitterTest().rising
    assert not any(math.isnan(value) for value in jitter_test(np.arange(8.0)))
