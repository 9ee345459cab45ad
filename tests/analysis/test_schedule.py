"""Each schedule that trainings use is named, at any number of checkpoints, and only steps are drops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confshift.analysis.causes.schedule import same_phase, schedule_of


def cosine(epochs, *, length=None, least=0.0):
    """As torch has it, at the start of each epoch."""
    return least + (0.1 - least) * (1 + np.cos(math.pi * np.arange(epochs) / (length or epochs))) / 2


def steps(epochs, *drops, factor=0.1):
    return 0.1 * factor ** (np.arange(epochs)[:, None] >= drops).sum(axis=1)


def warm(rates, epochs=5):
    return np.concatenate([0.1 * np.arange(1, epochs + 1) / (epochs + 1), rates])


def triangles(epochs, half=5):
    return 0.01 + 0.09 * np.abs((np.arange(epochs) / half + 1) % 2 - 1)


SCHEDULES = {
    "constant": (np.full(30, 0.1), "constant", 0, [], []),
    "one checkpoint": (np.array([0.1]), "constant", 0, [], []),
    "zero": (np.zeros(9), "constant", 0, [], []),
    "steps": (steps(60, 30, 45), "steps", 0, [], [30, 45]),
    "a step each epoch": (steps(6, 1, 2, 3, 4, 5), "steps", 0, [], [1, 2, 3, 4, 5]),
    "small steps": (steps(40, 10, 20, 30, factor=0.7), "steps", 0, [], []),
    "a step to 0": (np.array([0.1, 0.1, 0.0]), "steps", 0, [], [2]),
    "cosine": (cosine(40), "cosine", 0, [], []),
    "cosine to a least rate": (cosine(40, least=0.001), "cosine", 0, [], []),
    "cosine left early": (cosine(40, length=90), "cosine", 0, [], []),
    "cosine of a few epochs": (cosine(6), "cosine", 0, [], []),
    "cosine, then constant": (np.append(cosine(41, length=40), np.zeros(20)), "cosine", 0, [], []),
    "cosine, end of epoch": (cosine(4000)[99::100], "cosine", 0, [], []),
    "linear": (np.linspace(0.1, 0.0, 30), "linear", 0, [], []),
    "exponential": (0.1 * 0.9 ** np.arange(40), "exponential", 0, [], []),
    "polynomial": (0.1 * (1 - np.arange(40) / 40) ** 2, "smooth", 0, [], []),
    "a decay with a drop": (0.97 ** np.arange(40) * steps(40, 20), "exponential", 0, [], [20]),
    "restarts": (np.concatenate([cosine(10), cosine(20), cosine(40)]), "cosine", 0, [10, 30], []),
    "short cycles": (np.tile(cosine(3), 8), "smooth", 0, [3, 6, 9, 12, 15, 18, 21], []),
    "steps that start again": (np.tile(steps(20, 10), 2), "steps", 0, [20], [10, 30]),
    "warmup, constant": (warm(np.full(30, 0.1)), "constant", 5, [], []),
    "warmup, cosine": (warm(cosine(30)), "cosine", 5, [], []),
    "warmup, steps": (warm(steps(40, 20, 30)), "steps", 5, [], [25, 35]),
    "warmup, restarts": (warm(np.tile(cosine(10), 3)), "cosine", 5, [15, 25], []),
    "cycles": (triangles(40), "cycles", 5, [], []),
    "range test": (0.001 * 1.3 ** np.arange(20), "rising", 0, [], []),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("rate", [1.0, 1e-5])
def test_a_schedule_is_named_with_its_warmup_restarts_and_drops(name, rate):
    rates, shape, peak, restarts, drops = SCHEDULES[name]
    found = schedule_of(3.0 + np.arange(len(rates)), rate * rates)
    assert (found.shape, found.peak) == (shape, peak)
    assert (found.restarts.tolist(), found.drops.tolist()) == (restarts, drops)


def test_checkpoints_that_are_not_evenly_spaced_see_the_same_schedule():
    epochs = np.sort(np.random.default_rng(0).choice(100, 30, replace=False)).astype(float)
    assert schedule_of(epochs, cosine(100)[epochs.astype(int)]).shape == "cosine"
    assert schedule_of(epochs, np.linspace(0.1, 0, 100)[epochs.astype(int)]).shape == "linear"


@settings(max_examples=30)
@given(st.integers(5, 120), st.floats(0, 0.3), st.integers(0, 8))
def test_no_cosine_has_drops_and_rounding_is_no_move(epochs, least, warmup):
    rates = warm(cosine(epochs, least=least * 0.1), warmup)
    found = schedule_of(np.arange(len(rates), dtype=float), np.float64(np.float32(rates)))
    assert found.drops.tolist() == []
    assert found.restarts.tolist() == []
    assert found.peak == warmup
    assert found.shape in ("cosine", "smooth")


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30))
def test_any_rates_have_a_schedule_whose_drops_are_drops(rates):
    rates = np.array(rates)
    found = schedule_of(np.arange(len(rates), dtype=float), rates)
    assert (rates[found.drops] <= 0.5 * rates[found.drops - 1]).all()
    assert (rates[found.restarts] > rates[found.restarts - 1]).all()


def restarting(cycles, length, *, least=0.001):
    return np.tile(least + (0.1 - least) * (1 + np.cos(np.pi * np.arange(length) / length)) / 2, cycles)


@pytest.mark.parametrize(
    ("end", "phase"), [(40, [9, 19, 29]), (35, [4, 14, 24]), (31, [0, 1, 10, 11, 20, 21])]
)
def test_the_epochs_of_the_last_ones_rate_are_those_of_its_phase(end, phase):
    assert same_phase(np.arange(float(end)), restarting(4, 10)[:end]).tolist() == phase


def test_a_rate_that_goes_up_and_down_has_phases():
    rates = 0.1 * np.abs(np.arange(41) % 20 - 10) / 10
    assert same_phase(np.arange(36.0), rates[:36]).tolist() == [5, 15, 25]


@pytest.mark.parametrize(
    "rates",
    [
        np.full(20, 0.1),
        np.repeat([0.1, 0.01], 10),
        np.linspace(0.1, 0, 20),
        np.r_[np.linspace(0.01, 0.1, 5), np.linspace(0.1, 0.01, 15)],  # the warmup passes all rates
        np.linspace(0.01, 1, 20),
        np.array([0.1]),
    ],
)
def test_a_rate_that_never_starts_again_has_no_phases(rates):
    assert same_phase(np.arange(float(len(rates))), rates).tolist() == []
