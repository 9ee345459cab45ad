"""Where a pass is saved to, and what happens when the disk will not have it."""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import re
import shutil
import threading
import warnings
from copy import deepcopy

import pytest
import torch
from toy_training import SAMPLES, make_batches, make_loader, make_model, true_logits

from confshift import ConfshiftError, Run, inspect
from confshift.collection import destination
from confshift.errors import Refusal
from confshift.storage import files, writer


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Make each test a process of its own, as far as this module remembers anything."""
    destination._run_of_process.cache_clear()
    monkeypatch.setattr(destination, "_warned", set())
    monkeypatch.setattr(destination, "_models", {})


def test_without_a_name_all_goes_to_one_new_run_of_the_process(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="confshift"):
        model = make_model()
        for _ in range(2):
            inspect(model, make_batches())
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}", folder.name)
    assert Run(folder).epochs == (1, 2)
    assert caplog.messages == [f"inspect saves to runs/{folder.name}"]


def test_two_processes_that_start_in_one_second_get_two_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Stopped(destination.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(destination, "datetime", Stopped)
    for _ in range(2):
        inspect(make_model(), make_batches())
        destination._run_of_process.cache_clear()
    assert sorted(one.name for one in (tmp_path / "runs").iterdir()) == [
        "2026-01-02-030405",
        "2026-01-02-030405-2",
    ]


@pytest.fixture
def unwritable(tmp_path):
    """A run below a file: no folder can be made there, whoever tries."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "run"


def test_a_training_goes_on_without_a_disk_and_is_warned_once(unwritable, caplog):
    model = make_model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch in (1, 2, 3, 4):
            checkpoint = inspect(model, make_loader(), run=unwritable)
            assert checkpoint.epoch == epoch
            assert checkpoint.metrics()["samples"] == SAMPLES
            Run(unwritable)._writer.wait()
    (warning,) = caught
    assert re.search(r"epoch 1 .*was not saved.*strict=True", str(warning.message))
    assert warning.filename == __file__
    assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 3
    with pytest.raises(ConfshiftError, match=r"epoch 4 .*was not saved"):
        Run(unwritable).flush()


def test_strict_raises_what_was_not_saved(unwritable):
    inspect(make_model(), make_loader(), run=unwritable, strict=True)
    Run(unwritable)._writer.wait()
    with pytest.raises(ConfshiftError, match=r"epoch 1 .*was not saved"):
        inspect(make_model(), make_loader(), run=unwritable, strict=True)


def test_a_checkpoint_that_could_not_be_handed_over_lives_in_memory(tmp_path, monkeypatch):
    def append(run, predictions, **_):
        raise ConfshiftError("the disk is gone") from OSError(5, "Input/output error")

    model = make_model()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "append", append)
        with pytest.warns(UserWarning, match="the disk is gone; the training goes on"):
            kept = inspect(
                model,
                make_loader(),
                run=tmp_path,
                epoch=2,
                metadata={"a": 1},
                logged={"loss": 2.0},
                check=True,
            )
        with pytest.raises(ConfshiftError, match="the disk is gone"):
            inspect(model, make_loader(), run=tmp_path, epoch=2, strict=True)
    expected = true_logits(model)
    with torch.no_grad():
        model[4].weight.mul_(2)
    for _ in range(3):  # the memory it lives in is not used again
        inspect(model, make_loader(), run=tmp_path)
    assert abs(kept.predictions.logits - expected).max() < 1e-5
    assert (kept.epoch, dict(kept.metadata)) == (2, {"a": 1})
    assert kept.provenance.logged == {"loss": 2.0}
    assert kept.provenance.checks["modes"]["status"] == "passed"
    assert kept.provenance.id_source == "sampler"


def test_a_save_that_failed_does_not_cost_the_next_one(tmp_path, monkeypatch):
    """The error of an earlier save may first be seen when the next is handed over."""
    run, original, errors = Run(tmp_path), Run.append, [OSError(28, "No space left on device")]

    def append(run, predictions, **options):
        if errors:
            raise ConfshiftError("epoch 1 (val) was not saved") from errors.pop()
        return original(run, predictions, **options)

    monkeypatch.setattr(Run, "append", append)
    with pytest.warns(UserWarning, match="epoch 1"):
        inspect(make_model(), make_loader(), run=run, epoch=2)
    assert run.epochs == (2,)


def test_a_refusal_is_no_failure_of_the_disk(tmp_path, monkeypatch):
    def append(run, predictions, **_):
        raise Refusal("other samples") from ValueError("cause")

    monkeypatch.setattr(Run, "append", append)
    with warnings.catch_warnings(), pytest.raises(ConfshiftError, match="other samples"):
        inspect(make_model(), make_loader(), run=tmp_path)


# Whatever goes wrong with a disk or a machine, the training goes on


def breaking(method, error):
    """Return a fault: the run's paths raise this error where the method is called."""

    def break_it(monkeypatch, run):
        real = getattr(files.DISK, method)

        def call(path, *arguments, **options):
            if str(path).startswith(str(run)):
                raise OSError(error, os.strerror(error), str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(files.DISK, method, call)

    return break_it


def breaking_threads(monkeypatch, run):
    def start(thread, real=threading.Thread.start):
        if thread.name == "confshift-writer":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)


def breaking_memory(monkeypatch, run):
    def measure(*_):
        raise MemoryError

    monkeypatch.setattr(writer, "measure", measure)


def breaking_the_folder(monkeypatch, run):
    monkeypatch.setattr(files.Disk, "create", lambda *_: os.open(run / "no" / "such" / "folder", os.O_WRONLY))


def breaking_listings(monkeypatch, run):
    os.utime(run / "val")  # somebody changed it, or else it is not listed
    breaking("names", errno.EIO)(monkeypatch, run)


BREAKING = {
    "stat": breaking("status", errno.ESTALE),
    "listdir": breaking_listings,
    "threads": breaking_threads,
    "memory": breaking_memory,
    "the folder": breaking_the_folder,
}


@pytest.mark.parametrize("break_it", BREAKING.values(), ids=BREAKING)
def test_a_training_survives_whatever_breaks_and_goes_on_saving_after_it(tmp_path, monkeypatch, break_it):
    model, run = make_model(), tmp_path / "run"

    def epoch():
        checkpoint = inspect(model, make_batches(), run=run)
        Run(run)._writer.wait()
        return checkpoint

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [epoch(), epoch()]
        with monkeypatch.context() as patch:
            break_it(patch, run)
            found += [epoch(), epoch()]
        found += [epoch(), epoch()]
    assert [one.epoch for one in found] == [1, 2, 3, 4, 5, 6]
    assert len({one.accuracy for one in found}) == 1
    (warning,) = caught
    assert "the training goes on" in str(warning.message)
    assert warning.filename == __file__
    assert Run(run).epochs == (1, 2, 5, 6)
    gaps = Run(run).problems
    assert gaps["epoch"].tolist() == [3, 4]
    assert set(gaps["kind"]) == {"gap"}


def test_one_call_of_the_system_that_fails_once_costs_at_most_one_checkpoint(tmp_path, monkeypatch):
    model, run, left = make_model(), tmp_path / "run", [1]

    def status(path, *, follow=False, real=files.DISK.status):
        if left and str(path).startswith(str(run)):
            left.pop()
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, follow=follow)

    inspect(model, make_batches(), run=run)
    Run(run).flush()
    monkeypatch.setattr(files.DISK, "status", status)
    with pytest.warns(UserWarning, match="Input/output error"):
        assert inspect(model, make_batches(), run=run).epoch == 2
    assert not left
    assert Run(run).epochs == (1, 2)


def test_a_run_json_that_loses_a_bit_costs_no_training(tmp_path):
    model, run = make_model(), tmp_path / "run"
    inspect(model, make_batches(), run=run)
    Run(run).flush()
    content = bytearray((run / "run.json").read_bytes())
    content[30] ^= 1
    (run / "run.json").write_bytes(content)
    assert inspect(model, make_batches(), run=run).epoch == 2
    assert Run(run).epochs == (1, 2)


def test_a_working_folder_that_is_gone_costs_no_training(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.warns(UserWarning, match="change to a folder that exists"):
        checkpoint = inspect(make_model(), make_batches(), run="runs/x", epoch=3)
    assert (checkpoint.epoch, len(checkpoint)) == (3, SAMPLES)


def test_a_working_folder_that_goes_costs_no_training_either_where_a_run_is_passed(tmp_path, monkeypatch):
    gone, model = tmp_path / "gone", make_model()
    gone.mkdir()
    monkeypatch.chdir(gone)
    run = Run("runs/x")
    inspect(model, make_batches(), run=run)
    run.flush()
    shutil.rmtree(gone)
    found = inspect(model, make_batches(), run=run)
    assert (found.epoch, len(found)) == (2, SAMPLES)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have_is_refused_before_the_pass(tmp_path, name):
    def forward(model, batch):
        raise AssertionError("the pass began")

    with pytest.raises(ConfshiftError, match=r"can't (be a name|name a folder)"):
        inspect(make_model(), make_batches(), run=str(tmp_path / name), forward=forward)


# A process that ends without exit handlers


@pytest.mark.parametrize("ending", ["returns", "exits", "fails"])
def test_a_forked_child_that_ends_loses_nothing_that_inspect_returned_for(tmp_path, ending, capfd):
    def work():
        torch.set_num_threads(1)
        model = make_model()
        for _ in range(3):
            inspect(model, make_batches(), run=tmp_path / "run", check=False)
        if ending == "exits":
            raise SystemExit(3)
        if ending == "fails":
            raise RuntimeError("as a training may")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
    child.join(60)
    assert child.exitcode == {"returns": 0, "exits": 3, "fails": 1}[ending]
    assert Run(tmp_path / "run").epochs == (1, 2, 3)
    assert ("Traceback" in capfd.readouterr().err) == (ending == "fails")


# One training, one run


class TestAnotherModel:
    def test_a_notebook_cell_that_is_run_again_is_refused(self, tmp_path):
        inspect(make_model(), make_batches(), run=tmp_path)
        gc.collect()  # the model of the first time is gone
        with pytest.raises(ConfshiftError, match=r"another model .*folder of its own.*\.delete\(\)"):
            inspect(make_model(), make_batches(), run=tmp_path)
        Run(tmp_path).delete()  # as the message says
        assert inspect(make_model(), make_batches(), run=tmp_path).epoch == 1

    def test_not_where_the_run_was_removed_by_hand_which_is_said_once(self, tmp_path, caplog):
        inspect(make_model(), make_batches(), run=tmp_path / "run")
        Run(tmp_path / "run").flush()
        shutil.rmtree(tmp_path / "run")
        model = make_model()
        for _ in range(3):
            inspect(model, make_batches(), run=tmp_path / "run")
        assert len(Run(tmp_path / "run").epochs) == 3
        assert len([one for one in caplog.messages if "was removed" in one]) == 1

    def test_so_is_one_that_begins_with_epoch_0(self, tmp_path):
        model = make_model()
        for epoch in (0, None):
            inspect(model, make_batches(), run=tmp_path, epoch=epoch)
        for again in (make_model(), model):
            with pytest.raises(ConfshiftError, match="epoch 0, before training, is inspected again"):
                inspect(again, make_batches(), run=tmp_path, epoch=0)

    def test_the_baseline_may_be_inspected_twice_before_the_training(self, tmp_path):
        for _ in range(2):
            inspect(make_model(), make_batches(), run=tmp_path, epoch=0)
        assert Run(tmp_path).epochs == (0,)

    def test_new_weights_wrappers_and_other_splits_are_no_other_training(self, tmp_path):
        model = make_model()
        inspect(model, make_batches(), run=tmp_path)
        model.load_state_dict(make_model(seed=1).state_dict())
        inspect(torch.nn.DataParallel(model), make_batches(), run=tmp_path)
        inspect(deepcopy(model), make_batches(), run=tmp_path, split="ema")
        assert Run(tmp_path).epochs == (1, 2)

    def test_saved_checkpoints_that_are_loaded_into_new_models_say_their_epoch(self, tmp_path):
        for epoch in (3, 6, 9):
            inspect(make_model(seed=epoch), make_batches(), run=tmp_path, epoch=epoch)
        assert Run(tmp_path).epochs == (3, 6, 9)
