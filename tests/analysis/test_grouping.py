"""Samples that err together: every standard error counts groups where they are given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis.causes.baseline import label_order
from confshift.analysis.causes.label_noise import label_noise_floor
from confshift.analysis.comparison import compare
from confshift.analysis.grouping import mean_error
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.measuring import train_gap
from confshift.predictions import Predictions

COPIES = 4


def run_of(copies, *, splits=("val",)):
    """Return a model that grows too sure and shifts to one class, each sample `copies` times."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(400, 4))
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    worse = logits + random.normal(size=logits.shape)
    return [
        Checkpoint.from_predictions(
            Predictions(np.repeat(changed, copies, axis=0), np.repeat(targets, copies)), epoch=t, split=split
        )
        for t, changed in enumerate((1.4 * logits, 1.5 * logits + [0.5, 0, 0, 0], 2 * worse + [1.5, 0, 0, 0]))
        for split in splits
    ]


GROUPS = np.repeat(np.arange(400), COPIES)


@pytest.fixture(scope="module")
def single():
    return summarize(run_of(1))


@pytest.fixture(scope="module")
def copied():
    return summarize(run_of(COPIES), groups=GROUPS)


def errors_in(table):
    return [name for name in table.columns if name.endswith("_se")]


@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 5)), min_size=2, max_size=40))
def test_an_error_by_groups_is_that_of_the_totals_about_the_mean(pairs):
    values, codes = (np.array(column) for column in zip(*pairs, strict=True))
    totals = [np.sum(values[codes == code] - values.mean()) for code in np.unique(codes)]
    number = len(totals)
    expected = (number / max(number - 1, 1) * np.sum(np.square(totals))) ** 0.5 / len(values)
    found = mean_error(values, codes)
    assert np.isnan(found) if number < 2 else found == pytest.approx(expected, abs=1e-9)
    alone = np.arange(len(values))
    assert mean_error(values, alone) == pytest.approx(mean_error(values), abs=1e-12)


def test_every_error_of_a_checkpoint_is_that_of_the_samples_without_their_copies(single, copied):
    names = errors_in(single.table)
    assert len(names) == 11
    for name in names:
        np.testing.assert_allclose(copied.table[name], single.table[name], rtol=0.1, err_msg=name)
    assert copied.table["units"].tolist() == single.table["units"].tolist() == [400] * 3
    assert summarize(run_of(COPIES)).table["units"].tolist() == [1600] * 3


def test_the_errors_of_the_best_and_of_the_cells_are_those_without_copies(single, copied):
    names = errors_in(single.best)
    np.testing.assert_allclose(copied.best[names], single.best[names], rtol=0.1)
    np.testing.assert_allclose(
        copied.cells["contribution_se"], single.cells["contribution_se"], rtol=0.01, atol=1e-12
    )


def test_the_errors_of_a_pair_are_those_without_copies():
    ends = [compare(*run_of(1)[::2]), compare(*run_of(COPIES)[::2], groups=GROUPS)]
    one, other = (pair.cells["contribution_se"] for pair in ends)
    np.testing.assert_allclose(other, one, rtol=0.01, atol=1e-12)
    one, other = (pair.balance["gain_se"] for pair in ends)
    np.testing.assert_allclose(other, one, rtol=0.1)
    one, other = (pair.change["change_se"].dropna() for pair in ends)
    np.testing.assert_allclose(other, one, rtol=0.1)


def test_cells_by_groups_of_one_sample_each_are_those_of_samples():
    ends = run_of(1)[::2]
    plain, alone = compare(*ends), compare(*ends, groups=np.arange(400))
    for name in ("contribution", "contribution_se"):
        np.testing.assert_allclose(alone.cells[name], plain.cells[name], rtol=1e-9, atol=1e-12)


def test_the_error_of_renamed_outputs_and_of_the_best_constant_are_those_without_copies(single, copied):
    assert copied.constant_error == pytest.approx(single.constant_error, rel=0.01)
    random = np.random.default_rng(1)
    targets = random.integers(0, 4, 400)
    predicted = np.where(random.random(400) < 0.6, (targets + 1) % 4, targets)
    plain = label_order(predicted, targets, 4)
    copies = label_order(np.repeat(predicted, COPIES), np.repeat(targets, COPIES), 4, GROUPS)
    assert copies.gain_se == pytest.approx(plain.gain_se, rel=0.01)
    assert copies.matched_accuracy == plain.matched_accuracy  # no copy names its own half


def test_the_errors_of_the_label_noise_fit_are_those_without_copies():
    random = np.random.default_rng(2)
    logits = 6 * random.normal(size=(600, 4))
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    targets = np.where(random.random(600) < 0.15, random.integers(0, 4, 600), targets)
    plain = label_noise_floor(logits, targets)
    logits, targets = np.repeat(logits, COPIES, axis=0), np.repeat(targets, COPIES)
    found = label_noise_floor(logits, targets, codes=np.repeat(np.arange(600), COPIES))
    for name in ("floor_se", "wrong_labels_se", "gain_se", "temperature_gain_se"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name), rel=0.1), name
    alone = label_noise_floor(logits, targets)
    assert alone.floor_se == pytest.approx(found.floor_se / 2, rel=0.1)


def test_class_balance_is_a_share_of_the_rise_only_beyond_the_error_of_groups(single, copied):
    assert copied.balance_share == pytest.approx(single.balance_share, rel=0.1)
    before, after = single.main.balance[[0, 2]]
    alike = np.argsort(np.argsort(after - before)) // 80  # five groups, of samples that change alike
    assert single.balance_share > 0
    assert summarize(run_of(1), groups=alike).balance_share == 0.0


def test_groups_of_another_split_count_where_a_mapping_names_its_samples():
    runs = run_of(COPIES, splits=("val", "train"))
    ids = runs[0].columns.index
    by_id = summarize(runs, groups=dict(zip(ids, GROUPS, strict=True))).table
    assert by_id["units"].tolist() == [400] * 6
    in_order = summarize(runs, groups=GROUPS)
    assert in_order.table["units"].tolist() == [400] * 3 + [1600] * 3
    assert "without groups in train" in train_gap(in_order).details
    for history in (summarize(runs), summarize(runs, groups=dict(zip(ids, GROUPS, strict=True)))):
        assert "without groups" not in train_gap(history).sentence
