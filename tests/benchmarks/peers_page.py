"""The results of peers.py as a part of docs/benchmarks.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from peer_answers import QUESTIONS

#: Below this, another package counts as quicker.
FIRST = 0.95
OURS = "confshift `calibrate`"
Results = Mapping[str, Any]


def digits(ratio: float) -> str:
    """Write a ratio with two digits, or as a whole number."""
    return f"{ratio:.2g}" if ratio < 99.5 else f"{ratio:.0f}"


def page(results: Results, picture: str) -> str:
    """Write everything that stands between the marks."""
    parts = [
        f"Measured on {results['machine']}.",
        *questions(results["questions"]),
        "### Recalibration",
        *(recalibration(one) for one in results["recalibration"]),
        "`calibrate` fits a temperature, biases, a scale for each class and a matrix, measures each on what "
        "is left out of its fit, and takes the richest that is surely better; the others are one fit.",
        "### How the cost grows",
        "Loss, ECE in 15 bins and temperature together, least CPU seconds; the dashed line is `summarize` of "
        "a saved run, whose losses and temperatures were computed when it was saved.",
        f"![CPU seconds by the number of samples, classes and checkpoints]({picture})",
    ]
    return "\n" + "\n\n".join(parts) + "\n\n"


# ---------------------------------------------------------------------------------------------- the questions
def questions(rows: Sequence[Results]) -> list[str]:
    """Write the table of all questions, what confshift gives besides, and whose answers differ."""
    head = (
        "| from float32 logits | samples × classes | confshift | the others, times as long | |\n"
        "|--|--|--|--|--|"
    )
    beside = "\n".join(f"- {question.name}: {question.beside}." for question in QUESTIONS)
    return [
        "\n".join([head, *map(row, rows)]),
        f"What confshift's time also gives:\n\n{beside}",
        *differing(rows),
    ]


def row(one: Results) -> str:
    """Write one question at one size: confshift's time, the others as multiples of it, and who is first."""
    starred = {other["who"] for other in one["differing"]}
    others = sorted((ratio, name) for name, ratio in one["ratios"].items())
    cells = [f"{name}{'*' * (name in starred)} {digits(ratio)}" for ratio, name in others]
    quicker = ", ".join(name for ratio, name in others if ratio < FIRST)
    (beside,) = (question.beside for question in QUESTIONS if question.name == one["question"])
    note = f"not first ({quicker}), but it also gives {beside}" if quicker else "first"
    size = f"{one['samples']:,} × {one['classes']:,}"
    return f"| {one['question']} | {size} | {one['ms']:.3g} ms | {', '.join(cells)} | {note} |"


def differing(rows: Sequence[Results]) -> list[str]:
    """Say how far the others agree, and show both answers and the reason where they do not."""
    furthest: dict[str, float] = {}
    for one in rows:
        if len(one["differing"]) < len(one["ratios"]):
            furthest[one["question"]] = max(furthest.get(one["question"], 0), one["distance"])
    agreed = "; ".join(
        f"{name} {distance:.0e}" if distance else f"{name} none" for name, distance in furthest.items()
    )
    text = (
        "The others' answers agree with confshift's, but for those with a star. The largest difference, as a "
        f"part of 1 + the answer (for a temperature, of the loss at it): {agreed}."
    )
    unlike = [one for one in rows if one["differing"]]
    if not unlike:
        return [text]
    lines = ["| answers that differ | samples × classes | confshift | others |", "|--|--|--|--|"]
    reasons: dict[tuple[str, str], dict[str, None]] = {}  # the names of others, each once
    for one in unlike:
        size, found = f"{one['samples']:,} × {one['classes']:,}", one["differing"]
        others = ", ".join(f"{other['who']} {other['value']:.5f}" for other in found)
        lines.append(f"| {one['question']} | {size} | {found[0]['ours']:.5f} | {others} |")
        for other in found:
            reasons.setdefault((one["question"], other["reason"]), {})[other["who"]] = None
    why = [f"- {question}, {' and '.join(names)}: {reason}." for (question, reason), names in reasons.items()]
    return [text, "\n".join(lines), "Why they differ:\n\n" + "\n".join(why)]


# --------------------------------------------------------------------------------------------- recalibration
def recalibration(one: Results) -> str:
    """Write the table of one size: the loss of other samples than those of the fit, the lowest first."""
    half, classes = one["samples"], one["classes"]
    lines = [
        f"| fitted to {half:,} × {classes:,} | loss of {half:,} others | more than confshift, "
        "± standard error | times as long |",
        "|--|--|--|--|",
    ]
    for each in sorted(one["rows"], key=lambda each: each["loss"]):
        if each["who"] == OURS:
            cells = [f"**{OURS}**", f"{each['loss']:.4f}", "", f"1 ({one['seconds']:.2g} s)"]
        else:
            more = f"{each['more']:+.4f} ± {each['error']:.4f}" if isfinite(each["loss"]) else ""
            cells = [each["who"], f"{each['loss']:.4f}", more, digits(each["ratio"])]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [_first(one)]
    if one["left_out"]:
        notes.append(f"Left out, as it takes minutes: {', '.join(one['left_out'])}.")
    return "\n".join(lines) + "\n\n" + " ".join(notes)


def _first(one: Results) -> str:
    """Say whether any is lower in loss than confshift, and whether beyond chance; and which are quicker."""
    lower = [each for each in one["rows"] if each["who"] != OURS and each["more"] < 0]
    surely = [each["who"] for each in lower if each["more"] < -1.96 * each["error"]]
    if surely:
        text = f"confshift is not first: {'; '.join(surely)} reaches a lower loss, beyond chance."
    elif lower:
        text = f"{', '.join(each['who'] for each in lower)} is lower by less than chance explains."
    else:
        text = "confshift has the lowest loss."
    quicker = [each["who"] for each in one["rows"] if each["who"] != OURS and each["ratio"] < FIRST]
    return f"{text} Quicker, with one fit: {'; '.join(quicker)}." if quicker else text
