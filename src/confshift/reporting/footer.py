"""Where the numbers come from: what they include, what they leave out, and whether they add up."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.checkpoint import Checkpoint
from confshift.findings.wording import epoch, percent, rows_in_words, signed

_CHOSEN = (
    "those that changed most and a random part of the others. For pairs of epochs other than the report's, "
    "intervals, concentration and classes by transition are estimated from them"
)


def reconciliation(
    histories: Sequence[History], comparison: Comparison, *, page_epochs: int, page_samples: int
) -> list[tuple[str, str]]:
    """Return the facts of the footer, as pairs of name and text."""
    history = histories[0]
    table = pd.concat([_main_rows(run_history) for run_history in histories])
    samples = len(history.main.targets)
    cells = comparison.cells["contribution"].sum()
    change = comparison.change.loc["loss", "change"]
    classes = len(history.main.class_names)
    facts = [
        ("Samples", f"{rows_in_words(history.main)}, {classes:,} classes, split {history.split}"),
        *_errors(history),
        ("Checkpoints", "; ".join(_checkpoints(run_history) for run_history in histories)),
        ("Compared", f"epoch {epoch(comparison.before.epoch)} with epoch {epoch(comparison.after.epoch)}"),
        ("Left out: no finite loss at one of them", f"{comparison.samples_left_out:,}"),
        ("Of these without an answer", f"{comparison.samples_unanswered:,}"),
        ("Ignored by label", _range(table["ignored_samples"])),
        ("Duplicate rows dropped", _range(table["duplicate_samples"])),
        (
            "Samples matched by",
            ", ".join(sorted({str(source) for source in table["id_source"]})),
        ),
        ("Samples with a tie at the top", _range(table["tied_samples"])),
        (
            "Cells add up to",
            f"{signed(cells)} nats; the loss changed by {signed(change)} (they differ by "
            f"{abs(cells - change):.0e})",
        ),
        ("Written by", "; ".join(_writers(run_history.main.checkpoints) for run_history in histories)),
    ]
    if len(histories) == 1 and page_epochs < len(table):
        facts.append(("Epochs on this page", f"{page_epochs:,} of {len(table):,}, evenly chosen"))
    if page_samples < samples:
        facts.append(("Samples on this page", f"{page_samples:,} of {samples:,}; {_CHOSEN}"))
    return [*facts, ("Made by", _versions())]


def _errors(history: History) -> list[tuple[str, str]]:
    """Say what errors count where samples come in groups."""
    grouped = any(checkpoint.measurement.groups is not None for checkpoint in history.main.checkpoints)
    if history.main.codes is not None:
        text = (
            "groups: intervals, tests and folds count them. A calibrated loss is that of a fit without the "
            "sample itself, not without its group"
        )
    elif grouped:
        text = "samples, as asked, not the groups that they were saved with"
    else:
        return []
    return [("Errors count", text)]


def _main_rows(history: History) -> pd.DataFrame:
    return history.table[history.table["split"] == history.split]


def _checkpoints(history: History) -> str:
    return "; ".join(
        f"{name}: {len(panel.checkpoints)}, epochs {epoch(panel.epochs[0])} to {epoch(panel.epochs[-1])}"
        for name, panel in history.panels
    )


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}, by checkpoint"


def _writers(checkpoints: Iterable[Checkpoint]) -> str:
    """Name the processes that saved; where two alternate, two trainings wrote to one run."""
    names = [checkpoint.provenance.writer for checkpoint in checkpoints if checkpoint.provenance.writer]
    if not names:
        return "not recorded"
    switches = sum(a != b for a, b in zip(names[1:], names[:-1], strict=True))
    distinct = list(dict.fromkeys(names))
    text = ", ".join(distinct[:6])
    if switches > len(distinct) - 1:
        return f"{text}: they alternate {switches} times. Two trainings in one run?"
    return text


def _versions() -> str:
    parts = [f"{name} {version(name)}" for name in ("confshift", "numpy", "pandas", "altair")]
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def start_table(history: History) -> pd.DataFrame:
    """Return the first checkpoint beside two guesses without a model, as text."""
    row, references = history.table.iloc[0], history.references
    losses, accuracies = ([row[name], *references[name]] for name in ("loss", "accuracy"))
    first = f"first checkpoint, epoch {epoch(row['epoch'])}"
    return pd.DataFrame(
        {
            "loss": [_nats(loss) for loss in losses],
            "accuracy": [percent(accuracy) for accuracy in accuracies],
        },
        index=pd.Index([first, "all classes alike", "always the class frequencies"], name="model"),
    )


def _nats(loss: float) -> str:
    return "infinite" if math.isinf(loss) else f"{loss:.3f} nats"
