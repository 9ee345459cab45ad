"""Predictions that another program wrote by numpy.savez."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from confshift.errors import ConfshiftError
from confshift.predictions import Predictions
from confshift.storage.memory import check_room
from confshift.storage.reading import open_plain

_NAMES = (
    *("logits", "probabilities", "targets", "sample_ids", "class_names"),
    *("groups", "task", "label_names", "total_rows"),
)
#: The arrays to read, by their names in a file; the second line has those of Hugging Face and others.
_ARRAYS = {
    **{name: name for name in _NAMES},
    **{"predictions": "logits", "label_ids": "targets", "labels": "targets"},
}
#: Those of them that are lists, text or a number rather than an array.
_LISTS = ("class_names", "task", "label_names", "total_rows")
#: Reading an array takes its own size and that of copies: in another dtype or order, and for checks.
_COPIES = 4
_LAST_CODE_POINT = 0x10FFFF


def read_npz(path: Path) -> Predictions:
    """Read `logits` or `probabilities` (N, K) and `targets` (N,) from a file.

    `predictions` also serve as logits, `labels` and `label_ids` as targets, if no array has that name itself.
    The file may hold `sample_ids` (N,), `class_names` (K,), `groups` (N,), a `task` and what else
    `Predictions` takes as well. Other arrays are ignored, and nothing
    is ever unpickled.

    Raises
    ------
    ConfshiftError
        Where the file is not an ordinary one or not a .npz, would take more memory than is free, lacks an
        array or holds both kinds of outputs, or its arrays can't be used.
    """
    with open_plain(path, follow=True) as stream:
        array_names, members = _read(stream, path)
    arrays = {_ARRAYS[name]: array for name, array in members.items() if name != _ARRAYS[name]}
    arrays |= {name: array for name, array in members.items() if name == _ARRAYS[name]}
    kinds = [name for name in ("logits", "probabilities") if name in arrays]
    if len(kinds) != 1 or "targets" not in arrays:
        raise ConfshiftError(
            f"{path} holds {', '.join(array_names) or 'nothing'}; it must hold targets and either logits or "
            "probabilities: numpy.savez('epoch.npz', logits=logits, targets=targets)"
        )
    make = Predictions if kinds[0] == "logits" else Predictions.from_probabilities
    logits, targets = arrays.pop(kinds[0]), arrays.pop("targets")
    options: dict[str, Any] = {
        name: array.tolist() if name in _LISTS else array for name, array in arrays.items()
    }
    return make(logits, targets, **options)


def _read(stream: BinaryIO, path: Path) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Return the names of all arrays, and those arrays that confshift reads."""
    try:
        with zipfile.ZipFile(stream) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            relevant = {name: members[name] for name in _ARRAYS if name in members}
            check_room(path, _COPIES * sum(member.file_size for member in relevant.values()))
            return list(members), {name: _array(archive, member) for name, member in relevant.items()}
    except ConfshiftError:
        raise
    except Exception as error:  # anyone's file: zipfile, its decompressors and numpy raise a dozen kinds
        both = "numpy.savez('epoch.npz', logits=logits, targets=targets)"
        alone = f" (a .npy file holds one array, and logits and targets are needed: {both})"
        raise ConfshiftError(
            f"{path} can't be read ({_reason(error)}); write it by numpy.savez, without objects"
            f"{alone if path.suffix == '.npy' else ''}"
        ) from error


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(name=member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    if array.dtype.kind == "U" and array.size:
        codes = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")).reshape(-1).view(np.uint32)
        if codes.max(initial=0) > _LAST_CODE_POINT:
            raise ValueError("text with characters that do not exist")
    return array


def _reason(error: Exception) -> str:
    """Say what went wrong, in a line; not in numpy's words, which advise loading objects all the same."""
    text = " ".join(str(error).split())
    return "it holds Python objects" if "pickle" in text else text or type(error).__name__
