import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from confshift.analysis.grouping import counted_share, group_codes, group_terms
from confshift.analysis.significance import (
    Switches,
    accuracy_bounds,
    accuracy_interval,
    mcnemar,
    paired_interval,
)
from confshift.errors import ConfshiftError


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
    below = np.mean([truth < interval.low for interval in intervals])
    above = np.mean([truth > interval.high for interval in intervals])
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


def outcomes(samples, switching, learning):
    """All numbers of learned and forgotten samples with their probability, but for the unlikeliest."""
    numbers = np.arange(samples + 1)
    numbers = numbers[stats.binom.pmf(numbers, samples, switching) > 1e-9]
    learned = np.concatenate([np.arange(number + 1) for number in numbers])
    switched = np.repeat(numbers, numbers + 1)
    weight = stats.binom.pmf(switched, samples, switching) * stats.binom.pmf(learned, switched, learning)
    likely = weight > 1e-10
    return learned[likely], (switched - learned)[likely], weight[likely]


@pytest.mark.parametrize(
    ("samples", "switching"), [(20, 0.1), (60, 0.07), (300, 0.02), (1000, 0.01), (900, 0.1)]
)
@pytest.mark.parametrize("learning", [0.5, 0.65, 0.8, 1.0])
def test_an_interval_of_accuracy_holds_its_level_where_few_switch(samples, switching, learning):
    learned, forgotten, weight = outcomes(samples, switching, learning)
    low, high = accuracy_bounds(learned, forgotten, samples)
    truth = switching * (2 * learning - 1)
    assert weight[(low <= truth) & (truth <= high)].sum() > 0.945
    if learning == 0.5:
        assert weight[(low > 0) | (high < 0)].sum() < 0.05


@settings(max_examples=50)
@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 3000), st.floats(0.05, 1))
def test_the_interval_of_accuracy_excludes_0_where_mcnemar_rejects(learned, forgotten, stayed, share):
    samples = learned + forgotten + stayed
    if not samples:
        return
    low, high = accuracy_bounds(share * learned, share * forgotten, share * samples)
    fewer, more = sorted((share * learned, share * forgotten))
    p_value = min(1.0, 2 * stats.beta.cdf(0.5, more, fewer + 1)) if more else 1.0
    assert (low > 0 or high < 0) == (p_value < 0.05)
    change = (learned - forgotten) / samples
    assert -1 <= low <= change + 1e-12
    assert change - 1e-12 <= high <= 1


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 500))
def test_learned_and_forgotten_exchanged_mirror_the_interval_of_accuracy(learned, forgotten, stayed):
    samples = learned + forgotten + stayed
    low, high = accuracy_bounds(learned, forgotten, samples)
    mirrored = accuracy_bounds(forgotten, learned, samples)
    np.testing.assert_allclose((-high, -low), mirrored, atol=1e-12)
    assert math.isnan(low) == (samples == 0)


def test_a_bound_is_where_the_likelihood_ratio_score_of_tango_is_at_its_quantile():
    """Tango's variance, with the rate of switches maximised on a grid in place of his closed form."""
    learned, forgotten, samples = 40, 2, 400
    low, high = (float(one) for one in accuracy_bounds(learned, forgotten, samples))
    for bound, expected in ((low, 1.96), (high, -1.96)):
        rate = np.linspace(max(0.0, -bound) + 1e-9, (1 - bound) / 2 - 1e-9, 100_001)
        rest = 1 - 2 * rate - bound
        logs = learned * np.log(rate + bound) + forgotten * np.log(rate)
        likely = rate[np.argmax(logs + (samples - learned - forgotten) * np.log(rest))]
        variance = samples * (2 * likely + bound * (1 - bound))
        score = (learned - forgotten - samples * bound) / math.sqrt(variance)
        assert score == pytest.approx(expected, abs=2e-3)


def test_without_a_switch_the_interval_of_accuracy_has_a_width_and_without_samples_none():
    low, high = accuracy_bounds([0, 0], 0, [1000, 0])
    assert (low[0], high[0]) == pytest.approx((-0.00383, 0.00383), abs=1e-5)
    assert np.isnan([low[1], high[1]]).all()


def test_groups_of_one_sample_each_change_nothing():
    rng = np.random.default_rng(0)
    values, correct, codes = rng.normal(size=50), rng.random((2, 50)) < 0.7, rng.permutation(50)
    assert paired_interval(values, codes=codes) == pytest.approx(paired_interval(values), rel=1e-9)
    assert accuracy_interval(correct, codes) == pytest.approx(accuracy_interval(correct), rel=1e-9)
    assert mcnemar(*correct, codes=codes) == pytest.approx(mcnemar(*correct), rel=1e-9)


def test_copies_in_a_group_count_once():
    rng = np.random.default_rng(1)
    values, correct = rng.normal(size=400), rng.random((2, 400)) < [[0.8], [0.7]]
    codes = np.repeat(np.arange(400), 6)
    by_groups = paired_interval(np.repeat(values, 6), codes=codes)
    assert by_groups == pytest.approx(paired_interval(values), rel=1e-9)
    copied = np.repeat(correct, 6, axis=1)
    assert accuracy_interval(copied, codes) == pytest.approx(accuracy_interval(correct), abs=5e-4)
    assert mcnemar(*copied, codes=codes).p_value == pytest.approx(mcnemar(*correct).p_value, rel=0.05)
    assert (mcnemar(*copied).p_value, mcnemar(*copied).forgotten) == (
        pytest.approx(stats.binomtest(mcnemar(*copied).learned, int((copied[0] ^ copied[1]).sum())).pvalue),
        6 * mcnemar(*correct).forgotten,
    )


def test_with_groups_that_switch_together_the_interval_of_accuracy_holds_its_level():
    rng = np.random.default_rng(2)
    codes, excluded, alone = np.repeat(np.arange(40), 8), 0, 0
    for _ in range(200):
        before = np.repeat(rng.random(40) < 0.7, 8) ^ (rng.random(320) < 0.02)
        after = np.where(np.repeat(rng.random(40) < 0.15, 8), np.repeat(rng.random(40) < 0.7, 8), before)
        low, high = accuracy_interval(np.stack([before, after]), codes)
        excluded += low > 0 or high < 0
        low, high = accuracy_interval(np.stack([before, after]))
        alone += low > 0 or high < 0
    assert excluded <= 0.05 * 200 < alone


def test_one_group_has_no_interval_and_equal_answers_count_groups():
    same = np.ones((2, 30), bool)
    assert np.isnan(accuracy_interval(same, np.zeros(30, int))).all()
    assert np.isnan(mcnemar(*same[:, :30], codes=np.zeros(30, int)).p_value)
    low, high = accuracy_interval(same, np.arange(30) // 3)
    assert high == -low > 2.5 * accuracy_interval(same)[1]


def test_groups_that_cancel_within_themselves_count_no_more_than_their_samples():
    differences, codes = np.tile([1.0, -1.0, 0.0, 0.0], 50), np.arange(200) // 4
    assert group_terms(differences, codes).tolist() == [0.0] * 50
    assert counted_share(differences, codes) <= 1


def test_codes_may_have_gaps():
    values, codes = np.arange(9.0) ** 2, np.arange(9) // 2
    assert group_terms(values, 7 * codes) == pytest.approx(group_terms(values, codes))
    assert counted_share(values, 7 * codes) == counted_share(values, codes)


def test_a_group_is_asked_for_each_sample():
    with pytest.raises(ConfshiftError, match="no entry for 1 of 2 sample ids, such as 5; give every"):
        group_codes({4: "a"}, np.array([4, 5]))
    with pytest.raises(ConfshiftError, match=r"shape \(3,\), the run has 2 samples; give one label for each"):
        group_codes(["a", "b", "a"], np.array([4, 5]))
