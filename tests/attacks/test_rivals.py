"""Processes that save the same epochs at the same time, short form of tests/benchmarks/attacks.py."""

from rivals import rivals

from confshift.errors import ConfshiftError
from confshift.storage import files


def test_of_those_that_save_one_epoch_one_wins_and_the_others_are_told(tmp_path):
    figures = rivals(tmp_path, 8, seed=0, numbers=(3,))
    assert figures["failures"] == []
    assert (figures["tried"], figures["acknowledged"], figures["refused"]) == (24, 8, 16)


def test_processes_that_do_not_know_of_each_other_would_be_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "HAS_LOCKS", False)
    try:
        found = rivals(tmp_path, 8, seed=0, numbers=(3,))["failures"]
    except ConfshiftError as error:  # a file is gone that a record names
        found = [str(error)]
    assert found
