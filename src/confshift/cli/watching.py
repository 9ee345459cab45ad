"""`confshift report --watch`: waits for checkpoints, and writes the page anew for each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from confshift.storage.run import Run

#: Seconds between two looks at the folder.
_PAUSE = 1.0


def changes(run: Run) -> Iterator[int]:
    """Yield the number of checkpoints when the run has its first, and whenever it has others.

    The run need not be there yet. The first checkpoints of other splits than val are waited out: there is no
    page without one of val.
    """
    known = None
    while True:
        contents = _contents(run)
        if contents != known and contents.get("val"):
            yield sum(map(len, contents.values()))
            known = contents
        time.sleep(_PAUSE)


def _contents(run: Run) -> dict[str, tuple[float, ...]]:
    return {split: run.epochs_of(split) for split in run.splits} if run.exists() else {}
