"""Samples without a finite loss: every public table against plain loops over rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import checkpoints

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.errors import ConfshiftError

CLASSES = 3


@st.composite
def odd_logits(draw, epochs=(1, 4)):
    """Logits of a few epochs: some rows with NaN or plus infinity, some with one class masked, or all."""
    count, samples = draw(st.integers(*epochs)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(size=(count, samples, CLASSES)) * draw(st.sampled_from([0.1, 3.0, 60.0])) - 400
    targets = rng.integers(0, CLASSES, samples)
    # Each row draws its oddity: none, NaN, +inf, the true class masked, another masked, all masked.
    odd = rng.choice(
        6,
        p=draw(st.sampled_from([(1, 0, 0, 0, 0, 0), (0.5, *[0.1] * 5), (0, *[0.2] * 5)])),
        size=(count, samples),
    )
    for epoch, sample in np.argwhere(odd > 0):
        row = logits[epoch, sample]
        kind, label = odd[epoch, sample], targets[sample]
        if kind == 5:
            row[:] = -np.inf
        else:
            value = {1: np.nan, 2: np.inf, 3: -np.inf, 4: -np.inf}[kind]
            row[{1: 0, 2: 1, 3: label, 4: (label + 1) % CLASSES}[kind]] = value
    return logits, targets


def answer(z):
    """The probabilities of one row, or None where it gives no answer."""
    values = [float(logit) for logit in z]
    if any(math.isnan(value) or value == math.inf for value in values) or max(values) == -math.inf:
        return None
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def loss_of(z, label):
    """Minus the log-probability of a label, without the rounding of very small probabilities."""
    values = [float(logit) for logit in z]
    if values[label] == -math.inf:
        return math.inf
    return math.log(sum(math.exp(value - max(values)) for value in values)) + max(values) - values[label]


def mean(values):
    return sum(values) / len(values) if values else math.nan


def slow_row(logits, targets, members=None):
    """What a checkpoint is, by loops over its rows, or over those of one class."""
    rows = [
        (answer(z), loss_of(z, label) if answer(z) else math.nan, int(label))
        for z, label in zip(logits, targets, strict=True)
        if members is None or label == members
    ]
    answered = [row for row in rows if row[0] is not None]
    finite = [row for row in answered if math.isfinite(row[1])]
    return {
        "samples": len(finite),
        "nonfinite_samples": len(rows) - len(finite),
        "unanswered_samples": len(rows) - len(answered),
        "loss": mean([loss for _, loss, _ in answered]),
        "finite_loss": mean([loss for _, loss, _ in finite]),
        "accuracy": mean([shares.index(max(shares)) == label for shares, _, label in answered]),
        "confidence": mean([max(shares) for shares, _, _ in answered]),
    }


def same(found, expected):
    """Whether two numbers agree: NaN with NaN, infinity with infinity, others to rounding."""
    return found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


@settings(max_examples=60)
@given(odd_logits())
def test_checkpoint_metrics_table_and_classes_are_those_of_loops_over_rows(run):
    logits, targets = run
    history = summarize(checkpoints(logits, targets))
    for z, checkpoint, (_, row) in zip(
        logits, history.main.checkpoints, history.table.iterrows(), strict=True
    ):
        expected, metrics = slow_row(z, targets), checkpoint.metrics()
        for name, value in expected.items():
            assert same(metrics[name], value), name
            assert same(row[name], value), name
        for name in ("loss", "finite_loss", "accuracy", "nonfinite_samples", "unanswered_samples"):
            assert same(getattr(checkpoint, name), expected[name]), name
        assert same(metrics["error_rate"], 1 - expected["accuracy"])
        assert (metrics["refinement_loss"] == math.inf) == (expected["loss"] == math.inf)
        assert math.isnan(checkpoint.temperature) == (expected["samples"] == 0)
        for label in range(CLASSES):
            of_class = history.classes.loc[("val", checkpoint.epoch, label)]
            for name, value in slow_row(z, targets, label).items():
                assert same(of_class[name], value), (label, name)


@settings(max_examples=60)
@given(odd_logits(epochs=(2, 2)))
def test_a_pair_is_that_of_loops_over_the_rows_of_both_sides(run):
    (before, after), targets = run
    answers = [[answer(z) for z in side] for side in (before, after)]
    losses = [
        [
            loss_of(z, label) if shares else math.nan
            for z, label, shares in zip(side, targets, some, strict=True)
        ]
        for side, some in zip((before, after), answers, strict=True)
    ]
    answered = [i for i in range(len(targets)) if answers[0][i] and answers[1][i]]
    finite = [i for i in answered if math.isfinite(losses[0][i]) and math.isfinite(losses[1][i])]
    if not finite:
        with pytest.raises(ConfshiftError, match="no sample has a finite loss on both sides"):
            compare(*checkpoints([before, after], targets))
        return
    comparison = compare(*checkpoints([before, after], targets))
    change = comparison.change
    assert comparison.samples_left_out == len(targets) - len(finite)
    assert comparison.samples_unanswered == len(targets) - len(answered)
    assert comparison.samples.index.tolist() == finite
    assert sorted([*comparison.left_out.index, *finite]) == list(range(len(targets)))
    right = [
        [shares and shares.index(max(shares)) == label for shares, label in zip(some, targets, strict=True)]
        for some in answers
    ]
    for at, side in enumerate(("before", "after")):
        assert comparison.infinite_samples[at] == losses[at].count(math.inf)
        expected = {
            "loss": mean([losses[at][i] for i in finite]),
            "accuracy": mean([right[at][i] for i in answered]),
            "error_rate": 1 - mean([right[at][i] for i in answered]),
            "confidence": mean([max(answers[at][i]) for i in answered]),
        }
        for name, value in expected.items():
            assert same(change.loc[name, side], value), (name, side)
        # The account adds up to the change of the loss, so its error rate is over the finite losses.
        assert same(comparison.account.loc["error_rate", side], 1 - mean([right[at][i] for i in finite]))
        for label in range(CLASSES):
            row = comparison.classes.loc[label]
            of_class = [i for i in answered if targets[i] == label]
            scored = [i for i in finite if targets[i] == label]
            assert (row["samples"], row["answered_samples"]) == (len(scored), len(of_class))
            assert same(row[f"accuracy_{side}"], mean([right[at][i] for i in of_class]))
            assert same(row[f"loss_{side}"], mean([losses[at][i] for i in scored]))
    for name in change.index:
        over = answered if name in ("error_rate", "accuracy", "confidence", "confidence_gap") else finite
        assert change.loc[name, "samples"] == len(over), name
    total = change.loc["loss", "change"]
    for parts in (comparison.account, comparison.cells, comparison.classes, comparison.competitors):
        assert parts["contribution"].sum() == pytest.approx(total, rel=1e-9, abs=1e-9)
    assert comparison.confusion.groupby("side")["samples"].sum().tolist() == [len(answered)] * 2
    bins = comparison.reliability.groupby(["side", "binning"])["samples"].sum()
    assert (bins == len(answered)).all()


def slow_best(logits, targets, criterion):
    """The first epoch with the best mean, of those that leave out the fewest, over rows none of them does."""
    usable = [
        {
            i
            for i, (z, label) in enumerate(zip(side, targets, strict=True))
            if answer(z) and (criterion == "accuracy" or math.isfinite(loss_of(z, label)))
        }
        for side in logits
    ]
    most = max(map(len, usable))
    places = [at for at, rows in enumerate(usable) if len(rows) == most]
    shared = set.intersection(*(usable[at] for at in places))

    def score(at):
        rows = sorted(shared or usable[at])
        if criterion == "accuracy":
            return -sum(answer(logits[at][i]).index(max(answer(logits[at][i]))) == targets[i] for i in rows)
        return sum(loss_of(logits[at][i], targets[i]) for i in rows)

    return min(places, key=score)


@settings(max_examples=60)
@given(odd_logits())
def test_the_best_checkpoint_is_that_of_loops_over_rows(run):
    logits, targets = run
    best = summarize(checkpoints(logits, targets)).best
    for criterion in ("loss", "accuracy"):
        assert best.loc[criterion, "epoch"] == slow_best(logits, targets, criterion), criterion


def saturating(samples=400, epochs=10, from_epoch=5, zeros=20, seed=0):
    """A run whose loss falls where it is finite, while in the end some true classes have no probability."""
    rng = np.random.default_rng(seed)
    targets = np.arange(samples) % CLASSES
    base = rng.normal(size=(samples, CLASSES)) + 1.5 * np.eye(CLASSES)[targets]
    logits = np.stack([base + 0.05 * rng.normal(size=base.shape) for _ in range(epochs)])
    easy = base[np.arange(samples), targets] > base.max(axis=1) - 1e-9
    hard = np.flatnonzero(~easy)[:zeros]
    for epoch in range(from_epoch, epochs):
        logits[epoch, easy] *= 1.3
        logits[epoch, hard, targets[hard]] = -np.inf
    return logits, targets


def test_no_checkpoint_is_best_because_its_worst_samples_dropped_out():
    logits, targets = saturating()
    history = summarize(checkpoints(logits, targets))
    finite = history.table["finite_loss"]
    assert finite[5:].max() < finite[:5].min()  # what a mean over the rest would choose
    assert history.best.loc["loss", "epoch"] < 5
    assert history.best.loc["refinement_loss", "epoch"] < 5
    assert np.isinf(history.table["loss"]).tolist() == [False] * 5 + [True] * 5


def test_checkpoints_that_leave_out_other_samples_are_compared_on_those_that_both_have():
    targets = np.zeros(4, int)
    one = np.array([[0.0, 3.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]) - 9
    other = one + np.array([[0.0, 0.0], [0.2, 0.0], [0.2, 0.0], [0.2, 0.0]])
    one[0, 0], other[3, 0] = -np.inf, -np.inf  # the first leaves out its worst, the other an easy one
    history = summarize(checkpoints([one, other], targets))
    assert history.table["finite_loss"].argmin() == 0
    assert history.best.loc["loss", "epoch"] == 1


@pytest.mark.parametrize(
    ("epochs", "from_epoch", "status"),
    [(10, 5, "systematic"), (10, 6, "systematic"), (10, 7, "within_jitter"), (3, 2, "too_few_epochs")],
)
def test_a_mean_that_becomes_infinite_is_a_rise_and_lasting_after_four_epochs(epochs, from_epoch, status):
    logits, targets = saturating(epochs=epochs, from_epoch=from_epoch)
    rise = summarize(checkpoints(logits, targets)).rise
    for name in ("loss", "refinement_loss"):
        row = rise.loc[name]
        best = int(row["best_epoch"])
        expected = status if epochs - 1 - best >= 4 else "too_few_epochs"
        assert row["status"] == expected
        assert row["amount"] == row["last_value"] == math.inf
        assert (row["last_epoch"], row["infinite_samples"]) == (epochs - 1, 20)
        assert row["infinite_epochs"] == epochs - from_epoch
        assert row["finite_samples"] == 380
    row, loss = (
        rise.loc["loss"],
        [[loss_of(z, y) for z, y in zip(side, targets, strict=True)] for side in logits],
    )
    best = int(row["best_epoch"])
    assert best == min(range(from_epoch), key=lambda at: mean(loss[at]))
    assert same(row["best_value"], mean(loss[best]))
    kept = [i for i in range(400) if math.isfinite(loss[-1][i])]
    assert same(row["finite_best_value"], mean([loss[best][i] for i in kept]))
    assert same(row["finite_last_value"], mean([loss[-1][i] for i in kept]))
    assert rise.loc["error_rate", "status"] in ("flat", "too_few_epochs")
    assert rise.loc["error_rate", "samples"] == 400


def flat_run(samples=300, epochs=9):
    rng = np.random.default_rng(3)
    targets = np.arange(samples) % CLASSES
    base = rng.normal(size=(samples, CLASSES)) + 2 * np.eye(CLASSES)[targets] - 9
    return np.stack([base + 0.1 * rng.normal(size=base.shape) for _ in range(epochs)]), targets


def test_a_run_that_does_not_rise_is_flat_and_no_longer_so_where_what_is_left_out_could_rise():
    logits, targets = flat_run()
    assert summarize(checkpoints(logits, targets)).rise.loc["loss", "status"] == "flat"
    once, ended, always, never = (logits.copy() for _ in range(4))
    once[4, :2] = np.nan  # judged at some epochs and not at others
    ended[-1] = np.nan  # the last epoch has no answers
    always[:, :2] = np.nan  # two of 300 samples never had an answer: nothing of theirs can have risen
    never[:, :20] = np.nan  # so many that the rest is another set
    for run, status in ((once, "unscored"), (ended, "unscored"), (always, "flat"), (never, "unscored")):
        rise = summarize(checkpoints(run, targets)).rise
        assert rise.loc["loss", "status"] == rise.loc["error_rate", "status"] == status
        assert rise.loc["loss", "verdict"] == ("no" if status == "flat" else "cannot tell")


def test_an_infinite_mean_in_the_middle_of_a_run_costs_no_samples_and_is_never_the_lowest():
    logits, targets = flat_run()
    logits[4] *= 3
    logits[4, 7, targets[7]] = -np.inf
    history = summarize(checkpoints(logits, targets))
    row = history.rise.loc["loss"]
    assert (row["status"], row["samples_left_out"], row["infinite_epochs"]) == ("flat", 0, 1)
    assert row["samples"] == 300
    assert 4.0 not in history.candidates.loc["loss"].index
    assert 4.0 in history.candidates.loc["accuracy"].index
    assert history.rise.loc["error_rate", "infinite_epochs"] == 0


def test_where_every_mean_is_infinite_the_rest_is_judged_and_flat_is_not_said():
    logits, targets = flat_run()
    logits[:, 7, targets[7]] = -np.inf
    history = summarize(checkpoints(logits, targets))
    row = history.rise.loc["loss"]
    assert (row["status"], row["samples_left_out"], row["infinite_epochs"]) == ("unscored", 1, 9)
    assert math.isinf(history.best.loc["loss", "loss"])
    assert history.best.loc["loss", "nonfinite_samples"] == 1


def test_a_class_without_any_answer_that_has_a_loss_keeps_its_accuracy():
    logits, targets = flat_run(epochs=2)
    logits[1, targets == 1, 1] = -np.inf
    before, after = checkpoints(logits, targets)
    classes = compare(before, after).classes
    assert classes.loc[1, "samples"] == 0
    assert classes.loc[1, "answered_samples"] == 100
    assert classes.loc[1, "accuracy_after"] == 0
    assert math.isnan(classes.loc[1, "loss_after"])
    assert classes.loc[1, "contribution"] == 0
    table = summarize([before, after]).classes.loc[("val", 1, 1)]
    assert (table["loss"], table["accuracy"]) == (math.inf, 0)


def test_the_pair_of_a_run_shares_samples_with_a_finite_loss():
    logits, targets = flat_run(epochs=3)
    logits[0, :10, 0] = -np.inf
    logits[1, 150:] = np.nan
    logits[2, :150] = np.nan
    history = summarize(checkpoints(logits, targets))
    assert [checkpoint.epoch for checkpoint in history.pair] == [0, 2]
    logits[0, 150:] = np.nan  # now epoch 1 is the best, and the last has none of its samples
    before, after = summarize(checkpoints(logits, targets)).pair
    assert compare(before, after).samples_left_out < 300
