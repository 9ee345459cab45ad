"""Results as JSON, for programs: unrounded, with a schema version."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["SCHEMA", "document", "rows"]

#: The version of the documents. A new field leaves it; a changed or removed one raises it.
SCHEMA = 1


def document(**parts: Any) -> str:
    """Write parts as one JSON object, with the schema version first.

    Parameters
    ----------
    **parts
        Plain values, numpy scalars, mappings, lists, tables. A table becomes a list of rows.

    Returns
    -------
    str
        ASCII only. What JSON has no word for (NaN, infinity) is null.

    Examples
    --------
    >>> document(loss=float("nan"), epochs=[1, 2.5])
    '{"schema": 1, "loss": null, "epochs": [1, 2.5]}'
    """
    return json.dumps({"schema": SCHEMA, **_plain(parts)}, allow_nan=False)


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as a list of rows; a named index becomes columns, the first ones."""
    named = any(name is not None for name in table.index.names)
    records: list[dict[str, Any]] = (table.reset_index() if named else table).to_dict(orient="records")
    return records


def _plain(value: Any) -> Any:
    if isinstance(value, pd.DataFrame):
        value = rows(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
