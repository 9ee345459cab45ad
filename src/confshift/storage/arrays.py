"""One array, one `.npy` file: written with checksums, read back only if it is what the record says."""

from __future__ import annotations

import io
import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from confshift.errors import ConfshiftError
from confshift.storage import files, reading
from confshift.storage.files import Bytes

__all__ = [
    "PIECE_BYTES",
    "StoredFile",
    "check_size",
    "damage",
    "from_bfloat16",
    "is_bfloat16",
    "map_array",
    "read_array",
    "same_bytes",
    "write_array",
]

#: Data is written, and summed up by a checksum, in pieces of this size.
PIECE_BYTES = 1 << 22

_MAX_HEADER = 1 << 16


@dataclass(frozen=True)
class StoredFile:
    """What a record says of one `.npy` file: enough to refuse it before a byte is trusted."""

    name: str
    size: int  # bytes of the whole file
    offset: int  # bytes of the header
    header_crc: int
    dtype: Any  # numpy's description: a string, or a list of [name, format]
    shape: tuple[int, ...]
    crcs: tuple[int, ...]  # of each PIECE_BYTES of data

    @cached_property
    def layout(self) -> np.dtype[Any]:
        """The dtype; for a record's reader to check first, since the text may be anybody's."""
        return np.dtype(self.dtype if isinstance(self.dtype, str) else [(*one,) for one in self.dtype])


def write_array(path: Path, array: NDArray[Any], *, as_bfloat16: bool = False) -> StoredFile:
    """Write a C-ordered array to a new `.npy` file and sync it.

    With `as_bfloat16` the upper halves of a float32 array are written, as uint16: exact where
    :func:`is_bfloat16` holds.
    """
    dtype = np.dtype("<u2") if as_bfloat16 else array.dtype
    descr = np.lib.format.dtype_to_descr(dtype)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": descr, "fortran_order": False, "shape": array.shape}
    )
    head = header.getvalue()
    crcs: list[int] = []

    def pieces() -> Iterator[Bytes]:
        yield head
        for piece in _halves(array) if as_bfloat16 else _pieces(array):
            crcs.append(zlib.crc32(piece))
            yield piece

    files.write_file(path, pieces())
    return StoredFile(
        name=path.name,
        size=len(head) + array.size * dtype.itemsize,
        offset=len(head),
        header_crc=zlib.crc32(head),
        dtype=descr,
        shape=array.shape,
        crcs=tuple(crcs),
    )


def _pieces(array: NDArray[Any]) -> Iterator[memoryview]:
    data = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def _halves(array: NDArray[np.float32]) -> Iterator[memoryview]:
    words = array.reshape(-1).view(np.uint32)
    for start in range(0, len(words), PIECE_BYTES // 2):
        halves = (words[start : start + PIECE_BYTES // 2] >> 16).astype("<u2")
        yield halves.view(np.uint8).data


def is_bfloat16(array: NDArray[Any]) -> bool:
    """Tell whether every number of a float32 array is a bfloat16: the lower half of its bits is 0."""
    if array.dtype != np.float32:
        return False
    words = array.reshape(-1).view(np.uint32)
    step = PIECE_BYTES // 4
    return not any((words[start : start + step] & 0xFFFF).any() for start in range(0, len(words), step))


def same_bytes(stored: NDArray[Any], array: NDArray[Any], *, as_bfloat16: bool = False) -> bool:
    """Tell whether writing `array` would give the bytes that are stored; -0.0 is not 0.0, NaN is NaN."""
    pieces = _halves(array) if as_bfloat16 else _pieces(array)
    return all(old.tobytes() == new.tobytes() for old, new in zip(_pieces(stored), pieces, strict=True))


def from_bfloat16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return the float32 numbers whose upper halves these are."""
    words = halves.astype(np.uint32)
    words <<= 16
    return words.view(np.float32)


def check_size(folder: Path, stored: StoredFile) -> None:
    """Refuse a file whose size is not what its shape and the record say; nothing is read or allocated.

    Raises
    ------
    ConfshiftError
        Naming the file.
    """
    path = folder / stored.name
    items = 1
    for length in stored.shape:
        items *= length
    pieces = -(-items * stored.layout.itemsize // PIECE_BYTES)
    if (
        not 0 < stored.offset <= _MAX_HEADER
        or stored.size != stored.offset + items * stored.layout.itemsize
        or len(stored.crcs) != pieces
    ):
        raise ConfshiftError(
            f"the record of {path} contradicts itself: shape {stored.shape}, {stored.size} bytes"
        )
    size = reading.size_of(path)
    if size != stored.size:
        raise ConfshiftError(f"{path} is damaged: it has {size} bytes, its record says {stored.size}")


def map_array(folder: Path, stored: StoredFile) -> NDArray[Any]:
    """Map an array into memory, read-only; of its content only the header is checked.

    Reading all of it just to open it would cost what the map saves: :func:`damage` does that.
    """
    check_size(folder, stored)
    path = folder / stored.name
    with reading.open_plain(path) as stream:
        try:
            mapped = mmap.mmap(stream.fileno(), stored.size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # it shrank since
            raise ConfshiftError(f"{path} can't be mapped: {error}") from error
    if zlib.crc32(mapped[: stored.offset]) != stored.header_crc:
        raise ConfshiftError(f"{path} is damaged: its header does not match its checksum")
    return np.frombuffer(mapped, stored.layout, offset=stored.offset).reshape(stored.shape)


def read_array(folder: Path, stored: StoredFile) -> NDArray[Any]:
    """Map an array and check every byte of it.

    Raises
    ------
    ConfshiftError
        Naming the file and the first damaged piece.
    """
    array = map_array(folder, stored)
    for number, (piece, crc) in enumerate(zip(_pieces(array), stored.crcs, strict=True)):
        if zlib.crc32(piece) != crc:
            start = stored.offset + number * PIECE_BYTES
            raise ConfshiftError(
                f"{folder / stored.name} is damaged: piece {number + 1} of {len(stored.crcs)} "
                f"(bytes {start} to {start + len(piece)}) does not match its checksum"
            )
    return array


def damage(folder: Path, stored: StoredFile) -> str:
    """Read all of a file and say what is wrong with it; "" where nothing is."""
    try:
        read_array(folder, stored)
    except ConfshiftError as error:
        return str(error)
    return ""
