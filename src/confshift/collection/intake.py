"""Intake: takes the batches of one evaluation in their task's own shapes, and keeps their rows."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from confshift.collection.buffers import Rows
from confshift.collection.draw import Draw
from confshift.collection.evaluation import Evaluation, Population
from confshift.collection.layouts import PLAIN, Layout
from confshift.collection.outputs import Source
from confshift.collection.reading import Reading
from confshift.collection.row_checks import Batch, checked_batch, is_plain, refuse_inputs
from confshift.collection.row_ids import as_ids
from confshift.collection.unfolding import Unfolded, unfold
from confshift.errors import ConfshiftError

_log = logging.getLogger("confshift")

#: A checkpoint above this is warned about, in bytes.
_LARGE = 1e9


class Intake:
    """The rows of one evaluation.

    Parameters
    ----------
    reading : Reading
    declared : str or None
        The task that the name of the model declares; it counts where the model is called without a
        `forward` of the user's.
    batches : int or None
        How many to expect.
    name : str
        The run and the split, for warnings.
    """

    def __init__(
        self,
        reading: Reading,
        *,
        declared: str | None = None,
        batches: int | None = None,
        name: str = "",
    ) -> None:
        self.reading = reading
        self._declared, self._batches, self._name = declared, batches, name
        self.layout: Layout | None = None
        self._draw = None if reading.rows is None else Draw(reading.rows)
        self._pending: list[tuple[Batch, NDArray[Any] | None]] = []
        self._source = Source()
        self._rows: Rows | None = None
        self._samples: list[NDArray[np.int64]] = []  # of each row: the number of its sample in the pass
        self._places: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []  # of each sample: how many rows it has
        self._ignored = 0

    @property
    def needs_ids(self) -> bool:
        """Whether :meth:`add` must know which samples a batch holds."""
        return self._draw is not None

    def read(self, logits: Tensor, targets: Tensor, source: Source) -> Batch:
        """Return a batch whose shapes are understood, and fit those before; see :func:`checked_batch`."""
        self._source, task, declared = source, self.reading.task, self._declared
        if self.layout == PLAIN and is_plain(logits, targets):  # what the checks below would end with
            return Batch(logits, targets, [PLAIN])
        if task is None and declared and source.logits:
            batch = checked_batch(logits, targets, source, declared)
            layouts = [layout for layout in batch.layouts if layout.axis != 1]  # transformers' are the last
        elif task is None and declared == "causal_lm" and logits.ndim > 2:
            raise ConfshiftError(_which_shift(source))
        else:
            batch = checked_batch(logits, targets, source, task)
            layouts = batch.layouts
            if task is None and self.layout is None:
                refuse_inputs(batch, source)
        if self.layout is not None:
            layouts = [layout for layout in layouts if layout == self.layout]
        if not layouts:
            raise ConfshiftError(
                f"a batch has logits of shape {tuple(logits.shape)} and targets of shape "
                f"{tuple(targets.shape)}, and {self._expected()}; return the same form for every batch "
                "(forward= can)"
            )
        return batch._replace(layouts=layouts)

    def _expected(self) -> str:
        if self.layout is None:
            return f"task={self._declared!r}, which the model's name says, has its classes in the last axis"
        labels = f" with {self.layout.labels} labels" if self.layout.labels else ""
        return f"those before were of task {self.layout.task!r}{labels}"

    def add(self, batch: Batch, sample_ids: ArrayLike | None = None) -> None:
        """Copy the rows of a batch.

        Parameters
        ----------
        batch : Batch
            Of :meth:`read`.
        sample_ids : array_like, shape (n,), optional
            Which samples it holds; needed where :attr:`needs_ids`.
        """
        ids = None if sample_ids is None else as_ids(sample_ids)
        if self.layout is None and len(batch.layouts) > 1:
            self._pending.append((batch._replace(logits=batch.logits.detach().cpu()), ids))
            return
        if self.layout is None:
            self._settle(batch.layouts[0])
        self._keep(batch, ids)

    def _settle(self, layout: Layout) -> None:
        """Take the layout that is now known, and the batches that have waited for it."""
        self.layout = layout
        waiting, self._pending = self._pending, []
        for batch, ids in waiting:
            self._keep(batch, ids)

    def _keep(self, batch: Batch, ids: NDArray[Any] | None) -> None:
        if self.layout == PLAIN and self._draw is None:
            self._room_for(batch.logits).add(batch.logits.detach(), batch.targets)
            return
        rows = self.unfolded(batch)
        first, members = sum(map(len, self._counts)), rows.samples.numpy()
        self._ignored += rows.ignored
        self._counts.append(np.bincount(members, minlength=batch.samples))
        if self._draw is not None and ids is not None:
            rows = rows.part(self._draw.admit(ids, members, rows.places.numpy()))
        self._room_for(rows.logits).add(rows.logits, rows.targets)
        self._samples.append(rows.samples.numpy() + first)
        self._places.append(rows.places.numpy())
        self._thin()

    def unfolded(self, batch: Batch) -> Unfolded:
        """Return the rows of a batch, by the layout that is known."""
        assert self.layout is not None
        outputs, ignore_index = self.reading.outputs, self.reading.ignore_index
        return unfold(batch, self.layout, outputs=outputs, ignore_index=ignore_index)

    def _thin(self, *, is_last: bool = False) -> None:
        """Keep no more rows than are wanted, where there are too many."""
        chosen = None if self._draw is None else self._draw.choose(is_last=is_last)
        if chosen is not None and self._rows is not None:
            self._rows.select(chosen)
            self._samples = [np.concatenate(self._samples)[chosen]]
            self._places = [np.concatenate(self._places)[chosen]]

    def _room_for(self, logits: Tensor) -> Rows:
        """Return the buffer, made at the first batch for so many batches like it."""
        if self._rows is None:
            assert self.layout is not None
            self.reading.check_names(self.layout, logits.shape[1])
            expected = len(logits) * (self._batches or 1)
            wanted = self.reading.rows or expected
            self._warn_of_size(min(expected, wanted), logits)
            try:
                self._rows = Rows(min(expected, 3 * wanted), logits)
            except (MemoryError, ValueError):  # ValueError: more than an array can hold
                self._rows = Rows(len(logits), logits)
        return self._rows

    def _warn_of_size(self, rows: int, logits: Tensor) -> None:
        size = rows * logits.shape[1] * logits.element_size()
        if size > _LARGE and self._name not in _warned:
            _warned.add(self._name)
            _log.warning(
                "%s: a checkpoint has about %d rows of %d %s logits, %.2g GB; rows=200_000 keeps that many, "
                "the same at every epoch",
                *(self._name, rows, logits.shape[1], str(logits.dtype).removeprefix("torch."), size / 1e9),
            )

    def evaluation(
        self, sample_ids: ArrayLike | None, id_source: str, groups: ArrayLike | None = None
    ) -> Evaluation:
        """Return the evaluation of all rows.

        Parameters
        ----------
        sample_ids : array_like, shape (n,), or None
            Of all samples; None: their order.
        id_source : str
        groups : array_like, shape (n,), optional
            Which group each sample is of.

        Raises
        ------
        ConfshiftError
            Where no batch told which axis holds the classes, or there is not an id or group for each sample.
        """
        self._decide()
        if self._rows is None or self.layout is None:
            return Evaluation.empty(id_source)
        self._thin(is_last=True)
        rows = self._rows
        many: dict[str, Any] = {} if groups is None else {"groups": as_ids(groups)}
        if self._counts:
            counts, samples = np.concatenate(self._counts), np.concatenate(self._samples)
            ids = np.arange(len(counts)) if sample_ids is None else as_ids(sample_ids)
            for name, labels in {"sample_ids": ids, **many}.items():
                if labels.shape != counts.shape:
                    raise ConfshiftError(
                        f"{name} has shape {labels.shape}, expected {counts.shape}: one for each sample"
                    )
            sample_ids = ids[samples]
            many = {name: labels[samples] for name, labels in many.items()}
            many["places"] = np.concatenate(self._places)
            many["population"] = Population(self.reading.rows or 0, ids, counts)
        return Evaluation(
            rows.logits,
            rows.targets,
            sample_ids,
            id_source,
            rows.dtype,
            layout=self.layout,
            ignored=self._ignored,
            release=rows.release,
            **many,
        )

    def _decide(self) -> None:
        """Take the axis that the task's word stands for, where no batch told, and say so."""
        if self.layout is not None or not self._pending:
            return
        batch, task = self._pending[0][0], self.reading.task
        shape, layouts = tuple(batch.logits.shape), batch.layouts
        if task is None:
            raise ConfshiftError(_which_axis(shape, layouts[0].task, self._source))
        axis = 1 if task == "pixels" else -1
        _log.warning(
            "%s: logits of shape %s have two axes that can be that of the classes; task=%r takes %s",
            *(self._name, shape, task, "the second" if axis == 1 else "the last"),
        )
        self._settle(next(layout for layout in layouts if layout.axis == axis))

    def release(self) -> None:
        """Give the memory back."""
        if self._rows is not None:
            self._rows.release()


#: Runs and splits already warned about.
_warned: set[str] = set()


def _which_shift(source: Source) -> str:
    return (
        "the model is named as a causal language model, and forward= returned logits of every token. If it "
        f"has paired each with the next token, {source.word('tokens')}; if not, {source.word('causal_lm')}"
    )


def _which_axis(shape: tuple[int, ...], task: str, source: Source) -> str:
    pixels = task == "pixels"
    usual, other, move = ("second", "last", "-1, 1") if pixels else ("last", "second", "1, -1")
    code = source.code(f"return logits.movedim({move}), targets")
    return (
        f"logits of shape {shape} have two axes that can be that of the classes, in every batch. If it is "
        f"the {usual}, {source.word(task)}; if it is the {other}, do so and pass {code}"
    )
