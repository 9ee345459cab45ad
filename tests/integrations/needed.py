"""The trainers: extras, which `make trainers` must have and a developer may lack."""

from __future__ import annotations

import importlib
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
