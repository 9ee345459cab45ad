"""From specs to what a reader gets: compiled for the page's script, and as still pictures without it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from confshift.reporting.charts import CHARTS
from confshift.reporting.document import rows
from confshift.reporting.vega import to_svg, to_vega

__all__ = ["compiled", "pictures", "with_data"]

Specs = Mapping[str, dict[str, Any]]


def compiled(specs: Specs) -> dict[str, dict[str, Any]]:
    """Return the specs in Vega, so that the reader's browser need not compile them."""
    return dict(zip(specs, to_vega(list(specs.values())), strict=True))


def pictures(specs: Specs, tables: Mapping[str, pd.DataFrame], *, paired: bool) -> dict[str, str]:
    """Draw the main charts as SVG, with the colours of the style sheet.

    Returns
    -------
    dict of str to str
        By the figure; scales with the width it is given.
    """
    pictured = {}
    for chart in CHARTS.values():
        spec = specs.get(chart.variants()[0][0])
        if spec and chart.still and (paired or not chart.pair_only):
            pictured[chart.name] = with_data(spec, tables, width=chart.still)
    drawn = to_svg(list(pictured.values()))
    return {name: svg[svg.index("<svg") :] for name, svg in zip(pictured, drawn, strict=True)}


def with_data(spec: dict[str, Any], tables: Mapping[str, pd.DataFrame], *, width: int) -> dict[str, Any]:
    """Return a spec that holds its data and has a width of its own."""
    return {**spec, "width": width, "datasets": _datasets(spec, tables)}


def _datasets(spec: Any, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    return {name: rows(_known(tables[name])) for name in _names(spec)}


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """Write what JSON has no word for as None."""
    plain = table.astype(object)
    return plain.where(plain.notna() & ~plain.isin([math.inf, -math.inf]), None)


def _names(spec: Any) -> set[str]:
    """Return the names of the tables that a spec reads."""
    if isinstance(spec, list):
        return set[str]().union(*map(_names, spec))
    if not isinstance(spec, dict):
        return set()
    data = spec.get("data")
    own = {data["name"]} if isinstance(data, dict) and "name" in data else set[str]()
    return own.union(*map(_names, spec.values()))
