"""Collector: rows from a loop of the user's own, as `inspect` would have saved them."""

from __future__ import annotations

import gc
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset, TensorDataset
from toy_training import (
    FEATURES,
    INPUTS,
    SAMPLES,
    TARGETS,
    make_batches,
    make_loader,
    make_model,
    true_logits,
)

from confshift import Collector, ConfshiftError, Run, inspect
from confshift.collection import buffers


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def collect(collector, loader, model=None):
    model = (model or make_model()).eval()
    with torch.no_grad():
        for inputs, targets in loader:
            collector.add(model(inputs), targets)
    return collector


@pytest.mark.parametrize(
    "loader",
    [
        make_loader(),
        make_loader(shuffle=True),
        make_loader(shuffle=True, num_workers=2, persistent_workers=True),
        DataLoader(
            TensorDataset(INPUTS, TARGETS), batch_sampler=BatchSampler(range(SAMPLES - 1, -1, -1), 7, False)
        ),
        DataLoader(Subset(TensorDataset(INPUTS, TARGETS), range(50, 103)), 8, shuffle=True),
        DataLoader(TensorDataset(INPUTS, TARGETS), 16, shuffle=True, drop_last=False),
    ],
    ids=["in order", "shuffled", "persistent workers", "batch sampler", "subset", "another shuffled"],
)
def test_it_saves_what_inspect_saves(run, tmp_path, loader):
    inspected = inspect(make_model(), loader, run=tmp_path / "inspected").predictions
    for epoch in (1, 2):
        collected = collect(Collector(run, loader=loader), loader).save(metadata={"lr": 0.1})
        rows = collected.predictions
        np.testing.assert_array_equal(rows.sample_ids, inspected.sample_ids)
        np.testing.assert_array_equal(rows.targets, inspected.targets)
        np.testing.assert_allclose(rows.logits, inspected.logits, atol=1e-6)
        assert (collected.epoch, rows.id_source) == (epoch, "sampler")
    assert [checkpoint.metadata["lr"] for checkpoint in run.checkpoints()] == [0.1, 0.1]


def test_ids_of_the_users_own_come_first(run):
    collector, loader = Collector(run), make_loader(shuffle=True)
    model = make_model().eval()
    for indices in torch.randperm(SAMPLES).split(9):
        collector.add(model(INPUTS[indices]), TARGETS[indices], sample_ids=indices)
    rows = collector.save().predictions
    assert rows.id_source == "user"
    np.testing.assert_allclose(rows.logits, true_logits(model), atol=1e-6)
    assert loader.batch_sampler.__class__ is BatchSampler


def test_without_loader_and_ids_the_position_is_the_id(run):
    rows = collect(Collector(run), make_batches()).save().predictions
    assert rows.id_source == "order"
    np.testing.assert_allclose(rows.logits, true_logits(make_model()), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_floating_point_will_do(run, dtype):
    collector = Collector(run)
    for inputs, targets in make_batches():
        collector.add(make_model()(inputs).to(dtype), targets.int())
    assert collector.save().provenance.source_dtype == str(dtype).removeprefix("torch.")


def test_lists_arrays_probabilities_and_ignored_samples(run):
    collector = Collector(run, outputs="probabilities", class_names=["a", "b"], split="test", epoch=3)
    collector.add([[0.9, 0.1], [0.2, 0.8]], [0, -100])
    collector.add(np.array([[0.5, 0.5]], np.float32), np.array([1]))
    checkpoint = collector.save(logged={"loss": 0.4})
    assert (checkpoint.epoch, checkpoint.split, checkpoint.class_names) == (3, "test", ("a", "b"))
    assert checkpoint.provenance.ignored_samples == 1
    assert checkpoint.provenance.logged == {"loss": 0.4}
    assert checkpoint.loss == pytest.approx(-(np.log(0.9) + np.log(0.5)) / 2)


def test_logits_that_need_a_gradient_are_copied_and_the_graph_stays(run):
    model, collector = make_model(), Collector(run)
    logits = model(INPUTS)
    collector.add(logits, TARGETS)
    kept = logits.detach().clone()
    logits.sum().backward()
    with torch.no_grad():
        logits.zero_()
    np.testing.assert_array_equal(collector.save().predictions.logits, kept.numpy())


def refused(function, *args, **options):
    with pytest.raises(ConfshiftError) as caught:
        function(*args, **options)
    return str(caught.value)


def test_nothing_added_is_an_error_and_saves_nothing(run):
    assert "nothing was added: call add(logits, targets)" in refused(Collector(run).save)
    assert not run.exists()


def test_a_collector_saves_once(run):
    collector = collect(Collector(run), make_batches())
    collector.save()
    for again in (collector.save, lambda: collector.add([[1.0, 2.0]], [0])):
        assert "make a new Collector for each evaluation" in refused(again)
    assert run.epochs == (1,)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_of_a_pass_is_refused_and_names_both_numbers(run, workers):
    loader = make_loader(num_workers=workers)
    collector = collect(Collector(run, loader=loader), islice(loader, 4))
    message = refused(collector.save)
    assert "the rows are not the loader's: 4 batches were added" in message
    assert "a pass over it has 7" in message
    assert not run.exists()


def test_as_many_batches_as_the_sampler_has_are_whole_however_the_loop_ends(run):
    loader = make_loader(shuffle=True)
    assert len(collect(Collector(run, loader=loader), islice(loader, 7)).save()) == SAMPLES


def test_more_rows_than_the_loader_gave_are_refused(run):
    loader = make_loader()
    collector = collect(Collector(run, loader=loader), loader)
    assert "the sampler gave 0 indices" in refused(collector.add, torch.zeros(16, 3), TARGETS[:16])
    half = Collector(run, loader=loader)
    batch, targets = next(iter(loader))
    assert "holds 8 samples and the sampler gave 16" in refused(half.add, batch[:8, :3], targets[:8])


def test_a_loader_that_the_loop_does_not_use_is_refused(run):
    collector = Collector(run, loader=make_loader())
    assert "did not begin to iterate over loader=" in refused(collect, collector, make_batches())


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(INPUTS, TARGETS))


def test_a_stream_needs_ids(run):
    loader = DataLoader(Stream(), 16)
    message = refused(collect, Collector(run, loader=loader), loader)
    assert "the order of this DataLoader is not known from its sampler; pass sample_ids=" in message
    collector = Collector(run, loader=loader)
    for number, (inputs, targets) in enumerate(loader):
        ids = range(16 * number, 16 * number + len(inputs))
        collector.add(make_model()(inputs), targets, sample_ids=list(ids))
    assert len(collector.save()) == SAMPLES


@pytest.mark.parametrize("first", [None, [0, 1]])
def test_ids_come_with_all_batches_or_with_none(run, first):
    collector = Collector(run)
    collector.add([[1.0, 2.0], [2.0, 1.0]], [0, 1], sample_ids=first)
    other = [2, 3] if first is None else None
    assert "with some batches only" in refused(collector.add, [[1.0, 2.0]] * 2, [0, 1], sample_ids=other)


@pytest.mark.parametrize(
    ("logits", "targets", "options", "said"),
    [
        (torch.zeros(4, 3), torch.ones(4, 3), {}, "pass task='multilabel' to Collector"),
        (torch.zeros(4, 5, 3), torch.zeros(4, 6, dtype=int), {}, "pass add() a row"),
        (torch.zeros(4), torch.tensor([-1, 1, 1, 1]), {}, "collector.add(logits, (targets + 1) // 2)"),
        (torch.zeros(4, 3), torch.eye(3)[[0, 1, 2, 0]], {}, "collector.add(logits, targets.argmax(1))"),
        (torch.zeros(4, 3), torch.zeros(4), {}, "targets.long()"),
        (torch.zeros(4, 3), torch.zeros(5, dtype=int), {}, "pass add() a row of K logits and a class index"),
        (torch.zeros(4, 3, dtype=int), torch.zeros(4, dtype=int), {}, "floating point"),
        (
            torch.zeros(4, 3),
            torch.zeros(4, dtype=int),
            {"sample_ids": [1, 2]},
            "sample_ids has shape (2,) for 4 rows",
        ),
        ("logits", [1], {}, "can't be made a tensor"),
    ],
)
def test_other_forms_are_refused_with_the_call_that_converts_them(run, logits, targets, options, said):
    message = refused(Collector(run).add, logits, targets, **options)
    assert said in message
    assert "forward" not in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outputs": "logit"}, "outputs='logit': pass 'logits' or 'probabilities'"),
        ({"epoch": -1}, "epoch=-1"),
        ({"split": "a/b"}, "split='a/b'"),
        ({"timeout": 0}, "timeout=0: pass a number of seconds above 0"),
        ({"timeout": True}, "timeout=True"),
    ],
)
def test_bad_arguments_are_refused_before_the_loop(run, options, said):
    assert said in refused(Collector, run, **options)


def test_other_samples_than_before_are_refused(run):
    collect(Collector(run), make_batches()).save()
    collector = Collector(run)
    collector.add(make_model()(INPUTS), 2 - TARGETS)
    assert "these are not the samples that the split started with" in refused(collector.save)


# The loader is left as it was


def test_the_loader_gets_its_sampler_back_after_the_save_and_when_the_collector_is_forgotten(run):
    loader = make_loader(shuffle=True)
    original = loader.batch_sampler
    collector = collect(Collector(run, loader=loader), loader)
    assert loader.batch_sampler is not original
    collector.save()
    assert loader.batch_sampler is original
    collector = Collector(run, loader=loader)
    del collector
    gc.collect()
    assert loader.batch_sampler is original


def test_a_collector_given_up_in_the_middle_does_not_disturb_the_next(run):
    loader = make_loader(shuffle=True)
    original = loader.batch_sampler
    given_up = collect(Collector(run, loader=loader), islice(loader, 2))
    following = Collector(run, loader=loader)
    del given_up
    gc.collect()
    assert len(collect(following, loader).save()) == SAMPLES
    assert loader.batch_sampler is original


def test_inspect_may_look_at_a_loader_that_a_collector_watches(run, tmp_path):
    loader = make_loader(shuffle=True)
    collector = Collector(run, loader=loader)
    inspect(make_model(), loader, run=tmp_path / "other")
    assert len(collect(collector, loader).save()) == SAMPLES


def test_many_classes_reuse_the_memory_of_earlier_passes(run, monkeypatch):
    taken = []
    take = buffers.take
    monkeypatch.setattr(buffers, "take", lambda *args: taken.append(take(*args)) or taken[-1])
    assert FEATURES
    for _ in range(6):  # saves of other tests may still give arrays back, of which four are kept
        collect(Collector(run, loader=(loader := make_loader())), loader).save()
        run.flush()
    assert len({array.data_ptr() for array in taken}) < len(taken)
