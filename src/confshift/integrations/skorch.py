"""skorch: a callback that saves every validation of a net, without a second pass."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from confshift.errors import ConfshiftError
from confshift.integrations.door import Door, installed, metrics_of, objective_of
from confshift.storage.run import Run


class ConfshiftCallback(installed("skorch", "skorch.callbacks").Callback):  # type: ignore[misc]
    """Saves the predictions for the validation set of a `skorch.NeuralNetClassifier` after each epoch.

    With skorch's default criterion, NLLLoss, and with BCELoss the module returns probabilities, else logits.
    The history gains `confshift/refinement_loss` and others, which EarlyStopping and Checkpoint can monitor
    if they come later.

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>`.
    split : str
        "val" or any other name.
    task : str, optional
        What the rows are, where the shapes leave it open: see :func:`confshift.inspect`.
    rows : int, optional
        How many rows to keep of all samples' tokens or pixels.
    metadata : mapping, optional
        Kept with each checkpoint, beside the learning rate.
    report : path, optional
        The page to write when the training ends.
    """

    def __init__(
        self,
        run: Run | os.PathLike[str] | str | None = None,
        *,
        split: str = "val",
        task: str | None = None,
        rows: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        report: os.PathLike[str] | str | None = None,
    ) -> None:
        self.run, self.split, self.metadata, self.report = run, split, metadata, report
        self.task, self.rows = task, rows

    def on_train_begin(self, net: Any, **_: Any) -> None:
        """Begin a training, or go on with one (`partial_fit`)."""
        if not net.history or not hasattr(self, "door_"):
            self.door_ = Door(self.run, self.metadata, self.report, timeout=600)
        self.door_.begin()

    def on_batch_end(self, net: Any, batch: Any = None, training: bool | None = None, **results: Any) -> None:
        """Take the predictions for a batch of the validation set."""
        if not training:
            predictions = results["y_pred"]
            first = predictions[0] if isinstance(predictions, tuple) else predictions
            self.door_.add(first, batch[1])

    def on_epoch_end(self, net: Any, dataset_valid: Any = None, **_: Any) -> None:
        """Save the validation of an epoch."""
        if dataset_valid is None:
            raise ConfshiftError(
                "the net has no validation set: pass train_split=, such as skorch.dataset.ValidSplit(5)"
            )
        has_shares = isinstance(net.criterion_, torch.nn.NLLLoss | torch.nn.BCELoss)
        checkpoint = self.door_.save(
            net.module_,
            net.get_iterator(dataset_valid, training=False),
            split=self.split,
            epoch=len(net.history),
            rate=[group["lr"] for group in net.optimizer_.param_groups],
            logged={"valid_loss": net.history[-1]["valid_loss"]} if "valid_loss" in net.history[-1] else {},
            outputs="probabilities" if has_shares else "logits",
            task=self.task,
            rows=self.rows,
            class_names=None if getattr(net, "classes", None) is None else [str(one) for one in net.classes],
            objective=objective_of(net.criterion_),
        )
        if checkpoint is not None:
            for name, value in metrics_of(checkpoint).items():
                net.history.record(name, value)

    def on_train_end(self, net: Any, **_: Any) -> None:
        """Write the page."""
        self.door_.finish()
