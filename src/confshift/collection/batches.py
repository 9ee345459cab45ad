"""Batches: inputs, targets and logits from whatever a loader and a model return."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import logging
import sys
from collections.abc import Callable, Collection, Mapping
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from confshift.collection.outputs import FORWARD_ADVICE, Source, logits_of, loss_of
from confshift.collection.row_checks import checked_tensors
from confshift.errors import ConfshiftError

_log = logging.getLogger("confshift")

_Split = tuple[tuple[Any, ...], dict[str, Any], Any, Source]

LABEL_FIELDS = ("labels", "label", "target", "targets", "y", "label_ids", "class_id", "class_idx")

#: What Hugging Face's names declare, by the end of a model's class or by its config's `problem_type`.
_DECLARED = {
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
    "ForTokenClassification": "tokens",
    "multi_label_classification": "multilabel",
}


class Answer(NamedTuple):
    """What a model says about a batch, in the shapes of its task."""

    logits: Tensor
    targets: Tensor
    source: Source
    loss: Tensor | None = None  #: What the model itself makes of both, where it does.


@dataclasses.dataclass(frozen=True)
class Reader:
    """Logits and targets of a batch.

    Parameters
    ----------
    model : torch.nn.Module
    forward : callable, optional
        `forward(model, batch) -> (logits, targets)`, used in place of this module's own rules.
    skip : tuple of str
        Fields of the batch that are not for the model (the sample ids, the groups).
    classes : int, optional
        The number of class names, which tells the logits among the parts of an output.
    passes_labels : bool
        Whether the model receives the targets too, where it takes them, for its own loss.
    """

    model: nn.Module
    forward: Callable[[Any, Any], Any] | None = None
    skip: tuple[str, ...] = ()
    classes: int | None = None
    passes_labels: bool = False

    def read(self, batch: Any) -> Answer:
        """Return the logits and the targets of one batch.

        Raises
        ------
        ConfshiftError
            Where there are none, or they are not arrays of values.
        """
        device = self._device
        if self.forward is not None:
            pair = self.forward(self.model, to_device(batch, device))
            if not isinstance(pair, tuple) or len(pair) != 2:
                size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
                raise ConfshiftError(
                    f"forward returned a {type(pair).__name__}{size}; return the pair (logits, targets)"
                )
            return Answer(*checked_tensors(*pair, Source()), Source())
        arguments, fields, targets, source = self._split(batch)
        fields = to_device(fields, device) if fields else fields
        output = call_model(self.model, to_device(arguments, device), fields)
        logits, source = logits_of(output, source, self.classes)
        return Answer(*checked_tensors(logits, targets, source), source, loss_of(output))

    @cached_property
    def _device(self) -> torch.device | None:
        return _device_of(self.model)

    @cached_property
    def _parameters(self) -> tuple[list[str], set[str] | None]:
        return _parameters_of(self.model)

    def _split(self, batch: Any) -> _Split:
        """Return positional arguments, keyword arguments, targets, and the code for them."""
        if isinstance(batch, list | tuple) and len(batch) >= 2:
            return self._split_tuple(batch)
        fields = fields_of(batch)
        if fields is not None:
            return self._split_fields(batch, fields)
        size = f" of {len(batch)}" if isinstance(batch, list | tuple) else ""
        raise ConfshiftError(
            f"no targets in a batch that is a {type(batch).__name__}{size}; {FORWARD_ADVICE}"
        )

    def _split_tuple(self, batch: Any) -> _Split:
        """Take (inputs, targets, ...) and ignore the rest; refuse a model that takes several inputs."""
        if len(batch) > 2 and len(required := self._parameters[0]) > 1:
            raise ConfshiftError(
                f"a batch has {len(batch)} parts, and the model takes {', '.join(required)}: which parts are "
                f"inputs, and which the targets? {FORWARD_ADVICE}"
            )
        names, label = getattr(batch, "_fields", ()), 1
        if names and (field := _label_among(names)):
            label = names.index(field)
        if len(batch) > 2 and not names and sum(map(_could_be_targets, batch[1:])) > 1:
            _warn_of_choice(len(batch))
        place = 1 if label == 0 else 0
        inputs = (batch[place],)
        return inputs, {}, batch[label], Source(f"model(batch[{place}])", f"batch[{label}]", inputs)

    def _split_fields(self, batch: Any, fields: Mapping[str, Any]) -> _Split:
        label = _label_among(fields)
        if label is None:
            raise ConfshiftError(
                f"no targets among the fields {list(fields)} of a batch (looked for "
                f"{', '.join(LABEL_FIELDS)}); {FORWARD_ADVICE}"
            )
        inputs = {name: value for name, value in fields.items() if name not in (label, *self.skip)}
        required, accepted = self._parameters
        if accepted is not None:
            if len(inputs) == 1 and not set(inputs) & accepted:
                # One input, whatever it is called.
                source = _source_of(batch, inputs, label, by_name=False)
                return tuple(inputs.values()), {}, fields[label], source
            inputs = {name: value for name, value in inputs.items() if name in accepted}
        missing = [name for name in required if name not in inputs]
        if missing or not inputs:
            raise ConfshiftError(
                f"the model takes {', '.join(missing) or 'an input'}, and the batch has the fields "
                f"{list(fields)}; {FORWARD_ADVICE}"
            )
        source = _source_of(batch, inputs, label, by_name=True)
        if self.passes_labels and (accepted is None or label in accepted):
            inputs = {**inputs, label: fields[label]}
        return (), inputs, fields[label], source


def _source_of(batch: Any, inputs: Mapping[str, Any], label: str, *, by_name: bool) -> Source:
    """Return the code that calls the model with these fields of a batch."""
    access = "batch.{}" if dataclasses.is_dataclass(batch) else "batch[{!r}]"
    if not by_name:
        arguments = ", ".join(access.format(name) for name in inputs)
    elif all(str(name).isidentifier() for name in inputs):
        arguments = ", ".join(f"{name}={access.format(name)}" for name in inputs)
    else:
        arguments = "**{" + ", ".join(f"{name!r}: {access.format(name)}" for name in inputs) + "}"
    return Source(f"model({arguments})", access.format(label), tuple(inputs.values()))


def targets_of(batch: Any) -> Any:
    """Return the targets of a batch, as :class:`Reader` finds them: a field called so, or the second part.

    Raises
    ------
    ConfshiftError
        Where it has neither.
    """
    if isinstance(batch, list | tuple) and len(batch) > 1:
        label = _label_among(getattr(batch, "_fields", ()))
        return batch[1] if label is None else getattr(batch, label)
    fields = fields_of(batch) or {}
    label = _label_among(fields)
    if label is None:
        raise ConfshiftError(
            f"no targets in a batch that is a {type(batch).__name__} (looked for {', '.join(LABEL_FIELDS)})"
        )
    return fields[label]


def _could_be_targets(part: Any) -> bool:
    integers = isinstance(part, Tensor) and not (part.is_floating_point() or part.is_complex())
    return integers and part.ndim == 1


@lru_cache
def _warn_of_choice(parts: int) -> None:
    """Warn once that a part of a tuple was taken for the targets, and that another could be meant."""
    _log.warning(
        "a batch has %d parts, and more than one could be the targets: inspect takes the second. If that is "
        "something else (a domain, an index), %s",
        *(parts, FORWARD_ADVICE),
    )


def _label_among(names: Collection[str]) -> str | None:
    return next((name for name in LABEL_FIELDS if name in names), None)


def fields_of(batch: Any) -> Mapping[str, Any] | None:
    """Return the named fields of a dict, mapping or dataclass; None for anything else."""
    if isinstance(batch, Mapping):
        return batch
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    if hasattr(batch, "keys") and hasattr(batch, "__getitem__"):
        return {name: batch[name] for name in batch.keys()}  # noqa: SIM118 - it may not iterate over keys
    return None


def _parameters_of(model: nn.Module) -> tuple[list[str], set[str] | None]:
    """Return the parameters that `model.forward` requires and those it accepts (None: any)."""
    try:
        parameters = inspect.signature(unwrapped(model).forward).parameters.values()
    except (TypeError, ValueError):  # scripted modules have no signature
        return [], None
    by_name = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p.name for p in by_name if p.default is p.empty]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return required, None
    return required, {p.name for p in by_name}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile, DataParallel and DistributedDataParallel."""
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    inner: Any = model
    while isinstance(inner, wrappers) or hasattr(inner, "_orig_mod"):
        inner = inner.module if isinstance(inner, wrappers) else inner._orig_mod
    return cast(nn.Module, inner)


def declared_task(model: nn.Module) -> str | None:
    """Return the task that a Hugging Face model declares by its class or its config."""
    kinds = kinds_of(model)
    return next((task for end, task in _DECLARED.items() if any(kind.endswith(end) for kind in kinds)), None)


def kinds_of(model: nn.Module) -> tuple[str, str]:
    """Return the name of a model's class, also inside peft's, and its config's `problem_type`."""
    inner: Any = unwrapped(model)
    inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
    return type(inner).__name__, str(getattr(getattr(inner, "config", None), "problem_type", None))


def _device_of(model: nn.Module) -> torch.device | None:
    """Return the device of the model's first parameter or buffer, None where it has neither."""
    first = next(model.parameters(), next(model.buffers(), None))
    return None if first is None else first.device


def to_device(value: Any, device: torch.device | None) -> Any:
    """Move every tensor inside to the device; containers keep their type, other values stay as they are."""
    if device is None:
        return value
    if isinstance(value, Tensor):
        return value if value.device == device else value.to(device, non_blocking=True)
    if isinstance(value, dict | list | tuple):
        return _move_builtin(value, device)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **_move_builtin(fields, device))
    if callable(getattr(value, "to", None)):  # BatchEncoding, graphs
        return copy.copy(value).to(device)  # it may move itself in place and return itself
    if isinstance(value, Mapping):
        return {name: to_device(part, device) for name, part in value.items()}
    return value


def _move_builtin(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: to_device(part, device) for name, part in value.items()}
    parts = [to_device(part, device) for part in value]
    if hasattr(value, "_fields"):
        return type(value)(*parts)
    return parts if isinstance(value, list) else tuple(parts)


_SHOWN = 8


def call_model(model: nn.Module, arguments: tuple[Any, ...], fields: Mapping[str, Any]) -> Any:
    """Return the model's output; an error of the model keeps its type and gets a note.

    The note (Python 3.11 and later) names the call, the shapes and types of its arguments, and `forward=`.
    """
    try:
        return model(*arguments, **fields)
    except Exception as error:
        if sys.version_info >= (3, 11):
            descriptions = [_described(argument) for argument in arguments]
            descriptions += [f"{name}={_described(value)}" for name, value in fields.items()]
            error.add_note(
                f"confshift called model({', '.join(descriptions)}). If the model takes other arguments, "
                "pass forward=, a function (model, batch) -> (logits, targets)"
            )
        raise


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    if isinstance(value, Mapping):
        fields = [f"{name}: {_described(part)}" for name, part in list(value.items())[:_SHOWN]]
        return f"{type(value).__name__} {{{_listed(fields, len(value))}}}"
    if isinstance(value, list | tuple):
        return (
            f"{type(value).__name__} of {_listed([_described(part) for part in value[:_SHOWN]], len(value))}"
        )
    return type(value).__name__


def _listed(parts: list[str], count: int) -> str:
    return ", ".join([*parts, "..."] if count > len(parts) else parts)
