"""The collector's checks of the model, as far as they can be read: a record may hold anything."""

from __future__ import annotations

import math
from typing import Any

from confshift.checkpoint import Checkpoint
from confshift.input_checks import as_number

_STATUSES = ("passed", "failed", "measured", "not made")
_TEXTS = ("reason", "module", "where")
_NUMBERS = ("difference", "count", "samples", "in_features", "mean_squared_norm", "own", "rows")
_SWITCHES = ("bias", "zero_weights")


def check_of(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Return a check's status and its readable details; {} without a readable status."""
    entry = checkpoint.provenance.checks.get(name)
    if not isinstance(entry, dict) or entry.get("status") not in _STATUSES:
        return {}
    result: dict[str, Any] = {"status": entry["status"]}
    result |= {key: entry[key] for key in _TEXTS if isinstance(entry.get(key), str)}
    result |= {
        key: value for key in _NUMBERS if math.isfinite(value := as_number(entry.get(key))) and value >= 0
    }
    result |= {key: entry[key] for key in _SWITCHES if isinstance(entry.get(key), bool)}
    modules = entry.get("modules")
    if isinstance(modules, list):
        result["modules"] = [module for module in modules if isinstance(module, str)]
    return result
