"""Keras 3 on torch: a callback that saves every validation of `fit`, without a second pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import confshift
from confshift.errors import ConfshiftError
from confshift.integrations.door import Door, installed, metrics_of
from confshift.storage.run import Run

_SPARSE, _ONE_HOT = "sparse_categorical_crossentropy", "categorical_crossentropy"
_BINARY = "binary_crossentropy"


class ConfshiftCallback(installed("keras").callbacks.Callback):  # type: ignore[misc]
    """Saves the predictions for the validation data of `model.fit` after each epoch.

    The compiled loss declares what the model returns (`from_logits`) and how the targets are written:
    SparseCategoricalCrossentropy, CategoricalCrossentropy, or BinaryCrossentropy, with one output for two
    classes or one for each of several labels. The validation data must keep their order. The logs gain
    `val_confshift/refinement_loss` and others, for callbacks that come later in the list.

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>`.
    class_names : sequence of str, optional
    metadata : mapping, optional
        Kept with each checkpoint, beside the learning rate.
    report : path, optional
        The page to write when the training ends.

    Raises
    ------
    ConfshiftError
        When the training begins, for another loss or another backend.
    """

    def __init__(
        self,
        run: Run | Path | str | None = None,
        *,
        class_names: list[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        report: Path | str | None = None,
    ) -> None:
        super().__init__()
        self._run, self._class_names, self._metadata = run, class_names, metadata
        self._door = Door(run, None, report, timeout=600)
        self._batches: list[tuple[Any, Any]] = []
        self._is_validating = False
        self._heard: Any = None
        self._replaced: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Listen to the loss, which sees targets and predictions."""
        backend = installed("keras").backend.backend()
        if backend != "torch":
            raise ConfshiftError(f"Keras runs on {backend}; set KERAS_BACKEND=torch")
        name, self._outputs = _declared(self.model.loss)
        self._is_one_hot, self._is_binary = name == _ONE_HOT, name == _BINARY
        self._door.begin()
        self._leave()  # where an error or an interrupt has ended a training
        self._replaced = self.model.__dict__.get("compute_loss")
        compute = self.model.compute_loss

        def heard(x: Any = None, y: Any = None, y_pred: Any = None, *rest: Any, **named: Any) -> Any:
            if self._is_validating:
                targets = y.argmax(-1) if self._is_one_hot else y
                self._batches.append((y_pred.detach().cpu(), targets.detach().cpu()))
            return compute(x, y, y_pred, *rest, **named)

        self.model.compute_loss = self._heard = heard

    def on_test_begin(self, logs: Any = None) -> None:
        """Begin a validation."""
        self._batches, self._is_validating = [], True

    def on_test_end(self, logs: Any = None) -> None:
        """End it."""
        self._is_validating = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Save the validation of an epoch."""
        if not self._batches:
            raise ConfshiftError("there is no validation: pass fit(..., validation_data=...)")
        self._door.expects("val", epoch + 1)
        several = self._is_binary and self._batches[0][0].shape[1:].numel() > 1
        collector = confshift.Collector(
            self._run,
            epoch=epoch + 1,
            outputs=self._outputs,
            class_names=self._class_names,
            task="multilabel" if several else None,
        )
        for predictions, targets in self._batches:
            collector.add(predictions, targets if self._is_binary else targets.long())
        known = {"lr": float(self.model.optimizer.learning_rate)}
        if smoothing := getattr(self.model.loss, "label_smoothing", 0.0):
            known["label_smoothing"] = float(smoothing)
        logged = {"val_loss": float(logs["val_loss"])} if logs and "val_loss" in logs else {}
        checkpoint = collector.save(metadata={**known, **(self._metadata or {})}, logged=logged)
        self._door.note(checkpoint)
        self._batches = []
        if logs is not None:
            logs |= metrics_of(checkpoint, "val_confshift/")

    def on_train_end(self, logs: Any = None) -> None:
        """Leave the model as it was, and write the page."""
        self._leave()
        self._door.finish()

    def _leave(self) -> None:
        if self._heard is not None and self.model.__dict__.get("compute_loss") is self._heard:
            self.model.__dict__.pop("compute_loss")
            if self._replaced is not None:
                self.model.compute_loss = self._replaced


def _declared(loss: Any) -> tuple[str, str]:
    """Return the name of the compiled loss, and what it declares that the model returns."""
    name = loss if isinstance(loss, str) else getattr(loss, "name", type(loss).__name__)
    if name not in (_SPARSE, _ONE_HOT, _BINARY):
        raise ConfshiftError(
            f"the model is compiled with loss={name!r}; ConfshiftCallback takes {_SPARSE!r}, {_ONE_HOT!r} "
            f"and {_BINARY!r}, by name or as a keras loss"
        )
    return name, "logits" if getattr(loss, "from_logits", False) else "probabilities"
