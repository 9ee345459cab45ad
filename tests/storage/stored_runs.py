"""Predictions to save, and ways to look at a run folder from outside."""

from pathlib import Path

import numpy as np

from confshift import ConfshiftError, Predictions, Run
from confshift.storage import writer
from confshift.storage.files import SIGN, Disk, sign_of

SAMPLES, CLASSES = 20, 3


def predictions(seed=0, samples=SAMPLES, classes=CLASSES, **more):
    """Different logits for each seed, the same samples and targets."""
    logits = np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32)
    return Predictions(logits, np.arange(samples) % classes, **more)


def another_process(path):
    """Return a handle that knows nothing of what this process did, once that is on the disk."""
    for one in writer._writers.values():
        one.wait()
        if one._sign is not None:  # removed as by a process that ends
            (one.run_folder.path / sign_of(one.id)).unlink(missing_ok=True)
    writer._forget_writers()
    return Run(path)


def stored_logits(path):
    """Return the logits of every checkpoint that can be used, by epoch."""
    return {one.epoch: np.array(one.predictions.logits) for one in another_process(path).checkpoints()}


def names(path):
    """Return every file of a folder, relative, sorted; not the locks of processes that live."""
    files = (one for one in Path(path).rglob("*") if one.is_file() and not SIGN.fullmatch(one.name))
    return sorted(str(one.relative_to(path)) for one in files)


def litter(path):
    """Return the files of a run that no record names."""
    run = another_process(path)
    run_folder, found = run._writer.run_folder, []
    for split in run_folder.splits():
        split_folder = run_folder.split_folder(split, len(run.class_names))
        named = {one.name for record in split_folder.records.values() for one in record.files}
        found += [one.name for one in split_folder.other_files if one.name not in named]
        found += [record.name for record in split_folder.replaced]
    return found


READS = {"status", "names", "open_reading", "map"}


class CountingDisk(Disk):
    """Counts the system calls that write and makes one of them, or all from it on, fail."""

    def __init__(self, error=None, at=None, *, for_good=False):
        self.error, self.at, self.for_good, self.calls = error, at, for_good, []

    def __getattribute__(self, name):
        call = object.__getattribute__(self, name)
        if name.startswith("_") or name in READS or not callable(call):
            return call

        def counted(*arguments):
            number = len(self.calls)
            self.calls.append(name)
            if self.at is not None and (number == self.at or (self.for_good and number > self.at)):
                if name == "close":
                    call(*arguments)  # a close that fails has closed
                raise self.error
            return call(*arguments)

        return counted


def failure(action, *arguments, **more):
    """Return the message of the ConfshiftError that this raises."""
    try:
        action(*arguments, **more)
    except ConfshiftError as error:
        return str(error)
    raise AssertionError("nothing was raised")
