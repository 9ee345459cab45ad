"""The page as a file: what stands in it, read without a browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from hostile_names import HOSTILE_NAMES, HOSTILE_TITLE

from confshift.analysis.comparison import compare
from confshift.analysis.decomposition import pairwise_cells
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.findings.answer import answer_run
from confshift.findings.diagnosis import diagnose
from confshift.findings.wording import levels_and_change
from confshift.predictions import Predictions
from confshift.reporting import page as page_module
from confshift.reporting.captions import READINGS, fill
from confshift.reporting.page import MAX_BYTES, Report, report
from confshift.reporting.template_context import key_table
from confshift.storage.run import Run
from reading_pages import Page

pytestmark = pytest.mark.usefixtures("pictures_on_shared_pages_alone")


@pytest.fixture(scope="module")
def parsed(page):
    return Page(page.html)


def test_every_element_is_closed_where_it_should_be(parsed):
    assert not parsed.misnested
    assert not parsed.open


def test_no_id_is_used_twice(parsed):
    ids = parsed.attributes("id")
    assert len(ids) == len(set(ids))


def test_the_verdict_comes_first(parsed, page, history, comparison):
    assert page.answer == answer_run(history, comparison, page.findings)
    assert parsed.text.index(page.answer.action) < parsed.text.index(page.answer.why) < 400


def test_the_subsets_are_a_table_for_each_attribute_and_one_that_stands_out_is_in_the_answer(run, page):
    site = np.random.default_rng(0).choice([HOSTILE_NAMES[0], "B", "C"], 240)
    one, factor = run[6].predictions, np.where(site == "B", 9.0, 1.0)[:, None]
    sides = [
        Checkpoint.from_predictions(Predictions(logits, one.targets), epoch=epoch)
        for epoch, logits in enumerate((one.logits, factor * one.logits))
    ]
    slices = pd.DataFrame({"site": site, "many": np.arange(240) % 40}).astype({"many": str})
    sliced = report(sides, slices=slices)
    parsed, (found,) = Page(sliced.html), (one for one in sliced.findings if one.code == "few_subsets")
    assert found.verdict == "yes"
    assert found.sentence in sliced.answer.remarks
    assert not parsed.misnested
    for text in (
        "What the subsets by site add to the change",
        *map(str, np.unique(site)),
        "20 other subsets",
    ):
        assert text in parsed.text
    rows = sliced.html.partition("The change by site")[2].partition("</tbody>")[0]
    amounts = [
        float(cell.replace("−", "-")) for cell in re.findall(r"<td>([^<]*)</td><td>[^<]*</td></tr>", rows)
    ]
    change = compare(*sides).change.loc["loss", "change"]
    assert round(sum(amounts), 9) == float(f"{change:.3f}")
    assert "What the subsets" not in page.html


def test_every_finding_is_shown_once_and_the_problems_are_listed_on_the_first_screen(parsed, page, run):
    expected = [(finding.code, finding.verdict, finding.sentence) for finding in diagnose(run)]
    assert [(finding.code, finding.verdict, finding.sentence) for finding in page.findings] == expected
    links = [value for value in parsed.attributes("href") if value.startswith("#finding-")]
    problems = [f"#finding-{finding.code}" for finding in page.findings if finding.severity == "problem"]
    assert links[len(links) - len(problems) :] == problems
    ids = parsed.attributes("id")
    for finding in page.findings:
        assert ids.count(f"finding-{finding.code}") == 1
        assert finding.sentence in parsed.text
        assert finding.next_step in parsed.text


def test_the_page_answers_as_the_question_is_asked(run, history):
    groups = np.arange(240) // 8
    made = report(run, looks=20, groups=groups)
    expected = diagnose(run, looks=20, groups=groups)
    assert [finding.sentence for finding in made.findings] == [finding.sentence for finding in expected]
    assert "240 samples in 30 groups" in Page(made.html).text
    told = summarize(run, looks=20, groups=groups)
    expected = compare(*told.pair, groups=groups)
    assert made.answer == answer_run(told, expected, made.findings)
    assert made.change.equals(expected.change)


def test_intervals_by_groups_say_so_wherever_they_stand(run, make_run):
    groups = np.arange(240) // 8
    for made in (report(run, groups=groups), report(run, other=make_run(240, 4, 3), groups=groups)):
        data = Page(made.html).json("data")
        for name in ("loss_detail", "accuracy_detail"):
            assert "95 % interval by 30 groups " in fill(data["readings"][name], data["values"])
        change = next(finding for finding in made.findings if finding.code == "loss_change")
        assert change.details.count("95 % interval by 30 groups ") == 2
        assert set(made.change["units"]) == {30}


def test_two_runs_are_not_asked_about_a_rise(run):
    with pytest.raises(ConfshiftError, match="looks=20 is about the rise of one run"):
        report(run, other=run, looks=20)


def test_the_steps_of_the_answer_are_shown_in_their_order_each_with_its_finding(make_run):
    page = report(make_run(240, 4, 14))
    assert page.answer.steps
    steps = page.html[page.html.index("Do this") : page.html.index("Checks: ")]
    assert re.findall(r"#finding-(\w+)", steps) == [step.finding for step in page.answer.steps]
    text = Page(page.html).text
    places = [text.index(step.text) for step in page.answer.steps]
    assert places == sorted(places)


def test_a_wish_for_more_data_is_not_the_first_thing_to_do(make_run):
    made = report(make_run(60, 3, 6, churn=0.8))
    kinds = {finding.code: finding for finding in made.findings}["run_kind"].evidence["kind"]
    assert set(kinds) & {"undecidable", "too_early"} or not kinds.size
    assert made.answer.steps[0].finding == "best_checkpoint"


def test_what_has_no_value_is_a_dash_in_the_table_of_changes(make_run):
    one = make_run(30, 3, 2)
    right = [
        type(each).from_predictions(
            type(each.predictions)(
                9 * np.eye(3)[each.predictions.targets] * (each.epoch + 1), each.predictions.targets
            ),
            epoch=each.epoch,
        )
        for each in one
    ]
    row = [cells for cells in key_table(compare(*right).change)["rows"] if cells[0] == "temperature"]
    assert row == [["temperature", "–", "–", "–", "–", "30"]]


def test_losses_that_are_not_over_all_answers_say_so_in_the_table_of_changes(make_run):
    shares = np.full((2, 40, 4), 0.25)
    shares[1, :3] = [0, 1, 0, 0]
    made = compare(*(Predictions.from_probabilities(one, np.zeros(40, int)) for one in shares))
    rows = {cells[0]: cells for cells in key_table(made.change)["rows"]}
    assert rows["loss, nats, where finite"][-1] == "37"
    assert rows["accuracy"][-1] == "40"


def test_of_two_runs_the_one_with_an_infinite_loss_is_the_worse(make_logits):
    logits, targets = make_logits(60, 3, 2, churn=0.2)
    better = logits[0] + 0.3 * np.eye(3)[targets]  # a lower loss where it is finite
    better[0, targets[0]] = -np.inf
    runs = [[Checkpoint.from_predictions(Predictions(one, targets), epoch=1)] for one in (logits[0], better)]
    for first, second in (runs, runs[::-1]):
        sentence = report(first, other=second).findings[0].sentence
        infinite = "B" if second is runs[1] else "A"
        assert sentence.startswith("The mean loss after is infinite: 1 sample gives ")
        assert f" to {infinite} (epoch 1) the loss of those " in sentence


def test_links_lead_to_something(parsed):
    targets = {f"#{one}" for one in parsed.attributes("id")}
    assert set(parsed.attributes("href")) <= targets


def test_without_scripts_there_are_figures_tables_and_pictures(parsed, comparison):
    loss = comparison.change.loc["loss"]
    assert " → ".join(levels_and_change(loss["before"], loss["after"])[:2]) in parsed.text
    assert parsed.count("svg") >= 5
    assert parsed.count("table") > 10
    for name in ("calibration loss, nats", "refinement loss, nats", "temperature"):
        assert name in parsed.text


def test_nothing_is_loaded_from_anywhere(parsed):
    assert not parsed.attributes("src")
    assert parsed.count("link") == 0
    policy = next(one["content"] for _, one in parsed.elements if "http-equiv" in one)
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy


def test_only_the_three_programs_of_the_page_may_run(page, parsed):
    policy = next(one["content"] for _, one in parsed.elements if "http-equiv" in one)
    (sources,) = re.findall(r"script-src ([^;]*);", policy)
    programs = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digests = [hashlib.sha256(program.encode("utf-8")).digest() for program in programs]
    assert sources.split() == [f"'sha256-{base64.b64encode(one).decode()}'" for one in digests]
    assert len(programs) == 3
    assert "\r" not in "".join(programs)  # a browser would make it a line feed, and another digest


def test_every_part_of_the_page_keeps_to_its_room(page):
    """Together they leave the page of the demo, with its images, below two million bytes."""
    parts = {
        "programs": (r"<script>.*?</script>", 970_000),
        "style": (r"<style>.*?</style>", 17_000),
        "pictures": (r"<svg.*?</svg>", 70_000),
        "data": (r'<script[^>]* id="data">.*?</script>', 40_000),
        "samples": (r'<script[^>]* id="sample-data">.*?</script>', 2_000),
    }
    for name, (pattern, room) in parts.items():
        assert room / 2 < sum(map(len, re.findall(pattern, page.html, re.DOTALL))) <= room, name
    assert len(page.html) <= 1_190_000


def test_text_that_is_not_unicode_is_shown_with_a_replacement(make_run, tmp_path):
    names = {"title": "half \ud800 of \udcff", "thumbnail": lambda sample: f"sample \udfff {sample}"}
    made = report(make_run(20, 3, 2), tmp_path / "page.html", **names)
    assert "half \ufffd of \ufffd: confshift" in made.html
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == made.html


def test_the_embedded_tables_hold_the_numbers_of_the_history_unrounded(parsed, history):
    table = history.table[history.table["split"] == "val"]
    data = parsed.json("data")
    for name in (
        "epoch",
        "loss",
        "loss_se",
        "accuracy",
        "hedge",
        "error_rate",
        "mistake_cost",
        "temperature",
    ):
        assert data["epochs"][name] == table[name].tolist()


def test_the_embedded_cells_of_every_pair_are_those_of_pairwise_cells(parsed, history):
    contributions = parsed.array("pair_contributions", "<f4").reshape(12, -1).T
    samples = parsed.array("pair_samples", "<u4").reshape(12, -1).T
    pairs = list(pairwise_cells(history.main))
    assert len(pairs) == len(contributions) == 21
    for place, (_, _, sums, counts) in enumerate(pairs):
        np.testing.assert_allclose(contributions[place], sums, rtol=1e-6, atol=1e-9)
        assert samples[place].tolist() == counts.tolist()


def test_the_embedded_samples_are_those_of_the_panel(parsed, history):
    panel, about = history.main, parsed.json("sample-data")
    shape = (len(panel.epochs), about["carried"])
    assert about["carried"] == about["all"] == len(panel.targets)
    assert about["ids"] == [str(one) for one in panel.sample_ids]
    assert parsed.array("predicted", "<u1").reshape(shape).tolist() == panel.predicted.tolist()
    codes = parsed.array("losses", "<u2").reshape(shape)
    losses = about["floor"] * np.expm1(codes / 65534 * about["span"])
    np.testing.assert_allclose(losses, panel.loss, rtol=3e-4, atol=3e-7)
    np.testing.assert_allclose(losses.mean(axis=1), panel.loss.mean(axis=1), rtol=3e-5)


def test_every_reading_on_the_page_is_filled(parsed):
    assert set(parsed.attributes("data-reading")) <= set(READINGS)
    assert "{" not in parsed.text.replace('metadata={"lr": ...}', "").replace('logged={"loss": ...}', "")


def test_hostile_names_stay_text(hostile_page):
    parsed = Page(hostile_page.html)
    assert not parsed.misnested
    assert parsed.count("img") == 0
    assert parsed.count("script") == 2 + 5 + 3  # data, arrays, programs
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    for name in (*HOSTILE_NAMES, HOSTILE_TITLE):
        assert name in "".join(parsed.all_text)
    assert parsed.json("sample-data")["class_names"]["0"] == HOSTILE_NAMES[0]


@pytest.mark.parametrize(("samples", "classes"), [(3, 2), (40, 2)])
def test_small_runs_have_a_page(make_run, samples, classes):
    parsed = Page(report(make_run(samples, classes, 3)).html)
    assert not parsed.misnested
    parsed.json("data")


def test_one_checkpoint_has_a_page_that_compares_nothing(make_run):
    parsed = Page(report(make_run(checkpoints=1)).html)
    assert parsed.json("data")["paired"] is False
    assert "one checkpoint" in parsed.text
    assert "figure-account" not in parsed.attributes("id")
    assert "figure-reliability" in parsed.attributes("id")
    assert parsed.count("svg") == 3


def test_many_classes_are_summed_up_beyond_twenty(make_run):
    made = report(make_run(400, 1000, 3))
    data = Page(made.html).json("data")
    assert len(data["classes"]["names"]) == 20
    assert len(data["tables"]["competitors"]) <= 400
    assert len(made.html) < 3_000_000


def test_samples_without_a_finite_loss_are_null_and_counted(make_run):
    run = make_run(60, 3, 3)
    broken = run[1].predictions.logits.copy()
    broken[:2] = np.nan
    run[1] = type(run[1]).from_predictions(Predictions(broken, run[1].predictions.targets), epoch=1)
    parsed = Page(report(run, before=1, after=2).html)
    codes = parsed.array("losses", "<u2").reshape(3, 60)
    assert (codes == 65535).sum(axis=1).tolist() == [0, 2, 0]
    assert "Left out: no finite loss at one of them 2" in parsed.text


def test_a_page_that_grows_too_large_carries_fewer_samples_and_says_so(make_run, page, monkeypatch):
    without_pictures = re.sub(r"<svg.*?</svg>", "", page.html, flags=re.DOTALL)
    limit = len(without_pictures) + 20_000
    monkeypatch.setattr(page_module, "MAX_BYTES", limit)
    smaller = report(make_run(3000, 3, 5))
    parsed, about = Page(smaller.html), Page(smaller.html).json("sample-data")
    assert len(smaller.html.encode()) <= limit < MAX_BYTES
    assert about["carried"] < about["all"] == 3000
    assert sum(about["weights"]) == pytest.approx(3000)
    assert f"{about['carried']:,} of 3,000" in parsed.text


def test_the_pair_that_was_asked_for_is_the_one_compared(run):
    made = report(run, before=2, after=5)
    data = Page(made.html).json("data")
    assert data["pair"] == [2, 5]
    assert (data["values"]["A"], data["values"]["B"]) == (2, 5)
    assert made.change.loc["loss", "change"] == data["values"]["loss_change"]
    with pytest.raises(ConfshiftError, match="before=2\\.5"):
        report(run, before=2.5)


def test_two_runs_are_compared_at_the_best_of_each(make_run):
    first, second = make_run(120, 3, 4), make_run(120, 3, 5, churn=0.6)
    made = report(first, other=second, title="two")
    histories = summarize(first), summarize(second)
    best = [one.best.loc["loss", "epoch"] for one in histories]
    expected = compare(first[int(best[0])], second[int(best[1])])
    assert made.change.equals(expected.change)
    parsed = Page(made.html)
    data = parsed.json("data")
    assert data["two_runs"] is True
    assert [data["values"]["A"], data["values"]["B"]] == best
    assert {row["label"] for row in data["tables"]["account"]} >= {f"loss at A (epoch {best[0]})", "hedging"}
    assert [finding.code for finding in made.findings] == [finding.code for finding in diagnose(expected)]
    assert "second run at epoch" in made.answer.why
    assert "history" not in parsed.attributes("id")
    assert not parsed.misnested


def test_two_runs_take_the_epochs_that_are_asked_for(make_run):
    made = report(make_run(40, 3, 3), other=make_run(40, 3, 3, churn=0.6), before=2, after=1)
    values = Page(made.html).json("data")["values"]
    assert (values["A"], values["B"]) == (2, 1)


def test_two_runs_on_different_samples_are_refused(make_run):
    with pytest.raises(ConfshiftError, match="same samples"):
        report(make_run(40, 3, 2), other=make_run(40, 3, 2, seed=1))


def test_a_report_is_written_only_where_it_is_told(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert page.path is None
    assert not list(tmp_path.iterdir())
    saved = page.save("here.html")
    assert [one.name for one in tmp_path.iterdir()] == ["here.html"]
    assert saved.path.read_text(encoding="utf-8") == page.html
    again = saved.save(tmp_path / "here.html")
    assert [one.name for one in tmp_path.iterdir()] == ["here.html"]
    assert again.findings is page.findings


def test_a_file_that_cannot_be_written_is_named_with_the_remedy(page, tmp_path):
    with pytest.raises(ConfshiftError, match=r"missing.*folder that exists"):
        page.save(tmp_path / "missing" / "page.html")


def test_a_report_takes_its_name_from_the_run_and_lists_what_is_damaged(tmp_path, make_run):
    run = Run(tmp_path / "resnet18")
    for checkpoint in make_run(40, 3, 3):
        run.append(checkpoint.predictions)
    run.flush()
    logits = sorted((tmp_path / "resnet18").rglob("*.logits.npy"))[1]
    logits.write_bytes(logits.read_bytes()[:-8])
    parsed = Page(report(run).html)
    assert "resnet18" in parsed.text
    assert "missing or damaged" in parsed.text


def test_a_notebook_shows_the_verdict_and_the_key_table_only(hostile_page):
    shown = hostile_page._repr_html_()
    parsed = Page(shown)
    assert len(shown) < 10_000
    assert hostile_page.verdict in parsed.text
    assert parsed.count("script") == parsed.count("img") == 0
    assert parsed.count("table") == 1


def test_a_report_is_frozen_and_tells_its_size(page, tmp_path):
    with pytest.raises(dataclasses.FrozenInstanceError):
        page.html = ""
    assert repr(page) == f"Report({len(page.findings)} findings, {len(page.html) / 1e6:.1f} MB, not saved)"
    assert "page.html" in repr(page.save(tmp_path / "page.html"))
    assert isinstance(page, Report)


def test_a_page_of_two_runs_asks_why_the_worse_one_is_worse(make_run):
    worse, better = make_run(400, 3, 12, churn=0.1), make_run(400, 3, 12, churn=0.1, seed=0)[:1]
    made = report(worse, other=better, before=11)
    assert made.change.loc["loss", "change"] < 0  # the page goes from the first run to the second
    findings = {finding.code: finding for finding in made.findings}
    assert findings["loss_change"].sentence.startswith("From B (epoch 0) to A (epoch 11) the loss rose")
    assert findings["dearer_mistakes"].verdict == "yes"
    text = Page(made.html).text
    assert "first run, epoch " in text
    assert "called before" not in text
    assert "quantity A B change 95 % interval" in text
    assert "A ends" in text
    assert "B has too few epochs to judge its course." in text


def test_runs_of_one_name_are_told_apart_by_their_folders(make_logits, tmp_path):
    logits, targets = make_logits(60, 3, 2)
    runs = [Run(tmp_path / folder / "run") for folder in ("a", "b")]
    for run in runs:
        for epoch, one in enumerate(logits):
            run.append(Predictions(one, targets), epoch=epoch)
        run.flush()
    assert report(runs[0], other=runs[1]).answer.why.startswith("b/run at epoch 0 against a/run at epoch 0: ")
    twice = report(str(runs[0].path), other=runs[0].path)  # paths do as well
    assert twice.answer.why.startswith("The second run at epoch 0 against the first run at epoch 0: ")


def test_an_epoch_that_one_of_two_runs_lacks_is_asked_for_by_its_own_name(make_run):
    run = make_run(60, 3, 3)
    for asked in ("before", "after"):
        with pytest.raises(ConfshiftError, match=f"{asked}=99: the run has no such epoch"):
            report(run, other=run, **{asked: 99})


def test_what_is_no_epoch_is_refused(make_run):
    with pytest.raises(ConfshiftError, match="before='best': give an epoch"):
        report(make_run(60, 3, 3), before="best")


def test_runs_of_other_samples_are_called_by_their_names(make_run):
    with pytest.raises(ConfshiftError, match=r"first run and second run: .*same samples"):
        report(make_run(60, 3, 3), other=make_run(50, 3, 3))


def test_a_loss_that_is_infinite_at_both_epochs_makes_no_warning(make_run):
    shares = np.full((40, 4), 0.25)
    shares[:3] = [0, 1, 0, 0]
    given = Predictions.from_probabilities(shares, np.zeros(40, int))
    run = [type(make_run(10, 3, 1)[0]).from_predictions(given, epoch=epoch) for epoch in range(3)]
    assert report(run, thumbnail=lambda one: str(one)).findings
