"""One series: the status, its numbers, and how often it is wrong."""

import math

import numpy as np
import pytest

from confshift.analysis.persistence import persistence_of
from confshift.analysis.series import ALPHA, STATUSES, Series, judge_series, series_of
from confshift.analysis.simultaneous import EpochMeans, Maxima, critical_value, maxima, sequential_values
from simulated_runs import simulated_losses


def judged(losses, **options):
    return judge_series(series_of(losses, np.arange(float(len(losses)))), **options)


def around(means, samples=1000, spread=0.1, seed=0):
    """Losses with exactly these means and independent noise at every epoch."""
    noise = np.random.default_rng(seed).standard_normal((len(means), samples)) * spread
    return noise - noise.mean(axis=1, keepdims=True) + np.asarray(means)[:, None]


RISING = np.concatenate([[1.0, 0.5, 0.2], 0.2 + 0.02 * np.arange(1, 13)])
JAGGED = np.concatenate([[1.0, 0.5], [0.30, 0.36] * 7])


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        (around(RISING), "systematic"),
        (around(JAGGED), "within_jitter"),
        (around(RISING, spread=10), "below_resolution"),
        (around(np.r_[0.5, 0.2, np.full(12, 0.2)], spread=0.5), "flat"),
        (around(RISING[:4]), "too_few_epochs"),
        (around([0.9, 0.5, 0.4, 0.3, 0.2, 0.3]), "too_few_epochs"),
        (around(np.r_[np.linspace(1, 0.2, 10), 0.22, 0.24, 0.26, 0.28]), "too_few_epochs"),
        (around(RISING[:1]), "too_few_epochs"),
        (around(np.linspace(1, 0.2, 12)), "flat"),
        (around(np.r_[0.5, 0.2, 0.25, 0.2, 0.21, 0.25, 0.2, 0.24], samples=30, spread=2), "below_resolution"),
        (np.repeat(around([0.3]), 12, axis=0), "flat"),
        (np.repeat(RISING[:, None], 50, axis=1), "below_resolution"),
        (np.zeros((12, 50)), "flat"),
    ],
    ids=[
        "rises steadily",
        "jumps up and down",
        "rises steadily in few or noisy samples",
        "does not rise",
        "four epochs",
        "one epoch after the minimum",
        "five epochs after the initial fall",
        "one epoch",
        "falls all the way",
        "few samples show nothing",
        "identical checkpoints",
        "copies of one sample",
        "no loss at all",
    ],
)
def test_each_course_has_its_status(losses, status):
    row = judged(losses)
    assert (row["status"], row["verdict"]) == (status, STATUSES[status].verdict)


def test_the_numbers_of_a_rise_are_those_of_the_paired_differences():
    losses = around(RISING)
    row = judged(losses)
    assert (row["best_epoch"], row["last_epoch"]) == (2, 14)
    assert row["amount"] == pytest.approx(RISING[-1] - RISING[2])
    error = np.std(losses[14] - losses[2], ddof=1) / math.sqrt(1000)
    assert row["resolution"] == pytest.approx((row["critical_value"] + 0.84) * error, rel=1e-9)
    for sign, name in ((-1, "lower_bound"), (1, "upper_bound")):
        bounds = [
            np.mean(losses[14] - losses[s])
            + sign * row["critical_value"] * np.std(losses[14] - losses[s], ddof=1) / math.sqrt(1000)
            for s in range(14)
        ]
        assert row[name] == pytest.approx(max(bounds), rel=1e-9)
    assert 1.6 < row["critical_value"] < 3.2
    assert row["fall"] == pytest.approx(0.8)
    assert (row["epochs"], row["units"]) == (15, 1000)


def test_a_rise_began_after_the_last_epoch_that_may_be_the_best():
    means = np.r_[1.0, 0.4, 0.2, 0.2, 0.201, 0.3, 0.32, 0.34, 0.36, 0.38, 0.4]
    series = series_of(around(means), np.arange(11.0) * 10)
    assert list(series.candidates.index[series.candidates["in_set"]]) == [20, 30, 40]
    assert judge_series(series)["since"] == 40


def test_a_rise_is_told_where_the_last_epoch_is_not_among_the_best():
    random = np.random.default_rng(1)
    for _ in range(40):
        series = series_of(simulated_losses(200, 12, random, rise=0.1, rise_from=4), np.arange(12.0))
        row = judge_series(series)
        assert (row["statistic"] > row["critical_value"]) == (not series.candidates["in_set"].iloc[-1])
        assert (row["lower_bound"] > 0) == (row["statistic"] > row["critical_value"])
        assert math.isnan(row["since"]) == (row["statistic"] <= row["critical_value"])


def test_the_lowest_epoch_is_always_a_candidate():
    random = np.random.default_rng(2)
    for _ in range(20):
        table = series_of(simulated_losses(50, 7, random), np.arange(7.0)).candidates
        assert table["in_set"].loc[table["value"].idxmin()]
        assert table["statistic"].loc[table["value"].idxmin()] == 0


def test_groups_widen_what_can_be_resolved():
    losses = np.repeat(around(RISING, samples=100), 10, axis=1)
    epochs = np.arange(float(len(RISING)))
    apart = judge_series(series_of(losses, epochs))
    together = judge_series(series_of(losses, epochs, groups=np.repeat(np.arange(100), 10)))
    assert together["units"] == 100
    assert together["resolution"] > 3 * apart["resolution"]
    assert together["lower_bound"] < apart["lower_bound"]


@pytest.mark.parametrize("looks", ["every epoch", 15])
def test_asked_at_every_epoch_the_limits_are_those_of_all_looks_together(looks):
    series = series_of(around(RISING), np.arange(15.0))
    row = judge_series(series, looks=looks)
    planned = None if looks == "every epoch" else looks
    expected = sequential_values(series.null.earlier, alpha=ALPHA, planned=planned, units=1000)[-1]
    assert (
        row["critical_value"] == expected > critical_value(series.null.earlier[-1], alpha=ALPHA, units=1000)
    )


def flat_runs(count, **options):
    random = np.random.default_rng(11)
    return [simulated_losses(120, 12, random, **options) for _ in range(count)]


@pytest.mark.parametrize(
    ("noise", "count"),
    [({}, 200), ({"memory": 1.0}, 100), ({"jitter": 0.15}, 100)],
    ids=["lasting", "walk", "jitter"],
)
def test_flat_runs_are_rarely_called_systematic(noise, count):
    alarms = [judged(losses)["status"] in ("systematic", "small") for losses in flat_runs(count, **noise)]
    assert np.mean(alarms) <= 0.10


def test_a_test_of_every_epoch_against_the_best_would_raise_an_alarm_in_most_flat_runs():
    naive = []
    for losses in flat_runs(60):
        series = series_of(losses, np.arange(12.0))
        best = [int(np.argmin(series.errors.means[:look])) for look in range(1, 12)]
        naive.append(any(series.errors.t_values[look + 1, at] > 1.645 for look, at in enumerate(best)))
    assert np.mean(naive) > 0.4


def test_most_rises_are_found():
    random = np.random.default_rng(12)
    found = [
        judged(simulated_losses(300, 20, random, rise=0.5, rise_from=5))["status"] == "systematic"
        for _ in range(30)
    ]
    assert np.mean(found) >= 0.8


def test_the_true_rise_lies_below_the_upper_and_above_the_lower_bound_as_often_as_promised():
    random = np.random.default_rng(13)
    rows = [judged(simulated_losses(300, 15, random, rise=0.2, rise_from=5)) for _ in range(150)]
    assert np.mean([row["upper_bound"] >= 0.2 for row in rows]) >= 0.91
    assert np.mean([row["lower_bound"] <= 0.2 for row in rows]) >= 0.91


@pytest.mark.parametrize("looks", ["every epoch", 12])
def test_flat_runs_asked_at_every_epoch_rarely_raise_any_alarm(looks):
    alarms = []
    for losses in flat_runs(60):
        whole = series_of(losses, np.arange(12.0))
        statuses = []
        for count in range(5, 13):
            errors = EpochMeans(whole.errors.means[:count], whole.errors.covariance[:count, :count], 120)
            null = Maxima(whole.null.earlier[:count], whole.null.others[:count])
            statuses.append(judge_series(Series(whole.epochs[:count], errors, null), looks=looks)["status"])
        alarms.append("systematic" in statuses)
    assert np.mean(alarms) <= 0.10


def test_a_steady_rise_is_found_while_training_too():
    long = around(np.r_[1.0, 0.5, 0.2 + 0.02 * np.arange(38)])
    assert judged(long, looks="every epoch")["status"] == "systematic"
    assert judged(long, looks=40)["status"] == "systematic"


@pytest.mark.parametrize("course", [RISING, RISING / 100], ids=["beyond sampling error", "within it"])
def test_the_persistence_shown_allows_for_sampling_error_where_the_end_is_beyond_it(course):
    losses = around(course)
    errors, row = series_of(losses, np.arange(15.0)).errors, judged(losses)
    beyond = row["statistic"] > row["critical_value"]
    assert beyond == (course is RISING)
    covariance = errors.covariance if beyond else None
    for name, value in persistence_of(errors.means, covariance, alpha=ALPHA)._asdict().items():
        assert row[name] == pytest.approx(value, nan_ok=True)


def test_the_draws_depend_on_nothing_but_the_losses():
    losses = around(RISING)
    series = series_of(losses, np.arange(15.0))
    np.testing.assert_array_equal(series.null.others, maxima(series.errors).others)
    one, other = judged(losses), judged(losses)
    assert one == other or all(
        a == b or (isinstance(a, float) and math.isnan(a))
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def after_a_drop(epochs, *, drop=13, slope=0.004):
    """Means that jitter by .1 up to the drop of the learning rate, and rise smoothly after it."""
    wild = np.r_[1.6, 1.2, 0.9, 0.7 + 0.1 * np.random.default_rng(3).standard_normal(drop - 3)]
    return np.r_[wild, 0.4 + slope * np.arange(epochs - drop)]


@pytest.mark.parametrize("repeated", [False, True])
def test_the_jitter_before_the_rate_fell_does_not_hide_a_smooth_rise_after_it(repeated):
    losses, epochs = around(after_a_drop(37)), np.arange(37.0)
    looks = 37 if repeated else "once"
    assert judge_series(series_of(losses, epochs), looks=looks)["status"] == "within_jitter"
    row = judge_series(series_of(losses, epochs, drops=(13,)), looks=looks)
    assert (row["status"], row["settled"]) == ("systematic", 24)


@pytest.mark.parametrize(
    ("epochs", "drops"),
    [(28, (13,)), (37, (14,)), (37, (36,)), (37, ())],
    ids=["too few epochs left", "the lowest mean is before", "at the end", "none"],
)
def test_otherwise_all_epochs_tell_what_jitter_is(epochs, drops):
    series = series_of(around(after_a_drop(epochs)), np.arange(float(epochs)), drops=drops)
    assert len(series.at_the_last_rates) == epochs


def test_of_two_drops_before_the_lowest_mean_the_later_one_counts():
    series = series_of(around(after_a_drop(40)), np.arange(40.0), drops=(5, 13, 25))
    np.testing.assert_array_equal(series.at_the_last_rates, series.errors.means[13:])


#: The refinement loss of a training on handwriting whose rate was far too high at epochs 13 and 14.
BEFORE = [2.247, 0.736, 0.45, 0.356, 0.315, 0.278, 0.271, 0.268, 0.249, 0.25, 0.247, 0.245, 0.26]
PEAK = [0.668, 1.156]
AFTER = [
    *(0.676, 0.588, 0.543, 0.513, 0.496, 0.479, 0.466, 0.453, 0.444, 0.433, 0.431, 0.425, 0.419, 0.413),
    *(0.41, 0.409, 0.404, 0.401),
]
WILD = 0.3 + 0.04 * np.random.default_rng(0).standard_normal(9)


@pytest.mark.parametrize(
    ("means", "status"),
    [
        ([*BEFORE, *PEAK, *AFTER], "setback"),
        ([*BEFORE, PEAK[1], *AFTER], "setback"),  # one epoch
        ([*BEFORE, *PEAK, *np.subtract(AFTER, 0.15), 0.25, 0.25, 0.255], "flat"),  # all made up for
        ([*BEFORE, *PEAK, *AFTER[:8], 0.25, *AFTER[8:]], "within_jitter"),  # made up for once
        ([*BEFORE[:4], *WILD, *PEAK, *AFTER], "within_jitter"),  # the jitter before is as large
        ([*BEFORE, *np.geomspace(0.25, 1.2, 12), *AFTER], "within_jitter"),  # not sudden
        ([*BEFORE[:2], *PEAK, *AFTER], "flat"),  # nothing was learned before
    ],
)
def test_a_sudden_rise_that_was_not_made_up_for_is_a_setback(means, status):
    assert judged(around(means))["status"] == status
    assert judged(1 + 100 * around(means))["status"] == status
