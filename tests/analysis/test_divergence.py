"""Runs that diverge or collapse, and runs that look a little like it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions

SAMPLES, CLASSES = 600, 4


def divergence(logits, targets, rates=None):
    rates = [None] * len(logits) if rates is None else rates
    return summarize(
        Checkpoint.from_predictions(Predictions(z, targets), epoch=epoch, metadata={"lr": rate})
        for epoch, (z, rate) in enumerate(zip(logits, rates, strict=True))
    ).divergence


class Learner:
    """Logits of a network that learns: epoch 0 is untrained, the others are better and better."""

    def __init__(self, classes=CLASSES, samples=SAMPLES, shares=None, seed=0):
        self.random = np.random.default_rng(seed)
        self.targets = self.random.choice(classes, samples, p=shares)
        self.shape = (samples, classes)
        signal, noise = np.eye(classes)[self.targets], self.noise()
        self.good = [
            0.2 * self.noise() - 1,
            *(strength * signal + noise for strength in (1.0, 2.0, 2.5, 2.4)),
        ]

    def noise(self):
        return self.random.normal(size=self.shape)

    def constant(self, label, size=50.0):
        logits = np.zeros(self.shape)
        logits[:, label] = size
        return logits - 1

    def nothing(self):
        return np.full(self.shape, np.nan)

    def then(self, *logits, rates=None):
        return divergence([*self.good, *logits], self.targets, rates)


@pytest.fixture(scope="module")
def learner():
    return Learner()


BAD_ENDS = {
    "nothing is finite": lambda net: net.nothing(),
    "hardly anything is finite": lambda net: np.where(
        np.arange(SAMPLES)[:, None] < 400, np.nan, net.good[-1]
    ),
    "the loss explodes": lambda net: 1e6 * net.noise(),
    "one class is the answer": lambda net: net.constant(2),
    "a bias is the answer": lambda net: net.good[-1] + net.constant(2),
    "a small bias is, before which the rest is known": lambda net: net.good[-1] + net.constant(2, size=9.0),
    "the logits hold nothing": lambda net: net.constant(2, size=0.3),
    "the logits hold nothing at a small scale": lambda net: 1e-3 * net.noise(),
    "every true class has a probability of 0": lambda net: np.where(net.constant(1) > 0, 0.0, -np.inf),
}


@pytest.mark.parametrize("name", BAD_ENDS)
def test_a_bad_end_after_better_epochs_is_a_divergence_from_its_first_epoch_on(learner, name):
    bad = [BAD_ENDS[name](learner) for _ in range(3)]
    found = learner.then(*bad, rates=[0.1] * 4 + [0.2, 0.3, 0.4, 0.5])
    assert found
    assert found.epoch == 5
    assert found.end["learning_rate"].tolist() == [0.3, 0.4, 0.5]
    assert found.table["state"].tolist()[1:5] == ["informative"] * 4
    assert found.recovered == ()


@pytest.mark.parametrize("name", BAD_ENDS)
def test_what_was_bad_and_recovered_has_not_diverged(learner, name):
    bad = BAD_ENDS[name](learner)
    found = learner.then(bad, bad, learner.good[-1])
    assert not found
    assert found.recovered == (5, 6)
    again = learner.then(bad, learner.good[-1], bad)
    assert (again.epoch, again.recovered) == (7, (5,))


@pytest.mark.parametrize("name", BAD_ENDS)
def test_a_run_that_was_never_better_has_not_diverged(learner, name):
    bad = BAD_ENDS[name](learner)
    assert not divergence([bad], learner.targets)
    assert not divergence([bad] * 3, learner.targets)


def test_an_untrained_network_has_not_diverged(learner):
    assert not divergence(learner.good[:1], learner.targets)


@pytest.mark.parametrize("bad", ["nothing is finite", "the loss explodes"])
def test_a_run_may_diverge_in_its_first_epoch(learner, bad):
    assert divergence([learner.good[0], *[BAD_ENDS[bad](learner)] * 3], learner.targets).epoch == 1


def test_learning_by_heart_what_says_nothing_about_these_labels_is_no_divergence(learner):
    noise = learner.noise()
    found = divergence([scale * noise for scale in (0.01, 1.0, 3.0, 6.0)], learner.targets)
    assert found.table["state"].iloc[-1] == "lost"  # no temperature helps, and the loss is far above ln K
    assert found.table["loss"].iloc[-1] > 3 * math.log(CLASSES)
    assert not found
    assert not found.learned


def test_logits_on_another_scale_are_no_divergence(learner):
    found = learner.then(*(100 * logits for logits in learner.good[1:]))
    assert found.table["temperature"].iloc[-1] > 20
    assert not found


def test_a_network_that_makes_no_mistake_has_not_diverged(learner):
    separable = [scale * np.eye(CLASSES)[learner.targets] - 0.1 for scale in (1, 5, 20)]
    found = learner.then(*separable)
    assert found.table["temperature"].iloc[-1] < 1e-3  # the colder the better, without end
    assert not found


def test_outputs_in_another_order_say_something(learner):
    assert not learner.then(*[np.roll(learner.good[-1], 1, axis=1)] * 3)


@pytest.mark.parametrize(("classes", "samples"), [(2, 400), (100, 1000)])
def test_any_number_of_classes_can_diverge_and_need_not(classes, samples):
    net = Learner(classes, samples)
    assert net.then(300 * net.noise()).epoch == 5
    assert not net.then(1.5 * net.good[-1])


@pytest.fixture(scope="module")
def imbalanced():
    """Nine in ten samples are of class 0."""
    return Learner(2, 1500, shares=[0.9, 0.1])


def test_a_model_as_accurate_as_the_common_class_may_know_the_rare_one(imbalanced):
    net = imbalanced
    # It grows sure, and finds a half of the rare class at the price of as many of the common one.
    signal = np.eye(2)[net.targets]
    found = net.then(25 * (0.7 * np.random.default_rng(3).normal(size=net.shape) + signal + [0.4, 0.0]))
    row = found.table.iloc[-1]
    share = (net.targets == 0).mean()
    assert abs(row["accuracy"] - share) < 2 * math.sqrt(share * (1 - share) / 1500)
    assert row["loss"] > math.log(2)
    assert row["mean_recall"] > 0.7
    assert not found


@pytest.mark.parametrize("label", [0, 1])
def test_a_collapse_to_the_common_or_to_the_rare_class_is_one(imbalanced, label):
    assert imbalanced.then(imbalanced.constant(label)).epoch == 5


def test_a_class_without_samples_that_is_always_answered_is_a_collapse():
    net = Learner(3, 600, shares=[0.5, 0.5, 0.0])
    assert net.then(net.constant(2)).epoch == 5


def test_a_few_samples_are_enough_to_be_wrong_about_nothing():
    net = Learner(2, 10)
    found = net.then(*[3 * logits for logits in net.good[1:]])
    assert not found


def test_chance_in_the_middle_of_a_collapse_does_not_move_its_beginning(learner):
    """Guesses are drawn anew at each of thirty epochs: some are better than most guesses."""
    found = learner.then(*(30 * learner.noise() for _ in range(30)))
    assert found.epoch == 5
