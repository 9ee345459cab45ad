"""Samples that err together: every standard error counts groups where they are given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis.calibration import calibrated_accuracy
from confshift.analysis.causes.baseline import label_order
from confshift.analysis.causes.label_noise import label_noise_floor
from confshift.analysis.comparison import compare
from confshift.analysis.grouping import folds_of, key_of, mean_error
from confshift.analysis.history import summarize
from confshift.analysis.recalibrators import choose, table_of
from confshift.analysis.significance import paired_interval
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.measuring import train_gap
from confshift.predictions import Predictions

COPIES = 4


def run_of(copies, *, splits=("val",), groups=None):
    """Return a model that grows too sure and shifts to one class, each sample `copies` times."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(400, 4))
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    worse = logits + random.normal(size=logits.shape)
    return [
        Checkpoint.from_predictions(
            Predictions(np.repeat(changed, copies, axis=0), np.repeat(targets, copies), groups=groups),
            epoch=t,
            split=split,
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


def test_what_calibration_leaves_to_chance_is_that_of_the_samples_without_their_copies(single, copied):
    """Confidence is compared with accuracy: by 15 bins, by cumulative sums, in a diagram, class by class."""
    for name in ("ece", "ece_null", "ecce", "ecce_p"):
        np.testing.assert_allclose(copied.table[name], single.table[name], rtol=0.02, atol=1e-3)
    bins = [one.reliability.query("binning == 'equal_width'") for one in (copied, single)]
    full = bins[1]["samples"] >= 20  # fewer groups widen the interval, as Student's quantile does
    for name in ("accuracy_low", "accuracy_high"):
        np.testing.assert_allclose(*(one[name][full] for one in bins), atol=0.02)
    pair = compare(*copied.pair, groups=GROUPS)
    plain = compare(*single.pair)
    assert pair.class_bias.statistic == pytest.approx(plain.class_bias.statistic, rel=0.02)
    np.testing.assert_allclose(pair.class_bias.classes, plain.class_bias.classes, rtol=0.02, atol=1e-9)
    widths = [(band["high"] - band["low"]).mean() for band in (pair.reliability_band, plain.reliability_band)]
    assert widths[0] == pytest.approx(widths[1], rel=0.15)


def test_the_gain_of_a_recalibration_is_that_of_the_samples_without_their_copies(single, copied):
    tables = [
        table_of(choose(one.main.checkpoints[-1], codes=one.main.codes), one.main.checkpoints[-1])
        for one in (copied, single)
    ]
    for name in ("gain_se", "lead_se"):
        np.testing.assert_allclose(*(table[name][:4] for table in tables), rtol=0.1)
    for criterion, row in copied.best.iterrows():
        checkpoint = copied.main.checkpoint_at(row["epoch"])
        by_group = calibrated_accuracy(checkpoint, copied.main.codes)
        assert row["calibrated_accuracy"] == by_group.value, criterion
    # Beside its copies no sample is left out: without groups the matrix, with the most numbers, gains more.
    rows = table_of(choose(copied.main.checkpoints[-1]), copied.main.checkpoints[-1])
    gains = [table.loc["matrix", "gain"] for table in (*tables, rows)]
    assert gains[0] == pytest.approx(gains[1], abs=0.01)
    assert gains[2] > gains[0] + 0.01


def test_a_guess_is_one_within_the_error_of_groups():
    """Ten answers in a hundred, all in one group, are no skill."""
    targets = np.arange(400) % 4
    random = np.random.default_rng(0)
    logits = random.normal(size=(400, 4))
    logits[:60] += 4 * np.eye(4)[targets[:60]]
    run = [
        Checkpoint.from_predictions(Predictions(factor * logits, targets), epoch=t)
        for t, factor in enumerate((1, 2))
    ]
    states = [
        summarize(run, groups=groups).divergence.table["state"].iloc[-1]
        for groups in (None, np.minimum(np.arange(400) // 60, 3))
    ]
    assert states == ["informative", "guess"]


def alike(random, groups, *shape):
    """Return normal numbers in groups of 1 to 9 samples that share half of their variance, and the groups."""
    codes = np.repeat(np.arange(groups), random.integers(1, 10, groups))
    of_groups = random.normal(size=(groups, *shape))[codes]
    return np.sqrt(0.5) * of_groups + np.sqrt(0.5) * random.normal(size=of_groups.shape), codes


def test_errors_of_a_change_are_those_of_a_bootstrap_over_groups():
    random, groups = np.random.default_rng(0), 120
    evidence, codes = alike(random, groups, 3)
    logits = 1.5 * evidence[:, :2]
    targets = (logits[:, 1] - logits[:, 0] + 1.5 * evidence[:, 2] > 0).astype(int)
    worse = 1.5 * logits + 0.8 * alike(np.random.default_rng(0), groups, 2)[0][:, ::-1]
    comparison = compare(*(Predictions(z, targets, groups=codes) for z in (logits, worse)))
    panel, drawn = comparison.panel, random.multinomial(groups, np.full(groups, 1 / groups), 4000)

    def means(values):
        """Return the mean of each draw, of groups with all their samples, on both sides."""
        totals = np.stack([np.bincount(codes, side) for side in values])
        return (drawn @ totals.T) / (drawn @ np.bincount(codes))[:, None]

    wrong, right = ~panel.correct * 1.0, panel.correct * 1.0
    draws = {
        "loss": means(panel.loss),
        "hedge": means(panel.hedge),
        "refinement_loss": means(panel.refinement),
        "calibration_loss": means(panel.calibration),
        "accuracy": means(right),
        "error_rate": means(wrong),
        "confidence": means(panel.confidence),
        "confidence_gap": means(panel.confidence - right),
        "mistake_cost": means(panel.mistake) / means(wrong),
    }
    for name, values in draws.items():
        of_draws = np.diff(values, axis=1).std(ddof=1)
        assert comparison.change.loc[name, "change_se"] == pytest.approx(of_draws, rel=0.1), name


def test_intervals_by_groups_hold_the_truth_and_those_by_rows_do_not():
    random, held = np.random.default_rng(0), []
    for _ in range(600):
        differences, codes = alike(random, 60)
        differences = differences**2 - 1  # skewed, of mean 0
        sizes = [paired_interval(differences, codes=counted) for counted in (codes, None)]
        held.append([one.low <= 0 <= one.high for one in sizes])
    by_groups, by_rows = np.mean(held, axis=0)
    assert 0.92 < by_groups < 0.98
    assert by_rows < 0.91


@given(st.lists(st.integers(0, 7), min_size=2, max_size=40), st.integers(0, 99))
def test_no_group_is_in_two_folds(labels, seed):
    codes = np.array(labels)
    fold = folds_of(np.random.default_rng(seed), len(codes), 5, codes)
    if len(set(labels)) > 1:
        assert all(len(set(fold[codes == code])) == 1 for code in labels)
    plain = folds_of(np.random.default_rng(seed), len(codes), 5)
    np.testing.assert_array_equal(plain, np.random.default_rng(seed).permutation(len(codes)) % 5)


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


# ------------------------------------------------------------------------------------- groups of a checkpoint
@pytest.fixture(scope="module")
def stored():
    return summarize(run_of(COPIES, splits=("val", "train"), groups=GROUPS))


def test_the_groups_that_a_run_was_saved_with_count_by_default(stored, copied):
    pd.testing.assert_frame_equal(stored.table[stored.table["split"] == "val"], copied.table)
    pd.testing.assert_frame_equal(stored.rise, copied.rise)
    assert stored.counts_groups("train")
    by_default = compare(*stored.pair)
    pd.testing.assert_frame_equal(by_default.change, compare(*copied.pair, groups=GROUPS).change)
    assert by_default.switches == compare(*copied.pair, groups=GROUPS).switches


def test_groups_that_are_passed_count_in_place_of_those_saved(stored):
    pairs = np.arange(len(GROUPS)) // 2
    history = summarize(stored.main.checkpoints, groups=pairs)
    assert set(history.table["units"]) == {len(GROUPS) // 2}
    assert set(compare(*stored.pair, groups=pairs).change["units"]) == {len(GROUPS) // 2}


def test_rows_count_where_the_user_says_so(stored):
    plain, rows = summarize(run_of(COPIES)), summarize(stored.main.checkpoints, groups="rows")
    pd.testing.assert_frame_equal(rows.table, plain.table)
    pd.testing.assert_frame_equal(rows.rise, plain.rise)
    pd.testing.assert_frame_equal(compare(*stored.pair, groups="rows").change, compare(*plain.pair).change)
    assert not summarize(
        [*stored.main.checkpoints, *run_of(2, splits=("train",))], groups="rows"
    ).counts_groups("train")
    with pytest.raises(ConfshiftError, match="groups='row': pass a label for each sample, or 'rows'"):
        summarize(stored.main.checkpoints, groups="row")


def test_the_groups_of_one_side_hold_for_the_other_too(stored):
    before, after = stored.pair
    plain = summarize(run_of(COPIES)).main.checkpoint_at(after.epoch)
    assert set(compare(before, plain).change["units"]) == {400}
    assert set(compare(plain, before).change["units"]) == {400}


def test_sides_saved_with_other_groups_are_refused_unless_groups_are_passed(stored):
    other = run_of(COPIES, groups=np.arange(len(GROUPS)) // 2)[-1]
    with pytest.raises(ConfshiftError, match="saved with other groups") as refusal:
        compare(stored.pair[0], other)
    assert "groups='rows'" in str(refusal.value)
    assert set(compare(stored.pair[0], other, groups="rows").change["units"]) == {len(GROUPS)}
    assert set(compare(stored.pair[0], other, groups=GROUPS).change["units"]) == {400}


def test_the_key_of_codes_tells_them_apart_and_stays_short():
    codes = np.arange(3000) // 2
    assert key_of(codes) == key_of(np.repeat(codes, 2)[::2])
    assert len({key_of(None), key_of(codes), key_of(codes[1:]), key_of(codes[::-1])}) == 4
    assert len(key_of(codes)) < 100
