"""Several ranks, real processes: one checkpoint of all samples, errors on all ranks, no endless wait."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rank_scenarios import names_of, tagged
from torch.utils.data import DataLoader
from toy_training import TARGETS, make_loader, make_model, true_logits

from confshift import ConfshiftError, Run, diagnose, inspect
from forked_ranks import results_of, started

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return started(HERE / "rank_scenarios.py", tmp_path_factory.mktemp("ranks"))


@pytest.fixture
def results(folder):
    return lambda scenario: results_of(folder, scenario)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    checkpoint = inspect(make_model(), make_loader(), run=tmp_path_factory.mktemp("alone") / "run")
    return checkpoint.predictions


def assert_whole(seen, alone):
    np.testing.assert_array_equal(seen["ids"], alone.sample_ids)
    np.testing.assert_array_equal(seen["targets"], alone.targets)
    np.testing.assert_allclose(seen["logits"], alone.logits, atol=1e-6)
    assert (seen["logits"].argmax(1) == alone.logits.argmax(1)).all()


def test_every_rank_returns_the_one_checkpoint_of_all_samples(results, folder, alone):
    ranks, _ = results("shards")
    for checkpoints in ranks:
        for epoch, seen in enumerate(checkpoints, 1):
            assert_whole(seen, alone)
            assert (seen["epoch"], seen["duplicates"], seen["in_memory"]) == (epoch, 1, False)
            np.testing.assert_array_equal(seen["logits"], ranks[0][0]["logits"])
    run = Run(folder / "shards" / "run")
    assert (run.splits, run.epochs) == (("val",), (1, 2))
    assert run.verify()["sound"].all()


def test_rows_that_do_not_depend_on_their_batch_are_those_of_one_process_to_the_bit(results):
    (ranks, *_), _ = results("named_rows")
    assert ranks["equal"]


def test_shards_may_be_shuffled_and_splits_follow_each_other(results, alone):
    for checkpoints in results("shuffled_shards_of_a_training_and_a_validation_set")[0]:
        for seen in checkpoints:
            assert_whole(seen, alone)


def test_there_may_be_more_ranks_than_samples(results):
    for padded, few in results("more_ranks_than_samples")[0]:
        assert padded["ids"].tolist() == [0, 1, 2, 3, 4]
        assert padded["duplicates"] == 3
        assert few["ids"].tolist() == [0, 1, 2]
        np.testing.assert_allclose(few["logits"], true_logits(make_model())[:3], atol=1e-6)


def test_the_tokens_of_all_ranks_are_those_of_one_process(results, tmp_path):
    ranks, _ = results("tokens")
    model, data = tagged()
    options = {"sample_ids": names_of, "check": False}
    for place, rows in enumerate((None, 40)):
        loader = DataLoader(data, 23)
        alone = inspect(model, loader, run=tmp_path / str(rows), rows=rows, **options).predictions
        for seen in ranks:
            ids, logits, groups, total, _ = seen[place]
            np.testing.assert_array_equal(ids, alone.sample_ids)
            np.testing.assert_array_equal(logits, alone.logits)
            np.testing.assert_array_equal(groups, alone.groups)
            assert total == alone.total_rows == (0 if rows is None else int((data.tensors[1] >= 0).sum()))


def test_a_run_without_a_name_is_one_folder(results):
    ranks, _ = results("one_folder_without_a_name")
    assert ranks[0] == ranks[1]
    assert len(ranks[0]) == 1


def test_with_all_samples_on_each_rank_the_first_alone_saves(results, folder, alone):
    (first, second), _ = results("a_loader_of_all_samples")
    for seen in [*first, *second]:
        assert_whole(seen, alone)
        assert seen["duplicates"] == 0
    assert [seen["in_memory"] for seen in first + second] == [False] * 3 + [True] * 2
    assert np.isnan([seen["epoch"] for seen in second]).all()
    run = Run(folder / "a_loader_of_all_samples" / "run")
    assert (run.epochs, run.epochs_of("alone")) == ((1, 2), (2,))


def test_what_one_rank_refuses_is_refused_on_all_in_the_same_call(results):
    ((first, calls, epochs), (second, other_calls, _)), _ = results("refusals")
    assert "outputs='logit'" in second[0][1]
    assert first[0][1].startswith("val: rank 1 of 2: outputs='logit'")
    assert calls == other_calls == 0  # no rank had begun its pass
    assert first[1][1].startswith("epoch=-1")
    assert second[1][1].startswith("val: rank 0 of 2: epoch=-1")
    assert second[2][:2] == ("FloatingPointError", "a model that fails")
    assert first[2][1] == "val: rank 1 of 2: FloatingPointError: a model that fails"
    for answers in (first, second):
        assert "the targets of 73 of 103 samples changed" in answers[3][1]
        assert "(3 of float32; 4 of float32)" in answers[4][1]
        assert answers[5] == ("", "", 0.0)
    assert epochs == (3, 6)


def test_a_rank_that_does_not_come_is_named_on_all_and_the_training_can_go_on(results, alone):
    ranks, _ = results("a_rank_that_does_not_come")
    for (kind, message, _), seen, epochs in ranks:
        assert kind == ConfshiftError.__name__
        assert "rank 1 of 2 did not come within 0.4 s" in message
        assert_whole(seen, alone)
        assert epochs == (1, 2)


def test_a_rank_that_is_killed_ends_the_wait_of_the_others_and_leaves_the_run_whole(results, folder):
    ranks, _ = results("a_rank_that_is_killed")
    assert len(ranks) == 2
    for (kind, message, _), epochs in ranks:
        assert kind == ConfshiftError.__name__
        assert "rank 2 of 3" in message
        assert epochs == (1,)
    assert Run(folder / "a_rank_that_is_killed" / "run").verify()["sound"].all()


def test_buffers_that_differ_between_ranks_fail_a_check_and_copies_follow_the_lowest_rank(results, folder):
    (first, second), (logged, _) = results("buffers_that_differ")
    assert first["checks"]["buffers"]["status"] == second["checks"]["buffers"]["status"] == "failed"
    findings = diagnose(Run(folder / "buffers_that_differ" / "run"))
    finding = next(one for one in findings if one.code == "evaluates_plainly")
    assert (finding.verdict, finding.answer) == ("no", "The processes evaluate different models")
    assert any("buffers differ between the ranks" in message for message in logged)
    assert any("1 copies of samples differ" in message for message in logged)
    expected = true_logits(make_model())
    expected[1::2] += np.arange(3)  # sample 0, which rank 1 has a copy of, is rank 0's
    np.testing.assert_allclose(first["logits"], expected, atol=1e-5)


def test_a_collector_on_every_rank_saves_the_rows_of_all(results, alone):
    for (by_loader, again, named), unsaid, by_order in results("collected")[0]:
        for epoch, seen in enumerate((by_loader, again), 1):
            assert_whole(seen, alone)
            assert (seen["epoch"], seen["duplicates"]) == (epoch, 1)
        assert named["ids"][5] == "image 005"
        np.testing.assert_array_equal(named["targets"], TARGETS)
        assert "pass loader=, or sharded=True" in unsaid[1]
        assert "pass sample_ids=" in by_order[1]


def test_what_cannot_be_saved_is_whole_in_memory_on_every_rank(results, alone):
    ranks, _ = results("a_full_disk")
    for seen, _ in ranks:
        assert_whole(seen, alone)
        assert seen["in_memory"]
        assert seen["duplicates"] == 1
    assert any("No space left" in message for message in ranks[0][1])
