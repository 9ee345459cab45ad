"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import markupsafe
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import confshift
from confshift import Predictions, Run
from confshift.cli import main
from confshift.findings.question import explanations
from confshift.reporting.characters import printable
from confshift.reporting.output import comparison_text, document, history_text
from confshift.reporting.plotting import figures, plot
from confshift.reporting.summary import answer_document, findings_document, summary_text
from confshift.storage.signed_json import encode

pytestmark = pytest.mark.usefixtures("blank_pictures")

EVIL = "evil\x1b[2J\u202e\n</script>"
RUN_COMMAND = [sys.executable, "-c", "from confshift.cli import main; main(prog_name='confshift')"]


def call(*arguments, code=0):
    """Run a command in this process and check how it ends."""
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def call_outside(*arguments, cwd=None, **environment):
    """Run a command as a shell would."""
    full = {**os.environ, **environment}
    command = [*RUN_COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=full, capture_output=True, timeout=120, check=False)


def fill(path, logits, targets, names=None):
    run = Run(path)
    for epoch, one in enumerate(logits):
        run.append(Predictions(one, targets, class_names=names), epoch=epoch)
    run.append(Predictions(logits[-1], targets, class_names=names), epoch=len(logits) - 1, split="train")
    run.flush()
    return path


@pytest.fixture(scope="module")
def rising(tmp_path_factory, make_logits):
    """A run of eight checkpoints whose loss rises; one class has a hostile name."""
    logits, targets = make_logits(240, 4, 8, churn=0.2)
    return fill(tmp_path_factory.mktemp("cli") / "rising", logits, targets, ["a", EVIL, "c", "d"])


def plain(**parts):
    """Return what a JSON document of these parts reads as."""
    return json.loads(document(**parts))


# ------------------------------------------------------------------------------ what is printed is the API's
@pytest.mark.parametrize("command", ["history", "compare", "diagnose"])
def test_class_weights_are_an_option_of_every_command_that_shows_losses(rising, command):
    names = Run(rising)[0].class_names
    given = ",".join(f"{name}={at + 1}" for at, name in enumerate(names))
    ends = (0, 2) if command == "compare" else ()
    said = call(command, rising, *ends, "--class-weight", given).output
    assert "Losses are weighted by class" in said
    assert said == call(command, rising, *ends, "--class-weight", given.replace("=", " =")).output
    assert "weighted" not in call(command, rising, *ends, "--class-weight", "none").output
    if command != "diagnose":
        result = json.loads(call(command, rising, *ends, "--class-weight", "balanced", "--json").output)
        assert set(result["class_weights"]) == set(names)
        assert result["label_smoothing"] == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--class-weight", "cat=much"), "'cat=much' is not a class and its weight"),
        (("--class-weight", "even"), "class_weight='even'"),
        (("--label-smoothing", "some"), "'some' is not a number from 0 to 1"),
        (("--label-smoothing", "2"), "label_smoothing=2.0 is not a number from 0 to 1"),
    ],
)
def test_an_objective_that_cannot_be_used_is_refused(rising, option, words):
    assert words in call("history", rising, *option, code=2).output


def test_compare_prints_the_comparison(rising):
    run = Run(rising)
    assert call("compare", rising, 1, 7).stdout == comparison_text(confshift.compare(run[1], run[7])) + "\n"


def test_slices_are_read_as_a_frame_would_hold_them(rising, tmp_path):
    run, draw = Run(rising), np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "site": draw.choice(["NA", "B"], 240),
            "code": ["007", "12"] * 120,
            "length": draw.integers(0, 99, 240),
        },
        index=run[1].columns.index,
    )
    frame.loc[3, "site"] = None
    path = tmp_path / "slices.csv"
    frame.to_csv(path)
    comparison = confshift.compare(run[1], run[7], slices=frame)
    assert comparison.slices.index.tolist()[:5] == [
        *(("site", name) for name in ("B", "NA", "unknown")),
        *(("code", name) for name in ("007", "12")),
    ]
    assert call("compare", rising, 1, 7, "--slices", path).stdout == comparison_text(comparison) + "\n"
    found = json.loads(call("compare", rising, 1, 7, "--slices", path, "--json").stdout)
    assert found["slices"] == plain(slices=comparison.slices)["slices"]
    answers = json.loads(call("diagnose", rising, "--slices", path, "--json").stdout)["findings"]
    (found,) = (one for one in answers if one["code"] == "few_subsets")
    assert "by 3 attributes" in found["details"]


@pytest.mark.parametrize("text", [b"", b"id,site\n1,a,b,c\n", b"\xff\xfe\x00"])
def test_slices_that_are_no_table_are_refused(rising, tmp_path, text):
    path = tmp_path / "slices.csv"
    path.write_bytes(text)
    assert "--slices" in call("compare", rising, 1, 7, "--slices", path, code=2).stderr


def test_slices_of_other_samples_are_refused(rising, tmp_path):
    path = tmp_path / "slices.csv"
    path.write_text("id,site\n1,a\n")
    assert (
        "slices has no row for 239 of 240" in call("compare", rising, 1, 7, "--slices", path, code=2).stderr
    )


def test_compare_as_json_holds_the_unrounded_tables(rising):
    run = Run(rising)
    found = json.loads(call("compare", rising, 1, "7.0", "--json").stdout)
    comparison = confshift.compare(run[1], run[7])
    for name in ("change", "account", "cells", "classes"):
        assert found[name] == plain(table=getattr(comparison, name))["table"]
    assert (found["schema"], found["split"], found["before"], found["after"]) == (1, "val", 1, 7)
    assert (found["samples"], found["samples_left_out"]) == (240, 0)
    change = {row["quantity"]: row["change"] for row in found["change"]}
    assert sum(row["contribution"] for row in found["cells"]) == pytest.approx(change["loss"], abs=1e-12)


def test_compare_takes_another_split(rising):
    assert call("compare", rising, 7, 7, "--split", "train").stdout.startswith("train, epoch 7 (before) to 7")


def test_history_prints_every_checkpoint(rising):
    assert call("history", rising).stdout == history_text(confshift.summarize(Run(rising))) + "\n"


def test_history_as_json_holds_the_unrounded_tables(rising):
    found = json.loads(call("history", rising, "--json").stdout)
    history = confshift.summarize(Run(rising))
    tables = {"checkpoints": history.table, "best": history.best, "rise": history.rise}
    assert found == plain(run=str(rising), class_weights=None, label_smoothing=0, **tables)
    assert [row["epoch"] for row in found["checkpoints"]] == [*range(8), 7]
    assert {row["criterion"] for row in found["best"]} == {"loss", "refinement_loss", "accuracy"}


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ((), {}),
        (("--before", 1, "--after", 6), {"before": 1, "after": 6}),
        (("--looks", "every-epoch"), {"looks": "every epoch"}),
    ],
)
def test_diagnose_prints_what_a_report_says_first_and_all_of_it_where_asked(rising, options, arguments):
    page, places = confshift.report(Run(rising), **arguments), {"RUN": rising}
    for choice, every_check in (((), False), (("--all",), True)):
        shown = call("diagnose", rising, *options, *choice).stdout
        assert shown == summary_text(page.summary, places, every_check=every_check) + "\n"
    found = json.loads(call("diagnose", rising, *options, "--json").stdout)
    assert found == plain(
        run=str(rising),
        verdict=page.verdict,
        answer=answer_document(page.answer, places),
        findings=findings_document(confshift.diagnose(Run(rising), **arguments), places),
    )


def test_brief_json_says_the_same_beside_a_page_and_without_one(rising, tmp_path):
    first = call("report", rising, "-o", tmp_path / "a.html", "--json", "--brief").stdout
    assert first == call("diagnose", rising, "--json", "--brief").stdout
    assert len(first.encode()) <= 2_000
    choice = confshift.summarize(Run(rising)).recommendation
    assert json.loads(first)["checkpoint"]["epoch"] == choice.epoch


@pytest.mark.parametrize(
    ("options", "remedy"), [(("--brief",), "add --json"), (("--all", "--json"), "leave out")]
)
def test_options_of_printing_that_do_not_go_together_are_refused(rising, options, remedy):
    assert remedy in call("diagnose", rising, *options, code=2).stderr


def test_json_has_null_where_a_number_is_unknown(tmp_path):
    targets = np.arange(4) % 2
    right = np.where(np.eye(2)[targets] > 0, 3.0, -3.0)
    fill(tmp_path / "right", [right, 2 * right], targets)
    text = call("history", tmp_path / "right", "--json").stdout
    assert json.loads(text, parse_constant=pytest.fail)["checkpoints"][0]["mistake_cost"] is None


# ------------------------------------------------------------------------------------------- report and demo
def without_links(page):
    """Return a page without the links from words to their explanations."""
    return re.sub(r'<a class="word"[^>]*>([^<]*)</a>', r"\1", page)


def read_page(path):
    """Return a page with spaces where it keeps a number beside its unit."""
    return Path(path).read_text(encoding="utf-8").replace("\xa0", " ")


def test_report_writes_a_page_beside_where_it_was_called(rising, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("report", rising)
    made = confshift.report(Run(rising))
    assert result.stdout == summary_text(made.summary, {"RUN": rising}) + "\n"
    page = read_page("rising.html")
    assert page.startswith("<!doctype html>")
    answer = made.answer
    assert markupsafe.escape(answer.action) in page
    assert markupsafe.escape(answer.why) in without_links(page)
    assert "wrote rising.html" in result.stderr
    assert "wrote" not in result.stdout


def test_report_takes_a_file_a_pair_and_opens_the_page(rising, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(click, "launch", opened.append)
    path = tmp_path / "page.html"
    result = call("report", rising, "-o", path, "--before", 2, "--after", 5, "--open", "--json")
    found = json.loads(result.stdout)
    assert opened == [str(path)]
    assert path.is_file()
    assert (found["page"], found["run"]) == (str(path), str(rising))
    findings = confshift.diagnose(Run(rising), before=2, after=5)
    assert found["findings"] == plain(f=findings_document(findings, {"RUN": rising}))["f"]


@pytest.fixture(scope="module")
def calmer(tmp_path_factory, make_logits):
    """Another run on the samples of `rising`, from another training."""
    logits, targets = make_logits(240, 4, 8, churn=0.2)
    return fill(tmp_path_factory.mktemp("cli") / "calmer", 0.7 * logits[:6], targets, ["a", EVIL, "c", "d"])


def test_report_of_two_runs_compares_the_best_of_each(rising, calmer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = call("report", rising, calmer)
    page = confshift.report(Run(rising), other=Run(calmer))
    assert shown.stdout == summary_text(page.summary, {"RUN": rising, "OTHER": calmer}) + "\n"
    assert markupsafe.escape(page.answer.why) in without_links(read_page("rising-calmer.html"))
    assert "wrote rising-calmer.html" in shown.stderr


def test_report_of_two_runs_takes_an_epoch_of_each_and_names_both_in_json(rising, calmer, tmp_path):
    out = tmp_path / "two.html"
    options = ("--before", 7, "--after", 2, "--json", "--out", out)
    found = json.loads(call("report", rising, calmer, *options).stdout)
    assert (found["run"], found["other"], found["page"]) == (str(rising), str(calmer), str(out))
    assert "calmer at epoch 2 against rising at epoch 7: " in found["verdict"]


def test_commands_about_one_checkpoint_call_its_rows_what_they_are(tmp_path, make_logits):
    logits, targets = make_logits(240, 3, 2)
    for epoch, one in enumerate(logits):
        np.savez(
            tmp_path / "rows.npz", logits=one, targets=targets, groups=np.arange(240) // 4, task="tokens"
        )
        said = call("add", tmp_path / "run", tmp_path / "rows.npz", "--epoch", epoch).stdout
        assert "240 tokens" in said
        assert "sample" not in said
    said = call("calibrate", tmp_path / "run", "-o", tmp_path / "c.json").stdout
    assert "needs 100 tokens a class" in said
    assert "sample" not in said


def test_errors_count_the_groups_saved_with_the_samples_or_rows_where_asked(tmp_path, make_logits):
    logits, targets = make_logits(240, 4, 3, churn=0.2)
    run = Run(tmp_path / "run")
    for epoch, one in enumerate(logits):
        run.append(Predictions(one, targets, groups=np.arange(240) // 4), epoch=epoch)
    run.flush()
    for options, units in ((), 60), (["--groups", "rows"], 240):
        found = json.loads(call("compare", run.path, 0, 2, "--json", *options).stdout)
        assert {row["units"] for row in found["change"]} == {units}
        found = json.loads(call("history", run.path, "--json", *options).stdout)
        assert {row["units"] for row in found["checkpoints"]} == {units}
        page = tmp_path / f"{units}.html"
        call("report", run.path, "-o", page, *options)
        assert ("60 groups" in page.read_text()) == (units == 60)


def test_report_and_history_are_told_how_often_the_question_is_asked(rising, tmp_path):
    shown = call("report", rising, "--looks", 12, "-o", tmp_path / "a.html", "--all").stdout
    for finding in confshift.diagnose(Run(rising), looks=12):
        assert printable(finding.sentence) in shown
    found = json.loads(call("history", rising, "--looks", "every-epoch", "--json").stdout)["rise"]
    assert found == plain(rise=confshift.summarize(Run(rising), looks="every epoch").rise)["rise"]
    assert found != plain(rise=confshift.summarize(Run(rising)).rise)["rise"]


def test_report_of_two_runs_on_other_samples_is_refused(rising, tmp_path, make_logits):
    logits, targets = make_logits(120, 4, 3)
    other = fill(tmp_path / "other", logits, targets)
    assert "sample" in call("report", rising, other, "-o", tmp_path / "a.html", code=2).stderr
    assert not (tmp_path / "a.html").exists()


def drawing(path):
    """Return a picture without the names of its clipping areas, which count on through a process."""
    return re.sub(r"clip\d+", "clip", path.read_text(encoding="utf-8"))


def test_plot_draws_the_figure_that_the_library_draws(rising, tmp_path):
    out, expected = tmp_path / "one.svg", tmp_path / "expected.svg"
    options = ("--before", 1, "--after", 5, "--scale", "odds")
    shown = call("plot", rising, "reliability", "-o", out, *options)
    assert (shown.stdout, shown.stderr) == ("", f"wrote {out}\n")
    plot(Run(rising), "reliability", expected, before=1, after=5, scale="odds")
    assert drawing(out) == drawing(expected)


def test_plot_without_a_file_names_it_after_the_figure(rising, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("plot", rising, "loss", "--whole")
    plot(Run(rising), "loss", "expected.svg", whole=True)
    assert drawing(Path("loss.svg")) == drawing(Path("expected.svg"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "give one of loss, accuracy"),
        (("loss", "-o", "a.jpg"), "ends in .svg, .png, .pdf"),
        (("loss", "-o", "missing/a.svg"), "no folder missing"),
        (("account", "--before", "99"), "no such epoch"),
        (("reliability", "--scale", "log"), "'probability', 'odds'"),
    ],
)
def test_plot_says_what_it_cannot_draw(rising, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert said in " ".join(call("plot", rising, *arguments, code=2).stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_plot_explains_every_figure_that_there_is():
    shown = " ".join(call("plot", "--help").stdout.replace(",", " ").split()).split()
    assert {*figures()} <= set(shown) | {word.strip("().") for word in shown}


def test_report_into_a_folder_that_is_not_there_is_refused_at_once(rising, tmp_path, monkeypatch):
    monkeypatch.setattr(confshift, "report", lambda *_, **__: pytest.fail("the page was made"))
    result = call("report", rising, "-o", tmp_path / "no" / "page.html", code=2)
    assert f"there is no folder {tmp_path / 'no'}" in result.stderr
    assert "is a directory" in call("report", rising, "-o", tmp_path, code=2).stderr


def test_demo_trains_and_writes_its_page_where_it_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("demo", "--epochs", 2, "--out", "some/where/demo.html", "--json")
    found = json.loads(result.stdout)
    assert "data:image/webp" in (tmp_path / "some/where/demo.html").read_text(encoding="utf-8")
    assert Path(found["run"]).resolve() == tmp_path / "runs" / "demo"
    assert found["findings"][0]["code"] == "rise"
    assert Run("runs/demo").epochs == (0, 1, 2)


def test_demo_refuses_a_folder_for_its_page_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.setattr("confshift.demo.train", lambda *_, **__: pytest.fail("it trained"))
    assert "is a directory" in call("demo", "-o", tmp_path, "--run", tmp_path / "run", code=2).stderr


# -------------------------------------------------------------------------------------------------- the gate
def test_a_gate_that_fails_ends_with_1_and_the_findings_are_printed_all_the_same(rising):
    verdicts = {finding.code: finding.verdict for finding in confshift.diagnose(Run(rising))}
    assert verdicts["rise"] == "yes"
    result = call("diagnose", rising, "--fail-on", "rise", code=1)
    assert result.stdout == call("diagnose", rising).stdout
    assert result.stderr == "failed: rise\n"
    assert call("diagnose", rising, "--fail-on", "rise", "--json", code=1).stdout.startswith('{"schema"')


def test_a_gate_that_does_not_fail_ends_with_0(rising):
    codes = [finding.code for finding in confshift.diagnose(Run(rising)) if finding.verdict != "yes"]
    assert len(codes) > 2
    result = call("diagnose", rising, *(word for code in codes for word in ("--fail-on", code)))
    assert "failed" not in result.stderr


def test_every_gate_that_fails_is_named(rising):
    result = call("diagnose", rising, "--fail-on", "loss_change", "--fail-on", "rise", code=1)
    assert result.stderr == "failed: loss_change, rise\n"


@pytest.fixture(scope="module")
def diverged(tmp_path_factory, make_logits):
    """A run that gives no answer at its end, and has an infinite loss once."""
    logits, targets = make_logits(60, 3, 8, churn=0.2)
    logits[1, 4, targets[4]] = -np.inf
    logits[6:] = np.nan
    return fill(tmp_path_factory.mktemp("cli") / "diverged", logits, targets)


@pytest.mark.parametrize("code", ["rise", "refinement_rise"])
def test_a_gate_does_not_vouch_for_what_is_left_out(diverged, code):
    result = call("diagnose", diverged, "--fail-on", code, code=1)
    assert result.stderr.startswith(f"failed: {code}: the verdict, '")
    assert "2 epochs had no finite output for most samples, the loss was infinite at 1 epoch" in result.stderr
    assert result.stdout.splitlines()[1].startswith("The run diverged at epoch 6: from then on its outputs ")
    assert "\nEpochs 6 and 7 have no finite output. At epoch 1, " in result.stdout


def test_a_gate_about_something_else_does_not_care_what_is_left_out(diverged):
    assert call("diagnose", diverged, "--fail-on", "few_samples").stderr == ""


def test_history_shows_infinite_losses_and_no_temperature_where_there_is_none(diverged):
    lines = call("history", diverged).stdout.splitlines()
    rows = {line.split()[0]: line.split() for line in lines[3:11]}
    assert lines[2].split()[2:5] == ["loss", "where", "finite"]
    assert lines[2].endswith("no finite loss  no answer")
    assert rows["1"][2] == "infinite"
    assert rows["1"][-2:] == ["1", "0"]
    assert rows["7"][1:] == ["0", *["none"] * 10, "60", "60"]
    table = json.loads(call("history", diverged, "--json").stdout)["checkpoints"]
    assert table[1]["loss"] is None
    assert table[1]["finite_loss"] > 0
    assert table[7]["temperature"] is None
    assert [row["unanswered_samples"] for row in table[:8]] == [0] * 6 + [60] * 2


def test_compare_says_what_each_number_is_over(diverged):
    found = json.loads(call("compare", diverged, 1, 5, "--json").stdout)
    assert (found["samples_left_out"], found["samples_unanswered"]) == (1, 0)
    assert found["infinite_samples"] == {"before": 1, "after": 0}
    assert {row["quantity"]: row["samples"] for row in found["change"]}["accuracy"] == 60
    text = call("compare", diverged, 1, 5).stdout.splitlines()[0]
    assert "59 samples; 1 sample without a finite loss left out of both sides" in text
    assert "the whole mean loss before is infinite (1 sample gives its true class a probability of 0)" in text
    assert text.endswith("accuracy and confidence over 60 samples with an answer")


def test_what_a_file_adds_without_a_finite_loss_is_said(tmp_path):
    shares = np.array([[1.0, 0.0], [0.5, 0.5], [np.nan, 0.5], [0.25, 0.75]])
    np.savez(tmp_path / "late.npz", probabilities=shares, targets=[1, 0, 0, 1])
    result = call("add", tmp_path / "run", tmp_path / "late.npz", "--epoch", 3)
    assert "4 samples, loss infinite (0.4904 where finite) nats, accuracy 66.67 %" in result.stdout
    assert result.stdout.endswith("; 2 samples without a finite loss, 1 of them without an answer\n")


def test_a_gate_that_does_not_exist_ends_with_2_and_names_those_that_do(rising):
    result = call("diagnose", rising, "--fail-on", "raise", code=2)
    assert "no finding 'raise'; there are rise, " in result.stderr
    assert result.stdout == ""


# --------------------------------------------------------------------------------------- which run, and where
def test_without_a_run_the_one_written_to_last_is_taken(rising, tmp_path, monkeypatch, make_logits):
    monkeypatch.chdir(tmp_path)
    logits, targets = make_logits(40, 3, 2)
    for name in ("old", "new"):
        fill(tmp_path / "runs" / name, logits, targets)
    (tmp_path / "runs" / "nothing").mkdir()
    times = [path for path in (tmp_path / "runs").rglob("*") if "new" not in path.parts]
    for path in times:
        os.utime(path, ns=(1, 1))
    result = call("history")
    assert result.stderr == f"run: {Path('runs/new')}\n"
    assert result.stdout == call("history", "runs/new").stdout

    # A checkpoint added to the old one makes it the newest.
    call("add", "runs/old", saved(tmp_path, logits[0], targets), "--epoch", 9)
    os.utime(tmp_path / "runs/new/run.json", ns=(2, 2))
    for path in (tmp_path / "runs/new").iterdir():
        os.utime(path, ns=(2, 2))
    assert call("history").stderr == f"run: {Path('runs/old')}\n"


@pytest.mark.parametrize("command", ["report", "diagnose", "history", "verify"])
def test_without_a_run_anywhere_the_remedy_is_told(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call(command, code=2)
    assert "RUN is missing, and runs/ holds none" in result.stderr


def break_nothing(path):
    return path / "not there"


def break_no_run(path):
    (path / "run.json").unlink()
    return path


def break_run_file(path):
    newer = encode({"schema": 9, "class_names": ["a", "b", "c"], "versions": {"confshift": "9.8.7"}})
    (path / "run.json").write_bytes(newer)
    return path


def break_every_record(path):
    for record in path.glob("*/*.json"):
        record.write_text("{}")
    return path


@pytest.mark.parametrize("break_it", [break_nothing, break_no_run, break_run_file, break_every_record])
@pytest.mark.parametrize("command", [("report",), ("history",), ("diagnose",), ("compare", 0, 1)])
def test_a_run_that_cannot_be_read_ends_with_2_and_clear_lines(command, break_it, tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 20, 3))
    path = break_it(fill(tmp_path / "broken", logits, np.arange(20) % 3))
    result = call(command[0], path, *command[1:], code=2)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[-1].startswith("Error: ")
    assert all(line.startswith("left out: ") for line in lines[:-1])


def test_damaged_class_names_are_named_and_all_the_rest_is_said(tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 20, 3))
    path = fill(tmp_path / "broken", logits, np.arange(20) % 3)
    said = call("history", path).stdout
    (path / "run.json").write_text("{")
    result = call("history", path)
    assert result.stdout == said
    (line,) = result.stderr.splitlines()
    assert line.startswith("damaged: run.json: ")


def test_an_epoch_that_is_not_there_ends_with_2_and_names_those_that_are(rising):
    assert "its epochs: 0, 1, 2, 3, 4, 5, 6, 7" in call("compare", rising, 1, 99, code=2).stderr
    assert "before=99" in call("diagnose", rising, "--before", 99, code=2).stderr


def test_a_damaged_checkpoint_is_told_of_on_stderr_and_the_others_are_used(tmp_path):
    logits = np.random.default_rng(0).normal(size=(3, 20, 3))
    path = fill(tmp_path / "damaged", logits, np.arange(20) % 3)
    columns = sorted(path.glob("val/*.columns.npy"))[1]
    columns.write_bytes(columns.read_bytes()[:-1])
    result = call("history", path, "--json")
    epochs = [row["epoch"] for row in json.loads(result.stdout)["checkpoints"] if row["split"] == "val"]
    assert epochs == [0, 2]
    assert result.stderr.startswith("left out: ")
    assert columns.name in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("compare", "somewhere"), ("nonsense",), ("compare", "r", "one", "two"), ("diagnose", "--looks")],
)
def test_wrong_usage_ends_with_2(arguments):
    assert call(*arguments, code=2).stdout == ""


def test_a_number_of_looks_that_means_nothing_ends_with_2(rising):
    assert "looks='often'" in call("diagnose", rising, "--looks", "often", code=2).stderr


# ------------------------------------------------------------------------------------------------------- add
def saved(folder, logits, targets, **more):
    path = folder / "some.npz"
    np.savez(path, logits=logits, targets=targets, **more)
    return path


def test_add_makes_a_run_from_files_of_any_other_program(tmp_path, make_logits):
    logits, targets = make_logits(50, 3, 3)
    run = tmp_path / "added"
    for epoch, one in enumerate(logits):
        file = saved(tmp_path, one, targets, class_names=["x", "y", "z"])
        result = call("add", run, file, "--epoch", epoch / 2)
    metrics = confshift.Checkpoint.from_predictions(Predictions(logits[2], targets)).metrics()
    expected = f"val epoch 1, 50 samples, loss {metrics['loss']:.4f} nats, accuracy {metrics['accuracy']:.2%}"
    assert expected.replace("%", " %") in result.stdout
    assert Run(run).epochs == (0, 0.5, 1)
    assert Run(run).class_names == ("x", "y", "z")
    np.testing.assert_array_equal(Run(run)[0.5].predictions.logits, logits[1])


def test_add_as_json_gives_the_metrics(tmp_path, make_logits):
    logits, targets = make_logits(50, 3, 1)
    file = saved(tmp_path, logits[0], targets)
    found = json.loads(call("add", tmp_path / "r", file, "--epoch", 1, "--split", "test", "--json").stdout)
    metrics = confshift.Checkpoint.from_predictions(Predictions(logits[0], targets)).metrics()
    assert found == plain(run=str(tmp_path / "r"), split="test", epoch=1.0, metrics=metrics)


def test_add_refuses_other_samples_and_keeps_the_run(tmp_path, make_logits):
    logits, targets = make_logits(50, 3, 1)
    call("add", tmp_path / "r", saved(tmp_path, logits[0], targets), "--epoch", 1)
    result = call("add", tmp_path / "r", saved(tmp_path, logits[0][:49], targets[:49]), "--epoch", 2, code=2)
    assert "50 samples before and 49 now" in result.stderr
    assert Run(tmp_path / "r").epochs == (1,)


def test_add_wants_a_file_that_exists_and_an_epoch(tmp_path, make_logits):
    logits, targets = make_logits(10, 3, 1)
    file = saved(tmp_path, logits[0], targets)
    assert "--epoch" in call("add", tmp_path / "r", file, code=2).stderr
    assert "does not exist" in call("add", tmp_path / "r", tmp_path / "none.npz", "--epoch", 1, code=2).stderr
    assert not (tmp_path / "r").exists()


# ---------------------------------------------------------------------------------------------------- verify
def test_verify_reads_every_file_and_ends_with_1_where_one_is_damaged(tmp_path, make_logits):
    logits, targets = make_logits(50, 3, 2)
    path = fill(tmp_path / "r", logits, targets)
    assert call("verify", path).stdout == "6 files, 0 damaged\n"
    damaged = sorted(path.glob("val/*.logits.npy"))[0]
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    result = call("verify", path, code=1)
    assert result.stdout.splitlines()[-1] == "6 files, 1 damaged"
    assert damaged.name in result.stdout
    found = json.loads(call("verify", path, "--json", code=1).stdout)
    assert found["sound"] is False
    assert [file["file"] for file in found["files"] if not file["sound"]] == [damaged.name]


# ----------------------------------------------------------------------------------------- as a shell sees it
def test_no_control_character_of_a_name_reaches_the_terminal(rising):
    for arguments in (
        ("diagnose",),
        ("diagnose", "--all"),
        ("history",),
        ("compare", 0, 7),
        ("diagnose", "--json"),
    ):
        output = call(arguments[0], rising, *arguments[1:]).output
        assert "\x1b" not in output
        assert "\u202e" not in output
    assert r"evil\x1b[2J\u202e\n</script>" in call("diagnose", rising, "--all").stdout


def test_a_path_with_a_control_character_is_escaped_in_the_error(tmp_path):
    result = call("history", tmp_path / "no\x1b[2J\nrun", code=2)
    assert result.stderr.count("\n") == 1
    assert r"no\x1b[2J\nrun" in result.stderr


def test_in_a_shell_data_goes_to_stdout_and_the_code_comes_back(rising):
    done = call_outside("compare", rising, 0, 7, "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    run = Run(rising)
    change = pd.DataFrame(json.loads(done.stdout)["change"]).set_index("quantity")
    assert change.loc["loss", "change"] == confshift.compare(run[0], run[7]).change.loc["loss", "change"]
    failed = call_outside("history", "nowhere", cwd=rising)
    assert (failed.returncode, failed.stdout) == (2, b"")
    assert failed.stderr.startswith(b"Error: there is no run at ")
    assert b"Traceback" not in failed.stderr


def test_a_terminal_that_lacks_a_character_gets_the_text_all_the_same(rising):
    done = call_outside("compare", rising, 0, 7, PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u2212" in done.stdout


def test_a_reader_that_stops_early_is_no_error_worth_a_traceback(rising):
    command = [*RUN_COMMAND, "diagnose", str(rising), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before anything is written
        error = process.stderr.read()
    assert b"Traceback" not in error


def test_calibrate_writes_the_recalibration_of_the_recommended_checkpoint(rising, tmp_path):
    path, run = tmp_path / "c.json", Run(rising)
    shown = call("calibrate", rising, "-o", path)
    loaded, choice = confshift.Calibration.load(path), confshift.summarize(run).recommendation
    assert (loaded.epoch, loaded.temperature, loaded.biases) == (
        choice.epoch,
        choice.temperature,
        choice.biases,
    )
    assert shown.stdout.startswith(f"val, epoch {choice.epoch:g}: {choice.method}\n")
    assert f"confshift.Calibration.load({str(path)!r})" in shown.stdout
    assert shown.stderr == f"wrote {path}\n"


def test_what_calibrate_prints_of_a_file_is_code_that_runs(rising, tmp_path):
    shown = call("calibrate", rising, "--epoch", 7, "-o", tmp_path / "c.json").stdout
    names = {
        "confshift": confshift,
        "torch": torch,
        "model": torch.nn.Linear(4, 4),
        "inputs": torch.ones(2, 4),
    }
    exec(shown.split("\n\n")[-1], names)
    assert torch.allclose(names["probabilities"].sum(dim=-1), torch.ones(2))


def test_calibrate_as_json_holds_the_unrounded_table(rising, tmp_path):
    found = json.loads(call("calibrate", rising, "--epoch", 7, "-o", tmp_path / "c.json", "--json").stdout)
    expected = confshift.calibrate(Run(rising)[7])
    assert found["table"] == plain(table=expected.table)["table"]
    assert (found["epoch"], found["temperature"]) == (7, expected.temperature)
    assert found["method"] == expected.method


def test_calibrate_on_stdout_is_the_file_alone(rising):
    done = call_outside("calibrate", rising, "-o", "/dev/stdout")
    assert json.loads(done.stdout)["confshift_calibration"] == 2
    assert b"expected loss" in done.stderr


def test_calibrate_names_the_epochs_where_there_is_no_such_epoch(rising, tmp_path):
    assert "has no epoch 99" in call("calibrate", rising, "--epoch", 99, "-o", tmp_path / "c", code=2).stderr
    assert "there is no folder" in call("calibrate", rising, "-o", tmp_path / "no" / "c", code=2).stderr


def test_help_and_version_load_nothing_but_click():
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom confshift.cli import main\n"
        "for option in ('--help', '--version'):\n"
        "    assert CliRunner().invoke(main, [option], catch_exceptions=False).exit_code == 0\n"
        "print(*{'numpy', 'pandas', 'torch', 'altair', 'sklearn', 'jinja2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_command_explains_itself():
    assert call("--version").stdout == f"confshift {confshift.__version__}\n"
    for name, command in main.commands.items():
        assert name in call("--help").stdout
        shown = call(name, "--help").stdout
        assert command.help
        assert "Usage: " in shown


def test_explain_prints_the_text_of_a_question_without_markup():
    shown = call("explain", "rise").stdout
    assert shown.startswith("What it asks. Is the mean validation loss at the end above")
    assert "What to do. " in shown
    assert "(docs/statistics.md)" in shown
    assert not re.search(r"\*\*|\]\(", "".join(call("explain", code).stdout for code in explanations()))


def test_explain_lists_the_questions_and_refuses_another_code_by_name():
    lines = call("explain").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(explanations())
    assert all(line.count("?") == 1 and line.endswith("?") for line in lines)
    refused = call("explain", "rize", code=2)
    assert "no finding 'rize'; there are rise," in refused.stderr
