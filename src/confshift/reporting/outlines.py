"""The compiled charts of a page: made once for all pages that differ in numbers and names only.

To import altair, draw the charts and compile them takes more than half a second. A run's own in them are the
ends of axes, ticks, and names in keys. So charts are compiled in outline, with placeholders for these. The
user's cache folder holds the outlines, by a digest of all that they depend on. Every page is filled in from
outlines, so that what is on it never depends on the cache.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from confshift.findings.wording import Vocabulary
from confshift.reporting.characters import encodable
from confshift.reporting.charts import CHARTS, chart_specs, said_in
from confshift.reporting.charts.classes import SIZES
from confshift.reporting.charts.epochs import key_labels
from confshift.reporting.charts.key import columns_for
from confshift.reporting.charts.parts import MOST_DOTS, ChartContext
from confshift.reporting.vega import compiled
from confshift.storage.user_cache import read_own, write_own

#: What a placeholder of a name begins with.
_NAME = "placeholder_"
#: The outlines that this process has used, by their digests.
_used: dict[str, dict[str, Any]] = {}
_MOST_USED = 20


def vega_charts(context: ChartContext, words: Vocabulary) -> dict[str, dict[str, Any]]:
    """Return the charts of a page in Vega, by their ids, with titles in the words for the run's rows."""
    outline = outline_of(context)
    charts = {name: outline.filled(spec) for name, spec in _compiled(outline.context, words).items()}
    for chart in CHARTS.values():
        height = chart.height_in(context)  # the placeholder of a number of classes is not their number
        for name, _ in chart.variants():
            if name in charts and isinstance(height, int):
                charts[name]["height"] = height
    return charts


@dataclass(frozen=True)
class Outline:
    """A context with placeholders for what is a run's own, and what they stand for.

    Attributes
    ----------
    context : ChartContext
    values : dict
        By number, by name, and by the tuple of all ticks of an axis.
    """

    context: ChartContext
    values: dict[Hashable, Any]

    def filled(self, part: Any) -> Any:
        """Return a compiled spec, or a part of one, with the values in place of the placeholders."""
        if isinstance(part, dict):
            return {name: self.filled(value) for name, value in part.items()}
        if isinstance(part, list):
            is_ticks = len(part) == len(self.context.odds_ticks) and tuple(part) == self.context.odds_ticks
            return self.values[tuple(part)] if is_ticks else [self.filled(value) for value in part]
        if isinstance(part, str):
            return self._text(part)
        return self.values.get(part, part)

    def _text(self, text: str) -> str:
        if _NAME not in text or text in self.values:
            return encodable(str(self.values.get(text, text)))
        for name, value in self.values.items():  # in an expression, as JSON
            if isinstance(name, str):
                text = text.replace(json.dumps(name), json.dumps(value))
        return text


def outline_of(context: ChartContext) -> Outline:
    """Return what a context has in common with those of other runs, and what is its own."""
    values: dict[Hashable, Any] = {}
    number, name = _number_placeholders(values), _name_placeholders(values)
    first, last = number(context.epochs[0]), number(context.epochs[-1])
    epochs = min(len(context.epochs), MOST_DOTS + 1)
    alike = 2 if 1 < epochs <= MOST_DOTS else epochs  # any such number is drawn alike
    low, *_, high = context.odds_ticks
    ticks = number(low, is_low=True), number(high), number(high)
    outline = replace(
        context,
        epochs=[first] * (alike - 1) + [last],
        classes=next((size for size in SIZES if context.classes <= size), SIZES[-1] + 1),
        odds_ticks=ticks,
        limits={
            chart: {end: number(value) for end, value in ends.items()}
            for chart, ends in context.limits.items()
        },
        splits=tuple(map(name, context.splits)),
        marks={label: name(text) for label, text in context.marks.items()},
        rise=context.rise and name(context.rise),
        not_finite={kind: name(text) for kind, text in context.not_finite.items()},
        runs=tuple(map(name, context.runs)),
        sides=tuple(map(name, context.sides)),
    )
    values[ticks] = list(map(_in_json, context.odds_ticks))
    values[columns_for(key_labels(outline))] = columns_for(key_labels(context))
    return Outline(outline, values)


def _number_placeholders(values: dict[Hashable, Any]) -> Callable[..., float]:
    """Return a function that puts a placeholder in place of a number: one that no chart has.

    It has the sign of the number: Vega-Lite asks whether 0 lies between the ends of an axis, where 0 as the
    low end counts like a number below it.
    """

    def number(value: float, *, is_low: bool = False) -> float:
        size = 7919 + len(values) + 1 / 64  # which no conversion rounds
        placeholder = -size if value < 0 or (value == 0 and is_low) else size
        values[placeholder] = _in_json(value)
        return placeholder

    return number


def _name_placeholders(values: dict[Hashable, Any]) -> Callable[[str], str]:
    def name(text: str) -> str:
        placeholder = f"{_NAME}{len(values)}"
        values[placeholder] = text
        return placeholder

    return name


def _in_json(value: float) -> float:
    """Return a number as JavaScript writes it: a whole one without a point."""
    return int(value) if float(value).is_integer() else value


def _compiled(outline: ChartContext, words: Vocabulary) -> dict[str, Any]:
    """Return the compiled charts of an outline: those of this process, of the cache, or made anew."""
    digest = _digest(outline, words)
    found = _used.get(digest)
    if found is None:
        name = f"charts-{digest}.json.gz"
        kept = read_own(name)
        found = json.loads(gzip.decompress(kept)) if kept else compiled(said_in(words, chart_specs(outline)))
        if not kept:
            write_own(name, gzip.compress(json.dumps(found).encode("ascii")))
        if len(_used) >= _MOST_USED:
            _used.clear()  # another thread may do so too
        _used[digest] = found
    return found


def _digest(outline: ChartContext, words: Vocabulary) -> str:
    """Return the digest of all that compiled charts depend on: outline, words, code, and what compiles."""
    said = [] if words.are_usual else [words.pattern, *words.nouns]
    text = json.dumps([asdict(outline), said, _code(), version("altair"), version("vl-convert-python")])
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@cache
def _code() -> str:
    """Return a digest of the code that draws charts."""
    room = files("confshift.reporting")
    drawing = sorted((room / "charts").iterdir(), key=lambda file: file.name)
    sources = [file.read_bytes() for file in drawing if file.name.endswith(".py")]
    sources += [(room / name).read_bytes() for name in ("theme.py", "outlines.py", "vega.py")]
    return hashlib.sha256(b"\0".join(sources)).hexdigest()
