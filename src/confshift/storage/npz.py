"""Predictions that another program wrote by numpy.savez."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from confshift.errors import ConfshiftError
from confshift.predictions import Predictions

__all__ = ["read_npz"]

_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    EOFError,
    AttributeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
_KNOWN = ("logits", "probabilities", "targets", "sample_ids", "class_names")


def read_npz(path: Path) -> Predictions:
    """Read `logits` or `probabilities` (N, K) and `targets` (N,) from a file.

    It may hold `sample_ids` (N,) and `class_names` (K,) too. Other arrays are not looked at, and nothing is
    ever unpickled.

    Raises
    ------
    ConfshiftError
        Where the file is no .npz, lacks an array or holds both kinds of outputs, or its arrays can't be
        what they should be.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            found = list(file.files)
            arrays = {name: file[name] for name in _KNOWN if name in found}
    except _UNREADABLE as error:
        raise ConfshiftError(
            f"{path} can't be read ({error}); write it by numpy.savez, without objects"
        ) from error
    kinds = [name for name in ("logits", "probabilities") if name in arrays]
    if len(kinds) != 1 or "targets" not in arrays:
        raise ConfshiftError(
            f"{path} holds {', '.join(found) or 'nothing'}; it should hold targets and either logits or "
            "probabilities"
        )
    make = Predictions if kinds[0] == "logits" else Predictions.from_probabilities
    names = arrays.get("class_names")
    return make(
        arrays[kinds[0]],
        arrays["targets"],
        sample_ids=arrays.get("sample_ids"),
        class_names=None if names is None else names.tolist(),
    )
