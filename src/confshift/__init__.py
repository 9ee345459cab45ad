"""Why does the validation loss rise while accuracy stays flat? An exact, per-sample answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from confshift.analysis.comparison import Comparison, compare
    from confshift.analysis.history import History, summarize
    from confshift.checkpoint import Checkpoint
    from confshift.collection.collector import Collector
    from confshift.collection.inspection import inspect
    from confshift.errors import ConfshiftError
    from confshift.findings.diagnosis import diagnose
    from confshift.findings.question import Finding
    from confshift.predictions import Predictions
    from confshift.reporting.calibration_file import Calibration, calibrate
    from confshift.reporting.page import Report, report
    from confshift.reporting.plotting import plot
    from confshift.storage.run import Run

__version__ = "0.1.0"

__all__ = [
    "Calibration",
    "Checkpoint",
    "Collector",
    "Comparison",
    "ConfshiftError",
    "Finding",
    "History",
    "Predictions",
    "Report",
    "Run",
    "calibrate",
    "compare",
    "diagnose",
    "inspect",
    "plot",
    "report",
    "summarize",
]

_HOMES = {
    "Calibration": "reporting.calibration_file",
    "Checkpoint": "checkpoint",
    "Collector": "collection.collector",
    "Comparison": "analysis.comparison",
    "ConfshiftError": "errors",
    "Finding": "findings.question",
    "History": "analysis.history",
    "Predictions": "predictions",
    "Report": "reporting.page",
    "Run": "storage.run",
    "calibrate": "reporting.calibration_file",
    "compare": "analysis.comparison",
    "diagnose": "findings.diagnosis",
    "inspect": "collection.inspection",
    "plot": "reporting.plotting",
    "report": "reporting.page",
    "summarize": "analysis.history",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and altair are heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'confshift' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"confshift.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
