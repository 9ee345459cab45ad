"""hedge + mistake = loss, to the last digits, in both kernels."""

from __future__ import annotations

import threading
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.metrics import accuracy_score, log_loss

from confshift.scoring import Scoring, blocks, score

#: Each kernel by a width and a type: few classes, many, and two for single precision.
KERNELS = [(3, "float64"), (40, "float64"), (40, "float32"), (130, "float32")]
COLUMNS = ("predicted", "hedge", "mistake", "confidence", "margin", "tied")


@st.composite
def samples(draw, dtype=np.float64, widths=(2, 40)):
    """Logits of any scale with ties among them, and targets."""
    count, classes = draw(st.integers(1, 12)), draw(st.integers(*widths))
    scale = draw(st.sampled_from([1e-3, 1.0, 30.0, 1e4]))
    logits = draw(arrays(np.int8, (count, classes), elements=st.integers(-64, 64))) / 64
    targets = draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    return (logits * scale).astype(dtype), targets


def exact_loss(row, target):
    """-log softmax by 400-digit decimal arithmetic."""
    with localcontext() as context:
        context.prec = 400
        context.Emin = -(10**9)
        values = [Decimal(float(z)) for z in row]
        return sum((z - values[target]).exp() for z in values).ln()


@given(samples())
def test_hedge_and_mistake_add_up_to_the_loss(data):
    logits, targets = data
    scores = score(logits, targets)
    rows = np.arange(len(targets))
    expected = logsumexp(logits, axis=1) - logits[rows, targets]
    largest = np.abs(logits).max() + 1
    np.testing.assert_allclose(scores.loss, expected, atol=8 * np.finfo(float).eps * largest, rtol=1e-13)
    np.testing.assert_array_equal(scores.loss, scores.hedge + scores.mistake)
    np.testing.assert_allclose(scores.hedge, -log_softmax(logits, axis=1).max(axis=1), atol=1e-11)


@given(samples())
def test_hedge_lies_between_zero_and_the_log_of_the_number_of_classes(data):
    logits, targets = data
    hedge = score(logits, targets).hedge
    assert (hedge >= 0).all()
    assert (hedge <= np.log(logits.shape[1]) * (1 + 1e-15)).all()


@given(samples())
def test_mistake_is_zero_exactly_where_the_true_class_attains_the_maximum(data):
    logits, targets = data
    mistake = score(logits, targets).mistake
    assert (mistake >= 0).all()
    attains = logits[np.arange(len(targets)), targets] == logits.max(axis=1)
    np.testing.assert_array_equal(mistake == 0, attains)
    assert not np.signbit(mistake).any()


@given(samples(), st.integers(0, 2**32 - 1))
def test_a_constant_added_to_each_row_changes_nothing(data, seed):
    logits, targets = data
    moved = logits + np.random.default_rng(seed).normal(0, 50, (len(targets), 1))
    before, after = score(logits, targets), score(moved, targets)
    size = np.abs(logits).max() + np.abs(moved).max()
    for name in ("hedge", "mistake", "confidence", "margin"):
        np.testing.assert_allclose(
            getattr(after, name), getattr(before, name), atol=4e-16 * size, err_msg=name
        )


@given(samples(), st.integers(0, 2**32 - 1))
def test_renaming_the_classes_changes_no_number(data, seed):
    logits, targets = data
    order = np.random.default_rng(seed).permutation(logits.shape[1])  # the new place k holds class order[k]
    before, after = score(logits, targets), score(logits[:, order], np.argsort(order)[targets])
    for name in ("hedge", "mistake", "confidence", "tied"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-13, err_msg=name)
    untied = ~before.tied
    np.testing.assert_array_equal(after.margin[untied], before.margin[untied])
    np.testing.assert_array_equal(order[after.predicted[untied]], before.predicted[untied])


@pytest.mark.parametrize("margin", [0.0, 1e-9, 0.3, 2.0, 40.0, 700.0, 5e4])
@pytest.mark.parametrize("right", [True, False])
def test_two_classes_give_softplus(margin, right):
    scores = score(np.array([[0.0, margin]]), np.array([int(right)]))
    softplus = np.logaddexp(0, -margin if right else margin)
    np.testing.assert_allclose(scores.loss, softplus, rtol=1e-15)
    np.testing.assert_allclose(scores.hedge, np.log1p(np.exp(-margin)), rtol=1e-15)
    assert scores.mistake == (0 if right else margin)
    assert scores.margin == (margin if right else -margin)


@pytest.mark.parametrize("classes", [2, 31, 32])
@pytest.mark.parametrize("gap", [5e-17, 1e-3, 1.0, 35.0, 60.0, 120.0, 300.0, 700.0])
def test_losses_from_1e_300_to_700_keep_fourteen_digits(classes, gap):
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(2, classes)) * min(gap, 1)
    logits[:, 1] = logits.max(axis=1) + gap
    targets = np.array([1, 0])  # one right with a tiny loss, one wrong with a large one
    exact = [float(exact_loss(row, target)) for row, target in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(score(logits, targets).loss, exact, rtol=3e-14)


@given(samples(dtype=np.float32), st.sampled_from(["float16", "float32", "float64"]))
def test_narrow_and_wide_kernels_agree(data, dtype):
    # The same row as a wide one: padded with masked classes, which weigh nothing.
    logits, targets = data
    narrow = (logits / 40)[:, :31].astype(dtype)
    targets = targets % narrow.shape[1]
    first = score(narrow, targets)
    for width in (50, 130):
        wide = np.full((len(narrow), width), -np.inf, dtype)
        wide[:, : narrow.shape[1]] = narrow
        second = score(wide, targets)
        for name in COLUMNS:
            single = dtype == "float32" and name in ("hedge", "confidence")
            np.testing.assert_allclose(
                getattr(second, name), getattr(first, name), rtol=5e-7 if single else 1e-14, err_msg=name
            )


def extended(logits, targets):
    """Return hedge and mistake in extended precision, where the machine has it."""
    below, rows = logits.astype(np.longdouble), np.arange(len(targets))
    top = below.argmax(axis=1)
    below -= below[rows, top][:, None]
    mistake = -below[rows, targets]
    below[rows, top] = -np.inf
    return np.log1p(np.exp(below).sum(axis=1)), mistake


@given(
    st.sampled_from([2, 31, 32, 33, 63, 95, 96, 97, 128, 193, 1000, 5000]),
    st.sampled_from([1e-3, 0.1, 1.0, 10.0, 100.0]),
    st.sampled_from([0.0, 3.0, 12.0, 35.0, 69.0, 80.0, 600.0]),
    st.sampled_from([0.0, 1e4, -1e4]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=60)
def test_single_precision_leaves_a_loss_within_a_millionth_of_itself(classes, scale, lead, shift, seed):
    # A lead of 69 nats is a loss of 1e-30. The numbers from which the losses are made are those rounded to
    # single precision, after the shift.
    random = np.random.default_rng(seed)
    logits = random.normal(size=(8, classes)) * scale
    logits[np.arange(8), random.integers(0, classes, 8)] += lead
    logits = (logits + shift).astype(np.float32)
    targets = np.where(np.arange(8) % 2, logits.argmax(axis=1), random.integers(0, classes, 8))
    hedge, mistake = extended(logits, targets)
    scores, double = score(logits, targets), score(logits.astype(np.float64), targets)
    tight = 1e-13 if classes < 32 else 1e-6
    np.testing.assert_allclose(scores.hedge, hedge.astype(float), rtol=tight, atol=1e-300)
    np.testing.assert_allclose(scores.loss, (hedge + mistake).astype(float), rtol=tight, atol=1e-300)
    np.testing.assert_allclose(scores.confidence, np.exp(-hedge).astype(float), rtol=tight, atol=1e-300)
    assert (scores.hedge <= np.log(classes) * (1 + 1e-15)).all()
    for name in ("predicted", "mistake", "margin", "tied"):  # single precision has no part in these
        np.testing.assert_array_equal(getattr(scores, name), getattr(double, name), err_msg=name)


@pytest.mark.parametrize("gap", [35.0, 69.0, 120.0, 700.0])
@pytest.mark.parametrize("classes", [32, 96])
def test_tiny_losses_of_single_precision_logits_have_six_digits(classes, gap):
    logits = np.random.default_rng(classes).normal(size=(2, classes)).astype(np.float32)
    logits[:, 1] = logits.max(axis=1) + np.float32(gap)
    exact = [float(exact_loss(row, target)) for row, target in zip(logits, (1, 0), strict=True)]
    assert exact[0] < np.exp(-gap) * classes
    np.testing.assert_allclose(score(logits, np.array([1, 0])).loss, exact, rtol=5e-7)


@pytest.mark.parametrize("classes", [2, 10, 31, 32, 300])
def test_blocks_cover_every_row_once_and_in_order(classes):
    rng = np.random.default_rng(0)
    count = 2 * (1 << 20) // (8 * classes) + 37  # two full blocks and a rest
    logits, targets = rng.normal(size=(count, classes)), rng.integers(0, classes, count)
    seen = [(block.rows.start, block.rows.stop) for block in blocks(logits, targets)]
    assert len(seen) == 3
    assert [start for start, _ in seen] == [0, *(stop for _, stop in seen[:-1])]
    assert seen[-1][1] == count
    whole = score(logits, targets)
    np.testing.assert_array_equal(whole.predicted, logits.argmax(axis=1))
    reference = -log_softmax(logits, axis=1)[np.arange(count), targets]
    np.testing.assert_allclose(whole.loss, reference, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("classes", [3, 40])
def test_means_are_those_of_scikit_learn(make_logits, classes, dtype):
    logits, targets = make_logits(600, classes, 1, seed=classes)
    logits = logits[0].astype(dtype)
    scores = score(logits, targets)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    digits = 5e-7 if (classes, dtype) == (40, "float32") else 1e-12
    loss = log_loss(targets, probabilities, labels=range(classes))
    assert scores.loss.mean() == pytest.approx(loss, rel=digits)
    assert (scores.predicted == targets).mean() == accuracy_score(targets, probabilities.argmax(axis=1))
    np.testing.assert_allclose(scores.confidence, probabilities.max(axis=1), rtol=digits)


@given(samples())
def test_margin_is_the_true_logit_less_the_best_of_the_others(data):
    logits, targets = data
    rows = np.arange(len(targets))
    others = logits.copy()
    others[rows, targets] = -np.inf
    np.testing.assert_array_equal(score(logits, targets).margin, logits[rows, targets] - others.max(axis=1))


@given(samples())
def test_tied_is_where_several_classes_attain_the_maximum_exactly(data):
    logits, targets = data
    attained = (logits == logits.max(axis=1, keepdims=True)).sum(axis=1)
    np.testing.assert_array_equal(score(logits, targets).tied, attained > 1)


def test_the_nearest_float_below_the_maximum_is_no_tie():
    logits = np.array([[1.0, 1.0, 0.0], [1.0, np.nextafter(1, 0), 0.0]])
    assert score(logits, np.array([0, 0])).tied.tolist() == [True, False]


@pytest.mark.parametrize(("classes", "dtype"), KERNELS)
def test_a_tie_goes_to_the_first_class_and_is_marked(classes, dtype):
    logits = np.zeros((3, classes), dtype)
    logits[0, 0] = 1.0
    logits[1, [1, 2]] = 2.0
    scores = score(logits, np.array([0, 2, 2]))
    assert scores.tied.tolist() == [False, True, True]
    assert scores.predicted.tolist() == [0, 1, 0]
    assert scores.mistake.tolist() == [0, 0, 0]  # the true class attains the maximum, though not predicted
    assert scores.margin.tolist() == [1, 0, 0]
    assert scores.hedge[2] == pytest.approx(np.log(classes), rel=1e-15)  # exp(0) is 1


@pytest.mark.parametrize(("classes", "dtype"), KERNELS)
@pytest.mark.parametrize(
    "filling", [[np.nan], [np.inf], [np.inf, np.inf], [np.inf, -np.inf], [np.nan, np.inf]]
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_row_with_nan_or_plus_infinity_is_nan_and_spoils_no_other(classes, dtype, filling, place):
    logits = np.random.default_rng(1).normal(size=(3, classes)).astype(dtype)
    alone = score(logits[[0, 2]], np.array([0, 1]))
    logits[1, place : place + len(filling)] = filling
    for target in (0, 1, classes - 1):
        scores = score(logits, np.array([0, target, 1]))
        assert scores.predicted[1] == -1
        assert not scores.tied[1]
        for name in COLUMNS:
            column = getattr(scores, name)
            np.testing.assert_array_equal(column[[0, 2]], getattr(alone, name))
            if name not in ("predicted", "tied"):
                assert np.isnan(column[1])


@pytest.mark.parametrize(("classes", "dtype"), KERNELS)
def test_a_masked_class_weighs_nothing_and_a_masked_true_class_has_an_infinite_loss(classes, dtype):
    logits = np.random.default_rng(2).normal(size=(2, classes)).astype(dtype)
    logits[:, 1] = -np.inf
    scores = score(logits, np.array([0, 1]))
    rest = np.delete(logits, 1, axis=1)
    digits = 5e-7 if dtype == "float32" else 1e-14
    assert scores.loss[0] == pytest.approx(score(rest, np.array([0, 0])).loss[0], rel=digits)
    assert scores.loss[1] == np.inf
    assert scores.predicted[1] == logits[1].argmax()
    assert np.isfinite(scores.hedge).all()
    assert scores.margin[1] == -np.inf


@pytest.mark.parametrize(("classes", "dtype"), KERNELS)
def test_a_row_of_masks_alone_can_not_be_scored(classes, dtype):
    scores = score(np.full((1, classes), -np.inf, dtype), np.array([0]))
    assert np.isnan(scores.loss[0])
    assert scores.predicted[0] == -1


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(("classes", "dtype"), KERNELS)
def test_the_input_is_left_as_it_was(classes, dtype, count, order):
    logits = np.asarray(np.random.default_rng(3).normal(size=(count, classes)), dtype, order=order)
    before = logits.copy()
    logits.flags.writeable = False  # as a memory map is
    scores = score(logits, np.zeros(count, np.int64))
    np.testing.assert_array_equal(logits, before)
    expected = -log_softmax(before.astype(np.float64), axis=1)[:, 0]
    np.testing.assert_allclose(scores.loss, expected, rtol=5e-7 if dtype == "float32" else 1e-12)


def many_blocks(dtype="float32"):
    random = np.random.default_rng(5)
    logits = random.normal(size=(2000, 1000)).astype(dtype)
    logits[[3, 1500], 7] = np.nan
    return logits, random.integers(0, 1000, 2000)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_thread_that_helps_changes_nothing(dtype):
    logits, targets = many_blocks(dtype)
    alone = score(logits, targets).rows
    for helpers in (1, 3):
        scoring = Scoring(logits, targets)
        threads = [threading.Thread(target=scoring.help) for _ in range(helpers)]
        for thread in threads:
            thread.start()
        scoring.work()
        done = scoring.scores.rows.tobytes()
        for thread in threads:
            thread.join()
        assert done == scoring.scores.rows.tobytes() == alone.tobytes()


def test_what_a_helper_has_scored_is_not_scored_again(monkeypatch):
    logits, targets = many_blocks()
    scoring, seen = Scoring(logits, targets), []
    monkeypatch.setattr(scoring, "_score", lambda rows, part: seen.append(rows) or part.fill(0))
    scoring.help()
    assert len(seen) > 5
    assert seen == sorted(seen, key=lambda rows: -rows.start)
    scoring.work()
    assert sum(rows.stop - rows.start for rows in seen) == len(targets)  # each row once


def test_the_block_of_a_helper_that_was_interrupted_is_scored_by_the_other(monkeypatch):
    logits, targets = many_blocks()
    alone = score(logits, targets).rows
    scoring = Scoring(logits, targets)
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "_score", lambda rows, part: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            scoring.help()
    scoring.work()
    assert scoring.scores.rows.tobytes() == alone.tobytes()


def test_a_helper_that_comes_late_changes_nothing():
    # Once a pass is over the logits may be those of the next one.
    logits, targets = many_blocks()
    scoring = Scoring(logits, targets)
    scoring.work()
    before = scoring.scores.rows.tobytes()
    logits[:] = 7
    scoring.help()
    assert scoring.scores.rows.tobytes() == before


def test_a_block_that_is_finished_while_a_helper_scores_it_stays_as_it_is(monkeypatch):
    logits, targets = many_blocks()
    alone = score(logits, targets).rows
    scoring, true_score = Scoring(logits, targets), Scoring._score

    def overtaken(rows, part):  # the helper reads what the next pass has written
        monkeypatch.setattr(scoring, "_score", lambda rows, part: true_score(scoring, rows, part))
        scoring.work()
        logits[:] = 7
        true_score(scoring, rows, part)

    monkeypatch.setattr(scoring, "_score", overtaken)
    scoring.help()
    assert scoring.scores.rows.tobytes() == alone.tobytes()
