"""What a program reads first: cause, checkpoint, remedy and amounts, as brief JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.findings.commands import Places, in_place
from confshift.findings.steps import by_severity
from confshift.findings.wording import adding_up, levels_and_change, shares_and_change
from confshift.reporting.output import document, plain
from confshift.reporting.summary import LABELS, Summary

#: Bytes of `--json --brief`.
MOST_BYTES = 2_000


def brief_document(summary: Summary, places: Places) -> str:
    """Write cause, checkpoint, remedy, amounts and problems as JSON of at most 2,000 bytes.

    Numbers are those that the page writes, so that they add up. What does not fit is left out, the least
    important first; `fields_left_out` names it.
    """
    answer = summary.answer
    problems = [finding.code for finding in by_severity(summary.findings) if finding.severity == "problem"]
    weighted = "" if summary.comparison.panel.weights is None else " and weighted by class"
    parts: dict[str, Any] = {
        "kind": answer.kind,
        "cause": summary.cause,
        "action": answer.action,
        "why": answer.why,
        "checkpoint": _checkpoint(summary),
        "compared": _compared(summary.comparison),
        "amounts": _amounts(summary.comparison),
        "units": f"losses in nats{weighted}, accuracy as a fraction; temperature divides logits; "
        "null: not finite or not known",
        "problems": problems,
        "remedy": [step.text for step in answer.steps],
        "code": in_place(next((step.code for step in answer.steps if step.code), ""), places),
        "remarks": list(answer.remarks),
    }
    left_out: list[str] = []
    for name in ("", "remarks", "code", "remedy", "problems", "why", "action"):
        if name:
            parts.pop(name)
            left_out.append(name)
        text = document(**parts, fields_left_out=left_out)
        if len(text.encode("utf-8")) < MOST_BYTES:
            break
    return text


def _checkpoint(summary: Summary) -> dict[str, Any] | None:
    kept = summary.kept
    if kept is None:
        return None
    return {
        **({"run": summary.kept_run} if summary.kept_run else {}),
        "epoch": kept.epoch,
        "calibrate": kept.calibrated,
        "temperature": _rounded(kept.temperature),
        "class_biases": kept.with_biases,
        "expected_loss": _rounded(kept.loss),
        "expected_accuracy": _rounded(summary.kept_accuracy),
    }


def _rounded(value: float) -> Any:
    """Round to four significant digits; None where the value is not finite."""
    return plain(float(f"{value:.4g}")) if math.isfinite(value) else None


def _compared(comparison: Comparison) -> dict[str, Any]:
    """Return the epochs, the samples and the levels on both sides; shares as fractions."""
    change = comparison.change
    names = {"loss": "loss", "accuracy": "accuracy", "calibrated_loss": "refinement_loss"}
    return {
        "epochs": [comparison.before.epoch, comparison.after.epoch],
        "samples": len(comparison.panel.targets),
        **{name: _levels(change.loc[row])[:2] for name, row in names.items()},
    }


def _levels(row: pd.Series) -> list[float | None]:
    """Return the two sides and their difference as the page writes them, a share as a fraction."""
    if row["unit"] == "fraction":
        texts = shares_and_change(row["before"], row["after"])
        return [_as_written(text.removesuffix(" %").removesuffix(" points"), 100) for text in texts]
    return [_as_written(text) for text in levels_and_change(row["before"], row["after"])]


def _as_written(text: str, unit: int = 1) -> float | None:
    """Return the number that a text writes; None for a dash."""
    digits = len(text.partition(".")[2]) + len(str(unit)) - 1
    return None if text == "–" else round(float(text.replace("−", "-")) / unit, digits)


def _amounts(comparison: Comparison) -> dict[str, Any]:
    """Return the change of the loss, by what became of the samples and by part."""
    net = comparison.by_transition
    change = comparison.change["change"]
    loss = levels_and_change(*comparison.change.loc["loss", ["before", "after"]])[2]
    decimals = len(loss.partition(".")[2])
    parts = {"scale": "scale_loss", "class_balance": "balance_loss", "rest": "refinement_loss"}

    def shared(summands: Mapping[str, float]) -> dict[str, float | None]:
        written = adding_up(list(summands.values()), change["loss"], decimals)
        return {name: _as_written(text) for name, text in zip(summands, written, strict=True)}

    return {
        "loss": _as_written(loss),
        "by_samples": shared({label.replace(" ", "_"): net[name] for name, label in LABELS.items()}),
        "by_part": shared({name: change[quantity] for name, quantity in parts.items()}),
    }
