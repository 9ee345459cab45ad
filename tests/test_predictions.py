"""What goes in, what is refused and what the message says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from confshift.errors import ConfshiftError
from confshift.predictions import Predictions, describe_difference
from confshift.tasks import label_numbers, places

LOGITS = np.array([[2.0, 0.5, -1.0], [0.1, 0.3, 7.0], [1.0, -1.0, 0.0]])
TARGETS = np.array([0, 1, 2])


def with_logits(logits):
    return Predictions(logits, [0] * 3)


def with_targets(targets):
    return Predictions(LOGITS, targets)


def with_ids(ids):
    return Predictions(LOGITS, TARGETS, sample_ids=ids)


# -------------------------------------------------------------------------------------------- refused
REFUSED = {
    "a vector of logits": (with_logits, LOGITS[:, 0], ["logits", "(3,)", "two columns", "column_stack"]),
    "a batch of sequences": (with_logits, LOGITS[None], ["logits", "(1, 3, 3)", "do not say which axis"]),
    "one column": (with_logits, LOGITS[:, :1], ["logits", "(3, 1)", "np.column_stack"]),
    "no columns": (with_logits, LOGITS[:, :0], ["logits", "(3, 0)", "one for each class"]),
    "no rows": (lambda z: Predictions(z, []), LOGITS[:0], ["logits", "(0, 3)"]),
    "complex logits": (with_logits, LOGITS.astype(complex), ["logits", "complex128", "float32"]),
    "bool logits": (with_logits, LOGITS > 0, ["logits", "bool", "float32"]),
    "object logits": (with_logits, LOGITS.astype(object), ["logits", "object", "float32"]),
    "text logits": (with_logits, LOGITS.astype(str), ["logits", "str", "float32"]),
    "integers too large": (with_logits, np.full((3, 2), 2**25 + 1), ["logits", "int64", "float64"]),
    "a ragged list": (with_logits, [[1.0, 2.0], [3.0]], ["logits", "dense"]),
    "a sparse tensor": (with_logits, torch.eye(3).to_sparse(), ["logits", "Sparse", "dense"]),
    "an 8-bit tensor": (with_logits, torch.zeros(3, 3).to(torch.float8_e5m2), ["logits", "Float8", "dense"]),
    "no logits": (with_logits, None, ["logits", "()", "(N, K)"]),
    "one-hot targets": (with_targets, np.eye(3, dtype=int), ["targets", "(3, 3)", "argmax(1)"]),
    "soft targets": (with_targets, np.full((3, 3), 1 / 3), ["targets", "soft", "before mixing"]),
    "float targets": (with_targets, [0.0, 1.0, 2.0], ["targets", "float64", "astype(int)"]),
    "bool targets": (with_targets, [True, False, True], ["targets", "bool", "integers"]),
    "too few targets": (with_targets, [0, 1], ["targets", "(2,)", "(3,)"]),
    "a scalar target": (with_targets, 0, ["targets", "()", "(3,)"]),
    "two columns of targets": (with_targets, np.zeros((3, 2), int), ["targets", "(3, 2)", "(3,)"]),
    "a target too high": (
        with_targets,
        [0, 3, 7],
        ["2 are outside 0..2", "first is 3 at sample 1", "ignore_index="],
    ),
    "a negative target": (with_targets, [0, 1, -1], ["targets", "-1 at sample 2", "ignore_index="]),
    "a huge unsigned target": (
        with_targets,
        np.full(3, 2**64 - 1, "uint64"),
        ["targets", str(2**64 - 1), "3 classes", "np.asarray(targets).astype(np.int64)"],
    ),
    "nothing but ignored": (
        with_targets,
        [-100] * 3,
        ["no sample is left", "3", "ignore_index=-100", "None"],
    ),
    "too few ids": (with_ids, [1, 2], ["sample_ids", "(2,)", "(3,)"]),
    "float ids": (with_ids, [1.0, 2.0, 3.0], ["sample_ids", "float64", "integers or text"]),
    "bool ids": (with_ids, [True, False, True], ["sample_ids", "bool", "integers or text"]),
    "mixed ids": (with_ids, ["a", 1, "b"], ["sample_ids", "1 is not text", "all integers or all text"]),
    "ids of tuples": (with_ids, pd.Series([(1, 2), (1, 3), (1, 4)]), ["sample_ids", "(1, 2)", "all text"]),
    "ragged ids": (with_ids, [["a"], ["b", "c"], []], ["sample_ids", "one integer or text for each row"]),
    "huge ids": (with_ids, np.array([1, 2, 2**63], "uint64"), ["sample_ids", str(2**63), "as text"]),
    "endless ids": (
        with_ids,
        ["a", "b", "c" * 257],
        ["sample_ids", "ccc", "257 characters", "shorten it to 256"],
    ),
    "ids with NUL": (with_ids, ["a", "b", "c\0d"], ["sample_ids", r"'c\x00d'", "NUL", "remove"]),
    "bytes that are no text": (with_ids, [b"a", b"b", b"\xff"], ["sample_ids", "UTF-8", "decode"]),
    "too few names": (
        lambda n: Predictions(LOGITS, TARGETS, class_names=n),
        ["a", "b"],
        ["class_names", "2", "3", "one per column"],
    ),
    "a string of names": (
        lambda n: Predictions(LOGITS, TARGETS, class_names=n),
        "abc",
        ["class_names='abc'", "3"],
    ),
    "names of numbers": (
        lambda n: Predictions(LOGITS, TARGETS, class_names=n),
        [1, 2, 3],
        ["class_names=[1, 2, 3]"],
    ),
    "a set of names": (
        lambda n: Predictions(LOGITS, TARGETS, class_names=n),
        {"a"},
        ["class_names={'a'}", "list"],
    ),
    "groups of another number of rows": (
        lambda g: Predictions(LOGITS, TARGETS, groups=g),
        ["a", "b"],
        ["groups has shape (2,)", "(3,)"],
    ),
    "groups of fractions": (
        lambda g: Predictions(LOGITS, TARGETS, groups=g),
        [0.5, 1, 2],
        ["groups has dtype float64", "integers or text"],
    ),
    "groups of a ragged list": (
        lambda g: Predictions(LOGITS, TARGETS, groups=g),
        [["a"], ["b", "c"], []],
        ["groups can't be made an array", "one integer or text for each row"],
    ),
    "a sample in two groups": (
        lambda g: Predictions(LOGITS[[0, 1, 1]], TARGETS[[0, 1, 1]], sample_ids=[5, 7, 7], groups=g),
        ["a", "b", "c"],
        ["groups: 1 rows", "is 7", "one group"],
    ),
    "an unknown task": (
        lambda t: Predictions(LOGITS, TARGETS, task=t),
        "regression",
        ["task='regression'", "'multilabel'"],
    ),
    "three columns of a yes or no": (
        lambda t: Predictions(LOGITS, TARGETS, task=t),
        "binary",
        ["task='binary'", "3 columns", "two for each row"],
    ),
    "fewer rows before some were drawn": (
        lambda n: Predictions(LOGITS, TARGETS, total_rows=n),
        2,
        ["total_rows=2", "at least 3"],
    ),
    "half a row": (
        lambda n: Predictions(LOGITS, TARGETS, total_rows=n),
        4.5,
        ["total_rows=4.5", "whole number"],
    ),
    "an unknown source": (
        lambda s: Predictions(LOGITS, TARGETS, id_source=s),
        "me",
        ["id_source='me'", "sampler"],
    ),
}


@pytest.mark.parametrize(("make", "value", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused_by_argument_value_and_remedy(make, value, words):
    with pytest.raises(ConfshiftError) as refusal:
        make(value)
    for word in words:
        assert word in str(refusal.value)


def test_negative_targets_that_became_unsigned_are_accepted_as_the_message_says():
    targets = np.array([0, -100, 2]).astype(np.uint64)
    with pytest.raises(ConfshiftError) as refusal:
        with_targets(targets)
    remedy = str(refusal.value).split("pass ")[-1]
    predictions = with_targets(eval(remedy))
    assert (predictions.targets.tolist(), predictions.ignored_samples) == ([0, 2], 1)


# --------------------------------------------------------------------------------- what the logits may be
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4", ">f8"])
def test_floats_are_kept_to_the_bit(dtype):
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(dtype)
    p = Predictions(logits, [0, 1, 2, 0])
    assert p.logits.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(p.logits, logits)
    assert p.source_dtype == np.dtype(dtype).name


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64"])
def test_integers_become_float32_where_that_is_exact(dtype):
    logits = np.arange(6).reshape(2, 3).astype(dtype)
    p = Predictions(logits, [0, 1])
    assert p.logits.dtype == np.float32
    np.testing.assert_array_equal(p.logits, logits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_tensors_are_taken_with_gradient_and_without_loss(dtype):
    tensor = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    tensor.requires_grad_()
    p = Predictions(tensor, torch.tensor([0, 1, 2, 0]))
    assert p.source_dtype == dtype
    assert p.logits.dtype == ("float32" if dtype == "bfloat16" else dtype)
    assert torch.equal(torch.from_numpy(p.logits).to(tensor.dtype), tensor.detach())


@pytest.mark.parametrize(
    "view",
    [
        lambda z: np.asfortranarray(z),
        lambda z: np.repeat(np.repeat(z, 2, axis=0), 3, axis=1)[::2, ::3],
        lambda z: z[::-1][::-1],
        lambda z: z.T.copy().T,
        lambda z: pd.DataFrame(z),
        lambda z: z.tolist(),
        lambda z: torch.from_numpy(z.T.copy()).t(),
    ],
)
def test_any_memory_layout_gives_the_same_contiguous_rows(view):
    p = Predictions(view(LOGITS), TARGETS)
    np.testing.assert_array_equal(p.logits, LOGITS)
    assert p.logits.flags.c_contiguous


def test_nan_and_infinity_are_kept_to_the_bit():
    logits = LOGITS.copy()
    logits[0, 1], logits[1, 1], logits[2] = np.nan, -np.inf, [np.inf, -np.inf, 0]
    assert Predictions(logits, TARGETS).logits.tobytes() == logits.tobytes()


@pytest.mark.parametrize(
    "targets",
    [TARGETS[:, None], TARGETS.astype("uint16"), TARGETS.astype(">i8"), torch.tensor(TARGETS), [0, 1, 2]],
)
def test_targets_of_any_integer_type_and_as_a_column_become_int64(targets):
    p = Predictions(LOGITS, targets)
    assert p.targets.dtype == np.int64
    assert p.targets.tolist() == [0, 1, 2]


@pytest.mark.parametrize("samples", [1, 2])
def test_a_single_sample_and_absent_classes_are_fine(samples):
    p = Predictions(LOGITS[:samples], [1] * samples)
    assert len(p) == samples
    assert p.classes == 3  # by the width of the logits, whatever labels were seen


# ---------------------------------------------------------------------------------------------- samples
def test_rows_are_put_in_the_order_of_their_ids():
    p = with_ids([30, -5, 20])
    assert p.sample_ids.tolist() == [-5, 20, 30]
    assert p.targets.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(p.logits, LOGITS[[1, 2, 0]])
    assert p.id_source == "user"


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "äpfel", "a"],
        np.array(["b", "äpfel", "a"], object),
        pd.Series(["b", "äpfel", "a"]),
        np.char.encode(["b", "äpfel", "a"], "utf-8"),
        ("b", "äpfel", "a"),
    ],
)
def test_ids_may_be_text(ids):
    p = with_ids(ids)
    assert p.sample_ids.dtype.kind == "U"
    assert p.sample_ids.tolist() == ["a", "b", "äpfel"]
    assert p.targets.tolist() == [2, 0, 1]


def test_without_ids_the_position_is_the_id_and_is_called_so():
    p = Predictions(LOGITS, TARGETS)
    assert p.sample_ids.tolist() == [0, 1, 2]
    assert p.id_source == "order"
    assert repr(p) == "Predictions(3 samples, 3 classes, ids by order)"


def test_the_source_of_ids_can_be_named():
    assert Predictions(LOGITS, TARGETS, sample_ids=[1, 2, 3], id_source="sampler").id_source == "sampler"


@pytest.mark.parametrize("shift", [0.0, 9e-6, -9e-6])
def test_rows_that_repeat_an_id_and_agree_count_once(shift):
    logits = np.concatenate([LOGITS, LOGITS[[2, 0]] + shift])
    logits[[0, 4], 1] = np.nan
    logits[[2, 3], 0] = -np.inf
    p = Predictions(logits, [0, 1, 2, 2, 0], sample_ids=[7, 8, 9, 9, 7])
    assert p.sample_ids.tolist() == [7, 8, 9]
    assert p.duplicate_samples == 2
    np.testing.assert_array_equal(p.logits, logits[:3])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1.0, 2.0], [1.0, 2.1]),
        ([1.0, 2.0], [1.0, np.nan]),
        ([np.nan, 2.0], [1.0, 2.0]),
        ([-np.inf, 2.0], [-np.inf, 3.0]),
        ([-np.inf, 2.0], [np.inf, 2.0]),
        ([-np.inf, 2.0], [0.0, 2.0]),
    ],
)
@pytest.mark.parametrize("first", [7, "seven"])
def test_rows_that_repeat_an_id_and_disagree_are_refused(one, other, first):
    ids = [first, first, 8 if first == 7 else "eight"]
    with pytest.raises(ConfshiftError, match=rf"sample_ids: 1 rows repeat .* first is {first!r}; give each"):
        Predictions([one, other, [0.0, 5.0]], [1, 1, 0], sample_ids=ids)


def test_rows_that_repeat_an_id_with_another_target_are_refused():
    with pytest.raises(ConfshiftError, match=r"1 rows repeat an id .* another target, the first is 4"):
        Predictions(LOGITS[[0, 0, 1]], [0, 1, 1], sample_ids=[4, 4, 5])


def test_ignored_rows_are_left_out_and_counted():
    p = Predictions(LOGITS, [0, -100, 2])
    assert p.sample_ids.tolist() == [0, 2]
    assert p.ignored_samples == 1
    np.testing.assert_array_equal(p.logits, LOGITS[[0, 2]])


@pytest.mark.parametrize("ignore_index", [255, 0, -1])
def test_another_ignore_index_can_be_given(ignore_index):
    p = Predictions(LOGITS, [1, ignore_index, 2], ignore_index=ignore_index)
    assert p.targets.tolist() == [1, 2]


def test_without_an_ignore_index_every_row_counts():
    with pytest.raises(ConfshiftError, match="first is -100 at sample 1"):
        Predictions(LOGITS, [0, -100, 2], ignore_index=None)


def test_class_names_default_to_the_indices():
    assert Predictions(LOGITS, TARGETS).class_names == ("0", "1", "2")
    assert Predictions(LOGITS, TARGETS, class_names=["a", "<b>", "a"]).class_names == ("a", "<b>", "a")


# ---------------------------------------------------------------------------------------- probabilities
@pytest.mark.parametrize(
    ("dtype", "off"), [("float64", 0), ("float64", 9e-4), ("float32", 0), ("float16", 5e-3)]
)
@pytest.mark.parametrize("rows", [1, 64, 200])
def test_probabilities_are_refused_as_logits_by_name(rows, dtype, off):
    p = softmax(np.random.default_rng(0).normal(size=(rows, 5)), axis=1) * (1 + off)
    with pytest.raises(ConfshiftError, match=r"probabilities.*from_probabilities.*outputs='probabilities'"):
        Predictions(p.astype(dtype), np.zeros(rows, int))


def test_bfloat16_probabilities_are_refused_with_the_tolerance_of_half_precision():
    p = torch.softmax(torch.randn(200, 10, generator=torch.Generator().manual_seed(1)), 1).to(torch.bfloat16)
    assert (p.float().sum(1) - 1).abs().max() > 1e-3
    with pytest.raises(ConfshiftError, match="from_probabilities"):
        Predictions(p, torch.zeros(200, dtype=torch.long))


@pytest.mark.parametrize("odd", [[np.nan, 0.5], [np.inf, -np.inf], [3.0, 4.0]])
def test_probabilities_are_refused_beside_rows_that_are_ignored_or_not_finite(odd):
    targets = [0, 1, -100 if odd == [3.0, 4.0] else 0]
    with pytest.raises(ConfshiftError, match="from_probabilities"):
        Predictions([[0.5, 0.5], [0.2, 0.8], odd], targets)


@pytest.mark.parametrize(
    "rows",
    [
        [[0.5, 0.5], [0.2, 0.81]],  # one row does not sum to 1
        [[0.5, 0.5], [-0.2, 1.2]],  # one is negative
        [[np.nan, 0.5], [np.inf, 0.5]],  # nothing finite to judge by
        [[1e308, 1e308], [0.5, 0.5]],
    ],
)
def test_rows_that_only_look_a_little_like_probabilities_are_logits(rows):
    np.testing.assert_array_equal(Predictions(rows, [0, 1]).logits, rows)


def test_a_glance_at_the_first_rows_does_not_decide():
    p = np.full((100, 2), 0.5)
    p[99] = [4.0, 1.0]
    assert len(Predictions(p, np.zeros(100, int))) == 100


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.sampled_from(["float32", "float64"]))
def test_softmax_of_what_from_probabilities_keeps_gives_the_probabilities_back(seed, classes, dtype):
    p = softmax(np.random.default_rng(seed).normal(0, 3, (4, classes)), axis=1).astype(dtype)
    kept = Predictions.from_probabilities(p, [0] * 4)
    assert kept.logits.dtype == dtype
    np.testing.assert_allclose(softmax(kept.logits, axis=1), p, rtol=20 * np.finfo(dtype).eps)


def test_half_precision_probabilities_get_single_precision_logarithms():
    p = np.array([[0.25, 0.75], [0.9, 0.1]], np.float16)
    kept = Predictions.from_probabilities(p, [0, 1])
    np.testing.assert_array_equal(kept.logits, np.log(p.astype(np.float32)))


def test_a_probability_of_exactly_zero_becomes_minus_infinity_and_is_not_clipped():
    p = Predictions.from_probabilities([[1.0, 0.0], [0.25, 0.75]], [1, 1])
    assert p.logits[0].tolist() == [0.0, -np.inf]


@pytest.mark.parametrize(
    ("rows", "row", "total"),
    [
        ([[0.5, 0.5], [0.5, 0.6]], 1, r"1.1\): a sigmoid for each class"),
        ([[-0.5, 1.5], [0.5, 0.5]], 0, r"1\): pass logits to Predictions"),
        ([[2.0, 1.0], [5.0, 1.0]], 0, r"3\): pass logits to Predictions"),
    ],
)
def test_what_are_no_probabilities_is_refused_with_the_row(rows, row, total):
    message = rf"probabilities: \d rows .* \(row {row} sums to {total}"
    with pytest.raises(ConfshiftError, match=message):
        Predictions.from_probabilities(rows, [0, 0])


def test_rows_of_probabilities_that_are_not_finite_are_kept():
    p = Predictions.from_probabilities([[np.nan, 0.5], [np.inf, -np.inf], [0.5, 0.5]], [0, 0, 0])
    assert np.isnan(p.logits[:2]).any(axis=1).all()


def test_from_probabilities_passes_everything_else_on():
    p = Predictions.from_probabilities(
        [[0.1, 0.9]] * 3,
        [0, 7, 1],
        sample_ids=["b", "c", "a"],
        class_names=["no", "yes"],
        ignore_index=7,
        id_source="sampler",
        groups=[1, 1, 2],
        task="multiclass",
        total_rows=9,
    )
    assert p.sample_ids.tolist() == ["a", "b"]
    assert (p.groups.tolist(), p.task, p.total_rows) == ([2, 1], "multiclass", 9)
    assert (p.class_names, p.id_source, p.ignored_samples) == (("no", "yes"), "sampler", 1)


# ------------------------------------------------------------------------------------------ fingerprint
def fingerprint(ids, targets, classes=3):
    logits = np.random.default_rng(0).normal(size=(len(ids), classes))
    return Predictions(logits, targets, sample_ids=ids).fingerprint


def test_the_fingerprint_is_that_of_the_same_samples_in_any_order_with_any_logits():
    assert fingerprint([5, 6, 7], [0, 1, 1]) == fingerprint([7, 5, 6], [1, 0, 1])
    assert fingerprint(["a", "b"], [0, 1]) == fingerprint(["b", "a"], [1, 0])


@pytest.mark.parametrize(
    ("ids", "targets", "classes"),
    [
        ([5, 6, 7], [1, 0, 1], 3),  # two samples swapped their labels: the labels as a set are the same
        ([5, 6, 8], [0, 1, 1], 3),  # a sample was exchanged for another one with the same label
        ([5, 6], [0, 1], 3),
        ([5, 6, 7], [0, 1, 1], 4),
        (["5", "6", "7"], [0, 1, 1], 3),
    ],
)
def test_the_fingerprint_tells_other_samples_labels_and_classes(ids, targets, classes):
    assert fingerprint(ids, targets, classes) != fingerprint([5, 6, 7], [0, 1, 1])


def test_the_fingerprint_of_text_does_not_run_ids_together():
    assert fingerprint(["ab", "c"], [0, 0]) != fingerprint(["a", "bc"], [0, 0])


@pytest.mark.parametrize(
    ("ids", "targets", "words"),
    [
        ([1, 2, 3], [0, 1, 1], []),
        ([1, 2], [0, 1], ["3 samples before and 2 now", "1 are missing", "0 are new", "sample 3"]),
        ([1, 2, 4], [0, 1, 1], ["1 are missing", "1 are new", "sample 3"]),
        ([1, 2, 3, 9], [0, 1, 1, 0], ["0 are missing", "1 are new", "sample 9"]),
        ([1, 2, 3], [0, 2, 2], ["targets of 2 of 3 samples", "sample 2: 1 before, 2 now", "sample_ids="]),
        (["1", "2", "3"], [0, 1, 1], ["were integers", "now text"]),
    ],
)
def test_a_difference_between_two_sets_of_samples_is_said_with_an_example(ids, targets, words):
    said = describe_difference(
        (np.array([1, 2, 3]), np.array([0, 1, 1]), None), (np.array(ids), np.array(targets), None)
    )
    assert bool(said) == bool(words)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (None, ["had groups and have none now", "same groups="]),
        ([4, 4, 5], ["groups of 1 of 3", "sample 2: 5 before, 4 now"]),
        (["4", "5", "5"], ["groups of 3 of 3"]),
    ],
)
def test_other_groups_of_the_same_samples_are_said_with_an_example(groups, words):
    ids, targets = np.array([1, 2, 3]), np.array([0, 1, 1])
    known = ids, targets, np.array([4, 5, 5])
    now = ids, targets, None if groups is None else np.array(groups)
    for word in words:
        assert word in describe_difference(known, now)
    assert describe_difference(known, known) == ""
    assert "had no groups" in describe_difference((ids, targets, None), known)


# --------------------------------------------------------------------------------- groups, tasks and labels
@pytest.mark.parametrize("groups", [["b", "a", "b"], [7, -1, 7], np.array([2**40, 3, 2**40])])
def test_groups_follow_their_rows(groups):
    ids = [30, 10, 20]
    predictions = Predictions(LOGITS, TARGETS, sample_ids=ids, groups=groups)
    group_of = dict(zip(ids, np.asarray(groups).tolist(), strict=True))
    assert predictions.groups.tolist() == [group_of[one] for one in predictions.sample_ids.tolist()]
    assert Predictions(LOGITS, TARGETS).groups is None


def test_rows_that_are_left_out_take_their_groups_with_them():
    rows = [0, 1, 2, 2, 1]
    predictions = Predictions(
        LOGITS[rows], np.array([0, -100, 2, 2, -100]), sample_ids=rows, groups=["a", "b", "c", "c", "d"]
    )
    assert predictions.groups.tolist() == ["a", "c"]


def test_the_fingerprint_tells_groups():
    prints = {
        Predictions(LOGITS, TARGETS, groups=groups).fingerprint
        for groups in (None, [0, 0, 1], [0, 1, 1], ["0", "0", "1"])
    }
    assert len(prints) == 4


def test_the_rows_of_a_multi_label_task_are_its_labels_answered_by_no_or_yes():
    ids = np.arange(4)[:, None] * 4 + np.arange(3)  # the rule that the docstring states, for three labels
    predictions = Predictions(
        np.c_[np.zeros(12), np.arange(12.0) - 6],
        np.arange(12) % 2,
        sample_ids=ids.ravel(),
        task="multilabel",
        label_names=["cat", "dog", "horse"],
    )
    assert predictions.class_names == ("no", "yes")
    assert label_numbers(predictions.sample_ids, 3).tolist() == [0, 1, 2] * 4


@given(st.integers(1, 2000), st.data())
def test_the_id_of_a_row_says_which_of_the_labels_it_is_of(labels, data):
    sample, label = data.draw(st.integers(-(2**40), 2**40)), data.draw(st.integers(0, labels - 1))
    assert label_numbers(np.array([sample * places(labels) + label]), labels).tolist() == [label]


@pytest.mark.parametrize(
    ("task", "names", "ids", "words"),
    [
        (
            "multilabel",
            ["cat", "dog", "horse"],
            [0, 1, 3],
            ["3 names", "1 sample_ids", "3 of label 3", "* 4"],
        ),
        ("multilabel", ["cat", "dog"], ["a", "b", "c"], ["integer sample_ids", "sample * 2 + label"]),
        ("multilabel", "cat", [0, 1, 2], ["label_names='cat'", "list of text"]),
        ("multilabel", [1, 2], [0, 1, 2], ["label_names=[1, 2]", "list of text"]),
        ("binary", ["cat"], [0, 1, 2], ["task is 'binary'", "class_names"]),
    ],
)
def test_names_of_labels_that_fit_no_row_are_refused(task, names, ids, words):
    with pytest.raises(ConfshiftError) as refusal:
        Predictions(LOGITS[:, :2], [0, 1, 0], sample_ids=ids, task=task, label_names=names)
    for word in words:
        assert word in str(refusal.value)


def test_a_class_name_that_is_no_text_is_refused():
    with pytest.raises(ConfshiftError, match=r"class_names\[1\]='caf.udce9' can't be written"):
        Predictions(3 * np.eye(2), np.arange(2), class_names=["tea", "caf\udce9"])
    assert Predictions(3 * np.eye(2), np.arange(2), class_names=["thé", "猫"]).class_names == ("thé", "猫")
