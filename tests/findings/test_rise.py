"""Whether a run gets worse, in words: every status, what kind of run, which checkpoint."""

import re
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.analysis.rise import judge
from confshift.analysis.series import STATUSES
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings import rise
from confshift.findings.answer import answer_run
from confshift.findings.best_checkpoint import best_checkpoint
from confshift.findings.diagnosis import diagnose
from confshift.findings.kinds import KINDS
from confshift.findings.rise import about_rise, series_rise
from confshift.findings.run_kind import kind_of, run_kind
from confshift.findings.wording import percent
from confshift.predictions import Predictions

CODES = ["rise", "refinement_rise", "error_rise"]


def history_of(logits, targets, epochs=None):
    epochs = range(len(logits)) if epochs is None else epochs
    return summarize(
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for one, epoch in zip(logits, epochs, strict=True)
    )


@pytest.fixture(scope="module")
def growing(make_logits):
    """A run in which nothing but the confidence changes."""
    return history_of(*make_logits(400, 4, 14, churn=0.2))


@pytest.fixture(scope="module")
def worsening(make_logits):
    """A run whose logits grow while more and more of their shape is noise."""
    logits, targets = make_logits(600, 4, 16)
    noise = logits[:, np.random.default_rng(0).permutation(600)]
    share = np.linspace(0, 0.5, 16)[:, None, None]
    return history_of((1 - share) * logits + share * noise, targets)


def row(**changed):
    """One row of `History.rise`, systematic unless changed."""
    values = {
        "verdict": "yes",
        "status": "systematic",
        "unit": "nats",
        "amount": 0.31,
        "lower_bound": 0.25,
        "upper_bound": 0.37,
        "since": 12.0,
        "resolution": 0.05,
        "best_epoch": 9.0,
        "best_value": 0.62,
        "last_epoch": 90.0,
        "last_value": 0.93,
        "statistic": 9.0,
        "critical_value": 2.5,
        "rising": True,
        "settled": 88,
        "tail": 81,
        "trend_p": 1e-6,
        "autocorrelation": 0.12,
        "level": 20.0,
        "level_critical": 2.5,
        "slow_level_critical": 8.0,
        "jitter_sd": 0.008,
        "hinge": 24.0,
        "hinge_critical": 3.5,
        "shape": 20.0,
        "shape_critical": 3.6,
        "epochs": 91,
        "units": 10_000,
        "samples": 10_000,
        "samples_left_out": 0,
        "epochs_left_out": 0,
        "infinite_epochs": 0,
        "infinite_samples": 0,
        "finite_best_value": 0.62,
        "finite_last_value": 0.93,
        "finite_samples": 10_000,
        "share_of_rise": 1.0,
        "share_of_fall": 0.18,
        "upper_share_of_fall": 0.2,
        "hump": np.nan,
        "hump_epoch": np.nan,
        "hump_until": np.nan,
        "hump_left": np.nan,
    }
    values.update(changed)
    values["verdict"] = STATUSES[values["status"]].verdict
    return values


class Judged(NamedTuple):
    """What the kind of a run is told from, of a History."""

    rise: pd.DataFrame
    candidates: pd.DataFrame
    balance_share: float
    divergence: bool = False
    same_rate: pd.DataFrame = pd.DataFrame()
    biases_repair_errors: bool = False


def judged(loss, refinement=None, errors=None, in_set=None, drift=0.0):
    """A judgement of three series with these rows and, for every criterion, these candidates."""
    flat = {"status": "flat", "amount": 0.001, "share_of_rise": 0.003, "upper_bound": 0.01, "since": np.nan}
    rows = [row(**loss), row(**(refinement or flat)), row(unit="fraction", **(errors or flat))]
    rise = pd.DataFrame(rows, index=pd.Index(["loss", "refinement_loss", "error_rate"], name="series"))
    table = pd.DataFrame(
        {"in_set": in_set or [True, True, True]}, index=pd.Index([1.0, 9.0, 90.0], name="epoch")
    )
    criteria = ("loss", "refinement_loss", "accuracy")
    return Judged(rise, pd.concat(dict.fromkeys(criteria, table), names=["criterion"]), drift)


def said(**changed):
    """All that is said of the loss in a row of `History.rise`."""
    finding = series_rise(judged(changed).rise, "loss")
    return f"{finding.answer}. {finding.sentence} {finding.details}"


def test_a_systematic_rise_is_told_with_amount_bound_since_and_size():
    text = said()
    for part in ("systematically", "0.62 at epoch 9", "0.93 at epoch 90", "0.31 nats", "at least 0.25 nats"):
        assert part in text
    for part in (
        "18.0 % of the fall",
        "Every epoch after 12",
        "10,000 samples",
        "0.0080 nats",
        "autocorrelation 0.12",
    ):
        assert part in text


def test_a_systematic_rise_leaves_the_step_to_the_kind_of_run_that_follows():
    assert series_rise(judged({}).rise, "loss").next_step == ""


def test_levels_carry_the_digits_of_their_change():
    text = said(status="flat", amount=0.0031, best_value=2.6321, last_value=2.6352)
    assert "2.6321 at epoch 9, 2.6352 at epoch 90" in text


def test_a_rise_that_exceeds_the_fall_is_told_in_times_of_it():
    assert "9.5 times the fall before it" in said(share_of_fall=9.5, resolution=0.03)
    assert "fall" not in said(share_of_fall=np.inf)


@pytest.mark.parametrize(
    ("left", "rest"), [(0.2, "which was"), (-0.3, "which was"), (1.4, "of which 2.50 nats were")]
)
@pytest.mark.parametrize("status", ["systematic", "flat", "within_jitter", "below_resolution"])
def test_a_rise_that_was_taken_back_is_mentioned(status, left, rest):
    text = said(status=status, hump=3.9, hump_epoch=12.0, hump_until=20.0, hump_left=left)
    assert text.endswith(f" In between it rose by 3.90 nats up to epoch 12, {rest} taken back by epoch 20.")
    assert "In between" not in said(status=status)


def test_a_share_of_what_is_within_noise_is_not_told():
    assert "fall" not in said(share_of_fall=9.5, resolution=0.04)  # the fall is 0.033
    worse = {"status": "systematic", "amount": 0.1, "share_of_rise": 2.0, "share_of_fall": 0.3}
    for loss, told in (("systematic", True), ("flat", False), ("within_jitter", False)):
        rise = judged({"status": loss}, worse).rise
        details = series_rise(rise, "refinement_loss").details
        assert ("2.0 times as much as the loss rose" in details) == told


def test_a_small_rise_says_so_and_of_what_it_is_small():
    rise = judged({}, {"status": "small", "amount": 0.007, "share_of_rise": 0.02, "share_of_fall": 0.01}).rise
    finding = series_rise(rise, "refinement_loss")
    assert finding.verdict == "yes"
    assert "but little" in finding.sentence
    assert "2.0 % of the rise of the loss" in finding.sentence


def test_a_rise_within_jitter_is_higher_than_before_or_may_be_taken_back():
    for changed in ({"trend_p": 0.5}, {"level": 1.4}):
        finding = series_rise(judged({"status": "within_jitter", **changed}).rise, "loss")
        assert "no more than a slow fluctuation produces" in finding.sentence
        assert "standard deviation 0.0080 nats, lag-1 autocorrelation 0.12" in finding.details
        assert "another seed" in finding.next_step
    neither = series_rise(judged({"status": "within_jitter", "trend_p": 0.5, "level": 1.4}).rise, "loss")
    assert "not beyond the jitter" in neither.sentence
    assert "slow fluctuation" not in neither.sentence


def test_what_a_sudden_rise_has_left_is_told_with_when_it_came_and_how_high_it_was():
    hump = {"hump": 3.9, "hump_epoch": 12.0, "hump_until": 90.0, "hump_left": 0.31}
    finding = series_rise(judged({"status": "setback", **hump}).rise, "loss")
    assert finding.verdict == "cannot tell"
    for part in ("jumped up to epoch 12, by 3.90 nats", "0.31 nats are left", "not a trend"):
        assert part in finding.sentence
    for part in ("0.93 at epoch 90", "up by 0.31 nats"):
        assert part in finding.details
    assert "taken back" not in finding.sentence + finding.details
    assert "Find out what happened there" in finding.next_step


BARELY = {"hinge": 4.0, "shape": 3.7, "level": 6.0}


def test_a_trend_of_few_epochs_is_told_with_what_it_takes_for_granted():
    few = {"settled": 14, "hinge": 3.0, "shape": -2.0, "level": 6.0}
    assert "The 14 epochs from the end of the initial fall on can't show" in said(**few)
    assert "can't show" not in said(**few | {"hinge": 3.6})


def test_a_rise_that_a_random_walk_makes_too_is_told_with_that():
    doubt = "one run can't distinguish a trend from a series that wanders"
    assert doubt in said(**BARELY, autocorrelation=0.7)
    assert doubt not in said(**BARELY)
    assert doubt not in said(autocorrelation=0.7)
    assert doubt not in said(**BARELY | {"hinge": 11.0}, autocorrelation=0.7)


def test_what_is_below_the_resolution_says_how_many_samples_it_would_take():
    finding = series_rise(
        judged(
            {"status": "below_resolution", "amount": 0.02, "resolution": 0.04, "units": 500, "samples": 500}
        ).rise,
        "loss",
    )
    assert "500 samples can resolve rises of 0.040 nats" in finding.sentence
    assert finding.next_step == "Validate on about 2,000 samples to resolve a rise of 0.020 nats."


def test_groups_are_counted_in_the_sentence():
    assert "10,000 samples in 40 groups" in said(units=40)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"epochs": 0}, "No checkpoint can be judged"),
        ({"epochs": 1}, "Only one checkpoint can be judged"),
        (
            {"epochs": 3, "settled": 2, "tail": 1},
            "3 checkpoints, 2 from the end of the initial fall on, 1 after the lowest",
        ),
        ({"epochs": 60, "tail": 2}, "So far the loss is up by 0.31 nats, at least 0.25 nats"),
    ],
)
def test_too_few_epochs_say_how_many_there_are(changed, words):
    assert words in said(status="too_few_epochs", **changed)


@pytest.mark.parametrize(
    ("changed", "more"),
    [
        ({"epochs": 2, "settled": 2, "tail": 0}, 6),
        ({"epochs": 7, "settled": 7, "tail": 4}, 1),
        ({"epochs": 60, "settled": 20, "tail": 2}, 2),
        ({"epochs": 60, "settled": 5, "tail": 4}, 3),
    ],
)
def test_too_few_epochs_say_how_many_more_are_wanted(changed, more):
    finding = series_rise(judged({"status": "too_few_epochs", **changed}).rise, "loss")
    assert (
        finding.next_step == f"Train and inspect {more} more epoch{'s' if more > 1 else ''}, then ask again."
    )


def test_each_series_has_a_code_of_its_own_and_its_row_as_evidence(growing):
    findings = about_rise(growing)
    assert [finding.code for finding in findings] == CODES
    for finding, (name, expected) in zip(findings, growing.rise.iterrows(), strict=True):
        assert finding.verdict == expected["verdict"]
        pd.testing.assert_frame_equal(finding.evidence, growing.rise.loc[[name]])


FLAT = {"status": "flat", "amount": -0.01, "share_of_rise": 0.0, "upper_bound": 0.02, "share_of_fall": 0.0}
WORSE = {
    "status": "systematic",
    "amount": 0.1,
    "share_of_rise": 0.3,
    "upper_bound": 0.13,
    "share_of_fall": 0.18,
}
LITTLE = {
    "status": "systematic",
    "amount": 0.01,
    "share_of_rise": 0.03,
    "upper_bound": 0.02,
    "share_of_fall": 0.02,
}
SMALL = {
    "status": "small",
    "amount": 0.003,
    "share_of_rise": 0.01,
    "upper_bound": 0.01,
    "share_of_fall": 0.01,
}
DOUBT = {
    "status": "within_jitter",
    "amount": 0.02,
    "share_of_rise": 0.07,
    "upper_bound": 0.03,
    "share_of_fall": 0.03,
}


KEEPS = {**FLAT, "upper_share_of_fall": 0.015}
SET_BACK = {**WORSE, "status": "setback"}


@pytest.mark.parametrize(
    ("loss", "refinement", "errors", "kind"),
    [
        ({}, FLAT, FLAT, "confidence"),
        ({}, DOUBT, FLAT, "confidence"),
        ({}, SMALL, FLAT, "confidence"),
        ({}, FLAT, {**DOUBT, "share_of_rise": 0.3, "amount": 0.009}, "confidence"),
        ({}, FLAT, {**DOUBT, "share_of_rise": 0.3}, "mostly_confidence"),  # two points more are wrong
        ({}, FLAT, {**DOUBT, "share_of_rise": 0.3, "since": np.nan}, "confidence"),  # or may be
        ({}, {**DOUBT, "share_of_fall": 0.05}, FLAT, "mostly_confidence"),
        ({}, {**DOUBT, "upper_bound": 0.032}, FLAT, "mostly_confidence"),  # of 0.31
        ({}, {**FLAT, "upper_bound": 0.15}, FLAT, "mostly_confidence"),
        ({}, {**FLAT, "upper_bound": 0.16}, FLAT, "undecidable"),
        ({}, {**FLAT, "upper_bound": np.nan}, FLAT, "undecidable"),
        ({}, FLAT, {**DOUBT, "share_of_rise": 0.6}, "undecidable"),
        ({}, LITTLE, FLAT, "confidence_and_more"),
        ({}, SMALL, LITTLE, "confidence_and_more"),
        ({}, {**LITTLE, "share_of_rise": 0.1, "share_of_fall": 0.05}, FLAT, "overfitting"),
        ({}, LITTLE, WORSE, "overfitting"),
        ({}, WORSE, FLAT, "overfitting"),
        ({}, FLAT, WORSE, "overfitting"),
        (FLAT, WORSE, FLAT, "hidden_overfitting"),
        ({"status": "within_jitter"}, WORSE, WORSE, "hidden_overfitting"),
        ({"status": "below_resolution"}, FLAT, FLAT, "undecidable"),
        ({"status": "below_resolution"}, KEEPS, KEEPS, "loss_undecided"),
        ({"status": "within_jitter"}, KEEPS, KEEPS, "loss_undecided"),
        ({"status": "within_jitter"}, {**KEEPS, "status": "below_resolution"}, KEEPS, "loss_undecided"),
        ({"status": "within_jitter"}, {**KEEPS, "status": "within_jitter"}, KEEPS, "undecidable"),
        ({"status": "within_jitter"}, KEEPS, {**KEEPS, "upper_share_of_fall": np.nan}, "undecidable"),
        ({"status": "within_jitter"}, KEEPS, FLAT, "undecidable"),
        ({"status": "within_jitter"}, {**KEEPS, "upper_share_of_fall": 0.045}, KEEPS, "undecidable"),
        ({"status": "unscored"}, KEEPS, KEEPS, "unscored"),
        (FLAT, KEEPS, KEEPS, "no_rise"),
        ({"status": "within_jitter"}, SET_BACK, FLAT, "setback"),
        (FLAT, SET_BACK, WORSE, "setback"),
        ({}, SET_BACK, FLAT, "overfitting"),
        ({"status": "too_few_epochs"}, FLAT, FLAT, "too_early"),
        (FLAT, FLAT, FLAT, "no_rise"),
    ],
)
def test_the_three_verdicts_together_tell_the_kind_of_run(loss, refinement, errors, kind):
    assert kind_of(judged(loss, refinement, errors)) == kind


@pytest.mark.parametrize(
    ("refinement", "errors", "kind"),
    [
        ({}, {}, "confidence"),
        ({"amount": 0.02, "share_of_fall": 0.22, "certain": True}, {}, "confidence_and_more"),  # of 0.31
        ({"amount": 0.04, "share_of_fall": 0.22, "certain": True}, {}, "overfitting"),
        ({"amount": 0.02, "share_of_fall": 0.22}, {}, "mostly_confidence"),
        ({"amount": 0.02, "share_of_fall": 0.04, "certain": True}, {}, "confidence"),
        ({}, {"amount": 0.022, "certain": True}, "mostly_confidence"),
        ({}, {"amount": 0.022}, "confidence"),
        ({}, {"amount": 0.009, "certain": True}, "confidence"),
    ],
)
def test_under_a_rate_that_goes_in_cycles_the_epochs_of_one_rate_are_compared(refinement, errors, kind):
    nothing = {"amount": 0.0, "share_of_fall": 0.0, "certain": False}
    table = pd.DataFrame([nothing | refinement, nothing | errors], index=["refinement_loss", "error_rate"])
    # Against the best epoch at any rate all these runs have lost something, perhaps by its phase alone.
    doubtful = {**DOUBT, "share_of_fall": 0.3}
    assert kind_of(judged({}, doubtful, FLAT)._replace(same_rate=table)) == kind


def test_a_run_that_diverged_is_of_no_other_kind():
    assert kind_of(judged({}, WORSE, WORSE)._replace(divergence=True)) == "diverged"


def test_a_run_whose_last_epoch_beats_its_middle_is_improving():
    assert kind_of(judged(FLAT, FLAT, FLAT, in_set=[False, False, True])) == "improving"


def test_a_run_that_only_grows_more_confident_keeps_the_epoch_that_needs_no_repair(
    make_logits,
):
    history = history_of(*make_logits(1000, 4, 14, churn=0.2))
    finding = run_kind(history)
    assert finding.verdict == "no"
    assert finding.answer == "Purely a confidence problem"
    assert (finding.evidence["kind"] == "confidence").all()
    assert finding.next_step == f"Keep epoch {history.best.loc['loss', 'epoch']:g}."
    assert not history.recommendation.calibrated
    share = history.rise.loc["refinement_loss", "upper_bound"] / history.rise.loc["loss", "amount"]
    assert 0.02 < share < 0.1
    assert f"the refinement loss is at most {percent(share)} of the rise." in finding.details


def test_a_few_samples_of_it_are_mostly_a_confidence_problem_and_do_not_deny_the_rest(make_logits):
    history = history_of(*make_logits(150, 4, 14, churn=0.2))
    finding = run_kind(history)
    assert history.rise["status"].tolist() == ["systematic", "flat", "flat"]
    assert (finding.evidence["kind"].iloc[0], finding.verdict) == ("mostly_confidence", "cannot tell")
    assert finding.answer.startswith("Mostly a confidence problem")
    assert finding.next_step.startswith(f"Keep epoch {history.recommendation.epoch:g}")


def test_what_is_within_noise_has_no_share_of_the_rise(make_logits):
    history = history_of(*make_logits(150, 4, 14, churn=0.2))
    assert (history.rise["share_of_rise"].iloc[1:] > 0).any()
    assert "of the loss's rise" not in run_kind(history).details


def test_a_run_whose_shape_decays_is_real_overfitting(worsening):
    finding = run_kind(worsening)
    assert (finding.evidence["kind"].iloc[0], finding.verdict) == ("overfitting", "yes")
    assert "% of the loss's rise" in finding.details


def test_a_little_real_decay_beside_much_more_confidence_is_named_and_not_called_overfitting(make_logits):
    logits, targets = make_logits(3000, 4, 20)
    noise = logits[:, np.random.default_rng(0).permutation(3000)]
    share, scale = (np.linspace(*ends, 20)[:, None, None] for ends in ((0, 0.12), (1, 3)))
    history = history_of(scale * ((1 - share) * logits[:1] + share * noise[:1]), targets)
    part = history.rise.loc["refinement_loss"]
    assert part["status"] == "systematic"
    assert part["share_of_rise"] < 0.1 < part["share_of_fall"]
    finding = run_kind(history)
    assert (finding.evidence["kind"].iloc[0], finding.verdict) == ("confidence_and_more", "yes")
    assert finding.answer == "Mostly a confidence problem, but a little knowledge is lost"
    assert finding.sentence.startswith("The model itself gets worse too, but only a little ")


def test_growing_logits_repaired_at_each_epoch_hide_the_decay(make_logits):
    logits, targets = make_logits(800, 4, 16)
    noise = logits[:, np.random.default_rng(0).permutation(800)]
    share = np.linspace(0, 0.2, 16)[:, None, None]
    mixed = (1 - share) * logits + share * noise
    # Badly over-confident at first, calibrated at the end: the loss falls, while the refinement loss rises.
    ratio = [Checkpoint.from_predictions(Predictions(one, targets)).temperature for one in mixed]
    confidence = np.geomspace(6, 1, 16)
    history = history_of(mixed * (confidence / np.array(ratio))[:, None, None], targets)
    assert history.rise.loc["loss", "verdict"] == "no"
    assert kind_of(history) == "hidden_overfitting"


def advised(history):
    """Return the finding about the best checkpoint, and the row of the one that it recommends."""
    finding = best_checkpoint(history)
    choice = history.recommendation
    return finding, history.table.set_index("epoch").loc[choice.epoch], choice


def test_a_checkpoint_is_recommended_with_its_temperature_and_the_code_to_apply_it(make_logits):
    logits, targets = make_logits(400, 4, 14, churn=0.2)
    history = history_of(2 * logits, targets)
    finding, row, choice = advised(history)
    plain = history.best.loc["loss"]
    assert choice.calibrated
    assert finding.next_step == f"Keep epoch {row.name:g} and calibrate it."
    assert finding.command == f"confshift calibrate RUN --epoch {row.name:g}"
    assert f"Epoch {row.name:g} with T = {row['temperature']:.3g}" in finding.details
    assert f"expected loss is {row['loss'] - row['scale_loss']:.2f} nats" in finding.details
    assert (
        f"epoch {plain['epoch']:g}, the plain minimum of the loss: {plain['loss']:.2f} nats"
        in finding.details
    )
    code = re.search(r"probabilities = (.*\.softmax\(dim=-1\))", finding.details).group(1)
    divisor = float(re.search(r"/ ([\d.]+)\)", code).group(1))
    assert divisor == pytest.approx(row["temperature"], rel=1e-3)


def test_every_sentence_recommends_the_same_checkpoint(make_logits):
    for churn in (0.0, 0.2):
        logits, targets = make_logits(400, 4, 14, churn=churn)
        history = history_of(2 * logits, targets)
        finding, row, choice = advised(history)
        answer = answer_run(history, compare(*history.pair), ())
        if choice.calibrated and "confidence" in kind_of(history):
            assert answer.action == f"Keep epoch {row.name:g}, and calibrate it."
            assert f"Keep epoch {row.name:g} and calibrate it" in run_kind(history).next_step
        assert f"Keep epoch {row.name:g}" in finding.next_step


def test_biases_are_recommended_where_they_gain_more_than_their_error(make_logits):
    logits, targets = make_logits(2000, 4, 8)
    logits[:, :, 1] += 1.5
    history = history_of(logits, targets)
    choice, finding = history.recommendation, best_checkpoint(history)
    checkpoint = next(one for one in history.main.checkpoints if one.epoch == choice.epoch)
    assert choice.biases == checkpoint.biases
    assert choice.biases[1] == min(choice.biases) < -0.3
    assert choice.temperature == checkpoint.joint_temperature
    expected = history.table.set_index("epoch").loc[choice.epoch, "refinement_loss"]
    assert choice.loss == pytest.approx(expected)
    code = re.search(r"torch.tensor\(\[(.*?)\]\)", finding.details).group(1)
    assert [float(bias) for bias in code.split(",")] == pytest.approx(list(choice.biases), rel=5e-3)


def test_the_recommended_map_gives_new_samples_the_expected_loss(make_logits):
    logits, targets = make_logits(4000, 4, 6)
    logits[:, :, 2] += 1.0
    choice = history_of(logits[:, ::2], targets[::2]).recommendation
    new = logits[int(choice.epoch), 1::2] / choice.temperature + np.array(choice.biases)
    losses = -log_softmax(new, axis=1)[np.arange(2000), targets[1::2]]
    assert abs(losses.mean() - choice.loss) < 4 * losses.std() / 2000**0.5


def test_a_temperature_that_gains_nothing_is_not_recommended(growing):
    finding = best_checkpoint(growing)
    assert finding.next_step == f"Keep epoch {growing.best.loc['loss', 'epoch']:g}."
    assert "Calibration gains nothing" in finding.details
    assert "softmax" not in finding.details
    assert finding.command == ""


def test_the_sets_stand_beside_the_best_epochs(growing):
    finding = best_checkpoint(growing)
    held = growing.candidates.loc["accuracy", "in_set"].sum()
    assert f"statistically tied: {held - 1} epochs" in finding.details


def texts(history):
    findings = [
        *about_rise(history),
        run_kind(history),
        best_checkpoint(history),
    ]
    return findings, " ".join(
        f"{finding.sentence} {finding.details} {finding.next_step}" for finding in findings
    )


def odd_runs(make_logits):
    logits, targets = make_logits(200, 4, 12, churn=0.3)
    right = logits.copy()
    right[:, np.arange(200), targets] += 60
    broken, ended = logits.copy(), logits.copy()
    broken[3], broken[5, :7], ended[-1] = np.nan, np.nan, np.nan
    return {
        "one epoch": (logits[:1], targets, "Only one checkpoint"),
        "two epochs": (logits[:2], targets, "2 checkpoints"),
        "two samples": (logits[:, :2], targets[:2], "With only 2 samples"),
        "twenty samples": (logits[:, :20], targets[:20], "With only 20 samples"),
        "one class": (logits, np.zeros(200, dtype=int), "All samples are of class 0"),
        "all right": (right, targets, "No sample is wrong at any epoch"),
        "identical checkpoints": (logits[[0] * 8], targets, "All checkpoints hold the same numbers"),
        "every sample twice": (
            np.repeat(logits, 2, axis=1),
            np.repeat(targets, 2),
            "200 samples equal another",
        ),
        "one sample only": (logits[:, [0] * 50], targets[[0] * 50], "49 samples equal another"),
        "zero logits": (np.zeros((8, 50, 4)), targets[:50], "as low as any before"),
        "some not finite": (broken, targets, "7 samples without a finite loss"),
        "diverged at the end": (ended, targets, "1 checkpoint where most samples"),
        "nothing finite": (np.full((8, 50, 4), np.nan), targets[:50], "No checkpoint can be judged"),
    }


class Numbers:
    """A panel of any losses and margins."""

    def __init__(self, loss, margin, targets):
        self.loss, self.margin, self.targets = loss, margin, targets
        self.counts = SimpleNamespace(finite=np.isfinite(loss).sum(axis=1))

    def at(self, places):
        return Numbers(self.loss[places], self.margin[places], self.targets)

    def ones(self):
        return (self.at([place]) for place in range(len(self.loss)))


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(0, 40))
def test_copies_are_the_rows_that_equal_another_in_every_column(seed, epochs, samples):
    random = np.random.default_rng(seed)
    loss = random.choice([0.5, 1.0, 2.0, np.inf, np.nan], (epochs, samples), p=[0.3, 0.3, 0.3, 0.05, 0.05])
    margin = random.choice([-1.0, 0.0, 1.0, np.nan], (epochs, samples))
    targets, finite = random.integers(0, 2, samples), np.isfinite(loss)
    at = np.flatnonzero(finite.any(axis=1))
    at = at[[0, len(at) // 2, -1]] if len(at) else at
    counted = ((np.abs(margin[at]) > 0) & np.isfinite(margin[at])).any(axis=0)
    rows = pd.DataFrame(np.vstack([targets, loss[at], margin[at]]).T)[counted]
    assert rise._copies(Numbers(loss, margin, targets)) == rows.duplicated().sum()


@pytest.mark.parametrize(
    "name", odd_runs(lambda *_, **__: (np.zeros((12, 200, 4)), np.zeros(200, dtype=int)))
)
def test_an_odd_run_is_told_in_words_without_a_number_that_is_none(make_logits, name):
    logits, targets, words = odd_runs(make_logits)[name]
    findings, text = texts(history_of(logits, targets))
    assert words in text
    assert not re.search(r"\b(nan|inf|None)\b|[?∞]", text)
    assert all(finding.sentence.endswith(".") for finding in findings)
    assert all(len(finding.sentence.split()) <= 40 for finding in findings[:-1])


def test_diagnose_begins_with_the_rise_and_ends_with_nothing_unsaid(growing):
    findings = diagnose(growing)
    codes = [finding.code for finding in findings]
    assert codes[:4] == [*CODES, "run_kind"]
    assert "best_checkpoint" in codes
    assert len(set(codes)) == len(codes)


def test_diagnose_passes_groups_and_looks_on(growing):
    groups = np.arange(400) // 4
    found = diagnose(growing, groups=groups, looks="every epoch")[0].evidence
    expected = judge(stack(growing.main.checkpoints, groups=groups), looks="every epoch").rise.loc[["loss"]]
    pd.testing.assert_frame_equal(found, expected)
    assert found.loc["loss", "units"] == 100


def test_a_history_that_was_told_how_the_question_is_asked_answers_it_so(growing):
    groups = np.arange(400) // 4
    checkpoints = growing.main.checkpoints
    told = summarize(checkpoints, looks="every epoch", groups=groups)
    expected = judge(stack(growing.main.checkpoints, groups=groups), looks="every epoch")
    pd.testing.assert_frame_equal(told.rise, expected.rise)
    pd.testing.assert_frame_equal(told.candidates, expected.candidates)
    assert str(diagnose(told)[0]) == str(diagnose(growing, groups=groups, looks="every epoch")[0])
    assert str(diagnose(told)[0]) != str(diagnose(growing)[0])
    assert str(diagnose(told, looks="once", groups=groups)[0]) == str(diagnose(growing, groups=groups)[0])


def test_other_looks_leave_the_groups_of_a_history_as_they_are(growing):
    told = summarize(growing.main.checkpoints, groups=np.arange(400) // 4)
    assert diagnose(told, looks="every epoch")[0].evidence.loc["loss", "units"] == 100


def test_looks_of_zero_are_not_taken_for_no_answer(growing):
    for source in (growing, growing.main.checkpoints):
        with pytest.raises(ConfshiftError, match="looks=0"):
            diagnose(source, looks=0)


def test_diagnose_refuses_looks_it_does_not_know(growing):
    with pytest.raises(ConfshiftError, match="every epoch"):
        diagnose(growing, looks="sometimes")


def test_a_rise_that_is_class_balance_is_class_drift_unless_knowledge_is_lost_too():
    errors = {"status": "systematic", "amount": 0.05, "share_of_rise": 0.6, "share_of_fall": 0.1}
    rest = {"status": "systematic", "amount": 0.1, "share_of_rise": 0.3, "share_of_fall": 0.1}
    minor = {**rest, "share_of_rise": 0.2, "share_of_fall": 0.04}
    assert kind_of(judged({}, errors=errors, drift=0.6)) == "class_drift"
    assert kind_of(judged({}, errors=errors, drift=0.4)) == "overfitting"
    repaired = judged({}, FLAT, errors, drift=0.4)._replace(biases_repair_errors=True)
    assert kind_of(repaired) == "confidence"
    assert kind_of(repaired._replace(balance_share=0.05)) == "overfitting"
    assert kind_of(judged({}, rest, drift=0.6)) == "overfitting"
    assert kind_of(judged({}, minor, drift=0.6)) == "class_drift"
    assert kind_of(judged({}, minor)) == "confidence_and_more"
    assert kind_of(judged({}, drift=0.6)) == "class_drift"


def test_a_training_is_stopped_where_knowledge_is_lost_and_not_where_confidence_grows(make_logits):
    long = np.linspace(0, 0.5, 40)[:, None, None]
    logits, targets = make_logits(2000, 4, 1)
    noise = logits[:, np.random.default_rng(0).permutation(2000)]
    jitter = 1 + np.random.default_rng(1).normal(0, 0.02, 40)[:, None, None]
    lost = summarize(history_of((1 - long) * logits + long * noise, targets).main.checkpoints, looks=40)
    assert lost.should_stop
    assert f"keep epoch {lost.recommendation.epoch:g}" in lost.stop_reason
    surer = summarize(history_of((1 + 4 * long) * jitter * logits, targets).main.checkpoints, looks=40)
    assert surer.rise.loc["loss", "amount"] > 0.2
    assert (surer.should_stop, surer.stop_reason) == (False, "")


def test_whether_to_stop_is_not_asked_of_a_history_made_for_one_look(growing):
    for ask in ("should_stop", "stop_reason"):
        with pytest.raises(ConfshiftError, match='looks="every epoch"'):
            getattr(growing, ask)


def test_every_kind_has_a_verdict_and_a_sentence():
    assert set(KINDS) == {
        "infinite",
        "unscored",
        "overfitting",
        "hidden_overfitting",
        "confidence",
        "mostly_confidence",
        "confidence_and_more",
        "class_drift",
        "setback",
        "loss_undecided",
        "diverged",
        "improving",
        "no_rise",
        "undecidable",
        "too_early",
    }
    assert all(kind.meaning.endswith(".") for kind in KINDS.values())
