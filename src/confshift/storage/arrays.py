"""One array, one `.npy` file: written with checksums, returned only if it is what the record says."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from confshift.errors import ConfshiftError
from confshift.storage import files, reading
from confshift.storage.disk import Bytes

#: Data is written, and given a checksum, in pieces of this size.
PIECE_BYTES = 1 << 22

#: Files up to this size are read, larger ones mapped: a map costs no memory, but holds a descriptor, and the
#: system kills a process (SIGBUS) that reads a mapped file which has shrunk.
MAX_READ = 1 << 28

_MAX_HEADER = 1 << 16


@dataclass(frozen=True)
class StoredFile:
    """What a record says about one `.npy` file: enough to refuse it before any byte is trusted."""

    name: str
    size: int  # bytes of the whole file
    offset: int  # bytes of the header
    header_crc: int
    dtype: Any  # numpy's description: a string, or a list of [name, format]
    shape: tuple[int, ...]
    crcs: tuple[int, ...]  # of each PIECE_BYTES of data

    @cached_property
    def layout(self) -> np.dtype[Any]:
        """The dtype; the record's reader checks the text first, since anyone may have written it."""
        return np.dtype(self.dtype if isinstance(self.dtype, str) else [(*entry,) for entry in self.dtype])


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
    """Tell whether writing `array` would give the stored bytes; -0.0 differs from 0.0, NaN equals NaN."""
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


def read_array(folder: Path, stored: StoredFile) -> NDArray[Any]:
    """Return an array, read-only, after comparing every byte of it with its checksum.

    Up to :data:`MAX_READ` bytes it is a copy in memory, which later changes of the file don't affect.

    Raises
    ------
    ConfshiftError
        Naming the file and the first damaged piece.
    """
    check_size(folder, stored)
    path = folder / stored.name
    with reading.open_plain(path) as stream:
        if stored.size > MAX_READ:
            _check(stream, path, stored)
            return _mapped(stream, path, stored)
        try:
            data = np.empty(stored.size - stored.offset, np.uint8)
        except MemoryError as error:
            raise ConfshiftError(f"{path} can't be read: no memory for its {stored.size:,} bytes") from error
        _check(stream, path, stored, data.data)
    data.flags.writeable = False
    return data.view(stored.layout).reshape(stored.shape)


def read_bytes(folder: Path, stored: StoredFile, start: int, stop: int) -> NDArray[np.uint8]:
    """Return some of an array's bytes, after comparing the pieces that they are in with their checksums.

    Parameters
    ----------
    start, stop : int
        Offsets from the first byte after the header.

    Raises
    ------
    ConfshiftError
        As :func:`read_array`.
    """
    check_size(folder, stored)
    path, first = folder / stored.name, start // PIECE_BYTES
    numbers = range(first, -(-stop // PIECE_BYTES))
    end = min(numbers.stop * PIECE_BYTES, stored.size - stored.offset)
    data = np.empty(max(0, end - first * PIECE_BYTES), np.uint8)
    with reading.open_plain(path) as stream:
        stream.seek(stored.offset + first * PIECE_BYTES)
        _check_pieces(stream, path, stored, numbers, data.data)
    return data[start - first * PIECE_BYTES : stop - first * PIECE_BYTES]


def _mapped(stream: BinaryIO, path: Path, stored: StoredFile) -> NDArray[Any]:
    try:
        mapped = files.DISK.map(stream, stored.size)
    except (OSError, ValueError) as error:  # it shrank meanwhile
        raise ConfshiftError(f"{path} can't be mapped: {error}") from error
    return np.frombuffer(mapped, stored.layout, offset=stored.offset).reshape(stored.shape)


def _check(stream: BinaryIO, path: Path, stored: StoredFile, into: memoryview | None = None) -> None:
    """Read all of a file and compare it with its checksums; its data goes `into` memory, if passed."""
    if zlib.crc32(stream.read(stored.offset)) != stored.header_crc:
        raise ConfshiftError(f"{path} is damaged: its header does not match its checksum")
    _check_pieces(stream, path, stored, range(len(stored.crcs)), into)


def _check_pieces(
    stream: BinaryIO, path: Path, stored: StoredFile, numbers: range, into: memoryview | None = None
) -> None:
    """Read consecutive pieces, from where the stream is, and compare them with their checksums."""
    size = stored.size - stored.offset
    piece_room = memoryview(bytearray(min(size, PIECE_BYTES))) if into is None else into
    for number in numbers:
        start = number * PIECE_BYTES
        length = min(PIECE_BYTES, size - start)
        place = 0 if into is None else start - numbers.start * PIECE_BYTES
        piece = piece_room[place : place + length]
        if stream.readinto(piece) != length or zlib.crc32(piece) != stored.crcs[number]:  # type: ignore[attr-defined]
            raise ConfshiftError(
                f"{path} is damaged: piece {number + 1} of {len(stored.crcs)} (bytes {stored.offset + start} "
                f"to {stored.offset + start + length}) does not match its checksum"
            )


def damage(folder: Path, stored: StoredFile) -> str:
    """Read all of a file, in little memory, and say what is wrong with it; "" where nothing is."""
    path = folder / stored.name
    try:
        check_size(folder, stored)
        with reading.open_plain(path) as stream:
            _check(stream, path, stored)
    except ConfshiftError as error:
        return str(error)
    return ""
