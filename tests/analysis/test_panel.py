"""Checkpoints are stacked over the same samples or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from pairs import checkpoints, pairs, scored

from confshift.analysis.panel import Panel
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions


@pytest.fixture
def panel(make_logits):
    return stack(checkpoints(*make_logits(40, 4, 3)))


def test_the_arrays_are_the_columns_of_the_checkpoints(panel):
    for position, checkpoint in enumerate(panel.checkpoints):
        frame = checkpoint.columns
        for name in ("predicted", "hedge", "mistake", "confidence", "margin", "loss", "correct"):
            np.testing.assert_array_equal(getattr(panel, name)[position], frame[name])
        np.testing.assert_array_equal(panel.refinement[position], frame["refinement_loss"])
        np.testing.assert_array_equal(panel.calibration[position], frame["calibration_loss"])
        np.testing.assert_array_equal(panel.finite[position], frame["finite"])
    np.testing.assert_array_equal(panel.epochs, [0, 1, 2])


@given(pairs())
def test_finite_marks_the_rows_that_can_be_scored(data):
    before, after, targets = data
    panel = stack(checkpoints([before, after], targets))
    np.testing.assert_array_equal(panel.finite.all(axis=0), scored(before, after, targets))


def test_some_of_the_samples_are_a_panel_of_their_own(panel):
    some = np.arange(40) % 3 == 0
    part = panel.take(some)
    np.testing.assert_array_equal(part.loss, panel.loss[:, some])
    np.testing.assert_array_equal(part.sample_ids, panel.sample_ids[some])
    assert panel.take(np.ones(40, bool)) is panel


def test_classes_of_one_name_are_told_apart():
    logits = np.zeros((2, 3))
    panel = stack(checkpoints([logits], [0, 1], class_names=["cat", "dog", "cat"]))
    assert panel.class_labels.tolist() == ["cat #0", "dog", "cat #2"]


def test_nothing_to_stack_is_refused():
    with pytest.raises(ConfshiftError, match="checkpoints is empty; inspect"):
        stack([])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Predictions(np.zeros((4, 3)), [0, 1, 2, 0]), "5 samples before and 4 now: 1 are missing, 0 are new"),
        (Predictions(np.zeros((6, 3)), [0, 1, 2, 0, 1, 1]), "5 samples before and 6 now: 0 are missing, 1"),
        (Predictions(np.zeros((5, 3)), [0, 2, 1, 0, 1]), "the targets of 2 of 5 samples changed"),
        (Predictions(np.zeros((5, 4)), [0, 1, 2, 0, 1]), "has 4 classes and .* has 3"),
        (
            Predictions(np.zeros((5, 3)), [0, 1, 2, 0, 1], sample_ids=list("abcde")),
            "the sample ids were integers and are now text",
        ),
        (
            Predictions(np.zeros((5, 3)), [0, 1, 2, 0, 1], sample_ids=[0, 1, 2, 3, 9]),
            "1 are missing, 1 are new .for instance sample 4.",
        ),
    ],
)
def test_other_samples_are_refused_saying_how_many(other, message):
    first = Checkpoint.from_predictions(Predictions(np.zeros((5, 3)), [0, 1, 2, 0, 1]), epoch=1)
    with pytest.raises(ConfshiftError, match=message):
        stack([first, Checkpoint.from_predictions(other, epoch=2)])


def named(*all_names):
    """Make checkpoints of the same five samples, each with its own class names (None: the default ones)."""
    each = [Predictions(np.zeros((5, 3)), [0, 1, 2, 0, 1], class_names=names) for names in all_names]
    return [Checkpoint.from_predictions(side, epoch=epoch) for epoch, side in enumerate(each)]


def test_class_names_in_another_order_are_refused_naming_the_first():
    message = (
        r"class_names: 2 of 3 differ; class 1 is 'dog' in Checkpoint\(epoch=0, .* and 'emu' in "
        r"Checkpoint\(epoch=2, .*order of classes; .* pass the same class_names"
    )
    with pytest.raises(ConfshiftError, match=message):
        stack(named(["cat", "dog", "emu"], ["cat", "dog", "emu"], ["cat", "emu", "dog"]))


def test_names_are_compared_across_checkpoints_that_have_none():
    with pytest.raises(ConfshiftError, match=r"class 0 is 'a' in .*epoch=1.* and 'b' in .*epoch=3"):
        stack(named(None, ["a", "b", "c"], None, ["b", "a", "c"]))


def test_targets_that_changed_with_the_order_of_the_classes_are_explained_by_the_names():
    one = Predictions(np.zeros((3, 2)), [0, 1, 1], class_names=["cat", "dog"])
    other = Predictions(np.zeros((3, 2)), [1, 0, 0], class_names=["dog", "cat"])
    with pytest.raises(ConfshiftError, match="class_names: 2 of 2 differ; class 0 is 'cat'"):
        stack([Checkpoint.from_predictions(side) for side in (one, other)])


@pytest.mark.parametrize("all_names", [(None, "abc"), ("abc", None), (None, None, "abc", None, "abc")])
def test_checkpoints_without_class_names_take_those_of_the_others(all_names):
    panel = stack(named(*(names and list(names) for names in all_names)))
    assert panel.class_names == ("a", "b", "c")


def test_the_order_in_which_samples_came_does_not_matter(make_logits):
    logits, targets = make_logits(30, 3, 1)
    order = np.random.default_rng(0).permutation(30)
    straight = Predictions(logits[0], targets, sample_ids=np.arange(30))
    shuffled = Predictions(logits[0][order], targets[order], sample_ids=order)
    panel = stack([Checkpoint.from_predictions(side, epoch=e) for e, side in enumerate((straight, shuffled))])
    np.testing.assert_array_equal(panel.loss[0], panel.loss[1])


def test_some_of_the_samples_have_counts_of_their_own(panel):
    silent = np.zeros((40, 4))
    silent[:10, 0] = np.nan
    panel = stack([*panel.checkpoints, *checkpoints([silent], panel.targets)])
    part = panel.take(np.arange(40) % 4 > 0)
    np.testing.assert_array_equal(part.counts.answered, part.answered.sum(axis=1))
    np.testing.assert_array_equal(part.at([3, 1]).counts.finite, part.finite[[3, 1]].sum(axis=1))
    np.testing.assert_array_equal(part.at_all(Panel.answered), part.answered.all(axis=0))
    assert not part.all_finite
