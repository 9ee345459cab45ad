"""The commands that findings advise: they name the epoch and the split so that the run has them."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from confshift.analysis import comparison
from confshift.checkpoint import Checkpoint
from confshift.findings import commands
from confshift.predictions import Predictions


def pair(before, after, split="val"):
    logits, targets = np.random.default_rng(0).normal(size=(2, 20, 3)) - 3, np.arange(20) % 3
    return comparison.compare(
        *(
            Checkpoint.from_predictions(Predictions(z, targets), epoch=epoch, split=split)
            for z, epoch in zip(logits, (before, after), strict=True)
        )
    )


@pytest.mark.parametrize("epoch", [0.0, 12.0, 0.25, 1 / 3, 123_456_789.0, 1e-7])
def test_the_epoch_of_a_command_is_the_one_of_the_run(epoch):
    words = shlex.split(commands.calibrate(epoch))
    assert words[:4] == ["confshift", "calibrate", "RUN", "--epoch"]
    assert float(words[4]) == epoch
    words = shlex.split(commands.compare(pair(epoch, 7.0)))
    assert [float(word) for word in words[3:]] == [epoch, 7.0]


def test_another_split_is_named():
    assert commands.compare(pair(1, 2)) == "confshift compare RUN 1 2"
    assert commands.compare(pair(1, 2, "my data")) == "confshift compare RUN 1 2 --split 'my data'"


def test_where_there_is_no_epoch_there_is_no_command():
    assert commands.calibrate(None) == commands.calibrate(float("nan")) == ""
    logits, targets = np.eye(3)[np.arange(9) % 3], np.arange(9) % 3
    bare = comparison.compare(Predictions(logits - 4, targets), Predictions(2 * logits - 4, targets))
    assert commands.compare(bare) == ""
