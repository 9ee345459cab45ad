"""A rise that was taken back is found with its height and its epochs, and jitter is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from confshift.analysis.series import Hump, hump_of
from confshift.analysis.simultaneous import EpochMeans, mean_errors
from simulated_runs import correlated


def errors_of(means, *, error=0.001):
    """Means whose paired differences have this standard error."""
    means = np.asarray(means, float)
    return EpochMeans(means, error**2 / 2 * np.eye(len(means)), 1000)


def found(means, **options):
    return hump_of(errors_of(means, **options), np.arange(10.0, 10 + len(means)))


FALL = [2.0, 1.4, 1.1, 1.0, 0.95, 0.94, 0.93, 0.92]


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([*FALL, 2.9, 4.8, 3.0, 1.5, 1.0, 0.95, 0.92, 0.91], Hump(3.88, 19.0, 22.0, 0.08)),
        ([*FALL, 4.8, 0.9, 0.9, 0.9], Hump(3.88, 18.0, 19.0, -0.02)),  # one epoch
        ([*FALL, 2.9, 4.8, 3.0, 2.0, 1.8, 1.9, 1.85], Hump(3.88, 19.0, 22.0, 0.88)),  # not all of it
        (
            [0.5, 3.0, 1.0, 0.6, 0.5, 0.45, 0.44, 0.43],
            Hump(2.5, 11.0, 13.0, 0.1),
        ),  # pretrained
        (
            [*FALL, 1.5, 0.95, 3.0, 1.0, 0.92, 0.93, *[0.91] * 6],
            Hump(2.08, 20.0, 21.0, 0.08),
        ),  # the larger of two
    ],
)
def test_a_hump_has_the_height_and_the_epochs_it_was_made_with(means, expected):
    assert found(means) == pytest.approx(expected)


@pytest.mark.parametrize(
    "means",
    [
        FALL,
        [*FALL, 1.2, 1.6, 2.2, 2.9],  # a rise that stays
        [*FALL, 2.9, 4.8, 4.0, 3.5, 3.4, 3.3],  # most of which stays
        [*FALL, 0.95, 0.97, 0.95, 0.93, 0.92],  # little beside the fall
        [5.0] * 8,
        [1.0, 3.0, 1.0],
        [1.0],
        [],
    ],
)
def test_where_nothing_was_taken_back_there_is_no_hump(means):
    assert all(math.isnan(one) for one in found(means))


def test_a_hump_within_sampling_error_is_none():
    means = [*FALL, 2.9, 4.8, 3.0, 1.5, 1.0, 0.95, 0.92, 0.91]
    assert math.isnan(found(means, error=1.0).hump)


@pytest.mark.parametrize("correlation", [0.0, 0.8])
@pytest.mark.parametrize("epochs", [10, 40, 200])
def test_jitter_seldom_makes_a_hump(epochs, correlation):
    random = np.random.default_rng(epochs)
    alarms = [
        not math.isnan(found(correlated(epochs, random, correlation), error=1e-6).hump) for _ in range(200)
    ]
    assert np.mean(alarms) <= 0.05


def test_a_hump_does_not_depend_on_unit_or_level():
    means = np.array([*FALL, 2.9, 4.8, 3.0, 1.5, 1.0, 0.95, 0.92, 0.91])
    plain, other = found(means), found(100 * means - 7, error=0.1)
    scaled = plain._replace(hump=100 * plain.hump, hump_left=100 * plain.hump_left)
    assert other == pytest.approx(scaled)


def test_the_error_of_samples_is_used():
    values = np.array([*FALL, 2.9, 4.8, 3.0, 1.5, 1.0, 0.95, 0.92, 0.91])[:, None] + np.zeros(50)
    assert math.isnan(hump_of(mean_errors(values), np.arange(16.0)).hump)  # no spread: no t-value
