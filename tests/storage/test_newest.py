"""Which run of a folder was written to last?"""

from __future__ import annotations

import os

import pytest

from confshift import Predictions, Run
from confshift.storage import files
from confshift.storage.finding_runs import newest_run


@pytest.fixture
def runs(tmp_path):
    """Three runs and some things that are none, all of the same age."""
    for name in ("a", "c", "b"):
        Run(tmp_path / name).append(Predictions([[2.0, 0.0], [0.0, 3.0]], [0, 1]), epoch=1)
        Run(tmp_path / name).flush()
    (tmp_path / "folder").mkdir()
    (tmp_path / "run.json").write_text("{}")
    for path in tmp_path.rglob("*"):
        os.utime(path, ns=(1000, 1000))
    return tmp_path


def test_a_folder_without_a_run_or_none_at_all_has_no_newest_run(tmp_path):
    (tmp_path / "folder").mkdir()
    assert newest_run(tmp_path) is None
    assert newest_run(tmp_path / "none") is None


def test_the_name_decides_between_equals(runs):
    assert newest_run(runs) == runs / "c"


def test_a_run_that_gets_a_checkpoint_is_the_newest(runs):
    Run(runs / "a").append(Predictions([[1.0, 0.0], [0.0, 3.0]], [0, 1]), epoch=2)
    Run(runs / "a").flush()
    assert newest_run(runs) == runs / "a"


def test_a_new_split_makes_a_run_the_newest(runs):
    Run(runs / "b").append(Predictions([[1.0, 0.0], [0.0, 3.0]], [0, 1]), epoch=1, split="train")
    Run(runs / "b").flush()
    assert newest_run(runs) == runs / "b"


def test_other_files_in_a_run_make_it_no_newer(runs):
    (runs / "a" / "notes.txt").write_text("mine")
    assert newest_run(runs) == runs / "c"


def test_a_run_that_cant_be_read_is_older_than_any_other(runs, monkeypatch):
    real = files.DISK.names

    def names(path):
        if path == runs / "c":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(files.DISK, "names", names)
    assert newest_run(runs) == runs / "b"
