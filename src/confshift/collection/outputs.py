"""Outputs: the logits in whatever a model returns, and the code that selects them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from confshift.errors import ConfshiftError

FORWARD_ADVICE = "pass forward=, a function (model, batch) -> (logits, targets)"
ADD_ADVICE = "pass add() a row of K logits and a class index for each sample"
_SHOWN = 8  # parts of an output


class Source(NamedTuple):
    """Where logits and targets come from, as code, for the remedy that a message prints.

    Empty where the user's own forward= returned them, or where `Collector.add` got them (`added`).
    """

    logits: str = ""
    targets: str = ""
    inputs: tuple[Any, ...] = ()
    added: bool = False

    @property
    def returned(self) -> str:
        """Who passed logits and targets on, with the verb."""
        if self.added:
            return "add() got"
        return "the model returned" if self.logits else "forward= returned"

    @property
    def advice(self) -> str:
        """Return the remedy where no code can be given."""
        return ADD_ADVICE if self.added else FORWARD_ADVICE

    def word(self, task: str) -> str:
        """Return the remedy where a word says what the shapes mean."""
        return f"pass task={task!r}{' to Collector' if self.added else ''}"

    def code(self, *lines: str) -> str:
        """Return a forward= or a call of add that ends with these lines about `logits` and `targets`."""
        if self.added:
            call = lines[-1].replace("return ", "collector.add(", 1) + ")"
            return "\n".join(["them so:", *(f"    {line}" for line in (*lines[:-1], call))])
        if not self.logits:
            return "\n".join(["forward= that ends with", *(f"    {line}" for line in lines)])
        first = f"logits, targets = {self.logits}, {self.targets}"
        body = [f"        {line}" for line in (first, *lines)]
        return "\n".join(["forward=forward with", "    def forward(model, batch):", *body])


def logits_of(output: Any, source: Source, classes: int | None = None) -> tuple[Tensor, Source]:
    """Return the logits in a model's output, and the code that selects them; nothing is guessed.

    They are the output itself, its `logits`, the maps that torchvision calls "out" (beside "aux"), or a part
    of a tuple or list. If the number of class names is
    known, that is the first part with as many columns; else the first part, after a scalar loss, unless
    another part could be the logits as well.

    Parameters
    ----------
    output : object
        What the model returned.
    source : Source
        The code of the call.
    classes : int, optional
        The number of class names.

    Raises
    ------
    ConfshiftError
        Naming the shapes of all parts.
    """
    call = source.logits
    if isinstance(output, Tensor):
        return output, source
    attribute = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(attribute, Tensor):
        field = "['logits']" if isinstance(output, Mapping) else ".logits"
        return attribute, source._replace(logits=f"{call}{field}")
    maps = output.get("out") if isinstance(output, Mapping) and set(output) <= {"out", "aux"} else None
    if isinstance(maps, Tensor) and maps.ndim > 2:
        return maps, source._replace(logits=f"{call}['out']")
    if isinstance(output, list | tuple):
        place = _place_of_logits(output, classes)
        if place is not None:
            return output[place], source._replace(logits=f"{call}[{place}]")
        if any(isinstance(part, Tensor) and part.ndim for part in output):
            raise ConfshiftError(_which_part(output, source, classes))
    fields = output if isinstance(output, Mapping | list | tuple) else _tensor_fields(output)
    shapes = f" with {_described(fields)}" if fields else ""
    if isinstance(output, Mapping):
        remedy = _choosing(source, f"{call}[name]", "name", "the name of the logits")
    elif isinstance(fields, Mapping) and fields:
        remedy = _choosing(source, f"getattr({call}, name)", "name", "the name of the logits")
    else:
        remedy = FORWARD_ADVICE
    raise ConfshiftError(f"no logits in what the model returned, a {type(output).__name__}{shapes}; {remedy}")


def loss_of(output: Any) -> Tensor | None:
    """Return the loss that a model's output holds by name."""
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return loss if isinstance(loss, Tensor) and loss.numel() == 1 else None


def _tensor_fields(output: Any) -> dict[str, Tensor]:
    """Return the tensors among the attributes of an object."""
    return {
        name: value for name, value in getattr(output, "__dict__", {}).items() if isinstance(value, Tensor)
    }


def _which_part(output: Any, source: Source, classes: int | None) -> str:
    names = "; or class_names=: the part with as many columns is taken" if any(map(_is_rows, output)) else ""
    if classes is not None:
        names = f"; no part of shape (n, {classes}) comes first, and there are {classes} class names"
    choosing = _choosing(source, f"{source.logits}[i]", "i", "the place of the logits, 0 for the first,")
    return f"the model returned {_described(output)}: which are the logits? {choosing}{names}"


def _choosing(source: Source, code: str, index: str, meaning: str) -> str:
    return f"pass forward=lambda model, batch: ({code}, {source.targets}) with {meaning} for {index}"


def _place_of_logits(parts: Sequence[Any], classes: int | None) -> int | None:
    """Return which part holds the logits; None if that can't be known."""
    places = [place for place, part in enumerate(parts) if not _is_loss(part)]
    if not places or (len(places) > 1 and classes is not None):
        return _place_of_width(parts, classes)
    first = parts[places[0]]
    if len(places) == 1:
        return places[0] if isinstance(first, Tensor) else None
    if not _is_rows(first):
        return None
    others = [tensor for place in places[1:] for tensor in _tensors_in(parts[place])]
    rivals = [other for other in others if _is_rows(other) or _is_column(other, len(first))]
    return places[0] if all(rival.shape == first.shape for rival in rivals) else None


def _place_of_width(parts: Sequence[Any], classes: int | None) -> int | None:
    """Return the first part of this width; None if there is none, or it is inside another part."""
    for place, part in enumerate(parts):
        if any(_is_rows(tensor) and tensor.shape[1] == classes for tensor in _tensors_in(part)):
            return place if isinstance(part, Tensor) else None
    return None


def _tensors_in(part: Any) -> list[Tensor]:
    """Return the tensors in a part, however deep: logits may be inside a pair or a dict."""
    if isinstance(part, Tensor):
        return [part]
    inner = part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ()
    return [tensor for within in inner for tensor in _tensors_in(within)]


def _is_loss(part: Any) -> bool:
    """Tell whether a part is a scalar loss, or None in place of one."""
    return part is None or (isinstance(part, Tensor) and part.ndim == 0)


def _is_rows(part: Any) -> bool:
    """Tell whether a part has several columns for each sample, or is a map of one pixel."""
    if not isinstance(part, Tensor) or not part.is_floating_point() or part.ndim < 2:
        return False
    return part.shape[1] > 1 and all(size == 1 for size in part.shape[2:])


def _is_column(part: Tensor, samples: int) -> bool:
    """Tell whether a part has one number for each sample, as one logit for two classes has."""
    return part.is_floating_point() and 0 < part.ndim < 3 and part.shape[0] == part.numel() == samples


def _described(output: Any) -> str:
    """Name the shape of each part."""
    parts = (
        [(f"{name!r}: ", part) for name, part in output.items()]
        if isinstance(output, Mapping)
        else [("", part) for part in output]
    )
    shapes = [
        f"{name}{tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__}"
        for name, part in parts
    ]
    if len(shapes) > _SHOWN:
        shapes[_SHOWN:] = [f"... ({len(shapes)} in all)"]
    kind = "fields" if isinstance(output, Mapping) else "parts of shapes"
    return f"{kind} {', '.join(shapes)}"
