"""What a reader sees first without the page: the lines of a terminal and of a notebook."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.analysis.recommendation import Recommendation
from confshift.findings.answer import Answer
from confshift.findings.commands import Places, in_place
from confshift.findings.kinds import CAUSES, OVERFITTING
from confshift.findings.overfitting import course_of_training, in_words
from confshift.findings.question import SEVERITIES, Finding
from confshift.findings.steps import by_severity
from confshift.findings.two_runs import better_run
from confshift.findings.wording import epoch
from confshift.reporting.captions import READINGS, fill
from confshift.reporting.characters import printable
from confshift.reporting.first_screen import BY_PART, chance, differences, verdicts
from confshift.reporting.pair_values import key_values
from confshift.reporting.subject import Story

#: The transitions in the words of the page, the parts that are largest in most rises first.
LABELS = {
    "stayed_wrong": "still wrong",
    "forgotten": "newly wrong",
    "learned": "newly right",
    "stayed_right": "still right",
}
_LABELS_OF_TWO = {
    "stayed_wrong": "wrong in both",
    "forgotten": "right in the first only",
    "learned": "right in the second only",
    "stayed_right": "right in both",
}


_PARTS = {"scale_part": "scale", "balance_part": "class balance", "rest_part": "the rest, once calibrated"}


@dataclass(frozen=True, eq=False, repr=False)
class Summary:
    """The first lines about a run, or about two.

    Attributes
    ----------
    answer : Answer
    numbers : str
        Loss, accuracy and calibrated loss, before and after, with what is measurable.
    sources : str
        Where the change comes from, in amounts that add up; "" where nothing is compared.
    findings : tuple of Finding
    kept : Recommendation or None
        The checkpoint to keep; of two runs that of the better one, None where neither is.
    cause : str
        In the words of a program's reader.
    kept_run : str
        Of two runs the name of the better one; else "".
    kept_accuracy : float
        Of that checkpoint once recalibrated as recommended, a fraction; NaN where it is not known.
    comparison : Comparison
        Of the two checkpoints that are shown.
    """

    answer: Answer
    numbers: str
    sources: str
    findings: tuple[Finding, ...]
    kept: Recommendation | None
    kept_run: str
    kept_accuracy: float
    cause: str
    comparison: Comparison

    @property
    def checks(self) -> str:
        """How many findings are of each severity that there is, and how many problems."""
        counts: Counter[str] = Counter(finding.severity for finding in self.findings)
        words = {"problem": "problem" if counts["problem"] == 1 else "problems"}
        said = [name for name in SEVERITIES if counts[name] or name == "problem"]
        parts = [f"{counts[name] or 'no'} {words.get(name, name)}" for name in said]
        return f"Checks: {', '.join(parts)}."

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that matter first: action, why and remarks, numbers, sources, checks."""
        lines = (
            self.answer.action,
            self.answer.why,
            *self.answer.remarks,
            self.numbers,
            self.sources,
            self.checks,
        )
        return tuple(line for line in lines if line)


def summary_of(story: Story) -> Summary:
    """Summarize a story."""
    comparison = story.comparison
    is_alone = comparison.before is comparison.after
    values = key_values(comparison, story.side_names)
    values |= differences(values) if story.two_runs else verdicts(story.history, comparison)
    numbers = _alone(values, story) if is_alone else _changes(values, story)
    sources = "" if is_alone else _sources(values, _labels(story))
    words = story.words
    return Summary(
        story.answer.said_in(words),
        words.say(numbers),
        words.say(sources),
        tuple(finding.said_in(words) for finding in story.findings),
        *_kept(story),
        words.say(cause_of(story.answer.kind, story.history)),
        comparison,
    )


def cause_of(kind: str, history: History) -> str:
    """Name the cause of what happened; overfitting only as far as the training loss shows it."""
    if kind not in OVERFITTING:
        return CAUSES[kind]
    course = course_of_training(history)
    if course is None:
        return f"{CAUSES[kind]}; whether by overfitting is open: the training loss is not known"
    return f"{CAUSES[kind]}; {'' if course.fell else 'not '}overfitting: {in_words(course)}"


def _kept(story: Story) -> tuple[Recommendation | None, str, float]:
    name, history = "", story.history
    if story.two_runs:
        better, _ = better_run(story.comparison, (story.names[0], story.names[1]))
        if better is None:
            return None, "", math.nan
        name, history = story.names[better], story.histories[better]
    choice = history.recommendation
    return choice, name, history.calibrated_accuracy.value if choice.with_biases else choice.accuracy


def _changes(values: Mapping[str, Any], story: Story) -> str:
    sides = [epoch(side.epoch) for side in (story.comparison.before, story.comparison.after)]
    if story.two_runs:
        start = " → ".join(f"{name} at epoch {at}" for name, at in zip(story.names, sides, strict=True))
    else:
        start = f"Epoch {' → '.join(sides)}"
    weighted = _weighted(story.comparison)
    names = {
        "loss": f"{weighted}loss",
        "accuracy": "accuracy",
        "calibrated": f"{weighted}calibrated loss",
    }
    parts = [
        f"{text} {fill(READINGS[f'{name}_levels'], values)} ({fill(READINGS[f'{name}_status'], values)})"
        for name, text in names.items()
    ]
    return f"{start}: {', '.join(parts)}."


def _alone(values: Mapping[str, Any], story: Story) -> str:
    loss = "infinite" if values["infinite_after"] else values["loss_to"]
    weighted = _weighted(story.comparison)
    template = (
        f"Epoch {{B:epoch}}: {weighted}loss {{loss:text}}, accuracy {{accuracy_after:percent}} "
        f"({{chance:text}}), {weighted}calibrated loss {{refinement_to:text}}."
    )
    return fill(template, {**values, "loss": loss, "chance": chance(story.history)})


def _weighted(comparison: Comparison) -> str:
    return "" if comparison.panel.weights is None else "weighted "


def _labels(story: Story) -> Mapping[str, str]:
    if story.two_runs:
        return _LABELS_OF_TWO
    return _PARTS if story.answer.kind in BY_PART else LABELS


def _sources(values: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    parts = [f"{labels[name]} {values[f'{name}_amount']}" for name in labels]
    return f"{fill(READINGS['sources'], values)}: {', '.join(parts)}."


def summary_text(summary: Summary, places: Places, *, every_check: bool = False) -> str:
    """Write the first lines, the steps and a line for each problem; or every check in full.

    Parameters
    ----------
    summary : Summary
    places : mapping
        What RUN and OTHER stand for in commands.
    every_check : bool
        Whether to write every finding, the problems first.
    """
    parts = ["\n".join(map(printable, summary.lines))]
    if summary.answer.steps:
        parts.append("\n".join(["Do this:", *_steps(summary.answer, places)]))
    ordered = by_severity(summary.findings)
    if every_check:
        return "\n\n".join([*parts, findings_text(ordered, places)])
    problems = [finding for finding in ordered if finding.severity == "problem"]
    if problems:
        parts.append("\n".join(["Problems:", *(f"  {printable(_heading(finding))}" for finding in problems)]))
    parts.append("--all prints every check.")
    return "\n\n".join(parts)


def findings_text(findings: Sequence[Finding], places: Places) -> str:
    """Write findings in full, a paragraph each."""
    return "\n\n".join(_paragraph(finding, places) for finding in findings)


def _steps(answer: Answer, places: Places) -> list[str]:
    lines = []
    for number, step in enumerate(answer.steps, 1):
        lines.append(f"{number}. {printable(step.text)}")
        lines += [f"     {printable(line)}" for line in in_place(step.code, places).splitlines()]
    return lines


def _heading(finding: Finding) -> str:
    return finding.answer or finding.title


def _paragraph(finding: Finding, places: Places) -> str:
    lines = [f"[{finding.severity}] {printable(_heading(finding))}"]
    if finding.answer:
        lines.append(
            f"  {printable(f'{finding.title} {finding.verdict}.')} More: confshift explain {finding.code}"
        )
    lines.append(f"  {printable(finding.sentence)}")
    if finding.details:
        lines.append(f"  {printable(finding.details)}")
    if finding.next_step:
        lines.append(f"  Next: {printable(finding.next_step)}")
    if finding.command:
        lines.append(f"     {printable(in_place(finding.command, places))}")
    return "\n".join(lines)


def findings_document(findings: Sequence[Finding], places: Places) -> list[dict[str, Any]]:
    """Return findings as plain values, their commands with the paths in place."""
    return [{**finding.to_dict(), "command": in_place(finding.command, places)} for finding in findings]


def answer_document(answer: Answer, places: Places) -> dict[str, Any]:
    """Return an answer as plain values, the code of its steps with the paths in place."""
    values = answer.to_dict()
    steps = [{**step, "code": in_place(step["code"], places)} for step in values["steps"]]
    return {**values, "steps": steps}
