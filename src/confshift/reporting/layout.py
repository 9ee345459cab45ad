"""The order of the page: which findings, and which charts, stand in which section."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from confshift.findings.commands import Places, in_place
from confshift.findings.question import SEVERITIES, Finding
from confshift.reporting.charts import CHARTS
from confshift.reporting.charts.parts import Chart, ChartContext

#: A table as text: its head, its rows, and how many more there are.
TextTable = Mapping[str, Any]
#: Rows of a table on the page, which is not a spreadsheet.
_MAX_ROWS = 20

#: A finding as the template shows it, with its `section` and its `severity`.
Card = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    anchor: str
    title: str
    parts: tuple[str, ...]  # the sections that findings and charts name


#: In their order on the page. The first has no charts, so it is there only where it has a problem, which puts
#: all other numbers in doubt.
SECTIONS = (
    Section("measuring", "Before anything else", ("measuring", "start", "other")),
    Section("cells", "Who the change comes from", ("cells", "history")),
    Section("parts", "Why: scale, class balance and the rest", ("rise", "parts", "account")),
    Section("classes", "Where: classes, and what they are taken for", ("classes", "accuracy")),
    Section("samples", "Which samples", ("samples", "concentration")),
    Section("reliability", "How sure: can the confidence be believed?", ("reliability",)),
)


def lay_out(cards: Sequence[Card], context: ChartContext) -> tuple[list[dict[str, Any]], list[Card]]:
    """Put charts, and findings that matter, into sections.

    Returns
    -------
    list of dict
        The sections: anchor, title, charts, problems, undecided.
    list of dict
        The others, for "What else was checked": the undecided ones of sections without charts, then those
        that are fine, then those that do not apply.
    """
    sections: list[dict[str, Any]] = []
    for section in SECTIONS:
        charts = [chart for part in section.parts for chart in charts_of(part, context)]
        inside = [card for card in cards if card["section"] in section.parts]
        problems = [card for card in inside if card["severity"] == "problem"]
        undecided = [card for card in inside if card["severity"] == "undecided" and charts]
        if charts or problems:
            sections.append(
                {
                    "anchor": section.anchor,
                    "title": section.title,
                    "charts": charts,
                    "problems": problems,
                    "undecided": undecided,
                }
            )
    placed = [card["code"] for section in sections for card in (*section["problems"], *section["undecided"])]
    rest = [card for card in cards if card["code"] not in placed]
    return sections, sorted(rest, key=lambda card: SEVERITIES.index(card["severity"]))


def charts_of(part: str, context: ChartContext) -> list[Chart]:
    """Return the charts of a part of the page that this page can show."""
    return [
        chart
        for chart in CHARTS.values()
        if chart.section == part
        and (context.paired or not chart.pair_only)
        and not (context.two_runs and chart.one_run)
    ]


def card_of(finding: Finding, places: Places, *, two_runs: bool = False) -> Card:
    """Return a finding as the template shows it, its command with the paths of the runs in place.

    Of two runs none is before the other: they are A and B.
    """
    return {
        "code": finding.code,
        "section": finding.question.section,
        "title": finding.title,
        "sentence": _at_sides(finding.sentence) if two_runs else finding.sentence,
        "answer": finding.answer or f"{finding.title} {finding.verdict.capitalize()}.",
        "details": _at_sides(finding.details) if two_runs else finding.details,
        "severity": finding.severity,
        "next_step": finding.next_step,
        "command": in_place(finding.command, places),
        "evidence": text_table(finding.evidence.rename(columns=_of_side) if two_runs else finding.evidence),
    }


_LETTERS = {"before": "A", "after": "B"}


def _at_sides(text: str) -> str:
    return re.sub(r"\b(before|after)\b", lambda side: f"at {_LETTERS[side[1]]}", text)


def _of_side(column: object) -> str:
    name, _, side = str(column).rpartition("_")
    return f"{name} {_LETTERS[side]}".strip() if side in _LETTERS else str(column)


def text_table(table: pd.DataFrame) -> TextTable:
    """Return the first rows of a table as text."""
    frame = table.reset_index() if any(name is not None for name in table.index.names) else table
    rows = [[_cell(value) for value in row] for row in frame.head(_MAX_ROWS).itertuples(index=False)]
    head = [str(name).replace("_", " ") for name in frame.columns]
    return {"head": head, "rows": rows, "more": max(0, len(frame) - _MAX_ROWS)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3e}"
    return str(value)
