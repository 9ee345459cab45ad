"""The inputs of samples: images on one sprite, text as text, anything else by its shape."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from confshift.errors import ConfshiftError

#: Pixels of one image's side on the sprite, and images in a row of it.
TILE, _COLUMNS = 32, 50
_MAX_TEXT = 300
_QUALITY = 60


class Dataset(Protocol):
    """Anything that returns an input, or a tuple that begins with it, by the sample's id."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return the item."""


#: What `report(thumbnail=...)` takes: a function of a sample's id, or a dataset indexed by it.
Thumbnail = Callable[[Any], Any] | Dataset


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Small images or texts of the inputs of some samples."""

    sprite: str  # one WebP of all images, base64; "" without images
    tiles: list[int]  # of each sample: its place on the sprite, -1 without an image
    texts: list[str]  # of each sample: its text or a description, "" where there is an image

    @property
    def columns(self) -> int:
        """How many images stand in a row of the sprite."""
        return max(1, min(_COLUMNS, sum(tile >= 0 for tile in self.tiles)))


def show_inputs(thumbnail: Thumbnail, sample_ids: Sequence[Any]) -> Thumbnails:
    """Get the inputs of samples and make them small.

    Parameters
    ----------
    thumbnail : callable or dataset
        Returns for a sample's id a PIL image, an array or tensor of an image (H, W), (H, W, 1 | 3 | 4) or
        (1 | 3, H, W), or a text; of a tuple, list or mapping (an item of a dataset) the first entry counts.
        Floats are scaled from their least to their largest value. Anything else is described.
    sample_ids : sequence

    Raises
    ------
    ConfshiftError
        Where `thumbnail` fails for a sample, or returns images while Pillow is not installed.
    """
    images: list[NDArray[np.uint8]] = []
    tiles, texts = [], []
    for sample_id in sample_ids:
        value = _ask(thumbnail, sample_id)
        pixels = None if isinstance(value, str) else _pixels(value)
        tiles.append(-1 if pixels is None else len(images))
        texts.append(_text(value) if pixels is None else "")
        if pixels is not None:
            images.append(_small(pixels))
    return Thumbnails(_sprite(images) if images else "", tiles, texts)


def _ask(thumbnail: Thumbnail, sample: Any) -> Any:
    plain = sample.item() if isinstance(sample, np.generic) else sample
    try:
        value = thumbnail(plain) if callable(thumbnail) else thumbnail[plain]
    except Exception as error:
        kind = "called with" if callable(thumbnail) else "indexed by"
        raise ConfshiftError(
            f"thumbnail {kind} sample id {plain!r} failed: {error!r}; pass a function of the sample's id"
        ) from error
    if isinstance(value, Mapping):
        return next(iter(value.values()), "")
    return value[0] if isinstance(value, (tuple, list)) and value else value


def _pixels(value: Any) -> NDArray[np.uint8] | None:
    """Return an image's pixels (H, W, 3), or None where the value is not an image."""
    if hasattr(value, "convert"):  # a PIL image
        return np.asarray(value.convert("RGB"), np.uint8)
    if hasattr(value, "detach"):  # a tensor
        value = value.detach().cpu().float()
    if not hasattr(value, "__array__"):
        return None
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[2] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    if (
        array.ndim != 3
        or array.shape[2] not in (1, 3, 4)
        or min(array.shape) < 1
        or array.dtype.kind not in "biuf"
    ):
        return None
    return np.broadcast_to(_bytes(array[..., :3]), (*array.shape[:2], 3))


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    values = np.nan_to_num(array.astype(np.float64))
    low, high = values.min(), values.max()
    shares = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.asarray(np.round(255 * shares), np.uint8)


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Fit an image into a tile, in the middle."""
    picture = _pillow().fromarray(np.ascontiguousarray(pixels))
    height, width = pixels.shape[:2]
    scale = TILE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = np.asarray(picture.resize(size))
    return tile


def _sprite(images: list[NDArray[np.uint8]]) -> str:
    rows = math.ceil(len(images) / _COLUMNS)
    sheet = np.zeros((rows * TILE, min(len(images), _COLUMNS) * TILE, 3), np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, _COLUMNS)
        sheet[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = image
    buffer = io.BytesIO()
    _pillow().fromarray(sheet).save(buffer, "WEBP", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfshiftError(
            "thumbnail gives images, and Pillow is not installed: pip install 'confshift[images]'"
        ) from error
    return Image


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else value[: _MAX_TEXT - 1] + "…"
    shape = getattr(value, "shape", None)
    name = type(value).__name__
    return f"{name} of shape {tuple(shape)}" if shape is not None else name
