"""The trainers: extras, which `make trainers` must have and a developer may lack."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import pytest


def needed(name: str) -> Any:
    """Return a module; without it skip the tests here, unless `make trainers` runs them."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("TRAINERS_REQUIRED"):
            raise
        pytest.skip(f"{name} is not installed: pip install -e '.[trainers]'", allow_module_level=True)


def needed_elsewhere(*names: str) -> None:
    """Skip the tests here as `needed` does, for packages that another process imports, in its own time."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing and not os.environ.get("TRAINERS_REQUIRED"):
        pytest.skip(f"{missing[0]} is not installed: pip install -e '.[trainers]'", allow_module_level=True)
