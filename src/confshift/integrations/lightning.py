"""lightning and pytorch_lightning: a callback that saves every validation, without a second pass."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from confshift.collection.batches import targets_of
from confshift.collection.outputs import Source, logits_of
from confshift.errors import ConfshiftError
from confshift.integrations.door import Door, forward_in, installed, metrics_of, objective_of
from confshift.storage.run import Run

#: The one that the program uses comes first; the two are installed apart.
_PACKAGES = sorted(("lightning.pytorch", "pytorch_lightning"), key=lambda name: name not in sys.modules)


class ConfshiftCallback(installed("lightning", *_PACKAGES).Callback):  # type: ignore[misc]
    """Saves the logits of each validation of a Lightning `Trainer.fit`.

    They are, in this order, the `logits` of a dict that `validation_step` returns, what the LightningModule
    returns when `validation_step` calls it, or what its part `module` returns. The sanity check is left out.
    `confshift/refinement_loss` and others are logged, for EarlyStopping and for ModelCheckpoint (with
    `auto_insert_metric_name=False`, as a "/" in a file name makes a folder).

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>`.
    module : str, optional
        The attribute of the LightningModule whose output is the logits.
    splits : sequence of str, optional
        The splits of several loaders, in their order. By default the keys of a dict of loaders, the first
        being "val", or "val", "val1", ...
    validate : bool
        Whether `Trainer.validate` is saved too, at the epoch that the trainer has reached.
    before_training : bool
        Whether the sanity check goes over the whole validation set and is saved, as epoch 0; that of a
        training which is resumed is not.
    task : str, optional
        What the rows are, where the shapes leave it open: see :func:`confshift.inspect`.
    rows : int, optional
        How many rows to keep of all samples' tokens or pixels.
    metadata : mapping, optional
        Kept with each checkpoint, beside the learning rate.
    report : path, optional
        The page to write when the training ends.
    timeout : float
        How long to wait for another process, in seconds.
    """

    def __init__(
        self,
        run: Run | os.PathLike[str] | str | None = None,
        *,
        module: str | None = None,
        splits: list[str] | None = None,
        validate: bool = False,
        before_training: bool = False,
        task: str | None = None,
        rows: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        report: os.PathLike[str] | str | None = None,
        timeout: float = 600,
    ) -> None:
        self._place = run, metadata, report, timeout
        self._module, self._splits = module, splits
        self._reading: dict[str, Any] = {"task": task, "rows": rows}
        self._validate, self._before = validate, before_training
        self._doors: dict[int, Door] = {}
        self._outputs: list[Any] = []
        self._hook: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin a training, or go on with one."""
        for door in self._doors.values():
            door.begin()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Watch the module that returns the logits."""
        watched = pl_module if self._module is None else pl_module.get_submodule(self._module)
        self.teardown(trainer, pl_module, stage)
        self._hook = watched.register_forward_hook(self._note)
        if self._before:
            trainer.num_sanity_val_steps = float("inf")

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Watch no more."""
        if self._hook is not None:
            self._hook.remove()

    def _note(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if not module.training:
            self._outputs.append(output)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        """Forget what the module returned before."""
        self._outputs.clear()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take the logits of a batch; in the sanity check, see that there are any."""
        if not self._validate and trainer.state.fn != "fit":
            return
        returned = outputs if isinstance(outputs, Mapping) else {}
        targets = returned.get("targets")
        targets = targets_of(batch) if targets is None else targets
        logits = returned.get("logits")
        logits = self._returned(len(targets)) if logits is None else logits
        if self._is_wanted(trainer):
            self._door(dataloader_idx).add(logits, targets)
        self._outputs.clear()

    def _is_wanted(self, trainer: Any) -> bool:
        if trainer.sanity_checking:
            return self._before and not trainer.global_step
        return self._validate or trainer.state.fn == "fit"

    def _door(self, number: int) -> Door:
        run, metadata, report, timeout = self._place
        return self._doors.setdefault(number, Door(run, metadata, None if number else report, timeout))

    def _returned(self, rows: int) -> Tensor:
        """Return the first output with a row for each sample: under DDP others pass through the module."""
        for output in self._outputs:
            try:
                logits, _ = logits_of(output, Source("self(x)", "targets"))
            except ConfshiftError:
                continue
            if logits.ndim and len(logits) == rows:
                return logits
        raise ConfshiftError(
            "no logits were seen in validation_step: return a dict with them, {'loss': loss, 'logits': "
            "logits}; or let validation_step call self(x); or pass module=, the part that returns them"
        )

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Save the validation of each loader, and log the metrics of the checkpoints."""
        if not self._is_wanted(trainer):
            return
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        logged = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if "val" in name and not name.startswith("confshift/")
        }
        notes: dict[str, Any] = {"rate": rates or None, "logged": logged, "epoch": _epoch(trainer)}
        precision = trainer.precision_plugin
        notes["forward"] = forward_in(precision.val_step_context, precision.convert_input)
        notes["objective"] = objective_of(pl_module)
        for number, (name, loader) in enumerate(self._loaders(trainer).items()):
            checkpoint = self._door(number).save(pl_module, loader, split=name, **notes, **self._reading)
            if checkpoint is not None:
                prefix = "confshift/" if name == "val" else f"confshift/{name}/"
                pl_module.log_dict(metrics_of(checkpoint, prefix), rank_zero_only=False)

    def _loaders(self, trainer: Any) -> dict[str, Any]:
        """Return the loaders by split."""
        loaders = trainer.val_dataloaders
        if isinstance(loaders, Mapping):
            names = list(loaders)
            names = names if "val" in names else ["val", *names[1:]]
            loaders = list(loaders.values())
        else:
            loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
            names = [f"val{number or ''}" for number in range(len(loaders))]
        if self._splits and len(self._splits) != len(loaders):
            raise ConfshiftError(f"splits={self._splits!r} is for {len(loaders)} loaders; name each of them")
        return dict(zip(self._splits or names, loaders, strict=True))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the page."""
        self._door(0).finish()


def _epoch(trainer: Any) -> float:
    """Return how many epochs of training are done, in parts where validation is more frequent."""
    batches, loop = trainer.num_training_batches, trainer.fit_loop.epoch_loop
    done = loop.batch_progress.current.completed
    return float(trainer.current_epoch + (min(done / batches, 1.0) if batches and done else 0.0))
