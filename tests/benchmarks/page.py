"""How long a page takes: to make, to draw, and to follow another choice of epochs; about two minutes.

    python tests/benchmarks/page.py [RUN ...]

A small page and large ones in turn, and pages of saved runs, in the same browser, each several times: least
and median, ratios of the medians to the small page, and the same for each chart. Needs Debian's
chromium and chromium-driver.

    made       seconds in Python
    MB         of the file; at most 2 for the demo's
    drawn      milliseconds from the start of loading until every chart is drawn; at most 1,500 for the demo's
    in sight   milliseconds from another choice until the next frame, which shows the charts in sight
    all        milliseconds until every chart of the page has followed; at most 200 for 2,000 x 200
"""

from __future__ import annotations

import argparse
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
from confshift import Predictions, Run, report
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


#: Notes how long Vega draws each chart, and how long it takes to show other rows.
WATCH = """
let embed;
window.taken = [];
Object.defineProperty(window, "vegaEmbed", {
  set(given) { embed = given; },
  get() {
    return async (holder, ...rest) => {
      const {chart} = holder.closest(".figure").dataset;
      const timed = async (kind, work) => {
        const start = performance.now(), result = await work();
        window.taken.push([chart, kind, performance.now() - start]);
        return result;
      };
      const drawn = await timed("drawn", () => embed(holder, ...rest)), {view} = drawn;
      const run = view.runAsync.bind(view);
      view.runAsync = () => timed("followed", run);
      return drawn;
    };
  },
});
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


def follow(browser: Any) -> tuple[list[float], list[float]]:
    """Choose other epochs with each part of the page in sight; return all times of the slowest part."""
    parts = []
    epochs = browser.execute_script("return window.confshift.pairs.epochs.length")  # those that it carries
    for place in PLACES:
        browser.execute_script("document.querySelector(arguments[0]).scrollIntoView()", place)
        time.sleep(0.3)
        pairs = [(1 + number, epochs - 1 - number) for number in range(CHOICES)]
        seen, everything = zip(*(browser.execute_async_script(FOLLOW, *pair) for pair in pairs), strict=True)
        parts.append((list(seen), list(everything)))
    return max(parts, key=lambda part: statistics.median(part[1]))


def measure(browser: Any, path: Path) -> tuple[dict[str, float], pd.DataFrame]:
    """Draw a page and let it follow: the whole page, and each of its charts."""
    drawn = [load(browser, path) for _ in range(REPEATS)]
    seen, everything = follow(browser)
    times = {"drawn": drawn, "in sight": seen, "all": everything}
    page = {f"{kind}, {of.__name__}": of(times[kind]) for kind in times for of in (min, statistics.median)}
    taken = pd.DataFrame(browser.execute_script("return window.taken"), columns=["chart", "kind", "ms"])
    return page, taken.pivot_table("ms", "chart", "kind", aggfunc="median", sort=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="saved runs, such as the demo's")
    saved = parser.parse_args().runs
    if missing_chromium():
        sys.exit("this benchmark needs Debian's chromium and chromium-driver: apt-get install them")
    runs = {f"{samples:,} x {epochs}": make_run(samples, epochs) for samples, epochs in SIZES}
    rows, charts, browser = {}, {}, start_chromium()
    try:
        browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        with tempfile.TemporaryDirectory() as folder:
            for name, run in {**runs, **{str(path): Run(path) for path in saved}}.items():
                path = Path(folder) / "page.html"
                start = time.perf_counter()
                report(run, path)
                made = {"made": time.perf_counter() - start, "MB": path.stat().st_size / 1e6}
                page, charts[name] = measure(browser, path)
                rows[name] = {**made, **page}
    finally:
        browser.quit()
    table = pd.DataFrame(rows).T
    ratios = (table / table.iloc[0]).filter(regex="made|MB|median").round(2)
    sys.stdout.write(f"{table.round(1).to_string()}\n\nratios to the first\n{ratios.to_string()}\n")
    by_chart = pd.concat(charts, axis=1).round(1)
    sys.stdout.write(f"\neach chart, ms of Vega, median\n{by_chart.to_string(na_rep='-')}\n")


if __name__ == "__main__":
    main()
