"""The results of reports.py as a part of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]


def page(results: Results) -> str:
    """Write everything that stands between the marks."""
    rounds = results["rounds"]
    parts = [
        f"Measured on {results['machine']}; one thread used"
        + (f", the least of {rounds} rounds." if rounds > 1 else "."),
        "\n".join([head(results["against"]), *map(row, results["rows"])]),
    ]
    if results["anew"]:
        parts.append(anew(results["anew"]))
    return "\n" + "\n\n".join(parts) + "\n\n"


def title(size: Sequence[int]) -> str:
    return ", ".join(f"{name} = {number:,}" for name, number in zip("TNK", size, strict=True))


def head(against: str | None) -> str:
    """Write the first two lines of the table."""
    names = ["run", "command"]
    if against is None:
        names.append("CPU, peak memory")
    else:
        names += [f"{against}: CPU, peak memory", "now, on the same files: times as much"]
        names.append("now, on a run that it saved itself: times as much")
    names.append("again, CPU")
    return f"| {' | '.join(names)} |\n|{'--|' * len(names)}"


def row(one: Results) -> str:
    """Write a row: the other checkout, this one on the same files, on its own, and once more."""
    costs, cells = one["costs"], [title(one["size"]), f"`{one['command']}`"]
    if "other" in costs:
        cells.append(written(costs["other"]))
        cells += [f"{written(costs[side])}{ratio(costs[side], costs['other'])}" for side in ("same", "own")]
    else:
        cells.append(written(costs["own"]))
    cells.append(f"{costs['again']['cpu']:.1f} s" if "again" in costs else "–")
    return f"| {' | '.join(cells)} |"


def written(cost: Results) -> str:
    """Write what a process took, or which limit ended it."""
    return cost["over"] or f"{cost['cpu']:.1f} s, {cost['peak']:.2f} GB"


def ratio(cost: Results, other: Results) -> str:
    """Write CPU time and memory as multiples of the other's; nothing where a limit ended either."""
    if cost["over"] or other["over"]:
        return ""
    return f": **{cost['cpu'] / other['cpu']:.2f}**, {cost['peak'] / other['peak']:.2f}"


def anew(rows: Sequence[Results]) -> str:
    """Write the table of runs whose columns are made anew."""
    lines = [
        "| run that lacks columns | reading its bytes: CPU, wall | `history`: CPU, peak memory, wall "
        "| wall, times as long |",
        "|--|--|--|--|",
    ]
    for one in rows:
        epochs, samples, classes = one["size"]
        place = "the disk" if one["cold"] else "memory, as this system can't forget them"
        amount = f"{title(one['size'])}: {4e-9 * epochs * samples * classes:.1f} GB of logits, from {place}"
        reading, history = one["reading"], one["history"]
        times = "–" if history["over"] else f"**{history['wall'] / reading['wall']:.2f}**"
        read = f"{reading['cpu']:.1f} s, {reading['wall']:.1f} s"
        lines.append(f"| {amount} | {read} | {written(history)}, {history['wall']:.1f} s | {times} |")
    return "\n".join(lines)
