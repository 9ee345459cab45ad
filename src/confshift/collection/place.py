"""Places: where an evaluation goes, from one process or from all ranks that share its samples."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from confshift.checkpoint import Checkpoint
from confshift.collection.destination import Destination
from confshift.collection.evaluation import Evaluation, Population, together
from confshift.collection.layouts import Layout
from confshift.collection.ranks import Ranks, described, rank_and_size
from confshift.errors import ConfshiftError
from confshift.predictions import ARRAYS, FACTS, Predictions
from confshift.storage.run import Run
from confshift.tasks import TASKS

_log = logging.getLogger("confshift")
#: What was already warned about, by kind, run and split.
_warned: set[tuple[str, str, str]] = set()

Notes = Mapping[str, Any]


class Place(Protocol):
    """Where one evaluation goes."""

    path: str  #: The run's folder.
    is_first: bool  #: Whether the split has no checkpoint yet.
    is_shared: bool  #: Whether this process has the samples of one of several ranks, perhaps none.

    def save(
        self,
        evaluate: Callable[[], Evaluation],
        read: Callable[[Evaluation], Predictions],
        *,
        metadata: Notes | None,
        logged: Mapping[str, float] | None,
    ) -> Checkpoint:
        """Evaluate, make predictions of the rows, save them, and return the checkpoint of all samples."""


def place_of(
    check: Callable[[], object],
    destination: Callable[[], Destination],
    *,
    split: str,
    epoch: float | None,
    shared: bool,
    timeout: float,
) -> Place:
    """Return the place for this process's rows.

    Where the samples are shared out among the ranks of a process group, all ranks make the same calls: what
    one refuses is refused on all. Where each rank has all samples, rank 0 alone saves, and no rank waits.

    Parameters
    ----------
    check : callable
        Refuses bad arguments, on every rank.
    destination : callable
        Returns the destination in the run, on rank 0.
    split : str
    epoch : float or None
    shared : bool
        Whether this process has a part of the samples.
    timeout : float
        How long to wait for another rank, in seconds.

    Raises
    ------
    ConfshiftError
        For what is refused, here or on another rank, or where a rank does not come.
    """
    _check_timeout(timeout)
    rank, size = rank_and_size()

    def opened() -> Destination | None:
        check()
        return None if rank else destination()

    if shared and size > 1:
        return _Shared(opened, split=split, timeout=timeout)
    found = opened()
    return _Alone(found) if found is not None else _Bystander(split, epoch, f"rank {rank} of {size}")


def _check_timeout(timeout: Any) -> None:
    """Refuse what is not a number of seconds above 0."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise ConfshiftError(f"timeout={timeout!r}: pass a number of seconds above 0")


class _Alone:
    """All samples are here, and this process saves them."""

    is_shared = False

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self.path, self.is_first = destination.path, destination.is_first

    def save(
        self,
        evaluate: Callable[[], Evaluation],
        read: Callable[[Evaluation], Predictions],
        **notes: Any,
    ) -> Checkpoint:
        evaluation = evaluate()
        try:
            predictions = read(evaluation)
            return self._destination.save(
                predictions, **notes, checks=evaluation.checks, release=evaluation.release
            )
        except ConfshiftError:
            evaluation.release()
            raise


class _Bystander:
    """All samples are here and on rank 0, which alone saves them and knows the epoch."""

    is_shared = is_first = False
    path = "another rank's run"

    def __init__(self, split: str, epoch: float | None, rank: str) -> None:
        self._split, self._epoch = split, math.nan if epoch is None else epoch
        if ("bystander", self.path, split) not in _warned:
            _warned.add(("bystander", self.path, split))
            _log.info("%s has all samples (%s), as rank 0 has, which alone saves them", rank, split)

    def save(
        self,
        evaluate: Callable[[], Evaluation],
        read: Callable[[Evaluation], Predictions],
        *,
        metadata: Notes | None,
        logged: Mapping[str, float] | None,
    ) -> Checkpoint:
        predictions = read(evaluate())
        return Checkpoint.from_predictions(
            predictions, epoch=self._epoch, split=self._split, metadata=metadata
        )


class _Shared:
    """Every rank has a part of the samples: rank 0 joins and saves them, all return the whole checkpoint."""

    is_shared = True

    def __init__(self, destination: Callable[[], Destination | None], *, split: str, timeout: float) -> None:
        self._ranks = Ranks(split, timeout)
        self._split = split
        self._destination, answers = self._ranks.agree("before", destination, _opening)
        self.path, self.is_first = answers[0]["path"], answers[0]["is_first"]

    def save(
        self,
        evaluate: Callable[[], Evaluation],
        read: Callable[[Evaluation], Predictions],
        **notes: Any,
    ) -> Checkpoint:
        own, answers = self._ranks.agree("after", lambda: _identified(evaluate()), _words)
        received = self._ranks.gather([*own.arrays.values()], [answer["arrays"] for answer in answers])
        shards = [_shard(parts, answer) for parts, answer in zip(received, answers, strict=False)]
        joined, said = self._ranks.agree(
            "saved", lambda: self._join(shards, read, notes) if shards else None, _saved
        )
        own.release()
        return self._everywhere(joined, said[0])

    def _join(
        self, shards: list[Evaluation], read: Callable[[Evaluation], Predictions], notes: dict[str, Any]
    ) -> _Joined:
        evaluation, replaced = together(shards)
        checks = {**evaluation.checks, **self._compared(shards)}
        if replaced:
            noun = TASKS[evaluation.layout.task].sample
            text = f"{replaced} copies of {noun}s differ between ranks; the lowest rank's count"
            self._warn("copies", text)
        predictions = read(evaluation)
        assert self._destination is not None  # rank 0
        checkpoint = self._destination.save(predictions, **notes, checks=checks, release=lambda: None)
        return _Joined(checkpoint, predictions, self._destination.settled(checkpoint.epoch))

    def _compared(self, shards: list[Evaluation]) -> dict[str, Any]:
        """Compare the buffers of the ranks' models."""
        found = [check for shard in shards if (check := shard.checks.get("buffers"))]
        if not found:
            return {}
        if len({check.get("hash") for check in found}) == 1:
            return {"buffers": {**found[0], "status": "passed"}}
        self._warn(
            "buffers",
            "the model's buffers differ between the ranks, as the running statistics of BatchNorm do under "
            "DDP, so each rank evaluated its samples with another model. torch.nn.SyncBatchNorm keeps them "
            "equal",
        )
        return {"buffers": {**found[0], "status": "failed"}}

    def _everywhere(self, joined: _Joined | None, said: dict[str, Any]) -> Checkpoint:
        """Return the whole checkpoint: from the run's folder, or from rank 0 where it is not saved."""
        if said["path"]:
            return self._stored(said) if joined is None else joined.checkpoint
        mine = [] if joined is None else _arrays(joined.predictions)
        arrays = dict.fromkeys(ARRAYS) | dict(
            zip(ARRAYS, self._ranks.share(mine, said["arrays"]), strict=False)
        )
        said["facts"]["label_names"] = tuple(said["facts"]["label_names"])
        names = tuple(said["class_names"])
        predictions = Predictions.trusted(**arrays, class_names=names, **said["facts"])
        return Checkpoint.from_predictions(predictions, epoch=said["epoch"], split=self._split)

    def _stored(self, said: dict[str, Any]) -> Checkpoint:
        try:
            return Run(said["path"]).checkpoint(said["epoch"], split=self._split)
        except (ConfshiftError, OSError) as error:
            raise ConfshiftError(
                f"rank {self._ranks.rank} can't read epoch {said['epoch']:g}, which rank 0 saved in "
                f"{said['path']} ({error}); pass run= a folder on a disk that all ranks share"
            ) from error

    def _warn(self, kind: str, text: str) -> None:
        if (key := (kind, self.path, self._split)) not in _warned:
            _warned.add(key)
            _log.warning("%s (%s): %s", self.path, self._split, text)


@dataclass(frozen=True)
class _Joined:
    """What rank 0 made of the rows of all ranks."""

    checkpoint: Checkpoint
    predictions: Predictions
    path: str  #: The folder where it is saved; "" where it is not.


def _opening(destination: Destination | None) -> dict[str, Any]:
    if destination is None:
        return {}
    return {"path": destination.path, "is_first": destination.is_first}


def _shard(arrays: list[Any], said: dict[str, Any]) -> Evaluation:
    """Return the rows of a rank from what it sent and said."""
    fields = dict(zip(said["names"], arrays, strict=True))
    if "counts" in fields:
        fields["population"] = Population(said["wanted"], fields.pop("sample_ids"), fields.pop("counts"))
    return Evaluation(
        **fields,
        layout=Layout(*said["layout"]),
        dtype=getattr(torch, said["dtype"]),
        **{name: said[name] for name in ("id_source", "checks", "ignored")},
    )


def _identified(evaluation: Evaluation) -> Evaluation:
    """Refuse rows whose ids mean something on their own rank only."""
    if not len(evaluation) or evaluation.id_source in ("user", "sampler"):
        return evaluation
    raise ConfshiftError(
        "the samples are shared out among ranks, and which sample is which is known by "
        f"{evaluation.id_source} only; pass sample_ids="
    )


def _words(evaluation: Evaluation) -> dict[str, Any]:
    """Return what the other ranks need to know of a rank's rows."""
    return {
        "arrays": described([*evaluation.arrays.values()]),
        "names": [*evaluation.arrays],
        "layout": list(evaluation.layout),
        "wanted": evaluation.population.wanted if evaluation.population else 0,
        "ignored": evaluation.ignored,
        "id_source": evaluation.id_source,
        "dtype": str(evaluation.dtype).removeprefix("torch."),
        "checks": dict(evaluation.checks),
    }


def _saved(joined: _Joined | None) -> dict[str, Any]:
    if joined is None:
        return {}
    checkpoint, predictions = joined.checkpoint, joined.predictions
    return {
        "path": joined.path,
        "epoch": checkpoint.epoch,
        "arrays": described(_arrays(predictions)),
        "class_names": list(predictions.class_names),
        "facts": {name: getattr(predictions, name) for name in FACTS},
    }


def _arrays(predictions: Predictions) -> list[Any]:
    return [array for name in ARRAYS if (array := getattr(predictions, name)) is not None]
