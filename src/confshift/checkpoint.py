"""A checkpoint: the predictions of one epoch on one split, and the columns measured from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from confshift.measurement import PARTS, Measurement, columns_of, measure
from confshift.predictions import FACTS, Predictions
from confshift.scoring import Scores, mean


class Source(Protocol):
    """The files of a stored checkpoint. It can be pickled: another process reads them anew."""

    @property
    def digest(self) -> str:
        """A digest of all that a record says, with the checksums of its files."""
        ...

    def checkpoint(self) -> Checkpoint:
        """Return the checkpoint."""
        ...

    def kept(self, key: str) -> bytes | None:
        """Return what was kept of an analysis; None where nothing was."""
        ...

    def keep(self, key: str, content: bytes) -> None:
        """Keep something of an analysis for other processes of this user."""
        ...


@dataclass(frozen=True)
class Provenance:
    """How a checkpoint came about: what a reader needs to trust it."""

    id_source: str = "order"
    ignored_samples: int = 0
    duplicate_samples: int = 0
    source_dtype: str = "float32"
    writer: str = ""
    written: str = ""  # ISO 8601, UTC
    versions: Mapping[str, str] = field(default_factory=dict)
    logged: Mapping[str, float] = field(default_factory=dict)  # what the user's own loop reported
    checks: Mapping[str, Any] = field(default_factory=dict)  # what the collector tried on the model
    task: str = "multiclass"  # a key of `tasks.TASKS`: what the rows are
    label_names: tuple[str, ...] = ()  # of a multi-label task
    total_rows: int = 0  # where the rows are a random part: of how many


@dataclass(frozen=True, eq=False, repr=False)
class Checkpoint:
    """One model's predictions at one epoch on one split.

    Parameters
    ----------
    epoch : float
        May be fractional; 0 is before training.
    split : str
        "val", "train" or any other name.
    class_names : tuple of str
    read_measurement, read_predictions : callable
        Read the data, when it is first needed; the measurement is then kept.
    metadata : mapping
        Whatever the user attached.
    provenance : Provenance
    read_scores : callable, optional
        Reads the scores, where they are known before the rest of the measurement.

    Examples
    --------
    >>> checkpoint = Checkpoint.from_predictions(Predictions([[2.0, 0.0], [3.0, 1.0]], [0, 1]), epoch=3)
    >>> round(checkpoint.loss, 4), checkpoint.accuracy
    (1.1269, 0.5)
    """

    epoch: float
    split: str
    class_names: tuple[str, ...]
    read_measurement: Callable[[], Measurement]
    read_predictions: Callable[[], Predictions]
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    provenance: Provenance = field(default_factory=Provenance)
    read_scores: Callable[[], Scores] | None = None
    #: The files that it is read from. None for one in memory, and for a copy that says something else.
    source: Source | None = field(default=None, init=False)

    @classmethod
    def from_predictions(
        cls,
        predictions: Predictions,
        *,
        epoch: float = math.nan,
        split: str = "val",
        metadata: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Make a checkpoint that lives in memory only."""
        return cls(
            epoch=epoch,
            split=split,
            class_names=predictions.class_names,
            read_measurement=lambda: measure(predictions),
            read_predictions=lambda: predictions,
            metadata=MappingProxyType(dict(metadata or {})),
            provenance=Provenance(**{name: getattr(predictions, name) for name in FACTS}),
        )

    def __repr__(self) -> str:
        return f"Checkpoint(epoch={self.epoch:g}, split={self.split!r}, {len(self.class_names)} classes)"

    def __len__(self) -> int:
        return len(self.measurement.table)

    @cached_property
    def measurement(self) -> Measurement:
        """The columns, as they are stored."""
        return self.read_measurement()

    @property
    def scores(self) -> Scores:
        """Each sample's hedge, mistake and so on, known before the temperature is."""
        return self.read_scores() if self.read_scores else Scores(self.measurement)

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether each sample's loss is finite, (N,), in the order of the ids."""
        return np.isfinite(self.scores.loss)

    @property
    def loss(self) -> float:
        """Mean loss in nats, over the samples with an answer; does not wait for the temperature.

        Infinite where one of them gives its true class a probability of 0: see `finite_loss`.
        """
        return self.scores.mean_loss

    @property
    def finite_loss(self) -> float:
        """Mean loss in nats of the samples whose loss is finite: what is left where `loss` is infinite.

        It leaves out the worst samples, so it may fall while the model gets worse.
        """
        losses = self.scores.loss
        return mean(losses[np.isfinite(losses)])

    @property
    def accuracy(self) -> float:
        """Share of correct samples among those with an answer; does not wait for the temperature.

        A true class with a probability of 0 is a wrong answer; NaN or plus infinity is no answer.
        """
        return self.scores.accuracy

    @property
    def nonfinite_samples(self) -> int:
        """How many samples have no finite loss: those without an answer, and the infinite losses."""
        return int((~self.finite).sum())

    @property
    def unanswered_samples(self) -> int:
        """How many samples have no answer: NaN or plus infinity among their logits."""
        return int((~self.scores.answered).sum())

    @property
    def predictions(self) -> Predictions:
        """The logits, with targets and sample ids.

        From a run folder they are read on first use, and again after those of other checkpoints took their
        place in memory; every byte is compared with its checksum. A file above 256 MiB is then mapped into
        memory: if it shrinks while it is in use, the system ends the process.
        """
        return self.read_predictions()

    @cached_property
    def columns(self) -> pd.DataFrame:
        """One row per sample, indexed by `sample_id`.

        Columns: target, predicted, correct, loss, hedge, mistake, confidence, margin, tied,
        calibration_loss and refinement_loss (nats; the two add up to the loss; NaN where the loss is not
        finite), scale_loss and balance_loss (nats; they add up to calibration_loss), answered (False where a
        logit is NaN or plus infinity: the sample counts nowhere), finite (False also where the loss is
        infinite). scale_loss is what one temperature repairs, balance_loss what one bias for each class
        repairs beside it, refinement_loss the rest, each fitted to the other samples: see
        :func:`recalibration.left_out`. Where the predictions have groups, the column group names them.
        """
        measurement = self.measurement
        columns = columns_of(measurement)
        return pd.DataFrame(columns, index=pd.Index(measurement.sample_ids, name="sample_id"))

    @property
    def scored_logits(self) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
        """Logits (n, K) and targets (n,) of the samples with a finite loss; as stored where that is all."""
        predictions, finite = self.predictions, self.finite
        if finite.all():
            return predictions.logits, predictions.targets
        return predictions.logits[finite], predictions.targets[finite]

    @property
    def temperature(self) -> float:
        """The temperature with the least mean loss on this split, of the samples whose loss is finite.

        inf where no finite temperature beats the uniform prediction; NaN where no sample has a finite loss.
        """
        beta, status = self.measurement.optimum
        return math.nan if status == "unscored" else 1 / beta if beta else math.inf

    @property
    def joint_temperature(self) -> float:
        """The temperature that is fitted together with `biases`; NaN where biases take no part."""
        beta, _ = self.measurement.fit
        return 1 / beta if beta else math.inf

    @property
    def biases(self) -> tuple[float, ...]:
        """The bias of each class in nats, added to the logits divided by `joint_temperature`; their sum is 0.

        All are 0 where they take no part: with fewer than 50 samples a class or 100 in all, and where every
        sample is right or none can be scored.
        """
        _, biases = self.measurement.fit
        return tuple(biases.tolist()) if len(biases) else (0.0,) * len(self.class_names)

    @property
    def fit_status(self) -> str:
        """Status of the fit: "ok", or why there is no best temperature.

        "uniform": no temperature beats the uniform prediction; "separable": the lower the temperature, the
        lower the loss, without end; "unscored": no sample has a finite loss.
        """
        return self.measurement.optimum[1]

    def metrics(self) -> dict[str, float]:
        """Return a flat dict of means over the samples, ready for any logger.

        Losses in nats, shares as fractions. `mistake_cost` is the mean mistake of the wrong samples (NaN
        where none is wrong); `calibration_loss` may come out slightly below 0 on a calibrated model.

        Means are over the samples with an answer; `unanswered_samples` counts the others. Where one of them
        gives its true class a probability of 0, `loss`, `mistake_cost` and `refinement_loss` are infinite:
        no temperature repairs that. `finite_loss`, `calibration_loss` and its parts `scale_loss` and
        `balance_loss` are over the `samples` whose loss is finite; `nonfinite_samples` counts all others.
        """
        # Not from `columns`: those of millions of samples would stay in memory for each checkpoint.
        measurement, scores = self.measurement, Scores(self.measurement)
        answered, finite = scores.answered, np.isfinite(scores.loss)
        loss = scores.loss[finite]
        scaled, calibrated = (measurement.column(name)[finite] for name in PARTS)
        refinement, samples = mean(calibrated), int(answered.sum())
        return {
            "loss": self.loss,
            "finite_loss": self.finite_loss,
            "accuracy": self.accuracy,
            "confidence": mean(scores.confidence[answered]),
            "hedge": mean(scores.hedge[answered]),
            "error_rate": 1 - self.accuracy,
            "mistake_cost": mean(scores.mistake[answered & ~scores.correct]),
            "temperature": self.temperature,
            "joint_temperature": self.joint_temperature,
            "calibration_loss": mean(loss - calibrated),
            "scale_loss": mean(loss - scaled),
            "balance_loss": mean(scaled - calibrated),
            "refinement_loss": math.inf if samples > len(loss) else refinement,
            "samples": float(len(loss)),
            "nonfinite_samples": float(len(self) - len(loss)),
            "unanswered_samples": float(len(self) - samples),
        }
