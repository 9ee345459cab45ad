"""The rows of several ranks become one evaluation, with the groups that each row is of."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from confshift import ConfshiftError
from confshift.collection.evaluation import Evaluation, Population, together
from confshift.collection.layouts import Layout
from confshift.collection.place import _shard, _words


def shard(ids, groups=None, places=None, wanted=0, **more):
    ids = np.asarray(ids)
    logits = np.asarray(np.arange(len(ids)), np.float32)[:, None] * [1.0, -1.0]
    logits = logits.astype(np.float32)
    if places is not None:
        samples, counts = np.unique(ids, return_counts=True)
        more |= {"places": np.asarray(places), "population": Population(wanted, samples, counts)}
    groups = None if groups is None else np.asarray(groups)
    return Evaluation(logits, np.arange(len(ids)) % 2, ids, "user", torch.float32, groups=groups, **more)


def received(shards):
    """Return shards as another rank gets them: arrays, and words that went through JSON."""
    return [_shard([*part.arrays.values()], json.loads(json.dumps(_words(part)))) for part in shards]


def test_each_row_keeps_its_group_in_the_order_of_the_ids():
    first = Evaluation(
        np.array([[4, -4], [0, 0], [2, -2.0]]),
        np.array([0, 0, 0]),
        np.array([4, 0, 2]),
        "user",
        torch.float64,
        groups=np.array(["b", "a", "a"]),
    )
    others = [
        replace(
            first, ids=np.array(ids), groups=np.array(groups), logits=logits, targets=np.zeros(len(ids), int)
        )
        for ids, groups, logits in [
            ([1, 3], ["a", "b"], np.array([[1, -1], [3, -3.0]])),
            ([3], ["b"], np.array([[3, -3.0]])),
        ]
    ]
    joined, replaced = together(received([first, *others]))
    predictions = joined.predictions("logits", None, None)
    assert (predictions.sample_ids.tolist(), predictions.groups.tolist()) == ([0, 1, 2, 3, 4], list("aaabb"))
    assert predictions.logits[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (replaced, predictions.duplicate_samples) == (0, 1)


TOKENS = Layout("tokens", -1, 1)


@pytest.mark.parametrize("ids", [[7, 9, 8], ["c", "e", "d"]])
def test_the_rows_of_a_sample_find_each_other_whichever_rank_has_it(ids):
    """Text ids have the ranks of all samples for numbers, not of those of one process."""
    first, second, third = ids
    parts = [
        shard([third, first], places=[0, 3], layout=TOKENS, ignored=2),
        shard([second, second], places=[1, 0], layout=TOKENS, ignored=1),
    ]
    predictions = together(received(parts))[0].predictions("logits", None, None)
    numbers = [7, 8, 9, 9] if isinstance(first, int) else [0, 1, 2, 2]
    assert predictions.sample_ids.tolist() == [
        (number << 24) + place for number, place in zip(numbers, [3, 0, 0, 1], strict=True)
    ]
    assert predictions.groups.tolist() == [first, third, second, second]
    assert predictions.logits[:, 0].tolist() == [1, 0, 1, 0]
    assert (predictions.task, predictions.ignored_samples) == ("tokens", 3)


def test_copies_of_tokens_follow_the_lowest_rank():
    own = shard([7, 7], places=[0, 1], layout=TOKENS)
    copy = replace(own, logits=own.logits + np.float32([[1, 0]]))
    joined, replaced = together(received([own, copy]))
    predictions = joined.predictions("logits", None, None)
    assert (replaced, predictions.duplicate_samples) == (2, 2)
    assert np.array_equal(predictions.logits, own.logits)


def test_ranks_choose_the_rows_that_one_process_chooses_and_count_padding_once():
    ids, places = np.repeat(np.arange(40), 5), np.tile(np.arange(5), 40)
    one = together([shard(ids, places=places, wanted=30, layout=TOKENS)])[0]
    cut = [ids < 25, (ids >= 25) | (ids == 3)]  # sample 3 pads the second
    halves = [shard(ids[part], places=places[part], wanted=30, layout=TOKENS) for part in cut]
    # equal logits of the copies
    halves[1] = replace(halves[1], logits=np.zeros_like(halves[1].logits))
    both = together(received(halves))[0]
    chosen = [found.predictions("logits", None, None) for found in (one, both)]
    assert np.array_equal(chosen[0].sample_ids, chosen[1].sample_ids)
    assert [(len(found), found.total_rows) for found in chosen] == [(30, 200)] * 2


def test_a_rank_of_another_task_is_refused():
    with pytest.raises(ConfshiftError, match="of different tasks or forms"):
        together([shard([0], places=[0], layout=TOKENS), shard([1])])
