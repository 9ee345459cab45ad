"""Overfitting is said where the training loss fell meanwhile, and nowhere else."""

import re
from dataclasses import replace

import numpy as np
import pytest
from odd_runs import ODD, TARGETS

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint, Provenance
from confshift.findings.answer import answer_run
from confshift.findings.commands import in_place
from confshift.findings.kinds import KINDS
from confshift.findings.overfitting import course_of_training, training_loss
from confshift.findings.run_kind import run_kind
from confshift.findings.wording import apart
from confshift.predictions import Predictions
from confshift.reporting.summary import cause_of


def run_of(name, *, logged=None, train=None):
    """A run of `odd_runs`, with what its loop logged, or a training split whose logits have such a scale."""
    checkpoints = [
        replace(
            Checkpoint.from_predictions(Predictions(z, TARGETS), epoch=epoch),
            provenance=Provenance(logged={} if logged is None else logged(epoch)),
        )
        for epoch, z in enumerate(ODD[name])
    ]
    for epoch, scale in (train or {}).items():
        random = np.random.default_rng(epoch)
        logits = scale * (2 * np.eye(4)[TARGETS] + 0.3 * random.normal(size=(len(TARGETS), 4)))
        inspected = Checkpoint.from_predictions(Predictions(logits, TARGETS), epoch=epoch, split="train")
        checkpoints.append(inspected)
    return summarize(checkpoints)


def falling(epoch):
    return {"train/loss": 2.0 / (1 + epoch), "val_loss": 1.0}


def rising(epoch):
    return {"training_loss": 0.1 + 0.02 * epoch}


COURSES = {
    "unknown": ({}, None),
    "one epoch of the training set only": ({"train": {23: 3.0}}, None),
    "logged, falling": ({"logged": falling}, True),
    "logged, rising": ({"logged": rising}, False),
    "inspected, falling": ({"train": {7: 1.0, 23: 3.0}}, True),
    "inspected, rising": ({"train": {7: 3.0, 23: 1.0}}, False),
    "inspected, rising, while the logged one falls": ({"train": {7: 3.0, 23: 1.0}, "logged": falling}, False),
}


def texts_of(history):
    """The whole answer and finding, and the cause in brief JSON."""
    comparison = compare(*history.pair)
    finding = run_kind(history)
    answer = answer_run(history, comparison, [finding])
    return answer, finding, cause_of(answer.kind, history)


@pytest.mark.parametrize(
    ("name", "course"),
    [*(("overfitting", course) for course in COURSES), ("hidden", "unknown"), ("hidden", "logged, falling")],
)
def test_overfitting_is_said_only_where_the_training_loss_fell(name, course):
    parts, fell = COURSES[course]
    history = run_of(name, **parts)
    found = course_of_training(history)
    assert (None if found is None else found.fell) is fell
    answer, finding, cause = texts_of(history)
    said = " ".join((answer.action, answer.why, finding.answer, finding.sentence))
    assert ("verfitting" in said) == (fell is True)
    steps = " ".join(step.text for step in answer.steps)
    words = {True: "so this is overfitting", False: "so this is not overfitting", None: "if its loss fell"}
    assert [fall for fall, text in words.items() if text in steps] == [fell]
    endings = {
        True: "; overfitting: ",
        False: "; not overfitting: ",
        None: "; whether by overfitting is open",
    }
    assert endings[fell] in cause
    if fell is None:
        assert "the training loss is not known" in finding.details
    else:
        first, last = apart(found.before, found.after)
        assert f"from {first} (epoch {found.first_epoch:g}) to {last} (epoch 23)" in steps
        assert f"(epoch {found.first_epoch:g})" in finding.details


def test_the_step_to_find_out_is_a_call_of_inspect_with_the_path_in_its_quotes():
    step = next(step for step in texts_of(run_of("overfitting"))[0].steps if "inspect(" in step.code)
    ends = [int(number) for number in re.findall(r"\d+", step.text)]
    assert step.code.endswith(f"epoch={ends[1]})  # and at epoch {ends[0]}")
    code = in_place(step.code, {"RUN": 'my runs/it\'s "one"'})
    called = {}
    eval(code, {"confshift": Recorder(called), "model": None, "train_loader": None})
    assert called == {"run": 'my runs/it\'s "one"', "split": "train", "epoch": ends[1]}


class Recorder:
    """Stands for the package: keeps what `inspect` is called with."""

    def __init__(self, called):
        self.called = called

    def inspect(self, model, loader, **given):
        self.called |= given


def test_a_fall_within_its_error_is_not_a_fall():
    history = run_of("overfitting", train={7: 1.0, 23: 1.0001})
    course = training_loss(history, 7, 23)
    assert 0 < course.before - course.after < course.margin
    assert not course.fell


def test_a_training_loss_outside_the_epochs_of_the_harm_says_nothing():
    assert training_loss(run_of("overfitting", train={0: 1.0, 3: 3.0}), 7, 23) is None
    assert training_loss(run_of("overfitting", logged=lambda epoch: {"train_loss": "nan"}), 7, 23) is None


def test_no_kind_is_called_overfitting_by_validation_alone():
    for kind in KINDS.values():
        assert "overfitting" not in kind.answer.lower()
