"""Inputs beside the numbers: images of any form, text, and what is neither."""

from __future__ import annotations

import base64
import builtins
import io

import numpy as np
import pytest
from PIL import Image

from confshift.errors import ConfshiftError
from confshift.reporting.page import report
from confshift.reporting.thumbnails import TILE, show_inputs
from reading_pages import Page

RED = np.zeros((20, 10, 3), np.uint8) + np.array([255, 0, 0], np.uint8)


def tiles_of(thumbnails):
    sheet = Image.open(io.BytesIO(base64.b64decode(thumbnails.sprite))).convert("RGB")
    pixels = np.asarray(sheet).astype(int)
    places = [divmod(tile, thumbnails.columns) for tile in thumbnails.tiles]
    return [
        pixels[TILE * row : TILE * (row + 1), TILE * column : TILE * (column + 1)] for row, column in places
    ]


@pytest.mark.parametrize(
    "image",
    [
        RED,
        np.moveaxis(RED, -1, 0),
        RED / 255,
        np.dstack([RED, np.full((20, 10), 255, np.uint8)]),
        Image.fromarray(RED),
        (RED, 1),
        {"image": RED, "label": 1},
    ],
    ids=["array", "channels first", "floats", "with alpha", "PIL", "item of a dataset", "item as a mapping"],
)
def test_an_image_fills_its_tile_in_its_own_shape(image):
    (tile,) = tiles_of(show_inputs(lambda sample: image, [0]))
    assert np.abs(tile[16, 16] - [255, 0, 0]).max() < 40  # WebP is lossy
    assert np.abs(tile[16, 1]).max() < 40  # 20 x 10 leaves the sides empty


def test_a_tensor_is_an_image():
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(3, 8, 8, requires_grad=True)
    assert show_inputs(lambda sample: tensor, [0]).tiles == [0]


def test_grey_values_are_stretched_from_the_least_to_the_largest():
    ramp = np.linspace(-3, 5, 32 * 32).reshape(32, 32)
    (tile,) = tiles_of(show_inputs(lambda sample: ramp, [0]))
    assert tile[0].mean() < 20
    assert tile[-1].mean() > 235
    (flat,) = tiles_of(show_inputs(lambda sample: np.full((8, 8), 7.0), [0]))
    assert flat.max() < 20


def test_every_sample_has_its_own_tile_in_a_sprite_of_several_rows():
    shades = {one: np.full((4, 4), one, np.uint8) for one in range(120)}
    thumbnails = show_inputs(shades, list(range(120)))
    assert thumbnails.columns == 50
    assert [round(tile.mean()) for tile in tiles_of(thumbnails)] == pytest.approx(list(range(120)), abs=6)


def test_text_stays_text_and_is_cut_where_it_is_long():
    thumbnails = show_inputs(["short", "x" * 1000], [0, 1])
    assert thumbnails.sprite == ""
    assert thumbnails.tiles == [-1, -1]
    assert thumbnails.texts[0] == "short"
    assert len(thumbnails.texts[1]) == 300
    assert thumbnails.texts[1].endswith("…")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros(16000, np.float32), "ndarray of shape (16000,)"),
        (np.zeros((2, 3, 4, 5)), "ndarray of shape (2, 3, 4, 5)"),
        (np.zeros((0, 3)), "ndarray of shape (0, 3)"),
        (12, "int"),
    ],
)
def test_what_is_neither_is_described(value, text):
    assert show_inputs(lambda sample: value, [0]).texts == [text]


def test_ids_are_given_as_plain_python_values():
    seen = []
    show_inputs(lambda sample: seen.append(type(sample)) or "", [*np.arange(2), np.str_("a")])
    assert seen == [int, int, str]


@pytest.mark.parametrize("thumbnail", [lambda sample: 1 / 0, {}])
def test_a_thumbnail_that_fails_names_the_sample_and_the_remedy(thumbnail):
    with pytest.raises(ConfshiftError, match=r"sample id 7 failed.*a function of the sample's id"):
        show_inputs(thumbnail, [7])


def test_images_without_pillow_name_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name == "PIL":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfshiftError, match=r"confshift\[images\]"):
        show_inputs(lambda sample: RED, [0])
    assert show_inputs(lambda sample: "text", [0]).texts == ["text"]


def test_a_page_shows_inputs_only_when_asked(make_run, page):
    without = Page(page.html).json("sample-data")["inputs"]
    assert without["tiles"] == without["texts"] == {}
    assert "image/webp" not in page.html
    run = make_run(30, 3, 2)
    parsed = Page(report(run, thumbnail=lambda sample: RED if sample % 2 else f"<mark>{sample}</mark>").html)
    inputs = parsed.json("sample-data")["inputs"]
    assert set(inputs["texts"].values()) == {f"<mark>{one}</mark>" for one in range(0, 30, 2)}
    assert set(inputs["tiles"]) == {str(one) for one in range(1, 30, 2)}
    assert parsed.count("mark") == 0
