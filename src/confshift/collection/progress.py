"""Progress: a bar for a pass that takes long."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["Bar", "shown"]

#: A pass that takes longer than this shows its progress, in seconds.
_PATIENCE = 5


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar whose lock is made anew in a forked process: a thread of the parent may have held tqdm's."""


def shown(batches: Iterable[Any], title: str, count: int | None) -> Iterable[Any]:
    """Iterate over batches, with a bar on a terminal."""
    on_terminal = getattr(sys.stderr, "isatty", None)
    if on_terminal is None or not on_terminal():  # no bar either: an interrupt in its destructor is lost
        return batches
    return Bar(batches, title, count, leave=False, disable=None, delay=_PATIENCE, unit="batch")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: Bar.set_lock(threading.RLock()))
