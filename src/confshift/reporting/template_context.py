"""The context of the template: sentences, tables and pictures for readers, data for the script."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.findings import wording
from confshift.findings.question import SEVERITIES
from confshift.findings.two_runs import course
from confshift.reporting import footer
from confshift.reporting.captions import READINGS, fill
from confshift.reporting.charts.parts import ChartContext
from confshift.reporting.epoch_tables import chart_context, epoch_table, run_tables, two_run_tables
from confshift.reporting.first_screen import differences, first_screen, verdicts
from confshift.reporting.glossary import Glossary
from confshift.reporting.label_table import label_table
from confshift.reporting.layout import TextTable, card_of, charts_of, lay_out, text_table
from confshift.reporting.outlines import vega_charts
from confshift.reporting.output import document
from confshift.reporting.page_data import (
    PageData,
    SampleData,
    pack_bytes,
    page_data,
    places_of,
    sample_data,
)
from confshift.reporting.pair_tables import pair_tables, shown_classes
from confshift.reporting.pair_values import pair_values
from confshift.reporting.row_texts import row_texts
from confshift.reporting.subject import Story
from confshift.reporting.subset_tables import subset_tables
from confshift.reporting.vega import pictures

#: Samples times epochs, and samples, that a page holds one by one.
_MAX_CELLS, _MAX_SAMPLES = 2_000_000, 20_000
#: A class filter with more entries would not help.
_MAX_FILTER = 2_000
#: Samples in the table of those that rose most.
_MOVERS = 12


def sample_limit(story: Story) -> int:
    """Return how many samples a page may hold one by one."""
    return min(_MAX_SAMPLES, max(1, _MAX_CELLS // len(story.page_history.main.checkpoints)))


def contents(story: Story) -> dict[str, Any]:
    """Return the names that the template uses, without those of `sample_contents`."""
    if story.two_runs:
        over_epochs = two_run_tables(story.histories, story.names)
    else:
        over_epochs = run_tables(story.page_history, story.history)
    history, comparison = story.page_history, story.comparison
    classes = shown_classes(comparison.classes)
    tables = {**over_epochs, **pair_tables(comparison, classes=classes, at=story.side_names)}
    values = _values(story, classes)
    context = chart_context(
        story.histories, history, classes=len(classes), names=story.names if story.two_runs else ()
    )
    specs = vega_charts(context, story.words)
    data, arrays = page_data(
        history,
        comparison,
        tables=tables,
        specs=specs,
        classes=classes,
        values=values,
        ticks=context.odds_ticks,
        two_runs=story.two_runs,
        words=story.words,
    )
    highest = tables["epochs"]["loss"].max()
    return {
        **_words(story, values),
        **_findings(story, context),
        "new_glossary": Glossary,
        "pictures": pictures(specs, tables, paired=context.paired),
        "paired": context.paired,
        "two_runs": story.two_runs,
        "names": story.names,
        "courses": [course(history, letter) for letter, history in zip("AB", story.histories, strict=False)],
        "pair": data.pair,
        "falls": bool(highest > context.limits["loss_near"].get("domainMax", highest)),
        "epochs": [wording.epoch(epoch) for epoch in context.epochs],
        "classes": _class_options(story.page_history),
        "pair_parts": {"data": _packed(data), **arrays},
    }


def _findings(story: Story, context: ChartContext) -> dict[str, Any]:
    """Return the findings by severity, and as they stand in the sections."""
    cards = [card_of(finding, story.places, two_runs=story.two_runs) for finding in story.findings]
    sections, others = lay_out(cards, context)
    by_severity = {
        severity: [card for card in cards if card["severity"] == severity] for severity in SEVERITIES
    }
    top = charts_of("top", context)
    codes = [card["code"] for card in cards]
    return {"cards": by_severity, "sections": sections, "others": others, "top": top, "codes": codes}


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
        "sprite": thumbnails.sprite,
        "sample_parts": {"sample-data": _packed(samples), **arrays},
    }


def _values(story: Story, classes: list[int]) -> dict[str, Any]:
    """Return the numbers of the sentences, for the pair of the report."""
    by_epoch, comparison = epoch_table(story.page_history), story.comparison
    before, after = (by_epoch.iloc[at] for at in places_of(story.page_history, comparison))
    values = pair_values(comparison, classes, story.side_names, before=before, after=after)
    statuses = differences(values) if story.two_runs else verdicts(story.history, comparison)
    return {**values, **statuses}


def _words(story: Story, values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": story.title,
        **first_screen(story, values),
        "values": values,
        "readings": {key: fill(text, values) for key, text in READINGS.items()},
        "key_table": key_table(story.comparison.change, ("A", "B") if story.two_runs else story.side_names),
        "movers": _movers(story.comparison),
        "labels": _labels(story),
        "subsets": _subsets(story),
        "start": text_table(footer.start_table(story.history)),
        "problems": text_table(story.problems),
    }


def _packed(data: PageData | SampleData) -> str:
    """Write data as JSON, packed: numbers take a third of the room, and equal parts of two specs none."""
    text = document(**{field.name: getattr(data, field.name) for field in fields(data)})
    return pack_bytes(text.encode("ascii"))


def _movers(comparison: Comparison) -> list[list[str]]:
    """Return the samples whose loss rose most, as text."""
    names, whole = comparison.panel.class_labels, comparison.whole
    top = comparison.top_samples(_MOVERS)
    rows = np.searchsorted(whole.sample_ids, top.index.to_numpy().astype(whole.sample_ids.dtype))
    texts = row_texts(whole, rows)
    return [
        [
            text,
            names[row["target"]],
            names[row["predicted_before"]],
            names[row["predicted_after"]],
            *wording.levels_and_change(row["loss_before"], row["loss_after"]),
        ]
        for text, (_, row) in zip(texts, top.iterrows(), strict=True)
    ]


def _labels(story: Story) -> TextTable:
    head, rows = label_table(story.comparison, ("A", "B"))
    return {"head": head, "rows": rows, "more": 0}


def _subsets(story: Story) -> dict[str, TextTable]:
    tables = subset_tables(story.comparison, ("A", "B"))
    return {name: {"head": head, "rows": rows, "more": 0} for name, (head, rows) in tables.items()}


def _class_options(history: History) -> list[tuple[int, str]]:
    """Return the classes that have samples, for the filter."""
    panel = history.main
    present = np.unique(panel.targets)
    return (
        [(int(label), panel.class_labels[label]) for label in present] if len(present) <= _MAX_FILTER else []
    )


def key_table(change: pd.DataFrame, sides: tuple[str, str] = ("before", "after")) -> TextTable:
    """Return the main quantities on both sides, by their names, and their changes, as text."""
    rows = []
    names = ["loss", *(name for name in ("smoothing_loss", "trained_loss") if name in change.index)]
    names += ["calibration_loss", "refinement_loss", "accuracy", "confidence", "temperature"]
    for name in names:
        row = change.loc[name]
        write = wording.shares_and_change if row["unit"] == "fraction" else wording.levels_and_change
        is_known = not math.isnan(row["change"])
        interval = wording.interval(row).removeprefix("95 % interval ")
        unit = ", nats" if row["unit"] == "nats" else ""
        if row["samples"] < change.loc["accuracy", "samples"]:  # some loss is infinite
            unit += ", where finite"
        rows.append(
            [
                name.replace("_", " ") + unit,
                *write(row["before"], row["after"]),
                interval if is_known else "–",
                f"{row['samples']:,}",
            ]
        )
    head = ["quantity", *sides, "change", "95 % interval", "samples"]
    return {"head": head, "rows": rows, "more": 0}
