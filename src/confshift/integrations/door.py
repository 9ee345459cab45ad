"""The door that all trainers share: evaluations go in, checkpoints, metrics and a page come out."""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

import confshift
from confshift.checkpoint import Checkpoint
from confshift.collection.batches import Reader, unwrapped
from confshift.collection.collector import Collector
from confshift.collection.destination import Destination, open_run
from confshift.collection.loaders import is_shard
from confshift.collection.model_checks import buffers_of
from confshift.collection.ranks import Ranks, rank_and_size
from confshift.collection.sample_ids import sequential_ids
from confshift.errors import ConfshiftError
from confshift.storage.run import Run

_log = logging.getLogger("confshift")

#: What of a checkpoint's metrics goes into the trainer's own.
REPORTED = ("refinement_loss", "scale_loss", "balance_loss", "loss", "accuracy")

#: The logits and targets of a batch, in the shapes of their task.
Batch = tuple[Any, Any]
Forward = Callable[[Any, Any], Any]


class Sampled(Collector):
    """A collector whose ids were asked of the loader's sampler."""

    id_source = "sampler"

    def __init__(self, model: nn.Module, loader: Any, **place: Any) -> None:
        super().__init__(sharded=is_shard(loader), **place)
        self._loader = loader  # its dataset may name the classes
        if is_shard(loader):  # each rank's BatchNorm has running statistics of its own
            self.checks = {"buffers": buffers_of(unwrapped(model))}


def objective_of(module: nn.Module) -> dict[str, Any]:
    """Return class weights and label smoothing of the torch losses within a module, as metadata.

    Nothing where it has no such loss, or several that differ: which of them is trained is not known.
    """
    found = []
    for part in module.modules():
        if isinstance(part, nn.CrossEntropyLoss | nn.NLLLoss):
            weights, smoothing = part.weight, getattr(part, "label_smoothing", 0.0)
            known = {} if weights is None else {"class_weights": weights.tolist()}
            found.append({**known, "label_smoothing": smoothing})
    return found[0] if found and all(one == found[0] for one in found) else {}


class Door:
    """Saves a trainer's evaluations, each epoch of a split once.

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>`.
    metadata : mapping, optional
        Kept with each checkpoint.
    report : path, optional
        The page to write at the end.
    timeout : float
        How long to wait for another process, in seconds.
    """

    def __init__(
        self,
        run: Run | os.PathLike[str] | str | None,
        metadata: Mapping[str, Any] | None,
        report: os.PathLike[str] | str | None,
        timeout: float,
    ) -> None:
        self._run, self._metadata, self._report, self._timeout = run, dict(metadata or {}), report, timeout
        self._saved: set[tuple[str, float]] = set()
        self._reasons: set[str] = set()
        self._batches: list[Batch] = []

    def add(self, logits: Any, targets: Any) -> None:
        """Copy the rows of a batch of the trainer's own evaluation."""
        self._batches.append((_copied(logits), _copied(targets)))

    def forget(self) -> None:
        """Drop the rows added so far."""
        self._batches = []

    def save(
        self,
        model: nn.Module,
        loader: Any,
        *,
        split: str,
        epoch: float,
        forward: Forward | None = None,
        reason: str = "",
        rate: Any = None,
        logged: Mapping[str, float] | None = None,
        objective: Mapping[str, Any] | None = None,
        **reading: Any,
    ) -> Checkpoint | None:
        """Save the rows added since the last save; None where this epoch of the split is saved already.

        Parameters
        ----------
        model, loader
            For a pass of :func:`confshift.inspect`, where the loader's order is not known, or for a `reason`.
        split : str
        epoch : float
        forward : callable, optional
            For that pass.
        reason : str
            Why the rows added won't do.
        rate : float or list of float, optional
            The learning rate.
        logged : mapping of str to float, optional
            What the trainer reports.
        objective : mapping, optional
            The `class_weights` and `label_smoothing` of the loss that is trained, as :func:`objective_of`
            returns them; what the user's metadata say comes first.
        **reading
            `class_names`, `outputs`, `ignore_index`, `task`, `rows`, as for :func:`confshift.inspect`.
        """
        batches, self._batches = self._batches, []
        if not self.expects(split, epoch, loader):
            return None
        ids = None if reason else sequential_ids(loader)
        reason = reason or ("" if ids else "the evaluation set is not read in order")
        notes: dict[str, Any] = {"logged": dict(logged or {})}
        known = {} if rate is None else {"lr": rate}
        known |= {name: value for name, value in (objective or {}).items() if value}
        notes["metadata"] = {**known, **self._metadata}
        place = {"run": self._run, "split": split, "epoch": epoch, "timeout": self._timeout, **reading}
        if reason:
            self._warn(reason)
            checkpoint = confshift.inspect(model, loader, forward=forward, **place, **notes)
        else:
            collector = Sampled(model, loader, **place)
            for (logits, targets), own in _paired(batches, ids or []):
                collector.add(logits, targets, sample_ids=own)
            checkpoint = collector.save(**notes)
        self.note(checkpoint)
        return checkpoint

    def begin(self) -> None:
        """Begin a training, or go on with one, perhaps after an interrupt: it evaluates its epochs anew."""
        self.forget()
        if any(epoch for _, epoch in self._saved):  # epoch 0 is evaluated before
            self._saved.clear()

    def expects(self, split: str, epoch: float, loader: Any = None) -> bool:
        """Tell whether this epoch of the split is not saved yet.

        Raises
        ------
        ConfshiftError
            On every rank, where the run holds checkpoints of another training.
        """
        if (split, epoch) in self._saved:
            _log.info("epoch %g (%s) is saved already; this evaluation of it is not", epoch, split)
            return False
        if split not in {split for split, _ in self._saved}:
            self._refuse_another_training(split, epoch, is_shard(loader))
        return True

    def _refuse_another_training(self, split: str, epoch: float, shared: bool) -> None:
        rank, size = rank_and_size()

        def check() -> None:
            if rank == 0:
                Destination(self._run, split=split, epoch=epoch, strict=False).refuse_another_training()

        if shared and size > 1:
            Ranks(split, self._timeout).agree("begins", check, lambda _: {})
        else:
            check()

    def note(self, checkpoint: Checkpoint) -> None:
        """Note that a checkpoint is saved."""
        self._saved.add((checkpoint.split, checkpoint.epoch))

    def _warn(self, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.add(reason)
            _log.warning("%s, so each evaluation takes a second pass over the data", reason)

    def finish(self) -> None:
        """Write the page, on the first rank."""
        if not self._saved:
            _log.warning(
                "the training ended and the trainer evaluated nothing, so nothing is saved: let it evaluate "
                "after each epoch, as transformers does with eval_strategy='epoch'"
            )
        elif self._report is not None:
            write_page(self._run, self._report)


def write_page(run: Run | os.PathLike[str] | str | None, report: os.PathLike[str] | str) -> None:
    """Write the page of a run, on the first rank, behind the end of the training; a failure is a warning.

    The thread is not a daemon, so that the program does not end before the page is written.
    """
    if rank_and_size()[0] == 0:
        names = open_run(run), os.path.abspath(report)  # noqa: PTH100  # a script may change the folder meanwhile
        threading.Thread(target=_write, args=names, name="confshift-page").start()


def _write(run: Run, report: str) -> None:
    try:
        run.flush()
        confshift.report(run, report)
    except Exception as error:
        command = shlex.join(["confshift", "report", str(run.path), "-o", report])
        _log.warning("the page was not written: %s. To try again: %s", error, command)


def installed(extra: str, *modules: str) -> Any:
    """Return the first of a trainer's modules that is there; without any named, that of the extra's name.

    Raises
    ------
    ConfshiftError
        With the line that installs it, or with what it misses itself.
    """
    for module in modules or (extra,):
        try:
            return importlib.import_module(module)
        except ImportError as error:
            cause = error
            if error.name not in (module, module.split(".")[0]):
                raise ConfshiftError(f"{module} can't be imported: {error}") from error
    raise ConfshiftError(f"{extra} is not installed: pip install 'confshift[{extra}]'") from cause


def forward_in(context: Callable[[], AbstractContextManager[Any]], convert: Callable[[Any], Any]) -> Forward:
    """Return a `forward` for :func:`confshift.inspect`: the model in a context, on converted batches."""

    def forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
        with context():
            return Reader(model).read(convert(batch))[:2]

    return forward


def metrics_of(checkpoint: Checkpoint, prefix: str = "confshift/") -> dict[str, float]:
    """Return a checkpoint's metrics as trainers log them."""
    metrics = checkpoint.metrics()
    return {f"{prefix}{name}": float(metrics[name]) for name in REPORTED}


def _copied(rows: Any) -> Any:
    return rows.detach().to("cpu", copy=True) if isinstance(rows, torch.Tensor) else rows


def _paired(batches: Sequence[Batch], ids: Sequence[Any]) -> list[tuple[Batch, Any]]:
    """Pair batches with their ids; the trainer may stop before the last."""
    if len(batches) > len(ids):
        raise ConfshiftError(
            f"the trainer evaluated {len(batches)} batches, and its loader has {len(ids)}; pass the "
            "loader that it iterates over"
        )
    return list(zip(batches, ids, strict=False))
