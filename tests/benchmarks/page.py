"""How long a page takes: to make, to draw, and to follow another choice of epochs; about two minutes.

Run it as a script: `python tests/benchmarks/page.py`. A small page and large ones in turn, in the same
browser, each several times; medians, and ratios to the small page. Needs Debian's chromium and
chromium-driver.

    made       seconds in Python
    MB         of the file
    drawn      milliseconds from the start of loading until every chart is drawn
    in sight   milliseconds from another choice until the next frame, which shows the charts in sight
    all        milliseconds until every chart of the page has followed
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))
from chromium import missing_chromium, start_chromium
from confshift import Predictions, report
from confshift.checkpoint import Checkpoint

SIZES = ((200, 20), (2_000, 200), (10_000, 200))
REPEATS, CHOICES, CLASSES = 5, 8, 10
PLACES = ("body", "#figure-history", "#figure-scatter")
FOLLOW = """
const done = arguments[arguments.length - 1], [before, after] = arguments, start = performance.now();
const all = window.confshift.choose({before, after}).then(() => performance.now() - start);
requestAnimationFrame(() => setTimeout(async () => {
  const seen = performance.now() - start;
  done([seen, await all]);
}));
"""


def make_run(samples: int, epochs: int) -> list[Checkpoint]:
    """Make a run whose logits grow: the loss rises from about the twentieth epoch on."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, CLASSES, samples)
    base = rng.normal(size=(samples, CLASSES))
    base[np.arange(samples), targets] += 1.5
    scales = 0.2 + 2.5 * (1 - np.exp(-np.arange(epochs) / 20)) + np.arange(epochs) / 120
    jitter = rng.normal(size=(epochs, samples, CLASSES)).astype(np.float32) * 0.15
    return [
        Checkpoint.from_predictions(
            Predictions((scale * (base + jitter[epoch])).astype(np.float32), targets), epoch=epoch
        )
        for epoch, scale in enumerate(scales)
    ]


def load(browser: Any, path: Path) -> float:
    """Open a page and return when its last chart was drawn."""
    browser.get(f"file://{path}")
    while not browser.execute_script("return document.body.dataset.shown"):
        time.sleep(0.02)
    return float(browser.execute_script("return document.body.dataset.ready"))


def follow(browser: Any) -> tuple[float, float]:
    """Choose other epochs with each part of the page in sight; return the slowest part's medians."""
    slowest = (0.0, 0.0)
    epochs = browser.execute_script("return window.confshift.pairs.epochs.length")  # those that it carries
    for place in PLACES:
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView()", place)
        time.sleep(0.3)
        pairs = [(1 + number, epochs - 1 - number) for number in range(CHOICES)]
        taken = [browser.execute_async_script(FOLLOW, *pair) for pair in pairs]
        slowest = max(slowest, tuple(statistics.median(column) for column in zip(*taken, strict=True)))
    return slowest


def measure(browser: Any, path: Path) -> dict[str, float]:
    """Draw a page and let it follow."""
    drawn = statistics.median(load(browser, path) for _ in range(REPEATS))
    seen, everything = follow(browser)
    return {"drawn": drawn, "in sight": seen, "all": everything}


def main() -> None:
    if missing_chromium():
        sys.exit("this benchmark wants Debian's chromium and chromium-driver: apt-get install them")
    rows, browser = {}, start_chromium()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for samples, epochs in SIZES:
                run, path = make_run(samples, epochs), Path(folder) / f"{samples}x{epochs}.html"
                start = time.perf_counter()
                report(run, path)
                made = {"made": time.perf_counter() - start, "MB": path.stat().st_size / 1e6}
                rows[f"{samples:,} x {epochs}"] = {**made, **measure(browser, path)}
    finally:
        browser.quit()
    table = pd.DataFrame(rows).T
    ratios = (table / table.iloc[0]).round(2)
    sys.stdout.write(f"{table.round(1).to_string()}\n\nratios to the first\n{ratios.to_string()}\n")


if __name__ == "__main__":
    main()
