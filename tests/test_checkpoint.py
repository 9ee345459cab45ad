"""A checkpoint's columns and metrics, against plain formulas and scikit-learn."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from confshift.checkpoint import Checkpoint, Provenance
from confshift.measurement import MEASURED, Measurement, measure
from confshift.predictions import Predictions
from confshift.scoring import score

COLUMNS = [
    *("target", "predicted", "correct", "loss", "hedge", "mistake", "confidence", "margin", "tied"),
    *("calibration_loss", "refinement_loss", "answered", "finite", "scale_loss", "balance_loss"),
]
METRICS = [
    *("loss", "finite_loss", "accuracy", "confidence", "hedge", "error_rate", "mistake_cost", "temperature"),
    *("joint_temperature", "calibration_loss", "scale_loss", "balance_loss", "refinement_loss"),
    *("samples", "nonfinite_samples", "unanswered_samples"),
]


@pytest.fixture
def checkpoint(make_logits):
    logits, targets = make_logits(400, 5, 2)
    ids = np.random.default_rng(1).permutation(1000)[:400]
    return Checkpoint.from_predictions(Predictions(logits[1], targets, sample_ids=ids), epoch=3)


def test_columns_are_one_row_per_sample_indexed_by_its_id(checkpoint):
    frame, p = checkpoint.columns, checkpoint.predictions
    assert list(frame.columns) == COLUMNS
    assert frame.index.name == "sample_id"
    assert frame.index.tolist() == p.sample_ids.tolist()
    assert frame["target"].tolist() == p.targets.tolist()
    assert frame["finite"].all()
    np.testing.assert_array_equal(frame["predicted"], p.logits.argmax(axis=1))
    np.testing.assert_array_equal(frame["correct"], frame["predicted"] == frame["target"])
    np.testing.assert_allclose(frame["confidence"], softmax(p.logits, axis=1).max(axis=1), rtol=1e-13)


def test_loss_is_hedge_plus_mistake_and_calibration_plus_refinement(checkpoint):
    frame = checkpoint.columns
    np.testing.assert_array_equal(frame["loss"], frame["hedge"] + frame["mistake"])
    np.testing.assert_allclose(
        frame["loss"], frame["calibration_loss"] + frame["refinement_loss"], atol=1e-15
    )


def test_metrics_are_those_of_scikit_learn_and_flat_floats(checkpoint):
    metrics, p = checkpoint.metrics(), checkpoint.predictions
    assert list(metrics) == METRICS
    assert all(type(value) is float for value in metrics.values())
    probabilities = softmax(p.logits, axis=1)
    assert metrics["loss"] == pytest.approx(log_loss(p.targets, probabilities), rel=1e-12)
    assert metrics["accuracy"] == accuracy_score(p.targets, probabilities.argmax(axis=1))
    assert metrics["samples"] == 400
    assert metrics["nonfinite_samples"] == 0


def test_metrics_satisfy_the_identities_of_the_mean_loss(checkpoint):
    m = checkpoint.metrics()
    assert m["loss"] == pytest.approx(m["hedge"] + m["error_rate"] * m["mistake_cost"], rel=1e-13)
    assert m["loss"] == pytest.approx(m["calibration_loss"] + m["refinement_loss"], rel=1e-13)
    assert m["error_rate"] == pytest.approx(1 - m["accuracy"], abs=1e-15)
    assert m["temperature"] == checkpoint.temperature


def test_a_run_that_grows_surer_loses_calibration_only(make_logits):
    logits, targets = make_logits(1000, 4, 4)
    run = [Checkpoint.from_predictions(Predictions(z, targets)).metrics() for z in logits]
    by_name = {name: np.array([metrics[name] for metrics in run]) for name in METRICS}
    assert (np.diff(by_name["loss"]) > 0.02).all()
    assert len(set(by_name["accuracy"])) == 1
    np.testing.assert_allclose(by_name["refinement_loss"], by_name["refinement_loss"][0], rtol=3e-7)
    np.testing.assert_allclose(np.diff(by_name["calibration_loss"]), np.diff(by_name["loss"]), rtol=1e-6)
    assert (np.diff(by_name["hedge"]) < 0).all()
    assert (np.diff(by_name["mistake_cost"]) > 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([2, 3, 40]))
def test_the_order_of_rows_changes_nothing_where_ids_are_given(seed, count, classes):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 3, (count, classes)), rng.integers(0, classes, count)
    order = rng.permutation(count)
    one, other = (
        Checkpoint.from_predictions(Predictions(logits[rows], targets[rows], sample_ids=rows))
        for rows in (np.arange(count), order)
    )
    assert one.columns.equals(other.columns)
    assert one.metrics() == pytest.approx(other.metrics(), nan_ok=True, rel=0)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_single_precision_logits_are_scored_in_double(make_logits, dtype):
    logits, targets = make_logits(300, 5, 1)
    z = logits[0].astype(dtype)
    one, exact = (Checkpoint.from_predictions(Predictions(x, targets)) for x in (z, z.astype(np.float64)))
    for name in ("loss", "hedge", "mistake", "confidence", "margin"):
        np.testing.assert_array_equal(one.columns[name], exact.columns[name])
    np.testing.assert_allclose(one.columns["refinement_loss"], exact.columns["refinement_loss"], atol=1e-5)
    assert one.temperature == pytest.approx(exact.temperature, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("spoiled", [[np.nan, 0, 0], [np.inf, 0, 0], [0, np.inf, 1], [-np.inf] * 3])
def test_rows_without_an_answer_are_counted_and_left_out_of_every_mean(make_logits, spoiled, dtype):
    logits, targets = make_logits(50, 3, 1)
    z = logits[0].astype(dtype)
    z[[4, 9]], targets[[4, 9]] = spoiled, 0
    rest = np.setdiff1d(np.arange(50), [4, 9])
    checkpoint = Checkpoint.from_predictions(Predictions(z, targets))
    without = Checkpoint.from_predictions(Predictions(z[rest], targets[rest]))
    for kind in ("finite", "answered"):
        assert checkpoint.columns.index[~checkpoint.columns[kind]].tolist() == [4, 9]
    counts = {"nonfinite_samples": 2, "unanswered_samples": 2}
    assert checkpoint.metrics() == pytest.approx(without.metrics() | counts, rel=1e-12, nan_ok=True)
    assert len(checkpoint) == 50


def test_a_probability_of_zero_at_the_true_class_is_counted_not_clipped():
    p = Predictions.from_probabilities([[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]], [1, 1, 0])
    checkpoint = Checkpoint.from_predictions(p)
    metrics = checkpoint.metrics()
    assert checkpoint.columns["loss"][0] == checkpoint.loss == metrics["loss"] == np.inf
    assert metrics["refinement_loss"] == metrics["mistake_cost"] == np.inf  # no temperature repairs it
    assert (metrics["nonfinite_samples"], metrics["unanswered_samples"]) == (1, 0)
    assert checkpoint.finite_loss == metrics["finite_loss"]
    assert checkpoint.finite_loss == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)
    assert checkpoint.accuracy == pytest.approx(2 / 3)  # the first is a wrong answer, not a missing one


def test_where_no_row_can_be_scored_the_means_are_nan_and_all_rows_are_counted():
    checkpoint = Checkpoint.from_predictions(Predictions(np.full((3, 2), np.nan), [0, 1, 0]))
    metrics = checkpoint.metrics()
    assert math.isnan(metrics["loss"])
    assert math.isnan(metrics["error_rate"])
    assert math.isnan(metrics["temperature"])
    assert checkpoint.fit_status == "unscored"
    assert (metrics["samples"], metrics["nonfinite_samples"], metrics["unanswered_samples"]) == (0, 3, 3)


def test_where_every_true_class_has_a_probability_of_zero_there_is_an_accuracy_and_no_temperature():
    checkpoint = Checkpoint.from_predictions(Predictions.from_probabilities([[1.0, 0.0], [0.0, 1.0]], [1, 0]))
    metrics = checkpoint.metrics()
    assert (metrics["loss"], metrics["accuracy"], metrics["nonfinite_samples"]) == (math.inf, 0, 2)
    assert math.isnan(metrics["finite_loss"])
    assert math.isnan(metrics["temperature"])


@pytest.mark.parametrize(
    ("logits", "status"),
    [
        ([[3.0, 0.0], [0.0, 1.0]], "separable"),
        ([[0.0, 3.0], [1.0, 0.0]], "uniform"),
        ([[3, 0], [1, 0]], "ok"),
    ],
)
def test_the_fit_says_where_it_ended(logits, status):
    checkpoint = Checkpoint.from_predictions(Predictions(logits, [0, 1]))
    assert checkpoint.fit_status == status
    assert (checkpoint.temperature == math.inf) == (status == "uniform")
    metrics = checkpoint.metrics()
    assert math.isnan(metrics["mistake_cost"]) == (status == "separable")  # no wrong sample has no cost
    assert metrics["loss"] == pytest.approx(
        metrics["calibration_loss"] + metrics["refinement_loss"], rel=1e-12
    )


def test_a_single_sample_has_metrics():
    metrics = Checkpoint.from_predictions(Predictions([[1.0, 0.0, 2.0]], [0])).metrics()
    assert metrics["samples"] == 1
    assert metrics["loss"] == pytest.approx(np.log(1 + np.exp(1) + np.exp(-1)))
    assert metrics["accuracy"] == 0


def test_what_is_stored_of_a_sample_is_frozen():
    # A stored format: run folders hold it.
    assert MEASURED.names[:6] == ("target", "predicted", "hedge", "mistake", "confidence", "margin")
    assert MEASURED.names[6:] == ("tied", "curve_loss", "curve_slope", "curve_curvature")
    assert [MEASURED[name].str for name in MEASURED.names] == [
        "<i4",
        "<i4",
        *["<f8"] * 4,
        "|b1",
        *["<f8"] * 3,
    ]
    assert MEASURED.itemsize == 65


def test_scores_made_in_an_earlier_pass_are_used(make_logits):
    logits, targets = make_logits(40, 3, 1)
    p = Predictions(logits[0], targets)
    scores = score(p.logits, p.targets)
    one, other = measure(p), measure(p, scores)
    assert one.rows.tobytes() == other.rows.tobytes()
    assert one.beta == other.beta
    scores.hedge[0] = 99.0
    assert measure(p, scores).rows["hedge"][0] == 99.0


def test_data_is_read_only_when_asked_for_and_columns_once(make_logits):
    logits, targets = make_logits(40, 3, 1)
    p = Predictions(logits[0], targets)
    asked = []

    def read_measurement() -> Measurement:
        asked.append("measurement")
        return measure(p)

    def read_predictions() -> Predictions:
        asked.append("predictions")
        return p

    checkpoint = Checkpoint(2, "val", p.class_names, read_measurement, read_predictions)
    assert repr(checkpoint) == "Checkpoint(epoch=2, split='val', 3 classes)"
    assert asked == []
    for _ in range(2):
        assert len(checkpoint) == 40
        checkpoint.metrics()
        assert checkpoint.columns is checkpoint.columns
    assert asked == ["measurement"]
    assert checkpoint.predictions is p
    assert asked == ["measurement", "predictions"]


def test_a_checkpoint_in_memory_carries_what_its_predictions_knew():
    p = Predictions(
        np.array([[3, 0], [3, 0], [0, 1], [2, 2]], np.float16),
        [0, 0, 1, -100],
        sample_ids=["a", "a", "b", "c"],
        class_names=["x", "y"],
    )
    checkpoint = Checkpoint.from_predictions(p, epoch=1.5, split="train", metadata={"lr": 0.1})
    assert checkpoint.provenance == Provenance("user", 1, 1, "float16")
    assert (checkpoint.epoch, checkpoint.split, checkpoint.class_names) == (1.5, "train", ("x", "y"))
    assert checkpoint.metadata == {"lr": 0.1}
    with pytest.raises(FrozenInstanceError):
        checkpoint.epoch = 2
    with pytest.raises(TypeError):
        checkpoint.metadata["lr"] = 1


def test_metrics_leave_no_columns_in_memory(checkpoint):
    checkpoint.metrics()
    assert "columns" not in vars(checkpoint)
