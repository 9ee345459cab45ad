"""Checks: is evaluation repeatable and independent of the batch? Tried once, at a run's first checkpoint."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from confshift.collection.batches import Reader, fields_of, unwrapped
from confshift.collection.intake import Intake
from confshift.collection.interrupts import Interrupts
from confshift.collection.reading import Reading

_log = logging.getLogger("confshift")

#: Relative to the largest logit: another batch size means other kernels and another order of the sums.
_TOLERANCE = {torch.float16: 2e-2, torch.bfloat16: 1e-1}
_DEFAULT_TOLERANCE = 1e-4
_NAMES_SHOWN = 20
#: What a failed check means.
_FAILURES = {
    "modes": "some modules stay in training mode when the model is in eval mode",
    "repeatable": "in eval mode the same batch gives other logits the second time",
    "alone": "in eval mode the logits of a sample depend on the other samples of its batch",
    "own_loss": "the model's own loss of a batch is not the mean loss of its rows",
}
#: How far the model's own loss may be from the rows' mean, in nats.
_OWN_LOSS = 1e-3


def check_model(reader: Reader, batch: Any, intake: Intake | None = None) -> dict[str, dict[str, Any]]:
    """Try the model on one batch, in the eval mode that it is in.

    Parameters
    ----------
    reader : Reader
        Of the model under inspection; the checks try its uncompiled module.
    batch : Any
        As the loader gave it.
    intake : Intake, optional
        What reads the rows of the batch.

    Returns
    -------
    dict
        A JSON-able entry for each check, with a "status": "passed" or "failed"; "measured" where
        there is nothing to pass; "not made", with the "reason".

        - modes: every module is in eval mode ("modules": some that are not, "count": how many);
        - repeatable: the same batch twice gives the same logits ("difference": the largest, relative);
        - alone: one sample alone gives the logits it has within the batch ("difference", "tolerance");
        - head: the last Linear with one output per class ("module", "in_features", "out_features",
          "bias", "zero_weights", "mean_squared_norm": of its input, over the batch's samples);
        - buffers: a "hash" of the model's buffers, to be compared between processes;
        - own_loss, where the model returns a loss: it is the mean of the rows' ("own", "rows").
    """
    model = unwrapped(reader.model)
    plain = replace(reader, model=model)
    intake = intake or Intake(Reading())
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "modes": lambda: _modes(model),
        "repeatable": lambda: _repeatable(plain, batch),
        "alone": lambda: _alone(plain, batch),
        "head": lambda: _head(plain, batch, intake),
        "buffers": lambda: buffers_of(model),
        "own_loss": lambda: _own_loss(plain, batch, intake),
    }
    results = {}
    for name, check in checks.items():
        try:
            results[name] = check()
        except Exception as error:  # a failing check must not end the inspection
            results[name] = _not_made(f"{type(error).__name__}: {error}")
        if not results[name]:
            del results[name]
        elif results[name]["status"] == "failed":
            _log.warning(
                "check %r failed, so loss and accuracy may not be reproducible: %s: %s",
                name,
                _FAILURES[name],
                results[name],
            )
    return results


def _not_made(reason: str) -> dict[str, Any]:
    return {"status": "not made", "reason": reason}


def _verdict(passed: bool, **details: Any) -> dict[str, Any]:
    return {"status": "passed" if passed else "failed", **details}


def _modes(model: nn.Module) -> dict[str, Any]:
    names = [name or type(module).__name__ for name, module in model.named_modules() if module.training]
    return _verdict(not names, count=len(names), modules=names[:_NAMES_SHOWN])


def _repeatable(reader: Reader, batch: Any) -> dict[str, Any]:
    first, second = (reader.read(batch)[0].clone() for _ in range(2))
    difference = _difference(first, second)
    return _verdict(difference == 0, difference=_finite(difference))


def _alone(reader: Reader, batch: Any) -> dict[str, Any]:
    together = reader.read(batch)[0].clone()
    rows = len(together)
    if rows < 2:
        return _not_made("the first batch holds one sample")
    alone = reader.read(_first_sample(batch, rows)).logits
    if alone.shape != together[:1].shape:
        return _not_made(
            f"the first sample of the batch can't be evaluated alone: it gives {len(alone)} rows"
        )
    scale = together.float().nan_to_num(0, 0, 0).abs().max().item()
    difference = _difference(together[:1], alone, scale)
    tolerance = _TOLERANCE.get(together.dtype, _DEFAULT_TOLERANCE)
    return _verdict(difference <= tolerance, difference=_finite(difference), tolerance=tolerance)


def _first_sample(batch: Any, rows: int) -> Any:
    """Cut the first sample out of everything in a batch that has a row for each."""
    if isinstance(batch, Tensor):
        return batch[:1] if batch.ndim and len(batch) == rows else batch
    if isinstance(batch, list | tuple):
        if len(batch) == rows and not any(isinstance(part, Tensor) for part in batch):
            return batch[:1]
        parts = [_first_sample(part, rows) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    fields: Mapping[str, Any] | None = fields_of(batch)
    return batch if fields is None else {name: _first_sample(part, rows) for name, part in fields.items()}


def _difference(first: Tensor, second: Tensor, scale: float | None = None) -> float:
    """Return the largest difference, relative to `scale`; equal infinities and two NaN do not differ."""
    a, b = first.double(), second.double()
    if scale is None:
        scale = a.nan_to_num(0, 0, 0).abs().max().item()
    same = (a == b) | (a.isnan() & b.isnan())
    largest = torch.where(same, 0.0, (a - b).abs()).max().item()
    return largest / scale if scale > 0 else largest


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _own_loss(reader: Reader, batch: Any, intake: Intake) -> dict[str, Any]:
    """Compare the loss that the model returns with the rows' mean; nothing where it returns none."""
    answer = replace(reader, passes_labels=True).read(batch)
    if answer.loss is None:
        return {}
    rows = intake.unfolded(intake.read(answer.logits, answer.targets, answer.source))
    logits = rows.logits.double()
    if intake.reading.outputs == "probabilities":
        logits = logits.log()
    mean = functional.cross_entropy(logits, rows.targets.to(logits.device)).item()
    own = answer.loss.double().item()
    tolerance = _OWN_LOSS + torch.finfo(answer.loss.dtype).eps * abs(own)
    return _verdict(abs(own - mean) <= tolerance, own=_finite(own), rows=_finite(mean))


def _head(reader: Reader, batch: Any, intake: Intake) -> dict[str, Any]:
    """Watch the Linear layers for one batch; the last one with an output for each class is the head."""
    calls: list[tuple[str, nn.Linear, Tensor]] = []

    def watch(name: str) -> Callable[..., None]:
        return lambda module, inputs: calls.append((name, module, inputs[0]))

    linears = [
        (name, module) for name, module in reader.model.named_modules() if isinstance(module, nn.Linear)
    ]
    with Interrupts() as interrupts:  # no hook must stay behind
        hooks = [module.register_forward_pre_hook(watch(name)) for name, module in linears]
        try:
            with interrupts.delivered():
                answer = reader.read(batch)
        finally:
            for hook in hooks:
                hook.remove()
    classes = intake.read(answer.logits, answer.targets, answer.source).outputs
    heads = [call for call in calls if call[1].out_features == classes]
    if not heads:
        return _not_made(f"no nn.Linear with {classes} outputs was called")
    name, head, features = heads[-1]
    weights = [head.weight] if head.bias is None else [head.weight, head.bias]
    return {
        "status": "measured",
        "module": name,
        "in_features": head.in_features,
        "out_features": head.out_features,
        "bias": head.bias is not None,
        "zero_weights": not any(bool(weight.any()) for weight in weights),
        "mean_squared_norm": _finite(features.double().square().sum(dim=-1).mean().item()),
    }


def buffers_of(model: nn.Module) -> dict[str, Any]:
    """Return a hash of a model's buffers, to be compared between processes."""
    digest = hashlib.blake2b(digest_size=16)
    count = 0
    for name, buffer in model.named_buffers():
        count += 1
        digest.update(f"{name} {buffer.dtype} {tuple(buffer.shape)}".encode())
        digest.update(buffer.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {"status": "measured", "count": count, "hash": digest.hexdigest()}
