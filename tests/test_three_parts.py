"""Scale, class balance and the rest: against refits by brute force, and by what may move each of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from confshift import Checkpoint, Predictions, compare, joint, recalibration, refits
from exact_refits import MAX_BETA, Rows, exactly, fits, refitted, takes_part
from logit_kinds import KINDS, accurate, draw

EPS = np.finfo(np.float64).eps
PARTS = ("scale_loss", "balance_loss", "refinement_loss")
#: What the solver's last digits may move, in nats.
SOLVED = 1e-6

few = settings(max_examples=15)


def checkpoint(logits, targets):
    return Checkpoint.from_predictions(Predictions(logits, targets))


def parts(logits, targets):
    """Scale, balance and rest of each sample, (3, N)."""
    return checkpoint(logits, targets).columns[list(PARTS)].to_numpy().T


def literal(logits, targets, temperature=1.0, biases=0.0):
    """The loss of softmax(z / T + b)."""
    z = logits / temperature + biases
    return logsumexp(z, axis=1) - z[np.arange(len(targets)), targets]


class Recipe(NamedTuple):
    """What a split is drawn from: short, where an example is printed."""

    kind: str
    size: tuple[int, int]
    seed: int
    scale: float
    spoiled: bool

    def arrays(self):
        """Logits and targets; of a spoiled split one row has no answer and one has an infinite loss."""
        logits, targets = draw(self.kind, *self.size, seed=self.seed)
        logits = logits * self.scale
        if self.spoiled:
            logits[3] = np.nan
            logits[5, targets[5]] = -np.inf
        return logits, targets


def splits(kinds=KINDS, sizes=((100, 2), (150, 3), (260, 5), (60, 3), (101, 12)), spoiled=(False, True)):
    choices = [st.sampled_from(kinds), st.sampled_from(sizes), st.integers(0, 10_000)]
    return st.builds(Recipe, *choices, st.sampled_from([0.01, 1.0, 100.0]), st.sampled_from(spoiled))


@few
@given(splits())
def test_the_parts_of_each_sample_add_up_to_its_loss(recipe):
    columns = checkpoint(*recipe.arrays()).columns
    loss, calibration, scale, balance, rest = (
        columns[name].to_numpy() for name in ("loss", "calibration_loss", *PARTS)
    )
    finite = columns["finite"].to_numpy()
    rounding = 8 * EPS * np.maximum.reduce([loss, np.abs(loss - scale), rest])[finite]
    assert (np.abs(scale + balance + rest - loss)[finite] <= rounding).all()
    assert (np.abs(scale + balance - calibration)[finite] <= rounding).all()
    np.testing.assert_array_equal(np.isnan([calibration, scale, balance, rest]), [~finite] * 4)


@few
@given(splits(), st.sampled_from([0.3, 2.0, 5.0]), st.integers(0, 2**32 - 1))
def test_the_parts_of_each_cell_and_of_the_change_add_up(recipe, growth, seed):
    (logits, targets), noise = recipe.arrays(), np.random.default_rng(seed)
    before = checkpoint(logits, targets)
    after = checkpoint(growth * logits + noise.normal(size=logits.shape), targets)
    both = compare(before, after)
    change, cells, classes = both.change["change"], both.cells, both.classes
    sides = (side.columns.loc[both.panel.sample_ids] for side in (before, after))
    losses = [np.maximum(side["loss"], side["loss"] - side["scale_loss"]).mean() for side in sides]
    rounding = 8 * EPS * max(sum(losses), 1)
    assert change["loss"] == pytest.approx(change[list(PARTS)].sum(), abs=rounding)
    assert change["calibration_loss"] == pytest.approx(change[list(PARTS[:2])].sum(), abs=rounding)
    for table in (cells, classes):
        added = table["scale"] + table["balance"] + table["refinement"]
        np.testing.assert_allclose(added, table["contribution"], rtol=0, atol=rounding)
        for part, name in zip(("scale", "balance", "refinement"), PARTS, strict=True):
            assert table[part].sum() == pytest.approx(change[name], abs=rounding)
    np.testing.assert_allclose(cells["scale"] + cells["balance"], cells["calibration"], rtol=0, atol=rounding)


@few
@given(splits())
def test_the_means_are_those_of_the_samples_with_a_finite_loss(recipe):
    measured = checkpoint(*recipe.arrays())
    metrics, columns = measured.metrics(), measured.columns
    finite = columns[columns["finite"]]
    for name in ("scale_loss", "balance_loss", "calibration_loss"):
        assert metrics[name] == pytest.approx(finite[name].mean(), rel=1e-12, abs=1e-15)
    if columns["finite"].equals(columns["answered"]):
        assert metrics["refinement_loss"] == pytest.approx(finite["refinement_loss"].mean(), rel=1e-12)
    else:
        assert metrics["refinement_loss"] == math.inf


@few
@given(splits(spoiled=(False,)))
def test_both_fits_are_the_minimisers_and_nested_in_sample(recipe):
    logits, targets = recipe.arrays()
    measured, rows = checkpoint(logits, targets), Rows(logits, targets)
    if measured.fit_status == "separable" or not takes_part(*logits.shape):
        assert measured.columns["balance_loss"].eq(0).all()
        return
    one, joint = fits(rows)
    biases = np.array(measured.biases)
    losses = literal(logits, targets).mean()
    cooled = literal(logits, targets, measured.temperature).mean()
    balanced = literal(logits, targets, measured.joint_temperature, biases)
    assert balanced.mean() <= cooled + 1e-12
    assert cooled <= losses + 1e-12
    best = rows.losses(joint)[0].sum() + joint[1:] @ joint[1:] / 2
    assert balanced.sum() + biases @ biases / 2 == pytest.approx(best, rel=1e-12, abs=1e-9)
    assert 1 / measured.temperature == pytest.approx(one[0], rel=1e-6)
    assert 1 / measured.joint_temperature == pytest.approx(joint[0], rel=1e-5)
    np.testing.assert_allclose(biases, joint[1:], atol=1e-5)


@few
@given(splits(sizes=((100, 2), (150, 3), (260, 5))))
def test_the_biases_are_each_class_s_samples_minus_its_probability_and_sum_to_zero(recipe):
    logits, targets = recipe.arrays()
    measured, rows = checkpoint(logits, targets), Rows(logits, targets)
    biases = np.array(measured.biases)
    assert biases.shape == logits.shape[1:]
    assert biases.sum() == pytest.approx(0, abs=1e-6)
    if measured.fit_status != "separable":
        p = rows.losses(np.array([1 / measured.joint_temperature, *biases]))[1]
        present = np.bincount(rows.targets, minlength=rows.classes)
        np.testing.assert_allclose(biases, present - p.sum(axis=0), atol=1e-5)


@few
@given(splits(), st.integers(0, 2**32 - 1))
def test_a_constant_added_to_each_row_moves_no_part(recipe, seed):
    logits, targets = recipe.arrays()
    moved = logits + np.random.default_rng(seed).normal(0, 5, (len(targets), 1))
    np.testing.assert_allclose(parts(moved, targets), parts(logits, targets), rtol=1e-7, atol=SOLVED)


@few
@given(splits(), st.integers(0, 2**32 - 1))
def test_renaming_the_classes_and_shuffling_the_samples_move_no_part(recipe, seed):
    logits, targets = recipe.arrays()
    rng = np.random.default_rng(seed)
    order, names = rng.permutation(len(targets)), rng.permutation(logits.shape[1])
    renamed = np.empty_like(logits)
    renamed[:, names] = logits
    usual, other = checkpoint(logits, targets), checkpoint(renamed[order], names[targets][order])
    both = [side.columns[list(PARTS)].to_numpy() for side in (usual, other)]
    np.testing.assert_allclose(both[1], both[0][order], rtol=1e-7, atol=SOLVED)
    np.testing.assert_allclose(np.array(other.biases)[names], usual.biases, atol=1e-5)


@few
@given(splits(kinds=[kind for kind in KINDS if kind != "five wrong"]), st.sampled_from([0.1, 0.5, 3.0, 30.0]))
def test_multiplying_the_logits_moves_the_scale_alone(recipe, factor):
    logits, targets = recipe.arrays()
    usual, scaled = checkpoint(logits, targets), checkpoint(factor * logits, targets)
    both = [side.columns[list(PARTS[1:])].to_numpy() for side in (usual, scaled)]
    np.testing.assert_allclose(both[1], both[0], rtol=0, atol=10 * SOLVED)
    np.testing.assert_allclose(scaled.biases, usual.biases, atol=1e-5)
    if not math.isnan(usual.joint_temperature):
        assert scaled.joint_temperature == pytest.approx(factor * usual.joint_temperature, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1e-6, 1e6, 1e10])
def test_a_scale_beyond_any_usual_one_changes_neither_balance_nor_rest(scale):
    logits, targets = draw("biased", 150, 3)
    usual, extreme = (parts(factor * logits, targets)[1:] for factor in (1.0, scale))
    np.testing.assert_allclose(extreme, usual, rtol=0, atol=1e-4)


@few
@given(splits(sizes=((150, 3), (260, 5)), spoiled=(False,)), st.floats(0.1, 2), st.integers(0, 2**32 - 1))
def test_a_bias_moves_the_rest_in_sample_by_no_more_than_the_penalty_on_its_repair(recipe, size, seed):
    logits, targets = recipe.arrays()
    # The old fit with the bias taken back is one that the new one may choose, and the other way round.
    bias = size * recipe.scale * np.random.default_rng(seed).normal(size=logits.shape[1])
    bias -= bias.mean()
    sides = [checkpoint(logits, targets), checkpoint(logits + bias, targets)]
    if any(math.isinf(side.joint_temperature) or side.fit_status == "separable" for side in sides):
        return
    betas, biases = [1 / side.joint_temperature for side in sides], [np.array(side.biases) for side in sides]
    rest = [
        literal(z, targets, side.joint_temperature, np.array(side.biases)).sum()
        for side, z in zip(sides, (logits, logits + bias), strict=True)
    ]

    def penalty(b):
        return b @ b / 2

    assert rest[1] + penalty(biases[1]) <= rest[0] + penalty(biases[0] - betas[0] * bias) + 1e-7
    assert rest[0] + penalty(biases[0]) <= rest[1] + penalty(biases[1] + betas[1] * bias) + 1e-7


@pytest.mark.parametrize(("samples", "classes", "tolerance"), [(1000, 4, 2e-4), (2000, 10, 3e-4)])
def test_a_bias_of_one_nat_leaves_the_mean_of_the_rest_where_it_was(samples, classes, tolerance):
    # What is left is the penalty, which holds the repair of a class back by about one in its samples.
    for seed in range(4):
        logits, targets = draw("calibrated", samples, classes, seed)
        bias = np.random.default_rng(seed).normal(size=classes)
        before, after = (parts(z, targets).mean(axis=1) for z in (logits, logits + bias))
        assert after[2] == pytest.approx(before[2], abs=tolerance)
        assert (after - before)[:2].sum() > 0.02


def test_a_calibrated_model_with_fewer_inputs_loses_the_rest_alone():
    # Two independent inputs, unequal classes; the exact posterior from both, and from the first alone.
    rng = np.random.default_rng(5)
    prior, means = np.array([0.5, 0.3, 0.2]), np.array([[0.0, 0.0], [1.5, 0.5], [0.5, -1.5]])
    targets = rng.choice(3, 4000, p=prior)
    inputs = means[targets] + rng.normal(size=(4000, 2))
    evidence = -((inputs[:, None, :] - means) ** 2) / 2
    both, first = (checkpoint(np.log(prior) + e, targets) for e in (evidence.sum(axis=2), evidence[:, :, 0]))
    change = compare(both, first).change
    gain = change.loc["refinement_loss"]
    assert gain["change"] > 10 * gain["change_se"]
    assert gain["change"] == pytest.approx(change.loc["loss", "change"], abs=3e-3)
    for name in ("scale_loss", "balance_loss"):
        moved = change.loc[name]
        assert (
            abs(moved["change"]) < 4 * moved["change_se"] + 1e-3
        )  # and the two biases, each about 1 / (2 N)
        assert abs(moved["change"]) < 3e-3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_logits_in_less_precision_have_the_parts_of_the_same_numbers_in_double(dtype):
    logits, targets = draw("biased", 400, 5)
    narrow = logits.astype(dtype)
    usual, double = parts(narrow, targets), parts(narrow.astype(np.float64), targets)
    np.testing.assert_allclose(usual, double, rtol=0, atol=2e-5)


def test_a_class_masked_in_every_row_is_as_good_as_none_and_has_no_bias():
    logits, targets = draw("biased", 250, 3)
    masked = np.insert(logits, 1, -np.inf, axis=1)
    with_mask, without = checkpoint(masked, targets + (targets >= 1)), checkpoint(logits, targets)
    both = [side.columns[list(PARTS)].to_numpy() for side in (with_mask, without)]
    np.testing.assert_allclose(both[0], both[1], rtol=0, atol=SOLVED)
    np.testing.assert_allclose(with_mask.biases, np.insert(without.biases, 1, 0.0), atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_class_without_a_sample_has_a_finite_bias_that_pays_for_its_probability(classes):
    logits, targets = draw("absent class", 200, classes)
    measured = checkpoint(logits, targets)
    assert measured.biases[-1] < -1  # minus the probability that it still gets, summed over the samples
    assert measured.columns["balance_loss"].mean() > 0.05
    assert np.isfinite(measured.columns[list(PARTS)].to_numpy()).all()


def test_where_the_uniform_prediction_beats_every_temperature_the_biases_are_fitted_from_there():
    logits, targets = draw("imbalanced", 300, 3)
    measured = checkpoint(-logits, targets)
    assert measured.fit_status == "uniform"
    present = np.bincount(targets)
    shares = present / 300
    np.testing.assert_allclose(
        measured.columns["loss"] - measured.columns["scale_loss"], math.log(3), rtol=1e-12
    )
    entropy = -(shares * np.log(shares)).sum()
    assert measured.metrics()["refinement_loss"] == pytest.approx(entropy, abs=0.01)
    joint = fits(Rows(-logits, targets))[1]
    np.testing.assert_allclose(measured.biases, joint[1:], atol=1e-5)
    assert measured.joint_temperature == (
        math.inf if joint[0] == 0 else pytest.approx(1 / joint[0], rel=1e-5)
    )


@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_a_joint_temperature_is_infinite_only_where_no_finite_one_fits_better(classes, seed):
    # Large biases hide that the logits say a little: a fit may begin, or pass, where they say nothing.
    draws = np.random.default_rng(seed)
    targets = draws.integers(0, classes, 80 * classes)
    logits = draws.normal(size=(len(targets), classes)) + 4 * draws.normal(size=classes)
    logits[np.arange(len(targets)), targets] += 0.3
    measured = checkpoint(logits, targets)
    beta, *biases = fits(Rows(logits, targets))[1]
    assert beta > 0.01
    assert measured.joint_temperature == pytest.approx(1 / beta, rel=1e-4)
    np.testing.assert_allclose(measured.biases, biases, atol=1e-4)


def test_where_every_row_is_right_there_is_no_balance():
    logits, _ = draw("calibrated", 200, 3)
    measured = checkpoint(logits, logits.argmax(axis=1))
    assert measured.fit_status == "separable"
    assert measured.columns["balance_loss"].eq(0).all()


@pytest.mark.parametrize(
    ("samples", "classes", "take_part"),
    [(99, 2, False), (100, 2, True), (149, 3, False), (150, 3, True), (499, 10, False), (500, 10, True)],
)
def test_biases_take_part_from_fifty_samples_a_class_and_a_hundred_on(samples, classes, take_part):
    logits, targets = draw("biased", samples, classes)
    measured = checkpoint(logits, targets)
    assert (not math.isnan(measured.joint_temperature)) == take_part
    assert len(measured.biases) == classes
    assert any(measured.biases) == take_part
    assert measured.columns["balance_loss"].any() == take_part


def test_whether_biases_take_part_does_not_hang_on_how_many_losses_are_finite():
    # Every checkpoint of a run has the same samples, so all of them agree.
    logits, targets = draw("biased", 150, 3)
    logits[:7] = np.nan
    assert not math.isnan(checkpoint(logits, targets).joint_temperature)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(150, 2), (150, 3)])
def test_left_out_losses_are_those_of_refits_without_each_sample(size, kind):
    logits, targets = draw(kind, *size)
    exact, (scale, _, rest) = exactly(logits, targets), parts(logits, targets)
    for found, refit in ((exact.loss - scale, exact.one), (rest, exact.joint)):
        np.testing.assert_allclose(found, refit, rtol=0, atol=0.02)
        assert found.mean() == pytest.approx(refit.mean(), abs=1e-3)


class Golden(NamedTuple):
    """What `exactly` and `fits` gave for the logits of `fixed`, once and for all."""

    temperature: float
    joint_temperature: float
    biases: list[float]
    means: list[float]  # scale, balance, rest
    first: list[list[float]]  # the same of the first five samples
    tolerance: float  # of the means, in nats; ten times that for a sample


GOLDEN = {
    (100, 2): Golden(
        0.817498434,
        0.568860635,
        [0.706591904, -0.706591904],
        [0.000651987, 0.082353898, 0.333412567],
        [
            [0.012790, 0.032231, -0.053601, 0.015886, 0.052262],
            [0.436527, -0.004085, 0.555219, 0.005072, 0.219131],
            [0.183283, 0.050744, 0.396506, 0.008792, 0.041868],
        ],
        1e-3,
    ),
    (150, 3): Golden(
        0.739946579,
        0.553617483,
        [1.027427098, -0.298801529, -0.728625569],
        [0.011368008, 0.111409040, 0.578820700],
        [
            [-0.228293, 0.023269, -0.066438, -0.245659, 0.131543],
            [0.916928, 0.171174, 0.129377, 0.774391, 0.019219],
            [0.837590, 0.538928, 0.857904, 1.114773, 0.313607],
        ],
        6e-4,
    ),
}


def fixed(samples, classes):
    """Logits of whole eighths without a random number: some evidence, and a bias for the last class."""
    rows, columns = np.arange(samples)[:, None], np.arange(classes)
    targets = (np.arange(samples) ** 2 + np.arange(samples) // 7) % classes
    evidence = (rows**2 * (columns + 3) + 7 * rows + 5 * columns) % 23 - 11
    return evidence / 8 + 1.25 * (columns == targets[:, None]) + 0.5 * columns, targets


@pytest.mark.parametrize("size", GOLDEN)
def test_fixed_logits_have_the_parts_that_brute_force_gave_once(size):
    golden, measured = GOLDEN[size], checkpoint(*fixed(*size))
    found = measured.columns[list(PARTS)].to_numpy().T
    assert measured.temperature == pytest.approx(golden.temperature, rel=1e-6)
    assert measured.joint_temperature == pytest.approx(golden.joint_temperature, rel=1e-6)
    np.testing.assert_allclose(measured.biases, golden.biases, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.mean(axis=1), golden.means, rtol=0, atol=golden.tolerance)
    np.testing.assert_allclose(found[:, :5], golden.first, rtol=0, atol=10 * golden.tolerance)


@pytest.mark.parametrize("size", [(100, 2), (300, 3)])
def test_where_fewer_than_ten_rows_are_wrong_those_are_refitted_exactly(size):
    logits, targets = draw("five wrong", *size)
    rows = Rows(logits, targets)
    wrong = np.flatnonzero(rows.wrong)
    scale, _, rest = parts(logits, targets)[:, wrong]
    loss = rows.losses(np.ones(1))[0][wrong]
    one, joint = fits(rows)
    assert len(wrong) == 5
    assert one[0] < MAX_BETA
    np.testing.assert_allclose(loss - scale, refitted(rows, one, wrong), rtol=1e-5)
    np.testing.assert_allclose(rest, refitted(rows, joint, wrong), rtol=1e-5)


@pytest.mark.parametrize("samples", [60, 200])
def test_the_only_wrong_row_left_out_moves_the_fit_by_a_factor_of_two_and_no_more(samples):
    # Without it the rows are all right and the temperature that is best for them is none.
    logits, _ = draw("calibrated", samples, 3)
    targets = logits.argmax(axis=1)
    targets[7] = (targets[7] + 1) % 3
    measured = checkpoint(logits, targets)
    row = measured.columns.loc[7]
    doubled = literal(logits, targets, measured.temperature / 2)[7]
    assert row["loss"] - row["scale_loss"] == pytest.approx(doubled, rel=1e-6)
    assert row["refinement_loss"] < 1.5 * doubled


@pytest.mark.parametrize("factor", [1e-12, 1e-6, 1e6, 1e12])
def test_the_joint_temperature_is_in_the_unit_of_the_logits(factor):
    logits, targets = draw("biased", 300, 3)
    usual, scaled = checkpoint(logits, targets), checkpoint(factor * logits, targets)
    assert scaled.joint_temperature == pytest.approx(factor * usual.joint_temperature, rel=1e-4)


@pytest.mark.parametrize("kind", ["biased", "five wrong", "imbalanced", "masked"])
def test_fits_without_one_sample_made_together_are_those_made_one_by_one(kind, monkeypatch):
    logits, targets = draw(kind, 150, 3)
    together = parts(logits, targets)
    monkeypatch.setattr(refits, "TOGETHER", 1)
    monkeypatch.setattr(refits, "_NEARBY", -1.0)
    np.testing.assert_allclose(parts(logits, targets), together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("many_classes", [5, 256])
def test_wrong_samples_of_an_accurate_model_have_the_losses_of_refits(many_classes, monkeypatch):
    logits, targets = accurate(4000, 30)
    rows, whole = Rows(logits, targets), fits(Rows(logits, targets))[1]
    which = np.argsort(-rows.losses(whole)[0])[:6]
    monkeypatch.setattr(joint, "MANY_CLASSES", many_classes)
    rest = parts(logits, targets)[2]
    np.testing.assert_allclose(rest[which], refitted(rows, whole, which, factor=2), rtol=0.01, atol=0.02)


@pytest.mark.parametrize("few", [1, 2, 5, 30])
def test_where_a_few_wrong_samples_carry_a_large_split_each_has_the_loss_of_its_refit(few):
    logits, _ = accurate(3500, 20)
    targets = logits.argmax(axis=1)
    which = np.random.default_rng(few).choice(3500, few, replace=False)
    targets[which] = np.argsort(logits[which], axis=1)[:, -2]
    rows = Rows(logits, targets)
    found, which = parts(logits, targets)[2, which], which[:5]
    exact = refitted(rows, fits(rows)[1], which, factor=2)
    np.testing.assert_allclose(found[:5], exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", ["biased", "five wrong", "imbalanced", "masked"])
def test_the_expansion_of_many_classes_is_within_half_its_influence_of_the_step(kind, monkeypatch):
    logits, targets = draw(kind, 1500, 12)
    stepped = parts(logits, targets)[2]
    monkeypatch.setattr(recalibration, "MANY_CLASSES", 2)
    expanded = parts(logits, targets)[2]
    np.testing.assert_allclose(expanded, stepped, rtol=0, atol=0.02)
    assert expanded.mean() == pytest.approx(stepped.mean(), abs=2e-4)
    assert (expanded != stepped).any()


@pytest.mark.parametrize("scale_again", [2, 512])
def test_with_many_classes_the_fit_by_the_hessian_of_a_part_is_that_by_the_whole(monkeypatch, scale_again):
    logits, targets = draw("biased", 9000, 5)
    whole = checkpoint(logits, targets)
    monkeypatch.setattr(joint, "MANY_CLASSES", 2)
    monkeypatch.setattr(joint, "_SCALE_AGAIN", scale_again)
    found = checkpoint(logits, targets)
    assert found.joint_temperature == pytest.approx(whole.joint_temperature, rel=1e-5)
    np.testing.assert_allclose(found.biases, whole.biases, rtol=0, atol=1e-5)
