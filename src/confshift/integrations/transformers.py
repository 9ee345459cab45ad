"""transformers: a callback that saves every evaluation of a Trainer, without a second pass."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from confshift.collection.batches import declared_task, kinds_of, unwrapped
from confshift.collection.outputs import Source, logits_of
from confshift.errors import ConfshiftError
from confshift.integrations.door import Door, installed, metrics_of
from confshift.storage.run import Run

_log = logging.getLogger("confshift")

#: Tasks without classes, or with other targets at each evaluation, by the end of the model's class or by its
#: config's `problem_type`.
_OTHER_TASKS = {
    "ForMaskedLM": "a masked language model",
    "ForConditionalGeneration": "a model that generates text",
    "ForQuestionAnswering": "a model of spans",
    "regression": "a regression",
}


class ConfshiftCallback(installed("transformers").TrainerCallback):  # type: ignore[misc]
    """Saves the logits of each evaluation of a `transformers.Trainer`.

    They are those that the Trainer computes. Where it hides the labels from the model (label smoothing, a
    loss function of your own) or shuffles the evaluation set, :func:`confshift.inspect` makes a second pass,
    and a warning says so. The metrics of each evaluation gain `eval_confshift/refinement_loss` and others,
    for `metric_for_best_model`, early stopping and the loggers that come after this callback.

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>`.
    splits : mapping of str to str, optional
        The split of each evaluation set, by the prefix of its metrics. By default "eval" is "val", and
        "eval_hard", from `eval_dataset={"hard": ...}`, is "hard"; the first of several is "val".
    task : str, optional
        What the rows are, where neither the model's name nor its config says it; see
        :func:`confshift.inspect`.
    rows : int, optional
        How many rows to keep of all samples' tokens or pixels.
    metadata : mapping, optional
        Kept with each checkpoint, beside the learning rate.
    report : path, optional
        The page to write when the training ends.
    timeout : float
        How long to wait for another process, in seconds.

    Raises
    ------
    ConfshiftError
        When the Trainer is made, for a model of another task.
    """

    def __init__(
        self,
        run: Run | os.PathLike[str] | str | None = None,
        *,
        splits: Mapping[str, str] | None = None,
        task: str | None = None,
        rows: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        report: os.PathLike[str] | str | None = None,
        timeout: float = 600,
    ) -> None:
        self._door = Door(run, metadata, report, timeout)
        self._splits, self._task, self._rows = dict(splits or {}), task, rows
        self._model: Any = None
        self._hook: Any = None
        self._newest: tuple[Any, Any] | None = None
        self._is_hidden: bool | None = None  # whether the labels are; None before a batch
        self._forget()

    def attach(self, trainer: Any) -> ConfshiftCallback:
        """Join a Trainer that exists, before its loggers, which then log this callback's metrics too."""
        trainer.add_callback(self)
        callbacks = trainer.callback_handler.callbacks
        callbacks.insert(0, callbacks.pop())
        self.on_init_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
        return self

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any = None, **_: Any) -> None:
        """Refuse other tasks, and watch the model."""
        self._label = (args.label_names or ["labels"])[0]
        _refuse_other_tasks(model)
        self._watch(model)

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any = None, **_: Any) -> None:
        """Begin a training, or go on with one, of the model that `model_init` has made, if it did."""
        self._door.begin()
        self._watch(model)

    def _watch(self, model: nn.Module) -> None:
        if model is not self._model:
            if self._hook is not None:
                self._hook.remove()
            self._model = model
            self._hook = unwrapped(model).register_forward_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, _: Any, fields: dict[str, Any], output: Any) -> None:
        """Keep the newest output; whether it is that of an evaluation, the next event says."""
        labels = fields.get(self._label)
        self._newest = None if module.training or labels is None else (_logits(output), labels)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the newest output as that of a batch of the evaluation."""
        self._is_hidden = self._newest is None or bool(self._is_hidden)
        if self._newest is not None:
            self._door.add(*self._newest)
        self._newest = None

    def on_predict(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the outputs of `Trainer.predict`."""
        self._forget()

    def _forget(self) -> None:
        self._door.forget()
        self._newest = self._is_hidden = None

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **others: Any) -> None:
        """Save the evaluation whose metrics are logged, and add to them and to the Trainer's history."""
        prefixes = [name.removesuffix("_runtime") for name in logs if name.endswith("_runtime")]
        if self._is_hidden is None or not prefixes or prefixes == ["train"]:
            return
        _refuse_other_tasks(self._model)  # a config may say it since the first loss
        scheduler = others["lr_scheduler"]
        hidden = "the model is called without the labels (label smoothing, a loss function of your own)"
        checkpoint = self._door.save(
            self._model,
            others["eval_dataloader"],
            split=self._split_of(prefixes[0]),
            epoch=float(state.epoch or 0),
            forward=self._forward,
            reason=hidden if self._is_hidden else "",
            rate=None if scheduler is None else scheduler.get_last_lr(),
            logged={name: value for name, value in logs.items() if name == f"{prefixes[0]}_loss"},
            objective={"label_smoothing": args.label_smoothing_factor},
            class_names=_class_names(self._model),
            task=self._task or declared_task(self._model),
            rows=self._rows,
        )
        self._forget()
        if checkpoint is not None:
            logs |= (own := metrics_of(checkpoint, f"{prefixes[0]}_confshift/"))
            state.log_history[-1] |= own  # a copy of the metrics, made before this event

    def _forward(self, model: Any, batch: Any) -> tuple[Any, Any]:
        inputs = {name: value for name, value in batch.items() if name != self._label}
        return _logits(model(**inputs)), batch[self._label]

    def _split_of(self, prefix: str) -> str:
        """Return the split of an evaluation set; the first is the main one, "val"."""
        if prefix not in self._splits:
            name = prefix.removeprefix("eval").removeprefix("_") or "val"
            self._splits[prefix] = name if "val" in self._splits.values() else "val"
            if self._splits[prefix] != name:
                _log.info("the evaluation set %r is the main one: it is saved as split 'val'", name)
        return self._splits[prefix]

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the page."""
        self._door.finish()


def _refuse_other_tasks(model: Any) -> None:
    kinds = kinds_of(model)
    for name, task in _OTHER_TASKS.items():
        if any(kind.endswith(name) for kind in kinds):
            raise ConfshiftError(
                f"model is a {kinds[0]}, {task}: ConfshiftCallback takes classifiers and causal models"
            )


def _logits(output: Any) -> Any:
    return logits_of(output, Source("model(**batch)", "batch['labels']"))[0]


def _class_names(model: Any) -> list[str] | None:
    """Return the names in the model's config, unless transformers made them up."""
    names = getattr(getattr(unwrapped(model), "config", None), "id2label", None) or {}
    if all(str(name) == f"LABEL_{number}" for number, name in names.items()):
        return None
    return [str(names[number]) for number in sorted(names)]
