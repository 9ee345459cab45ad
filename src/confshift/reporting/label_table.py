"""The labels of a multi-label task as a table of text: what each adds to the change."""

from __future__ import annotations

from confshift.analysis.comparison import Comparison
from confshift.findings.wording import adding_up, count, levels_and_change, percent, shares_and_change
from confshift.reporting.characters import printable

#: The most labels that are shown one by one.
_MOST = 20


def label_table(comparison: Comparison, sides: tuple[str, str]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows, labels that add most first; no rows where no label has a name.

    The nats add up to the change of the loss as they are written; labels beyond 20 have one row together.
    """
    before, after = sides
    # Written about samples, as all texts are: in this task they are called labels.
    head = ["sample", "rows", "yes", f"accuracy {before}", after, f"loss {before}", after, "nats"]
    labels = comparison.labels
    if labels.empty:
        return head, []
    labels = labels.loc[labels["contribution"].abs().sort_values(ascending=False, kind="stable").index]
    shown, others = labels.iloc[:_MOST], labels.iloc[_MOST:]
    parts = [*shown["contribution"], *([others["contribution"].sum()] if len(others) else [])]
    amounts = adding_up(parts, float(comparison.change.loc["loss", "change"]))
    rows = []
    for (name, row), amount in zip(shown.iterrows(), amounts, strict=False):
        accuracies = shares_and_change(row["accuracy_before"], row["accuracy_after"])[:2]
        losses = levels_and_change(row["loss_before"], row["loss_after"])[:2]
        numbers = [f"{row['samples']:,.0f}", percent(row["positives"])]
        rows.append([printable(str(name)), *numbers, *accuracies, *losses, amount])
    if len(others):
        samples = f"{others['samples'].sum():,.0f}"
        rows.append([count(len(others), "other sample"), samples, *[""] * 5, amounts[-1]])
    return head, rows
