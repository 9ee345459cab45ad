"""plot(): one chart as a picture of its own, for papers."""

from __future__ import annotations

import math
import os
import re
from dataclasses import replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from confshift.analysis.history import History, summarize
from confshift.errors import ConfshiftError
from confshift.findings.diagnosis import choose_pair
from confshift.findings.wording import epoch, vocabulary_of
from confshift.reporting.charts import CHARTS, chart_specs, said_in
from confshift.reporting.charts.parts import Chart
from confshift.reporting.epoch_tables import chart_context, run_tables
from confshift.reporting.pair_tables import pair_tables, paper_tables, shown_classes
from confshift.reporting.subject import Source, as_source
from confshift.reporting.vega import check_drawing, to_pdf, to_png, to_svg
from confshift.storage.saving import save_file

FORMATS = ("svg", "png", "pdf")

#: Names stay readable where a line passes behind them; the page's style sheet says the same.
_HALO = (
    "<style>.mark-text.role-mark text{paint-order:stroke;stroke:white;stroke-width:3px;"
    "stroke-linejoin:round}</style>"
)
_PNG_SCALE = 3


def figures() -> dict[str, str]:
    """Return the charts that can be drawn: their names, and their titles."""
    return {chart.name: chart.title for chart in CHARTS.values() if chart.paper}


def plot(
    run: Source | str | os.PathLike[str],
    figure: str,
    path: str | os.PathLike[str],
    *,
    before: float | None = None,
    after: float | None = None,
    scale: str | None = None,
    whole: bool = False,
) -> Path:
    """Draw one chart of the page as a picture of its own.

    Parameters
    ----------
    run : Run, iterable of Checkpoint, or the path of a run
    figure : str
        One of `figures()`. The page has a button that saves the other charts, those of single samples.
    path : str or path-like
        Ends in .svg, .png or .pdf.
    before, after : float, optional
        Epochs; without them those of `History.pair`. `after` alone: the best before it.
    scale : {"probability", "odds"}, optional
        Axis of confidences: plain, the default, or stretched at both ends, as log-odds.
    whole : bool
        Draw losses from the first epoch on, not from the end of the initial fall.

    Returns
    -------
    Path

    Raises
    ------
    ConfshiftError
        Where the figure, the format or an epoch is unknown, or the file can't be written.
    """
    chart, target = _chart_named(figure), Path(path)
    suffix = target.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ConfshiftError(f"path={str(path)!r}: give a file that ends in .{', .'.join(FORMATS)}")
    check_drawing()
    spec, tables = _spec(
        summarize(as_source(run)), chart, before=before, after=after, scale=scale, whole=whole
    )
    save_file(target, _draw(spec, tables, suffix, with_halo=chart.name != "competitors"))
    return target


def _chart_named(figure: str) -> Chart:
    names = list(figures())
    if figure in names:
        return CHARTS[figure]
    if figure in CHARTS:
        raise ConfshiftError(
            f"figure={figure!r} is drawn by the page only: write it with report() and press SVG below the "
            f"chart. Here there are {', '.join(names)}"
        )
    near = get_close_matches(figure, names, n=1)
    hint = f"did you mean {near[0]!r}? There are" if near else "give one of"
    raise ConfshiftError(f"figure={figure!r}: {hint} {', '.join(names)}")


def _spec(
    history: History,
    chart: Chart,
    *,
    before: float | None,
    after: float | None,
    scale: str | None,
    whole: bool,
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Return the chart's spec and the tables that it reads."""
    comparison = history.compare(*choose_pair(history, before=before, after=after))
    if chart.pair_only and comparison.before is comparison.after:
        raise ConfshiftError(f"figure={chart.name!r} compares two checkpoints; the run has one")
    if chart.name == "competitors":
        comparison.competitors  # noqa: B018 - an error here, where a page leaves the chart empty
    axis = scale or "probability"
    if axis not in ("probability", "odds"):
        raise ConfshiftError(f"scale={scale!r}: give 'probability' or 'odds'")
    classes = shown_classes(comparison.classes)
    at = (f"epoch {epoch(comparison.before.epoch)}", f"epoch {epoch(comparison.after.epoch)}")
    context = replace(chart_context([history], history, classes=len(classes)), sides=at)
    variant = {"span": "whole" if whole else "near", "scale": axis}.get(chart.variant, "")
    (spec_name,) = (name for name, name_variant in chart.variants() if name_variant == variant)
    ticks = np.array(context.odds_ticks)
    tables: dict[str, pd.DataFrame] = {
        **run_tables(history, history),
        **pair_tables(comparison, classes=classes, at=at),
        **paper_tables(comparison, classes=classes, ticks=ticks, scale=axis),
    }
    spec = said_in(vocabulary_of(history.main), chart_specs(context, only=[spec_name]))[spec_name]
    return {**spec, "width": chart.paper}, tables


def _draw(spec: dict[str, Any], tables: dict[str, pd.DataFrame], suffix: str, *, with_halo: bool) -> bytes:
    (svg,) = to_svg([_in_colours(spec, _palette())], tables)
    if with_halo:
        svg = svg.replace(">", f">{_HALO}", 1)
    if suffix == "png":
        return to_png(svg, scale=_PNG_SCALE)
    if suffix == "pdf":
        return to_pdf(svg)
    return svg.encode("utf-8")


def _palette() -> dict[str, str]:
    """Return the light colours of the style sheet."""
    style = (files("confshift.reporting") / "assets" / "style.css").read_text(encoding="utf-8")
    light = re.search(r":root \{(.*?)\}", style, re.DOTALL)
    return dict(re.findall(r"--(\w+): (#\w+);", light[1] if light else ""))


def _in_colours(value: Any, palette: dict[str, str]) -> Any:
    """Replace colour names by the colours: a picture has no style sheet."""
    if isinstance(value, dict):
        return {key: _in_colours(item, palette) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_colours(item, palette) for item in value]
    colour_name = re.fullmatch(r"var\(--(\w+)\)", value) if isinstance(value, str) else None
    if value == "transparent":
        return "white"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return palette[colour_name[1]] if colour_name else value
