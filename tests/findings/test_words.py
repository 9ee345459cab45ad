"""Plain words: what no sentence may say, and how long the sentences on a page may be."""

import ast
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_runs import ODD, SAMPLES, TARGETS, epochs_of, history_of, told
from real_runs import ARRAYS

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.two_runs import answer_two_runs
from confshift.predictions import Predictions

SOURCE = Path(__file__).parents[2] / "src" / "confshift"
RUNS = [*ODD, *sorted(path.stem for path in ARRAYS.glob("*.npz"))]

#: What only the people who wrote a program say, or no native speaker does.
FORBIDDEN = re.compile(
    r"told from|nobody|\bsurer\b|less sure\b|\bwants\b|are wanted|(?-i:\bno run\b)(?! at|\.json)|\bis told\b"
    r"|what calibration leaves|explains such|takes? the mass|an infinite one\b|judged are\b"
    r"|as costly|times the rise|has no course|\bno demo\b|\bno number\b|whoever|really, but",
    re.IGNORECASE,
)
MOST = {"action": 8, "why": 35, "answer": 10, "sentence": 40, "next_step": 20}
LEAST_EASE = 60


def syllables(word):
    """A short count: groups of vowels, without a silent e; a number counts as one."""
    letters = re.sub(r"[^a-z]", "", word.lower())
    if re.search(r"\d", word) or not letters:
        return 1
    groups = len(re.findall(r"[aeiouy]+", letters))
    return max(1, groups - (letters.endswith("e") and not letters.endswith("le")))


def reading_ease(text):
    """Flesch's reading ease (Journal of Applied Psychology 32, 1948); a colon ends a sentence."""
    words = [word for word in text.split() if re.search(r"\w", word)]
    sentences = len(re.findall(r"[.!?:](?=\s|$)", text))
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(syllables, words)) / len(words)


def check_answer(answer):
    """Hold an answer to its limits."""
    for name in ("action", "why"):
        assert len(getattr(answer, name).split()) <= MOST[name], getattr(answer, name)
    assert len(re.findall(r"[.!?](?=\s|$)", answer.why)) <= 2, answer.why
    assert reading_ease(f"{answer.action} {answer.why}") >= LEAST_EASE, answer.text
    assert len(answer.steps) <= 3
    assert len({step.text for step in answer.steps}) == len(answer.steps)
    for text in (answer.text, *(step.text for step in answer.steps)):
        assert not FORBIDDEN.search(text), text
        assert not re.search(r"\b(nan|None)\b|\?$|  ", text), text


def test_the_count_of_syllables_is_roughly_right():
    words = {"loss": 1, "epoch": 2, "noise": 1, "confidence": 3, "12.5": 1, "overconfident": 5, "sample": 2}
    assert {word: syllables(word) for word in words} == words
    assert reading_ease("The cat sat on the mat.") == pytest.approx(116, abs=1)


@pytest.mark.parametrize("name", RUNS)
def test_an_answer_is_read_in_ten_seconds(name):
    check_answer(told(name)[0])


@pytest.mark.parametrize("name", RUNS)
def test_an_answer_about_two_chosen_epochs_is_read_in_ten_seconds(name):
    history = history_of(name)
    checkpoints = history.main.checkpoints
    middle, last = len(checkpoints) // 2, len(checkpoints) - 1
    pairs = {
        (0, middle),
        (middle, last),
        (last, 0),
        (max(last - 1, 0), last),
        (last, middle),
        (middle, middle),
    }
    for before, after in sorted(pairs):
        sides = checkpoints[before], checkpoints[after]
        if (sides[0].columns["finite"] & sides[1].columns["finite"]).any():
            check_answer(answer_run(history, compare(*sides), ()))


@pytest.mark.parametrize("names", [("small", "large"), ("a long name", "<img src=x>"), ("a" * 300, "b")])
def test_an_answer_about_two_runs_is_read_in_ten_seconds(names):
    for pair in product(ODD, ["confidence", "hidden", "infinite at the end"]):
        histories = tuple(history_of(name) for name in pair)
        sides = [history.pair[1] for history in histories]
        if (sides[0].columns["finite"] & sides[1].columns["finite"]).any():
            check_answer(answer_two_runs(compare(*sides), histories, names, ()))


@settings(max_examples=25, deadline=None)
@given(
    knowledge=st.lists(st.floats(0, 3), min_size=1, max_size=12),
    scale=st.lists(st.floats(-3, 3), min_size=12, max_size=12),
    missing=st.sets(st.integers(0, 11), max_size=2),
    infinite=st.sets(st.integers(0, 11), max_size=2),
    samples=st.sampled_from([3, 40, SAMPLES]),
)
def test_an_answer_about_a_random_run_is_within_its_limits(knowledge, scale, missing, infinite, samples):
    runs = epochs_of(knowledge, np.exp(scale[: len(knowledge)]))
    for epoch, logits in enumerate(runs):
        if epoch in missing:
            logits[::3] = np.nan
        if epoch in infinite:
            logits[0, TARGETS[0]] = -np.inf
    history = summarize(
        Checkpoint.from_predictions(Predictions(logits[:samples], TARGETS[:samples]), epoch=epoch)
        for epoch, logits in enumerate(runs)
    )
    check_answer(answer_run(history, compare(*history.pair), ()))


@pytest.mark.parametrize("name", RUNS)
def test_a_finding_is_short_and_in_plain_words(name):
    faults = {}
    for finding in told(name)[1]:
        texts = {part: getattr(finding, part) for part in ("answer", "sentence", "next_step", "details")}
        long = [part for part, text in texts.items() if len(text.split()) > MOST.get(part, 10_000)]
        said = [text for text in (*texts.values(), finding.title) if FORBIDDEN.search(text)]
        if long or said or not finding.answer:
            faults[finding.code] = (long, said, finding.answer)
    assert faults == {}


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_counted_that_is_not_there(name):
    texts = [
        text for finding in told(name)[1] for text in (finding.answer, finding.sentence, finding.details)
    ]
    assert not [
        text for text in texts if re.search(r"(?<![\w.,−+-])0 (samples|infinite)|(^|[.?!] )no ", text)
    ]


def texts_of(path):
    """The texts of a source file: of Python its strings but for docstrings, of others the whole."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [text]
    tree = ast.parse(text)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    strings = (
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in docstrings
    )
    return [node.value for node in strings if isinstance(node.value, str)]


def test_no_text_of_the_page_the_terminal_or_an_error_uses_a_forbidden_word():
    files = [path for kind in ("py", "js", "j2", "css") for path in sorted(SOURCE.rglob(f"*.{kind}"))]
    found = {
        f"{path.relative_to(SOURCE)}: {match.group()}"
        for path in files
        for text in texts_of(path)
        for match in FORBIDDEN.finditer(text)
    }
    assert found == set()
