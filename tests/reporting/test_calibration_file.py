"""A recalibration handed over: its numbers, as a torch module, in a file, and what no file may hold."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy

import confshift
from confshift.analysis.recalibrators import METHODS
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions

FITTED = METHODS[:5]


def checkpoint_of(classes=3, samples=600, *, wrong=0.0):
    """Return a model that is too sure, biased and of another scale in one class."""
    random = np.random.default_rng(0)
    logits = (6 if wrong else 2) * random.normal(size=(samples, classes))
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    if wrong:
        targets = np.where(random.random(samples) < wrong, random.integers(0, classes, samples), targets)
        return Checkpoint.from_predictions(Predictions(logits, targets), epoch=4)
    logits = 2 * (logits - logits.mean(axis=1, keepdims=True)) * np.r_[2.0, np.ones(classes - 1)]
    logits[:, 0] += 1
    return Checkpoint.from_predictions(Predictions(logits.astype(np.float32), targets), epoch=4)


@pytest.fixture(scope="module")
def checkpoint():
    return checkpoint_of()


@pytest.fixture(scope="module")
def calibrations(checkpoint):
    return {method: confshift.calibrate(checkpoint, method=method) for method in FITTED}


@pytest.fixture(scope="module")
def calibration(checkpoint):
    return confshift.calibrate(checkpoint)


def mean_loss(logits, targets):
    return float(cross_entropy(torch.as_tensor(logits), torch.as_tensor(targets)))


# --------------------------------------------------------------------------------------- what it says
def test_the_recommended_method_is_the_one_that_the_table_marks(calibration):
    assert calibration.table.index[calibration.table["recommended"]].tolist() == [calibration.method]
    assert (calibration.epoch, calibration.split, calibration.class_names) == (4, "val", ("0", "1", "2"))
    assert repr(calibration).startswith("Calibration('vector', temperature=")


def test_another_method_can_be_asked_for_and_the_table_stays(calibrations, calibration):
    for method, other in calibrations.items():
        assert other.method == method
        pd.testing.assert_frame_equal(other.table, calibration.table)


def test_a_method_that_was_not_fitted_is_refused_with_those_that_were(checkpoint):
    with pytest.raises(
        confshift.ConfshiftError, match="was not fitted; pass one of none, temperature"
    ) as error:
        confshift.calibrate(checkpoint, method="label_noise_temperature")
    last = str(error.value).rpartition(", ")[2]
    assert confshift.calibrate(checkpoint, method=last).method == last


@pytest.mark.parametrize("wrong", ["runs/first", [1], None])
def test_what_is_not_a_checkpoint_is_refused(wrong):
    with pytest.raises(
        confshift.ConfshiftError, match=r"checkpoint is a .*: pass one checkpoint, run\[epoch\]"
    ):
        confshift.calibrate(wrong)


# --------------------------------------------------------------------- the table's numbers are the module's
@pytest.mark.parametrize("method", FITTED)
def test_the_module_has_the_loss_of_the_table_on_the_samples_it_was_fitted_to(
    checkpoint, calibrations, method
):
    logits, targets = checkpoint.scored_logits
    found = calibrations[method]
    with torch.no_grad():
        by_module = found.module()(torch.from_numpy(logits))
    assert by_module.dtype == torch.float32
    np.testing.assert_allclose(by_module, found.apply(logits), atol=1e-5)
    fitted = found.table.loc[method, "fitted_loss"]
    assert mean_loss(by_module.double(), targets) == pytest.approx(fitted, abs=1e-6)
    assert mean_loss(found.apply(logits), targets) == pytest.approx(fitted, abs=1e-12)


def test_the_module_of_the_label_noise_fit_divides_by_its_temperature():
    checkpoint = checkpoint_of(wrong=0.3)
    found = confshift.calibrate(checkpoint)
    assert found.method == "label_noise_temperature"
    logits, targets = checkpoint.scored_logits
    scores = found.module()(torch.from_numpy(logits))
    assert mean_loss(scores, targets) == pytest.approx(found.table.loc[found.method, "fitted_loss"], abs=1e-6)
    # What is expected of other samples: the same for one parameter, within what five folds differ by.
    assert found.table.loc[found.method, "expected_loss"] == pytest.approx(
        found.table.loc[found.method, "fitted_loss"], abs=0.01
    )


def test_expected_losses_are_of_samples_left_out_so_a_richer_fit_looks_worse_than_its_own_samples(
    calibrations,
):
    table = calibrations["vector"].table.loc[list(FITTED)]
    assert (table["expected_loss"].iloc[1:] > table["fitted_loss"].iloc[1:]).all()
    assert table.loc["none", "expected_loss"] == pytest.approx(table.loc["none", "fitted_loss"], abs=1e-12)
    # The ridge of the matrix pulls to the temperature, that of the scales to temperature and biases.
    assert table["fitted_loss"].iloc[:4].is_monotonic_decreasing
    assert table.loc["matrix", "fitted_loss"] < table.loc["temperature", "fitted_loss"]


# ------------------------------------------------------------------------------------------ apply, module
@pytest.mark.parametrize("method", FITTED)
@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 4, 3), (0, 3)])
def test_logits_of_any_shape_are_mapped_row_by_row(calibrations, method, shape):
    found = calibrations[method]
    logits = np.random.default_rng(1).normal(size=shape)
    rows = logits.reshape(-1, 3)
    expected = np.array([found.apply(row) for row in rows]).reshape(shape)
    np.testing.assert_allclose(found.apply(logits), expected, atol=1e-12)
    by_module = found.module()(torch.from_numpy(logits))
    assert by_module.dtype == torch.float64
    np.testing.assert_allclose(by_module, expected, atol=1e-6)


@pytest.mark.parametrize("logits", [np.zeros(2), np.zeros((4, 2)), 1.0, ["a", "b", "c"], np.zeros((3, 1))])
def test_logits_of_other_classes_are_refused(calibration, logits):
    with pytest.raises(confshift.ConfshiftError, match="pass numbers with the 3 classes along the last axis"):
        calibration.apply(logits)


@pytest.mark.parametrize("method", FITTED)
def test_masked_classes_stay_masked_and_rows_without_an_answer_stay_so(calibrations, method):
    logits = np.array([[1.0, -np.inf, 2.0], [1.0, np.nan, 0.0]])
    found = calibrations[method]
    for scores in (found.apply(logits), found.module()(torch.from_numpy(logits)).numpy()):
        assert np.isneginf(scores[0, 1])
        assert np.isfinite(scores[0, [0, 2]]).all()
        assert np.isnan(scores[1]).any()
        np.testing.assert_allclose(scores, found.apply(logits), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_in_single_precision_with_no_further_rounding(calibrations, dtype):
    for found in calibrations.values():
        logits = torch.linspace(-9, 9, 12).reshape(4, 3).to(dtype)
        scores = found.module()(logits)
        assert scores.dtype == torch.float32
        np.testing.assert_allclose(scores, found.apply(logits.double().numpy()), atol=1e-5)
        rounded = found.module().to(dtype)(logits)
        assert rounded.dtype == torch.float32
        np.testing.assert_allclose(rounded, scores, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("method", ["vector", "matrix"])
def test_the_module_is_a_part_of_its_model(calibrations, method):
    """It is saved with it, copied and pickled, and gradients pass through it."""
    found = calibrations[method]
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), found.module())
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    expected = model(inputs).detach()
    fresh = torch.nn.Sequential(torch.nn.Linear(4, 3), found.module())
    fresh[1].biases.zero_()
    fresh.load_state_dict(model.state_dict())
    for other in (fresh, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(inputs), expected)
    model(inputs).sum().backward()
    assert model[0].weight.grad.abs().sum() > 0
    assert not list(found.module().parameters())


def test_a_masked_class_counts_as_the_mean_of_the_others_in_a_matrix(calibrations):
    found = calibrations["matrix"]
    scores = found.apply([1.0, -np.inf, 3.0])
    weights = np.array(found.matrix) / found.temperature
    expected = weights @ [-1.0, 0.0, 1.0] + found.biases
    np.testing.assert_allclose(scores[[0, 2]], expected[[0, 2]], atol=1e-12)


# ------------------------------------------------------------------------------------------------ the file
@pytest.mark.parametrize("method", FITTED)
def test_a_file_gives_back_what_was_saved(calibrations, method, tmp_path):
    saved = calibrations[method]
    saved.save(tmp_path / "calibration.json")
    loaded = confshift.Calibration.load(tmp_path / "calibration.json")
    for name in ("method", "temperature", "biases", "scales", "matrix", "class_names", "epoch", "split"):
        assert getattr(loaded, name) == getattr(saved, name)
    finite = saved.table.replace(np.inf, np.nan)
    pd.testing.assert_frame_equal(loaded.table, finite)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "calibration.json").read_bytes()


def test_a_file_of_the_first_schema_which_knew_no_matrix_is_read(calibrations, tmp_path):
    calibrations["vector"].save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    del content["matrix"]
    content["table"] = [row for row in content["table"] if row["method"] != "matrix"]
    (tmp_path / "c.json").write_text(json.dumps({**content, "confshift_calibration": 1}))
    loaded = confshift.Calibration.load(tmp_path / "c.json")
    assert (loaded.method, loaded.scales) == ("vector", calibrations["vector"].scales)
    assert loaded.matrix == ()
    assert loaded.table.loc["matrix", "reason"] == "was not tried"
    loaded.save(tmp_path / "again.json")
    again = confshift.Calibration.load(tmp_path / "again.json")
    pd.testing.assert_frame_equal(again.table, loaded.table)


def test_names_and_an_epoch_that_is_unknown_survive(tmp_path):
    names = ['a"b', "</script>", "猫"]
    predictions = Predictions(2 * np.eye(3)[np.arange(60) % 3], np.arange(60) % 3, class_names=names)
    saved = confshift.calibrate(Checkpoint.from_predictions(predictions))
    saved.save(str(tmp_path / "c.json"))
    loaded = confshift.Calibration.load(str(tmp_path / "c.json"))
    assert loaded.class_names == tuple(names)
    assert np.isnan(loaded.epoch)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"confshift_calibration": 3}, "its schema is 3, and this confshift reads up to 2"),
        ({"confshift_calibration": True}, "its schema is True"),
        ({"method": "isotonic"}, "method='isotonic' is not one of none, temperature"),
        ({"method": ["none"]}, "is not one of none"),
        ({"temperature": 0.0}, "its temperature is not above 0"),
        ({"temperature": -2.0}, "its temperature is not above 0"),
        ({"temperature": None}, "temperature=None is not a finite number"),
        ({"temperature": "2"}, "temperature='2' is not a finite number"),
        ({"temperature": True}, "temperature=True is not a finite number"),
        ({"temperature": 10**400}, "too large"),
        ({"temperature": float("nan")}, "NaN is not a finite number"),
        ({"temperature": float("inf")}, "Infinity is not a finite number"),
        ({"biases": [0.1, 0.2]}, "biases are not 3 numbers, one for each class name"),
        ({"biases": 0.1}, "biases are not 3 numbers"),
        ({"biases": [0.1, 0.2, "x"]}, "biases='x' is not a finite number"),
        ({"scales": [1.0, 1.0, -1.0]}, "a scale is below 0"),
        ({"matrix": [[1.0] * 3] * 2}, "matrix does not have 3 rows, one for each class name, or none"),
        ({"matrix": [[1.0] * 2] * 3}, "rows of matrix are not 3 numbers"),
        ({"matrix": [[1.0, 0.0, None]] * 3}, "rows of matrix=None is not a finite number"),
        ({"matrix": [[1.0] * 3] * 3}, "its numbers are not those of method 'vector'"),
        ({"method": "matrix", "scales": [1.0] * 3}, "it has no matrix"),
        ({"method": "temperature"}, "its numbers are not those of method 'temperature'"),
        ({"method": "none", "biases": [0.0] * 3, "scales": [1.0] * 3}, "not those of method 'none'"),
        ({"class_names": ["a"]}, "class_names are not two texts or more"),
        ({"class_names": "abc"}, "class_names are not two texts or more"),
        ({"epoch": "last"}, "epoch='last' is not a finite number"),
        ({"split": 3}, "split=3 is not text"),
        ({"table": []}, "its table does not have one row for each method"),
        ({"table": "none"}, "its table does not have one row for each method"),
        ({"table": [{"method": method} for method in METHODS]}, "it lacks 'rival'"),
    ],
)
def test_a_file_with_impossible_values_is_refused_with_the_reason(calibrations, tmp_path, change, reason):
    path = tmp_path / "c.json"
    calibrations["vector"].save(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(confshift.ConfshiftError) as error:
        confshift.Calibration.load(path)
    assert reason in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe\x00", "is not a calibration"),
        (b"[]", "it has no key 'confshift_calibration'"),
        (b'{"schema": 1}', "it has no key 'confshift_calibration'"),
        (b'{"confshift_calibration": 1}', "it lacks 'class_names'"),
        (b'{"confshift_calibration": 1, "confshift_calibration": 1}', "a key occurs twice"),
        (b"[" * 100_000, "is not a calibration"),
        (b" " * ((1 << 24) + 1), "it has more than 16777216 bytes"),
    ],
    ids=["empty", "no text", "a list", "another document", "no fields", "a key twice", "deep", "huge"],
)
def test_a_hostile_file_is_refused_in_one_way(tmp_path, raw, reason):
    path = tmp_path / "c.json"
    path.write_bytes(raw)
    with pytest.raises(confshift.ConfshiftError) as error:
        confshift.Calibration.load(path)
    assert reason in str(error.value)
    assert "confshift.calibrate(checkpoint).save(path)" in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(confshift.ConfshiftError, match="is missing"):
        confshift.Calibration.load(tmp_path / "none.json")
    with pytest.raises(confshift.ConfshiftError, match="is a folder"):
        confshift.Calibration.load(tmp_path)


def test_a_file_that_cannot_be_written_says_so(calibration, tmp_path):
    with pytest.raises(confshift.ConfshiftError, match="can't be written"):
        calibration.save(tmp_path / "no" / "c.json")


# ------------------------------------------------------------------------------------- what can't be read
def test_without_logits_the_stored_columns_still_choose_and_the_table_says_what_is_unknown(tmp_path):
    whole = checkpoint_of()
    run = confshift.Run(tmp_path / "run")
    run.append(whole.predictions, epoch=4)
    run.flush()
    damaged = [path for path in Path(tmp_path / "run").rglob("*") if "logits" in path.name]
    assert damaged
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    found = confshift.calibrate(confshift.Run(tmp_path / "run")[4])
    assert found.method == "temperature_and_biases"
    assert found.biases == confshift.calibrate(whole, method=found.method).biases
    for method in ("vector", "matrix"):
        assert "the logits can't be used" in found.table.loc[method, "reason"]
    assert "whether labels look wrong is not known" in found.table.loc["label_noise_temperature", "reason"]
    assert found.table["fitted_loss"].isna().all()
