"""JSON files that carry their schema and a checksum of their own bytes, and the notes that they may hold."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confshift.errors import ConfshiftError, Refusal
from confshift.input_checks import as_number

#: The version of the files written. Older ones are always read.
SCHEMA = 2

#: No JSON file of a run has more bytes.
MAX_JSON = 1 << 26

_MAX_NOTES = 1 << 24
#: The depth of nested lists and dicts, in notes and in a file. Python's own limit would end a save, or a
#: report, half-way.
_MAX_DEPTH, _MAX_FILE_DEPTH = 100, 110
_OPENING, _CLOSING = b'{"content": ', b', "checksum": "%s"}\n'


def encode(content: Mapping[str, Any]) -> bytes:
    """Return a JSON file that carries its schema and a checksum of its own bytes.

    NaN and infinity are written as Python writes them (a diverged training logs them).
    """
    body = json.dumps({"schema": SCHEMA, **content}).encode("ascii")
    return _OPENING + body + _CLOSING % _checksum(body)


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).hexdigest().encode("ascii")


def is_ours(raw: bytes) -> bool:
    """Tell whether :func:`encode` made these bytes, even if they are damaged."""
    return raw.startswith(_OPENING) or _CLOSING.partition(b"%s")[0] in raw[-len(_CLOSING) - 40 :]


def decode(raw: bytes, path: Path) -> dict[str, Any]:
    """Return the content of a file that :func:`encode` made; pass it to :func:`check_schema` first.

    Raises
    ------
    ConfshiftError
        Where a byte changed, or it never was such a file.
    """
    body = raw[len(_OPENING) : -len(_CLOSING % _checksum(b""))]
    if raw != _OPENING + body + _CLOSING % _checksum(body):
        raise ConfshiftError(f"{path} is damaged: it does not match its own checksum")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ConfshiftError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict) or type(content.get("schema")) is not int:
        raise ConfshiftError(f"{path} is damaged: it has no schema")
    few = body.count(b"[") + body.count(b"{") <= _MAX_FILE_DEPTH  # as in most records: then none is deep
    if not few and _is_deep(content, _MAX_FILE_DEPTH):
        raise ConfshiftError(f"{path} is refused: lists or dicts are nested more than {_MAX_FILE_DEPTH} deep")
    return content


def check_schema(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a file that a newer confshift wrote.

    Raises
    ------
    ConfshiftError
        Naming a version that can read it.
    """
    if content["schema"] > SCHEMA:
        versions = content.get("versions")
        version = versions.get("confshift") if isinstance(versions, dict) else None
        remedy = (
            f"the version that wrote it: pip install 'confshift>={readable(version)}'"
            if isinstance(version, str)
            else "the newest: pip install --upgrade confshift"
        )
        raise Refusal(
            f"{path} has schema {reprlib.repr(content['schema'])}, and this confshift reads up to {SCHEMA}; "
            f"install {remedy}"
        )


def readable(text: str) -> str:
    """Return text that can be written as UTF-8, without the half characters that JSON may hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _is_deep(content: dict[str, Any], limit: int) -> bool:
    level: list[Any] = [content]
    for _ in range(limit):
        if not level:
            return False
        parts = [value.values() if isinstance(value, dict) else value for value in level]
        level = [value for part in parts for value in part if isinstance(value, dict | list)]
    return bool(level)


def plain(name: str, values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the values as JSON gives them back: plain numbers, text, lists, dicts.

    Raises
    ------
    ConfshiftError
        Where they are not a mapping, a key is not text or a value has no such form.
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ConfshiftError(_on_no_mapping(name, values))
    values = dict(values)
    other_keys = [key for key in values if not isinstance(key, str)]
    if other_keys:
        raise ConfshiftError(f"{name} has the key {other_keys[0]!r}; pass text, {str(other_keys[0])!r}")
    try:
        text = json.dumps(values, default=_plain_number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfshiftError(
            f"{name} can't be stored as JSON ({error}); pass numbers, text, lists, dicts"
        ) from error
    if len(text) > _MAX_NOTES:
        raise ConfshiftError(f"{name} has {len(text)} bytes as JSON; pass at most {_MAX_NOTES}")
    content = dict(json.loads(text))
    if _is_deep(content, _MAX_DEPTH):
        raise ConfshiftError(f"{name} is nested more than {_MAX_DEPTH} deep; pass it with less nesting")
    if name == "logged":
        _check_numbers(content)
    return content


def _check_numbers(logged: Mapping[str, Any]) -> None:
    """Refuse values that can't be compared with a loss; None stands for one that was not computed."""
    for key, value in logged.items():
        if value is not None and math.isnan(as_number(value)) and value == value:
            raise ConfshiftError(
                f"logged[{key!r}]={reprlib.repr(value)} is not a number that a float can hold; pass a "
                "number, and anything else as metadata="
            )


def _on_no_mapping(name: str, value: Any) -> str:
    key = {"logged": "loss", "metadata": "lr"}.get(name, "name")
    if isinstance(value, numbers.Real):
        return f'{name}={value!r} has no name; pass {name}={{"{key}": {value!r}}}'
    return f'{name} is a {type(value).__name__}, not a mapping; pass {name}={{"{key}": ...}}'


def _plain_number(value: Any) -> Any:
    """Return the numbers of a numpy scalar, an array or a tensor."""
    if not callable(getattr(value, "tolist", None)):
        raise TypeError(f"{type(value).__name__} is not a number, text, list or dict")
    single = getattr(value, "size", None) == 1 or (
        callable(getattr(value, "numel", None)) and value.numel() == 1
    )
    return value.item() if single else value.tolist()
