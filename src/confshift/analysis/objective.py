"""The loss that is trained: what each class weighs in its mean, and how far its labels are smoothed."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.input_checks import as_number
from confshift.scoring import blocks

#: Uniform losses of up to so many samples are kept, half a MiB a checkpoint; more would fill the memory.
_KEPT = 1 << 16
#: Those of checkpoints that are still in use: they take a pass over the logits.
_uniform: WeakKeyDictionary[Checkpoint, dict[bytes, NDArray[np.float64]]] = WeakKeyDictionary()
#: How the classes of a loss are weighed, as a caller says it.
ClassWeight = Literal["stored", "balanced"] | Mapping[Any, float] | Sequence[float] | NDArray[Any] | None
#: How far labels are smoothed, as a caller says it.
Smoothing = Literal["stored"] | float


@dataclass(frozen=True, eq=False)
class Objective:
    """What is trained beside the plain cross-entropy.

    Attributes
    ----------
    class_weights : ndarray, shape (K,), or None
        None where all classes weigh the same.
    smoothing : float
        The label smoothing of `torch.nn.CrossEntropyLoss`; 0 where there is none.
    doubt : str
        Why what the checkpoints store is not used; "" where it is, or nothing is stored.
    """

    class_weights: NDArray[np.float64] | None = None
    smoothing: float = 0.0
    doubt: str = ""

    def __bool__(self) -> bool:
        return self.class_weights is not None or self.smoothing > 0

    def same_as(self, other: Objective) -> bool:
        """Tell whether another one is the same loss: weights that differ by a factor are."""
        if self.smoothing != other.smoothing:
            return False
        one, two = self.class_weights, other.class_weights
        if one is None or two is None:
            return one is two
        return len(one) == len(two) and np.allclose(one / one.sum(), two / two.sum(), rtol=1e-6, atol=0)


#: The mean cross-entropy.
PLAIN = Objective()


def objective_of(
    checkpoints: Sequence[Checkpoint],
    names: tuple[str, ...],
    targets: NDArray[np.integer[Any]],
    class_weight: ClassWeight,
    label_smoothing: Smoothing,
) -> Objective:
    """Return the loss that is trained, from what a caller says, or from what the checkpoints store.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
    names : tuple of str
        Of the K classes.
    targets : ndarray, shape (N,)
    class_weight : "stored", "balanced", mapping, sequence or None
        "stored": `metadata["class_weights"]`, where all the checkpoints agree. "balanced": N / (K n_k) for a
        class with n_k samples, as in scikit-learn. A weight for each class by its name or index, or in their
        order. None: all weigh the same.
    label_smoothing : "stored" or float
        "stored": `metadata["label_smoothing"]`, where all the checkpoints agree.

    Raises
    ------
    ConfshiftError
        Where a weight is not a number of at least 0, a class is missing or unknown, no sample has any weight,
        or the smoothing is not a number from 0 to 1.
    """
    doubts = []
    if isinstance(class_weight, str) and class_weight == "stored":
        weights, doubt = _stored_weights(checkpoints, names)
        doubts.append(doubt)
        if weights is not None and not weights[targets].any():
            weights = None
            doubts.append("metadata['class_weights'] gives no sample any weight: losses are not weighted")
    else:
        weights = _given(class_weight, names, targets)
    if isinstance(label_smoothing, str) and label_smoothing == "stored":
        smoothing, doubt = _stored_smoothing(checkpoints)
        doubts.append(doubt)
    else:
        smoothing = _smoothing(label_smoothing)
    if weights is not None and (weights == weights[0]).all():
        weights = None  # so that equal weights change no bit
    return Objective(weights, smoothing, "; ".join(filter(None, doubts)))


def _stored_weights(
    checkpoints: Sequence[Checkpoint], names: tuple[str, ...]
) -> tuple[NDArray[np.float64] | None, str]:
    """Return the weights on which the checkpoints agree, and why there are none."""
    stored = [checkpoint.metadata.get("class_weights") for checkpoint in checkpoints]
    if all(one is None for one in stored):
        return None, ""
    read = [given_weights(checkpoint.metadata, names) for checkpoint in checkpoints]
    if any(one is None and value is not None for one, value in zip(read, stored, strict=True)):
        return None, "metadata['class_weights'] can't be read: losses are not weighted"
    first = read[0]
    if first is None or not all(one is not None and np.allclose(one, first, rtol=1e-6) for one in read):
        return None, "metadata['class_weights'] differ between checkpoints: losses are not weighted"
    return first, ""


def _stored_smoothing(checkpoints: Sequence[Checkpoint]) -> tuple[float, str]:
    stored = [checkpoint.metadata.get("label_smoothing") for checkpoint in checkpoints]
    if all(one is None for one in stored):
        return 0.0, ""
    values = [as_number(one) for one in stored]
    if not (0 <= values[0] <= 1 and set(values) == {values[0]}):
        return 0.0, (
            "metadata['label_smoothing'] is not one number from 0 to 1 for all checkpoints: it is left out"
        )
    return values[0], ""


def given_weights(metadata: Mapping[str, Any], names: tuple[str, ...]) -> NDArray[np.float64] | None:
    """Return `metadata["class_weights"]`, a number for each class; None where it can't be read as that.

    It may be a list, also of one row or one column, or a dict by the classes' names or indices.
    """
    value: Any = metadata.get("class_weights")
    if isinstance(value, dict):
        by_name = [value.get(name) for name in names]
        value = [value.get(str(index)) for index in range(len(names))] if None in by_name else by_name
    elif isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    elif isinstance(value, list | tuple) and all(isinstance(item, list) and len(item) == 1 for item in value):
        value = [item[0] for item in value]
    if not isinstance(value, list | tuple) or len(value) != len(names):
        return None
    weights = np.array([as_number(item) for item in value])
    return weights if np.isfinite(weights).all() and (weights >= 0).all() and weights.any() else None


def _given(
    class_weight: Any, names: tuple[str, ...], targets: NDArray[np.integer[Any]]
) -> NDArray[np.float64] | None:
    """Return the weights that a caller says, checked."""
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ConfshiftError(
                f'class_weight={class_weight!r}: pass "stored", "balanced", a weight for each class by its '
                "name or in their order, or None"
            )
        counts = np.bincount(targets, minlength=len(names))
        return np.where(counts > 0, len(targets) / (len(names) * np.maximum(counts, 1)), 0.0)
    if hasattr(class_weight, "tolist"):  # an array, or a tensor on any device
        class_weight = class_weight.tolist()
    if isinstance(class_weight, Mapping):
        class_weight = _in_order(class_weight, names)
    if not isinstance(class_weight, Sequence) or len(class_weight) != len(names):
        found = f"{len(class_weight)} weights" if isinstance(class_weight, Sequence) else repr(class_weight)
        raise ConfshiftError(f"class_weight has {found}; pass one for each of the {len(names)} classes")
    weights = np.array([as_number(weight) for weight in class_weight])
    for name, value, weight in zip(names, class_weight, weights, strict=True):
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfshiftError(
                f"class_weight of class {name!r} is {reprlib.repr(value)}; pass a finite number of at least 0"
            )
    if not weights[targets].any():
        raise ConfshiftError(
            "class_weight is 0 for every class that has samples; give some of these a weight"
        )
    return weights


def _in_order(by_class: Mapping[Any, Any], names: tuple[str, ...]) -> list[Any]:
    """Return the weights of a mapping in the order of the classes; names come before indices."""
    places: dict[Any, int] = {spelt: at for at in range(len(names)) for spelt in (at, str(at))}
    places |= {name: at for at, name in enumerate(names)}
    weights: dict[int, Any] = {}
    for key, weight in by_class.items():
        if key not in places:
            raise ConfshiftError(
                f"class_weight names a class {key!r}; the classes are {reprlib.repr(list(names))}, and their "
                "numbers count from 0"
            )
        weights[places[key]] = weight
    for place, name in enumerate(names):
        if place not in weights:
            raise ConfshiftError(
                f"class_weight has no weight for class {name!r}; add it, 1 where the class is to count as it "
                "is"
            )
    return [weights[place] for place in range(len(names))]


def _smoothing(value: Any) -> float:
    number = as_number(value)
    if not 0 <= number <= 1:
        raise ConfshiftError(f"label_smoothing={value!r} is not a number from 0 to 1; pass 0 for none")
    return number


def uniform_losses(
    checkpoint: Checkpoint, class_weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the mean of the classes' −log p in nats, each times its weight, shape (N,). Reads the logits.

    Infinite where a class with weight has a probability of 0.
    """
    known = _uniform.setdefault(checkpoint, {})
    key = b"" if class_weights is None else class_weights.tobytes()
    if key not in known:
        predictions = checkpoint.predictions
        classes = len(checkpoint.class_names)
        weights = np.ones(classes) if class_weights is None else class_weights
        counted, losses = weights > 0, np.empty(len(predictions.targets))
        for block in blocks(predictions.logits, predictions.targets):
            log_sum = np.log(np.exp(block.below_top).sum(axis=block.axis))
            below = block.below_top.compress(counted, axis=block.axis)
            inner = np.tensordot(below, weights[counted], axes=(block.axis, 0))
            losses[block.rows] = (weights.sum() * log_sum - inner) / classes
        if len(losses) > _KEPT:
            return losses
        known[key] = losses
    return known[key]
