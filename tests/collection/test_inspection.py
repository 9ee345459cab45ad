"""One evaluation pass over a loader, then the save: `inspect` as its users meet it."""

from __future__ import annotations

import math
import os
import re
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import nn
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Subset, TensorDataset
from toy_training import (
    CLASSES,
    FEATURES,
    INPUTS,
    SAMPLES,
    TARGETS,
    assert_same_logits,
    make_batches,
    make_loader,
    make_model,
    true_logits,
)

from confshift import Checkpoint, ConfshiftError, Run, inspect
from confshift.collection import inspection
from confshift.storage.writer import _forget_writers


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


# What comes out


@pytest.mark.parametrize(
    "batches", [make_loader(), make_loader(shuffle=True), make_batches(), make_batches(1)]
)
def test_the_metrics_are_those_of_an_independent_evaluation(run, batches):
    model = make_model()
    metrics = inspect(model, batches, run=run).metrics()
    logits = true_logits(model)
    shares = np.exp(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    assert metrics["loss"] == pytest.approx(log_loss(TARGETS, shares), rel=1e-6)
    assert metrics["accuracy"] == accuracy_score(TARGETS, shares.argmax(1))
    assert metrics["confidence"] == pytest.approx(shares.max(1).mean(), rel=1e-6)
    assert metrics["samples"] == SAMPLES


def test_the_loss_is_not_the_mean_over_batches(run):
    model, losses = make_model().eval(), []
    with torch.no_grad():
        for inputs, targets in make_batches():
            losses.append(functional.cross_entropy(model(inputs), targets).item())
        exact = functional.cross_entropy(model(INPUTS), TARGETS).item()
    loss = inspect(model, make_loader(), run=run).metrics()["loss"]
    assert loss == pytest.approx(exact, rel=1e-6)
    assert loss != pytest.approx(np.mean(losses), rel=1e-4)


def test_what_is_saved_is_what_was_seen(run):
    model = make_model()
    checkpoint = inspect(
        model, make_loader(shuffle=True), run=run, epoch=3, metadata={"lr": 0.1}, logged={"val_loss": 1.5}
    )
    run.flush()
    read = Run(run.path)[3]
    for one in (checkpoint, read):
        assert_same_logits(one.predictions, model)
        assert (one.epoch, one.split, dict(one.metadata)) == (3.0, "val", {"lr": 0.1})
        assert dict(one.provenance.logged) == {"val_loss": 1.5}
        assert one.provenance.checks["repeatable"]["status"] == "passed"
    assert read.metrics() == pytest.approx(checkpoint.metrics(), rel=0, abs=0, nan_ok=True)
    assert read.provenance.versions["torch"] == torch.__version__


def test_epochs_are_counted_and_train_goes_with_the_newest_val(run):
    model = make_model()
    assert inspect(model, make_loader(), run=run, epoch=0).epoch == 0
    for epoch in (1, 2):
        assert inspect(model, make_loader(), run=run).epoch == epoch
        assert inspect(model, make_loader(), run=run, split="train").epoch == epoch
    assert run.epochs == (0, 1, 2)
    assert run.epochs_of("train") == (1, 2)


@pytest.mark.parametrize("form", [str, os.fspath, lambda path: path, Run])
def test_a_run_may_be_named_in_any_form(tmp_path, form):
    inspect(make_model(), make_batches(), run=form(tmp_path / "run"))
    assert Run(tmp_path / "run").epochs == (1,)


def test_earlier_checkpoints_keep_their_values_while_the_memory_is_used_again(run):
    checkpoints, expected = [], []
    model, loader = make_model(), make_loader()
    for epoch in range(6):
        with torch.no_grad():
            model[4].weight.mul_(1.3)
        expected.append(true_logits(model))
        checkpoints.append(inspect(model, loader, run=run))
        if epoch % 2:
            checkpoints.append(inspect(model, loader, run=run, split="train"))
            expected.append(expected[-1])
    for checkpoint, logits in zip(checkpoints, expected, strict=True):
        np.testing.assert_allclose(checkpoint.predictions.logits, logits, atol=1e-5)


# Forms of model and loader


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_logits_keep_the_dtype_of_the_model(run, dtype):
    name = str(dtype).removeprefix("torch.")
    model = make_model().to(dtype)
    loader = DataLoader(TensorDataset(INPUTS.to(dtype), TARGETS), 16, shuffle=True)
    checkpoint = inspect(model, loader, run=run)
    with torch.no_grad():
        direct = torch.cat([model.eval()(part.to(dtype)) for part in INPUTS.split(16)]).double()
    predictions = checkpoint.predictions
    assert checkpoint.provenance.source_dtype == predictions.source_dtype == name
    assert predictions.logits.dtype == ("float32" if name == "bfloat16" else name)
    np.testing.assert_allclose(
        predictions.logits, direct, atol={"float64": 1e-12, "float32": 1e-5}.get(name, 0.05)
    )


def test_a_compiled_model_is_used_as_it_is(run):
    model = make_model()
    compiled = torch.compile(model, backend="eager")
    checkpoint = inspect(compiled, make_loader(), run=run, check=True)
    assert_same_logits(checkpoint.predictions, model)
    assert compiled.training
    assert model.training


def test_a_model_in_data_parallel_is_used_as_it_is(run):
    model = make_model()
    assert_same_logits(inspect(nn.DataParallel(model), make_loader(), run=run).predictions, model)


def test_ddp_is_evaluated_by_the_module_inside(run, tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        model = make_model()
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped.forward = lambda *_: pytest.fail("the wrapper was called: it may wait for other ranks")
        assert_same_logits(inspect(wrapped, make_loader(), run=run).predictions, model)
        assert wrapped.training
    finally:
        torch.distributed.destroy_process_group()


def test_a_stream_longer_than_expected_is_taken_whole(run):
    def batches():
        yield from zip(INPUTS.split([1, 2, 50, 50]), TARGETS.split([1, 2, 50, 50]), strict=True)

    model = make_model()
    checkpoint = inspect(model, batches(), run=run, sample_ids=np.arange(SAMPLES))
    assert_same_logits(checkpoint.predictions, model)


def test_samples_with_an_ignored_target_are_left_out_and_counted(run):
    targets = TARGETS.clone()
    targets[:3] = -100
    model, loader = make_model(), DataLoader(TensorDataset(INPUTS, targets), 3)  # a whole first batch of them
    checkpoint = inspect(model, loader, run=run)
    assert len(checkpoint) == SAMPLES - 3
    assert checkpoint.provenance.ignored_samples == 3
    expected = functional.cross_entropy(torch.from_numpy(true_logits(model)), targets, ignore_index=-100)
    assert checkpoint.metrics()["loss"] == pytest.approx(expected.item(), rel=1e-6)


def test_probabilities_are_taken_where_they_are_announced(run):
    model = nn.Sequential(make_model(), nn.Softmax(1))
    checkpoint = inspect(model, make_loader(), run=run, outputs="probabilities")
    expected = functional.cross_entropy(torch.from_numpy(true_logits(model[0])), TARGETS).item()
    assert checkpoint.metrics()["loss"] == pytest.approx(expected, rel=1e-5)


def test_half_precision_probabilities_may_sum_to_one_roughly(run):
    model = nn.Sequential(make_model(), nn.Softmax(1)).to(torch.bfloat16)
    loader = DataLoader(TensorDataset(INPUTS.bfloat16(), TARGETS), 16)
    sums = model.eval()(INPUTS.bfloat16()).double().sum(1)
    assert (sums - 1).abs().max() > 1e-3
    assert len(inspect(model, loader, run=run, outputs="probabilities")) == SAMPLES


@pytest.mark.parametrize(
    "wrap", [lambda dataset: dataset, lambda dataset: Subset(Subset(dataset, range(103)), range(90))]
)
@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["a", "b", "c"], ("a", "b", "c")),
        (["a", "b"], ("0", "1", "2")),
        ([("a",), ("b",), ("c",)], ("0", "1", "2")),
    ],
)
def test_class_names_are_those_of_the_dataset_where_they_fit(run, wrap, classes, expected):
    dataset = TensorDataset(INPUTS, TARGETS)
    dataset.classes = classes
    assert inspect(make_model(), DataLoader(wrap(dataset), 16), run=run).class_names == expected


def test_class_names_given_come_before_those_of_the_dataset(run):
    dataset = TensorDataset(INPUTS, TARGETS)
    dataset.classes = ["a", "b", "c"]
    checkpoint = inspect(make_model(), DataLoader(dataset, 16), run=run, class_names=["x", "y", "z"])
    assert checkpoint.class_names == ("x", "y", "z")


def test_a_pass_of_one_sample_works(run):
    checkpoint = inspect(make_model(), [(INPUTS[:1], TARGETS[:1])], run=run)
    assert len(checkpoint) == 1


# Checks


@pytest.mark.parametrize(
    ("check", "made"), [(None, [True, False]), (True, [True, True]), (False, [False, False])]
)
def test_the_model_is_checked_at_the_first_checkpoint_of_a_split(run, check, made):
    for split in ("val", "train"):
        found = [
            inspect(make_model(), make_loader(), run=run, split=split, epoch=epoch, check=check)
            for epoch in (0, 1)
        ]
        assert [bool(one.provenance.checks) for one in found] == made


def test_a_resumed_run_is_not_checked_again(run):
    inspect(make_model(), make_loader(), run=run)
    run.flush()
    _forget_writers()  # as in a new process
    assert not inspect(make_model(), make_loader(), run=run, epoch=2).provenance.checks


# What is warned of


DATA = TensorDataset(INPUTS, TARGETS)


@pytest.mark.parametrize(
    "loader",
    [
        make_loader(drop_last=True),
        DataLoader(DATA, batch_sampler=BatchSampler(range(SAMPLES), 16, True)),
        DataLoader(DATA, batch_size=None, sampler=BatchSampler(range(SAMPLES), 16, True)),
    ],
    ids=["loader", "batch sampler", "sampler of batches"],
)
def test_samples_that_the_loader_drops_are_told_once_for_each_split(run, loader, caplog):
    model = make_model()
    for split in ("val", "val", "train"):
        inspect(model, loader, run=run, split=split)
    told = [one.getMessage() for one in caplog.records if "drop_last" in one.getMessage()]
    assert [one.levelname for one in caplog.records if "drop_last" in one.getMessage()] == ["WARNING"] * 2
    says = f"{run.path}: the loader has drop_last=True, so 7 of 103 samples (%s) are never inspected"
    assert [message.split(";")[0] for message in told] == [says % "val", says % "train"]
    assert told[0].endswith("give inspect a loader with drop_last=False")
    assert len(run[1]) == 96


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(INPUTS, TARGETS))


@pytest.mark.parametrize(
    "loader",
    [
        make_loader(),
        make_batches(),
        DataLoader(TensorDataset(INPUTS[:96], TARGETS[:96]), 16, drop_last=True),
        DataLoader(Stream(), 16, drop_last=True),
    ],
    ids=["kept", "no loader", "nothing left", "stream"],
)
def test_where_nothing_is_known_to_be_dropped_nothing_is_said(run, loader, caplog):
    inspect(make_model(), loader, run=run)
    assert "drop_last" not in caplog.text


# What is refused


def never(model, batch):
    pytest.fail("the pass began")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"outputs": "scores"}, "outputs='scores': pass 'logits' or 'probabilities'"),
        ({"epoch": -1}, "epoch=-1"),
        ({"epoch": math.nan}, "epoch=nan"),
        ({"epoch": "3"}, "epoch='3'"),
        ({"split": "../val"}, "split='../val'"),
        ({"logged": 1.07}, 'logged=1.07 has no name; pass logged={"loss": 1.07}'),
        ({"logged": 0.0}, 'pass logged={"loss": 0.0}'),
        ({"logged": torch.tensor(1.07)}, 'logged is a Tensor, not a mapping; pass logged={"loss": ...}'),
        ({"metadata": 3}, 'metadata=3 has no name; pass metadata={"lr": 3}'),
        ({"metadata": [("lr", 0.1)]}, "metadata is a list, not a mapping"),
        ({"metadata": {"model": object()}}, "metadata can't be stored as JSON"),
    ],
)
def test_bad_arguments_are_refused_before_the_pass(run, options, says):
    with pytest.raises(ConfshiftError, match=re.escape(says)):
        inspect(make_model(), make_loader(), run=run, forward=never, **options)


def test_a_run_of_another_training_is_refused_before_the_pass(run):
    inspect(make_model(), make_loader(), run=run)
    run.flush()
    _forget_writers()  # as in a new process
    with pytest.raises(ConfshiftError, match="already holds checkpoints"):
        inspect(make_model(), make_loader(), run=run, forward=never)


def test_a_changed_validation_set_is_refused_also_when_not_strict(run):
    model = make_model()
    inspect(model, make_loader(), run=run)
    fewer = DataLoader(TensorDataset(INPUTS[:90], TARGETS[:90]), 16)
    with pytest.raises(ConfshiftError, match="103 samples before and 90 now"):
        inspect(model, fewer, run=run)
    assert inspect(model, make_loader(), run=run).epoch == 2


@pytest.mark.parametrize("model", [lambda inputs: inputs, "resnet", None])
def test_what_is_no_module_is_refused(run, model):
    with pytest.raises(ConfshiftError, match=r"not a torch.nn.Module.*append"):
        inspect(model, make_loader(), run=run)


def test_a_model_without_shapes_yet_is_refused(run):
    with pytest.raises(ConfshiftError, match="call it on one batch first"):
        inspect(nn.Sequential(nn.LazyLinear(3)), make_loader(), run=run)


def test_probabilities_in_place_of_logits_are_refused(run):
    model = nn.Sequential(make_model(), nn.Softmax(1))
    with pytest.raises(ConfshiftError, match="outputs='probabilities'"):
        inspect(model, make_loader(), run=run)


@pytest.mark.parametrize(
    ("loader", "remedy"),
    [
        ([], "at least one sample"),
        (make_loader(200, drop_last=True), "drop_last=True"),
        (iter([]), "an iterator can be used only once; pass the loader"),
    ],
)
def test_a_loader_without_batches_is_refused(run, loader, remedy):
    with pytest.raises(ConfshiftError, match=f"loader gave no batch.*{remedy}"):
        inspect(make_model(), loader, run=run)


def test_logits_that_change_their_form_are_refused(run):
    def forward(model, batch):
        return torch.zeros(len(batch[1]), 3 if len(batch[1]) == 16 else 4), batch[1]

    with pytest.raises(
        ConfshiftError, match=r"4 logits of torch.float32 a row, after 96 rows with 3 of torch.float32"
    ):
        inspect(make_model(), make_loader(), run=run, forward=forward)


def test_a_target_out_of_range_is_refused_with_its_sample(run):
    targets = TARGETS.clone()
    targets[70] = 9
    with pytest.raises(ConfshiftError, match="first is 9 at sample 70"):
        inspect(make_model(), DataLoader(TensorDataset(INPUTS, targets), 16), run=run)


def test_rows_that_are_not_finite_are_kept_and_counted(run):
    inputs = INPUTS.clone()
    inputs[5] = math.nan
    checkpoint = inspect(make_model(), DataLoader(TensorDataset(inputs, TARGETS), 16), run=run)
    metrics = checkpoint.metrics()
    assert (metrics["nonfinite_samples"], metrics["unanswered_samples"]) == (1, 1)
    assert math.isfinite(metrics["loss"])


# Progress


def test_a_long_pass_shows_its_progress_and_a_short_one_nothing(run, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    inspect(make_model(), make_loader(), run=run)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(inspection, "_PATIENCE", 0)
    inspect(make_model(), make_loader(), run=run, split="train")
    assert "inspect train" in capsys.readouterr().err


def test_nothing_is_shown_where_nobody_looks(run, monkeypatch, capsys):
    monkeypatch.setattr(inspection, "_PATIENCE", 0)
    inspect(make_model(), make_loader(), run=run)
    assert capsys.readouterr() == ("", "")


def test_a_checkpoint_is_what_comes_back(run):
    checkpoint = inspect(nn.Linear(FEATURES, CLASSES), make_loader(), run=run)
    assert isinstance(checkpoint, Checkpoint)
    assert (checkpoint.epoch, checkpoint.split, len(checkpoint)) == (1, "val", SAMPLES)
