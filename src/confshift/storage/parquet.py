"""Predictions in a Parquet file that another program wrote, or `confshift export --logits`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.storage.memory import check_room
from confshift.storage.reading import open_plain

#: The columns that may have the targets, in order of preference, and what else is read.
_TARGETS = ("target", "targets", "label", "labels", "label_ids")
_OTHERS = {"sample_id": "sample_ids", "group": "groups"}
#: What a list column of outputs is called, and how the names of single columns begin.
_OUTPUTS = {"logits": "logit_", "probabilities": "probability_"}
#: Reading a table takes its own size and that of copies.
_COPIES = 4
_FORM = "a list column `logits` or columns logit_0, logit_1, ..., and a column `target`"


def read_parquet(path: Path) -> Predictions:
    """Read outputs (N, K), targets (N,) and, where they are there, sample ids and groups.

    The columns: `target`; `logits`, a list of K numbers, or `logit_0` to `logit_<K-1>`, or `logit_<name>` for
    each class, in the order of the classes; instead of logits `probabilities` or `probability_...`;
    `sample_id`; `group`. Others are ignored. An exported file says its task and the names of its classes.

    Raises
    ------
    ConfshiftError
        Where pyarrow is missing, or the file can't be read, would take more memory than is free, lacks a
        column, has nulls in one or the rows of several epochs, or its columns can't be used.
    """
    pyarrow = import_pyarrow()
    with open_plain(path, follow=True) as stream:
        try:
            file = pyarrow.parquet.ParquetFile(stream)
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            check_room(path, _COPIES * sum(group.total_byte_size for group in groups))
            names = file.schema_arrow.names
            table = file.read(columns=[name for name in names if _is_read(name)])
        except ConfshiftError:
            raise
        except Exception as error:  # anyone's file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfshiftError(f"{path} can't be read as Parquet ({reason}); write it anew") from error
    _refuse_epochs(path, table)
    kind, outputs, class_names = _outputs(path, table, names)
    target = next((name for name in _TARGETS if name in table.column_names), None)
    if target is None:
        raise ConfshiftError(f"{path} has no column `target`; it must have {_FORM}")
    options: dict[str, Any] = {
        _OTHERS[name]: _column(path, table, name) for name in _OTHERS if name in table.column_names
    }
    options |= {"class_names": class_names} | _about(path, file.schema_arrow.metadata)
    make = Predictions if kind == "logits" else Predictions.from_probabilities
    return make(outputs, _column(path, table, target), **options)


def import_pyarrow(use: str = "read") -> Any:
    """Return pyarrow, or say which extra it comes with; `use` is what it does with Parquet."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ConfshiftError(
            f"Parquet is {use} by pyarrow, which is not installed: pip install 'confshift[parquet]'"
        ) from error
    return pyarrow


def _is_read(name: str) -> bool:
    prefixes = tuple(_OUTPUTS.values())
    return name in (*_TARGETS, *_OTHERS, *_OUTPUTS, "epoch") or name.startswith(prefixes)


def _refuse_epochs(path: Path, table: Any) -> None:
    """Refuse a table of several epochs: as one, each sample would be there several times."""
    if "epoch" in table.column_names and (count := len(table["epoch"].unique())) > 1:
        raise ConfshiftError(
            f"{path} has rows of {count} epochs; write a file for each, epoch_1.parquet, epoch_2.parquet, "
            "..., and pass their folder"
        )


def _column(path: Path, table: Any, name: str) -> NDArray[Any]:
    types = import_pyarrow().types
    column = table[name]
    if column.null_count:
        raise ConfshiftError(
            f"{path}: {column.null_count} of {len(column)} rows have no {name}; fill them in"
        )
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type) or types.is_large_string(column.type):
        return np.array(column.to_pylist(), np.str_)
    values: NDArray[Any] = column.to_numpy()
    return values


def _from_lists(path: Path, column: Any, name: str) -> NDArray[Any]:
    """Return a column of lists as rows; refuse lists of different lengths and missing numbers."""
    import pyarrow.compute

    types = pyarrow.types
    if not any(
        is_one(column.type) for is_one in (types.is_list, types.is_large_list, types.is_fixed_size_list)
    ):
        raise ConfshiftError(
            f"{path}: {name} is a column of {column.type}, not of lists; it must have {_FORM}"
        )
    lengths = pyarrow.compute.list_value_length(column).unique().to_pylist()
    if len(lengths) != 1 or lengths[0] is None:
        raise ConfshiftError(
            f"{path}: the lists of {name} have {len(lengths)} different lengths; each must have a number for "
            "every class"
        )
    flat = pyarrow.compute.list_flatten(column)
    if flat.null_count:
        raise ConfshiftError(f"{path}: {flat.null_count} numbers of {name} are missing; fill them in")
    rows: NDArray[Any] = flat.to_numpy().reshape(len(column), lengths[0])
    return rows


def _outputs(path: Path, table: Any, names: list[str]) -> tuple[str, NDArray[Any], list[str] | None]:
    """Return the kind of outputs, the outputs (N, K), and the classes' names if the columns have them."""
    found = {
        kind: [name for name in names if name.startswith(prefix)]
        for kind, prefix in _OUTPUTS.items()
        if kind in names or any(name.startswith(prefix) for name in names)
    }
    if len(found) != 1:
        both = "both logits and probabilities" if found else "neither logits nor probabilities"
        raise ConfshiftError(f"{path} has {both}; it must have {_FORM}")
    ((kind, columns),) = found.items()
    if kind in names:
        return kind, _from_lists(path, table[kind], kind), None
    prefix = _OUTPUTS[kind]
    ends = [name.removeprefix(prefix) for name in columns]
    class_names: list[str] | None = ends
    if all(re.fullmatch(r"[0-9]+", end) for end in ends):
        columns.sort(key=lambda name: int(name.removeprefix(prefix)))
        expected = [f"{prefix}{number}" for number in range(len(columns))]
        if columns != expected:
            raise ConfshiftError(
                f"{path} has the columns {', '.join(columns[:5])}, ...; name them {prefix}0 to "
                f"{prefix}{len(columns) - 1}, in the order of the classes"
            )
        class_names = None
    return kind, np.column_stack([_column(path, table, name) for name in columns]), class_names


def _about(path: Path, metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """Return what a file of ours says about its rows."""
    if b"confshift" not in (metadata or {}):
        return {}
    try:
        about = json.loads((metadata or {})[b"confshift"])
        return {name: about[name] for name in ("class_names", "label_names", "task") if about.get(name)}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfshiftError(
            f"{path} can't be read: what confshift wrote about its rows is damaged; export it anew"
        ) from error
