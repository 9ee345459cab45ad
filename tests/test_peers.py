"""The comparison with other packages: no time without an answer that agrees, no row without who is first."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import pages
import peers
import peers_page
import timing
from growth import plot

from peer_answers import QUESTIONS, Question, draw

#: Answered by what is installed with confshift; torch.optim takes seconds to import.
OURS = ("confshift", "torch", "scipy", "scipy, bounded", "scikit-learn")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_what_is_installed_answers_as_confshift_does(question):
    ways = {name: way for name, way in question.ways.items() if name in OURS}
    assert next(iter(ways)) == "confshift"
    distance, differing = peers.check(replace(question, ways=ways), *draw(800, 10))
    assert distance <= question.tolerance
    assert not differing


def asked(answer, **more):
    return Question("size", {"confshift": lambda *_: 2.0, "other": lambda *_: answer}, 1e-3, "", **more)


def test_an_answer_that_differs_ends_the_comparison_unless_the_reason_is_known():
    assert peers.check(asked(2.002), None, None) == (pytest.approx(0.002 / 3), [])
    with pytest.raises(SystemExit, match=r"size: other says 2\.1, confshift 2"):
        peers.check(asked(2.1), None, None)
    distance, (note,) = peers.check(asked(2.1, known={"other": "it rounds"}), None, None)
    assert note == {"who": "other", "value": 2.1, "ours": 2.0, "reason": "it rounds"}
    assert distance == 0


def test_a_fit_that_is_better_than_confshifts_has_no_excuse():
    question = asked(1.9, known={"other": "it rounds"}, judge=lambda answer, *_: answer)
    with pytest.raises(SystemExit, match=r"other reaches 1\.9, confshift only 2"):
        peers.check(question, None, None)


def test_every_way_is_run_so_many_rounds_and_the_first_is_the_measure():
    calls = []
    ways = {"confshift": lambda: calls.append("a"), "other": lambda: calls.append("b")}
    found = timing.least_seconds(ways, 5)
    assert sorted(calls) == ["a"] * 5 + ["b"] * 5
    assert list(found) == ["confshift", "other"]
    assert timing.ratios({"confshift": 2.0, "other": 5.0}) == {"confshift": 1, "other": 2.5}


@pytest.mark.parametrize(("ratio", "text"), [(0.304, "0.3"), (1.26, "1.3"), (99.4, "99"), (126.0, "126")])
def test_ratios_are_written_in_plain_digits(ratio, text):
    assert peers_page.digits(ratio) == text


# --------------------------------------------------------------------------------------------------- the page
def tables(text):
    """Return the tables of a page, each a list of rows of cells."""
    blocks = [block.splitlines() for block in text.split("\n\n") if block.lstrip().startswith("|")]
    return [[line.strip().strip("|").split("|") for line in block if line.strip()] for block in blocks]


def result(**more):
    name = QUESTIONS[0].name
    some = {"question": name, "samples": 5000, "classes": 10, "ms": 0.7231, "distance": 2e-8, "differing": []}
    return {**some, "ratios": {"torch": 2.0, "scipy": 1.26}, **more}


def test_a_row_begins_with_confshift_and_says_that_it_is_first():
    (cells,) = tables(peers_page.row(result()))[0]
    assert [cell.strip() for cell in cells] == [
        *("loss of each sample", "5,000 × 10", "0.723 ms", "scipy 1.3, torch 2", "first"),
    ]


def test_a_row_says_where_confshift_is_not_first_and_what_its_time_is_for():
    differing = [{"who": "torch", "value": 2.0, "ours": 1.0, "reason": "it rounds"}]
    row = peers_page.row(result(ratios={"torch": 0.4, "scipy": 3.0}, differing=differing))
    assert "| torch* 0.4, scipy 3 | not first (torch), but it also gives hedge, mistake" in row
    text = "\n".join(peers_page.differing([result(differing=differing)]))
    assert "| 1.00000 | torch 2.00000 |" in text
    assert "- loss of each sample, torch: it rounds." in text


def test_a_recalibration_that_is_lower_beyond_chance_is_said_to_be():
    ours = {"who": peers_page.OURS, "loss": 0.5, "more": 0.0, "error": 0.0, "ratio": 1.0}
    other = {"who": "other", "loss": 0.4, "more": -0.1, "error": 0.01, "ratio": 0.5}
    one = {"samples": 100, "classes": 3, "seconds": 1.5, "rows": [ours, other], "left_out": ["slow"]}
    text = peers_page.recalibration(one)
    assert text.index("| other | 0.4000 | -0.1000 ± 0.0100 | 0.5 |") < text.index("| 0.5000 |  | 1 (1.5 s) |")
    assert "not first: other reaches a lower loss, beyond chance. Quicker, with one fit: other." in text
    assert "Left out, as it takes minutes: slow." in text
    one["rows"] = [ours, {**other, "error": 0.1, "ratio": 2.0}]
    assert "other is lower by less than chance explains." in peers_page.recalibration(one)
    one["rows"] = [ours, {**other, "loss": np.inf, "more": np.inf, "error": np.nan, "ratio": 2.0}]
    assert "confshift has the lowest loss." in peers_page.recalibration(one)


def test_the_page_is_what_the_script_writes_of_the_results_beside_it():
    results = pages.kept()["peers"]
    assert pages.between(pages.BENCHMARKS.read_text(encoding="utf-8"), "peers") == peers_page.page(
        results, peers.PLOT.name
    )
    asked = {(one["question"], one["samples"], one["classes"]) for one in results["questions"]}
    assert asked == {(question.name, *size) for question in QUESTIONS for size in peers.SIZES}


def test_every_table_of_the_page_has_as_many_cells_in_each_row():
    found = tables(pages.BENCHMARKS.read_text(encoding="utf-8"))
    assert len(found) > 3
    for table in found:
        assert len({len(row) for row in table}) == 1
        assert set(table[1]) == {"--"}
        assert len(table) > 2


def test_the_plot_shows_every_way_in_every_panel():
    picture = plot(pages.kept()["peers"]["growth"])
    for name in {point["panel"] for point in pages.kept()["peers"]["growth"]}:
        assert name in picture
    assert picture.startswith("<svg")
    assert peers.PLOT.is_file()
