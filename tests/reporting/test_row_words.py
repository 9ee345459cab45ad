"""Rows and groups are called what they are, wherever a reader meets them, and names stay as they are."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from confshift import compare, diagnose, report, summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.wording import Vocabulary
from confshift.predictions import Predictions
from confshift.reporting import footer
from confshift.reporting.charts import said_in
from confshift.reporting.output import comparison_text, history_text
from confshift.reporting.summary import summary_text
from confshift.tasks import TASKS

ROWS = 240


def run_of(make_logits, task, *, epochs=8, **more):
    classes = 2 if task in ("binary", "multilabel") else 4
    logits, targets = make_logits(ROWS, classes, epochs, churn=0.2)
    return [
        Checkpoint.from_predictions(
            Predictions(one, targets, task=task, groups=np.arange(ROWS) // 4, **more), epoch=epoch
        )
        for epoch, one in enumerate(logits)
    ]


def seen(html):
    """Return the texts of a page that a reader sees or hears, without what the script holds."""
    html = re.sub(r"<(script|style)\b.*?</\1>", "", html, flags=re.DOTALL)
    labels = re.findall(r'\b(?:aria-label|title)="([^"]*)"', html)
    return unescape("\n".join([*labels, re.sub(r"<[^>]*>", "\n", html)])).replace("\xa0", " ")


def words_of(text, *words):
    return {word for word in words if re.search(rf"(?<![\w=.-])(?i:{word})s?(?![\w=])", text)}


@pytest.fixture(scope="module")
def tokens(make_logits):
    run = run_of(make_logits, "tokens", total_rows=5000)
    return run, report(run)


def spoken(run):
    """Return what is said of a run where no page is."""
    comparison = compare(*summarize(run).pair)
    return {
        "findings": "\n".join(map(str, diagnose(run))),
        "of a pair": "\n".join(map(str, diagnose(comparison))),
        "compare": comparison_text(comparison),
        "history": history_text(summarize(run)),
    }


def test_nothing_that_a_reader_meets_speaks_of_samples_or_groups(tokens):
    run, page = tokens
    texts = spoken(run) | {"page": seen(page.html), "first": summary_text(page.summary, {}, every_check=True)}
    for where, text in texts.items():
        assert words_of(text, "sample", "group") == set(), where
    assert "240 tokens of 60 documents, drawn from 5,000" in texts["page"]
    assert "95 % interval by 60 documents" in texts["page"]
    assert "95 % Wilson intervals by 60 documents." in texts["page"]
    assert "(McNemar by 60 documents, p = " in texts["findings"]
    assert re.search(r"all together p = \S+ by 60 documents", texts["findings"])
    assert "240 tokens of 60 documents" in texts["compare"]


@pytest.mark.parametrize("task", ["binary", "multilabel", "pixels"])  # of each pair of nouns one
def test_findings_name_the_rows_and_the_groups_of_each_task(make_logits, task):
    texts, nouns = spoken(run_of(make_logits, task, epochs=3)), TASKS[task]
    all_nouns = {noun for pair in TASKS.values() for noun in pair} - {
        "label",
        "target",
    }  # words for the true class, too
    for where, text in texts.items():
        assert words_of(text, *all_nouns) <= set(nouns), where
    assert words_of("\n".join(texts.values()), *nouns[:2]) == set(nouns[:2])
    assert f"240 {nouns.sample}s of 60 {nouns.group}s" in texts["compare"]


def test_the_groups_of_labels_are_samples(make_logits):
    texts = spoken(run_of(make_logits, "multilabel", epochs=3))
    for text in texts.values():
        assert "240 samples" not in text
        assert not re.search("labels of the [a-z ]*labels", text)
        assert "60 labels" not in text


def test_names_and_what_is_code_stay_as_they_are():
    words = Vocabulary(TASKS["tokens"], ("a group", "sample", "run of samples"))
    for text in (
        "class a group",
        "sample",
        "run of samples, epoch 3",
        "/data/samples/run.html",
        "samples.html",
        "pass groups=, or sample_ids=",
        "--groups rows",
    ):
        assert words.say(text) == text
        assert words.say_page(f"<p title='samples'>{text}</p>") == f"<p title='samples'>{text}</p>"
    assert Vocabulary(TASKS["tokens"]).say("A sample's group. Samples") == "A token's document. Tokens"
    page = '<script>samples</script><p class="samples" aria-label="samples">samples</p>'
    assert Vocabulary(TASKS["pixels"]).say_page(page) == (
        '<script>samples</script><p class="samples" aria-label="pixels">pixels</p>'
    )
    assert Vocabulary(TASKS["multiclass"]).say_page(page) is page


def test_subsets_are_called_what_their_table_calls_them(make_logits):
    run = run_of(make_logits, "tokens", epochs=3)
    values = ["sample", "A & B's group", "<Labels>"]
    slices = pd.DataFrame({"group": np.resize(values, ROWS)}, index=range(ROWS))
    compared = comparison_text(compare(run[0], run[2], slices=slices))
    (start,) = (line for line in compared.splitlines() if line.startswith("group  "))
    assert "tokens  of all" in start
    page = report(run, before=0, after=2, slices=slices).html
    for value in ("group", *values):
        assert f"\n{value}  " in compared
        assert f"\n{value}\n" in seen(page)
    (finding,) = (one for one in diagnose(run, before=0, after=2, slices=slices) if one.code == "few_subsets")
    said = f"{finding} {seen(page)}"
    assert re.search("group = (sample|A & B's group|<Labels>)", said)
    assert not re.search("document =|= (token|A & B's document)", said)


def test_titles_of_charts_are_in_these_words_and_fields_are_not_renamed():
    titled = {"field": "samples", "type": "quantitative", "title": "share of the samples"}
    spec = {"layer": [{"encoding": {"x": titled, "tooltip": [{"field": "samples"}]}}]}
    encoding = {
        "x": {**titled, "title": "share of the tokens"},
        "tooltip": [{"field": "samples", "title": "tokens"}],
    }
    assert said_in(Vocabulary(TASKS["tokens"]), spec) == {"layer": [{"encoding": encoding}]}
    assert said_in(Vocabulary(TASKS["binary"]), spec) is spec


def test_the_end_of_the_page_says_what_errors_count(make_logits):
    run, plain = run_of(make_logits, "tokens", epochs=2), make_logits(ROWS, 4, 2)
    plain = [
        Checkpoint.from_predictions(Predictions(one, plain[1]), epoch=t) for t, one in enumerate(plain[0])
    ]
    for checkpoints, groups, says in (
        (run, None, "groups: intervals, tests and folds"),
        (run, "rows", "samples, as asked, not the groups"),
        (plain, None, ""),
    ):
        history = summarize(checkpoints, groups=groups)
        comparison = compare(*history.pair, groups=groups)
        facts = dict(footer.reconciliation([history], comparison, page_epochs=2, page_samples=ROWS))
        assert facts.get("Errors count", "").startswith(says)
        assert ("Errors count" in facts) == bool(says)
