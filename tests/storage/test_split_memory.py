"""What a process remembers of a run: saves ask the disk the same beside any number, and nobody fools it."""

import errno
import os
import shutil
import stat
import time
from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from stored_runs import another_process, failure, names, predictions, stored_logits

from confshift import Run
from confshift.storage import files, split_memory
from confshift.storage.appending import append
from confshift.storage.disk import Disk
from confshift.storage.loading import read_predictions
from confshift.storage.run_folder import RunFolder
from confshift.storage.split_folder import SplitFolder
from confshift.storage.writer import Writer

NO_NOTES = dict.fromkeys(("metadata", "logged", "checks"))


class QuickDisk(Disk):
    """Does not wait for the disk, and counts how it is asked."""

    def __init__(self):
        self.calls = Counter()

    def sync(self, descriptor):
        pass

    def sync_folder(self, path):
        pass

    def status(self, path, *, follow=False):
        self.calls["status"] += 1
        return super().status(path, follow=follow)

    def names(self, folder):
        found = super().names(folder)
        self.calls["listings"] += 1
        self.calls["names"] += len(found)
        return found

    def open_reading(self, path):
        self.calls["opened"] += 1
        return super().open_reading(path)


@pytest.fixture
def disk(monkeypatch):
    disk = QuickDisk()
    monkeypatch.setattr(files, "DISK", disk)
    return disk


@pytest.fixture
def frozen(monkeypatch):
    """A file system on which the times of folders never change: the worst that coarse ones can do."""
    real = Disk.status

    def timeless(self, path, *, follow=False):
        status = real(self, path, follow=follow)
        if not stat.S_ISDIR(status.st_mode):
            return status
        times = {"st_mtime_ns": 10**9 + 1, "st_ctime_ns": 10**9 + 1}
        return os.stat_result([*status[:6], 4096, 1, 1, 1], times)

    monkeypatch.setattr(Disk, "status", timeless)


class Outsider:
    """Another process that saves to the same run, ends after each save, and so can be resumed."""

    def __init__(self, path):
        self.writer = Writer(path)

    def save(self, seed, epoch, **more):
        append(self.writer, predictions(seed, **more), epoch=epoch, split="val", notes=NO_NOTES, release=None)
        self.writer.join()
        self.writer.raise_failure()
        self.writer.give_up_sign()


def changed_by_hand(folder):
    """Give the folder a new time, which the system does only every few milliseconds."""
    os.utime(folder, ns=(time.time_ns(),) * 2)


class TestSystemCalls:
    """The numbers of calls, never a time."""

    def asked(self, disk, action):
        disk.calls.clear()
        action()
        return dict(disk.calls)

    def save(self, run, epoch, seed, split="val"):
        run = Run(run.path)  # as a loop does that passes a path
        run.check_epoch(epoch, split=split)
        run.holds(split)
        run.append(predictions(seed), epoch=epoch, split=split)
        run.flush()

    def actions(self, run, number, split):
        new = 1000 + number
        return [
            lambda: self.save(run, 1000, number, split),  # replaced
            lambda: self.save(run, new, 3, split),
            lambda: self.save(run, new, 3, split),  # the same again
            lambda: self.save(run, 7, number, split),  # another process's is replaced
            lambda: run.checkpoint(8, split=split),
            lambda: run.is_stored(1000, split=split),
        ]

    @pytest.mark.parametrize(("splits", "many"), [(["val"], 200), (["val", "train"], 40)])
    def test_they_are_as_many_beside_many_checkpoints_as_beside_20(self, tmp_path, disk, splits, many):
        run, found, stored = Run(tmp_path / "run"), [], 0
        for number in (20, many):
            for epoch in range(stored, number):
                for split in splits:
                    run.append(predictions(epoch), epoch=epoch, split=split)
            run.flush()
            stored = number
            run = another_process(run.path)
            for split in splits:  # the first save of a process reads what there is
                self.save(run, 1000, 1, split)
            for split in splits:
                found += [self.asked(disk, action) for action in self.actions(run, number, split)]
        few, many = found[: len(found) // 2], found[len(found) // 2 :]
        assert few == many
        assert not any(asked.get("listings") for asked in found)
        assert max(asked["status"] for asked in found) < 40

    def test_a_reader_that_sees_the_run_grow_reads_only_what_is_new(self, tmp_path, disk):
        run = Run(tmp_path / "run")
        for epoch in range(1, 11):
            run.append(predictions(epoch), epoch=epoch)
        run.flush()
        reader = RunFolder(run.path)
        assert reader.memory("val", 3).find(10) is not None
        run.append(predictions(11), epoch=11)
        run.flush()
        asked = self.asked(disk, lambda: reader.memory("val", 3).find(11))
        assert asked["opened"] == asked["listings"] == 1
        assert asked["status"] < 15


EPOCHS = st.sampled_from([1.0, 2.0, 3.0])
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["save", "save", "save", "outsider", "remove", "lose logits", "copy in", "litter"]),
        EPOCHS,
    ),
    min_size=2,
    max_size=12,
)


class History:
    """A run that this process saves to while others change its folder; `seeds` is what it should hold."""

    def __init__(self, path):
        self.run = Run(path)
        self.outsider = Outsider(path)
        self.seeds = {}
        self.count = 0
        self.elsewhere = path.with_name("elsewhere")

    def act(self, action, epoch):
        self.count += 1
        if action == "save":
            self.run.append(predictions(self.count), epoch=epoch)
            self.run.flush()
            self.run._writer.give_up_sign()  # or else the outsider may not replace it
            self.seeds[epoch] = self.count
        elif action == "outsider":
            self.outsider.save(self.count, epoch)
            self.seeds[epoch] = self.count
        elif self.run.path.exists():
            {"remove": self.remove, "lose logits": self.lose, "copy in": self.copy, "litter": self.litter}[
                action
            ](epoch)

    def stored(self):
        folder = RunFolder(self.run.path)
        return folder.split_folder("val", 3) if folder.exists() else SplitFolder(self.run.path / "val")

    def files_of(self, epoch):
        folder = self.stored()
        records = [one for one in folder.readable if one.epoch == epoch]
        return [
            folder.folder / name for one in records for name in (one.name, *(file.name for file in one.files))
        ]

    def remove(self, epoch):
        for path in self.files_of(epoch):
            path.unlink(missing_ok=True)
        self.seeds.pop(epoch, None)

    def lose(self, epoch):
        for path in self.files_of(epoch):
            if path.name.endswith(".logits.npy"):
                path.unlink(missing_ok=True)
        self.seeds.pop(epoch, None)

    def copy(self, epoch):
        """Copy a checkpoint of another run of the same samples there, under a name not in use."""
        if epoch in self.seeds:
            return
        self.remove(epoch)  # what is damaged
        shutil.rmtree(self.elsewhere, ignore_errors=True)
        another = Outsider(self.elsewhere)
        for seed in range(self.stored().last):
            another.save(seed, 10 + seed)
        another.save(self.count, epoch)
        for path in sorted((self.elsewhere / "val").iterdir()):
            if path.name.startswith(f"{self.stored().last + 1:06d}"):
                shutil.copy(path, self.run.path / "val")
        self.seeds[epoch] = self.count

    def litter(self, epoch):
        (self.run.path / "val" / f"000009-{self.count:032x}.tmp").touch()

    def check(self, *, known):
        """The stored logits are those expected; what is remembered, if `known`, is what a stranger finds."""
        stored = self.stored()
        found = {}
        for epoch, record in stored.records.items():
            found[epoch] = read_predictions(stored.folder, record, ("0", "1", "2")).logits.tobytes()
        assert found == {epoch: predictions(seed).logits.tobytes() for epoch, seed in self.seeds.items()}
        if known and found:
            remembered = self.run._writer.run_folder.memory("val", 3).look()
            assert {epoch: record.name for epoch, record in remembered.records.items()} == {
                epoch: record.name for epoch, record in stored.records.items()
            }
            assert remembered.last >= stored.last


def acted(path, actions, *, by_hand=True):
    """Do it all, and check after each action."""
    history = History(path)
    for action, epoch in actions:
        if action == "copy in" and not by_hand:
            continue
        history.act(action, epoch)
        if by_hand and history.run.path.exists():
            changed_by_hand(history.run.path / "val")
        history.check(known=by_hand)
    history.run._writer.join()


class TestOthers:
    """Whoever changes the folder, a save does what it would do if nothing were remembered."""

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(ACTIONS)
    def test_what_is_remembered_is_what_is_there(self, tmp_path_factory, disk, actions):
        acted(tmp_path_factory.mktemp("run") / "run", actions)

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(ACTIONS)
    def test_nothing_is_lost_or_hidden_where_times_tell_nothing(
        self, tmp_path_factory, disk, frozen, actions
    ):
        acted(tmp_path_factory.mktemp("run") / "run", actions, by_hand=False)

    @pytest.mark.parametrize("locks", ["locks", "none", "refused"])
    @pytest.mark.parametrize("saves", [1, 2, 3])
    @pytest.mark.parametrize("moment", ["link", "unlink"])
    def test_what_another_saves_while_this_process_does_is_seen(
        self, tmp_path, disk, frozen, monkeypatch, moment, saves, locks
    ):
        # Of two records of an epoch the first is removed: the next number may be free, and the epoch not.
        def refused(*_):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(files, "HAS_LOCKS", locks != "none")
        if locks == "refused":
            monkeypatch.setattr(files.fcntl, "flock", refused)
        run, outsider = Run(tmp_path / "run"), Outsider(tmp_path / "run")
        for epoch in (1, 2):
            run.append(predictions(epoch), epoch=epoch)
            run.flush()
        real = getattr(disk, moment)

        def interrupted(*paths):
            real(*paths)
            monkeypatch.setattr(disk, moment, real)
            for seed in range(saves):
                outsider.save(50 + seed, 5)

        monkeypatch.setattr(disk, moment, interrupted)
        run.append(predictions(3), epoch=3)
        run.flush()
        for epoch in (4, 5):
            run.append(predictions(epoch), epoch=epoch)
            run.flush()
        stored = stored_logits(run.path)
        assert sorted(stored) == [1, 2, 3, 4, 5]
        assert stored[5].tobytes() == predictions(5).logits.tobytes()
        assert len([name for name in names(run.path / "val") if name.endswith(".json")]) == 5

    def test_another_that_saves_other_samples_is_noticed(self, tmp_path, disk, frozen):
        run = Run(tmp_path / "run")
        run.append(predictions(1), epoch=1, split="train")
        for epoch in (1, 2):
            run.append(predictions(epoch), epoch=epoch)
        run.flush()
        for path in (run.path / "val").iterdir():
            path.unlink()
        Outsider(run.path).save(1, 3, samples=7)
        assert "7 samples before" in failure(run.append, predictions(4), epoch=4)

    @pytest.mark.parametrize("ending", ["json", "logits.npy", "columns.npy"])
    def test_the_same_content_is_saved_again_if_a_file_was_removed(self, tmp_path, disk, frozen, ending):
        run = Run(tmp_path / "run")
        for epoch in (1, 2):
            run.append(predictions(epoch), epoch=epoch)
        run.flush()
        (removed,) = run.path.glob(f"val/000001*{ending}")
        removed.unlink()
        run.append(predictions(1), epoch=1)
        run.flush()
        assert sorted(stored_logits(run.path)) == [1, 2]

    def test_where_times_are_whole_seconds_each_save_lists(self, tmp_path, disk, monkeypatch):
        run = Run(tmp_path / "run")
        for epoch in (1, 2, 3):
            run.append(predictions(epoch), epoch=epoch)
        run.flush()
        listings = []
        for second in (split_memory._SECOND, 1):  # every time is a whole number of nanoseconds
            monkeypatch.setattr(split_memory, "_SECOND", second)
            run.append(predictions(4), epoch=5 + len(listings))
            run.flush()
            disk.calls.clear()
            run.append(predictions(4), epoch=7 + len(listings))
            run.flush()
            listings.append(disk.calls["listings"])
        assert listings[0] == 0 < listings[1]

    def test_a_change_that_can_t_be_announced_is_not_made(self, tmp_path, disk, monkeypatch):
        run = Run(tmp_path / "run")
        run.append(predictions(1), epoch=1)
        run.flush()
        before = names(run.path)

        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(disk, "lengthen", full)
            run.append(predictions(2), epoch=2)
            assert "No space left" in failure(run.flush)
        assert names(run.path) == before
        run.append(predictions(2), epoch=2)
        assert run.epochs == (1, 2)

    def test_one_that_can_t_be_announced_afterwards_is_saved(self, tmp_path, disk, monkeypatch):
        run, real, calls = Run(tmp_path / "run"), disk.lengthen, []

        def fails_each_second_time(descriptor):
            calls.append(descriptor)
            if len(calls) % 2 == 0:
                raise OSError(errno.EIO, "Input/output error")
            real(descriptor)

        monkeypatch.setattr(disk, "lengthen", fails_each_second_time)
        for epoch in (1, 2):
            run.append(predictions(epoch), epoch=epoch)
        run.flush()
        assert run.epochs == (1, 2)
        assert len(calls) == 4
