"""ignite: a handler that saves every run of an evaluator, without a second pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import confshift
from confshift.integrations.door import Door, installed, metrics_of
from confshift.storage.run import Run

Events = installed("ignite", "ignite.engine").Events


class ConfshiftHandler:
    """Saves the logits of each run of an ignite evaluator.

    `ConfshiftHandler(run, trainer=trainer).attach(evaluator)`, before the handlers that read the metrics,
    which gain `confshift/refinement_loss` and others.

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>`.
    trainer : Engine
        Its epoch is the checkpoint's; 0 before it has started.
    split : str
        "val", "train" or any other name.
    outputs : {"logits", "probabilities"}
        What the model returns; never guessed.
    task : str, optional
        What the rows are, where the shapes leave it open: see :func:`confshift.inspect`.
    rows : int, optional
        How many rows to keep of all samples' tokens or pixels.
    output_transform : callable, optional
        From the evaluator's output to (logits, targets), as ignite's metrics have it.
    metadata : mapping or callable, optional
        Kept with each checkpoint; a function is called for each.
    report : path, optional
        The page to write when the training ends.
    timeout : float
        How long to wait for another process, in seconds.
    """

    def __init__(
        self,
        run: Run | Path | str | None = None,
        *,
        trainer: Any,
        split: str = "val",
        outputs: str = "logits",
        task: str | None = None,
        rows: int | None = None,
        output_transform: Callable[[Any], tuple[Any, Any]] = lambda output: output,
        metadata: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        report: Path | str | None = None,
        timeout: float = 600,
    ) -> None:
        self._run, self._trainer, self._metadata, self._timeout = run, trainer, metadata, timeout
        self._door = Door(run, None, report, timeout)
        self._reading: dict[str, Any] = {"split": split, "outputs": outputs, "task": task, "rows": rows}
        self._transform = output_transform
        self._collector: confshift.Collector | None = None
        trainer.add_event_handler(Events.STARTED, self._door.begin)
        trainer.add_event_handler(Events.COMPLETED, self._door.finish)

    def attach(self, evaluator: Any) -> ConfshiftHandler:
        """Listen to an evaluator."""
        evaluator.add_event_handler(Events.STARTED, self._begin)
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        evaluator.add_event_handler(Events.COMPLETED, self._save)
        return self

    def _begin(self, evaluator: Any) -> None:
        epoch = float(self._trainer.state.epoch or 0)
        loader = evaluator.state.dataloader
        self._collector = None
        if self._door.expects(self._reading["split"], epoch, loader):
            self._collector = confshift.Collector(
                self._run, epoch=epoch, loader=loader, timeout=self._timeout, **self._reading
            )

    def _add(self, evaluator: Any) -> None:
        if self._collector is not None:
            logits, targets = self._transform(evaluator.state.output)
            self._collector.add(logits, targets)

    def _save(self, evaluator: Any) -> None:
        if self._collector is None:
            return
        notes = self._metadata() if callable(self._metadata) else self._metadata
        logged = {
            name: value
            for name, value in evaluator.state.metrics.items()
            if isinstance(value, float) and not name.startswith("confshift/")  # of the epoch before
        }
        checkpoint = self._collector.save(metadata=notes, logged=logged)
        self._door.note(checkpoint)
        evaluator.state.metrics |= metrics_of(checkpoint)
