"""Results as lines of text."""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift import Checkpoint, Predictions, compare, summarize
from confshift.findings.question import Question
from confshift.reporting.characters import printable, unbroken
from confshift.reporting.output import (
    adding_up,
    comparison_text,
    history_text,
)
from confshift.reporting.summary import findings_text

parts = st.lists(st.floats(-50, 50), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def comparison(make_logits):
    logits, targets = make_logits(331, 5, 2, churn=0.3)
    before, after = (
        Checkpoint.from_predictions(Predictions(z, targets), epoch=e) for e, z in enumerate(logits)
    )
    return compare(before, after)


def sections(text):
    """Return the tables of a comparison's text, each as a list of rows of words, without its header."""
    return [[re.split(r" {2,}", line) for line in part.splitlines()[1:]] for part in text.split("\n\n")[1:4]]


def number(text):
    return Decimal(text.replace("−", "-"))


# ------------------------------------------------------------------------------------------- adding_up
@given(parts, st.integers(0, 6), st.sampled_from([-1, 0, 1]))
def test_parts_add_up_to_the_total_as_printed_and_none_moves_far(values, decimals, off):
    exact = Decimal(repr(float(np.round(sum(values), decimals)))) + off * Decimal(1).scaleb(-decimals)
    rounded = adding_up(values, total=float(exact), decimals=decimals)
    if not any(values):
        assert not rounded.any()
        return
    printed = [Decimal(f"{value:.{decimals}f}") for value in rounded]
    assert sum(printed) == Decimal(f"{float(exact):.{decimals}f}")
    # 1 by rounding the running sums, 1.5 by this total's distance from the sum, shared among the parts
    assert np.abs(rounded - values).max() <= 2.5 * 10.0**-decimals + 1e-9


@given(parts, st.integers(0, 6))
def test_a_part_that_is_nothing_stays_nothing(values, decimals):
    with_nothing = [*values, 0.0]
    assert (
        adding_up(with_nothing, total=round(sum(values), decimals) + 10.0**-decimals, decimals=decimals)[-1]
        == 0
    )


def test_rounding_each_part_alone_would_not_have_added_up():
    thirds = [1 / 3, 1 / 3, 1 / 3]
    assert sum(round(value, 2) for value in thirds) != 1
    assert sum(adding_up(thirds, total=1.0, decimals=2)) == pytest.approx(1, abs=1e-12)


# --------------------------------------------------------------------------------------------- compare
def test_the_change_printed_is_the_difference_of_the_numbers_printed(comparison):
    quantities = sections(comparison_text(comparison))[0]
    assert len(quantities) == len(comparison.change)
    for words in quantities:
        before, after, change = (number(word) for word in words[-4:-1])
        assert after - before == change


def test_account_and_cells_add_up_to_the_change_of_the_loss_as_printed(comparison):
    quantities, account, cells = sections(comparison_text(comparison))
    change = number(quantities[0][4])
    assert sum(number(words[-1]) for words in account[:-1]) == number(account[-1][-1]) == change
    assert sum(number(words[3]) for words in cells[:-1]) == number(cells[-1][2]) == change


def test_the_samples_of_the_cells_add_up(comparison):
    cells = sections(comparison_text(comparison))[2]
    assert sum(int(words[2]) for words in cells[:-1]) == int(cells[-1][1]) == 331


def test_the_numbers_printed_are_those_of_the_tables(comparison):
    quantities, account, cells = sections(comparison_text(comparison))
    for words, (_, row) in zip(quantities, comparison.change.iterrows(), strict=True):
        factor = 100 if row["unit"] == "fraction" else 1
        assert float(number(words[-4])) == pytest.approx(
            factor * row["before"], abs=6e-3 if factor > 1 else 6e-4
        )
    for words, value in zip(account, comparison.account["contribution"], strict=False):
        assert float(number(words[-1])) == pytest.approx(value, abs=2e-4)
    shown = {(words[0].replace(" ", "_"), words[1]): float(number(words[3])) for words in cells[:-1]}
    full = comparison.cells[comparison.cells["samples"] > 0]["contribution"]
    assert shown == pytest.approx(full.to_dict(), abs=2e-4)


def test_a_tiny_change_is_not_printed_as_nothing():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(50, 3)), rng.integers(0, 3, 50)
    text = comparison_text(compare(Predictions(logits, targets), Predictions(logits * (1 + 1e-7), targets)))
    change = number(sections(text)[0][0][4])
    assert change != 0


def test_identical_sides_print_zeros_without_a_sign_of_worse():
    logits, targets = 2 * np.eye(3), np.array([0, 1, 1])
    text = comparison_text(compare(Predictions(logits, targets), Predictions(logits, targets)))
    assert "−0.0000" not in text
    assert "+0.0000" in text


def test_a_side_without_a_mistake_says_none_for_the_cost_of_one():
    targets = np.array([0, 1])
    text = comparison_text(compare(Predictions(2 * np.eye(2), targets), Predictions(3 * np.eye(2), targets)))
    assert re.search(r"mistake cost +nats a mistake +none +none", text)
    assert "nan" not in text


def test_samples_left_out_are_told_of():
    logits, targets = 2 * np.eye(3), np.arange(3)
    broken = logits.copy()
    broken[1, 1] = np.nan
    text = comparison_text(compare(Predictions(logits, targets), Predictions(broken, targets)))
    assert "2 samples; 1 sample without a finite loss left out of both sides" in text


# --------------------------------------------------------------------------------------------- history
def test_the_history_has_a_line_for_each_checkpoint_and_a_table_for_each_split(make_logits):
    logits, targets = make_logits(60, 3, 4)
    run = [Checkpoint.from_predictions(Predictions(z, targets), epoch=e / 2) for e, z in enumerate(logits)]
    run += [Checkpoint.from_predictions(Predictions(logits[0], targets), epoch=2, split="train")]
    history = summarize(run)
    text = history_text(history)
    epochs = re.findall(r"^ *([\d.]+) +60 ", text, re.MULTILINE)
    assert epochs == ["0", "0.5", "1", "1.5", "2"]
    assert re.findall(r"^(val|train)$", text, re.MULTILINE) == ["val", "train"]
    for value in history.table["loss"]:
        assert f"{value:.4f}" in text
    assert f"Best by loss: epoch {history.best.loc['loss', 'epoch']:g} (" in text


# -------------------------------------------------------------------------------------------- findings
@pytest.mark.parametrize(
    "evil", ["\x1b[2J", "\x9b2J", "\u202e", "\r", "\n", "\x00", "\x7f", "\ud800", "\u2028"]
)
def test_no_control_character_of_a_name_reaches_the_terminal(evil):
    finding = Question("c", f"t{evil}").answer("yes", f"s{evil}", pd.DataFrame(), f"n{evil}")
    text = findings_text([finding, finding], {})
    assert evil not in text.replace("\n", "") if evil == "\n" else evil not in text
    assert len(text.splitlines()) == 7
    text.encode()  # a lone surrogate could not be written


def test_ordinary_text_is_printed_as_it_is():
    assert printable("− ± ä 猫 </script>") == "− ± ä 猫 </script>"


def test_a_finding_without_a_next_step_has_no_such_line():
    text = findings_text([Question("c", "Why?").answer("no", "So.", pd.DataFrame())], {})
    assert text == "[fine] Why?\n  So."


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("with T = 2.1, 0.33 nats", "with T~=~2.1, 0.33~nats"),
        ("Epochs 6 and 7 are as good", "Epochs~6 and 7 are as good"),
        ("95 % interval −1.5 to +0.2 points", "95~% interval −1.5 to +0.2~points"),
        ("RIGHT = 2, 3 natsoup, epoch by epoch", "RIGHT = 2, 3 natsoup, epoch by epoch"),
    ],
)
def test_a_number_stays_on_one_line_with_its_unit(text, kept):
    assert unbroken(text) == kept.replace("~", "\N{NO-BREAK SPACE}")
    assert unbroken(kept.replace("~", "\N{NO-BREAK SPACE}")) == kept.replace("~", "\N{NO-BREAK SPACE}")


def test_subsets_are_printed_with_contributions_that_add_up(comparison):
    names = ["evil\x1b[2J", "a", "b", None]
    frame = pd.DataFrame({"site": np.resize(names, 331), "many": [f"m{at % 40}" for at in range(331)]})
    by_subset = comparison.by(frame)
    for name, rows, first in (("site", 4, "a"), ("many", 21, "m0")):
        (part,) = (part for part in comparison_text(by_subset).split("\n\n") if part.startswith(f"{name} "))
        lines = [re.split(r" {2,}", line) for line in part.splitlines()[1:]]
        assert (len(lines), lines[0][0]) == (rows, first)
        change = comparison.change.loc["loss", "change"]
        amounts = [number(words[7] if len(words) > 4 else words[3]) for words in lines]
        assert float(sum(amounts)) == float(f"{change:.3f}")
        for words in filter(lambda words: len(words) > 4, lines):
            row = by_subset.slices.loc[name].rename(printable).loc[words[0]]
            before, after, difference = map(number, words[3:6])
            assert after - before == difference
            assert float(difference) == pytest.approx(row["change"], abs=6e-3)
            assert float(number(words[7])) == pytest.approx(row["contribution"], abs=2e-3)
            assert words[1] == str(row["samples"])
            assert words[8] == ("–" if np.isnan(row["p_value"]) else f"{row['p_value']:.3f}")
    assert lines[-1][0] == "20 other subsets"
    assert "site" not in comparison_text(comparison)
