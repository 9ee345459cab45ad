"""Five real trainings, each judged as a careful reader would judge its curves and its numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from real_runs import ARRAYS, RECIPES, checkpoints_of, wrong_labels_of
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from confshift.analysis.causes.label_noise import label_noise_floor
from confshift.analysis.comparison import Comparison, compare
from confshift.analysis.dynamics import label_suspects
from confshift.analysis.history import History, summarize
from confshift.analysis.significance import paired_interval
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.findings.causes import learning_rate_drop
from confshift.findings.diagnosis import diagnose
from confshift.findings.question import VERDICTS, Finding
from confshift.findings.run_kind import kind_of
from confshift.predictions import Predictions

EACH = pytest.mark.parametrize("name", RECIPES)
EVERY = pytest.mark.parametrize("name", sorted(path.stem for path in ARRAYS.glob("*.npz")))


class Judged(NamedTuple):
    """A run with everything that is said of it."""

    history: History
    comparison: Comparison
    findings: dict[str, Finding]

    @property
    def kind(self):
        return kind_of(self.history)

    @property
    def status(self):
        return self.history.rise["status"]

    @property
    def share(self):
        """The parts of the change of the loss between the two compared checkpoints: 1 is all of it."""
        part = self.comparison.account["contribution"]
        return part / part.sum()

    def verdicts(self, *codes):
        return [self.findings[code].verdict for code in codes]


@pytest.fixture(scope="session")
def judged():
    """Return a function from a run's name to the run, judged once."""

    @cache
    def judge(name):
        history = summarize(checkpoints_of(name))
        found = {finding.code: finding for finding in diagnose(history)}
        return Judged(history, compare(*history.pair), found)

    return judge


def test_after_learning_rate_drops_a_network_that_knows_its_training_set_only_grows_surer(judged):
    """The loss triples while hardly more are wrong: one temperature takes nearly all of it back.

    An eighth of the little that was learned may be lost, so nobody can call it a matter of confidence purely.
    """
    run = judged("lr_drops")
    assert (run.status["loss"], run.kind) == ("systematic", "mostly_confidence")
    assert "12.1 % of what was learned" in run.findings["run_kind"].details
    # All the last forty epochs are above the first ten in refinement loss, by a twentieth of the rise: less
    # than the jitter before the rate fell, which is correlated, can explain.
    refinement = run.history.rise.loc["refinement_loss"]
    assert refinement["status"] == "within_jitter"
    assert refinement["level"] > refinement["level_critical"]
    assert refinement["upper_bound"] < 0.1 * run.history.rise.loc["loss", "amount"]
    assert run.status["error_rate"] == "flat"
    assert run.share["mistake_cost"] > 0.9
    assert run.share["hedging"] < 0
    assert run.verdicts("dearer_mistakes", "temperature_repairs", "scale_growth") == ["yes"] * 3
    assert run.comparison.scale["kappa"].iloc[0] > 2
    assert run.findings["lost_information"].verdict == "cannot tell"
    assert "Look at calibration first" in run.findings["dearer_mistakes"].next_step


def test_learning_rate_drops_are_named_and_come_too_late_to_teach_anything(judged):
    """Both were recorded; the training set is known by heart before the first."""
    drop = judged("lr_drops").findings["learning_rate_drop"]
    assert drop.verdict == "yes"
    assert drop.evidence.index.tolist() == [21, 41]
    assert "from 0.15 to 0.015" in drop.sentence
    table = drop.evidence
    assert (table["refinement_loss_change"].abs() < 0.1).all()
    assert "averages out" not in drop.sentence


def test_under_warm_restarts_the_last_epoch_is_held_against_those_of_its_rate(judged):
    """Nothing that was learned is lost at the end of any cycle: purely a matter of confidence."""
    run = judged("restarts")
    assert run.kind == "confidence"
    said = "Among the epochs at about the last one's learning rate (0.0031), which goes in cycles, the"
    assert said in run.findings["run_kind"].details
    # At the start of a cycle nobody could tell that, were it held against the ends of the cycles.
    started = summarize(run.history.main.checkpoints[:24])
    assert started.same_rate["best_epoch"].tolist() == [32.0, 16.0]


def test_three_classes_and_a_hundred_samples_are_a_confidence_problem_and_no_more(judged):
    """The loss is back where it began, while what a temperature leaves stands still for fifty epochs."""
    run = judged("three_classes")
    assert (run.status["loss"], run.kind) == ("systematic", "confidence")
    assert "systematic" not in set(run.status[["refinement_loss", "error_rate"]])
    assert run.share["mistake_cost"] > 1  # less hedging pays for a part
    assert run.share["hedging"] < 0
    assert run.verdicts("dearer_mistakes", "temperature_repairs", "scale_growth") == ["yes"] * 3
    assert run.findings["lost_information"].verdict != "yes"
    # A twentieth of the labels is wrong; among 1000 samples of three classes that can only be suspected.
    assert run.findings["label_noise"].verdict in ("cannot tell", "yes")
    # The rate was recorded, and constant.
    assert run.findings["learning_rate_drop"].verdict == "no"


def test_a_head_on_frozen_features_of_many_classes_overfits_for_real(judged):
    """Loss, refinement loss and errors all rise: a temperature would leave a third of it and more."""
    run = judged("many_classes")
    assert run.status[["loss", "refinement_loss"]].tolist() == ["systematic"] * 2
    assert run.kind == "overfitting"
    assert run.share["error_rate"] > 0.3
    assert run.findings["temperature_repairs"].verdict in ("cannot tell", "no")
    assert run.findings["scale_growth"].verdict != "yes"  # logits a fifth larger explain half of it
    assert run.findings["lost_information"].verdict == "yes"
    # A tenth of the validation labels is wrong: many classes make that easy to see.
    noise = run.findings["label_noise"]
    best = noise.evidence.loc[noise.evidence["gain"].idxmax()]
    assert noise.verdict == "yes"
    assert abs(best["wrong_labels"] - wrong_labels_of("many_classes").mean()) < 2.5 * best["wrong_labels_se"]


def test_wrong_training_labels_of_digits_are_learned_behind_a_loss_that_stands_still(judged):
    """The model was too unsure; growing surer hides in the loss that it learns the wrong labels by heart."""
    run = judged("noisy_digits")
    assert run.status["loss"] != "systematic"
    assert run.status["refinement_loss"] == "systematic"
    assert run.kind == "hidden_overfitting"
    assert run.findings["run_kind"].answer == "The model itself gets worse; the loss hides it"
    assert run.history.main.checkpoints[-1].temperature < 0.9
    assert run.history.best.loc["refinement_loss", "epoch"] < run.history.best.loc["loss", "epoch"]
    assert run.findings["lost_information"].verdict == "yes"
    assert "yes" not in run.verdicts("temperature_repairs", "scale_growth")
    # The wrong labels are in the training set: no label of this split is.
    assert run.findings["label_noise"].verdict == "no"


def test_a_rare_class_is_overfitted_in_confidence_and_in_answers(judged):
    """Three quarters of the rise are confidence, a quarter is not, and four points more are wrong."""
    run = judged("imbalanced")
    assert run.status.tolist() == ["systematic"] * 3
    assert run.kind == "overfitting"
    assert run.share["mistake_cost"] > run.share["error_rate"] > 0.1
    assert run.verdicts("dearer_mistakes", "temperature_repairs", "lost_information") == ["yes"] * 3
    assert not run.findings["dearer_mistakes"].next_step  # calibration is not the first thing to look at
    assert run.findings["label_noise"].verdict == "no"
    assert run.findings["class_bias"].verdict == "yes"  # it answers the rare class too often
    assert run.findings["class_bias"].evidence.loc[1, "excess"] > 0


@EVERY
def test_every_finding_is_in_words_without_a_number_that_is_none(judged, name):
    for finding in judged(name).findings.values():
        assert finding.verdict in VERDICTS
        assert finding.sentence.endswith(".")
        text = f"{finding.sentence} {finding.next_step}"
        assert not re.search(r"\b(nan|inf|None)\b|∞|\?(?! *$)", text), text


@EVERY
def test_few_findings_are_problems_and_no_plain_description_of_a_rise_is_one(judged, name):
    run = judged(name)
    problems = {code for code, finding in run.findings.items() if finding.severity == "problem"}
    assert len(problems) <= (5 if "confidence" in run.kind else 8), problems
    described = {"refinement_rise", "loss_change", "dearer_mistakes", "wrong_or_right", "scale_growth"}
    assert not problems & (described | {"temperature_repairs", "one_competitor"})
    assert ("rise" in problems) == (run.findings["rise"].verdict == "yes")


@EVERY
def test_no_two_findings_on_a_page_contradict_each_other(judged, name):
    run = judged(name)
    itself, lost = run.verdicts("run_kind", "lost_information")
    if run.kind == "diverged":
        assert (itself, lost) == ("not applicable", "yes")
        return
    assert (itself == "yes") == (lost == "yes")
    assert {itself, lost} != {"yes", "no"}
    if "overfitting" in run.kind:
        steps = " ".join(finding.next_step for finding in run.findings.values())
        assert "calibration first" not in steps
        assert "keep the checkpoint" not in steps


@EVERY
def test_curves_alone_are_never_proof_of_a_drop_of_the_learning_rate(judged, name):
    unnamed = [replace(one, metadata={}) for one in judged(name).history.main.checkpoints]
    finding = learning_rate_drop(summarize(unnamed))
    assert finding.verdict != "yes"
    assert "metadata=" in finding.next_step


@EACH
@pytest.mark.parametrize(
    ("column", "least"), [("loss", 0.92), ("refinement_loss", 0.90), ("calibration_loss", 0.90)]
)
def test_the_interval_of_a_real_pair_covers_its_mean_in_samples_of_it(judged, name, column, least):
    """All samples are the population, 300 drawn from them a validation set."""
    before, after = (one.columns[column].to_numpy() for one in judged(name).history.pair)
    change = after - before
    random = np.random.default_rng(0)
    found = [paired_interval(random.choice(change, 300)) for _ in range(1000)]
    covered = np.mean([one.low <= change.mean() <= one.high for one in found])
    assert covered >= least


@EACH
def test_the_loss_less_its_scale_is_that_of_temperatures_fitted_by_scipy_to_the_other_samples(judged, name):
    checkpoint = judged(name).history.main.checkpoints[-1]
    logits, targets = checkpoint.predictions.logits.astype(float), checkpoint.predictions.targets
    own = (checkpoint.columns["loss"] - checkpoint.columns["scale_loss"]).to_numpy()
    worst = np.argsort(-checkpoint.columns["loss"].to_numpy())[:3]  # these move the temperature most
    for row in (*worst, *range(0, len(targets), len(targets) // 7)):
        others = np.arange(len(targets)) != row
        log_beta = minimize_scalar(loss_at, (-1, 0), args=(logits[others], targets[others])).x
        expected = loss_at(log_beta, logits[[row]], targets[[row]])
        assert own[row] == pytest.approx(expected, rel=5e-3, abs=1e-4)


def loss_at(log_beta, logits, targets):
    return -log_softmax(np.exp(log_beta) * logits, axis=1)[np.arange(len(targets)), targets].mean()


@pytest.mark.parametrize("rate", [0.04, 0.12])
def test_labels_that_are_flipped_in_a_real_run_are_counted_and_found(judged, rate):
    """The digits' own labels are right, so every wrong one is ours."""
    checkpoints = judged("noisy_digits").history.main.checkpoints
    random = np.random.default_rng(1)
    truth = checkpoints[0].predictions.targets
    wrong = random.random(len(truth)) < rate
    flipped = np.where(wrong, (truth + random.integers(1, 10, len(truth))) % 10, truth)
    found = label_noise_floor(checkpoints[30].predictions.logits, flipped)
    assert found.gain > 2 * found.gain_se
    assert abs(found.wrong_labels - wrong.mean()) < 2.5 * found.wrong_labels_se
    assert found.wrong_labels_se < 0.015
    panel = stack(
        [
            Checkpoint.from_predictions(Predictions(one.predictions.logits, flipped), epoch=one.epoch)
            for one in checkpoints[20:40]
        ]
    )
    ranked = label_suspects(panel, limit=None)
    assert roc_auc_score(wrong[ranked.index], -ranked["target_probability"]) > 0.95
