"""Results for a terminal and for programs: aligned tables with units, sentences, JSON."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from confshift.analysis.best_epochs import CRITERIA
from confshift.analysis.comparison import Comparison
from confshift.analysis.decomposition import ACCOUNT
from confshift.analysis.final_number import SPLIT
from confshift.analysis.history import History
from confshift.analysis.sample_rows import SIDES
from confshift.findings.left_out import zero_samples
from confshift.findings.trained import trained_loss
from confshift.findings.wording import count, epoch, rows_in_words, vocabulary_of
from confshift.reporting.characters import printable
from confshift.reporting.label_table import label_table
from confshift.reporting.subset_tables import subset_tables

#: The version of the documents: a changed or removed field increases it, a new one does not.
SCHEMA = 1

#: Characters of the longest line of running text.
_WIDTH = 100


def document(**parts: Any) -> str:
    """Write parts as one JSON object, with the schema version first.

    Parameters
    ----------
    **parts
        Plain values, numpy scalars, mappings, lists, tables. A table becomes a list of rows.

    Returns
    -------
    str
        ASCII only. NaN and infinity, which JSON lacks, are null.

    Examples
    --------
    >>> document(loss=float("nan"), epochs=[1, 2.5])
    '{"schema": 1, "loss": null, "epochs": [1, 2.5]}'
    """
    return json.dumps({"schema": SCHEMA, **plain(parts)}, allow_nan=False)


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as a list of rows; a named index becomes the first columns."""
    has_names = any(name is not None for name in table.index.names)
    records: list[dict[str, Any]] = (table.reset_index() if has_names else table).to_dict(orient="records")
    return records


def plain(value: Any) -> Any:
    """Return values that JSON has: a table as a list of rows, numbers that are not finite as None."""
    if value is None or isinstance(value, (str, int)):  # most values, so asked first
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, pd.DataFrame):
        value = rows(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


_NATS, _PERCENT, _RATIO = 4, 2, 3  # decimals
_MOST_DECIMALS = 9


def adding_up(parts: ArrayLike, *, total: float, decimals: int) -> NDArray[np.float64]:
    """Round parts so that they add up to `total` as printed; each stays within two units of its last digit.

    If each part were rounded by itself, the last digit of the sum would be wrong. Here the running sums are
    rounded, and the parts are their differences. `total` is rounded already and may differ from the parts'
    own sum by a unit, which the parts share in proportion to their size: a part that is 0 stays 0.

    >>> adding_up([1 / 3, 0.0, 1 / 3, 1 / 3], total=1.0, decimals=2).tolist()
    [0.33, 0.0, 0.34, 0.33]
    """
    values = np.asarray(parts, np.float64)
    size = np.abs(values).sum()
    if not size:
        return np.zeros(len(values))
    adjusted_values = values + (total - values.sum()) * np.abs(values) / size
    sums = np.rint(np.cumsum(adjusted_values) * 10.0**decimals)
    return np.asarray(np.diff(sums, prepend=0.0) / 10.0**decimals)


def comparison_text(comparison: Comparison) -> str:
    """Write what changed between two checkpoints: quantities, the account and the cells.

    Contributions add up as printed, each within two units of its last digit.
    """
    decimals = _decimals(float(comparison.change.loc["loss", "change"]))
    before, after = comparison.before, comparison.after
    heading = (
        f"{printable(after.split)}, epoch {epoch(before.epoch)} (before) to {epoch(after.epoch)} (after), "
        f"{rows_in_words(comparison.panel)}"
    )
    if comparison.samples_left_out:
        heading += f"; {count(comparison.samples_left_out)} without a finite loss left out of both sides"
        heading += _infinite_means(comparison)
    if comparison.samples_unanswered < comparison.samples_left_out:
        heading += f"; accuracy and confidence over {count(len(comparison.answered.targets))} with an answer"
    tables = [label_table(comparison, SIDES), *subset_tables(comparison, SIDES).values()]
    parts = [
        heading,
        trained_loss(comparison),
        _change_lines(comparison.change, decimals),
        _account_lines(comparison, decimals),
        _cells_lines(comparison.cells, _total(comparison, "loss", decimals), decimals),
        *(_aligned(*table, left=1) for table in tables if table[1]),
        "Intervals are for these two epochs as chosen; not corrected for having picked the best.",
    ]
    words = vocabulary_of(comparison.whole, attributes=comparison.attributes)
    return words.say("\n\n".join(filter(None, parts)))


def _total(comparison: Comparison, quantity: str, decimals: int) -> float:
    """Return the change that parts must add up to: the difference in the table of quantities, as printed."""
    row = comparison.change.loc[quantity]
    return float(round(row["after"], decimals) - round(row["before"], decimals))


def _infinite_means(comparison: Comparison) -> str:
    """Say on which side the mean over all samples is infinite: the table's mean is over the others."""
    return "".join(
        f"; the whole mean loss {side} is infinite ({zero_samples(number)})"
        for side, number in zip(SIDES, comparison.infinite_samples, strict=True)
        if number
    )


def _decimals(change: float) -> int:
    """Return enough decimals for four digits of a small change."""
    if not change or not math.isfinite(change):
        return _NATS
    return min(max(_NATS, 3 - math.floor(math.log10(abs(change)))), _MOST_DECIMALS)


def _change_lines(change: pd.DataFrame, decimals: int) -> str:
    lines = []
    for quantity, row in change.iterrows():
        factor, unit, places = {
            "fraction": (100.0, "%", _PERCENT),
            "nats": (1.0, "nats", decimals),
            "ratio": (1.0, "", _RATIO),
        }[row["unit"]]
        before, after = (round(factor * row[side], places) for side in ("before", "after"))
        low, high = (_signed(factor * row[f"change_{end}"], places) for end in ("low", "high"))
        # The difference of the numbers as printed, which a reader may subtract.
        numbers = (_number(before, places), _number(after, places), _signed(after - before, places))
        lines.append((_spaced(quantity), unit, *numbers, f"{low} to {high}"))
    return _aligned(("quantity", "unit", "before", "after", "change", "95 % interval"), lines, left=2)


def _account_lines(comparison: Comparison, decimals: int) -> str:
    account = comparison.account
    total = _total(comparison, "loss" if len(account) == len(ACCOUNT) else "trained_loss", decimals)
    # Unlike that of the quantities above.
    names = {} if comparison.panel.weights is None else {"error_rate": "weighted_error_rate"}
    contributions = adding_up(account["contribution"], total=total, decimals=decimals)
    in_nats = (1.0, "nats", decimals)
    units = {"hedging": in_nats, "error_rate": (100.0, "%", _PERCENT), "label_smoothing": in_nats}
    lines = []
    for (part, row), contribution in zip(account.iterrows(), contributions, strict=True):
        factor, unit, places = units.get(str(part), (1.0, "nats a mistake", decimals))
        sides = (_number(factor * row[side], places) for side in ("before", "after"))
        lines.append((_spaced(names.get(str(part), part)), unit, *sides, _signed(contribution, decimals)))
    lines.append(("together", "", "", "", _signed(total, decimals)))
    return _aligned(("account of the change", "unit", "before", "after", "nats"), lines, left=2)


def _cells_lines(cells: pd.DataFrame, total: float, decimals: int) -> str:
    contributions = adding_up(cells["contribution"], total=total, decimals=decimals)
    lines = []
    for ((transition, direction), row), contribution in zip(cells.iterrows(), contributions, strict=True):
        if row["samples"] == 0 and contribution == 0:
            continue
        error = _number(row["contribution_se"], decimals)
        numbers = (f"{row['samples']:,.0f}", _signed(contribution, decimals), error)
        lines.append((_spaced(transition), str(direction), *numbers, f"{row['confidence_up_samples']:,.0f}"))
    lines.append(("together", "", f"{cells['samples'].sum():,}", _signed(total, decimals), "", ""))
    header = ("samples that", "loss", "samples", "nats", "± se", "more confident")
    return _aligned(header, lines, left=2)


def history_text(history: History) -> str:
    """Write one line per checkpoint, a table per split, and the best checkpoint by each criterion."""
    tables = [
        f"{printable(split)}\n\n{_history_lines(table)}"
        for split, table in history.table.groupby("split", sort=False)
    ]
    best = "\n".join(
        f"Best by {_spaced(criterion)}: epoch {epoch(row['epoch'])} (loss {_loss(row)}, "
        f"once recalibrated {_number(row['refinement_loss'], _NATS)}, accuracy "
        f"{_number(100 * row['accuracy'], _PERCENT)} %{_then(row)})"
        for criterion, row in history.best.loc[list(CRITERIA)].iterrows()
    )
    parts, objective = [*tables, best + _final_number(history)], history.main.objective
    if objective or objective.doubt:
        parts.append(trained_loss(history.compare(*history.pair)))
    return vocabulary_of(history.main).say("\n\n".join(parts))


def _then(row: pd.Series) -> str:
    """Write the accuracy once recalibrated; "" where it is not known."""
    value = row["calibrated_accuracy"]
    return "" if math.isnan(value) else f", once recalibrated {_number(100 * value, _PERCENT)} %"


def _final_number(history: History) -> str:
    """Write what the recommended checkpoint is worth on the test split, where there is one."""
    if SPLIT not in history.best.index:
        return ""
    row = history.best.loc[SPLIT]
    return (
        f"\nOn the test split: epoch {epoch(row['epoch'])} (loss {_loss(row)}, recalibrated as recommended "
        f"{_number(row['calibrated_loss'], _NATS)}, accuracy then "
        f"{_number(100 * row['calibrated_accuracy'], _PERCENT)} %)"
    )


def calibration_text(table: pd.DataFrame, *, where: str, path: str) -> str:
    """Write which recalibration is recommended, what each method gains, and how to use the file.

    Parameters
    ----------
    table : DataFrame
        `Calibration.table`.
    where : str
        Split and epoch.
    path : str
        The file that the calibration was saved to.
    """
    chosen = table.index[table["recommended"]].item()
    lines = [
        (
            _spaced(method),
            _number(row["temperature"], 2),
            _signed(-row["gain"], _NATS),
            _number(row["gain_se"], _NATS),
            _number(row["expected_loss"], _NATS),
            _number(100 * row["accuracy"], _PERCENT),
        )
        for method, row in table.iterrows()
    ]
    header = ("method", "T", "change of the loss", "± se", "expected loss", "accuracy %")
    reasons = ["", *(f"  {_spaced(reason)}" for reason in table["reason"])]
    aligned = zip(_aligned(header, lines, left=1).split("\n"), reasons, strict=True)
    methods = "\n".join(line + reason for line, reason in aligned)
    code = (
        f"calibration = confshift.Calibration.load({path!r})\n"
        "model = torch.nn.Sequential(model, calibration.module())  # or calibration.apply(logits), by numpy\n"
        "probabilities = model(inputs).softmax(dim=-1)"
    )
    return f"{where}: {_spaced(chosen)}\n\n{methods}\n\n{code}"


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Write samples, loss and accuracy of one checkpoint in a line, and how many have no finite loss."""
    without_loss, without_answer = metrics["nonfinite_samples"], metrics["unanswered_samples"]
    text = f"{count(metrics['samples'] + without_loss)}, loss {_number(metrics['loss'], _NATS)}"
    if math.isinf(metrics["loss"]):
        text += f" ({_number(metrics['finite_loss'], _NATS)} where finite)"
    text += f" nats, accuracy {_number(100 * metrics['accuracy'], _PERCENT)} %"
    if without_loss:
        text += (
            f"; {count(without_loss)} without a finite loss, {without_answer:,.0f} of them without an answer"
        )
    return text


def _loss(row: pd.Series) -> str:
    text = _number(row["loss"], _NATS)
    return f"{text}; {_number(row['finite_loss'], _NATS)} where finite" if math.isinf(row["loss"]) else text


def _history_lines(table: pd.DataFrame) -> str:
    infinite = {"finite_loss": ("where finite", 1.0, _NATS)} if np.isinf(table["loss"]).any() else {}
    columns = {
        "loss": ("loss", 1.0, _NATS),
        **infinite,
        "loss_se": ("± se", 1.0, _NATS),
        **({"trained_loss": ("trained loss", 1.0, _NATS)} if "trained_loss" in table else {}),
        "accuracy": ("accuracy %", 100.0, _PERCENT),
        "confidence": ("confidence %", 100.0, _PERCENT),
        "hedge": ("hedge", 1.0, _NATS),
        "mistake_cost": ("mistake cost", 1.0, _NATS),
        "calibration_loss": ("calibration", 1.0, _NATS),
        "refinement_loss": ("refinement", 1.0, _NATS),
        "temperature": ("temperature", 1.0, _RATIO),
    }
    lines = [
        (
            epoch(row["epoch"]),
            f"{row['samples']:,}",
            *(_number(factor * row[name], places) for name, (_, factor, places) in columns.items()),
            *(f"{row[name]:,}" for name in ("nonfinite_samples", "unanswered_samples")),
        )
        for row in table.to_dict(orient="records")
    ]
    titles = (title for title, _, _ in columns.values())
    header = ("epoch", "samples", *titles, "no finite loss", "no answer")
    return _aligned(header, lines, left=0)


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "−") if math.isfinite(value) else _odd(value)


def _signed(value: float, decimals: int) -> str:
    return f"{value + 0.0:+.{decimals}f}".replace("-", "−") if math.isfinite(value) else _odd(value)


def _odd(value: float) -> str:
    return "none" if math.isnan(value) else "infinite" if value > 0 else "−infinite"


def _spaced(name: Any) -> str:
    return str(name).replace("_", " ")


def _aligned(header: Sequence[str], lines: Sequence[Sequence[str]], *, left: int) -> str:
    """Align columns: the first `left` ones to the left, the others, numbers, to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if position < left else cell.rjust(width)
            for position, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *lines)
    )


def explanation_text(markdown: str) -> str:
    """Write an explanation of a question without markup; a link becomes the document or command to read."""
    text = re.sub(r"\*\*(.+?)\*\*", r"\1", markdown)
    paragraphs = [_without_links(" ".join(part.split())) for part in text.split("\n\n")]
    return "\n\n".join(textwrap.fill(part, _WIDTH, break_on_hyphens=False) for part in paragraphs)


def questions_text(explanations: Mapping[str, str]) -> str:
    """Write a line for each question: its code, and the first sentence of its explanation."""
    width = max(map(len, explanations))
    asked = {code: " ".join(text.split()).partition("? ")[0] for code, text in explanations.items()}
    start = "**What it asks.** "
    return "\n".join(f"{code:{width}}  {text.removeprefix(start)}?" for code, text in asked.items())


def _without_links(text: str) -> str:
    text = re.sub(r"\[([^]]+)\]\(\.\./(\w+\.md)[^)]*\)", r"\1 (docs/\2)", text)
    return re.sub(r"\[([^]]+)\]\((\w+)\.md\)", r"\1 (confshift explain \2)", text)
