"""The collector: one evaluation pass over a loader, then the save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn

from confshift.checkpoint import Checkpoint
from confshift.collection.batches import Reader, unwrapped
from confshift.collection.buffers import Rows
from confshift.collection.checks import check_model
from confshift.collection.guards import undisturbed
from confshift.collection.interrupts import Interrupts
from confshift.collection.loaders import batch_count, class_names_of, warn_of_dropped
from confshift.collection.progress import shown
from confshift.collection.sample_checks import check_samples
from confshift.collection.sample_ids import IdSource, identified
from confshift.collection.saving import Destination
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.storage.run import Run
from confshift.storage.signed_json import plain

__all__ = ["inspect"]

_OUTPUTS = ("logits", "probabilities")


def inspect(
    model: nn.Module,
    loader: Any,
    *,
    run: Run | Path | str | None = None,
    split: str = "val",
    epoch: float | None = None,
    forward: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    sample_ids: ArrayLike | str | Callable[[Any], Any] | None = None,
    class_names: Sequence[str] | None = None,
    ignore_index: int | None = -100,
    outputs: str = "logits",
    metadata: Mapping[str, Any] | None = None,
    logged: Mapping[str, float] | None = None,
    check: bool | None = None,
    strict: bool = False,
) -> Checkpoint:
    """Evaluate a model on every sample of a loader and save what it said.

    This is the evaluation loop: it returns the loss and the accuracy, and leaves the training as it was, also
    after an error or Ctrl-C: the mode of each submodule, weights, gradients, buffers, autocast, random
    states. What a model, dataset or sampler changes in attributes of its own stays changed. Give it a loader
    of its own, not the one that a training loop is in the middle of; no other thread may train the model
    meanwhile.

    Parameters
    ----------
    model : torch.nn.Module
        Compiled or wrapped in DataParallel or DistributedDataParallel is fine.
    loader : iterable of batches
        A DataLoader, or anything that can be iterated over. A batch is a tuple (inputs, targets, ...), a
        dict or the like whose targets are called labels, label, target, targets or y.
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>` of this process.
    split : str
        "val", "train" or any other name.
    epoch : float, optional
        Counted 1, 2, 3, ... without it. 0 is before training.
    forward : callable, optional
        `forward(model, batch) -> (logits, targets)` where the batch or the model's output has another form;
        logits of shape (n, K), targets of shape (n,). The batch has been moved to the model's device.
    sample_ids : array_like, str or callable, optional
        Which sample is which: an array of shape (N,) in the loader's order, the name of a field of the
        batch, or a function batch -> ids. Without it, what the loader's sampler gives, so that a shuffled
        loader is fine; else a hash of each sample; a list of batches goes by its order.
    class_names : sequence of str, length K, optional
        Defaults to `loader.dataset.classes` where there is such a list.
    ignore_index : int or None
        Samples with this target are left out and counted.
    outputs : {"logits", "probabilities"}
        What the model returns; never guessed.
    metadata : mapping, optional
        Anything JSON-able, kept with the checkpoint. "lr" or "learning_rate", a number or
        `scheduler.get_last_lr()`, names the drops of the learning rate.
    logged : mapping of str to float, optional
        What your own loop reported at this epoch, by name.
    check : bool, optional
        Whether to try if the model evaluates as one would think (see `Checkpoint.provenance.checks`); by
        default at the first checkpoint of a run and split.
    strict : bool
        Whether a failure to save is an error. By default it is a warning, once for each run, and the
        checkpoint returned lives in memory.

    Returns
    -------
    Checkpoint
        Saving goes on behind the training; what needs it waits for it.

    Raises
    ------
    ConfshiftError
        For what can't be used or paired with the checkpoints before. Errors of the model or the loader come
        through as they are, those of the model with a note of what it was called with.
    """
    _check_arguments(model, outputs)
    for name, notes in (("metadata", metadata), ("logged", logged)):
        plain(name, notes)  # refused before the pass
    # Refuses before the pass, not after.
    place = Destination(run, split=split, epoch=epoch, strict=strict, model=unwrapped(model))
    warn_of_dropped(loader, run=place.path, split=split)
    reader = Reader(_without_ddp(model), forward, sample_ids if isinstance(sample_ids, str) else None)
    with (
        Interrupts() as interrupts,
        undisturbed(model, loader, forward, sample_ids, interrupts=interrupts),
        identified(loader, sample_ids) as ids,
        interrupts.delivered(),
    ):
        seen = _pass(reader, loader, ids, split, checked=place.is_first if check is None else check)
    try:
        names = class_names or class_names_of(loader, seen.rows.classes)
        predictions = seen.predictions(outputs, names, ignore_index)
        return place.save(
            predictions, metadata=metadata, logged=logged, checks=seen.checks, release=seen.rows.release
        )
    except ConfshiftError:
        seen.rows.release()
        raise


def _check_arguments(model: Any, outputs: str) -> None:
    if not isinstance(model, nn.Module):
        raise ConfshiftError(
            f"model is a {type(model).__name__}, not a torch.nn.Module; from another framework pass arrays: "
            "Run(path).append(Predictions(logits, targets))"
        )
    if outputs not in _OUTPUTS:
        raise ConfshiftError(f"outputs={outputs!r}: give 'logits' or 'probabilities'")
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ConfshiftError(
            "model has parameters that no batch has given a shape yet (a Lazy module); pass one batch "
            "through it before the inspection, as for an optimizer"
        )


def _without_ddp(model: nn.Module) -> nn.Module:
    """Ranks may have different numbers of batches, so evaluation must not wait for the others."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@dataclass(frozen=True)
class _Seen:
    """What a pass gathered."""

    rows: Rows
    ids: ArrayLike | None
    id_source: str
    checks: Mapping[str, Any]

    def predictions(
        self, outputs: str, class_names: Sequence[str] | None, ignore_index: int | None
    ) -> Predictions:
        given: dict[str, Any] = {
            "sample_ids": self.ids,
            "class_names": class_names,
            "ignore_index": ignore_index,
            "id_source": self.id_source,
        }
        logits: Any = self.rows.logits
        half = self.rows.dtype is torch.bfloat16
        if outputs == "probabilities":
            # As the model gave them: how well half-precision rows sum to 1 is judged by their dtype.
            shares = torch.from_numpy(logits).bfloat16() if half else logits
            return Predictions.from_probabilities(shares, self.rows.targets, **given)
        return Predictions(logits, self.rows.targets, **given, source_dtype="bfloat16" if half else None)


def _pass(reader: Reader, loader: Any, ids: IdSource, split: str, *, checked: bool) -> _Seen:
    """Go over the loader once; nothing in the loop waits for the device but the copy of the logits."""
    batches = batch_count(loader)
    rows: Rows | None = None
    first: Any = None
    try:
        for batch in shown(iter(loader), f"inspect {split}", batches):
            logits, targets = reader.read(batch)
            if rows is None:
                first = batch
                rows = Rows(len(logits) * (batches or 1), logits)
            ids.add(batch, len(logits))
            rows.add(logits, targets)
        if rows is None:
            raise ConfshiftError("loader gave no batch: there is nothing to look at")
        found = ids.ids()  # before the checks ask the sampler
        checks = {**check_model(reader, first), "samples": check_samples(loader)} if checked else {}
        return _Seen(rows, found, ids.name, checks)
    except BaseException:
        if rows is not None:
            rows.release()
        raise
