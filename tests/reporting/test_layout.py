"""Where findings stand on the page, and the words that it explains."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.findings.question import Question
from confshift.reporting.charts.parts import ChartContext
from confshift.reporting.glossary import TERMS, Glossary, anchor
from confshift.reporting.layout import SECTIONS, card_of, lay_out

PARTS = sorted({part for section in SECTIONS for part in section.parts})


def frame(epochs=4):
    return ChartContext(range(epochs), classes=3, odds_ticks=[-1, 1], limits={})


def cards_of(*placed):
    return [
        card_of(
            Question(f"code_{at}", "A question?", section=part).answer(verdict, "So.", pd.DataFrame()), {}
        )
        for at, (part, verdict) in enumerate(placed)
    ]


def codes(cards):
    return [card["code"] for card in cards]


@given(
    st.lists(
        st.tuples(st.sampled_from(PARTS), st.sampled_from(["yes", "no", "cannot tell", "not applicable"])),
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_every_finding_has_one_place_and_problems_are_open(placed, epochs):
    cards = cards_of(*placed)
    sections, others = lay_out(cards, frame(epochs))
    inside = [card for section in sections for card in (*section["problems"], *section["undecided"])]
    assert sorted(codes([*inside, *others])) == sorted(codes(cards))
    assert {card["severity"] for card in others} <= {"undecided", "fine", "not applicable"}
    assert all(card["severity"] == "problem" for section in sections for card in section["problems"])


def test_a_problem_of_the_measurement_comes_before_everything_else():
    sections, _ = lay_out(cards_of(("cells", "yes"), ("measuring", "yes")), frame())
    assert sections[0]["anchor"] == "measuring"
    assert codes(sections[0]["problems"]) == ["code_1"]
    without, _ = lay_out(cards_of(("cells", "yes"), ("measuring", "no")), frame())
    assert "measuring" not in [section["anchor"] for section in without]


def test_what_is_undecided_stands_with_its_charts_or_leads_the_other_checks():
    placed = [("measuring", "no"), ("measuring", "cannot tell"), ("cells", "cannot tell")]
    sections, others = lay_out(cards_of(*placed), frame())
    assert codes(sections[0]["undecided"]) == ["code_2"]
    assert codes(others) == ["code_1", "code_0"]


def test_sections_without_charts_and_problems_are_left_out():
    sections, _ = lay_out([], frame(epochs=1))
    assert "cells" not in [section["anchor"] for section in sections]
    assert all(section["charts"] for section in sections)


# -------------------------------------------------------------------------------------------------- words
@given(st.lists(st.text(" .,abTens") | st.sampled_from([*TERMS, "Loss", "ties", "temperatures"]), max_size=8))
def test_words_are_linked_at_their_first_use_and_the_text_stays(pieces):
    glossary, texts = Glossary(), [" ".join(pieces[:4]), " ".join(pieces[4:])]
    parts = [glossary.parts(text) for text in texts]
    assert ["".join(part for part, _ in split) for split in parts] == texts
    links = [place for split in parts for _, place in split if place]
    assert len(links) == len(set(links))
    assert set(links) <= {anchor(term) for term in TERMS}


def test_the_longer_word_is_linked_and_parts_of_words_are_not():
    parts = Glossary().parts("By temperatures the calibration error, the cost of a mistake, the loss.")
    assert [part for part, place in parts if place] == ["calibration error", "cost of a mistake", "loss"]


@pytest.mark.parametrize("term", TERMS)
def test_an_explanation_is_a_line(term):
    assert TERMS[term].endswith(".")
    assert len(TERMS[term]) < 200


def test_of_two_runs_none_is_before_the_other():
    table = pd.DataFrame({"before": [0.5], "accuracy_after": [0.7], "samples": [3]})
    finding = Question("which", "Which?", section="cells").answer("no", "It is 1 before, 2 after.", table)
    card = card_of(finding, {}, two_runs=True)
    assert card["sentence"] == "It is 1 at A, 2 at B."
    assert card["evidence"]["head"] == ["A", "accuracy B", "samples"]
    assert card_of(finding, {})["evidence"]["head"] == ["before", "accuracy after", "samples"]
