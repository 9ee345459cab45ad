"""Pictures of the page in every state that it can be seen in, small, for reports/screens; a minute.

Run it as a script: `python tests/screens.py`. Needs Debian's chromium and chromium-driver. Look at what it
writes: labels that overlap, text that is cut off, or a colour that can't be seen is a defect.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from chromium import missing_chromium, start_chromium
from confshift import Predictions, Report, report
from confshift.checkpoint import Checkpoint
from confshift.demo import train, validation_images

FOLDER = Path(__file__).parents[1] / "reports" / "screens"
#: A screen of a notebook and of a phone, and in what width a picture of it is kept.
WIDE, NARROW = (1280, 960), (390, 844)
KEPT = {WIDE: 720, NARROW: 260}
LONG_NAMES = tuple(f"n{10_000_000 + number}, a name that is rather long" for number in range(1000))


class Screen(NamedTuple):
    """One state of the page: its name, the page, where it is scrolled to, and how it is looked at."""

    name: str
    page: Report
    place: str = "body"
    size: tuple[int, int] = WIDE
    media: str = ""  # "dark" or "print"
    script: bool = True


def run_of(
    samples: int, classes: int, epochs: int, *, growth: float = 3.0, training: int = 0, **names: Any
) -> list[Checkpoint]:
    """Make a run whose logits grow; another training sees the same samples with another noise."""
    rng, own = np.random.default_rng(0), np.random.default_rng(100 + training)
    targets = rng.integers(0, classes, samples)
    base = rng.normal(size=(samples, classes))
    base[np.arange(samples), targets] += 1 + np.log10(classes)
    base += 0.5 * own.normal(size=base.shape)
    scales = 0.1 + 2.2 * (1 - np.exp(-np.arange(epochs) / 3)) + growth * np.arange(epochs) / epochs
    return [
        Checkpoint.from_predictions(
            Predictions(scale * (base + 0.1 * own.normal(size=base.shape)), targets, **names), epoch=epoch
        )
        for epoch, scale in enumerate(scales)
    ]


def screens(folder: Path) -> Iterator[Screen]:
    """Yield every state."""
    demo = report(train(folder / "demo"), title="demo", thumbnail=validation_images())
    yield Screen("light", demo)
    yield Screen("dark", demo, media="dark")
    yield Screen("print", demo, media="print")
    yield Screen("no-script", demo, script=False)
    yield Screen("phone", demo, size=NARROW)
    yield Screen("phone-dark", demo, place="#parts", size=NARROW, media="dark")
    yield Screen("inputs", demo, place="#samples")
    yield Screen("reliability", demo, place="#reliability")
    first, second = run_of(900, 10, 20), run_of(900, 10, 30, growth=1.0, training=1)
    yield Screen("two-runs", report(first, other=second))
    yield Screen("one-checkpoint", report(first[:1], title="one checkpoint"))
    yield Screen("three-samples", report(run_of(3, 3, 12), title="three samples"))
    two = report(run_of(400, 2, 20, class_names=("cat", "dog")), title="two classes")
    yield Screen("two-classes", two, place="#classes")
    yield Screen("128-classes", report(run_of(1500, 128, 20), title="128 classes"), place="#classes")
    many = report(run_of(1500, 1000, 8, class_names=LONG_NAMES), title="1,000 classes")
    yield Screen("1000-classes", many, place="#classes")


def photograph(browser: Any, screen: Screen, path: Path) -> Image.Image:
    """Open a page as the screen says and return what is seen."""
    width, height = screen.size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": screen.size == NARROW}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.media == "dark" else "light"}
    media = {"media": "print" if screen.media == "print" else "", "features": [scheme]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not screen.script})
    screen.page.save(path)
    browser.get(f"file://{path}")
    while screen.script and not browser.execute_script("return document.body.dataset.shown"):
        time.sleep(0.05)
    if screen.script:
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView()", screen.place)
        time.sleep(0.3)
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


def main() -> None:
    if missing_chromium():
        sys.exit("this script needs Debian's chromium and chromium-driver: apt-get install them")
    FOLDER.mkdir(exist_ok=True)
    browser = start_chromium()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for screen in screens(Path(folder)):
                picture = photograph(browser, screen, Path(folder) / "page.html")
                kept = KEPT[screen.size]
                small = picture.resize((kept, round(kept * picture.height / picture.width)), Image.LANCZOS)
                small.save(FOLDER / f"{screen.name}.webp", quality=80, method=6)
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
