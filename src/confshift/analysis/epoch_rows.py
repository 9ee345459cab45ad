"""The rows of a history: what one checkpoint, or one against another, puts into its tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.analysis import decomposition
from confshift.analysis.calibration import calibration_errors
from confshift.analysis.grouping import mean_error
from confshift.analysis.panel import Panel

#: A small table: keys that hold for all its rows, and columns.
Part = tuple[dict[str, Any], dict[str, Any]]


#: Those with an error, in the order of the columns.
_MEANS = (
    *("loss", "finite_loss", "accuracy", "confidence", "hedge", "error_rate"),
    *("calibration_loss", "refinement_loss", "scale_loss", "balance_loss"),
)


def row_of(one: Panel) -> dict[str, Any]:
    """Return the row in `History.table` of the only checkpoint, without its split; errors by groups."""
    checkpoint = one.checkpoints[0]
    answered, finite = one.take(one.answered[0]), one.take(one.finite[0])
    row: dict[str, Any] = {"epoch": checkpoint.epoch, **_counts(one.finite[0], one.answered[0])}
    means = {name: _mean_and_se(of, values) for name, of, values in _series(answered, finite)}
    for name in _MEANS:
        row[name], row[f"{name}_se"] = means[name]
    for name, shares in _of_smoothing(finite).items():
        row[name], row[f"{name}_se"] = _share_and_se(finite, shares[0])
    wrong = answered.take(answered.wrong[0])
    row["mistake_cost"] = float(wrong.mean(wrong.mistake[0])) if len(wrong.targets) else math.nan
    row["temperature"], row["fit_status"] = checkpoint.temperature, checkpoint.fit_status
    row["joint_temperature"] = checkpoint.joint_temperature
    errors = calibration_errors(
        answered.confidence[0], answered.correct[0].astype(np.float64), answered.codes
    )
    row.update(errors._asdict())
    row["units"] = one.units
    row["tied_samples"] = checkpoint.measurement.tied_samples
    provenance = checkpoint.provenance
    for name in ("ignored_samples", "duplicate_samples", "id_source", "writer"):
        row[name] = getattr(provenance, name)
    return row


def _series(answered: Panel, finite: Panel) -> Iterator[tuple[str, Panel, NDArray[np.float64]]]:
    """Yield what each mean is of, one at a time: of millions of samples all at once would fill the memory."""
    yield "loss", answered, answered.loss[0]
    yield "hedge", answered, answered.hedge[0]
    # An infinite loss is infinite at any temperature.
    yield "refinement_loss", answered, np.where(answered.infinite[0], math.inf, answered.refinement[0])
    yield "accuracy", answered.plain, answered.correct[0].astype(np.float64)
    yield "confidence", answered.plain, answered.confidence[0]
    yield "error_rate", answered.plain, 1.0 - answered.correct[0]
    yield "finite_loss", finite, finite.loss[0]
    yield "calibration_loss", finite, finite.calibration[0]
    yield "scale_loss", finite, finite.scale[0]
    yield "balance_loss", finite, finite.balance[0]


def _counts(finite: NDArray[np.bool_], answered: NDArray[np.bool_]) -> dict[str, int]:
    return {
        "samples": int(finite.sum()),
        "nonfinite_samples": int((~finite).sum()),
        "unanswered_samples": int((~answered).sum()),
    }


def _of_smoothing(panel: Panel) -> dict[str, NDArray[np.float64]]:
    """Return what label smoothing adds to each share of the loss, and both together, where there is any."""
    smoothing = panel.smoothing
    if smoothing is None:
        return {}
    return {"smoothing_loss": smoothing, "trained_loss": panel.share(panel.loss) + smoothing}


def _mean_and_se(panel: Panel, values: NDArray[np.float64]) -> tuple[float, float]:
    return _share_and_se(panel, panel.share(values))


def _share_and_se(panel: Panel, shares: NDArray[np.float64]) -> tuple[float, float]:
    mean = float(shares.mean()) if len(shares) else math.nan
    return mean, math.nan if math.isinf(mean) else mean_error(panel.terms_of(shares))


def class_columns(one: Panel) -> dict[str, Any]:
    """Return the columns of `History.classes` for the only checkpoint of a panel."""
    classes = len(one.class_names)

    def count(panel: Panel) -> NDArray[np.intp]:
        return np.bincount(panel.targets, minlength=classes)

    def mean(panel: Panel, values: NDArray[Any], samples: NDArray[np.intp]) -> NDArray[np.float64]:
        sums = np.bincount(panel.targets, values, classes)
        return np.asarray(np.divide(sums, samples, out=np.full(classes, np.nan), where=samples > 0))

    finite, answered = one.take(one.finite[0]), one.take(one.answered[0])
    whole, scored, answers = count(one), count(finite), count(answered)
    return {
        "class": np.arange(classes),
        "class_name": one.class_labels,
        "samples": scored,
        "nonfinite_samples": whole - scored,
        "unanswered_samples": whole - answers,
        "accuracy": mean(answered, answered.correct[0], answers),
        "loss": mean(answered, answered.loss[0], answers),
        "finite_loss": mean(finite, finite.loss[0], scored),
        "confidence": mean(answered, answered.confidence[0], answers),
    }


def assemble(parts: list[Part]) -> pd.DataFrame:
    """Make one frame of many small tables; concatenating frames would take longer than computing them."""
    lengths = [len(next(iter(columns.values()))) for _, columns in parts]
    frame = {name: np.repeat([keys[name] for keys, _ in parts], lengths) for name in parts[0][0]}
    frame |= {name: np.concatenate([columns[name] for _, columns in parts]) for name in parts[0][1]}
    return pd.DataFrame(frame)


def cells_table(
    splits: Iterable[tuple[str, Panel, int]],
) -> pd.DataFrame:
    """Return `History.cells`: of each split its name, panel, and the position of its best."""
    parts: list[Part] = []
    for split, panel, best in splits:
        if not parts:  # a part that only supplies the columns: a lone checkpoint has nothing to compare with
            parts.append(_cells_part("", "", panel, 0, 0))
        for position in range(len(panel.checkpoints)):
            for against, reference in (("previous", position - 1), ("best", best)):
                if reference >= 0 and reference != position:
                    part = _cells_part(split, against, panel, reference, position)
                    parts += [part] if part[1]["samples"].any() else []
    table = assemble(parts).iloc[len(decomposition.CELLS) :]
    return table.set_index(["split", "against", "epoch", *decomposition.CELLS.names])


def _cells_part(split: str, against: str, panel: Panel, reference: int, position: int) -> Part:
    """Return the part of `History.cells` that holds one checkpoint against another."""
    pair = panel.at([reference, position])
    keys = {"split": split, "against": against, "epoch": panel.epochs[position]}
    cells = {name: decomposition.CELLS.get_level_values(name) for name in decomposition.CELLS.names}
    columns = decomposition.cell_columns(pair.take(pair.at_all(Panel.finite)), 0, 1)
    return {**keys, "against_epoch": panel.epochs[reference]}, {**cells, **columns}
