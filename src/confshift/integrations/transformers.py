"""transformers: a callback that saves every evaluation of a Trainer, without a second pass."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from transformers import TrainerCallback

import confshift
from confshift.checkpoint import Checkpoint
from confshift.collection.batches import unwrapped
from confshift.collection.destination import open_run
from confshift.collection.loaders import shard_of, torch_loader
from confshift.collection.outputs import Source, logits_of
from confshift.collection.ranks import rank_and_size
from confshift.errors import ConfshiftError
from confshift.storage.run import Run

_log = logging.getLogger("confshift")

#: Tasks with another number of labels than one a sample, by what a model's class or config is called.
_OTHER_TASKS = {
    "ForCausalLM": "a causal language model",
    "ForMaskedLM": "a masked language model",
    "ForTokenClassification": "a classifier of tokens",
    "ForQuestionAnswering": "a model of spans",
    "multi_label_classification": "a multi-label classifier",
    "regression": "a regression",
}
#: What of a checkpoint's metrics goes into the Trainer's.
_REPORTED = ("refinement_loss", "scale_loss", "balance_loss", "accuracy")


class ConfshiftCallback(TrainerCallback):
    """Saves the logits of each evaluation of a `transformers.Trainer`.

    They are those that the Trainer computes. Where it hides the labels from the model (label smoothing, a loss
    function of your own) or shuffles the evaluation set, `confshift.inspect` makes a pass of its own, and the
    log says so. Each evaluation's metrics gain `eval_confshift/refinement_loss` and others, which
    `metric_for_best_model` and early stopping can name.

    Parameters
    ----------
    run : Run or path, optional
        Where to save. Without it, a new folder `runs/<date>-<time>`.
    splits : mapping of str to str, optional
        The split of each evaluation set, by the prefix of its metrics. By default "eval" is "val", and
        "eval_hard", from `eval_dataset={"hard": ...}`, is "hard"; the first of several is "val" where none is.
    metadata : mapping, optional
        Kept with each checkpoint, beside the learning rate.
    report : path, optional
        The page to write when the training ends.
    timeout : float
        How long to wait for another process, in seconds.

    Raises
    ------
    ConfshiftError
        When the Trainer is made, for a model of another task than one label a sample.
    """

    def __init__(
        self,
        run: Run | os.PathLike[str] | str | None = None,
        *,
        splits: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        report: os.PathLike[str] | str | None = None,
        timeout: float = 600,
    ) -> None:
        self._run, self._splits, self._metadata, self._report = run, dict(splits or {}), metadata, report
        self._timeout = timeout
        self._saved: set[tuple[str, float]] = set()
        self._sets: set[str] = set()
        self._is_warned = False
        self._model: nn.Module | None = None
        self._hook: Any = None
        self._newest: tuple[Tensor, Tensor] | None = None
        self._batches: list[tuple[Tensor, Tensor]] = []
        self._reason = ""  # why the Trainer's own outputs can't be used

    def on_init_end(self, args: Any, state: Any, control: Any, *, model: Any = None, **_: Any) -> None:
        """Refuse other tasks, and watch the model."""
        _refuse_other_tasks(model)
        self._labels = list(args.label_names or ["labels"])
        self._watch(model)

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any = None, **_: Any) -> None:
        """Watch the model of `model_init`, if there is one."""
        self._watch(model)

    def _watch(self, model: nn.Module) -> None:
        if model is not self._model:
            if self._hook is not None:
                self._hook.remove()
            self._model, self._newest = model, None
            self._hook = unwrapped(model).register_forward_hook(self._note, with_kwargs=True)

    def _note(self, module: nn.Module, arguments: Any, fields: dict[str, Any], output: Any) -> None:
        """Keep the newest output of an evaluation: whether it is the Trainer's, the next event says."""
        labels = fields.get(self._labels[0]) if len(self._labels) == 1 else None
        if not module.training:
            self._newest = None if labels is None else (_logits(output), labels)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the newest output as that of this batch."""
        if self._newest is None:
            self._reason = "the model is not called with the labels (label smoothing, a loss function, torch.compile)"
        else:
            logits, labels = self._newest
            self._batches.append((logits.detach().to("cpu", copy=True), labels.detach().to("cpu", copy=True)))
        self._newest = None

    def on_predict(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the outputs of `Trainer.predict`."""
        self._forget()

    def _forget(self) -> None:
        self._batches, self._reason, self._newest = [], "", None

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **objects: Any) -> None:
        """Save the evaluation whose metrics are being logged, and add this package's to them."""
        ending = "_runtime"
        prefix = next((name.removesuffix(ending) for name in logs if name.endswith(ending)), "train")
        if prefix == "train" or not (self._batches or self._reason):
            return
        try:
            checkpoint = self._save(prefix, logs, float(state.epoch or 0), **objects)
        finally:
            self._forget()
        if checkpoint is not None:
            metrics = checkpoint.metrics()
            own = {f"{prefix}_confshift/{name}": metrics[name] for name in _REPORTED}
            logs |= own
            state.log_history[-1] |= own  # the Trainer copied the metrics before this event

    def _save(self, prefix: str, logs: dict[str, Any], epoch: float, **objects: Any) -> Checkpoint | None:
        split = self._split_of(prefix)
        if (split, epoch) in self._saved:
            _log.info("epoch %g (%s) is saved already; this evaluation of it is not", epoch, split)
            return None
        loader, scheduler = objects["eval_dataloader"], objects.get("lr_scheduler")
        rate = {} if scheduler is None else {"lr": scheduler.get_last_lr()}
        notes: dict[str, Any] = {
            "metadata": {**rate, **(self._metadata or {})},
            "logged": {name: value for name, value in logs.items() if name == f"{prefix}_loss"},
        }
        place: dict[str, Any] = {"split": split, "epoch": epoch, "timeout": self._timeout}
        place["class_names"] = _class_names(self._model)
        checkpoint = self._own_pass(loader, place | notes) or self._collected(loader, place, notes)
        self._saved.add((split, epoch))
        return checkpoint

    def _own_pass(self, loader: Any, options: dict[str, Any]) -> Checkpoint | None:
        """Evaluate once more, where the Trainer's outputs do not do."""
        if not self._reason and not _is_sequential(loader):
            self._reason = "the evaluation set is not read in order"
        if not self._reason:
            return None
        if not self._is_warned:
            self._is_warned = True
            _log.warning("%s, so each evaluation is a second pass over the data", self._reason)
        label = self._labels[0]

        def forward(model: nn.Module, batch: Any) -> tuple[Any, Any]:
            fields = {name: value for name, value in batch.items() if name != label}
            return _logits(model(**fields)), batch[label]

        return confshift.inspect(self._model, loader, run=self._run, forward=forward, **options)

    def _collected(self, loader: Any, place: dict[str, Any], notes: dict[str, Any]) -> Checkpoint:
        """Save the Trainer's own outputs: the samplers say once more which samples they are of."""
        shared = shard_of(loader)[1] > 1
        collector = confshift.Collector(self._run, sharded=shared, **place)
        for (logits, labels), ids in zip(self._batches, _ids_of(loader), strict=True):
            collector.add(logits, labels, sample_ids=ids)
        return collector.save(**notes)

    def _split_of(self, prefix: str) -> str:
        """Return the split of an evaluation set; the first of several is the main one, "val"."""
        if prefix not in self._splits:
            name = prefix.removeprefix("eval").removeprefix("_") or "val"
            is_main = "val" not in self._splits.values() and "eval_val" not in self._sets
            self._splits[prefix] = "val" if is_main else name
            if is_main and name != "val":
                _log.info("evaluation set %r is the main one: it is saved as split 'val'", name)
        return self._splits[prefix]

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the page."""
        if self._report is not None and self._saved and rank_and_size()[0] == 0:
            confshift.report(open_run(self._run), self._report)


def _refuse_other_tasks(model: Any) -> None:
    inner = unwrapped(model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    kinds = type(inner).__name__, str(getattr(getattr(inner, "config", None), "problem_type", None))
    for name, task in _OTHER_TASKS.items():
        if any(kind.endswith(name) for kind in kinds):
            raise ConfshiftError(
                f"model is a {kinds[0]}, {task}: ConfshiftCallback takes classifiers with one label a sample "
                "(such as ...ForSequenceClassification)"
            )


def _logits(output: Any) -> Tensor:
    """Return the logits of an output, whatever else is in it."""
    return logits_of(output, Source("model(**batch)", "labels"))[0]


def _class_names(model: Any) -> list[str] | None:
    """Return the names in the model's config, unless it made them up."""
    names = dict(getattr(getattr(unwrapped(model), "config", None), "id2label", None) or {})
    if not names or all(str(name) == f"LABEL_{number}" for number, name in names.items()):
        return None
    return [str(names[number]) for number in sorted(names)]


def _is_sequential(loader: Any) -> bool:
    inner: Any = torch_loader(loader)
    sampler = None if inner is None else inner.batch_sampler
    while sampler is not None and not isinstance(sampler, SequentialSampler):
        sampler = getattr(sampler, "sampler", None) or getattr(sampler, "batch_sampler", None)
    return sampler is not None


def _ids_of(loader: Any) -> list[Any]:
    """Return the indices of each batch, as this process's sampler gives them; no data is loaded."""
    inner: Any = torch_loader(loader)
    return list(inner.batch_sampler)
