"""A checkpoint on its way to the disk: what the writer's thread makes of it, for those who wait."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from confshift.measurement import Measurement
from confshift.scoring import Scores, Scoring
from confshift.storage.commit import PendingSave
from confshift.storage.record import Record


def _locked_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(eq=False)
class Save:
    """A checkpoint that the writer is to save."""

    draft: PendingSave | None  # None once it is saved, so that the buffer is free
    split: str
    epoch: float
    release: Callable[[], object] | None
    scored: Future[Scores] = field(default_factory=Future)
    known: Scores | None = None  # all scores, as soon as some thread has them
    publish: Callable[[], object] = lambda: None  # sets `known`, after what must be said of the scores
    measured: Future[Measurement] = field(default_factory=Future)
    committed: Future[Record] = field(default_factory=Future)
    _unfinished: threading.Lock = field(default_factory=_locked_lock)

    def __post_init__(self) -> None:
        draft = self.draft
        #: None once it is over, as `draft` is.
        self.scoring = None if draft is None else Scoring(draft.predictions.logits, draft.predictions.targets)

    def scores(self) -> Scores:
        """Return the scores; the thread that waits for them helps, and may be through before the writer."""
        scoring = self.scoring
        if scoring is not None and self.known is None:
            with contextlib.suppress(Exception):  # such as too little memory: the writer will say so
                if scoring.help():
                    self.publish()
        return self.known or self.scored.result()

    def wait(self) -> None:
        """Wait until the writer has finished it."""
        with self._unfinished:
            pass

    def finish(self) -> None:
        """Let the waiting threads go on."""
        self._unfinished.release()
