"""The record of a checkpoint: a small JSON file that names the others; with it the checkpoint exists."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from confshift.checkpoint import MEASURED, Provenance
from confshift.errors import ConfshiftError
from confshift.storage.arrays import StoredFile

__all__ = [
    "LOGITS",
    "MAX_JSON",
    "SCHEMA",
    "Gap",
    "Record",
    "Shard",
    "columns_dtype",
    "decode",
    "encode",
    "plain",
    "read_record",
]

#: The version of what is written. Older ones are read for ever.
SCHEMA = 1

#: The forms logits are stored in, and numpy's name of each. bfloat16 is kept as its 16 bits.
LOGITS = MappingProxyType({"float16": "<f2", "float32": "<f4", "float64": "<f8", "bfloat16": "<u2"})

#: No JSON file of a run has more bytes.
MAX_JSON = 1 << 26

_MAX_NOTES = 1 << 24
_DATA_NAME = re.compile(r"[0-9]{6,12}-[0-9a-f]{32}\.(logits|columns)\.npy")
_ID_FORMAT = re.compile(r"<i8|\|S[1-9][0-9]{0,3}")
_OPENING, _CLOSING = b'{"content": ', b', "checksum": "%s"}\n'


@dataclass(frozen=True)
class Shard:
    """The files that one rank wrote."""

    rank: int
    encoding: str  # a key of LOGITS
    logits: StoredFile
    columns: StoredFile


@dataclass(frozen=True)
class Gap:
    """A checkpoint that could not be saved."""

    split: str
    epoch: float
    reason: str


@dataclass(frozen=True)
class Record:
    """Everything known of a checkpoint but its arrays. The field names are those in the file."""

    split: str
    epoch: float
    fingerprint: str  # of the sorted (id, target) pairs
    provenance: Provenance
    metadata: Mapping[str, Any]
    beta: float = 1.0  # where the curve_* columns were evaluated
    sequence: int = 0  # the number in the record's file name; the highest one of an epoch counts
    generation: int = 0  # how often this epoch was replaced
    gaps: tuple[Gap, ...] = ()  # saves that failed since the record before
    shards: tuple[Shard, ...] = ()

    @property
    def name(self) -> str:
        """The record's file name."""
        return f"{self.sequence:06d}.json"

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The data files it names."""
        return tuple(stored for shard in self.shards for stored in (shard.columns, shard.logits))

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        content = asdict(self)
        return encode(content.pop("provenance") | content)


def encode(content: Mapping[str, Any]) -> bytes:
    """Return a JSON file that carries its schema and a checksum of its own bytes.

    NaN and infinity are written as Python writes them (a diverged training logs them).
    """
    body = json.dumps({"schema": SCHEMA, **content}).encode("ascii")
    return _OPENING + body + _CLOSING % _checksum(body)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).hexdigest().encode("ascii")


def decode(raw: bytes, path: Path) -> dict[str, Any]:
    """Return the content of a file that :func:`encode` made.

    Raises
    ------
    ConfshiftError
        Where a byte changed, or where a newer confshift wrote it.
    """
    body = raw[len(_OPENING) : -len(_CLOSING % _checksum(b""))]
    if raw != _OPENING + body + _CLOSING % _checksum(body):
        raise ConfshiftError(f"{path} is damaged: it does not match its own checksum")
    try:
        content = json.loads(body)
        schema = content["schema"]
        if schema > SCHEMA:
            version = content["versions"]["confshift"]
            raise ConfshiftError(
                f"{path} has schema {schema}, and this confshift reads up to {SCHEMA}; "
                f"install the version that wrote it: pip install 'confshift>={version}'"
            )
        return dict(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfshiftError(f"{path} is damaged: {error}") from error


def plain(name: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the values as they will be read back from JSON: plain numbers, text, lists, dicts.

    Raises
    ------
    ConfshiftError
        Where they are no mapping, a key is no text or a value has no such form.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ConfshiftError(_no_mapping(name, values))
    values = dict(values)
    odd = [key for key in values if not isinstance(key, str)]
    if odd:
        raise ConfshiftError(f"{name} has the key {odd[0]!r}; keys must be text")
    try:
        text = json.dumps(values, default=_plain_number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfshiftError(
            f"{name} can't be stored as JSON ({error}); pass numbers, text, lists, dicts"
        ) from error
    if len(text) > _MAX_NOTES:
        raise ConfshiftError(f"{name} has {len(text)} bytes as JSON; keep it under {_MAX_NOTES}")
    return dict(json.loads(text))


def _no_mapping(name: str, value: Any) -> str:
    key = {"logged": "loss", "metadata": "lr"}.get(name, "name")
    if isinstance(value, numbers.Real):
        return f'{name}={value!r} has no name; pass {name}={{"{key}": {value!r}}}'
    return f'{name} is a {type(value).__name__}, not a mapping; pass {name}={{"{key}": ...}}'


def _plain_number(value: Any) -> Any:
    """Take the number out of a numpy scalar or of a tensor with one element."""
    if not callable(getattr(value, "item", None)):
        raise TypeError(f"{type(value).__name__} is no number, text, list or dict")
    return value.item()


def read_record(raw: bytes, path: Path, classes: int) -> Record:
    """Return the record in a file's bytes; every field that will be acted on is checked.

    Raises
    ------
    ConfshiftError
        Where the file is damaged, hostile or of a newer schema.
    """
    content = decode(raw, path)
    try:
        del content["schema"]
        shards = tuple(_read_shard(shard) for shard in content.pop("shards"))
        gaps = tuple(Gap(**gap) for gap in content.pop("gaps"))
        names = [one.name for one in fields(Provenance)]
        provenance = Provenance(**{name: content.pop(name) for name in names})
        record = Record(shards=shards, gaps=gaps, provenance=provenance, **content)
        wrong = _contradiction(record, path, classes)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfshiftError(f"{path} is damaged: {type(error).__name__} {error}") from error
    if wrong:
        raise ConfshiftError(f"{path} is refused: {wrong}")
    return record


def _read_shard(content: dict[str, Any]) -> Shard:
    return Shard(
        int(content["rank"]),
        str(content["encoding"]),
        _read_file(content["logits"]),
        _read_file(content["columns"]),
    )


def _read_file(content: dict[str, Any]) -> StoredFile:
    stored = StoredFile(**{**content, "shape": tuple(content["shape"]), "crcs": tuple(content["crcs"])})
    if not _DATA_NAME.fullmatch(stored.name):
        raise ValueError(f"{stored.name!r} is no name of a data file")
    numbers = (stored.size, stored.offset, stored.header_crc, *stored.shape, *stored.crcs)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError(f"{stored.name}: sizes must be whole numbers")
    return stored


def _contradiction(record: Record, path: Path, classes: int) -> str:
    """Say what in a record can't be; "" where all is well."""
    if record.split != path.parent.name or record.name != path.name:
        return f"it says it is {record.split}/{record.name}"
    if not (math.isfinite(record.epoch) and record.epoch >= 0 and math.isfinite(record.beta)):
        return f"epoch {record.epoch}, beta {record.beta}"
    notes = (record.metadata, record.provenance.logged, record.provenance.checks, record.provenance.versions)
    if not all(isinstance(one, dict) for one in notes):
        return "its notes are no dicts"
    if len(record.shards) != 1:
        return f"it has {len(record.shards)} shards; this version reads one"
    shard = record.shards[0]
    samples = shard.columns.shape[0]
    if shard.logits.shape != (samples, classes) or shard.columns.shape != (samples,) or not samples:
        return f"logits {shard.logits.shape} and columns {shard.columns.shape} for {classes} classes"
    if LOGITS.get(shard.encoding) != shard.logits.dtype:
        return f"logits stored as {shard.logits.dtype!r}, called {shard.encoding!r}"
    id_format = shard.columns.dtype[0][1]
    if not _ID_FORMAT.fullmatch(id_format) or shard.columns.dtype != _described(columns_dtype(id_format)):
        return "its columns are not those of this schema"
    return ""


def columns_dtype(id_format: str) -> np.dtype[Any]:
    """Return the dtype of the columns file: the sample's id ("<i8" or "|S<n>"), then what was measured."""
    return np.dtype([("sample_id", id_format), *MEASURED.descr])


def _described(dtype: np.dtype[Any]) -> list[list[Any]]:
    return [[*one] for one in dtype.descr]
