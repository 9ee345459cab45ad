"""inspect: one evaluation pass over a loader, then the save."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from confshift.checkpoint import Checkpoint
from confshift.collection.batches import Reader, declared_task, unwrapped
from confshift.collection.destination import Destination
from confshift.collection.evaluation import Evaluation
from confshift.collection.guards import undisturbed
from confshift.collection.intake import Intake
from confshift.collection.interrupts import Interrupts
from confshift.collection.loaders import (
    batch_count,
    class_names_of,
    is_shard,
    warn_of_dropped,
    warn_of_missing,
    warn_of_shard,
)
from confshift.collection.model_checks import check_model
from confshift.collection.place import place_of
from confshift.collection.random_states import modules_in
from confshift.collection.reading import Reading
from confshift.collection.sample_checks import check_samples
from confshift.collection.sample_ids import IdSource, UnevenBatchError, identified, of_user
from confshift.errors import ConfshiftError
from confshift.input_checks import listed_names
from confshift.predictions import Predictions
from confshift.storage.run import Run
from confshift.storage.signed_json import plain

_log = logging.getLogger("confshift")


def inspect(
    model: nn.Module,
    loader: Any,
    *,
    run: Run | Path | str | None = None,
    split: str = "val",
    epoch: float | None = None,
    forward: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    sample_ids: ArrayLike | str | Callable[[Any], Any] | None = None,
    groups: ArrayLike | str | Callable[[Any], Any] | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    ignore_index: float | None = -100,
    outputs: str = "logits",
    task: str | None = None,
    rows: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    logged: Mapping[str, float] | None = None,
    check: bool | None = None,
    strict: bool = False,
    timeout: float = 600,
) -> Checkpoint:
    """Evaluate a model on every sample of a loader and save its logits.

    This is the evaluation loop: it returns the loss and the accuracy, and leaves the training as it was, also
    after an error or Ctrl-C: the mode of each submodule, weights, gradients, buffers, autocast, random
    states. What a model, dataset or sampler changes in its own attributes stays changed. Do not pass a loader
    that a training loop is iterating over, and let no other thread train the model meanwhile.

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
        By default counted 1, 2, 3, ...; 0 is before training.
    forward : callable, optional
        `forward(model, batch) -> (logits, targets)` where the batch or the model's output has another form.
        The batch has been moved to the model's device.
    sample_ids : array_like, str or callable, optional
        Which sample is which: an array of shape (N,) in the loader's order, the name of a field of the
        batch, or a function batch -> ids. Without it, what the loader's sampler gives, so that a shuffled
        loader is fine; else a hash of each sample; a list of batches goes by its order.
    groups : array_like, str or callable, optional
        Which patient, document or video each sample is of, in the forms of `sample_ids`: samples of a group
        err together, so errors and verdicts count groups. By default the rows of a sample are a group.
    class_names : sequence of str or mapping from index to str, length K, optional
        Defaults to `loader.dataset.classes` where these name the classes in order. The names of the labels,
        where `task` is "multilabel".
    ignore_index : int, float or None
        Targets to leave out and count; NaN, for labels that are NaN where they are missing.
    outputs : {"logits", "probabilities"}
        What the model returns; never guessed.
    task : {"multiclass", "binary", "multilabel", "tokens", "causal_lm", "pixels"}, optional
        What the rows are, where the shapes leave it open. By the shapes: one logit and targets of 0 and 1 are
        "binary", logits (n, T, K) or (n, K, T) with targets (n, T) "tokens", (n, K, H, W) with (n, H, W)
        "pixels". "multilabel" takes logits and targets of 0 and 1 of shape (n, L). "causal_lm" pairs each
        token's logits with the next target; a Hugging Face model named so is read so.
    rows : int, optional
        How many rows to keep, of all samples' pixels or tokens: chosen at random by their ids, so that every
        checkpoint has the same. By default all.
    metadata : mapping, optional
        Anything JSON-able, kept with the checkpoint. "lr" or "learning_rate", a number or
        `scheduler.get_last_lr()`, lets the report name the drops of the learning rate.
    logged : mapping of str to float, optional
        What your own loop reported at this epoch, by name.
    check : bool, optional
        Whether to check that evaluation is repeatable and independent of the batch (see
        `Checkpoint.provenance.checks`); by default at the first checkpoint of a run and split.
    strict : bool
        Whether a failure to save is an error. By default it is a warning, once for each run, and the
        checkpoint returned lives in memory.
    timeout : float
        How long to wait for another rank, in seconds, where the loader shares its samples out among the
        ranks of torch.distributed (a DistributedSampler, a loader that accelerate or Lightning prepared).
        Then call inspect on every rank: rank 0 joins the rows by sample id, drops what the sampler padded
        with (`provenance.duplicate_samples` counts it) and saves; every rank returns the whole checkpoint.
        With a loader of all samples call it on rank 0, or on all: rank 0 alone saves.

    Returns
    -------
    Checkpoint
        It is saved in the background, while the training goes on; reading a run waits for that.

    Raises
    ------
    ConfshiftError
        For what can't be used or paired with the checkpoints before. Errors of the model or the loader are
        raised as they are, those of the model with a note that shows its arguments.
    """
    # What can't be used is refused here, before the pass.
    reading = Reading(outputs, class_names, ignore_index, task, rows)
    place = place_of(
        lambda: _check_arguments(model, loader, reading, metadata=metadata, logged=logged),
        lambda: Destination(run, split=split, epoch=epoch, strict=strict, model=unwrapped(model)),
        split=split,
        epoch=epoch,
        shared=is_shard(loader),
        timeout=timeout,
    )
    warn_of_dropped(loader, run=place.path, split=split)
    warn_of_shard(loader, run=place.path, split=split, is_joined=place.is_shared)
    listed = class_names_of(loader) if class_names is None else listed_names(class_names)
    fields = tuple(name for name in (sample_ids, groups) if isinstance(name, str))
    reader = Reader(_without_ddp(model), forward, fields, None if listed is None else len(listed))

    def evaluate() -> Evaluation:
        objects = model, loader, forward, sample_ids, groups
        checked = place.is_first if check is None else check
        how = {"split": split, "checked": checked, "may_be_empty": place.is_shared}
        return _look(reader, reading, objects, place.path, **how)

    def read(evaluation: Evaluation) -> Predictions:
        if sample_ids is None:
            warn_of_missing(loader, evaluation.samples, run=place.path, split=split)
        return reading.predictions(evaluation, loader)

    return place.save(evaluate, read, metadata=metadata, logged=logged)


def _check_arguments(model: Any, loader: Any, reading: Reading, **notes: Any) -> None:
    if not isinstance(model, nn.Module):
        function = _advice_for_function(model) if callable(model) else ""
        raise ConfshiftError(
            f"model is a {type(model).__name__}, not a torch.nn.Module; {function}for a model of another "
            "framework pass arrays: Run(path).append(Predictions(logits, targets))"
        )
    several: Any = loader if isinstance(loader, list | tuple) else ()
    several = loader.values() if isinstance(loader, dict) else several
    if any(isinstance(part, DataLoader) for part in several):
        raise ConfshiftError(
            f"loader is a {type(loader).__name__} of {len(loader)} DataLoaders; inspect each of them, with a "
            "split= of its own: inspect(model, loader[...], split='val2', ...)"
        )
    reading.check()
    for name, value in notes.items():
        plain(name, value)
    if any(nn.parameter.is_lazy(parameter) for parameter in model.parameters()):
        raise ConfshiftError(
            "model has parameters without a shape (a Lazy module); call it on one batch first, as an "
            "optimizer needs too"
        )


def _advice_for_function(function: Any) -> str:
    """Say which module to pass in place of a function: one that isn't passed may stay in training mode."""
    modules = modules_in(function)
    names = ", ".join(type(module).__name__ for module in modules[:3]) + (", ..." if modules[3:] else "")
    if len(modules) == 1:
        which = f"it uses a {names}: pass that"
    elif modules:
        which = f"it uses modules ({names}): pass torch.nn.ModuleList([...]) of them, made once,"
    else:
        which = "pass the module that it uses (torch.nn.Identity(), made once, where it uses none)"
    return (
        f"{which} as the model, for inspect to put it in eval mode, and for a function f of the inputs "
        "forward=lambda model, batch: (f(batch[0]), batch[1]); "
    )


def _without_ddp(model: nn.Module) -> nn.Module:
    """Leave out DDP: ranks may have different numbers of batches, so a pass must not wait for the others."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def _look(
    reader: Reader, reading: Reading, objects: tuple[Any, Any, Any, Any, Any], run: str, **how: Any
) -> Evaluation:
    """Go over the loader once, and leave everything as it was; `objects` are those that a pass can change.

    It takes a second pass, by content, where the sampler's indices prove not to be those of the samples.
    """
    model, loader, _, sample_ids, groups = objects
    name = f"{run} ({how['split']})"
    for last in (False, True):
        try:
            with (
                Interrupts() as interrupts,
                undisturbed(*objects, interrupts=interrupts),
                identified(loader, sample_ids, name) as ids,
                interrupts.delivered(),
            ):
                batches = batch_count(loader)
                intake = Intake(reading, declared=declared_task(model), batches=batches, name=name)
                members = None if groups is None else of_user(groups, "groups")
                return _pass(reader, loader, (ids, members), intake, **how)
        except UnevenBatchError as error:
            if last:
                raise
            _log.warning(
                "%s: %s. Until then inspect identifies samples by their content, in a second pass", run, error
            )
    raise AssertionError("unreachable")


def _pass(
    reader: Reader,
    loader: Any,
    sources: tuple[IdSource, IdSource | None],
    intake: Intake,
    *,
    split: str,
    checked: bool,
    may_be_empty: bool,
) -> Evaluation:
    """Go over the loader once; only the copy of the logits waits for the device."""
    first: Any = None
    ids, groups = sources
    try:
        for batch in shown(iter(loader), f"inspect {split}", batch_count(loader)):
            understood = intake.read(*reader.read(batch)[:3])
            first = batch if first is None else first
            ids.add(batch, understood.samples)
            if groups is not None:
                groups.add(batch, understood.samples)
            intake.add(understood, ids.newest() if intake.needs_ids else None)
        if first is None:
            if may_be_empty:
                return Evaluation.empty(ids.name)
            raise ConfshiftError(_on_no_batch(loader))
        members = None if groups is None else groups.ids()
        evaluation = intake.evaluation(ids.ids(), ids.name, members)  # before the checks ask the sampler
        if not checked:
            return evaluation
        checks = {**check_model(reader, first, intake), "samples": check_samples(loader)}
        return replace(evaluation, checks=checks)
    except BaseException:
        intake.release()
        raise


def _on_no_batch(loader: Any) -> str:
    if hasattr(loader, "__next__"):
        return "loader gave no batch: an iterator can be used only once; pass the loader that it came from"
    return "loader gave no batch; pass one with at least one sample, which drop_last=True does not drop"


#: A pass that takes longer than this shows its progress, in seconds.
_PATIENCE = 5


class Bar(tqdm):  # type: ignore[type-arg]
    """A bar with its own lock, made anew in a forked process: a thread of the parent may have held tqdm's."""


def shown(batches: Iterable[Any], title: str, count: int | None) -> Iterable[Any]:
    """Iterate over batches, with a bar on a terminal."""
    on_terminal = getattr(sys.stderr, "isatty", None)
    if on_terminal is None or not on_terminal():  # nor a hidden bar: its destructor would lose an interrupt
        return batches
    return Bar(batches, title, count, leave=False, disable=None, delay=_PATIENCE, unit="batch")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: Bar.set_lock(threading.RLock()))
