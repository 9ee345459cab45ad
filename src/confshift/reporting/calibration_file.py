"""A recalibration to hand over: to other code, to a model, to a file."""

from __future__ import annotations

import json
import math
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from confshift.analysis.grouping import Groups
from confshift.analysis.objective import ClassWeight, objective_of
from confshift.analysis.recalibrator import Recalibrator
from confshift.analysis.recalibrators import METHODS, choose, table_of
from confshift.analysis.stacking import codes_of
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.reporting.output import plain, rows
from confshift.storage.reading import open_plain
from confshift.storage.saving import save_file

if TYPE_CHECKING:
    import torch

#: The version of the file. A program that knows the first one would leave the matrix of the second out.
SCHEMA = 2
_MAX_BYTES = 1 << 24
#: The numbers of each method that may differ from those of plain logits.
_NUMBERS_OF = {
    "none": (),
    "temperature": ("temperature",),
    "temperature_and_biases": ("temperature", "biases"),
    "vector": ("temperature", "biases", "scales"),
    "matrix": ("temperature", "biases", "matrix"),
    "label_noise_temperature": ("temperature",),
}
_NUMBERS = ("temperature", "gain", "gain_se", "expected_loss", "accuracy", "fitted_loss", "lead", "lead_se")
_COLUMNS = (*_NUMBERS[:6], "rival", *_NUMBERS[6:], "recommended", "reason")


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """A recalibration of a model's logits: softmax(z / temperature + biases) are its probabilities.

    Made by :func:`calibrate`, or read from a file by :meth:`load`.

    Attributes
    ----------
    method : str
        "none", "temperature", "temperature_and_biases", "vector", "matrix" or "label_noise_temperature".
    temperature : float
    biases : tuple of float
        By class, in nats; all 0 where the method has none.
    scales : tuple of float
        By class; all 1 but for "vector", which scales each logit, less the mean of its row, before the biases
        are added: scales * (z - mean of z) / temperature + biases.
    matrix : tuple of tuple of float
        Empty but for "matrix": K rows of K, in place of the scales: the new logits are
        matrix @ (z - mean of z) / temperature + biases.
    class_names : tuple of str
    epoch, split
        The checkpoint that it is for, and the samples that it was fitted to.
    table : DataFrame
        One row for each method, indexed by method; NaN where it was not fitted. temperature; gain, by how
        much it lowers the mean loss of samples that it was not fitted to, in nats, and gain_se;
        expected_loss, the loss less that gain; accuracy, of samples that it was not fitted to; fitted_loss,
        the mean loss of the samples that it WAS fitted to, lower than what new ones will have; rival, the
        simpler method that it beats least clearly, lead, its gain over that, and lead_se; recommended;
        reason, why it is recommended or not. Losses are over the samples with a finite loss; errors count
        groups where the samples have any.
    """

    method: str
    temperature: float
    biases: tuple[float, ...]
    scales: tuple[float, ...]
    class_names: tuple[str, ...]
    epoch: float
    split: str
    table: pd.DataFrame
    matrix: tuple[tuple[float, ...], ...] = ()

    def __repr__(self) -> str:
        return (
            f"Calibration({self.method!r}, temperature={self.temperature:.4g}, {len(self.biases)} classes, "
            f"epoch={self.epoch:g}, split={self.split!r})"
        )

    def apply(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return recalibrated logits, whose softmax are the probabilities.

        Parameters
        ----------
        logits : array_like, shape (..., K)
            Of one sample or many. A class at minus infinity stays there; a row with NaN stays NaN.

        Returns
        -------
        ndarray of float64, shape (..., K)

        Raises
        ------
        ConfshiftError
            Where the last axis does not hold the K classes.
        """
        values = np.asarray(logits)
        if values.dtype.kind not in "fiu" or not values.ndim or values.shape[-1] != len(self.biases):
            raise ConfshiftError(
                f"logits has shape {values.shape} and dtype {values.dtype}; pass numbers with the "
                f"{len(self.biases)} classes along the last axis"
            )
        numbers = self.temperature, self.biases, self.scales, self.matrix
        return Recalibrator(self.method, *numbers).apply(values)

    def module(self) -> torch.nn.Module:
        """Return a torch module that maps logits (..., K) to recalibrated logits.

        It follows the model to its device, and its buffers are part of a `state_dict`. Logits in half
        precision come back in single precision. `model.half()` rounds the buffers as it does the weights.
        """
        import torch

        class Recalibrated(torch.nn.Module):
            """weights * z / temperature + biases, the weights a number, scales or a matrix."""

            temperature: torch.Tensor
            biases: torch.Tensor
            scales: torch.Tensor
            matrix: torch.Tensor

            def __init__(self, calibration: Calibration) -> None:
                super().__init__()
                self.calibration = calibration
                self.mixes = bool(calibration.matrix)
                self.centres = self.mixes or set(calibration.scales) != {1.0}
                for name in ("temperature", "biases", "matrix" if self.mixes else "scales"):
                    self.register_buffer(name, torch.tensor(getattr(calibration, name)))

            def forward(self, logits: torch.Tensor) -> torch.Tensor:
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                masked = torch.isneginf(logits)
                values = logits.masked_fill(masked, 0.0)
                if self.centres:
                    total = values.sum(dim=-1, keepdim=True)
                    values = values - total / (~masked).sum(dim=-1, keepdim=True)
                if self.mixes:  # a masked class counts as the mean
                    values = values.masked_fill(masked, 0.0) @ self.matrix.to(values.dtype).T
                elif self.centres:
                    values = values * self.scales
                return (values / self.temperature + self.biases).masked_fill(masked, -torch.inf)

            def __reduce__(self) -> Any:
                return Calibration.module, (self.calibration,), self.__dict__

        return Recalibrated(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that :meth:`load` reads.

        Raises
        ------
        ConfshiftError
            Where the file can't be written.
        """
        content = {name: getattr(self, name) for name in _FIELDS}
        document = plain({"confshift_calibration": SCHEMA, **content, "table": rows(self.table)})
        save_file(path, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode("ascii"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        ConfshiftError
            Where it can't be read, a newer confshift wrote it, or its values can't be a calibration.
        """
        file = Path(path)
        with open_plain(file, follow=True) as stream:
            raw = stream.read(_MAX_BYTES + 1)
        try:
            if len(raw) > _MAX_BYTES:
                raise ValueError(f"it has more than {_MAX_BYTES} bytes")
            content = json.loads(raw, parse_constant=_refuse, object_pairs_hook=_no_key_twice)
            return cls(**_checked(content))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ConfshiftError(
                f"{file} is not a calibration that confshift wrote: {reason}. Write it anew: "
                "confshift.calibrate(checkpoint).save(path)"
            ) from error


_FIELDS = ("method", "temperature", "biases", "scales", "matrix", "class_names", "epoch", "split")


def calibrate(
    checkpoint: Checkpoint,
    *,
    method: str | None = None,
    wrong_labels: bool | None = None,
    groups: Groups | None = None,
    class_weight: ClassWeight = "stored",
) -> Calibration:
    """Choose the recalibration of a checkpoint, by the loss of samples that it was not fitted to.

    Parameters
    ----------
    checkpoint : Checkpoint
        As of `run[epoch]`.
    method : str, optional
        One of those in `Calibration.table`, instead of the recommended one.
    wrong_labels : bool, optional
        Whether labels look wrong, as in `History.labels_look_wrong`, which asks two checkpoints; where it is
        left out this one alone is asked, and has to be surer.
    groups : sequence of length N or mapping from sample id, or "rows", optional
        As in `summarize`: errors count groups, and no group is both fitted to and left out.
    class_weight
        As in `summarize`: what the classes weigh in the losses of the table, by which it is chosen. Every fit
        is to the plain loss.

    Returns
    -------
    Calibration
        Of the richest method whose gain over each simpler one exceeds two standard errors, none where none
        gains; of one temperature that allows for wrong labels where labels look wrong.

    Raises
    ------
    ConfshiftError
        Where `checkpoint` is not one, `method` was not fitted, or `groups` or `class_weight` can't be used.

    Examples
    --------
    >>> from confshift import Predictions
    >>> sample = np.arange(300)
    >>> targets, others = sample % 3, (sample + 1 + sample // 10 % 2) % 3
    >>> logits = 5.0 * np.eye(3)[np.where(sample % 10 < 7, targets, others)]
    >>> calibration = calibrate(Checkpoint.from_predictions(Predictions(logits, targets), epoch=7))
    >>> calibration.method, round(calibration.temperature, 2)
    ('temperature', 3.25)
    """
    if not isinstance(checkpoint, Checkpoint):
        raise ConfshiftError(
            f"checkpoint is a {type(checkpoint).__name__}: pass one checkpoint, run[epoch] of a confshift.Run"
        )
    names, targets = checkpoint.class_names, checkpoint.scores.target
    weights = objective_of([checkpoint], names, targets, class_weight, 0.0).class_weights
    codes = codes_of([checkpoint], groups)
    choice = choose(checkpoint, wrong_labels=wrong_labels, class_weights=weights, codes=codes)
    trial = choice.recommended
    if method is not None:
        fitted = {trial.method: trial for trial in choice.trials if trial.fitted}
        if method not in fitted:
            raise ConfshiftError(f"method={method!r} was not fitted; pass one of {', '.join(fitted)}")
        trial = fitted[method]
    return Calibration(
        trial.method,
        trial.recalibrator.temperature,
        trial.recalibrator.biases,
        trial.recalibrator.scales,
        checkpoint.class_names,
        float(checkpoint.epoch),
        checkpoint.split,
        table_of(choice, checkpoint, weights),
        trial.recalibrator.matrix,
    )


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a finite number")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _checked(content: Any) -> dict[str, Any]:
    """Return the fields of a calibration; raise ValueError, TypeError or KeyError where they can't be."""
    if not isinstance(content, dict) or "confshift_calibration" not in content:
        raise ValueError("it has no key 'confshift_calibration'")
    schema = content["confshift_calibration"]
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise ValueError(
            f"its schema is {reprlib.repr(schema)}, and this confshift reads up to {SCHEMA}; if a newer one "
            "wrote it: pip install --upgrade confshift"
        )
    names, method = content["class_names"], content["method"]
    if not _are_texts(names) or len(names) < 2:
        raise ValueError("class_names are not two texts or more")
    if not isinstance(content["split"], str):
        raise ValueError(f"split={reprlib.repr(content['split'])} is not text")
    if method not in METHODS:
        raise ValueError(f"method={reprlib.repr(method)} is not one of {', '.join(METHODS)}")
    checked = {
        "method": method,
        "temperature": _number("temperature", content["temperature"]),
        "biases": _numbers("biases", content["biases"], len(names)),
        "scales": _numbers("scales", content["scales"], len(names)),
        "matrix": _matrix(content["matrix"], len(names)) if schema > 1 else (),
        "class_names": tuple(names),
        "epoch": math.nan if content["epoch"] is None else _number("epoch", content["epoch"]),
        "split": content["split"],
        "table": _table(content["table"] if schema > 1 else _with_matrix(content["table"])),
    }
    if not checked["temperature"] > 0 or min(checked["scales"]) < 0:
        raise ValueError("its temperature is not above 0, or a scale is below 0")
    allowed = _NUMBERS_OF[method]
    unlike_none = {
        "temperature": checked["temperature"] != 1,
        "biases": any(checked["biases"]),
        "scales": set(checked["scales"]) != {1.0},
        "matrix": bool(checked["matrix"]),
    }
    if any(unlike_none[name] and name not in allowed for name in unlike_none):
        raise ValueError(f"its numbers are not those of method {method!r}")
    if method == "matrix" and not checked["matrix"]:
        raise ValueError("it has no matrix")
    return checked


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name}={reprlib.repr(value)} is not a finite number")
    return float(value)


def _numbers(name: str, values: Any, length: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != length:
        raise ValueError(f"{name} are not {length} numbers, one for each class name")
    return tuple(_number(name, value) for value in values)


def _matrix(rows: Any, classes: int) -> tuple[tuple[float, ...], ...]:
    if not isinstance(rows, list) or len(rows) not in (0, classes):
        raise ValueError(f"matrix does not have {classes} rows, one for each class name, or none")
    return tuple(_numbers("rows of matrix", row, classes) for row in rows)


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _with_matrix(table: Any) -> Any:
    """Return the table of the first schema with a row for the matrix, which was not known then."""
    place = METHODS.index("matrix")
    row = {"method": "matrix", **dict.fromkeys(_NUMBERS), "rival": "", "recommended": False}
    return [*table[:place], {**row, "reason": "was not tried"}, *table[place:]]


def _table(table: Any) -> pd.DataFrame:
    """Return the table; NaN and infinity, which JSON lacks, are NaN."""
    if not isinstance(table, list) or [dict(row).get("method") for row in table] != list(METHODS):
        raise ValueError("its table does not have one row for each method")
    for row in table:
        if not _are_texts([row["rival"], row["reason"]]) or type(row["recommended"]) is not bool:
            raise ValueError("its table holds other values than it should")
        for name in _NUMBERS:
            row[name] = math.nan if row[name] is None else _number(name, row[name])
    return pd.DataFrame(table).set_index("method")[list(_COLUMNS)]
