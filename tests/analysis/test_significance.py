import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from confshift.analysis.significance import Switches, mcnemar, paired_interval


def skewed_differences(samples, random):
    """Losses that explode in a few samples: what a pair of late checkpoints looks like."""
    return 0.02 * random.standard_normal(samples) + np.where(
        random.random(samples) < 0.05, random.gamma(0.7, 2.0, samples), 0
    )


@pytest.mark.parametrize(("samples", "least"), [(200, 0.90), (1000, 0.93)])
def test_the_interval_covers_the_mean_of_a_skewed_pair(samples, least):
    random = np.random.default_rng(0)
    population = skewed_differences(20_000, random)
    truth = population.mean()
    intervals = [paired_interval(random.choice(population, samples)) for _ in range(1000)]
    below = np.mean([truth < one.low for one in intervals])
    above = np.mean([truth > one.high for one in intervals])
    assert least <= 1 - below - above <= 0.975
    assert above < 0.06


def test_the_interval_errs_on_both_sides_where_students_errs_on_one():
    random = np.random.default_rng(1)
    population = skewed_differences(20_000, random)
    truth, missed, missed_by_student = population.mean(), [], []
    for _ in range(1000):
        drawn = random.choice(population, 300)
        missed.append(truth > paired_interval(drawn).high)
        missed_by_student.append(truth > stats.t.interval(0.95, 299, drawn.mean(), stats.sem(drawn))[1])
    assert np.mean(missed) < np.mean(missed_by_student) - 0.01


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_without_skew_the_interval_is_students(level):
    half = np.random.default_rng(2).standard_normal(50)
    differences = 0.3 + np.concatenate([half, -half])
    interval = paired_interval(differences, level=level)
    expected = stats.t.interval(level, 99, differences.mean(), stats.sem(differences))
    assert (interval.low, interval.high) == pytest.approx(expected, rel=1e-9)
    assert interval.se == pytest.approx(stats.sem(differences), rel=1e-12)


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=30), st.floats(0.01, 100))
def test_reversing_the_pair_mirrors_the_interval_and_a_unit_scales_it(differences, unit):
    values = np.array(differences)
    one, other = paired_interval(values), paired_interval(-unit * values)
    assert other.estimate == pytest.approx(-unit * one.estimate, rel=1e-9, abs=1e-9 * unit)
    assert (other.low, other.high) == pytest.approx(
        (-unit * one.high, -unit * one.low), rel=1e-6, abs=1e-6 * unit
    )


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_samples_have_no_interval(count):
    interval = paired_interval(np.arange(float(count)))
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_equal_differences_leave_no_width():
    assert paired_interval(np.full(10, 0.25)) == (0.25, 0.0, 0.25, 0.25)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_mcnemar_is_the_exact_binomial_test_of_those_who_switched(learned, forgotten, stayed):
    before = np.repeat([False, True, True], [learned, forgotten, stayed])
    after = np.repeat([True, False, True], [learned, forgotten, stayed])
    switched = learned + forgotten
    expected = stats.binomtest(learned, switched).pvalue if switched else 1.0
    assert mcnemar(before, after) == Switches(learned, forgotten, pytest.approx(expected, rel=1e-9))


def test_mcnemar_of_many_samples_does_not_underflow_to_a_wrong_value():
    before = np.repeat([False, True], [40_000, 41_000])
    found = mcnemar(before, ~before)
    assert found.p_value == pytest.approx(stats.binomtest(40_000, 81_000).pvalue, rel=1e-6)
