"""The background writer, two writers on one run, and writers that are killed."""

import errno
import gc
import logging
import os
import shutil
import subprocess
import sys
import threading
import warnings
import weakref
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from stored_runs import another_process, failure, litter, names, predictions, stored_logits

from confshift import Run
from confshift.storage import files
from confshift.storage.files import Disk

HERE = Path(__file__).parent


class GatedDisk(Disk):
    """Lets no file be made before it is opened."""

    def __init__(self):
        self.gate, self.waiting = threading.Event(), threading.Event()

    def create(self, path):
        self.waiting.set()
        assert self.gate.wait(30)
        return super().create(path)


@pytest.fixture
def gated(monkeypatch):
    disk = GatedDisk()
    monkeypatch.setattr(files, "DISK", disk)
    yield disk
    disk.gate.set()


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


def started(action):
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


class TestBackground:
    def test_append_returns_before_anything_is_written(self, run, gated):
        found = run.append(predictions())
        assert not (run.path / "run.json").exists()
        assert len(found.columns) == 20  # waits for the measuring, not for the disk
        gated.gate.set()
        run.flush()
        assert (run.path / "run.json").exists()

    def test_predictions_wait_for_the_commit_and_are_those_on_the_disk(self, run, gated):
        given = predictions()
        found, read = run.append(given), []
        reading = started(lambda: read.append(found.predictions))
        assert gated.waiting.wait(30)
        assert not read
        gated.gate.set()
        reading.join(30)
        given.logits[:] = 0  # the buffer is the caller's again
        assert read[0].logits.tobytes() == predictions().logits.tobytes()
        assert not np.shares_memory(read[0].logits, given.logits)

    def test_at_most_two_buffers_are_on_their_way(self, run, gated):
        for seed in range(2):
            run.append(predictions(seed))
        third = started(lambda: run.append(predictions(2)))
        third.join(0.2)
        assert third.is_alive()
        assert len(run._writer.outstanding) == 2
        gated.gate.set()
        third.join(30)
        assert run.epochs == (1, 2, 3)

    def test_checks_are_made_before_anything_is_queued(self, run, gated):
        run.append(predictions())
        assert "20 samples before and 7 now" in failure(run.append, predictions(samples=7))
        assert "3 classes, and these logits have 4" in failure(run.append, predictions(classes=4))
        assert len(run._writer.outstanding) == 1

    def test_the_buffer_is_released_after_the_commit(self, run):
        seen = []
        run.append(predictions(), release=lambda: seen.append((run.path / "val" / "000001.json").exists()))
        run.flush()
        assert seen == [True]

    def test_the_buffer_is_released_after_a_failure_too_and_a_bad_release_harms_nothing(
        self, run, monkeypatch, caplog
    ):
        released = []

        def full(*_):
            raise OSError(errno.ENOSPC, "No space left")

        with monkeypatch.context() as patch:
            patch.setattr(files.DISK, "write", full)
            run.append(predictions(), release=lambda: released.append(1))
            assert "No space left" in failure(run.flush)
        run.append(predictions(), epoch=2, release=lambda: released.append(2 / 0))
        run.append(predictions(), epoch=3, release=lambda: released.append(3))
        run.flush()
        assert released == [1, 3]
        assert run.epochs == (2, 3)
        assert "release() failed" in caplog.text

    def test_a_saved_checkpoint_does_not_keep_the_buffer(self, run):
        given = predictions()
        buffer = weakref.ref(given.logits)
        found = run.append(given)
        run.flush()
        del given
        gc.collect()
        assert buffer() is None
        assert found.predictions.logits.tobytes() == predictions().logits.tobytes()

    def test_every_handle_of_a_process_sees_what_is_on_its_way(self, run, gated, tmp_path, monkeypatch):
        run.append(predictions())
        (tmp_path / "link").symlink_to(run.path)
        monkeypatch.chdir(tmp_path)
        for other in (Run("run"), Run(tmp_path / "x" / ".." / "run"), Run("link")):
            assert other.check_epoch() == 2
            assert other.holds("val")
        assert Run("run").append(predictions(1)).epoch == 2
        gated.gate.set()
        assert Run("link").epochs == (1, 2)

    def test_an_error_in_the_measuring_is_raised_by_the_checkpoint_and_by_flush(self, run, monkeypatch):
        monkeypatch.setattr("confshift.storage.writer.measure", lambda *_: 1 / 0)
        found = run.append(predictions())
        for act in (lambda: found.columns, lambda: found.predictions, run.flush):
            assert "division by zero" in failure(act)
        run.flush()

    def test_an_interpreter_that_ends_saves_first(self, run):
        subprocess_append(run.path, seed=1, epoch=1)
        assert stored_logits(run.path)[1].tobytes() == predictions(1).logits.tobytes()

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_reads_and_writes_while_its_parent_is_saving(self, run, gated):
        run.append(predictions(1))
        assert gated.waiting.wait(30)
        child = os.fork()
        if child == 0:
            try:
                files.DISK = Disk()
                own = Run(str(run.path) + "-of-the-child")
                own.append(predictions(1))
                os._exit(0 if own.epochs == (1,) and not run.exists() else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gated.gate.set()
        assert run.epochs == (1,)


class TestReplacing:
    def warnings(self, caplog):
        assert all(one.name == "confshift" for one in caplog.records)
        return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]

    def test_the_epochs_of_another_process_are_replaced_with_one_warning(self, run, caplog):
        for epoch in (1, 2, 3):
            run.append(predictions(epoch), epoch=epoch)
        again = another_process(run.path)
        for epoch in (1, 2, 3):
            again.append(predictions(10 + epoch), epoch=epoch)
        again.flush()
        (message,) = self.warnings(caplog)
        assert message.startswith(
            f"{run.path}: epoch 1 (val), which another process had saved, was replaced."
        )
        assert "use another run folder" in message
        assert f"Run({str(run.path)!r}).delete()" in message
        third = another_process(run.path)
        third.append(predictions(20), epoch=3)
        third.flush()
        assert len(self.warnings(caplog)) == 2

    def test_replacing_ones_own_going_on_and_saving_the_same_again_are_silent(self, run, caplog):
        for seed in (1, 2):
            run.append(predictions(seed), epoch=1)
        run.flush()
        run.append(predictions(3), epoch=1)
        again = another_process(run.path)
        again.append(predictions(3), epoch=1)
        again.append(predictions(4), epoch=2)
        again.append(predictions(5), epoch=2)
        again.flush()
        assert not self.warnings(caplog)

    def test_a_run_made_anew_is_warned_of_anew(self, run, caplog):
        for _ in range(2):
            run.append(predictions(1), epoch=1)
            again = another_process(run.path)
            again.append(predictions(2), epoch=1)
            again.flush()
            run = again
            run.delete()
        assert len(self.warnings(caplog)) == 2

    def test_the_warning_is_seen_where_no_logging_is_set_up(self, run):
        run.append(predictions(0), epoch=1)
        run = another_process(run.path)
        done = subprocess_append(run.path, seed=1, epoch=1)
        assert "epoch 1 (val), which another process had saved, was replaced" in done.stderr


class TestLivingWriters:
    """Of a process that still runs nothing is replaced by another: only what has ended can be resumed."""

    def test_two_that_run_at_once_never_replace_each_others_epochs(self, run):
        run.append(predictions(0), epoch=1)
        run.flush()
        with pytest.raises(
            AssertionError, match=r"epoch 1 \(val\) was saved by another process that is still"
        ):
            subprocess_append(run.path, seed=1, epoch=1)
        subprocess_append(run.path, seed=1, epoch=2)
        assert failure_or_nothing(run, predictions(2), 2) == ""  # that process has ended
        assert sorted(stored_logits(run.path)) == [1, 2]

    def test_it_is_refused_before_the_pass(self, run):
        run.append(predictions(0), epoch=1)
        run.flush()
        rival = another_process_beside(run.path)
        assert "still running" in failure(rival.check_epoch, 1)
        assert "still running" in failure(rival.append, predictions(1), epoch=1)
        assert rival.check_epoch(2) == 2

    def test_a_process_that_was_killed_can_be_resumed_and_leaves_nothing(self, run):
        code = (
            "import os, sys; sys.path[:0] = [sys.argv[2]]; from stored_runs import *\n"
            "run = Run(sys.argv[1]); run.append(predictions(), epoch=1); run.flush(); os._exit(9)"
        )
        done = subprocess.run([sys.executable, "-c", code, run.path, HERE], check=False)
        assert done.returncode == 9
        assert len(list(run.path.glob(".writer-*"))) == 1
        run.append(predictions(1), epoch=1)
        run.flush()
        assert len(list(run.path.glob(".writer-*"))) == 1  # our own

    def test_a_forked_process_does_not_live_for_its_parent(self, run):
        run.append(predictions(0), epoch=1)
        run.flush()
        (sign,) = run.path.glob(".writer-*")
        reading, writing = os.pipe()
        begun, begin = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            os.write(begin, b"x")
            os.read(reading, 1)  # until the parent is done
            os._exit(0)
        os.read(begun, 1)
        assert files.is_shown(sign)
        run._writer.lose_sign()  # as if the parent had been killed
        shown = files.is_shown(sign)
        os.write(writing, b"x")
        os.waitpid(child, 0)
        assert not shown

    def test_where_there_are_no_locks_the_log_still_warns_of_what_is_replaced(self, run, monkeypatch, caplog):
        monkeypatch.setattr(files, "HAS_LOCKS", False)
        run.append(predictions(0), epoch=1)
        run.flush()
        rival = another_process_beside(run.path)
        rival.append(predictions(1), epoch=1)
        rival.flush()
        assert "which another process had saved, was replaced" in caplog.text


def failure_or_nothing(run, found, epoch):
    run.append(found, epoch=epoch)
    return settle(run._writer)


def test_a_save_asks_the_disk_as_much_beside_many_checkpoints_as_beside_two(run, monkeypatch):
    calls = Counter()

    def counted(owner, name):
        real = getattr(owner, name)

        def call(*arguments, **more):
            calls[name] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(owner, name, call)

    for name in ("lstat", "stat", "iterdir", "open"):
        counted(Path, name)
    counted(os, "open")
    needed = []
    for epoch in range(1, 41):
        calls.clear()
        run.check_epoch(split="val")
        run.holds("val")
        run.append(predictions(epoch))
        run.flush()
        needed.append(sum(calls.values()))
    assert len(set(needed[3:])) == 1
    assert needed[-1] < 60


@pytest.mark.parametrize("records", [1, 2, 3])
def test_a_run_made_anew_by_others_under_the_same_name_is_not_taken_for_the_old_one(run, records):
    for epoch in (1, 2):
        run.append(predictions(epoch), epoch=epoch)
    run.flush()
    writer = run._writer
    shutil.rmtree(run.path)
    other = another_process_beside(run.path)
    for epoch in range(1, 1 + records):
        other.append(predictions(9, samples=7), epoch=epoch)
    another_process(run.path)
    split_folder = writer.run_folder.memory("val", 3).look()
    assert {one.shards[0].columns.shape for one in split_folder.records.values()} == {(7,)}


class TestTwoWriters:
    def test_of_two_that_save_one_epoch_one_wins_and_the_other_is_told(self, run, gated):
        run.append(predictions(1))
        assert gated.waiting.wait(30)
        first = run._writer
        rival = another_process_beside(run.path)
        rival.append(predictions(2))
        gated.gate.set()
        errors = [outcome for writer in (first, rival._writer) if (outcome := settle(writer))]
        assert len(errors) == 1
        assert "saved epoch 1 meanwhile" in errors[0]
        assert len(another_process(run.path).epochs) == 1
        assert len(litter(run.path)) == 0

    def test_two_that_save_the_same_content_both_succeed(self, run, gated):
        run.append(predictions(1))
        assert gated.waiting.wait(30)
        first, rival = run._writer, another_process_beside(run.path)
        rival.append(predictions(1))
        gated.gate.set()
        assert not settle(first)
        assert not settle(rival._writer)
        assert len(names(run.path / "val")) == 3

    def test_a_rival_with_other_samples_is_told(self, run, gated):
        run.append(predictions(1))
        assert gated.waiting.wait(30)
        first, rival = run._writer, another_process_beside(run.path)
        rival.append(predictions(1, samples=7), epoch=2)
        gated.gate.set()
        assert [bool(settle(writer)) for writer in (first, rival._writer)].count(True) == 1
        assert len(another_process(run.path).problems) == 0

    def test_a_rival_with_other_class_names_is_told(self, run, gated):
        run.append(predictions(1, class_names=["a", "c", "b"]))
        assert gated.waiting.wait(30)
        first, rival = run._writer, another_process_beside(run.path)
        rival.append(predictions(1, class_names=["a", "b", "c"]), epoch=2)
        gated.gate.set()
        assert [bool(settle(writer)) for writer in (first, rival._writer)].count(True) == 1

    @pytest.mark.parametrize("of_first", [None, ["a", "b", "c"]])
    def test_a_rival_without_class_names_takes_those_there_are(self, run, gated, of_first):
        of_rival = None if of_first else ["a", "b", "c"]
        run.append(predictions(1, class_names=of_first))
        assert gated.waiting.wait(30)
        first, rival = run._writer, another_process_beside(run.path)
        rival.append(predictions(2, class_names=of_rival), epoch=2)
        gated.gate.set()
        assert not settle(first)
        assert not settle(rival._writer)
        assert another_process(run.path).class_names == ("a", "b", "c")

    def test_an_epoch_replaced_meanwhile_is_not_replaced_again(self, run):
        run.append(predictions(1))
        run.flush()
        mine, other = another_process(run.path), another_process_beside(run.path)
        disk = GatedDisk()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "DISK", disk)
            mine.append(predictions(2), epoch=1)
            writer = mine._writer
            assert disk.waiting.wait(30)
            patch.setattr(files, "DISK", Disk())
            subprocess_append(run.path, seed=3, epoch=1)
            disk.gate.set()
            message = settle(writer)
        assert "saved epoch 1 meanwhile" in message
        assert other[1].predictions.logits.tobytes() == predictions(3).logits.tobytes()

    def test_three_processes_on_one_run_lose_nothing(self, run):
        run.append(predictions(0), epoch=0)
        another_process(run.path)
        code = (
            "import re, sys; sys.path[:0] = [sys.argv[2]]; from stored_runs import *\n"
            "own, won = int(sys.argv[3]), 0\n"
            "for turn in range(1, 6):\n"
            "    run = Run(sys.argv[1])\n"
            "    try: run.append(predictions(own), epoch=turn); run.flush(); won += 1\n"
            "    except ConfshiftError as error: assert re.search('meanwhile|still', str(error)), error\n"
            "    run.append(predictions(own), epoch=100 * own + turn); run.flush()\n"
            "print(won)"
        )
        argv = [sys.executable, "-c", code, run.path, HERE]
        writing = [subprocess.Popen([*argv, str(own)], stdout=subprocess.PIPE) for own in (1, 2, 3)]
        won = [int(process.communicate()[0]) for process in writing]
        assert [process.returncode for process in writing] == [0] * 3
        found = stored_logits(run.path)
        assert sorted(found) == [*range(6), *(100 * own + turn for own in (1, 2, 3) for turn in range(1, 6))]
        assert sum(won) >= 5
        for epoch, logits in found.items():
            seeds = [0] if epoch == 0 else [int(epoch // 100)] if epoch > 100 else [1, 2, 3]
            assert logits.tobytes() in [predictions(seed).logits.tobytes() for seed in seeds]
        assert litter(run.path) == []

    def test_deleting_a_run_that_another_process_saves_in_is_refused(self, run):
        run.append(predictions(1))
        run.flush()
        with files.lock(run.path, exclusive=False):
            assert "another process is saving" in failure(run.delete)
        assert run.epochs == (1,)
        run.delete()

    def test_what_another_process_is_writing_is_not_tidied_away(self, run):
        run.append(predictions(1))
        run.flush()
        half = run.path / "val" / f"000002-{'0' * 32}.logits.npy"
        half.write_bytes(b"x")
        with files.lock(run.path, exclusive=False):
            resumed = another_process(run.path)
            resumed.append(predictions(2), epoch=2)
            resumed.flush()
        assert half.exists()


class TestWithoutLinksOrLocks:
    @pytest.fixture(autouse=True)
    def _no_links(self, monkeypatch):
        def refused(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(files.DISK, "link", refused)

    def test_saving_works_and_leaves_no_claim(self, run):
        for seed in (1, 2, 3):
            run.append(predictions(seed), epoch=min(seed, 2))
        run.flush()
        assert run.verify()["sound"].all()
        assert [name for name in names(run.path) if "claim" in name or "tmp" in name] == []

    def test_put_never_replaces_a_file(self, tmp_path):
        files.put(tmp_path / "x", b"first")
        with pytest.raises(FileExistsError):
            files.put(tmp_path / "x", b"second")
        assert (tmp_path / "x").read_bytes() == b"first"
        assert names(tmp_path) == ["x"]

    def test_a_claim_whose_owner_was_killed_blocks_nobody(self, run):
        run.append(predictions(1))
        run.flush()
        claim = run.path / "val" / "000002.json.claim"
        claim.touch()
        with files.lock(run.path, exclusive=False):  # so that it is not tidied away
            run.append(predictions(2))
            run.flush()
        assert run.epochs == (1, 2)
        assert (run.path / "val" / "000003.json").exists()

    def test_where_nothing_can_be_locked_saving_works_and_litter_stays(self, run, monkeypatch):
        def unlockable(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(files.fcntl, "flock", unlockable)
        run.append(predictions(1))
        run.flush()
        left = run.path / "val" / f"000009-{'0' * 32}.tmp"
        left.touch()
        resumed = another_process(run.path)
        resumed.append(predictions(2), epoch=2)
        assert resumed.epochs == (1, 2)
        assert left.exists()


def another_process_beside(path):
    """Return a handle with a writer of its own, while this process's writer goes on."""
    from confshift.storage import writer

    writer._writers.clear()
    return Run(path)


def settle(writer):
    """Wait for a writer and return what it failed with."""
    writer.wait()
    try:
        writer.raise_failure()
    except Exception as error:
        return str(error)
    return ""


def subprocess_append(path, *, seed, epoch):
    code = (
        "import sys; sys.path[:0] = [sys.argv[2]]; from stored_runs import *\n"
        "Run(sys.argv[1]).append(predictions(int(sys.argv[3])), epoch=float(sys.argv[4]))"
    )
    arguments = [sys.executable, "-c", code, path, HERE, str(seed), str(epoch)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done
