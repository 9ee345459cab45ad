"""The one background writer of a run folder: it measures and saves while the training goes on."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import uuid
from functools import partial
from pathlib import Path

import numpy as np

from confshift.errors import ConfshiftError
from confshift.measurement import measure
from confshift.scoring import Scores
from confshift.storage import files
from confshift.storage.cleaning import tidy
from confshift.storage.commit import commit
from confshift.storage.pending import Save
from confshift.storage.record import FailedSave, Record
from confshift.storage.run_folder import RunFolder
from confshift.tasks import TASKS

_log = logging.getLogger("confshift")

_UNANSWERED = "give no answer (their outputs are NaN or infinite): they count for neither loss nor accuracy"
_INFINITE = "give their true class a probability of 0: the loss is infinite (finite_loss leaves them out)"

#: At most this many buffers of logits are pending: one being saved, one waiting.
_MAX_OUTSTANDING = 2


class Writer:
    """Saves the checkpoints of one run folder one by one, in a thread that runs while there are any."""

    def __init__(self, path: Path) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.run_folder = RunFolder(path)
        self.appending = threading.Lock()  # one append decides at a time
        self.started = False  # this process has written to the run
        self.highest: float | None = None  # val epoch that this process appended
        self.latest: float | None = None  # val epoch that this process appended last
        self.splits: set[str] = set()  # that this process appended to, since the folder was made
        # Not a Condition: an interrupt inside its `__enter__` would leave it locked for ever.
        self._state = threading.Lock()
        self._publishing = threading.Lock()
        self._saves: list[Save] = []  # the first is being saved
        self._failure: ConfshiftError | None = None
        self._gaps: list[FailedSave] = []
        self._thread: threading.Thread | None = None
        self._running = False  # the thread will read the list again
        self._tidied = False
        self._sign: int | None = None  # the open, locked file that shows that this process is running
        self._warned = False  # that this process replaced another's checkpoint
        self._unscored: set[tuple[str, str]] = set()  # the splits and kinds of samples warned about

    @property
    def outstanding(self) -> list[Save]:
        """The saves that are not finished yet."""
        with self._state:
            return list(self._saves)

    @property
    def gaps(self) -> list[FailedSave]:
        """Saves that failed and are not in a record yet."""
        with self._state:
            return list(self._gaps)

    def submit(self, save: Save) -> None:
        """Queue a save; waits while two are pending.

        The thread is not a daemon: the interpreter waits for it, also in a child process of
        multiprocessing, which ends without exit handlers.
        """
        self.wait_for_room()
        save.publish = partial(self._publish, save)
        with self._state:
            if not self._running:
                thread = threading.Thread(target=self._work, name="confshift-writer", daemon=False)
                try:
                    thread.start()  # it waits for our lock
                except RuntimeError as error:
                    raise ConfshiftError(
                        f"{self.run_folder.path}: can't start a thread to write in: {error}"
                    ) from error
                self._thread, self._running = thread, True
            self._saves.append(save)

    def wait_for_room(self) -> None:
        """Wait until fewer than two saves are pending."""
        while len(waiting := self.outstanding) >= _MAX_OUTSTANDING:
            waiting[0].wait()

    def miss(self, split: str, epoch: float, reason: str) -> None:
        """Remember a save that could not even be queued; the count of epochs goes on."""
        with self._state:
            self._gaps.append(FailedSave(split, epoch, reason))
        self.note(split, epoch)

    def note(self, split: str, epoch: float) -> None:
        """Remember that this process appended an epoch: the next one is counted from it."""
        self.started = True
        self.splits.add(split)
        if split == "val":
            self.highest = epoch if self.highest is None else max(epoch, self.highest)
            self.latest = epoch

    def forget(self) -> None:
        """Start anew: the run was deleted."""
        with self._state:
            self.started, self.highest, self.latest = False, None, None
            self._failure, self._gaps = None, []
        self.begin_anew()

    def begin_anew(self) -> None:
        """Treat the folder as new: warnings about the old one may be repeated."""
        self._warned = self._tidied = False
        self.splits.clear()
        self._unscored.clear()
        self.give_up_sign()

    def give_up_sign(self) -> None:
        """Show that this process has stopped saving: a resumed training may replace its epochs.

        What it saves later has another sign, so that those stay free.
        """
        if self._sign is not None:
            files.remove([self.run_folder.path / files.sign_of(self.id)])
        self.lose_sign()
        self.id = uuid.uuid4().hex[:16]

    def lose_sign(self) -> None:
        """Only close the sign file: in a forked process it is the parent's."""
        sign, self._sign = self._sign, None
        if sign is not None:
            files.hide_sign(sign)

    def wait(self) -> None:
        """Wait until no save is pending."""
        while waiting := self.outstanding:
            waiting[-1].wait()

    def join(self) -> None:
        """Wait for the thread's end too: if stopped while it frees a tensor, it would abort the process."""
        self.wait()
        if self._thread is not None:
            self._thread.join()

    def raise_failure(self) -> None:
        """Raise the error of a save that failed, once."""
        with self._state:
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _work(self) -> None:
        while True:
            with self._state:
                if not self._saves:
                    self._running = False
                    return
                save = self._saves[0]
            failure = self._save(save)
            save.draft = save.scoring = None
            if save.release is not None:
                try:
                    save.release()
                except Exception:
                    _log.exception("%s: release() failed", self.run_folder.path)
            with self._state:
                if failure is not None:
                    self._gaps.append(FailedSave(save.split, save.epoch, _reason(failure)))
                    self._failure = self._failure or failure
                del self._saves[0]
            save.finish()

    def _save(self, save: Save) -> ConfshiftError | None:
        """Measure and commit; return the error to raise later, if any."""
        draft, scoring = save.draft, save.scoring
        assert draft is not None
        assert scoring is not None
        try:
            scoring.work()
            self._publish(save)
            save.scored.set_result(scoring.scores)
            save.measured.set_result(measure(draft.predictions, scoring.scores))
            if not self._tidied:
                tidy(self.run_folder)
                self._tidied = True
            if self._sign is None:
                files.make_folders(self.run_folder.path)
                self._sign = files.show_sign(self.run_folder.path, self.id)
            record = commit(self.run_folder, draft, save.measured.result(), tuple(self.gaps))
        except Exception as cause:
            error = ConfshiftError(
                f"epoch {save.epoch:g} ({save.split}) was not saved in {self.run_folder.path}: {cause}. "
                "The checkpoints before it are intact"
            )
            error.__cause__ = cause
            for future in (save.scored, save.measured, save.committed):
                if not future.done():
                    future.set_exception(error)
            return error
        with self._state:
            self._gaps = [gap for gap in self._gaps if gap not in record.gaps]
        self._warn_of_replacing(draft.replaces, record)
        save.committed.set_result(record)
        return None

    def _publish(self, save: Save) -> None:
        """Let all scores be read, after what must be said of them: by the first thread that has them."""
        with self._publishing:
            draft, scoring = save.draft, save.scoring
            # An earlier epoch is warned about first.
            if save.known is not None or draft is None or scoring is None or save is not self.outstanding[0]:
                return
            scores = scoring.scores
            self._warn_of_unscored(scores, save, TASKS[draft.predictions.task].sample)
            _ = scores.mean_loss, scores.accuracy  # while no other thread measures
            save.known = scores

    def _warn_of_unscored(self, scores: Scores, save: Save, noun: str) -> None:
        """Log a warning for each kind of unscored samples, once for each run and split.

        That a model gives no answer at all is a warning of its own.
        """
        answered = scores.answered
        if answered.all() and math.isfinite(scores.mean_loss):
            return
        samples = len(answered)
        unanswered = samples - int(answered.sum())
        for kind, number, text in (
            ("silent" if unanswered == samples else "unanswered", unanswered, _UNANSWERED),
            ("infinite", int((answered & np.isinf(scores.loss)).sum()), _INFINITE),
        ):
            about = (save.split, kind)
            if not number or about in self._unscored:
                continue
            _log.warning(
                "%s: at epoch %g (%s), %d of %d %ss %s. Later epochs are not warned about",
                *(self.run_folder.path, save.epoch, save.split, number, samples, noun, text),
            )
            self._unscored.add(about)  # an interrupt before this repeats the warning

    def _warn_of_replacing(self, replaced: Record | None, record: Record) -> None:
        """Warn once that another process's checkpoint was replaced: it may be of another training."""
        if self._warned or replaced is None or replaced.provenance.writer == record.provenance.writer:
            return
        self._warned = True
        path = str(self.run_folder.path)
        _log.warning(
            "%s: epoch %g (%s), which another process had saved, was replaced. If this training does not "
            "continue that one, the run now mixes two: use another run folder, or remove the old run "
            "first: Run(%r).delete(). Later replacements are not warned about",
            path,
            record.epoch,
            record.split,
            path,
        )


def _reason(failure: ConfshiftError) -> str:
    """Say why a save failed, without the path: a run may be read elsewhere."""
    cause = failure.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)


_writers: dict[str, Writer] = {}
_registry = threading.Lock()


def writer_of(path: str) -> Writer:
    """Return this process's writer of a folder, given its real path: one for all handles on it."""
    with _registry:
        if path not in _writers:
            _writers[path] = Writer(Path(path))
        return _writers[path]


def _forget_writers() -> None:
    """Start anew in a forked process: its parent's threads are missing, and locks may stay locked."""
    global _registry
    _registry = threading.Lock()
    for writer in _writers.values():
        writer.lose_sign()
    _writers.clear()


def _finish() -> None:
    """Save what is pending before the interpreter ends, and log failures not reported yet."""
    for writer in list(_writers.values()):
        writer.join()
        try:
            writer.raise_failure()
        except ConfshiftError as error:
            _log.error("confshift: %s", error)
        writer.give_up_sign()


atexit.register(_finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_writers)
