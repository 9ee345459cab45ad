"""Where a pass is saved to, and what happens when the disk will not have it."""

from __future__ import annotations

import logging
import re
import warnings

import pytest
import torch
from toy_training import SAMPLES, make_batches, make_loader, make_model, true_logits

from confshift import ConfshiftError, Run, inspect
from confshift.collection import saving


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Make each test a process of its own, as far as this module remembers anything."""
    saving._run_of_process.cache_clear()
    monkeypatch.setattr(saving, "_warned", set())


def test_without_a_name_all_goes_to_one_new_run_of_the_process(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO, logger="confshift"):
        for _ in range(2):
            inspect(make_model(), make_batches())
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-\d{6}", folder.name)
    assert Run(folder).epochs == (1, 2)
    assert caplog.messages == [f"inspect saves to runs/{folder.name}"]


def test_two_processes_that_start_in_one_second_get_two_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Stopped(saving.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(saving, "datetime", Stopped)
    for _ in range(2):
        inspect(make_model(), make_batches())
        saving._run_of_process.cache_clear()
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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch in (1, 2, 3, 4):
            checkpoint = inspect(make_model(), make_loader(), run=unwritable)
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
        raise ConfshiftError("other samples") from ValueError("cause")

    monkeypatch.setattr(Run, "append", append)
    with warnings.catch_warnings(), pytest.raises(ConfshiftError, match="other samples"):
        inspect(make_model(), make_loader(), run=tmp_path)
