"""In words: how far the losses of a report are those that are trained."""

from __future__ import annotations

from confshift.analysis.comparison import Comparison
from confshift.findings.wording import count


def trained_loss(comparison: Comparison) -> str:
    """Say that losses are weighted, or why what was stored is not used; "" where all is plain."""
    objective, targets = comparison.whole.objective, comparison.whole.targets
    sentences = []
    if objective.class_weights is not None:
        sentences.append(
            "Losses are weighted by class, as they are trained; accuracy, confidence and the fit of a "
            "temperature are not."
        )
        without = int((objective.class_weights[targets] == 0).sum())
        if without:
            sentences.append(f"{count(without)} of classes without weight count for nothing in them.")
    if objective.doubt:
        sentences.append(f"{objective.doubt[0].upper()}{objective.doubt[1:]}.")
    return " ".join(sentences)
