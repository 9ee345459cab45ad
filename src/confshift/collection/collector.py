"""Collector: logits from an evaluation loop of the user's own, saved without a second pass."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from confshift.checkpoint import Checkpoint
from confshift.collection.destination import Destination
from confshift.collection.evaluation import Evaluation
from confshift.collection.intake import Intake
from confshift.collection.loaders import (
    batch_count,
    is_shard,
    warn_of_dropped,
    warn_of_missing,
)
from confshift.collection.outputs import Source
from confshift.collection.place import place_of
from confshift.collection.ranks import rank_and_size
from confshift.collection.reading import Reading
from confshift.collection.row_checks import checked_tensors
from confshift.collection.sample_ids import SampledIds, identified
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.storage.run import Run
from confshift.storage.signed_json import plain

_ADDED = Source(added=True)


class Collector:
    """Collects the logits of one evaluation, batch by batch, from a loop of your own, and saves them.

    Make one for each evaluation; :func:`confshift.inspect` is the loop to use where there is none yet.
    Nothing is done to the model: eval mode and `torch.no_grad()` are the loop's business.

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>` of this process.
    split : str
        "val", "train" or any other name.
    epoch : float, optional
        By default counted 1, 2, 3, ...; 0 is before training.
    loader : DataLoader, optional
        The loader that the loop is about to iterate over, once. Its sampler then says which sample is which,
        so that it may shuffle, and `save` refuses rows that are not those of a whole pass. Without it, and
        without ids, a row's position is its id: the loader must not shuffle.
    class_names : sequence of str or mapping from index to str, length K, optional
        Defaults to `loader.dataset.classes` where these name the classes in order.
    ignore_index, task, rows
        As for :func:`confshift.inspect`; `rows` needs to know which samples a batch holds.
    outputs : {"logits", "probabilities"}
        What is added; never guessed.
    strict : bool
        Whether a failure to save is an error. By default it is a warning, once for each run, and the
        checkpoint returned lives in memory.
    sharded : bool, optional
        Whether each rank of torch.distributed adds a part of the samples: then make the collector and save
        on every rank, also on one without a sample. By default as the loader is.
    timeout : float
        How long to wait for another rank, in seconds.

    Raises
    ------
    ConfshiftError
        Where the run would refuse this epoch or split, or where nothing says which sample is which.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> collector = Collector(Path(folder.name) / "run")
    >>> for logits, targets in [([[2.0, 0.0], [0.0, 1.0]], [0, 1]), ([[0.5, 0.0]], [1])]:
    ...     collector.add(logits, targets)
    >>> checkpoint = collector.save()
    >>> checkpoint.epoch, len(checkpoint), round(checkpoint.loss, 3)
    (1.0, 3, 0.471)
    >>> Run(Path(folder.name) / "run").delete()
    >>> folder.cleanup()
    """

    #: How ids that are passed to `add` are known.
    id_source = "user"
    #: What was tried on the model, which a collector does not see.
    checks: Mapping[str, Any] = MappingProxyType({})

    def __init__(
        self,
        run: Run | Path | str | None = None,
        *,
        split: str = "val",
        epoch: float | None = None,
        loader: Any = None,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        ignore_index: float | None = -100,
        outputs: str = "logits",
        task: str | None = None,
        rows: int | None = None,
        strict: bool = False,
        sharded: bool | None = None,
        timeout: float = 600,
    ) -> None:
        size = rank_and_size()[1]
        if sharded is None and loader is None and size > 1:
            raise ConfshiftError(
                f"there are {size} ranks, and nothing says whether each of them adds a part of the samples: "
                "pass loader=, or sharded=True (each adds its part, with sample_ids) or sharded=False (this "
                "rank adds all)"
            )
        self._reading = Reading(outputs, class_names, ignore_index, task, rows)
        self._place = place_of(
            self._reading.check,
            lambda: Destination(run, split=split, epoch=epoch, strict=strict),
            split=split,
            epoch=epoch,
            shared=is_shard(loader) if sharded is None else sharded,
            timeout=timeout,
        )
        self._split = split
        self._loader = loader
        name = f"{self._place.path} ({split})"
        self._intake = Intake(self._reading, batches=batch_count(loader), name=name)
        self._added = 0
        self._ids: list[NDArray[Any]] = []
        self._groups: list[NDArray[Any]] = []
        self._is_saved = False
        self._watched = ExitStack()
        self._sampled = self._watch(loader)

    def _watch(self, loader: Any) -> SampledIds | None:
        """Watch the loader's sampler until the rows are saved, or this collector is forgotten."""
        if loader is None:
            return None
        warn_of_dropped(loader, run=self._place.path, split=self._split)
        source = self._watched.enter_context(identified(loader))
        weakref.finalize(self, self._watched.close)
        return source if isinstance(source, SampledIds) else None

    def add(
        self,
        logits: Any,
        targets: Any,
        *,
        sample_ids: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> None:
        """Add the rows of a batch of n samples.

        Parameters
        ----------
        logits : torch.Tensor or array_like, shape (n, K) or that of the task
            On any device; they are copied.
        targets : torch.Tensor or array_like, shape (n,) or that of the task
        sample_ids : array_like of int or str, shape (n,), optional
            Which samples these are; in every batch or in none.
        groups : array_like of int or str, shape (n,), optional
            Which patient, document or video each is of; in every batch or in none.

        Raises
        ------
        ConfshiftError
            For other shapes and types, and after :meth:`save`.
        """
        if self._is_saved:
            raise ConfshiftError("this collector has saved; make a new Collector for each evaluation")
        batch = self._intake.read(*checked_tensors(logits, targets, _ADDED), _ADDED)
        self._note_ids(batch.samples, sample_ids)
        self._note("groups", self._groups, groups, batch.samples)
        self._intake.add(batch, self._newest() if self._intake.needs_ids else None)
        self._added += batch.samples

    def _newest(self) -> ArrayLike:
        """Return the ids of the batch that was noted last."""
        if self._ids:
            return self._ids[-1]
        if self._sampled is not None:
            return self._sampled.newest()
        raise ConfshiftError("rows= chooses by sample id; pass loader=, or sample_ids= with each batch")

    def _note(self, name: str, parts: list[NDArray[Any]], values: ArrayLike | None, rows: int) -> None:
        """Keep what is said of each sample of a batch; of all batches or of none."""
        if self._added and bool(parts) != (values is not None):
            raise ConfshiftError(f"{name} were passed with some batches only; pass them with all or none")
        if values is not None:
            part = np.array(values.cpu().numpy() if isinstance(values, torch.Tensor) else values)
            if part.shape != (rows,):
                raise ConfshiftError(f"{name} has shape {part.shape} for {rows} rows; expected ({rows},)")
            parts.append(part)

    def _note_ids(self, rows: int, sample_ids: ArrayLike | None) -> None:
        self._note("sample_ids", self._ids, sample_ids, rows)
        if sample_ids is not None:
            return
        if self._sampled is not None:
            if not self._sampled.has_begun:
                raise ConfshiftError(
                    "the loop did not begin to iterate over loader= after this collector was made; make it "
                    "before the loop, with the loop's own loader, or pass sample_ids= with each batch"
                )
            self._sampled.add_rows(rows)
        elif self._loader is not None:
            raise ConfshiftError(
                f"the order of this {type(self._loader).__name__} is not known from its sampler; pass "
                "sample_ids= with each batch"
            )

    def save(
        self, *, metadata: Mapping[str, Any] | None = None, logged: Mapping[str, float] | None = None
    ) -> Checkpoint:
        """Save the rows in the background, and return the checkpoint, of all ranks' samples.

        Parameters
        ----------
        metadata : mapping, optional
            Anything JSON-able, kept with the checkpoint. "lr" or "learning_rate" lets the report name the
            drops of the learning rate.
        logged : mapping of str to float, optional
            What your own loop reported at this epoch, by name.

        Raises
        ------
        ConfshiftError
            Where nothing was added, where the rows are not those of a whole pass over the loader, or where
            they can't be paired with the checkpoints before.
        """
        if self._is_saved:
            raise ConfshiftError("this collector has saved; make a new Collector for each evaluation")
        self._is_saved = True
        try:
            return self._place.save(
                lambda: self._evaluation({"metadata": metadata, "logged": logged}),
                self._read,
                metadata=metadata,
                logged=logged,
            )
        finally:
            self._watched.close()

    def _evaluation(self, notes: dict[str, Any]) -> Evaluation:
        for name, value in notes.items():
            plain(name, value)
        if not self._added and not self._place.is_shared:
            raise ConfshiftError("nothing was added: call add(logits, targets) for each batch before save()")
        ids, source = self._all_ids()
        groups = np.concatenate(self._groups) if self._groups else None
        return replace(self._intake.evaluation(ids, source, groups), checks=self.checks)

    def _all_ids(self) -> tuple[ArrayLike | None, str]:
        """Return the samples' ids and how they are known."""
        if self._ids:
            return np.concatenate(self._ids), self.id_source
        if self._sampled is None:
            return None, "order"
        if self._added:
            self._sampled.check_whole()
        return self._sampled.ids() if self._added else None, self._sampled.name

    def _read(self, evaluation: Evaluation) -> Predictions:
        if not self._ids:
            warn_of_missing(self._loader, evaluation.samples, run=self._place.path, split=self._split)
        return self._reading.predictions(evaluation, self._loader)
