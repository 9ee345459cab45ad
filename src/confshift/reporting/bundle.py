"""The Vega bundle that draws the charts: made once, kept in the user's cache."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.metadata import version
from pathlib import Path

from confshift.reporting.saving import replace_file
from confshift.storage.files import make_folders

__all__ = ["VEGA_LITE", "vega_bundle"]

#: The Vega-Lite version that altair's specs are written for.
VEGA_LITE = "6.4"

_EXPOSE = "window.vegaEmbed = vegaEmbed;"

_log = logging.getLogger("confshift")


@cache
def vega_bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that sets `window.vegaEmbed`.

    Made by vl-convert, without a network, which takes seconds; so it is kept by version in
    `$XDG_CACHE_HOME/confshift` (`~/.cache/confshift`). Where that can't be written, it is made anew.
    """
    import vl_convert

    path = _cache_folder() / f"vega-{VEGA_LITE}-{version('vl-convert-python')}.js"
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        bundle: str = vl_convert.javascript_bundle(_EXPOSE, vl_version=VEGA_LITE)
    try:
        make_folders(path.parent)
        replace_file(path, bundle.encode("utf-8"))
    except OSError as error:
        _log.debug("the Vega bundle can't be kept in %s: %s", path.parent, error)
    return bundle


def _cache_folder() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(configured) if configured and Path(configured).is_absolute() else Path.home() / ".cache"
    return root / "confshift"
