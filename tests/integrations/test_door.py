"""What all adapters share: the rows, and the page at the end."""

from __future__ import annotations

import copy
import shlex
import threading

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import confshift
from confshift.cli import main
from confshift.integrations import door


@pytest.fixture
def saved(run):
    collector = confshift.Collector(run)
    collector.add(2 * np.eye(3), [0, 1, 1])
    collector.save()
    return run


def test_the_page_is_written_behind_the_training_and_where_it_was_asked_for(
    saved, page, monkeypatch, tmp_path
):
    begin, thread = threading.Event(), []
    report = confshift.report

    def slow(*places):
        thread.append(threading.current_thread())
        begin.wait()
        return report(*places)

    monkeypatch.setattr(confshift, "report", slow)
    monkeypatch.chdir(tmp_path)
    door.write_page(saved, page.name)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir("other")
    begin.set()
    assert page.exists()
    assert thread[0] is not threading.main_thread()
    assert not thread[0].daemon


def test_a_page_that_can_not_be_written_is_a_warning_with_the_command_that_tries_again(saved, page, caplog):
    page.mkdir()
    door.write_page(saved, page)
    assert page.exists()
    (message,) = caplog.messages
    assert message.startswith("the page was not written: ")
    page.rmdir()
    words = shlex.split(message.partition("To try again: ")[2])
    assert words[0] == "confshift"
    assert CliRunner().invoke(main, words[1:]).exit_code == 0
    assert page.is_file()


def test_rows_of_an_evaluation_that_was_interrupted_are_dropped_when_a_training_begins(
    task, make_network, run
):
    network, (_, loader) = make_network().eval(), task.loaders()
    entrance = door.Door(run, None, None, timeout=1)
    with torch.no_grad():
        batches = [(network(inputs), targets) for inputs, targets in loader]
    entrance.add(*batches[3])
    entrance.begin()
    for batch in batches:
        entrance.add(*batch)
    task.assert_true(entrance.save(network, loader, split="val", epoch=1), network)


def test_the_loss_within_a_module_says_what_is_trained_unless_several_differ():
    weighted = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0]), label_smoothing=0.1)
    known = {"class_weights": [1.0, 2.0], "label_smoothing": 0.1}
    assert door.objective_of(weighted) == known
    assert door.objective_of(nn.ModuleList([nn.Linear(2, 2), weighted])) == known
    assert door.objective_of(nn.ModuleList([weighted, copy.deepcopy(weighted)])) == known
    assert door.objective_of(nn.ModuleList([weighted, nn.CrossEntropyLoss()])) == {}
    assert door.objective_of(nn.ModuleList([nn.MSELoss()])) == {}
    assert door.objective_of(nn.NLLLoss(torch.tensor([1.0, 2.0])))["class_weights"] == [1.0, 2.0]


def test_what_is_not_installed_is_an_error_with_the_line_that_installs_it():
    with pytest.raises(
        confshift.ConfshiftError, match=r"no_such is not installed: pip install 'confshift\[no_such"
    ):
        door.installed("no_such", "no_such.one", "no_such.other")
    assert door.installed("no_such", "no_such", "shlex") is shlex


def test_a_training_without_an_evaluation_is_a_warning_and_has_no_page(run, page, caplog):
    door.Door(run, None, page, timeout=1).finish()
    assert "the trainer evaluated nothing, so nothing is saved" in caplog.text
    assert not page.exists()


def test_a_trainer_that_misses_a_package_itself_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import quite_missing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        confshift.ConfshiftError, match="half_installed can't be imported: No module named 'quite_missing'"
    ):
        door.installed("half_installed")
