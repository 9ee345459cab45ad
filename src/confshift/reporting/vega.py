"""Vega, through vl-convert: the script that draws in a page, compiled specs, pictures.

vl-convert runs JavaScript in V8, which can't start in two kinds of process: where the address space is
limited (`ulimit -v`) it ends the process, and after a fork it waits forever for a thread that only the parent
has. Two threads that convert at once may wait for each other forever. So only the main thread of a process
without limit or fork converts in it; for all others a new process does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import pandas as pd

from confshift.errors import ConfshiftError
from confshift.reporting.characters import encodable
from confshift.reporting.charts import CHARTS
from confshift.reporting.output import plain
from confshift.storage.user_cache import cached_file, keep_file, read_file

try:
    import resource
except ImportError:  # not a POSIX system: no such limits
    resource = None  # type: ignore[assignment]

#: The Vega-Lite version that altair's specs are written for.
VEGA_LITE = "6.4"
_VERSION = {"vl_version": VEGA_LITE}

_EXPOSE = "window.vegaEmbed = vegaEmbed;"

#: The SHA-256 of the script, by the version of vl-convert that makes it.
_DIGESTS = {
    "1.9.0": "373b1f84072b31010f15ceb787be6b415c53936411aae267c8c2b2b6ccde46e7",
}

#: The process in which this module imported vl-convert, None where other code did. Elsewhere V8's thread may
#: be missing.
_home: int | None = None

#: The new process finds modules where this one does, and uses all the address space that the system allows.
_CONVERTER = """
import sys
sys.path[:] = {path}
import json, resource
resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import vl_convert
name, options, specs = json.load(sys.stdin)
json.dump([getattr(vl_convert, name)(spec, **options) for spec in specs], sys.stdout)
"""


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`.

    vl-convert makes it, without a network, in a second. The user's cache folder holds a copy. The script
    becomes part of every page, and others may be able to write to that folder: a copy counts only where its
    digest is the one in this file.
    """
    digest = _DIGESTS.get(_vl_convert().__version__)
    copy = cached_file(f"vega-{digest}.js")
    content = read_file(copy) if digest else None
    if content is not None and _digest(content) == digest:
        return content.decode("utf-8")
    script = str(_called("javascript_bundle", [_EXPOSE], _VERSION)[0])
    if _digest(script.encode("utf-8")) == digest:
        keep_file(copy, script.encode("utf-8"))
    return script


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


#: What was compiled before, by its text: most charts of one report are those of the next.
_compilations: dict[str, dict[str, Any]] = {}
_MOST_COMPILATIONS = 200


def to_vega(specs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compile specs of Vega-Lite; the results are shared, so leave them as they are."""
    texts = [json.dumps(spec, sort_keys=True) for spec in specs]
    found: dict[str, Any] = {
        text: _compilations.get(text) for text in texts
    }  # another thread may clear them meanwhile
    new = {text: spec for text, spec in zip(texts, specs, strict=True) if found[text] is None}
    made = dict(zip(new, _convert("vegalite_to_vega", list(new.values()), **_VERSION), strict=True))
    if len(_compilations) + len(made) > _MOST_COMPILATIONS:
        _compilations.clear()
    _compilations.update(made)
    found |= made
    return [found[text] for text in texts]


def to_svg(specs: Sequence[dict[str, Any]], tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Draw specs of Vega-Lite that read tables by name."""
    return _convert("vega_to_svg", [_with_data(spec, tables) for spec in to_vega(specs)])


def _with_data(spec: dict[str, Any], tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Return a spec of Vega that holds the tables it reads; other data are made from these."""
    data = [
        {**part, "values": plain(tables[part["name"]])} if _is_open(part) else part for part in spec["data"]
    ]
    return {**spec, "data": data}


def _is_open(part: Mapping[str, Any]) -> bool:
    return not {"source", "values"} & set(part)


def to_png(svg: str, *, scale: float) -> bytes:
    """Draw an SVG in pixels."""
    png: bytes = _vl_convert().svg_to_png(svg, scale=scale)
    return png


def to_pdf(svg: str) -> bytes:
    """Write an SVG as PDF."""
    pdf: bytes = _vl_convert().svg_to_pdf(svg)
    return pdf


def check_drawing() -> None:
    """Check whether charts can be drawn at all, before long work is done for them.

    Raises
    ------
    ConfshiftError
        Where the limit on address space leaves too little for V8.
    """
    if _address_space() is not None:
        _convert("vegalite_to_vega", [{"mark": "point"}], **_VERSION)


def _convert(name: str, specs: Sequence[dict[str, Any]], **options: str) -> list[Any]:
    if not specs:
        return []
    texts = [encodable(json.dumps(spec, ensure_ascii=False, allow_nan=False)) for spec in specs]
    return _called(name, texts, options)


def _called(name: str, texts: list[str], options: Mapping[str, str]) -> list[Any]:
    """Return what a function of vl-convert makes of each text, in this process or in a new one."""
    if threading.current_thread() is not threading.main_thread() or _address_space() is not None:
        return _called_elsewhere(name, texts, options)
    module = _vl_convert()
    if _home != os.getpid():
        return _called_elsewhere(name, texts, options)
    return [getattr(module, name)(text, **options) for text in texts]


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


def _called_elsewhere(name: str, texts: list[str], options: Mapping[str, str]) -> list[Any]:
    program = _CONVERTER.format(path=ascii([folder for folder in sys.path if isinstance(folder, str)]))
    request, command = json.dumps([name, options, texts]).encode("ascii"), [sys.executable, "-c", program]
    try:
        process = subprocess.run(command, input=request, capture_output=True, check=False)
    except OSError as error:
        raise ConfshiftError(f"the charts can't be drawn: no process can be started: {error}") from error
    if process.returncode:
        raise ConfshiftError(f"the charts can't be drawn: {_reason(process)}")
    results: list[Any] = json.loads(process.stdout)
    return results


def _reason(process: subprocess.CompletedProcess[bytes]) -> str:
    if _address_space() is not None and process.returncode < 0:  # V8 ends by a signal
        limit = resource.getrlimit(resource.RLIMIT_AS)[1]
        return (
            f"this process may use {limit / 1e9:.3g} GB of address space, and V8, which draws, reserves some "
            "70 GB of it, though it fills less than one; lift the limit (ulimit -v unlimited), or make the "
            "report where there is none"
        )
    lines = [line for line in process.stderr.decode(errors="replace").splitlines() if line[:1].strip()]
    return (
        f"the process that draws ended with {process.returncode}: {lines[-1] if lines else 'no reason given'}"
    )


Specs = Mapping[str, dict[str, Any]]
#: The font of a text, which the page gives to all.
_FONT = re.compile(r' font-family="[^"]*"')


def compiled(specs: Specs) -> dict[str, dict[str, Any]]:
    """Return the specs in Vega, so that the reader's browser need not compile them."""
    return dict(zip(specs, to_vega(list(specs.values())), strict=True))


def pictures(charts: Specs, tables: Mapping[str, pd.DataFrame], *, paired: bool) -> dict[str, str]:
    """Draw the main charts of a page, which are in Vega, as SVG with the colours of the style sheet.

    Returns
    -------
    dict of str to str
        By the figure; scales with the width it is given.
    """
    specs_with_data = {}
    for chart in CHARTS.values():
        spec = charts.get(chart.variants()[0][0])
        if spec and chart.still and (paired or not chart.pair_only):
            specs_with_data[chart.name] = _with_data(_of_width(spec, chart.still), tables)
    svgs = _convert("vega_to_svg", list(specs_with_data.values()))
    return {
        name: _FONT.sub("", svg[svg.index("<svg") :]) for name, svg in zip(specs_with_data, svgs, strict=True)
    }


def _of_width(spec: dict[str, Any], width: int) -> dict[str, Any]:
    """Return a spec of Vega, which fills the width of its place, in a width of its own."""
    signals = [signal for signal in spec["signals"] if signal["name"] != "width"]
    own = {name: value for name, value in spec.items() if name not in ("autosize", "signals")}
    return {**own, "width": width, **({"signals": signals} if signals else {})}
