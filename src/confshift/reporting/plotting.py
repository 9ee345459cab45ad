"""plot(): one chart as a picture of its own, for papers."""

from __future__ import annotations

import math
import os
import re
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd

from confshift.analysis.comparison import compare
from confshift.analysis.history import History, summarize
from confshift.errors import ConfshiftError
from confshift.findings.diagnosis import choose_pair
from confshift.findings.wording import epoch
from confshift.reporting import binning, tables
from confshift.reporting.charts import Frame, chart_specs
from confshift.reporting.drawing import with_data
from confshift.reporting.pair_figures import pair_figures
from confshift.reporting.saving import save_file
from confshift.reporting.story import Source
from confshift.reporting.vega import check_drawing, to_pdf, to_png, to_svg

__all__ = ["FIGURES", "FORMATS", "SHORT_NAMES", "plot"]

#: What can be drawn, and whether it needs two checkpoints.
FIGURES = {
    "loss": False,
    "accuracy": False,
    "parts": False,
    "history": True,
    "account": True,
    "cells": True,
    "class_accuracy": True,
    "class_contributions": True,
    "competitors": True,
    "reliability_before": True,
    "reliability_after": False,
    "confidence_right": False,
    "confidence_wrong": False,
    "concentration": True,
    "scatter": True,
}
#: What people say who mean one of a pair.
SHORT_NAMES = {"reliability": "reliability_after", "confidence": "confidence_wrong"}
FORMATS = ("svg", "png", "pdf")

_WIDTH, _NARROW = 640, {"reliability_before": 300, "reliability_after": 300, "scatter": 380}
_MAX_CLASSES = 20
#: Names stay readable where a line passes behind them; the page's style sheet says the same.
_HALO = (
    "<style>.mark-text.role-mark text{paint-order:stroke;stroke:white;stroke-width:3px;"
    "stroke-linejoin:round}</style>"
)
_PNG_SCALE = 3


def plot(
    run: Source,
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
    run : Run or iterable of Checkpoint
    figure : str
        One of FIGURES; "reliability" and "confidence" mean those of the later checkpoint and of the wrong
        answers.
    path : str or path-like
        Ends in .svg, .png or .pdf.
    before, after : float, optional
        Epochs; without them the best by loss and the last. `after` alone: the best by loss before it.
    scale : {"probability", "odds"}, optional
        Axis of confidences; without it log-odds where most of them are above 95 %.
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
    name, target = _known(figure), Path(path)
    suffix = target.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ConfshiftError(f"path={str(path)!r}: give a file that ends in .{', .'.join(FORMATS)}")
    check_drawing()
    spec = _spec(summarize(run), name, before=before, after=after, scale=scale, whole=whole)
    save_file(target, _drawn(spec, suffix, haloed=name != "competitors"))
    return target


def _known(figure: str) -> str:
    name = SHORT_NAMES.get(figure, figure)
    known = [*FIGURES, *SHORT_NAMES]
    if name not in FIGURES:
        near = get_close_matches(figure, known, n=1)
        hint = f"did you mean {near[0]!r}? There are" if near else "give one of"
        raise ConfshiftError(f"figure={figure!r}: {hint} {', '.join(known)}")
    return name


def _spec(
    history: History,
    name: str,
    *,
    before: float | None,
    after: float | None,
    scale: str | None,
    whole: bool,
) -> dict[str, Any]:
    """Return the chart's spec with its data in it."""
    comparison = compare(*choose_pair(history, before=before, after=after))
    if FIGURES[name] and comparison.before is comparison.after:
        raise ConfshiftError(f"figure={name!r} compares two checkpoints; the run has one")
    if name == "competitors":
        comparison.competitors  # noqa: B018 - an error here, where a page goes without
    axis = scale or ("odds" if binning.crowded(comparison.answered.confidence[1]) else "probability")
    if axis not in ("probability", "odds"):
        raise ConfshiftError(f"scale={scale!r}: give 'probability' or 'odds'")
    ticks = binning.odds_ticks(history.main)
    classes = tables.shown_classes(comparison.classes, _MAX_CLASSES)
    frame = Frame(
        epochs=[float(one) for one in history.main.epochs],
        classes=len(classes),
        odds_ticks=ticks.tolist(),
        limits=tables.limits([history]),
        splits=len(history.panels) > 1,
        rises=bool(tables.rise_starts(history.rise)),
        infinite=bool(history.main.infinite.any()),
    )
    variants = {name, f"{name}_{'whole' if whole else 'near'}", f"{name}_{axis}"}
    (spec,) = chart_specs(frame, only=variants).values()
    at = (f"epoch {epoch(comparison.before.epoch)}", f"epoch {epoch(comparison.after.epoch)}")
    data: dict[str, pd.DataFrame] = {
        **tables.run_tables(history, history.rise),
        **tables.pair_tables(comparison, classes=classes, at=at),
        **pair_figures(history, comparison, classes=classes, ticks=ticks, scale=axis),
    }
    return with_data(spec, data, width=_NARROW.get(name, _WIDTH))


def _drawn(spec: dict[str, Any], suffix: str, *, haloed: bool) -> bytes:
    named = {**spec, "datasets": {}}  # the data may hold names that look like colours
    plain = {**_in_colours(named, _palette()), "datasets": spec["datasets"]}
    (svg,) = to_svg([plain])
    if haloed:
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
    """Replace the names of colours by the colours: a picture has no style sheet."""
    if isinstance(value, dict):
        return {key: _in_colours(one, palette) for key, one in value.items()}
    if isinstance(value, list):
        return [_in_colours(one, palette) for one in value]
    named = re.fullmatch(r"var\(--(\w+)\)", value) if isinstance(value, str) else None
    if value == "transparent":
        return "white"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return palette[named[1]] if named else value
