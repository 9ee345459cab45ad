"""The charts: each is a way to draw a named table. No data, no arithmetic; only this folder uses altair.

A chart is declared in the file that draws it; the page, `plot` and its help read the declarations.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from confshift.findings.wording import Vocabulary
from confshift.reporting.charts import change, classes, confidence, epochs, samples
from confshift.reporting.charts.lazy import alt
from confshift.reporting.charts.parts import Chart, ChartContext, Spec
from confshift.reporting.theme import CONFIG

#: Every chart; a section shows its charts in this order.
CHARTS: dict[str, Chart] = {
    chart.name: chart for part in (epochs, change, classes, confidence, samples) for chart in part.CHARTS
}


def chart_specs(context: ChartContext, *, only: Collection[str] | None = None) -> dict[str, Spec]:
    """Return the Vega-Lite spec of every chart, or of some, by its id; each reads tables by name."""
    # The schema is checked by the tests, once for all charts: here it would take half of the time.
    with alt.utils.schemapi.debug_mode(False):
        return {
            name: _spec(chart, context, variant)
            for chart in CHARTS.values()
            if not (chart.one_run and context.two_runs)
            for name, variant in chart.variants()
            if only is None or name in only
        }


def said_in(words: Vocabulary, spec: Any) -> Any:
    """Return specs, or a part of one, with titles and texts in the words for the run's rows."""
    if words.are_usual:
        return spec
    if isinstance(spec, list):
        return [said_in(words, part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    texts = {name: words.say(text) for name in ("title", "text") if isinstance(text := spec.get(name), str)}
    if spec.get("field") == "samples" and "title" not in spec:  # Vega's title is then the field's name
        texts["title"] = words.say("samples")
    return {name: said_in(words, part) for name, part in spec.items()} | texts


def _spec(chart: Chart, context: ChartContext, variant: str) -> Spec:
    frame = {"$schema": alt.SCHEMA_URL, "width": "container", "height": chart.height_in(context)}
    return {**frame, **chart.draw(context, variant), "config": CONFIG}
