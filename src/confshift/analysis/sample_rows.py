"""Two checkpoints sample by sample, as a table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from confshift.analysis.decomposition import DIRECTIONS, TRANSITIONS, cell_codes
from confshift.analysis.panel import Panel
from confshift.analysis.sorting import largest

SIDES = ("before", "after")


def side_by_side(panel: Panel) -> pd.DataFrame:
    """Return target, and predicted class, loss, confidence and margin before and after, by sample_id."""
    columns: dict[str, Any] = {"target": panel.targets}
    for name in ("predicted", "loss", "confidence", "margin"):
        for at, side in enumerate(SIDES):
            columns[f"{name}_{side}"] = getattr(panel, name)[at]
    return pd.DataFrame(columns, index=pd.Index(panel.sample_ids, name="sample_id"))


def sample_rows(panel: Panel) -> pd.DataFrame:
    """Return `side_by_side` with the change of the loss (nats), its transition and its direction.

    Every loss of the panel is finite.
    """
    transition, direction = np.divmod(cell_codes(panel, 0, 1), len(DIRECTIONS))
    return side_by_side(panel).assign(
        change=panel.changes(0, 1),
        transition=pd.Categorical.from_codes(transition, pd.Index(TRANSITIONS)),
        direction=pd.Categorical.from_codes(direction, pd.Index(DIRECTIONS)),
    )


def top_rows(panel: Panel, number: int) -> pd.DataFrame:
    """Return the rows of `sample_rows` whose loss rose most, the largest rise first."""
    members = np.zeros(len(panel.targets), bool)
    members[largest(panel.changes(0, 1), number)] = True
    return sample_rows(panel.take(members)).nlargest(number, "change")
