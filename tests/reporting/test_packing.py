"""What is packed can be unpacked: nearly every digit of a loss, every predicted class, every pair."""

from __future__ import annotations

import base64
import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting import page_data


def unpack(text, dtype):
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), dtype)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=1), st.sampled_from(["<f4", ">f4", "<f8"]))
def test_an_array_comes_back_as_it_was_whatever_its_byte_order(values, dtype):
    array = np.array(values, dtype)
    assert unpack(page_data.pack(array), np.dtype(dtype).newbyteorder("<")).tolist() == array.tolist()


def test_the_same_array_is_packed_the_same_way():
    array = np.arange(1000)
    assert page_data.pack(array) == page_data.pack(array.copy())


@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0])
def test_losses_keep_three_digits_and_small_ones_their_size(make_run, scale):
    logits = make_run(200, 5, 1)[0].predictions.logits * scale
    panel = stack([Checkpoint.from_predictions(Predictions(logits, np.arange(200) % 5), epoch=0)])
    text, span = page_data.pack_losses(panel.loss)
    codes = unpack(text, "<u2")
    losses = page_data.LOSS_FLOOR * np.expm1(codes / 65534 * span)
    np.testing.assert_allclose(losses, panel.loss[0], rtol=3e-4, atol=2e-7)


def test_losses_of_zero_are_packed_without_a_division_by_zero():
    panel = stack([Checkpoint.from_predictions(Predictions([[800.0, 0.0], [0.0, 800.0]], [0, 1]), epoch=0)])
    text, span = page_data.pack_losses(panel.loss)
    assert span == 1
    assert unpack(text, "<u2").tolist() == [0, 0]


def test_a_loss_that_is_no_number_has_the_largest_code(make_run):
    logits = make_run(20, 3, 1)[0].predictions.logits.copy()
    logits[4] = np.nan
    panel = stack([Checkpoint.from_predictions(Predictions(logits, np.zeros(20, int)), epoch=0)])
    text, _ = page_data.pack_losses(panel.loss)
    assert np.flatnonzero(unpack(text, "<u2") == 65535).tolist() == [4]
    text, bits = page_data.pack_predicted(panel.predicted, len(panel.class_names))
    assert bits == 8
    assert np.flatnonzero(unpack(text, "<u1") == 255).tolist() == [4]


@pytest.mark.parametrize(("classes", "bits"), [(2, 8), (255, 8), (256, 16), (300, 16)])
def test_predicted_classes_take_as_many_bits_as_they_need(make_run, classes, bits):
    panel = stack(make_run(30, classes, 2))
    text, given_bits = page_data.pack_predicted(panel.predicted, len(panel.class_names))
    assert given_bits == bits
    assert unpack(text, f"<u{bits // 8}").reshape(2, 30).tolist() == panel.predicted.tolist()


def test_every_pair_holds_the_cells_of_compare(make_run):
    history = summarize(make_run(150, 3, 4))
    contributions, samples = page_data.pack_pairs(history.main)
    contributions = unpack(contributions, "<f4").reshape(12, 6)
    samples = unpack(samples, "<u4").reshape(12, 6)
    checkpoints = history.main.checkpoints
    pairs = [(before, after) for before in range(4) for after in range(before + 1, 4)]
    for place, (before, after) in enumerate(pairs):
        cells = compare(checkpoints[before], checkpoints[after]).cells
        np.testing.assert_allclose(contributions[:, place], cells["contribution"], rtol=1e-6, atol=1e-9)
        assert samples[:, place].tolist() == cells["samples"].tolist()


def test_one_checkpoint_has_no_pair(make_run):
    contributions, samples = page_data.pack_pairs(stack(make_run(checkpoints=1)))
    assert not len(unpack(contributions, "<f4"))
    assert not len(unpack(samples, "<u4"))


def test_all_samples_are_kept_while_they_fit():
    chosen = page_data.select_samples(np.arange(10.0), limit=10)
    assert chosen.positions.tolist() == list(range(10))
    assert chosen.weights.tolist() == [1.0] * 10


@given(st.integers(2, 400), st.integers(0, 5))
def test_a_subset_keeps_the_largest_changes_and_stands_for_all(limit, seed):
    changes = np.random.default_rng(seed).normal(size=1000)
    changes[3] = np.nan
    chosen = page_data.select_samples(changes, limit=limit)
    movers = min(500, limit // 2)
    largest = np.argsort(-np.abs(np.nan_to_num(changes)))[:movers]
    assert len(chosen.positions) == len(set(chosen.positions)) == limit
    assert set(largest) <= set(chosen.positions)
    assert (np.diff(chosen.positions) > 0).all()
    assert chosen.weights.sum() == pytest.approx(1000)
    assert set(chosen.weights[np.isin(chosen.positions, largest)]) <= {1.0}


def test_the_means_of_subsets_are_right_on_average():
    changes = np.random.default_rng(0).standard_cauchy(2000)
    means = []
    for seed in range(300):
        chosen = page_data.select_samples(changes, limit=600, seed=seed)
        means.append((changes[chosen.positions] * chosen.weights).sum() / 2000)
    spread = np.std(means) / np.sqrt(len(means))
    assert np.mean(means) == pytest.approx(changes.mean(), abs=4 * spread)
