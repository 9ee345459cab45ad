"""The context of the template: sentences, tables and pictures for readers, data for the script."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.findings import wording
from confshift.findings.question import Finding
from confshift.findings.two_runs import course
from confshift.reporting import footer
from confshift.reporting.captions import READINGS, fill
from confshift.reporting.charts import CHARTS, chart_specs
from confshift.reporting.charts.parts import Chart, ChartContext
from confshift.reporting.epoch_tables import chart_context, epoch_table, run_tables, two_run_tables
from confshift.reporting.output import document
from confshift.reporting.page_data import PageData, SampleData, page_data, places_of, sample_data
from confshift.reporting.pair_tables import pair_tables, shown_classes
from confshift.reporting.pair_values import pair_values
from confshift.reporting.subject import Story
from confshift.reporting.theme import CELL_LABELS
from confshift.reporting.vega import compiled, pictures

#: The title of each section, by its anchor.
SECTIONS = {
    "rise": "Is it systematic, and which checkpoint is best?",
    "account": "What changed",
    "cells": "In which samples",
    "history": "How it came about",
    "parts": "Calibration or information",
    "classes": "Where: classes",
    "reliability": "Can the confidence be believed?",
    "concentration": "How many samples carry it",
    "samples": "Single samples",
    "start": "Was the start sane?",
    "measuring": "Is it measured right?",
    "other": "Further questions",
}


#: Samples times epochs, and samples, that a page holds one by one.
_MAX_CELLS, _MAX_SAMPLES = 2_000_000, 20_000
#: Rows of a table on the page, which is not a spreadsheet.
_MAX_ROWS = 20
#: A class filter with more entries would not help.
_MAX_FILTER = 2_000
#: Samples in the table of those that rose most.
_MOVERS = 12

#: The findings whose advice is the answer to "what now?".
_ABOUT_THE_RUN = ("diverged", "run_kind", "best_checkpoint")

#: A table as text: its head, its rows, and how many more there are.
TextTable = Mapping[str, Any]


def sample_limit(story: Story) -> int:
    """Return how many samples a page may hold one by one."""
    return min(_MAX_SAMPLES, max(1, _MAX_CELLS // len(story.page_history.main.checkpoints)))


def contents(story: Story) -> dict[str, Any]:
    """Return the names that the template uses, without those of `sample_contents`."""
    if story.two_runs:
        over_epochs = two_run_tables(story.histories, story.names)
    else:
        over_epochs = run_tables(story.page_history, story.history.rise)
    history, comparison = story.page_history, story.comparison
    classes = shown_classes(comparison.classes)
    tables = {**over_epochs, **pair_tables(comparison, classes=classes, at=story.side_names)}
    values = _values(story, classes)
    context = chart_context(
        story.histories, history, classes=len(classes), names=story.names if story.two_runs else ()
    )
    specs = chart_specs(context)
    data, arrays = page_data(
        history,
        comparison,
        tables=tables,
        specs=compiled(specs),
        classes=classes,
        values=values,
        ticks=context.odds_ticks,
        two_runs=story.two_runs,
    )
    highest = tables["epochs"]["loss"].max()
    return {
        **_words(story, values),
        "top": _charts("top", context),
        "sections": _sections(story.findings, context),
        "pictures": pictures(specs, tables, paired=context.paired),
        "paired": context.paired,
        "two_runs": story.two_runs,
        "names": story.names,
        "courses": [
            course(history, name) for history, name in zip(story.histories, story.names, strict=True)
        ],
        "pair": data.pair,
        "falls": bool(highest > context.limits["loss_near"].get("domainMax", highest)),
        "epochs": [wording.epoch(epoch) for epoch in context.epochs],
        "classes": _class_options(story.page_history),
        "data": _json(data),
        "pair_arrays": arrays,
    }


def sample_contents(story: Story, *, limit: int) -> tuple[int, dict[str, Any]]:
    """Return how many samples the page holds one by one, and the names that the template uses for them."""
    pictured, thumbnails = story.inputs
    samples, arrays = sample_data(
        story.page_history, story.comparison, limit=limit, pictured=pictured, thumbnails=thumbnails
    )
    count, epochs = samples.carried, len(story.page_history.main.checkpoints)
    return count, {
        "sampled": count < len(story.history.main.targets),
        "facts": footer.reconciliation(
            story.histories, story.comparison, page_epochs=epochs, page_samples=count
        ),
        "samples": _json(samples),
        "sprite": thumbnails.sprite,
        "sample_arrays": arrays,
    }


def _values(story: Story, classes: list[int]) -> dict[str, Any]:
    """Return the numbers of the sentences, for the pair of the report."""
    by_epoch = epoch_table(story.page_history)
    before, after = (by_epoch.iloc[at] for at in places_of(story.page_history, story.comparison))
    return pair_values(story.comparison, classes, story.side_names, before=before, after=after)


def _words(story: Story, values: Mapping[str, Any]) -> dict[str, Any]:
    sentences = {key: text for key, text in READINGS.items() if not key.startswith("cell_")}
    return {
        "title": story.title,
        "answer": story.answer,
        "findings": [_card(finding) for finding in story.findings],
        "steps": _steps(story.findings),
        "readings": {key: fill(text, values) for key, text in sentences.items()},
        "cell_sentences": _cell_sentences(story.comparison),
        "key_table": key_table(story.comparison.change),
        "movers": _movers(story.comparison),
        "start": _text_table(footer.start_table(story.history)),
        "problems": _text_table(story.problems),
    }


def _steps(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings with a next step, the most useful first, each step once."""
    first: dict[str, Finding] = {}
    for finding in sorted(findings, key=_urgency):
        if finding.next_step:
            first.setdefault(finding.next_step, finding)
    return list(first.values())


def _urgency(finding: Finding) -> int:
    """Rank advice on the whole run first, then what to look at, then what is undecided."""
    is_decided = finding.verdict != "not applicable" and "undecidable" not in set(
        finding.evidence.get("kind", ())
    )
    if finding.code in _ABOUT_THE_RUN and is_decided:
        return _ABOUT_THE_RUN.index(finding.code)
    return len(_ABOUT_THE_RUN) + ("yes", "no", "cannot tell", "not applicable").index(finding.verdict)


def _json(data: PageData | SampleData) -> str:
    """Write data as JSON that can't end a script element."""
    text = document(**{field.name: getattr(data, field.name) for field in fields(data)})
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _sections(findings: Iterable[Finding], context: ChartContext) -> list[dict[str, Any]]:
    """Put every finding into its section; those of a section that the page lacks come last."""
    cards: dict[str, list[dict[str, Any]]] = {anchor: [] for anchor in SECTIONS}
    for finding in findings:
        cards.get(finding.question.section, cards["other"]).append(_card(finding))
    sections = [
        {"anchor": anchor, "title": title, "charts": _charts(anchor, context), "cards": cards[anchor]}
        for anchor, title in SECTIONS.items()
    ]
    return [section for section in sections if section["charts"] or section["cards"]]


def _charts(section: str, context: ChartContext) -> list[Chart]:
    """Return the charts of a section that this page can show."""
    return [
        chart
        for chart in CHARTS.values()
        if chart.section == section
        and (context.paired or not chart.pair_only)
        and not (context.two_runs and chart.one_run)
    ]


def _card(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "title": finding.title,
        "verdict": finding.verdict,
        "sentence": finding.sentence,
        "answer": finding.answer,
        "details": finding.details,
        "severity": finding.severity,
        "next_step": finding.next_step,
        "evidence": _text_table(finding.evidence),
    }


def _cell_sentences(comparison: Comparison) -> list[tuple[str, str]]:
    cells = comparison.cells
    rows = []
    for cell in CELL_LABELS:
        values = {"n": int(cells.loc[cell, "samples"]), "c": float(cells.loc[cell, "contribution"])}
        rows.append(("_".join(cell), fill(READINGS["cell_" + "_".join(cell)], values)))
    return rows


def _movers(comparison: Comparison) -> list[list[str]]:
    """Return the samples whose loss rose most, as text."""
    names = comparison.panel.class_labels
    top = comparison.samples.nlargest(_MOVERS, "change")
    return [
        [
            str(sample),
            names[row["target"]],
            names[row["predicted_before"]],
            names[row["predicted_after"]],
            wording.nats(row["loss_before"]),
            wording.nats(row["loss_after"]),
            wording.signed(row["change"]),
        ]
        for sample, row in top.iterrows()
    ]


def _class_options(history: History) -> list[tuple[int, str]]:
    """Return the classes that have samples, for the filter."""
    panel = history.main
    present = np.unique(panel.targets)
    return (
        [(int(label), panel.class_labels[label]) for label in present] if len(present) <= _MAX_FILTER else []
    )


def key_table(change: pd.DataFrame) -> TextTable:
    """Return before, after and change of the main quantities, as text."""
    rows = []
    for name in ("loss", "calibration_loss", "refinement_loss", "accuracy", "confidence", "temperature"):
        row = change.loc[name]
        number = wording.percent if row["unit"] == "fraction" else wording.nats
        change_text = wording.points if row["unit"] == "fraction" else wording.signed
        is_known = not math.isnan(row["change"])
        interval = wording.interval(row).removeprefix("95 % interval ")
        unit = ", nats" if row["unit"] == "nats" else ""
        if row["samples"] < change.loc["accuracy", "samples"]:  # some loss is infinite
            unit += ", where finite"
        rows.append(
            [
                name.replace("_", " ") + unit,
                *(number(row[side]) if math.isfinite(row[side]) else "–" for side in ("before", "after")),
                change_text(row["change"]) if is_known else "–",
                interval if is_known else "–",
                f"{row['samples']:,}",
            ]
        )
    head = ["quantity", "before", "after", "change", "95 % interval", "samples"]
    return {"head": head, "rows": rows, "more": 0}


def _text_table(table: pd.DataFrame) -> TextTable:
    """Return the first rows of a table as text."""
    frame = table.reset_index() if any(name is not None for name in table.index.names) else table
    rows = [[_cell(value) for value in row] for row in frame.head(_MAX_ROWS).itertuples(index=False)]
    head = [str(name).replace("_", " ") for name in frame.columns]
    return {"head": head, "rows": rows, "more": max(0, len(frame) - _MAX_ROWS)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3e}"
    return str(value)
