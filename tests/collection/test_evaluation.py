"""The rows of several ranks become one evaluation, with the groups that each row is of."""

import json

import numpy as np
import pytest
import torch

from confshift import ConfshiftError
from confshift.collection.evaluation import Evaluation, together
from confshift.collection.place import _shard, _words


def shard(ids, groups, **more):
    logits = np.asarray(ids, np.float32)[:, None] * [1.0, -1.0]
    return Evaluation(
        logits, np.asarray(ids) % 2, np.asarray(ids), "user", torch.float32, groups=groups, **more
    )


def test_each_row_keeps_its_group_in_the_order_of_the_ids():
    shards = [shard([4, 0, 2], ["b", "a", "a"]), shard([1, 3], ["a", "b"]), shard([3], ["b"])]
    joined, replaced = together(shards)
    predictions = joined.predictions("logits", None, None)
    assert (predictions.sample_ids.tolist(), predictions.groups.tolist()) == ([0, 1, 2, 3, 4], list("aaabb"))
    assert (replaced, predictions.duplicate_samples) == (0, 1)


def test_what_the_rows_are_goes_with_them():
    parts = [shard([0, 1], [0, 0], task="tokens", total_rows=5), shard([2], [1], task="tokens", total_rows=4)]
    received = [_shard(part.arrays, json.loads(json.dumps(_words(part)))) for part in parts]
    predictions = together(received)[0].predictions("logits", None, None)
    assert (predictions.task, predictions.total_rows, predictions.groups.tolist()) == ("tokens", 9, [0, 0, 1])


def test_a_rank_without_groups_beside_others_is_refused():
    with pytest.raises(ConfshiftError, match="some ranks say which group"):
        together([shard([0], ["a"]), shard([1], None)])
