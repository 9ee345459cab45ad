"""Saying, while the user waits, that samples have no finite loss: no mean can hold them."""

from __future__ import annotations

import logging

from confshift.scoring import Unscored
from confshift.storage.record import Record
from confshift.storage.writer import Writer

__all__ = ["warn_of_unscored"]

_log = logging.getLogger("confshift")

_UNANSWERED = "give no answer (their outputs are NaN or infinite): they count for neither loss nor accuracy"
_INFINITE = "give their true class a probability of 0: the loss is infinite (finite_loss leaves them out)"


def warn_of_unscored(found: Unscored, writer: Writer, record: Record, *, samples: int) -> None:
    """Log a warning for each kind of unscored samples, once for each run and split.

    That a model no longer gives any answer is said even where some samples had none before.
    """
    silent = found.unanswered == samples
    for kind, number, text in (
        ("silent" if silent else "unanswered", found.unanswered, _UNANSWERED),
        ("infinite", found.infinite, _INFINITE),
    ):
        about = (record.split, kind)
        if not number or about in writer.unscored:
            continue
        writer.unscored.add(about)
        _log.warning(
            "%s: at epoch %g (%s), %d of %d samples %s. Further epochs are not warned about",
            *(writer.catalog.path, record.epoch, record.split, number, samples, text),
        )
