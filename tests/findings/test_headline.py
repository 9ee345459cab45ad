"""The sentence at the top: each clause is true of the run, and its numbers are those of the tables."""

import re

import numpy as np
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.headline import course, difference, headline
from confshift.findings.run_kind import kind_of
from confshift.findings.wording import nats, percent
from confshift.predictions import Predictions


def history_of(logits, targets, split="val"):
    return summarize(
        [
            Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch, split=split)
            for epoch, one in enumerate(logits)
        ]
    )


@pytest.fixture(scope="module")
def confident():
    """A run whose logits only grow: nothing changes but the confidence."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 2000)
    base = random.normal(size=(2000, 4))
    base[np.arange(2000), targets] += 1.5
    scales = np.r_[0.3, 0.6, 1.0, np.linspace(1.1, 4, 17)]
    return history_of(scales[:, None, None] * base, targets)


def test_a_rise_of_confidence_alone_ends_in_keep_and_calibrate(confident):
    comparison = compare(*confident.pair)
    sentence = headline(confident, comparison)
    loss = comparison.change.loc["loss"]
    assert f"the validation loss rose by {nats(loss['change'])} nats" in sentence
    assert "; that is systematic;" in sentence
    assert "the right ones got surer" in sentence
    assert "accuracy did not change measurably" in sentence
    scaled = nats(comparison.change.loc["refinement_loss", "after"])
    temperature = comparison.change.loc["temperature", "after"]
    assert f"one temperature ({temperature:.2f}) brings the loss back to {scaled}" in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


@pytest.fixture(scope="module")
def unlearning():
    """A run whose logits lose the signal again, late."""
    random = np.random.default_rng(1)
    targets = random.integers(0, 4, 3000)
    noise = random.normal(size=(3000, 4))
    signal = np.eye(4)[targets]
    strengths = np.r_[0.5, 1.5, 2.5, np.linspace(2.4, 0.6, 20)]
    return history_of([strength * signal + noise for strength in strengths], targets)


@pytest.mark.parametrize(("fixture", "before", "below"), [("confident", 1, True), ("unlearning", 2, False)])
def test_the_loss_that_a_temperature_leaves_is_held_against_the_earlier_one(fixture, before, below, request):
    history = request.getfixturevalue(fixture)
    comparison = compare(history.main.checkpoints[before], history.main.checkpoints[-1])
    scaled = comparison.change.loc["refinement_loss", "after"]
    earlier = comparison.change.loc["loss", "before"]
    assert (scaled < earlier) == below
    said = f"to {nats(scaled)}, {'' if below else 'not '}below the earlier {nats(earlier)}"
    assert said in headline(history, comparison)


@pytest.mark.parametrize(
    ("seed", "strengths"), [(2, [*np.linspace(0.2, 2, 12), *[2.2] * 6]), (1, [0.2, 1, *[2.2] * 22])]
)
def test_a_difference_within_noise_is_not_called_a_rise(seed, strengths):
    random = np.random.default_rng(seed)
    targets, noise = random.integers(0, 4, 800), random.normal(size=(800, 4))
    history = history_of(
        [
            strength * np.eye(4)[targets] + noise + 0.15 * random.normal(size=(800, 4))
            for strength in strengths
        ],
        targets,
    )
    comparison = compare(*history.pair)
    assert 0 < comparison.change.loc["loss", "change"] < 0.002
    sentence = headline(history, comparison)
    assert f"to {len(strengths) - 1} the validation loss does not rise beyond noise (" in sentence
    assert ("; the run still improves;" in sentence) == (kind_of(history) == "improving") == (seed == 2)
    assert not re.search(r" rose|the rise", sentence)


def test_a_headline_takes_ten_seconds_to_read(confident):
    # At four words a second, the pace of silent reading.
    assert len(headline(confident, compare(*confident.pair)).split()) <= 60


def test_the_share_of_the_wrong_ones_is_that_of_the_cells(confident):
    comparison = compare(*confident.pair)
    net = comparison.cells["contribution"].groupby(level="transition").sum()
    share = net["stayed_wrong"] / comparison.change.loc["loss", "change"]
    assert share > 1
    assert f"{share:.1f} times the rise comes from samples that were wrong and got worse" in headline(
        confident, comparison
    )


def test_the_verdict_of_the_run_is_quoted_only_where_the_pair_ends_at_its_last_epoch(confident):
    checkpoints = confident.main.checkpoints
    inner = headline(confident, compare(checkpoints[3], checkpoints[10]))
    assert "systematic" not in inner
    assert "keep epoch" not in inner


def test_a_pair_of_ones_own_is_not_given_the_verdict_and_the_advice_of_the_run(confident):
    # Against an epoch worse than the best one, a temperature seems to gain more than it does.
    sentence = headline(confident, compare(confident.main.checkpoints[16], confident.main.checkpoints[-1]))
    assert "systematic" not in sentence
    assert "keep epoch" not in sentence


def test_the_rounding_of_a_sum_is_no_change(confident):
    one = confident.main.checkpoints[5].predictions
    history = history_of([one.logits, one.logits + 7.3], one.targets)
    sentence = headline(history, compare(*history.main.checkpoints))
    assert "loss did not change" in sentence
    assert "nats" not in sentence.split(";")[0]


def test_the_course_of_a_run_is_told_against_its_own_best(confident, unlearning):
    for history in (confident, unlearning):
        row = history.rise.loc["loss"]
        told = f"ends, at epoch {row['last_epoch']:g}, {nats(row['amount'])} nats above its best"
        assert course(history, "one").startswith(f"one {told}, epoch {row['best_epoch']:g}: a systematic")
    falling = history_of(
        [one.predictions.logits for one in confident.main.checkpoints[:4]],
        confident.main.checkpoints[0].predictions.targets,
    )
    assert course(falling, "two") in (
        "two ends at its best, epoch 3.",
        "two has too few epochs to judge its course.",
    )


def test_a_fall_speaks_of_no_rise(confident):
    checkpoints = confident.main.checkpoints
    sentence = headline(confident, compare(checkpoints[0], checkpoints[2]))
    assert "loss fell by" in sentence
    assert "rise" not in sentence


def test_a_run_that_loses_information_is_sent_back(unlearning):
    history = unlearning
    sentence = headline(history, compare(*history.pair))
    assert "accuracy fell by" in sentence
    best = history.best.loc["refinement_loss", "epoch"]
    assert f"the model itself got worse, so go back to epoch {best:g} and calibrate it." in sentence


def test_right_samples_that_hedge_more_are_named():
    random = np.random.default_rng(2)
    targets = random.integers(0, 3, 1000)
    base = random.normal(size=(1000, 3)) * 0.3 + 6 * np.eye(3)[targets]
    history = history_of([base, base * 0.5], targets)
    comparison = compare(*history.main.checkpoints)
    assert "comes from right samples that got less sure" in headline(history, comparison)


def test_another_split_is_called_by_its_name():
    logits = np.random.default_rng(3).normal(size=(2, 50, 3))
    history = history_of(logits, np.arange(50) % 3, split="holdout")
    assert "the holdout loss" in headline(history, compare(*history.main.checkpoints))


def test_one_checkpoint_is_described_not_compared():
    logits = np.random.default_rng(3).normal(size=(1, 50, 3))
    history = history_of(logits, np.arange(50) % 3)
    row = history.table.iloc[0]
    sentence = headline(history, compare(*history.pair))
    assert sentence.startswith(f"One checkpoint, epoch 0: validation loss {nats(row['loss'])} nats, accuracy")
    assert percent(row["accuracy"]) in sentence
    assert "did not change" not in sentence


def test_a_temperature_is_offered_where_it_helps_beyond_the_error_of_groups():
    random = np.random.default_rng(8)
    targets, groups = np.repeat(random.integers(0, 3, 40), 20), np.repeat(np.arange(40), 20)
    base = np.repeat(random.normal(size=(40, 3)), 20, axis=0) + 2 * np.eye(3)[targets]
    run = [
        Checkpoint.from_predictions(Predictions(scale * base, targets), epoch=epoch)
        for epoch, scale in enumerate((0.1, 2.4))
    ]
    for known, offered in ((None, True), (groups, False)):
        history = summarize(run, groups=known)
        comparison = compare(*history.pair, groups=known)
        assert comparison.change.loc["loss", "change"] < 0
        assert ("one temperature" in headline(history, comparison)) == offered


def test_where_the_last_checkpoint_is_the_best_the_page_says_so(confident):
    falling = history_of(
        [one.predictions.logits for one in confident.main.checkpoints[:4]],
        confident.main.checkpoints[0].predictions.targets,
    )
    assert "the last epoch is the best so far" in headline(falling, compare(*falling.pair))
    assert "best so far" not in headline(confident, compare(*confident.main.checkpoints[:2]))


def test_samples_that_were_forgotten_are_named_where_most_of_the_rise_comes_from_them():
    random = np.random.default_rng(4)
    targets = random.integers(0, 3, 600)
    right = 4 * np.eye(3)[targets] + 0.1 * random.normal(size=(600, 3))
    turned = right.copy()
    turned[:60] = 4 * np.eye(3)[(targets[:60] + 1) % 3]
    history = history_of([right, turned], targets)
    comparison = compare(*history.main.checkpoints)
    share = comparison.cells.loc["forgotten", "contribution"].sum() / comparison.change.loc["loss", "change"]
    said = f"{share:.1f} times the rise" if share > 1 else f"{percent(share)} of the rise"
    assert f"{said} comes from samples that were right and are wrong now" in headline(history, comparison)


@pytest.fixture(scope="module")
def two_models():
    """The same samples by two models: the second sees more of the signal and is too sure."""
    random = np.random.default_rng(5)
    targets = random.integers(0, 3, 3000)
    noise = random.normal(size=(3000, 3))
    signal = np.eye(3)[targets]
    made = [
        Predictions(scale * (strength * signal + noise), targets) for strength, scale in ((1, 1), (1.6, 8))
    ]
    return [Checkpoint.from_predictions(one, epoch=epoch) for epoch, one in zip((3, 9), made, strict=True)]


def test_two_runs_are_held_against_each_other_in_loss_accuracy_and_at_their_own_temperatures(two_models):
    comparison = compare(*two_models)
    change = comparison.change["change"]
    sentence = difference(comparison, first="small", second="large")
    loss, scaled = (nats(abs(change[name])) for name in ("loss", "refinement_loss"))
    assert change["loss"] > 0 > change["refinement_loss"]
    assert sentence.startswith(f"large (epoch 9) against small (epoch 3): the loss is {loss} nats higher; ")
    assert f"the accuracy is {100 * change['accuracy']:.1f} points higher" in sentence
    assert sentence.endswith(f"each recalibrated, the loss is {scaled} nats lower.")
    net = comparison.cells["contribution"].groupby(level="transition").sum()
    assert net.idxmax() == "stayed_wrong"
    assert "of the difference in loss is in samples that both get wrong" in sentence or (
        f"{net['stayed_wrong'] / change['loss']:.1f} times the difference in loss is in samples that both "
        "get wrong" in sentence
    )


def test_the_samples_that_two_runs_differ_in_are_called_by_the_run_that_gets_them_right():
    random = np.random.default_rng(6)
    targets = random.integers(0, 3, 900)
    poor = 3 * np.eye(3)[targets] + 0.2 * random.normal(size=(900, 3))
    good = poor.copy()
    poor[:90] = 3 * np.eye(3)[(targets[:90] + 1) % 3]  # wrong there, and there only
    sides = [
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for epoch, one in enumerate((poor, good))
    ]
    for pair, names in ((sides, ("poor", "good")), (sides[::-1], ("good", "poor"))):
        sentence = difference(compare(*pair), first=names[0], second=names[1])
        assert "100 % of the difference in loss is in samples that only good gets right" in sentence


def test_what_two_runs_do_not_differ_in_is_said(two_models):
    sentence = difference(compare(two_models[0], two_models[0]), first="a", second="b")
    assert sentence.count("not measurably different") == 3
    assert "difference in loss" not in sentence
