"""A model of power loss: every state a disk may legally be in after a crash, at every system call.

Without an fsync a file's bytes may be old, new, cut or zeros, and each change of a folder may or may not
have arrived, independently of the others (in the manner of SQLite's crash tests and of ALICE, OSDI 2014).
A protocol with an fsync forgotten must be caught, or the model proves nothing.
"""

import copy
import itertools
import shutil
from dataclasses import dataclass, field

import pytest
from stored_runs import another_process, predictions

from confshift import ConfshiftError
from confshift.storage import files
from confshift.storage.files import Disk

#: What is saved: epoch and seed; the last replaces the first.
SAVES = [(1, 1), (2, 2), (1, 3)]


@dataclass
class File:
    bytes: bytes = b""
    on_disk: bytes = b""
    dirty: bool = False

    def after_crash(self):
        if not self.dirty:
            return {self.bytes}
        return {self.on_disk, self.bytes, self.bytes[: len(self.bytes) // 2], b"\0" * len(self.bytes)}


@dataclass
class Folder:
    entries: dict = field(default_factory=dict)
    on_disk: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)  # (name, file or folder, or None where it was removed)

    def change(self, name, what):
        self.changes.append((name, what))
        self.entries = {key: value for key, value in self.entries.items() if key != name}
        if what is not None:
            self.entries[name] = what


class ModelledDisk(Disk):
    """Does every call on the real disk, and keeps book of what a crash would leave."""

    def __init__(self, base, forgets=lambda call, path: False):
        self.base, self.forgets = base, forgets
        self.root = Folder()
        self.open = {}
        self.states = []  # the book at each moment

    def at(self, path):
        place = self.root
        for part in path.relative_to(self.base).parts:
            place = place.entries[part]
        return place

    def add(self, path, what):
        self.at(path.parent).change(path.name, what)
        self.states.append(copy.deepcopy(self.root))

    def make_folder(self, path):
        super().make_folder(path)
        self.add(path, Folder())

    def create(self, path):
        descriptor = super().create(path)
        self.open[descriptor] = (path, File(dirty=True))
        self.add(path, self.open[descriptor][1])
        return descriptor

    def write(self, descriptor, piece):
        super().write(descriptor, piece)
        self.open[descriptor][1].bytes += bytes(piece)
        self.states.append(copy.deepcopy(self.root))

    def sync(self, descriptor):
        path, file = self.open[descriptor]
        if not self.forgets("sync", path):
            file.on_disk, file.dirty = file.bytes, False
        self.states.append(copy.deepcopy(self.root))

    def sync_folder(self, path):
        if path != self.base and not self.forgets("sync_folder", path):
            folder = self.at(path)
            folder.on_disk, folder.changes = dict(folder.entries), []
        elif path == self.base and not self.forgets("sync_folder", path):
            self.root.on_disk, self.root.changes = dict(self.root.entries), []
        self.states.append(copy.deepcopy(self.root))

    def link(self, source, target):
        super().link(source, target)
        self.add(target, self.at(source))

    def unlink(self, path):
        super().unlink(path)
        self.add(path, None)

    def open_lock(self, path):
        new = not path.exists()
        descriptor = super().open_lock(path)
        if new:
            self.add(path, File())
        return descriptor


def after_crash(folder):
    """Yield every content that a folder may have, as (name, bytes or the content of a folder) pairs."""
    for kept in subsets(len(folder.changes)):
        entries = dict(folder.on_disk)
        for (name, what), keep in zip(folder.changes, kept, strict=True):
            if keep and what is None:
                entries.pop(name, None)
            elif keep:
                entries[name] = what
        options = [
            after_crash(what) if isinstance(what, Folder) else sorted(what.after_crash())
            for what in entries.values()
        ]
        for one in itertools.product(*options):
            yield tuple(sorted(zip(entries, one, strict=True)))


def subsets(size):
    """Return which of so many changes arrived: every combination, or, of many, all but one and one alone."""
    if size <= 6:
        return itertools.product((False, True), repeat=size)
    alone = [tuple(n == m for m in range(size)) for n in range(size)]
    return [(True,) * size, (False,) * size, *alone, *(tuple(not one for one in kept) for kept in alone)]


def write_out(disk, path):
    path.mkdir()
    for name, content in disk:
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            write_out(content, path / name)


class QuickDisk(Disk):
    """Does not wait for the disk: the model decides what a crash leaves."""

    def sync(self, descriptor):
        pass

    def sync_folder(self, path):
        pass


def broken_promise(path, acknowledged, *, go_on):
    """Say what a run that came up after a crash breaks; "" where it keeps every promise."""
    run = another_process(path)
    if not run.exists():
        return "an acknowledged checkpoint is lost" if acknowledged else ""
    try:
        run.class_names  # noqa: B018
    except ConfshiftError:
        return "the run can't be opened"
    if not run.verify()["sound"].all() or not run.problems.empty:
        return "a torn checkpoint is visible"
    found = {one.epoch: one.predictions.logits.tobytes() for one in run.checkpoints()}
    for epoch, logits in found.items():
        allowed = [seed for at, seed in SAVES if at == epoch and seed >= acknowledged.get(epoch, 0)]
        if logits not in [predictions(seed).logits.tobytes() for seed in allowed]:
            return "a checkpoint has the wrong content"
    if not set(acknowledged) <= set(found):
        return "an acknowledged checkpoint is lost"
    if go_on:
        run.append(predictions(9), epoch=9)
        run.flush()
        assert 9 in another_process(path).epochs
    return ""


def crash(tmp_path, monkeypatch, forgets=lambda call, path: False):
    """Save under the model; return the first broken promise and how many different disks were opened."""
    base = tmp_path / "live"
    base.mkdir()
    disk = ModelledDisk(base, forgets)
    promised = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "DISK", disk)
        for epoch, seed in SAVES:
            run = another_process(base / "run")
            run.append(predictions(seed), epoch=epoch)
            run.flush()
            promised.append((len(disk.states), epoch, seed))
    monkeypatch.setattr(files, "DISK", QuickDisk())
    seen = set()
    place = tmp_path / "after"
    for moment, possible in enumerate([*disk.states, disk.states[-1]]):
        acknowledged = {epoch: seed for since, epoch, seed in promised if moment >= since}
        for one in after_crash(possible):
            key = (one, tuple(sorted(acknowledged.items())))
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(place, ignore_errors=True)
            write_out(one, place)
            if reason := broken_promise(place / "run", acknowledged, go_on=len(seen) % 5 == 0):
                return reason, len(seen)
    return "", len(seen)


def test_no_power_loss_at_any_moment_breaks_a_promise(tmp_path, monkeypatch):
    broken, disks = crash(tmp_path, monkeypatch)
    assert broken == ""
    assert disks > 100


MUTANTS = {
    "data": lambda call, path: call == "sync" and path.suffix == ".npy",
    "record": lambda call, path: call == "sync" and path.parent.name == "val" and path.suffix == ".tmp",
    "run.json": lambda call, path: call == "sync" and path.parent.name == "run",
    "names of a checkpoint's files": lambda call, path: call == "sync_folder" and path.name == "val",
    "names in the run": lambda call, path: call == "sync_folder" and path.name == "run",
    "name of the run": lambda call, path: call == "sync_folder" and path.name == "live",
}


@pytest.mark.parametrize("forgotten", MUTANTS)
def test_a_forgotten_fsync_is_caught(tmp_path, monkeypatch, forgotten):
    broken, _ = crash(tmp_path, monkeypatch, MUTANTS[forgotten])
    assert broken


def test_the_folder_is_synced_before_its_record_is_put(tmp_path, monkeypatch):
    seen = []

    def forgets_every_other(call, path):
        if call == "sync_folder" and path.name == "val":
            seen.append(path)
            return len(seen) % 2 == 1  # the one before the record
        return False

    broken, _ = crash(tmp_path, monkeypatch, forgets_every_other)
    assert broken
