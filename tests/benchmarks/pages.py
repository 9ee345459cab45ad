"""What the benchmarks write: the machine in a line, and the parts of a page between two marks."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
BENCHMARKS = DOCS / "benchmarks.md"
#: What scripts measured, from which they write the page.
RESULTS = DOCS / "benchmarks.json"
END = "<!-- end of what it wrote -->\n"


def begin(script: str) -> str:
    """Return the mark before what a script of this folder writes."""
    return f"<!-- by tests/benchmarks/{script}.py -->\n"


def put(path: Path, script: str, text: str) -> None:
    """Replace what stands between the marks of a script in a file that has them."""
    mark = begin(script)
    before, found, rest = path.read_text(encoding="utf-8").partition(mark)
    if not found or END not in rest:
        raise SystemExit(f"{path} has no place for {script}: write {mark.strip()} and {END.strip()} there")
    path.write_text(f"{before}{mark}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")


def between(whole: str, script: str) -> str:
    """Return what stands between the marks of a script."""
    return whole.split(begin(script))[1].split(END)[0]


def kept() -> dict[str, Any]:
    """Return by script what it measured last."""
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    return found


def keep(script: str, results: Any) -> None:
    """Keep what a script measured, each number on a line, so that differences can be read."""
    RESULTS.write_text(json.dumps({**kept(), script: results}, indent=1) + "\n", encoding="utf-8")


def machine(*packages: str) -> str:
    """Name the processor, what it can do at once, Python and the versions of packages."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{model or platform.machine()}, {os.cpu_count()} cores, {_simd()}: "
        f"Python {platform.python_version()}, {versions}"
    )


def _simd() -> str:
    """Return the widest instructions that numpy and torch find here, of which each has kernels."""
    import numpy
    import torch

    found = numpy.show_config(mode="dicts")["SIMD Extensions"].get("found") or ["no SIMD"]
    return f"{found[-1]} (numpy) and {torch.backends.cpu.get_cpu_capability()} (torch)"
