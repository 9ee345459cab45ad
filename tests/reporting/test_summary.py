"""The first lines without the page: numbers as on it, amounts that add up, JSON of at most 2 kB."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hostile_names import HOSTILE_NAMES, HOSTILE_TITLE

from confshift import Run, report
from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.cli import main
from confshift.findings.commands import in_place
from confshift.findings.kinds import KINDS
from confshift.findings.told import within_choice
from confshift.predictions import Predictions
from confshift.reporting.brief import brief_document
from confshift.reporting.characters import printable
from confshift.reporting.first_screen import verdicts
from confshift.reporting.subject import tell_run, tell_two_runs
from confshift.reporting.summary import (
    CAUSES,
    summary_of,
    summary_text,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "findings"))

from odd_runs import ODD, history_of
from real_runs import ARRAYS, checkpoints_of

RUNS = [*ODD, *sorted(path.stem for path in ARRAYS.glob("*.npz"))]


def story_of(name, **pair):
    history = history_of(name)
    chosen = {"before": None, "after": None, "title": None, "thumbnail": None} | pair
    return tell_run(list(history.main.checkpoints), history, **chosen)


def amounts_in(line):
    return [Decimal(text.replace("−", "-")) for text in re.findall(r"[+−]\d+(?:\.\d+)?", line)]


@pytest.mark.parametrize("name", ["confidence", "overfitting", "class drift", "lr_drops"])
def test_the_amounts_add_up_as_printed(name):
    sources = summary_of(story_of(name)).sources
    total, *parts = amounts_in(sources)
    assert len(parts) == (3 if name == "class drift" else 4)
    assert sum(parts) == total


def test_each_amount_is_that_of_the_samples_it_names():
    story = story_of("overfitting")
    net = story.comparison.cells["contribution"].groupby(level="transition", observed=True).sum()
    labels = {
        "still wrong": "stayed_wrong",
        "newly wrong": "forgotten",
        "newly right": "learned",
        "still right": "stayed_right",
    }
    summary = summary_of(story)
    brief = json.loads(brief_document(summary, {}))
    of_samples, of_parts = brief["amounts"]["by_samples"], brief["amounts"]["by_part"]
    for label, transition in labels.items():
        printed = re.search(rf"{label} ([+−]\d+\.\d+)", summary.sources)[1]
        assert float(printed.replace("−", "-")) == pytest.approx(net[transition], abs=0.01)
        assert of_samples[label.replace(" ", "_")] == float(printed.replace("−", "-"))
    before, after = brief["compared"]["loss"]
    for total in (after - before, sum(of_samples.values()), sum(of_parts.values())):
        assert total == pytest.approx(brief["amounts"]["loss"], abs=1e-9)


def test_the_lines_that_matter_come_first_then_steps_and_a_line_for_each_problem():
    story = story_of("confidence")
    summary = summary_of(story)
    text = summary_text(summary, {})
    first, steps, problems, last = text.split("\n\n")
    assert first.splitlines() == [
        story.answer.action,
        story.answer.why,
        summary.numbers,
        summary.sources,
        summary.checks,
    ]
    assert summary.numbers.startswith("Epoch 13 → 23: loss 0.44 → 0.61 (up, systematic), accuracy ")
    assert steps.startswith("Do this:\n1. Keep epoch 16, ")
    severities = [finding.severity for finding in story.findings]
    assert len(problems.splitlines()) == 1 + severities.count("problem")
    assert f"Checks: {severities.count('problem')} problems, " in first
    assert last == "--all prints every check."


def test_only_of_problems_it_is_said_that_there_are_none():
    summary = summary_of(story_of("confidence"))
    fine = [finding for finding in summary.findings if finding.severity == "fine"]
    assert replace(summary, findings=fine).checks == f"Checks: no problems, {len(fine)} fine."


def test_every_check_is_printed_in_full_the_problems_first():
    story = story_of("confidence")
    text = summary_text(summary_of(story), {}, every_check=True)
    found = re.findall(r"^\[(.+)\]", text, re.MULTILINE)
    assert found == sorted(found, key=["problem", "undecided", "fine", "not applicable"].index)
    assert len(found) == len(story.findings)
    for finding in story.findings:
        assert printable(finding.sentence) in text
        assert finding.details in text


def test_one_checkpoint_has_numbers_and_no_sources():
    summary = summary_of(story_of("one epoch"))
    assert re.fullmatch(
        r"Epoch 0: loss 1\.06, accuracy 52\.2 % \(chance level: 25\.0 %, most frequent class: 27\.2 %\), "
        r"calibrated loss 1\.\d+\.",
        summary.numbers,
    )
    assert summary.sources == ""


def test_every_kind_of_run_has_a_cause():
    assert set(CAUSES) == {*KINDS, "one_checkpoint", "chosen_pair", "two_runs"}


@pytest.mark.parametrize("name", RUNS[::2])
def test_brief_json_is_short_and_names_cause_checkpoint_and_remedy(name):
    story = story_of(name)
    text = brief_document(summary_of(story), {})
    found = json.loads(text, parse_constant=pytest.fail)
    assert len(text.encode("utf-8")) <= 2_000
    choice = story.history.recommendation
    assert found["kind"] == story.answer.kind
    assert (found["checkpoint"]["epoch"], found["checkpoint"]["calibrate"]) == (
        choice.epoch,
        choice.calibrated,
    )
    assert found["remedy"] == [step.text for step in story.answer.steps]
    assert found["problems"] == [one.code for one in story.findings if one.severity == "problem"]
    assert set(found["fields_left_out"]) <= {"remarks", "code"}


def test_brief_json_leaves_out_what_does_not_fit_and_says_so():
    summary = summary_of(story_of("confidence"))
    long = replace(summary, answer=replace(summary.answer, remarks=("A remark. " * 300,)))
    text = brief_document(long, {})
    found = json.loads(text)
    assert len(text.encode("utf-8")) <= 2_000
    assert found["fields_left_out"] == ["remarks"]
    assert "remarks" not in found
    assert found["checkpoint"]["epoch"] == 16


def test_brief_json_of_two_runs_and_of_a_chosen_pair_names_the_checkpoint():
    other = history_of("hidden")
    history = history_of("confidence")
    runs = [list(side.main.checkpoints) for side in (history, other)]
    options = {"before": None, "after": None, "title": None, "thumbnail": None}
    story = tell_two_runs(tuple(runs), (history, other), **options)
    found = json.loads(brief_document(summary_of(story), {}))
    assert found["kind"] == "two_runs"
    assert found["remedy"][0].startswith(f"Keep epoch {history.recommendation.epoch:g} of the first run")
    chosen = json.loads(brief_document(summary_of(story_of("confidence", before=3, after=9)), {}))
    assert chosen["kind"] == "chosen_pair"
    assert chosen["checkpoint"]["epoch"] == history.recommendation.epoch


@pytest.mark.parametrize("name", [*HOSTILE_NAMES, HOSTILE_TITLE, "\U0001f600" * 24, "x" * 3_000, 'a"b\\c'])
def test_no_name_makes_brief_json_long(name, tmp_path, make_logits):
    logits, targets = make_logits(60, 3, 9)
    names = [name, "b", "c"]
    histories = [
        summarize(
            Checkpoint.from_predictions(
                Predictions(z, targets, class_names=names), epoch=epoch, split="s" * 99
            )
            for epoch, z in enumerate(scale * logits)
        )
        for scale in (1, 3)
    ]
    options = {"before": None, "after": None, "title": name, "thumbnail": None}
    runs = tuple(list(history.main.checkpoints) for history in histories)
    stories = [
        tell_run(runs[0], histories[0], **options),
        tell_two_runs(runs, tuple(histories), **options),
    ]
    for story in stories:
        text = brief_document(summary_of(story), {})
        assert len(text.encode("utf-8")) <= 2_000
        json.loads(text)


def test_the_paths_of_commands_are_quoted_and_only_there():
    places = {"RUN": Path("my runs/it's"), "OTHER": Path("b")}
    assert in_place("confshift compare RUN 1 2", places) == """confshift compare 'my runs/it'"'"'s' 1 2"""
    assert (
        in_place("confshift report RUN OTHER", {"RUN": Path("RUNS/OTHER")})
        == "confshift report RUNS/OTHER OTHER"
    )
    assert in_place("RUNNING", places) == "RUNNING"


def test_the_code_of_a_temperature_is_python_that_runs():
    code = story_of("confidence").answer.steps[0].code
    expression = code.removeprefix("probabilities = ").removesuffix(".softmax(dim=-1)")
    temperature = history_of("confidence").recommendation.temperature
    result = eval(expression, {"model": lambda inputs: inputs, "inputs": np.ones(3)})
    assert result == pytest.approx(np.ones(3) / temperature, rel=0.005)


def test_the_code_of_the_page_and_of_brief_json_names_the_folder_of_the_run(tmp_path, make_run):
    folder = tmp_path / "my runs" / "first"
    run = Run(folder)
    for checkpoint in make_run(400, 3, 6, churn=0.1):
        logits = 4 * checkpoint.predictions.logits + [1.5, 0.0, -1.5]
        run.append(Predictions(logits, checkpoint.predictions.targets), epoch=checkpoint.epoch)
    run.flush()
    page = report(run)
    code = page.answer.steps[0].code
    assert "calibrate RUN" in code
    brief = json.loads(CliRunner().invoke(main, ["diagnose", str(folder), "--json", "--brief"]).stdout)
    assert f"calibrate '{folder}' --epoch" in brief["code"]
    assert f"calibrate &#39;{folder}&#39; --epoch" in page.html
    assert " RUN " not in re.sub(r"<script.*?</script>", "", page.html, flags=re.DOTALL)


def test_a_figure_is_systematic_since_its_own_best_epoch():
    history = summarize(checkpoints_of("many_classes"))
    verdict = history.rise.loc["refinement_loss"]
    assert verdict["status"] == "systematic"
    said = verdicts(history, compare(*history.pair))
    best = f"{verdict['best_epoch']:g}"  # another epoch than A
    assert said["calibrated_status"] == f"up since epoch {best}, systematic"
    epochs, amount = re.match(r"Epoch (.*): (\S+) nats, 95 % interval ", said["calibrated_detail"]).groups()
    assert epochs == f"{best} to {verdict['last_epoch']:g}"
    assert float(amount) == pytest.approx(verdict["amount"], abs=1e-4)
    assert "calibrated_status" not in verdicts(history, compare(*history.main.checkpoints[3:10:4]))


def test_of_two_runs_brief_json_names_the_better_one_and_its_checkpoint():
    first, second = history_of("hidden"), history_of("confidence")
    runs = [list(side.main.checkpoints) for side in (first, second)]
    options = {"before": None, "after": None, "title": None, "thumbnail": None}
    story = tell_two_runs((runs[0], runs[1]), (first, second), **options)
    found = json.loads(brief_document(summary_of(story), {}))
    if found["checkpoint"] is None:
        assert story.answer.action.startswith(("Choose", "Keep either", "Calibrate either"))
    else:
        at = story.names.index(found["checkpoint"]["run"])
        assert found["checkpoint"]["epoch"] == story.histories[at].recommendation.epoch


def test_a_figure_says_no_more_than_the_run_carries():
    flat, diverged = history_of("flat"), history_of("collapse")
    assert diverged.divergence
    assert "jitter" not in verdicts(diverged, compare(*diverged.pair)).get("loss_status", "")
    for history in (flat, diverged):
        comparison = compare(*history.pair)
        said = verdicts(history, comparison).get("calibrated_status")
        assert (said == "perhaps chance: A was picked as the best") == (
            within_choice(history, comparison, "refinement_loss")
        )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("infinite at the end", "infinite"), ("some samples lost, the others flat", "unscored")],
)
def test_what_hides_a_verdict_is_a_problem_itself(name, kind):
    story = story_of(name)
    assert story.answer.kind == kind
    finding = next(finding for finding in story.findings if finding.code == "run_kind")
    assert (finding.verdict, finding.severity) == ("cannot tell", "problem")


def test_hidden_overfitting_is_told_by_the_parts_of_the_loss():
    sources = summary_of(story_of("hidden")).sources
    assert re.search(r": scale −[\d.]+, class balance \S+, the rest, once calibrated \+[\d.]+\.$", sources)
