"""Finding: one question about a run, answered."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd

__all__ = ["VERDICTS", "Finding", "Verdict"]

Verdict = Literal["yes", "no", "cannot tell", "not applicable"]
VERDICTS: tuple[str, ...] = get_args(Verdict)


@dataclass(frozen=True, eq=False)
class Finding:
    """A question that people ask of a run, with its answer and the evidence for it.

    Attributes
    ----------
    code : str
        Stable name, for programs.
    title : str
        The question.
    verdict : {"yes", "no", "cannot tell", "not applicable"}
        The answer to the title.
    sentence : str
        What was found in this run, with its numbers.
    evidence : DataFrame
        The numbers behind the sentence, unrounded.
    next_step : str
        What to do about it; "" where there is nothing to do.
    """

    code: str
    title: str
    verdict: Verdict
    sentence: str
    evidence: pd.DataFrame
    next_step: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, for JSON; the evidence as a list of rows, None where not finite."""
        named = self.evidence.index.names != [None]
        rows = self.evidence.reset_index() if named else self.evidence
        finite = rows.astype(object).where(rows.notna() & ~rows.isin([math.inf, -math.inf]), None)
        return {
            "code": self.code,
            "title": self.title,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "next_step": self.next_step,
            "evidence": finite.to_dict(orient="records"),
        }

    def __str__(self) -> str:
        text = f"[{self.verdict}] {self.title}\n  {self.sentence}"
        return f"{text}\n  Next: {self.next_step}" if self.next_step else text
