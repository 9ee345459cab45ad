"""Questions about a run, and the findings that answer them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.wording import Vocabulary, epoch

Verdict = Literal["yes", "no", "cannot tell", "not applicable"]
VERDICTS: tuple[str, ...] = get_args(Verdict)

Severity = Literal["problem", "undecided", "fine", "not applicable"]
SEVERITIES: tuple[str, ...] = get_args(Severity)

_EXPLANATIONS = Path(__file__).with_name("explanations.md")


def explanations() -> dict[str, str]:
    """Return, by code, what each question asks, formula, thresholds and what to do, as Markdown."""
    parts = re.split(r"^## (\w+)\n", _EXPLANATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {code: text.strip() for code, text in zip(parts[1::2], parts[2::2], strict=True)}


@dataclass(frozen=True)
class Question:
    """A question that people ask about a run; it makes the findings that answer it.

    Attributes
    ----------
    code : str
        Stable name, for programs.
    title : str
        The question in words, a yes-or-no question.
    section : str
        The anchor of the page's section in which the finding stands.
    problem : {"yes", "no"} or None
        The answer that is bad news; None where neither is.
    undecided : str
        The finding's answer in a few words where the evidence decides nothing.
    """

    code: str
    title: str
    section: str = "other"
    problem: Literal["yes", "no"] | None = "yes"
    undecided: str = "Undecided"

    def answer(
        self,
        verdict: Verdict,
        sentence: str,
        evidence: pd.DataFrame,
        next_step: str = "",
        *,
        answer: str = "",
        details: str = "",
        command: str = "",
    ) -> Finding:
        """Return the finding with this answer."""
        return Finding(self, verdict, sentence, evidence, next_step, answer, details, command)

    def not_applicable(
        self,
        reason: str,
        evidence: pd.DataFrame | None = None,
        next_step: str = "",
        *,
        answer: str = "",
        details: str = "",
    ) -> Finding:
        """Return the finding that says why the question does not apply to this run."""
        table = pd.DataFrame() if evidence is None else evidence
        return self.answer("not applicable", reason, table, next_step, answer=answer, details=details)

    def without_logits(self, *checkpoints: Checkpoint) -> Finding | None:
        """Return a finding that says which logits can't be read; None where all can."""
        for checkpoint in checkpoints:
            try:
                checkpoint.predictions  # noqa: B018
            except ConfshiftError as error:
                at = epoch(checkpoint.epoch)
                return self.answer(
                    "cannot tell",
                    f"This needs the logits of epoch {at}, and they can't be used.",
                    pd.DataFrame(),
                    f"Put that file back from a copy, or inspect epoch {at} again.",
                    answer=f"The logits of epoch {at} can't be used",
                    details=f"{error}. Losses, accuracies and all that follows from them are stored apart.",
                )
        return None


@dataclass(frozen=True, eq=False)
class Finding:
    """A question that people ask about a run, with its answer and the evidence for it.

    Attributes
    ----------
    question : Question
    verdict : {"yes", "no", "cannot tell", "not applicable"}
        The answer to the question.
    sentence : str
        What was found in this run, in at most 40 words.
    evidence : DataFrame
        The numbers behind the sentence, unrounded.
    next_step : str
        What to do about it; "" where there is nothing to do.
    answer : str
        The answer in a few words, the heading of the finding on the page.
    details : str
        Margins, conditions and how it was judged; the page folds them.
    command : str
        The next step as a command line, in which RUN stands for the run's path; "" where there is none.
    hides : bool
        Whether what leaves the verdict open, such as outputs that are not finite, is a problem itself.
    restates : bool
        Whether another finding reports the same fact as a problem.
    """

    question: Question
    verdict: Verdict
    sentence: str
    evidence: pd.DataFrame
    next_step: str = ""
    answer: str = ""
    details: str = ""
    command: str = ""
    hides: bool = False
    restates: bool = False

    @property
    def code(self) -> str:
        """Stable name of the question, for programs."""
        return self.question.code

    @property
    def title(self) -> str:
        """The question in words."""
        return self.question.title

    @property
    def severity(self) -> Severity:
        """What the answer means: "problem", "undecided", "fine" or "not applicable"."""
        if self.verdict == "not applicable":
            return "not applicable"
        if self.verdict == "cannot tell":
            return "problem" if self.hides else "undecided"
        return "problem" if self.verdict == self.question.problem and not self.restates else "fine"

    def without_advice(self) -> Finding:
        """Return the finding without its next step."""
        return replace(self, next_step="", command="")

    def left_undecided(self, reason: str) -> Finding:
        """Return the finding as undecided for this reason; what was found otherwise is among its details."""
        details = f"{self.sentence} {self.details}".strip()
        answer = self.question.undecided
        return replace(
            self, verdict="cannot tell", answer=answer, sentence=reason, details=details
        ).without_advice()

    def said_in(self, words: Vocabulary) -> Finding:
        """Return the finding with its texts in the words for its rows."""
        asked = self.question
        return replace(
            self,
            question=replace(asked, title=words.say(asked.title), undecided=words.say(asked.undecided)),
            sentence=words.say(self.sentence),
            next_step=words.say(self.next_step),
            answer=words.say(self.answer),
            details=words.say(self.details),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, for JSON; the evidence as a list of rows, None where not finite."""
        has_names = self.evidence.index.names != [None]
        rows = self.evidence.reset_index() if has_names else self.evidence
        finite = rows.astype(object).where(rows.notna() & ~rows.isin([math.inf, -math.inf]), None)
        return {
            "code": self.code,
            "title": self.title,
            "verdict": self.verdict,
            "severity": self.severity,
            "answer": self.answer,
            "sentence": self.sentence,
            "details": self.details,
            "next_step": self.next_step,
            "command": self.command,
            "evidence": finite.to_dict(orient="records"),
        }

    def __str__(self) -> str:
        text = "\n  ".join(filter(None, (f"[{self.verdict}] {self.title}", self.sentence, self.details)))
        return f"{text}\n  Next: {self.next_step}" if self.next_step else text
