"""Pairs of checkpoints with a known answer: the verdicts are right, and every number is the table's."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_runs import noisier

from confshift.analysis.comparison import compare
from confshift.analysis.shares import excess_of, part_of_classes, part_of_pair
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.change import about_change
from confshift.findings.question import VERDICTS
from confshift.findings.wording import count, interval, nats, percent, signed
from confshift.predictions import Predictions

CODES = [
    "loss_change",
    "dearer_mistakes",
    "wrong_or_right",
    "temperature_repairs",
    "few_classes",
    "one_competitor",
    "few_samples",
]
UNKNOWN = re.compile(r"\bnan\b|\binf\b|None|\?(?! *$)|∞", re.IGNORECASE)


def comparison_of(before, after, targets, **given):
    sides = [Predictions(np.asarray(z, float), targets, **given) for z in (before, after)]
    return compare(*(Checkpoint.from_predictions(p, epoch=e) for e, p in zip((3, 60), sides, strict=True)))


def findings_of(comparison):
    return {finding.code: finding for finding in about_change(comparison)}


def said(finding):
    return f"{finding.sentence} {finding.details}"


def assert_sound(findings):
    for finding in findings:
        assert finding.verdict in VERDICTS
        assert finding.sentence.endswith(".")
        for text in (finding.answer, finding.sentence, finding.details, finding.next_step):
            assert not UNKNOWN.search(text), text
            assert "  " not in text
        assert 0 < len(finding.answer.split()) <= 10, finding.answer
        assert len(finding.sentence.split()) <= 40, finding.sentence
        assert len(finding.next_step.split()) <= 20, finding.next_step
        assert finding.title.endswith("?")


@pytest.fixture
def base(make_logits):
    """Calibrated logits of 2000 samples and 10 classes, and targets."""
    logits, targets = make_logits(2000, 10, 1, seed=2)
    return logits[0], targets


@pytest.fixture
def dearer(base):
    """The same predictions, three times as sure: each mistake costs three times as much."""
    return comparison_of(base[0], 3 * base[0], base[1])


def test_they_come_in_the_order_of_the_argument(dearer):
    assert [finding.code for finding in about_change(dearer)] == CODES


def test_two_runs_are_called_by_their_names(dearer):
    names = ("small (epoch 3)", "large (epoch 60)")
    found = {finding.code: finding.sentence for finding in about_change(dearer, names=names)}
    assert found["loss_change"].startswith("From small (epoch 3) to large (epoch 60) the loss rose")
    assert "the loss of large (epoch 60) is" in found["temperature_repairs"]


def test_one_checkpoint_leaves_every_question_about_a_change_unasked(base):
    one = Checkpoint.from_predictions(Predictions(*base), epoch=3)
    findings = about_change(compare(one, one))
    assert [finding.code for finding in findings] == CODES
    assert {finding.verdict for finding in findings} == {"not applicable"}
    assert {finding.sentence for finding in findings} == {
        "There is only one checkpoint: nothing to compare it with."
    }


def test_dearer_mistakes(dearer):
    found = findings_of(dearer)
    verdicts = {code: finding.verdict for code, finding in found.items()}
    assert verdicts == {
        "loss_change": "yes",
        "dearer_mistakes": "yes",
        "wrong_or_right": "yes",
        "temperature_repairs": "yes",
        "few_classes": "no",
        "one_competitor": "no",
        "few_samples": "no",
    }
    assert found["dearer_mistakes"].answer == "Each mistake costs 3.0 times as much"
    assert ", 3.0 times as much" in found["dearer_mistakes"].details
    assert "hedges less" in found["dearer_mistakes"].details
    temperature = dearer.after.temperature
    assert temperature == pytest.approx(3, rel=0.1)
    assert f"by T = {temperature:.3g} " in found["temperature_repairs"].next_step
    assert found["temperature_repairs"].next_step.endswith("if you keep this checkpoint.")
    assert_sound(found.values())


def test_every_number_of_the_first_sentences_is_the_tables(dearer):
    found, change = findings_of(dearer), dearer.change
    loss, accuracy = change.loc["loss"], change.loc["accuracy"]
    assert found["loss_change"].sentence == (
        f"From epoch 3 to 60 the loss rose by {nats(loss['change'])} nats; accuracy did not change "
        f"measurably ({percent(accuracy['after'])})."
    )
    assert found["loss_change"].details == (
        f"The mean loss went from {nats(loss['before'])} to {nats(loss['after'])} nats ({interval(loss)}), "
        f"accuracy from {percent(accuracy['before'])} to {percent(accuracy['after'])} "
        f"({interval(accuracy)}). 2,000 samples; for these two checkpoints as chosen; not "
        "corrected for having picked the best."
    )
    account = dearer.account
    for part in account["contribution"]:
        assert signed(part) in found["dearer_mistakes"].sentence
    cells = dearer.cells
    for transition in ("stayed_wrong", "stayed_right", "learned", "forgotten"):
        net = cells.loc[transition, "contribution"].sum()
        assert signed(net) in found["wrong_or_right"].sentence
        if transition.startswith("stayed"):
            for direction in ("up", "down"):
                samples = int(cells.loc[(transition, direction), "samples"])
                assert count(samples) in found["wrong_or_right"].details
    for name in ("scale_loss", "balance_loss", "refinement_loss"):
        row = change.loc[name]
        word = {"scale_loss": "scale", "balance_loss": "class balance", "refinement_loss": "the rest"}[name]
        assert f"{signed(row['change'])} {word}" in found["temperature_repairs"].sentence
        assert interval(row) in found["temperature_repairs"].details
    value = dearer.concentration["value"]
    assert f"the {int(value['cancelling_samples'])} worst samples of 2,000" in found["few_samples"].sentence
    assert f"have {percent(value['top_1_percent'])} of all increases" in found["few_samples"].details
    pair = dearer.competitors[dearer.competitors["contribution"] > 0].iloc[0]
    text = f"{pair['class_name']} taken for {pair['competitor_name']} {signed(pair['contribution'])}"
    assert text in found["one_competitor"].details


def test_calibration_is_not_the_first_thing_to_look_at_in_a_run_that_overfits(dearer):
    usual, overfitting = (about_change(dearer, overfitting=known)[1] for known in (False, True))
    assert usual.code == "dearer_mistakes"
    assert usual.next_step.startswith("Look at calibration first")
    assert overfitting.next_step == ""
    assert (overfitting.verdict, overfitting.sentence) == (usual.verdict, usual.sentence)


def test_nor_where_most_of_the_rise_is_refinement(base):
    logits, targets = base
    wrong = logits.argmax(axis=1) != targets
    comparison = comparison_of(logits, np.where(wrong[:, None], 2 * logits, logits), targets)
    change = comparison.change["change"]
    assert change["refinement_loss"] > change["loss"] / 2
    finding = findings_of(comparison)["dearer_mistakes"]
    assert (finding.verdict, finding.next_step) == ("yes", "")


def test_right_ones_less_sure(base):
    logits, targets = base
    right = logits.argmax(axis=1) == targets
    after = np.where(right[:, None], 0.3 * logits, logits)
    found = findings_of(comparison_of(logits, after, targets))
    assert found["wrong_or_right"].verdict == "no"
    assert "hedges more on what it gets right" in found["wrong_or_right"].next_step
    assert found["dearer_mistakes"].verdict == "no"
    assert "hedges more, over all" in found["dearer_mistakes"].details
    assert found["dearer_mistakes"].answer == "More hedging drives the rise"
    assert_sound(found.values())


def test_lost_information(base):
    logits, targets = base
    noise = 3 * np.random.default_rng(0).normal(size=logits.shape)
    found = findings_of(comparison_of(logits, 0.35 * (logits + noise), targets))
    assert found["loss_change"].verdict == "yes"
    assert found["temperature_repairs"].verdict == "no"
    assert "the model lost information since" in found["temperature_repairs"].next_step
    assert found["dearer_mistakes"].verdict == "no"
    assert_sound(found.values())


def with_more_mistakes(logits, targets, every):
    """Give some samples that were right the logits of wrong ones: more mistakes of the same kind."""
    right = logits.argmax(axis=1) == targets
    fallen = np.flatnonzero(right)[::every]
    models = np.resize(np.flatnonzero(~right), len(fallen))
    after = logits.copy()
    for one, model in zip(fallen, models, strict=True):
        after[one] = np.roll(logits[model], targets[one] - targets[model])
    return after


def test_more_mistakes(base):
    logits, targets = base
    after = with_more_mistakes(logits, targets, every=3)
    found = findings_of(comparison_of(logits, after, targets))
    assert found["dearer_mistakes"].verdict == "no"
    assert "wrong more often" in found["dearer_mistakes"].next_step
    assert_sound(found.values())


def test_one_more_mistake_is_no_reason_to_go_back(base):
    logits, targets = base
    after = logits.copy()
    one = int(np.flatnonzero(logits.argmax(axis=1) == targets)[0])
    after[one] = np.roll(logits[one], 1)
    finding = findings_of(comparison_of(logits, after, targets))["dearer_mistakes"]
    assert finding.evidence["contribution"].idxmax() == "error_rate"
    assert (finding.verdict, finding.next_step) == ("cannot tell", "")  # one sample of 2,000


def test_what_rises_decides_even_where_the_hedge_falls_by_more(base):
    logits, targets = base
    comparison = comparison_of(0.4 * logits, with_more_mistakes(1.7 * logits, targets, every=6), targets)
    part = comparison.account["contribution"]
    assert -part["hedging"] > part["mistake_cost"] > part["error_rate"] > 0
    assert part.sum() > 0
    assert findings_of(comparison)["dearer_mistakes"].verdict == "yes"


def test_one_class_carries_it_and_one_competitor_takes_it(base):
    logits, targets = base
    after = logits.copy()
    after[targets == 4, 9] += 6
    names = [f"kind-{k}" for k in range(10)]
    found = findings_of(comparison_of(logits, after, targets, class_names=names))
    assert found["few_classes"].verdict == "yes"
    assert found["few_classes"].answer.startswith("Class kind-4 adds +")
    assert found["few_classes"].next_step == "Look at the samples of class kind-4 first."
    assert "Accuracy of kind-4: " in found["few_classes"].details
    assert found["one_competitor"].verdict == "yes"
    assert found["one_competitor"].answer.startswith("Class kind-4 taken for kind-9 adds +")
    assert_sound(found.values())


@pytest.mark.parametrize("size", [19, 20])
def test_a_class_of_few_samples_is_no_lead(base, size):
    logits, targets = base
    few = np.flatnonzero(targets == 4)[size:]
    targets = targets.copy()
    targets[few] = 5
    after = logits.copy()
    after[targets == 4, 9] += 60
    found = findings_of(comparison_of(logits, after, targets))
    for code in ("few_classes", "one_competitor"):
        assert found[code].verdict == "yes"
        assert bool(found[code].next_step) == (size == 20)


def test_classes_that_carry_a_rise_by_chance_are_not_named():
    # Five samples of each class; each sample's own change is far larger than the mean change.
    rng = np.random.default_rng(1)
    targets = np.repeat(np.arange(200), 5)
    before = rng.normal(size=(1000, 200))
    after = before + 0.6 * rng.normal(size=before.shape)
    finding = findings_of(comparison_of(before, after, targets))["few_classes"]
    classes = finding.evidence
    top = classes["contribution"].head(40).sum() / classes["contribution"].sum()
    assert top > 0.5  # in the sample they do carry it
    assert finding.verdict == "cannot tell"
    assert not finding.next_step
    assert "it may be chance" in finding.sentence


def with_a_class_that_carries(share, each, *, classes=5, seed=0):
    """A comparison in which the first class adds `share` of the rise, over so many samples of each class."""
    random = np.random.default_rng(seed)
    targets = np.tile(np.arange(classes), each)
    means = np.where(targets == 0, share, (1 - share) / (classes - 1)) * classes / 2
    before = np.zeros((len(targets), classes))
    before[np.arange(len(targets)), targets] = -20.0  # the wrong class of each sample has all the mass
    before[np.arange(len(targets)), (targets + 1) % classes] = 20.0
    after = before.copy()
    after[np.arange(len(targets)), targets] -= means * random.exponential(size=len(targets))
    return comparison_of(before, after, targets)


@pytest.mark.parametrize(
    ("code", "share", "limit"), [("few_classes", 0.66, 0.5), ("one_competitor", 0.4, 0.25)]
)
def test_a_part_is_claimed_only_where_its_error_allows_it(code, share, limit):
    few, many = (findings_of(with_a_class_that_carries(share, each, seed=1)) for each in (8, 150))
    for found in (few, many):
        contribution = found[code].evidence["contribution"]
        assert contribution.max() / contribution.sum() > limit
    assert (few[code].verdict, many[code].verdict) == ("cannot tell", "yes")
    assert f"too few to say whether that is more than {percent(limit)} of the rise" in few[code].sentence
    assert "standard error of" in many[code].details
    assert not few[code].next_step
    spread = findings_of(with_a_class_that_carries(0.2, 600, seed=1))[code]
    assert spread.verdict == "no"
    assert_sound([*few.values(), *many.values(), spread])


def test_groups_make_a_share_less_certain():
    # Ten patients of one class each: what one class adds are the losses of two of them.
    comparison = with_a_class_that_carries(0.66, 150, seed=1)
    targets, ids = comparison.panel.targets, comparison.panel.sample_ids
    patients = 10 * targets + ids // 5 % 2
    sides = (comparison.before.predictions, comparison.after.predictions)
    grouped = compare(*sides, groups=patients)
    assert findings_of(comparison)["few_classes"].verdict == "yes"
    assert findings_of(grouped)["few_classes"].verdict == "cannot tell"


def test_the_largest_share_is_no_claim_while_its_error_reaches_the_limit():
    # The pair is .40 of this rise and its limit .25, in either half too; its error reaches below.
    comparison = with_a_class_that_carries(0.35, 12, seed=0)
    assert all(interval.estimate > 0 > interval.low for interval in halves_of_the_largest_pair(comparison))
    assert findings_of(comparison)["one_competitor"].verdict == "cannot tell"


def halves_of_the_largest_pair(comparison):
    excess = excess_of(comparison, part_of_pair(comparison), 0.25)
    return excess.chosen, excess.held_out


def test_a_share_below_its_limit_is_spread_only_where_its_error_allows_it():
    few, many = (with_a_class_that_carries(0.4, each, seed=each // 20) for each in (10, 20))
    for comparison, verdict in ((few, "cannot tell"), (many, "no")):
        excess = excess_of(comparison, part_of_classes(comparison, 1), 0.5)
        assert excess.chosen.estimate < 0
        assert findings_of(comparison)["few_classes"].verdict == verdict


@pytest.mark.parametrize(
    ("seed", "growth", "noise", "without_error", "verdict"),
    [(4, 3.0, 0.2, "yes", "cannot tell"), (1, 1.0, 0.5, "cannot tell", "no")],
)
def test_the_error_of_the_rise_is_in_the_half_that_a_temperature_repairs(
    seed, growth, noise, without_error, verdict
):
    comparison = noisier(150, seed, growth=growth, noise=noise)
    assert comparison.change.loc["loss", "change_low"] > 0
    scaled, half = comparison.panel.scaled, comparison.change.loc["loss", "change"] / 2
    left = comparison.interval(scaled[1] - scaled[0])  # as if the rise had no error
    assert without_error == ("yes" if left.high < half else "no" if left.low > half else "cannot tell")
    assert findings_of(comparison)["temperature_repairs"].verdict == verdict


@pytest.mark.parametrize(("growth", "largest"), [(1.5, "mistake_cost"), (1.0, "error_rate")])
def test_the_largest_part_of_a_rise_is_named_only_beyond_its_error(growth, largest):
    comparison = noisier(100, 2, growth=growth, noise=1.0)
    assert comparison.account["contribution"].idxmax() == largest
    assert comparison.change.loc["loss", "change_low"] > 0
    assert comparison.change.loc["mistake_cost", "change_low"] > 0
    assert findings_of(comparison)["dearer_mistakes"].verdict == "cannot tell"


def test_a_few_samples_are_a_handful_only_if_they_have_most_of_the_increases():
    # A kurtosis as of few samples, in a rise that is nothing beside its scatter.
    changes = np.concatenate([np.full(28, -0.3), np.full(28, 0.3), [3.0, 2.0, -2.5, -2.3]])
    comparison = rising_by(changes)
    value = comparison.concentration["value"]
    assert value["effective_samples"] < 7
    assert value["cancelling_samples"] == 1
    assert findings_of(comparison)["few_samples"].verdict == "cannot tell"


def test_one_sample_explodes(base):
    logits, targets = base
    after = logits.copy()
    after[17] = -9000.0
    after[17, (targets[17] + 1) % 10] = 0
    found = findings_of(comparison_of(logits, after, targets))
    assert found["few_samples"].verdict == "yes"
    assert found["few_samples"].sentence.startswith("Without the worst sample of 2,000 there is no rise:")
    assert found["few_samples"].answer == "1 sample of 2,000 makes the whole rise"
    assert found["loss_change"].verdict == "cannot tell"
    assert found["temperature_repairs"].verdict == "cannot tell"
    assert "is within its error" in found["few_classes"].sentence
    texts = [text for one in found.values() for text in (one.answer, one.sentence)]
    assert not any("% of the rise" in text for text in texts)  # a share of nothing
    assert_sound(found.values())


def rising_by(changes):
    """A comparison of two classes in which each sample's loss rises by so much."""
    losses = np.full(len(changes), 30.0), 30.0 + changes
    sides = [np.stack([-loss, np.zeros(len(loss))], axis=1) for loss in losses]
    return comparison_of(*sides, np.zeros(len(changes), int))


@pytest.mark.parametrize("samples", [2_000, 10_000, 50_000])
@pytest.mark.parametrize("tails", ["normal", "student"])
def test_a_rise_spread_over_all_samples_is_not_that_of_a_handful_however_many_they_are(samples, tails):
    random = np.random.default_rng(0)
    noise = random.standard_normal(samples) if tails == "normal" else random.standard_t(3, samples)
    noise -= noise.mean()
    comparison = rising_by(noise + 3 * noise.std() / np.sqrt(samples))
    found = findings_of(comparison)["few_samples"]
    assert comparison.change.loc["loss", "change_low"] > 0
    assert found.verdict == "no"


def test_half_a_percent_of_the_samples_that_are_most_of_the_rise_are_a_handful():
    random = np.random.default_rng(0)
    changes = 0.05 * random.standard_normal(10_000)
    changes[random.choice(10_000, 50, replace=False)] += 15
    comparison = rising_by(changes)
    assert comparison.concentration.loc["effective_samples", "value"] > 7
    assert findings_of(comparison)["few_samples"].verdict == "yes"


def test_a_fall_is_not_explained_as_a_rise(base):
    found = findings_of(comparison_of(3 * base[0], base[0], base[1]))
    assert found["loss_change"].verdict == "yes"
    assert "the loss fell by" in found["loss_change"].sentence
    assert {found[code].verdict for code in CODES[1:]} == {"not applicable"}
    assert {finding.next_step for finding in found.values()} == {""}
    assert_sound(found.values())


def test_identical_checkpoints(base):
    found = findings_of(comparison_of(base[0], base[0].copy(), base[1]))
    assert found["loss_change"].verdict == "no"
    assert "the loss did not change" in found["loss_change"].sentence
    assert {found[code].verdict for code in CODES[1:]} == {"not applicable"}
    assert "hedges as much as before" in found["dearer_mistakes"].details
    assert_sound(found.values())


def test_a_rise_within_noise_has_no_causes():
    targets = np.arange(200) % 4
    losses = np.full((2, 200), 2.0)
    losses[1] += np.where(np.arange(200) // 4 % 2, 1.0, -0.95)  # +0.025 on average, give or take 0.07
    sides = np.repeat(np.log((1 - np.exp(-losses)) / 3)[:, :, None], 4, axis=2)
    sides[:, np.arange(200), targets] = -losses
    comparison = comparison_of(*sides, targets)
    loss = comparison.change.loc["loss"]
    assert loss["change"] == pytest.approx(0.025)
    assert loss["change_low"] < 0
    found = findings_of(comparison)
    for code in (
        "loss_change",
        "wrong_or_right",
        "temperature_repairs",
        "few_classes",
        "one_competitor",
        "few_samples",
    ):
        assert found[code].verdict == "cannot tell", code
    assert_sound(found.values())


def right_only(targets, size=2.0):
    return size * np.eye(3)[targets] - 4


SIDES = {
    "all right": lambda z, y: right_only(y),
    "all right, surer": lambda z, y: right_only(y, 5.0),
    "all wrong": lambda z, y: -right_only(y, 3.0) - 9,
    "zero head": lambda z, y: 0 * z,
    "some": lambda z, y: z,
    "some, surer": lambda z, y: 4 * z,
    "not finite": lambda z, y: np.where(np.arange(len(y))[:, None] % 3 == 0, np.nan, z),
    "masked": lambda z, y: np.where(np.eye(3, dtype=bool)[(y + 1) % 3], -np.inf, z),
    "true class masked": lambda z, y: np.where(
        np.eye(3, dtype=bool)[y] & (np.arange(len(y)) % 4 == 0)[:, None], -np.inf, z
    ),
}


@pytest.mark.parametrize("samples", [2, 40])
@pytest.mark.parametrize("after", SIDES)
@pytest.mark.parametrize("before", SIDES)
def test_no_sentence_holds_an_unknown_number_whatever_the_sides(before, after, samples):
    rng = np.random.default_rng(samples)
    targets = rng.integers(0, 3, samples)
    z = rng.normal(size=(samples, 3)) - 3
    comparison = comparison_of(SIDES[before](z, targets), SIDES[after](z, targets), targets)
    findings = about_change(comparison)
    assert [finding.code for finding in findings] == CODES
    assert_sound(findings)
    if {before, after} & {"not finite", "true class masked"}:
        assert "without a finite loss left out of both sides." in said(findings[0])
        infinite = any(comparison.infinite_samples)
        assert ("infinite" if infinite else "left out of both sides") in findings[0].sentence


@pytest.mark.parametrize("targets", [np.zeros(30, int), np.arange(30) % 2])
def test_with_fewer_than_three_classes_none_are_few(targets):
    z = np.random.default_rng(0).normal(size=(30, 3)) - 3
    found = findings_of(comparison_of(z, 5 * z, targets))
    assert found["few_classes"].verdict == "not applicable"
    assert "Fewer than three classes" in found["few_classes"].sentence
    two = findings_of(comparison_of(z[:, :2], 5 * z[:, :2], targets))
    assert two["one_competitor"].verdict == "not applicable"
    assert "one competitor" in two["one_competitor"].sentence
    assert_sound([*found.values(), *two.values()])


def test_bare_predictions_have_sides_instead_of_epochs(base):
    logits, targets = base
    findings = about_change(compare(Predictions(logits, targets), Predictions(3 * logits, targets)))
    assert findings[0].sentence.startswith("Between the two sides the loss rose by")
    assert "the loss on the second side is" in findings[3].sentence
    assert_sound(findings)


def test_where_nobody_was_wrong_the_cost_has_one_side_only(base):
    targets = np.arange(300) % 3
    some = np.random.default_rng(0).normal(size=(300, 3)) - 3
    finding = findings_of(comparison_of(right_only(targets), some, targets))["dearer_mistakes"]
    assert "no sample was wrong before" in finding.details
    assert finding.verdict == "no"  # they are new mistakes
    both = findings_of(comparison_of(right_only(targets), right_only(targets, 1.0), targets))
    assert both["dearer_mistakes"].verdict == "not applicable"
    assert both["dearer_mistakes"].sentence.startswith("No sample is wrong on either side")


@settings(max_examples=40)
@given(st.integers(1, 12), st.sampled_from([2, 3, 6]), st.integers(0, 2**32 - 1))
def test_any_small_pair_gives_sound_findings(samples, classes, seed):
    rng = np.random.default_rng(seed)
    sides = (
        np.round(rng.normal(size=(2, samples, classes)) * rng.choice([0.1, 1, 30], 2)[:, None, None], 1) - 99
    )
    comparison = comparison_of(*sides, rng.integers(0, classes, samples))
    assert_sound(about_change(comparison))


def test_the_sound_check_finds_what_it_looks_for():
    for text in ("from nan to 3", "T = inf.", "∞ nats", "epoch ? to"):
        assert UNKNOWN.search(text)
    assert not UNKNOWN.search("information of a finance class: is it so?")
    with pytest.raises(ConfshiftError):
        comparison_of(np.full((2, 2), np.nan), np.full((2, 2), np.nan), [0, 1])


def test_dearer_mistakes_are_no_advice_while_the_rise_itself_cannot_be_told():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 2000)
    logits = rng.normal(size=(2000, 4))
    logits[np.arange(2000), targets] += 1.5
    calibrated = 1.5 * logits  # a little surer than that costs next to nothing on average
    comparison = comparison_of(calibrated, 1.2 * calibrated, targets)
    assert comparison.change.loc["mistake_cost", "change_low"] > 0
    found = findings_of(comparison)
    assert found["loss_change"].verdict == "cannot tell"
    assert (found["dearer_mistakes"].verdict, found["dearer_mistakes"].next_step) == ("cannot tell", "")
    told = findings_of(comparison_of(calibrated, 1.3 * calibrated, targets))
    assert (told["loss_change"].verdict, told["dearer_mistakes"].verdict) == ("yes", "yes")


def test_classes_that_add_more_than_the_rise_are_given_as_amounts_that_add_up(base):
    logits, targets = base
    after = logits.copy()
    after[targets == 4, 9] += 6
    after[targets == 2, 2] += 2
    comparison = comparison_of(logits, after, targets)
    finding = findings_of(comparison)["few_classes"]
    total, added = comparison.change.loc["loss", "change"], finding.evidence["contribution"].head(2).sum()
    assert added > total > 0
    assert finding.answer == f"2 classes add {signed(added)} nats, the others {signed(total - added)}"


def test_findings_about_parts_of_a_rise_hold_the_limits_of_a_heading_and_a_sentence(base):
    logits, targets = base
    for changed in (
        logits,
        logits + 3 * np.eye(10)[targets],
        3 * logits,
        np.where(targets[:, None] == 4, 0, logits),
    ):
        for code in ("few_classes", "one_competitor", "few_samples"):
            finding = findings_of(comparison_of(logits, changed, targets))[code]
            assert 0 < len(finding.answer.split()) <= 10
            assert len(finding.sentence.split()) <= 40
            assert len(finding.next_step.split()) <= 20
