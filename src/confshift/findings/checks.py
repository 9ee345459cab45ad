"""What the collector tried on the model, so far as it can be read: a record may hold anything."""

from __future__ import annotations

import math
from typing import Any

from confshift.checkpoint import Checkpoint
from confshift.input_checks import as_number

_STATUSES = ("passed", "failed", "measured", "not made")
_TEXTS = ("reason", "module", "where")
_NUMBERS = ("difference", "count", "samples", "in_features", "mean_squared_norm")
_SWITCHES = ("bias", "zero_weights")


def check_of(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Return the entry of a check: its status and those details that can be read; {} without a status."""
    entry = checkpoint.provenance.checks.get(name)
    if not isinstance(entry, dict) or entry.get("status") not in _STATUSES:
        return {}
    found: dict[str, Any] = {"status": entry["status"]}
    found |= {key: entry[key] for key in _TEXTS if isinstance(entry.get(key), str)}
    found |= {
        key: value for key in _NUMBERS if math.isfinite(value := as_number(entry.get(key))) and value >= 0
    }
    found |= {key: entry[key] for key in _SWITCHES if isinstance(entry.get(key), bool)}
    modules = entry.get("modules")
    if isinstance(modules, list):
        found["modules"] = [module for module in modules if isinstance(module, str)]
    return found
