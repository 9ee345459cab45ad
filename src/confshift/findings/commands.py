"""The next step of a finding as a command line, in which RUN stands for the run's path."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Mapping
from typing import TypeAlias

from confshift.analysis.comparison import Comparison

#: What RUN, and of two runs OTHER, stand for in commands.
Places: TypeAlias = Mapping[str, str | os.PathLike[str]]


def in_place(command: str, places: Places) -> str:
    """Return a command with the quoted paths in place of RUN and OTHER; in Python "RUN" with its quotes."""

    def path(match: re.Match[str]) -> str:
        name = match[1] or match[0]
        if name not in places:
            return match[0]
        return json.dumps(str(places[name])) if match[1] else shlex.quote(str(places[name]))

    return re.sub(r'"(RUN|OTHER)"|\b(?:RUN|OTHER)\b', path, command)


def calibrate(epoch: float | None) -> str:
    """Return the command that calibrates the checkpoint of an epoch; "" without one."""
    return "" if epoch is None or math.isnan(epoch) else f"confshift calibrate RUN --epoch {_number(epoch)}"


def compare(comparison: Comparison) -> str:
    """Return the command that prints what changed between two checkpoints; "" where they are of no run."""
    before, after = comparison.before, comparison.after
    if math.isnan(before.epoch) or math.isnan(after.epoch) or before.split != after.split:
        return ""
    split = "" if after.split == "val" else f" --split {shlex.quote(after.split)}"
    return f"confshift compare RUN {_number(before.epoch)} {_number(after.epoch)}{split}"


def _number(epoch: float) -> str:
    """Write an epoch in full, so that the run has one of that number."""
    short = f"{epoch:g}"
    return short if float(short) == epoch else repr(float(epoch))
