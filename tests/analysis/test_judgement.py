"""The three series of a run together: which samples and epochs count, groups, sizes, tables."""

import math

import numpy as np
import pandas as pd
import pytest
from pairs import checkpoints

from confshift.analysis.history import summarize
from confshift.analysis.rise import judge, leading
from confshift.analysis.series import STATUSES, judge_series, series_of
from confshift.analysis.significance import paired_interval
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from simulated_runs import simulated_losses

SERIES = ["loss", "refinement_loss", "error_rate"]


@pytest.fixture(scope="module")
def logits(make_logits):
    return make_logits(300, 4, 12, churn=0.3)


@pytest.fixture(scope="module")
def panel(logits):
    return stack(checkpoints(*logits))


@pytest.fixture(scope="module")
def rise(panel):
    return judge(panel).rise


def test_only_the_confidence_is_at_fault_where_the_logits_only_grow(rise):
    assert list(rise.index) == SERIES
    assert rise["status"].to_dict() == {"loss": "systematic", "refinement_loss": "flat", "error_rate": "flat"}
    assert (rise["verdict"] == rise["status"].map(lambda status: STATUSES[status].verdict)).all()


def test_each_series_is_judged_on_its_own_values(panel, rise):
    for name, values in zip(SERIES, [panel.loss, panel.refinement, ~panel.correct * 1.0], strict=True):
        expected = judge_series(series_of(values, panel.epochs))
        for key in set(expected) - {"fall"}:
            assert rise.loc[name, key] == pytest.approx(expected[key], nan_ok=True), (name, key)


def test_the_amount_is_the_change_of_a_comparison_of_the_same_epochs(panel, rise):
    before = int(rise.loc["loss", "best_epoch"])
    assert rise.loc["loss", "amount"] == pytest.approx(
        paired_interval(panel.loss[-1] - panel.loss[before]).estimate, rel=1e-9
    )


def test_candidates_name_every_epoch_by_every_criterion(panel):
    candidates = judge(panel).candidates
    assert list(candidates.index.names) == ["criterion", "epoch"]
    assert list(candidates.index.get_level_values(0).unique()) == ["loss", "refinement_loss", "accuracy"]
    np.testing.assert_allclose(candidates.loc["accuracy", "value"], panel.correct.mean(axis=1))
    np.testing.assert_allclose(candidates.loc["loss", "value"], panel.loss.mean(axis=1))
    assert candidates["in_set"].groupby("criterion").any().all()


def test_a_history_holds_the_judgement_of_its_main_split(logits):
    run = [*checkpoints(*logits), *checkpoints(logits[0][:, :50], logits[1][:50], split="train")]
    history = summarize(run)
    pd.testing.assert_frame_equal(history.rise, judge(history.main).rise)
    pd.testing.assert_frame_equal(history.candidates, judge(history.main).candidates)
    assert (history.rise["samples"] == 300).all()


def test_every_best_epoch_of_a_history_is_a_candidate(logits):
    history = summarize(checkpoints(*logits))
    for criterion, epoch in history.best["epoch"].items():
        assert history.candidates.loc[(criterion, epoch), "in_set"]


def test_samples_and_epochs_that_cannot_be_scored_are_left_out_and_counted(logits, rise):
    broken = logits[0].copy()
    broken[4] = np.nan
    broken[7, :10] = np.nan
    found = judge(stack(checkpoints(broken, logits[1]))).rise
    assert (found["epochs_left_out"] == 1).all()
    assert (found["samples_left_out"] == 10).all()
    assert (found["samples"] == 290).all()
    kept = [position for position in range(12) if position != 4]
    clean = stack(checkpoints(logits[0][kept][:, 10:], logits[1][10:], kept))
    assert found.loc["loss", "amount"] == pytest.approx(judge(clean).rise.loc["loss", "amount"], rel=1e-9)


def test_a_run_in_which_nothing_can_be_scored_has_no_verdict(logits):
    found = judge(stack(checkpoints(np.full((6, 20, 3), np.nan), np.zeros(20, dtype=int))))
    assert (found.rise["verdict"] == "not applicable").all()
    assert (found.rise["epochs"] == 0).all()
    assert found.candidates.empty


def test_epochs_without_one_sample_in_common_have_no_verdict():
    logits = np.random.default_rng(0).standard_normal((6, 20, 3))
    logits[::2, :10] = np.nan
    logits[1::2, 10:] = np.nan
    assert (judge(stack(checkpoints(logits, np.zeros(20, dtype=int)))).rise["epochs"] == 0).all()


@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda labels: dict(enumerate(labels))])
def test_groups_may_be_labels_in_order_or_by_sample_id(panel, rise, form):
    labels = [f"patient {number // 6}" for number in range(300)]
    found = judge(stack(panel.checkpoints, groups=form(labels))).rise
    assert (found["units"] == 50).all()
    assert (found["samples"] == 300).all()
    assert found.loc["loss", "amount"] == rise.loc["loss", "amount"]


def test_groups_of_samples_left_out_are_left_out_too(logits):
    broken = logits[0].copy()
    broken[7, :12] = np.nan
    found = judge(stack(checkpoints(broken, logits[1]), groups=np.arange(300) // 6)).rise
    assert (found["units"] == 48).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": ["a"] * 299}, r"groups has shape \(299,\), the run has 300 samples"),
        ({"groups": {0: "a", 1: "b"}}, "no entry for 298 of 300 sample ids, such as 2"),
        ({"looks": "weekly"}, "looks='weekly'"),
        ({"looks": 0}, "looks=0"),
        ({"looks": True}, "looks=True"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_remedy(panel, options, words):
    with pytest.raises(ConfshiftError, match=words):
        summarize(panel.checkpoints, **options)


def test_asked_at_every_epoch_the_verdict_is_more_reluctant(panel, rise):
    often = judge(panel, looks="every epoch").rise
    assert (often["critical_value"] > rise["critical_value"]).all()
    assert (often["lower_bound"] < rise["lower_bound"]).all()


def test_a_rise_is_set_against_that_of_the_loss_and_the_fall_before_it(panel, rise):
    assert rise.loc["loss", "share_of_rise"] == 1
    refinement = rise.loc["refinement_loss"]
    assert refinement["share_of_rise"] == pytest.approx(refinement["amount"] / rise.loc["loss", "amount"])
    means = panel.loss.mean(axis=1)
    assert rise.loc["loss", "share_of_fall"] == pytest.approx(
        (means[-1] - means.min()) / (means[0] - means.min())
    )


def test_errors_are_set_against_the_loss_at_what_a_mistake_costs(panel, rise):
    row = rise.loc["error_rate"]
    costs = [
        panel.mistake[int(epoch)][~panel.correct[int(epoch)]].mean()
        for epoch in (row["best_epoch"], row["last_epoch"])
    ]
    expected = row["amount"] * np.mean(costs) / rise.loc["loss", "amount"]
    assert row["share_of_rise"] == pytest.approx(expected, rel=1e-9)


def two_class_logits(losses):
    """Logits of samples of class 1 with these losses."""
    gaps = -np.log(np.expm1(losses))
    return np.stack([np.zeros_like(gaps), gaps], axis=2), np.ones(losses.shape[1], dtype=int)


def test_what_never_fell_has_no_share_of_a_fall():
    losses = 0.05 + 0.02 * np.arange(12)[:, None] + 0.01 * np.random.default_rng(0).random((12, 200))
    row = judge(stack(checkpoints(*two_class_logits(losses)))).rise.loc["loss"]
    assert row["status"] == "systematic"
    assert row["share_of_fall"] == np.inf


def test_a_rise_of_the_refinement_that_is_tiny_beside_all_else_is_called_small(make_logits):
    logits, targets = make_logits(3000, 4, 16, churn=0.0)
    # The shape decays a little at each epoch while the scale grows fourfold; the first epoch is a guess.
    shuffled = logits[:, np.random.default_rng(0).permutation(3000)]
    decay = np.linspace(0, 0.08, 16)[:, None, None]
    mixed = (1 - decay) * logits + decay * shuffled
    mixed[0] = 0.0
    found = judge(stack(checkpoints(mixed, targets))).rise
    assert found.loc["loss", "status"] == "systematic"
    row = found.loc["refinement_loss"]
    assert row["lower_bound"] > 0
    assert max(row["share_of_rise"], row["share_of_fall"]) < 0.05
    assert (row["status"], row["verdict"]) == ("small", "yes")


def test_a_run_of_one_checkpoint_can_only_wait(panel, logits):
    found = judge(stack(checkpoints(logits[0][:1], logits[1])))
    assert (found.rise["status"] == "too_few_epochs").all()
    assert found.candidates["in_set"].all()


def test_the_order_of_samples_and_ids_does_not_matter(logits, rise):
    order = np.random.default_rng(0).permutation(300)
    shuffled = checkpoints(logits[0][:, order], logits[1][order], sample_ids=order)
    found = judge(stack(shuffled)).rise
    numbers = rise.select_dtypes("number").columns
    pd.testing.assert_frame_equal(found[numbers], rise[numbers], rtol=1e-6)


def test_a_simulated_rise_of_the_losses_is_found_through_the_logits():
    losses = np.exp(simulated_losses(400, 20, np.random.default_rng(3), rise=1.0, rise_from=6) - 2)
    found = judge(stack(checkpoints(*two_class_logits(np.clip(losses, 1e-6, 30))))).rise
    assert found.loc["loss", "status"] == "systematic"


@pytest.mark.parametrize(("rates", "status"), [((0.1, 0.01), "systematic"), ((0.1, 0.1), "within_jitter")])
def test_recorded_rates_tell_the_jitter_before_a_drop_from_that_after_it(rates, status):
    """One answer in five is wrong, so the best margin is ln 4: it wanders about, then grows past that."""
    random = np.random.default_rng(0)
    margins = np.r_[0.3, 0.6, random.uniform(0.6, 4.0, 11), np.linspace(math.log(4), 3, 24)]
    right = np.arange(1000) % 5 > 0
    run = [
        Checkpoint.from_predictions(
            Predictions(np.where(right, margin, -margin)[:, None] * [1.0, 0.0], np.zeros(1000, int)),
            epoch=epoch,
            metadata={"lr": rates[epoch >= 13]},
        )
        for epoch, margin in enumerate(margins)
    ]
    assert judge(stack(run)).rise.loc["loss", "status"] == status


def biased_run(logits, targets, *, noise):
    """Ten checkpoints: the last gives one class too much, with noise in its logits or without."""
    shift = np.r_[1.5, np.zeros(logits.shape[1] - 1)]
    last = logits + shift + noise * np.random.default_rng(0).standard_normal(logits.shape)
    steps = [0.0, *np.linspace(1.0, 1.001, 8)]
    return [
        Checkpoint.from_predictions(Predictions(scores, targets), epoch=epoch)
        for epoch, scores in enumerate([*(step * logits for step in steps), last])
    ]


@pytest.mark.parametrize(
    ("samples", "noise", "repaired"), [(2000, 0.0, True), (2000, 1.5, False), (80, 0.0, False)]
)
def test_biases_repair_the_mistakes_of_a_drift_and_no_others(samples, noise, repaired):
    """Of 80 samples they take no part, so they repair nothing."""
    random = np.random.default_rng(1)
    targets = random.integers(0, 4, samples)
    logits = 1.5 * np.eye(4)[targets] + random.standard_normal((samples, 4))
    history = summarize(biased_run(logits, targets, noise=noise))
    assert history.rise.loc["error_rate", "amount"] > 0.02
    assert history.biases_repair_errors is repaired


def test_the_upper_bound_is_held_against_the_fall_too(rise):
    fall = rise["amount"] / rise["share_of_fall"]
    known = np.isfinite(fall) & (rise["share_of_fall"] > 0)
    assert known.any()
    np.testing.assert_allclose(rise["upper_share_of_fall"][known], (rise["upper_bound"] / fall)[known])


@pytest.mark.parametrize(
    ("loss", "rest", "errors", "infinite", "series"),
    [
        ("systematic", "systematic", "systematic", 0, "loss"),
        ("flat", "systematic", "systematic", 0, "refinement_loss"),
        ("within_jitter", "setback", "systematic", 0, "refinement_loss"),
        ("small", "flat", "systematic", 0, "error_rate"),
        ("flat", "small", "within_jitter", 0, "loss"),
        ("systematic", "systematic", "systematic", 3, "error_rate"),
        ("systematic", "systematic", "flat", 3, "loss"),
    ],
)
def test_the_verdict_is_about_the_loss_unless_it_hides_what_another_series_shows(
    loss, rest, errors, infinite, series
):
    names = ["loss", "refinement_loss", "error_rate"]
    rise = pd.DataFrame({"status": [loss, rest, errors], "infinite_samples": [infinite] * 3}, index=names)
    assert leading(rise) == series
