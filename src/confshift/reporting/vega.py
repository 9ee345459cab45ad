"""Vega, by way of vl-convert: the script that draws in a page, specs compiled, charts drawn.

vl-convert runs JavaScript in V8, which can't start in two kinds of process: where the address space is
limited (`ulimit -v`) it ends the process, and after a fork it waits for ever for a thread that only the
parent has. There another process converts, in which neither is so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import pandas as pd

from confshift.errors import ConfshiftError
from confshift.reporting.characters import encodable
from confshift.reporting.charts import CHARTS
from confshift.reporting.output import plain

try:
    import resource
except ImportError:  # not a POSIX system: no such limits
    resource = None  # type: ignore[assignment]

#: The Vega-Lite version that altair's specs are written for.
VEGA_LITE = "6.4"

_EXPOSE = "window.vegaEmbed = vegaEmbed;"

#: The process that imported vl-convert here. Where another one or other code did, its thread may be missing.
_home: int | None = None

#: Another process finds modules where this one does, and takes what address space the system allows it.
_CONVERTER = """
import sys
sys.path[:] = {path}
import json, resource
resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import vl_convert
name, version, specs = json.load(sys.stdin)
json.dump([getattr(vl_convert, name)(spec, vl_version=version) for spec in specs], sys.stdout)
"""


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`.

    Made by vl-convert, without a network, in a second, once in a process. It is not kept on the disk: it
    becomes part of every page, and whoever could write there could put a script into other people's pages.
    """
    bundle: str = _vl_convert().javascript_bundle(_EXPOSE, vl_version=VEGA_LITE)
    return bundle


#: What was compiled before, by its text: most charts of one report are those of the next.
_compiled: dict[str, dict[str, Any]] = {}
_MOST_COMPILED = 200


def to_vega(specs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compile specs of Vega-Lite; the results are shared, so leave them as they are."""
    texts = [json.dumps(spec, sort_keys=True) for spec in specs]
    new = {text: spec for text, spec in zip(texts, specs, strict=True) if text not in _compiled}
    if len(_compiled) + len(new) > _MOST_COMPILED:
        _compiled.clear()
        new = dict(zip(texts, specs, strict=True))
    _compiled.update(zip(new, _converted("vegalite_to_vega", list(new.values())), strict=True))
    return [_compiled[text] for text in texts]


def to_svg(specs: Sequence[dict[str, Any]]) -> list[str]:
    """Draw specs of Vega-Lite that hold their data."""
    return _converted("vegalite_to_svg", specs)


def to_png(svg: str, *, scale: float) -> bytes:
    """Draw an SVG in pixels."""
    png: bytes = _vl_convert().svg_to_png(svg, scale=scale)
    return png


def to_pdf(svg: str) -> bytes:
    """Write an SVG as PDF."""
    pdf: bytes = _vl_convert().svg_to_pdf(svg)
    return pdf


def check_drawing() -> None:
    """Find out whether charts can be drawn at all, before long work is done for them.

    Raises
    ------
    ConfshiftError
        Where the limit on address space leaves too little for V8.
    """
    if _address_space() is not None:
        _converted("vegalite_to_vega", [{"mark": "point"}])


def _converted(name: str, specs: Sequence[dict[str, Any]]) -> list[Any]:
    texts = [encodable(json.dumps(spec, ensure_ascii=False, allow_nan=False)) for spec in specs]
    module = _vl_convert()
    if _home != os.getpid() or _address_space() is not None:
        return _converted_elsewhere(name, texts)
    return [getattr(module, name)(text, vl_version=VEGA_LITE) for text in texts]


def _vl_convert() -> ModuleType:
    global _home
    if "vl_convert" not in sys.modules:
        _home = os.getpid()
    import vl_convert

    return vl_convert


def _address_space() -> int | None:
    """Return the limit on this process's address space in bytes, if there is one."""
    limit = resource.RLIM_INFINITY if resource is None else resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if resource is None or limit == resource.RLIM_INFINITY else limit


def _converted_elsewhere(name: str, texts: list[str]) -> list[Any]:
    program = _CONVERTER.format(path=ascii([one for one in sys.path if isinstance(one, str)]))
    asked = json.dumps([name, VEGA_LITE, texts]).encode("ascii")
    try:
        done = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, check=False)
    except OSError as error:
        raise ConfshiftError(f"the charts can't be drawn: no process can be started: {error}") from error
    if done.returncode:
        raise ConfshiftError(f"the charts can't be drawn: {_reason(done)}")
    converted: list[Any] = json.loads(done.stdout)
    return converted


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    if _address_space() is not None and done.returncode < 0:  # V8 ends by a signal
        limit = resource.getrlimit(resource.RLIMIT_AS)[1]
        return (
            f"this process may use {limit / 1e9:.3g} GB of address space, and V8, which draws, reserves some "
            "70 GB of it, though it fills less than one; lift the limit (ulimit -v unlimited), or make the "
            "report where there is none"
        )
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line[:1].strip()]
    return f"the process that draws ended with {done.returncode}: {lines[-1] if lines else 'no reason given'}"


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
    return {name: plain(tables[name]) for name in _names(spec)}


def _names(spec: Any) -> set[str]:
    """Return the names of the tables that a spec reads."""
    if isinstance(spec, list):
        return set[str]().union(*map(_names, spec))
    if not isinstance(spec, dict):
        return set()
    data = spec.get("data")
    own = {data["name"]} if isinstance(data, dict) and "name" in data else set[str]()
    return own.union(*map(_names, spec.values()))
