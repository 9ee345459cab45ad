"""What is wrong with a run: checkpoints left out as damaged, and saves that failed."""

from __future__ import annotations

import math

import pandas as pd

from confshift.storage import arrays
from confshift.storage.loading import columns_damage
from confshift.storage.record import Gap
from confshift.storage.shelf import Problem, Shelf

__all__ = ["check_files", "explain_missing", "list_problems", "open_gaps"]


def list_problems(found: list[Problem], gaps: list[Gap]) -> pd.DataFrame:
    """Return what is missing from a run, as :attr:`Run.problems` describes it."""
    rows = [(one.split, _number(one.epoch), one.kind, one.file, one.reason) for one in found]
    rows += [(gap.split, gap.epoch, "gap", "", gap.reason) for gap in gaps]
    return pd.DataFrame(rows, columns=["split", "epoch", "kind", "file", "reason"])


def open_gaps(shelves: list[Shelf], untold: list[Gap]) -> list[Gap]:
    """Return the saves that failed and were not made up for since; `untold` are in no record yet."""
    saved = {(shelf.folder.name, epoch) for shelf in shelves for epoch in shelf.records}
    told = [gap for shelf in shelves for record in shelf.readable for gap in record.gaps]
    return [gap for gap in dict.fromkeys([*told, *untold]) if (gap.split, gap.epoch) not in saved]


def explain_missing(epoch: float, shelf: Shelf, gaps: list[Gap]) -> str:
    """Say why a split has no such epoch, and which it has."""
    split = shelf.folder.name
    reasons = [one.reason for one in shelf.problems if one.epoch == epoch]
    reasons += [gap.reason for gap in gaps if (gap.split, gap.epoch) == (split, epoch)]
    because = f" ({'; '.join(reasons)})" if reasons else ""
    known = ", ".join(f"{one:g}" for one in shelf.records) or "none"
    return f"{shelf.folder.parent} has no epoch {epoch:g} of split {split!r}{because}; its epochs: {known}"


def check_files(shelves: list[Shelf], damaged_names: list[Problem]) -> pd.DataFrame:
    """Read every byte and compare it with its checksum, as :meth:`Run.verify` describes it."""
    rows = [(one.split, _number(one.epoch), one.file, False, one.reason) for one in damaged_names]
    for shelf in shelves:
        split = shelf.folder.name
        rows += [(split, _number(one.epoch), one.file, False, one.reason) for one in shelf.problems]
        for epoch, record in shelf.records.items():
            for stored in record.files:
                reason = arrays.damage(shelf.folder, stored)
                if not reason and stored is record.shards[0].columns:
                    reason = columns_damage(shelf.folder, record)
                rows.append((split, epoch, stored.name, not reason, reason))
    return pd.DataFrame(rows, columns=["split", "epoch", "file", "sound", "reason"])


def _number(epoch: float | None) -> float:
    return math.nan if epoch is None else epoch
