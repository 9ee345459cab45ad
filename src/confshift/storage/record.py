"""The record of a checkpoint: a small JSON file that names its data files; with it the checkpoint exists."""

from __future__ import annotations

import hashlib
import math
import operator
import re
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from confshift.checkpoint import Provenance
from confshift.errors import ConfshiftError
from confshift.measurement import LEFT_OUT, MEASURED
from confshift.predictions import ID_SOURCES
from confshift.storage.arrays import StoredFile
from confshift.storage.signed_json import SCHEMA, check_schema, decode, encode, readable
from confshift.tasks import TASKS

#: The forms logits are stored in, and numpy's name of each. bfloat16 is stored as its 16 bits.
LOGITS = MappingProxyType({"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"})

#: The fields that a record must have, and their types: a checksum proves nothing, as anyone can make one.
_NUMBER = (int, float)
_TYPES = MappingProxyType(
    {
        **dict.fromkeys(("split", "fingerprint", "id_source", "source_dtype", "writer", "written"), (str,)),
        **dict.fromkeys(("epoch", "beta", "joint_beta"), _NUMBER),
        **dict.fromkeys(("sequence", "generation", "ignored_samples", "duplicate_samples"), (int,)),
        **dict.fromkeys(("metadata", "versions", "logged", "checks"), (dict,)),
        **dict.fromkeys(("gaps", "shards", "biases"), (list,)),
    }
)
#: What records of schema 1 lack: their fit of temperature and biases is made from the logits.
_SINCE_2 = MappingProxyType({"joint_beta": 0.0, "biases": []})
#: Columns that may come last, in this order, without a new schema: the loss against equal probabilities (what
#: label smoothing adds), which this version does not write, and the sample's group: a number, or the place of
#: its name among the shard's `group_names`, where there are any.
_LATER = (("uniform_loss", "<f8"), ("group", "<i4"))
_GAP_TYPES = MappingProxyType({"split": (str,), "epoch": _NUMBER, "reason": (str,)})
_FILE_TYPES = MappingProxyType(
    {
        "name": (str,),
        "dtype": (str, list),
        **dict.fromkeys(("size", "offset", "header_crc"), (int,)),
        **dict.fromkeys(("shape", "crcs"), (list,)),
    }
)
#: What came later and is written into the shard, in which older versions skip what they do not know.
_OF_ROWS = ("task", "label_names", "total_rows")
_ROWS_TYPES = MappingProxyType(
    {"task": (str,), "label_names": (list,), "group_names": (list,), "total_rows": (int,)}
)
_PROVENANCE = tuple(field.name for field in fields(Provenance))
_MAX_TEXT = 256
_MAX_COUNT, _MAX_INT = 1 << 62, 1 << 63

_DATA_NAME = re.compile(r"[0-9]{6,12}-[0-9a-f]{32}\.(logits|columns)\.npy")
_ID_FORMAT = re.compile(r"<i8|\|S[1-9][0-9]{0,3}")


@dataclass(frozen=True)
class Shard:
    """The files that one rank wrote."""

    rank: int
    encoding: str  # a key of LOGITS
    logits: StoredFile
    columns: StoredFile
    group_names: tuple[
        Any, ...
    ] = ()  # ascending, text or numbers; none where the column itself has the group


@dataclass(frozen=True)
class FailedSave:
    """A checkpoint that could not be saved."""

    split: str
    epoch: float
    reason: str


@dataclass(frozen=True)
class Record:
    """Everything known about a checkpoint, except its arrays. The field names are those in the file."""

    split: str
    epoch: float
    fingerprint: str  # of the sorted (id, target) pairs
    provenance: Provenance
    metadata: Mapping[str, Any]
    beta: float = 1.0  # where the curve_* columns were evaluated
    joint_beta: float = 0.0  # 1/T of the fit of temperature and biases; of no meaning without biases
    biases: tuple[float, ...] = ()  # by class; none where biases take no part
    sequence: int = 0  # the number in the record's file name; the highest one of an epoch counts
    generation: int = 0  # how often this epoch was replaced
    gaps: tuple[FailedSave, ...] = ()  # saves that failed since the previous record
    shards: tuple[Shard, ...] = ()

    @property
    def name(self) -> str:
        """The record's file name."""
        return f"{self.sequence:06d}.json"

    @cached_property
    def digest(self) -> str:
        """A digest of the whole record, with the checksums of its files."""
        return hashlib.blake2b(self.to_bytes(), digest_size=16).hexdigest()

    @property
    def holds_left_out(self) -> bool:
        """Whether the columns file has the left-out losses: since schema 2."""
        return "scaled_loss" in (self.shards[0].columns.layout.names or ())

    @property
    def holds_groups(self) -> bool:
        """Whether the columns file says which rows err together."""
        return "group" in (self.shards[0].columns.layout.names or ())

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The data files that it names."""
        return tuple(stored for shard in self.shards for stored in (shard.columns, shard.logits))

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        content = asdict(self)
        provenance = content.pop("provenance")
        rows = {name: provenance.pop(name) for name in _OF_ROWS}
        for shard in content["shards"]:
            shard["rows"] = {**rows, "group_names": shard.pop("group_names")}
        return encode(provenance | content)


def read_record(raw: bytes, path: Path, classes: int | None = None) -> Record:
    """Return the record in a file's bytes, after checking every field but the content of the notes.

    Parameters
    ----------
    raw : bytes
    path : Path
        The file's path.
    classes : int, optional
        The run's number of classes; without it the record may have any.

    Raises
    ------
    ConfshiftError
        Where the file is damaged, hostile or of a newer schema.
    """
    content = decode(raw, path)
    check_schema(content, path)
    schema = content.pop("schema")
    try:
        record = _read(content if schema > 1 else {**content, **_SINCE_2})
        wrong = _contradiction(record, path, classes, schema)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfshiftError(f"{path} is damaged: {type(error).__name__} {readable(str(error))}") from error
    if wrong:
        raise ConfshiftError(f"{path} is refused: {readable(wrong)}")
    return record


def _read(content: dict[str, Any]) -> Record:
    _check_types(content, _TYPES)
    epoch, beta, joint_beta = (float(content.pop(name)) for name in ("epoch", "beta", "joint_beta"))
    biases = tuple(content.pop("biases"))
    if any(type(bias) not in _NUMBER for bias in biases):
        raise TypeError(f"biases are {reprlib.repr(biases)}")
    stored = content.pop("shards")
    of_rows = [_read_rows(shard.get("rows", {})) for shard in stored]
    shards = tuple(
        _read_shard(shard, rows.pop("group_names")) for shard, rows in zip(stored, of_rows, strict=True)
    )
    gaps = tuple(_read_gap(gap) for gap in content.pop("gaps"))
    known = {name: content.pop(name) for name in _PROVENANCE if name not in _OF_ROWS}
    provenance = Provenance(**known, **(of_rows[0] if of_rows else {}))
    fitted: dict[str, Any] = {"beta": beta, "joint_beta": joint_beta, "biases": biases}
    return Record(shards=shards, gaps=gaps, provenance=provenance, epoch=epoch, **fitted, **content)


def _check_types(content: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    """Refuse another type, an absurd number, and text that is long or not Unicode."""
    for name, allowed in types.items():
        value = content[name]
        if type(value) not in allowed:  # a bool is not a number here
            raise TypeError(f"{name} is {reprlib.repr(value)}")
        if type(value) is int and not 0 <= value < _MAX_COUNT:
            raise ValueError(f"{name} is {reprlib.repr(value)}")
        if type(value) is str and name != "reason" and (len(value) > _MAX_TEXT or readable(value) != value):
            raise ValueError(f"{name} is {reprlib.repr(value)}")


def _read_gap(content: dict[str, Any]) -> FailedSave:
    _check_types(content, _GAP_TYPES)
    gap = FailedSave(**content)
    if not (math.isfinite(gap.epoch) and gap.epoch >= 0):
        raise ValueError(f"a gap at epoch {gap.epoch}")
    return FailedSave(gap.split, float(gap.epoch), readable(gap.reason))


def _read_rows(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a shard says about its rows; checkpoints from before there were tasks say nothing."""
    content = {"task": "multiclass", "label_names": [], "group_names": [], "total_rows": 0, **content}
    _check_types(content, _ROWS_TYPES)
    names = {name: tuple(content[name]) for name in ("label_names", "group_names")}
    for name, kinds in (("label_names", [str]), ("group_names", [str, int])):
        if not any(all(type(one) is kind for one in names[name]) for kind in kinds):
            raise TypeError(f"{name} are {reprlib.repr(names[name])}")
        if not all(map(_is_name, names[name])):
            raise ValueError(f"{name} are {reprlib.repr(names[name])}")
    return {name: content[name] for name in ("task", "total_rows")} | names


def _is_name(name: str | int) -> bool:
    """Tell whether an array of 64-bit numbers or text can hold a name."""
    if isinstance(name, int):
        return -_MAX_INT <= name < _MAX_INT
    return len(name) <= _MAX_TEXT and "\0" not in name and readable(name) == name


def _read_shard(content: dict[str, Any], group_names: tuple[Any, ...]) -> Shard:
    _check_types(content, {"rank": (int,), "encoding": (str,)})
    logits, columns = (_read_file(content[name]) for name in ("logits", "columns"))
    return Shard(content["rank"], content["encoding"], logits, columns, group_names)


def _read_file(content: dict[str, Any]) -> StoredFile:
    _check_types(content, _FILE_TYPES)
    stored = StoredFile(**{**content, "shape": tuple(content["shape"]), "crcs": tuple(content["crcs"])})
    if not _DATA_NAME.fullmatch(stored.name):
        raise ValueError(f"{stored.name!r} is not the name of a data file")
    if any(type(number) is not int or number < 0 for number in (*stored.shape, *stored.crcs)):
        raise ValueError(f"{stored.name}: sizes must be whole numbers")
    return stored


def _contradiction(record: Record, path: Path, classes: int | None, schema: int) -> str:
    """Say what in a record is impossible; "" if nothing is."""
    if record.split != path.parent.name or record.name != path.name:
        return f"it says it is {record.split}/{record.name}"
    numbers = (record.epoch, record.beta, record.joint_beta)
    if not all(math.isfinite(number) and number >= 0 for number in numbers):
        return f"epoch {record.epoch}, beta {record.beta}, joint_beta {record.joint_beta}"
    if record.provenance.id_source not in ID_SOURCES:
        return f"its samples were matched by {record.provenance.id_source!r}"
    if not all(type(version) is str for version in record.provenance.versions.values()):
        return "its versions are not text"
    if len(record.shards) != 1:
        return f"it has {len(record.shards)} shards; this version reads one"
    shard = record.shards[0]
    (samples,), columns = shard.columns.shape, shard.logits.shape[-1]
    if shard.logits.shape != (samples, columns) or not samples or columns < 2:
        return f"logits {shard.logits.shape} and columns {shard.columns.shape}"
    if columns != (columns if classes is None else classes):
        return f"its logits have {columns} columns, and the run has {classes} classes"
    if LOGITS.get(shard.encoding) != shard.logits.dtype:
        return f"logits stored as {shard.logits.dtype!r}, called {shard.encoding!r}"
    if len(record.biases) not in (0, columns) or not all(map(math.isfinite, record.biases)):
        return f"it has {len(record.biases)} biases for {columns} classes"
    id_format, later = shard.columns.dtype[0][1], shard.columns.dtype[-len(_LATER) :]
    extra = [list(column) for column in _LATER if schema > 1 and list(column) in later]
    if not _ID_FORMAT.fullmatch(id_format) or shard.columns.dtype != _described(id_format, schema) + extra:
        return "its columns are not those of this schema"
    return _contradiction_of_rows(record, samples, columns)


def _contradiction_of_rows(record: Record, samples: int, classes: int) -> str:
    """Say what is impossible about what the rows are; "" if nothing is."""
    task, names = record.provenance.task, record.shards[0].group_names
    total = record.provenance.total_rows
    if task not in TASKS or (task in ("binary", "multilabel") and classes != 2):
        return f"its task is {task!r}, with {classes} classes"
    if record.provenance.label_names and task != "multilabel":
        return f"it names labels, and its task is {task!r}"
    if total and total < samples:
        return f"it has {samples} rows of {total}"
    if names and not (record.holds_groups and all(map(operator.lt, names, names[1:]))):
        return "its names of groups are not those of its rows"
    return ""


def columns_dtype(id_format: str, *, schema: int = SCHEMA, groups: bool = False) -> np.dtype[Any]:
    """Return the dtype of the columns file: the sample's id ("<i8" or "|S<n>"), then the measured values."""
    measured = MEASURED.descr if schema == 1 else [*MEASURED.descr, *LEFT_OUT.descr]
    return np.dtype([("sample_id", id_format), *measured, *(_LATER[1:] if groups else ())])


@lru_cache(maxsize=64)
def _described(id_format: str, schema: int) -> list[list[Any]]:
    return [[*entry] for entry in columns_dtype(id_format, schema=schema).descr]
