"""A finding as text and as plain values."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from confshift.findings.question import VERDICTS, Question

EVIDENCE = pd.DataFrame(
    {"change": [0.5, math.nan, math.inf], "samples": np.array([1, 2, 3]), "name": ["a", "b", "c"]},
    index=pd.Index(["loss", "hedge", "temperature"], name="quantity"),
)


def finding(evidence=EVIDENCE, next_step="Look."):
    return Question("code", "A question?").answer("yes", "A sentence.", evidence, next_step)


def test_it_is_strict_json():
    text = json.dumps(finding().to_dict(), allow_nan=False)
    assert json.loads(text) == {
        "code": "code",
        "title": "A question?",
        "verdict": "yes",
        "severity": "problem",
        "answer": "",
        "sentence": "A sentence.",
        "details": "",
        "next_step": "Look.",
        "command": "",
        "evidence": [
            {"quantity": "loss", "change": 0.5, "samples": 1, "name": "a"},
            {"quantity": "hedge", "change": None, "samples": 2, "name": "b"},
            {"quantity": "temperature", "change": None, "samples": 3, "name": "c"},
        ],
    }


@pytest.mark.parametrize(
    ("evidence", "rows"),
    [
        (pd.DataFrame({"a": [1]}), [{"a": 1}]),
        (pd.DataFrame({"a": []}), []),
        (
            pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("x", "y")], names=["i", "j"])),
            [{"i": "x", "j": "y", "a": 1}],
        ),
    ],
)
def test_the_index_is_evidence_where_it_has_a_name(evidence, rows):
    assert json.loads(json.dumps(finding(evidence).to_dict()))["evidence"] == rows


def test_it_reads_as_verdict_question_sentence_and_step():
    assert str(finding()) == "[yes] A question?\n  A sentence.\n  Next: Look."
    assert str(finding(next_step="")) == "[yes] A question?\n  A sentence."


def test_what_decides_nothing_keeps_what_was_found_among_its_details_and_advises_nothing():
    question = Question("code", "A question?", undecided="Whether it is so is undecided")
    left = question.answer(
        "yes", "It is so.", EVIDENCE, "Look.", answer="So", details="At 3.", command="look"
    ).left_undecided("It may be noise.")
    assert (left.verdict, left.severity) == ("cannot tell", "undecided")
    assert left.answer == "Whether it is so is undecided"
    assert (left.sentence, left.details) == ("It may be noise.", "It is so. At 3.")
    assert (left.next_step, left.command) == ("", "")


def test_there_are_four_verdicts():
    assert VERDICTS == ("yes", "no", "cannot tell", "not applicable")
