"""Two processes are one, in every trainer: real trainers, one checkpoint of all samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from needed import needed_elsewhere

from forked_ranks import results_of, started

needed_elsewhere("transformers", "accelerate", "lightning", "ignite")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    script = Path(__file__).with_name("trainer_scenarios.py")
    folder = started(script, tmp_path_factory.mktemp("trainers"), warnings="default")
    return lambda scenario: results_of(folder, scenario)


@pytest.mark.parametrize(
    ("scenario", "duplicates"),
    [
        ("transformers_shards", 25),
        ("transformers_dispatched_by_rank_0", 1),
        ("transformers_with_hidden_labels", 25),
        ("lightning_ddp", 1),
        ("ignite_shards_shuffled", 1),
    ],
)
def test_each_rank_has_the_rows_of_a_sequential_evaluation_of_all_samples(results, scenario, duplicates):
    (first, second), _ = results(scenario)
    np.testing.assert_array_equal(first["logits"], second["logits"])
    assert first["duplicates"] == second["duplicates"] == duplicates
    assert not first["in_memory"]


def test_batch_norm_of_each_rank_its_own_is_a_failed_check_and_a_warning(results):
    (first, second), (logged, _) = results("transformers_with_batch_norm")
    assert first["checks"]["buffers"]["status"] == second["checks"]["buffers"]["status"] == "failed"
    assert any("buffers differ between the ranks" in message for message in logged)


def test_inspect_on_every_process_knows_how_accelerate_shares_the_samples_out(results):
    ranks, logged = results("accelerate_prepared")
    for checkpoints, *_ in ranks:
        assert [seen["duplicates"] for seen in checkpoints] == [25, 0, 9, 1, 1]
    assert not any("different samples" in message for messages in logged for message in messages)


def test_an_order_that_only_rank_0_knows_is_refused_on_every_rank(results):
    for _, (kind, message, _), *_ in results("accelerate_prepared")[0]:
        assert kind == "ConfshiftError"
        assert "pass sample_ids=" in message


def test_inspect_on_the_main_process_alone_is_an_error_and_not_half_of_the_data(results):
    (*_, (kind, message, _), exists), _ = results("accelerate_prepared")[0]
    assert (kind, exists) == ("ConfshiftError", False)
    assert "rank 1 of 2 did not come" in message
    assert "every rank must make this call, not only the main process" in message
