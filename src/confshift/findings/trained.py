"""In words: how far the losses of a report are those that are trained."""

from __future__ import annotations

import math
from typing import Any

from confshift.analysis.comparison import Comparison
from confshift.analysis.panel import Panel
from confshift.findings.wording import count, interval, levels_and_change


def trained_loss(comparison: Comparison) -> str:
    """Say how losses are weighted and smoothed, or why what was stored is not used; "" where all is plain."""
    objective, targets = comparison.whole.objective, comparison.whole.targets
    sentences = []
    if objective.class_weights is not None:
        sentences.append(
            "Losses are weighted by class, as they are trained; accuracy, and the fit of temperature and "
            "biases, are not."
        )
        without = int((objective.class_weights[targets] == 0).sum())
        if without:
            sentences.append(f"{count(without)} of classes without weight count for nothing in them.")
    if objective.smoothing:
        sentences.append(_smoothed(comparison))
    if objective.doubt:
        sentences.append(f"{objective.doubt[0].upper()}{objective.doubt[1:]}.")
    return " ".join(sentences)


def _smoothed(comparison: Comparison) -> str:
    """Say what the loss with label smoothing did, and that the verdicts are about the rest of it."""
    row, share = comparison.change.loc["trained_loss"], f"{comparison.whole.objective.smoothing:g}"
    name, about = f"With label smoothing of {share} the trained loss", "the verdicts leave smoothing out."
    if math.isnan(row["after"]) or math.isnan(row["before"]):
        return f"What label smoothing of {share} adds is not known: the logits can't be read."
    before, after, change = levels_and_change(row["before"], row["after"])
    if comparison.before is comparison.after:
        return f"{name} is {after} nats; {about}"
    if not math.isfinite(row["change"]):
        return f"{name} is infinite where a class has a probability of 0; {about}"
    moved = (
        "rose" if row["change_low"] > 0 else "fell" if row["change_high"] < 0 else "did not measurably change"
    )
    return f"{name} {moved}, {before} to {after} nats ({change}, {interval(row)}); {about}"


def objective_document(panel: Panel) -> dict[str, Any]:
    """Return what is trained beside the plain cross-entropy, for JSON: null and 0 where nothing is."""
    weights = panel.objective.class_weights
    by_class = None if weights is None else dict(zip(panel.class_labels, weights.tolist(), strict=True))
    return {"class_weights": by_class, "label_smoothing": panel.objective.smoothing}
