"""The comparison with other packages: no time without an answer that agrees, no row without who is first."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import peers

from peer_answers import QUESTIONS, Question, draw

#: Answered by what is installed with confshift; torch.optim takes seconds to import.
OURS = ("confshift", "torch", "scipy", "scipy, bounded", "scikit-learn")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_what_is_installed_answers_as_confshift_does(question):
    ways = {name: way for name, way in question.ways.items() if name in OURS}
    assert next(iter(ways)) == "confshift"
    assert peers.check(replace(question, ways=ways), *draw(800, 10)) == []


def asked(answer, **more):
    return Question("size", {"confshift": lambda *_: 2.0, "other": lambda *_: answer}, 1e-3, "", **more)


def test_an_answer_that_differs_ends_the_comparison_unless_the_reason_is_known():
    assert peers.check(asked(2.002), None, None) == []
    with pytest.raises(SystemExit, match=r"size: other says 2\.1, confshift 2"):
        peers.check(asked(2.1), None, None)
    (note,) = peers.check(asked(2.1, known={"other": "it rounds"}), None, None)
    assert note == ("other", "2.1000 where confshift has 2.0000", "it rounds")


def test_a_fit_that_is_better_than_confshifts_has_no_excuse():
    question = asked(1.9, known={"other": "it rounds"}, judge=lambda answer, *_: answer)
    with pytest.raises(SystemExit, match=r"other reaches 1\.9, confshift only 2"):
        peers.check(question, None, None)


def test_a_ratio_is_of_the_least_times():
    one = peers.Times(np.array([1.0, 2.0, 4.0]), np.array([1.0, 1.0, 1.0]))
    other = peers.Times(np.array([2.0, 4.0, 4.0]), np.array([3.0, 1.0, 5.0]))
    assert peers.ratios({"confshift": one, "other": other}) == {"confshift": (1, 1), "other": (2, 1)}


@pytest.mark.parametrize(("ratio", "text"), [(0.304, "0.3"), (1.26, "1.3"), (99.4, "99"), (126.0, "126")])
def test_ratios_are_written_in_plain_digits(ratio, text):
    assert peers.digits(ratio) == text
