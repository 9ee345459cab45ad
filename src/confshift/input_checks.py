"""The checks of everything that users pass in, one array at a time."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from confshift import advice
from confshift.errors import ConfshiftError

_MAX_ID_LENGTH = 256
_HALF = ("float16", "bfloat16")


def _as_array(values: Any, name: str) -> tuple[NDArray[Any], str]:
    """Return an array, and the dtype of the values; tensors are known by their methods, not by import."""
    dtype = ""
    try:
        if hasattr(values, "detach") and hasattr(values, "cpu"):
            values = values.detach().cpu()
            if hasattr(values, "resolve_neg"):  # a view that only remembers its sign
                values = values.resolve_conj().resolve_neg()
            if "bfloat16" in str(values.dtype):
                values, dtype = values.float(), "bfloat16"
        if np.ma.is_masked(values):
            fill = f", or pass {name}.filled(np.nan), which counts them as unanswered"
            raise ConfshiftError(
                f"{name} has masked entries; leave those rows out{fill if values.dtype.kind == 'f' else ''}"
            )
        array = np.asarray(values)
    # A ragged list; a tensor that is sparse, of 8 bits, or of the meta device, without values.
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        labels = name in ("sample_ids", "groups")
        remedy = "one integer or text for each row" if labels else "a dense array of numbers"
        raise ConfshiftError(f"{name} can't be made an array ({reason}); pass {remedy}") from error
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array, dtype or array.dtype.name


def check_logits(
    logits: ArrayLike, name: str = "logits", *, targets: ArrayLike = ()
) -> tuple[NDArray[np.floating[Any]], str]:
    """Return the logits as rows of contiguous floats, equal to the bit, and the dtype they had.

    The targets are needed only for the advice on logits of another shape.
    """
    array, dtype = _as_array(logits, name)
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        remedy = _advice_on_one_output(array, name, _as_array(targets, "targets")[0], _flat(logits, name))
        raise ConfshiftError(f"{name} has shape {array.shape}, {remedy}")
    if array.ndim != 2:
        remedy = _advice_on_places(array.shape, name, _as_array(targets, "targets")[0].shape)
        raise ConfshiftError(
            f"{name} has shape {array.shape}, expected (N, K): one row per sample, one column per "
            f"class{remedy}"
        )
    if array.dtype.kind in "iu":
        exact = array.astype(np.float32)
        if not np.array_equal(exact.astype(np.float64), array.astype(np.float64)):
            raise ConfshiftError(
                f"{name} are {dtype}, which float32 can't hold exactly; pass them as float64"
            )
        array = exact
    if array.dtype not in (np.float16, np.float32, np.float64):
        raise ConfshiftError(f"{name} has dtype {dtype}; pass float16, float32 or float64")
    if array.shape[0] == 0:
        raise ConfshiftError(f"{name} has no rows: shape {array.shape}; pass at least one sample")
    if array.shape[1] < 2:
        raise ConfshiftError(f"{name} has shape {array.shape}: no columns; pass one for each class")
    # NaN and infinity pass: they are results for the user to see, not errors to repair.
    return np.ascontiguousarray(array), dtype


def _flat(values: Any, name: str) -> str:
    """Return the code that makes a flat array of an array, a list or a tensor."""
    if not hasattr(values, "detach"):
        return f"np.ravel({name})"
    cast = ".float()" if "bfloat16" in str(values.dtype) else ""
    return f"{name}.detach().cpu(){cast}.numpy().ravel()"


def _advice_on_one_output(values: NDArray[Any], name: str, targets: NDArray[Any], flat: str) -> str:
    if values.dtype.kind not in "fiub":
        return f"expected numbers of shape (N, K), one row per sample, not {values.dtype}"
    if values.ndim == 1 and targets.ndim == 1 and 0 < len(targets) < len(values):
        columns, rest = divmod(len(values), len(targets))
        if not rest:
            rows = f"{flat}.reshape({len(targets)}, {columns})"
            return f"for {len(targets)} targets; if these are the rows one after the other, pass {rows}"
    both = "np.column_stack([1 - p, p])"
    if name == "probabilities":
        return f"one for each sample; pass two columns: {both} with p = {flat}"
    return advice.on_one_output(
        values,
        logit=f"np.column_stack([-z / 2, z / 2]) with z = {flat}",
        probability=f"Predictions.from_probabilities({both}, targets) with p = {flat}",
    )


def _advice_on_places(shape: tuple[int, ...], name: str, targets: tuple[int, ...]) -> str:
    """Say how tokens or pixels become rows, where the targets' shape tells which axis holds the classes."""
    ways = [
        f"np.moveaxis(np.asarray({name}), {axis}, -1).reshape(-1, {shape[axis]})"
        for axis in advice.class_axes(shape, targets)
    ]
    if not ways:
        return f"; targets of shape {targets} do not say which axis holds the classes"
    either = " or, by which axis holds the classes, ".join(ways)
    shift = (
        f"; where the targets are the inputs of a model of the next token, take {name}[:, :-1] and "
        "targets[:, 1:] first"
        if len(shape) == 3
        else ""
    )
    grouped = "groups=np.repeat(np.arange(len(targets)), np.asarray(targets)[0].size)"
    return f"; tokens or pixels go in as rows: pass {either}, and np.ravel(targets), {grouped}{shift}"


def check_targets(targets: ArrayLike, logits: NDArray[Any], task: str = "multiclass") -> NDArray[np.int64]:
    """Return one class index per row of these logits; :func:`check_range` checks their range."""
    array, dtype = _as_array(targets, "targets")
    shape = logits.shape
    if array.ndim == 2 and array.shape == shape:
        raise ConfshiftError(
            f"targets has the shape of the logits, {shape}: {advice.on_label_arrays(array, logits, task)}"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) != shape[0]:
        raise ConfshiftError(f"targets has shape {array.shape}, expected ({shape[0]},): one index per row")
    if array.dtype.kind not in "iu":
        code = "targets.long()" if hasattr(targets, "detach") else "np.asarray(targets).astype(int)"
        numeric = array.dtype.kind in "bf"
        kind = advice.on_labels(array, code=code) if numeric else "pass the index of each true class"
        raise ConfshiftError(f"targets has dtype {dtype}: {kind}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and (array > np.iinfo(np.int64).max).any():
        code = "targets.long()" if hasattr(targets, "detach") else "np.asarray(targets).astype(np.int64)"
        raise ConfshiftError(
            f"targets go up to {array.max()}, for {shape[1]} classes; if they are negative numbers that "
            f"became unsigned, pass {code}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def check_range(
    targets: NDArray[np.int64], counted: NDArray[np.bool_], ids: NDArray[Any], classes: int
) -> None:
    """Refuse targets that are not a class of the logits, except in rows that are not counted."""
    if targets.min() >= 0 and targets.max() < classes:
        return
    outside = np.flatnonzero(counted & ((targets < 0) | (targets >= classes)))
    if len(outside):
        first = outside[0]
        ignored = None if counted.all() else int(targets[~counted][0])
        remedy = advice.on_range(targets[counted], classes, ignored)
        raise ConfshiftError(
            f"targets: {len(outside)} are outside 0..{classes - 1}, the first is {targets[first]} at sample "
            f"{ids[first]}; the logits have {classes} columns ({remedy})"
        )


def check_ids(ids: ArrayLike | None, samples: int, name: str = "sample_ids") -> NDArray[Any]:
    """Return one id per row, int64 or text; without ids, the rows' positions."""
    if ids is None:
        return np.arange(samples, dtype=np.int64)
    array, dtype = _as_array(ids, name)
    if array.shape != (samples,):
        raise ConfshiftError(f"{name} has shape {array.shape}, expected ({samples},): one per row")
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and array.dtype.itemsize == 8 and (array > np.iinfo(np.int64).max).any():
            raise ConfshiftError(f"{name} go up to {array.max()}, beyond 2**63 - 1; pass them as text")
        return np.ascontiguousarray(array, dtype=np.int64)
    return _check_text_ids(array, ids, dtype, name)


def _check_text_ids(array: NDArray[Any], original: ArrayLike, dtype: str, name: str) -> NDArray[Any]:
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise ConfshiftError(f"{name}: an id is not UTF-8 text ({error}); decode them") from error
    if array.dtype.kind not in "OTU":
        raise ConfshiftError(f"{name} has dtype {dtype}; pass integers or text")
    # A list is checked as it is: numpy would turn ["a", 1] into text.
    members = original if isinstance(original, (list, tuple)) else array.tolist()
    others = [member for member in members if not isinstance(member, (str, bytes))]
    if others:
        raise ConfshiftError(f"{name}: {others[0]!r} is not text; pass all integers or all text")
    array = array.astype(str)
    if array.dtype.itemsize // 4 > _MAX_ID_LENGTH:
        longest = max(array.tolist(), key=len)
        raise ConfshiftError(
            f"{name}: {longest[:40]!r}... has {len(longest)} characters; shorten it to {_MAX_ID_LENGTH}"
        )
    with_nul = [sample_id for sample_id in array.tolist() if "\0" in sample_id]
    if with_nul:
        raise ConfshiftError(f"{name}: {with_nul[0]!r} holds a NUL character; remove it")
    return np.ascontiguousarray(array)


def listed_names(class_names: Any) -> tuple[str, ...] | None:
    """Return class names of any ordered form as a tuple; None where they are not ordered text.

    A list, tuple, array or pandas Index of text; a mapping from every class index, 0 to K-1, to its name
    (Hugging Face's `id2label`). Not a set, which has no order, nor a string, whose letters are not names.
    """
    if isinstance(class_names, Mapping):
        by_index = {str(index): name for index, name in class_names.items()}
        class_names = [by_index.get(str(index)) for index in range(len(by_index))]
    elif not isinstance(class_names, Sequence) and callable(getattr(class_names, "tolist", None)):
        class_names = class_names.tolist()
    if not isinstance(class_names, list | tuple) or not all(isinstance(name, str) for name in class_names):
        return None
    return tuple(str(name) for name in class_names)


def check_names(class_names: Any, classes: int, each: str = "column of logits") -> tuple[str, ...]:
    """Return one name for each class, or each label; without names, the indices."""
    if class_names is None:
        return tuple(str(k) for k in range(classes))
    names = listed_names(class_names)
    if names is None:
        raise ConfshiftError(
            f"class_names={class_names!r}: pass a list of {classes} strings, or a dict from each index to one"
        )
    if len(names) != classes:
        raise ConfshiftError(f"class_names has {len(names)} names; pass {classes}, one per {each}")
    for place, name in enumerate(names):
        if not name.isascii() and name.encode("utf-8", "replace").decode("utf-8") != name:
            raise ConfshiftError(
                f"class_names[{place}]={name!r} can't be written as text (a file name in another encoding?); "
                "pass it decoded"
            )
    return names


def are_numbers(class_names: tuple[str, ...]) -> bool:
    """Tell whether class names are the default ones, the indices."""
    return all(name == str(k) for k, name in enumerate(class_names))


def as_number(value: Any) -> float:
    """Return a number of any type as a float; NaN where it is not a number, or beyond what a float holds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def sum_tolerance(dtype: str) -> float:
    """Return how far from 1 a row of probabilities of this dtype may sum."""
    return 1e-2 if dtype in _HALF else 1e-3


def refuse_probabilities(
    logits: NDArray[np.floating[Any]], counted: NDArray[np.bool_], dtype: str, task: str = "multiclass"
) -> None:
    """Refuse logits all of whose rows look like probabilities: no set of logits looks like that by chance.

    They are all at least 0 and all sum to 1 (or to 100), or are the pairs (0, p) with p in 0..1, which other
    tasks have of models with one output. Rows that are not counted or not finite tell nothing either way.
    """
    for part in (slice(64), slice(None)):  # a glance first, so that ordinary logits cost nothing
        rows = logits[part][counted[part]]
        rows = rows[np.isfinite(rows).all(axis=1)]
        kind = _kind_of_probabilities(rows, dtype) if len(rows) else ""
        if not kind:
            return
    if kind == _PAIRS and task != "multiclass":
        raise ConfshiftError(f"logits: {advice.ON_UNIT_OUTPUTS}")
    raise ConfshiftError(
        f"logits: {kind}. If they really are logits, subtract a constant from each row: that changes no "
        "result"
    )


_PAIRS = (
    "the first column is 0 and the second within 0..1 in every row, as if probabilities p had been "
    "passed as logits; pass np.column_stack([1 - p, p]) with p = logits[:, 1] to "
    "Predictions.from_probabilities(...), or to inspect torch.stack([1 - p, p], 1) as "
    "outputs='probabilities'"
)


def _kind_of_probabilities(rows: NDArray[np.floating[Any]], dtype: str) -> str:
    """Say what kind of probabilities all these rows are, and where to pass them; "" where they are not."""
    if rows.min() < 0:
        return ""
    with np.errstate(over="ignore"):
        sums = rows.sum(axis=1, dtype=np.float64)
    if (np.abs(sums - 1) <= sum_tolerance(dtype)).all():
        return (
            "no value is negative and every row sums to 1, so these are probabilities; pass them to "
            "Predictions.from_probabilities(...) or inspect(..., outputs='probabilities')"
        )
    if (np.abs(sums - 100) <= 100 * sum_tolerance(dtype)).all():
        return (
            "no value is negative and every row sums to 100, so these are percentages; pass logits / 100 to "
            "Predictions.from_probabilities(...) or as outputs='probabilities'"
        )
    second = rows[:, -1]
    if rows.shape[1] == 2 and not rows[:, 0].any() and second.max() <= 1 and len(np.unique(second)) > 2:
        return _PAIRS
    return ""
