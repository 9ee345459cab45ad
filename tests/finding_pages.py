"""The pages of the findings: an example of each answer, in the tool's own words, from runs of the tests.

    python tests/finding_pages.py

writes docs/findings/ anew. What stands above the examples is in src/confshift/findings/explanations.md.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent / "findings"))
from odd_runs import BIAS, NOISE, ODD, SIGNAL, TARGETS
from real_runs import checkpoints_of

from confshift.checkpoint import Checkpoint, Provenance
from confshift.findings.diagnosis import diagnose
from confshift.findings.question import VERDICTS, explanations
from confshift.predictions import Predictions
from confshift.reporting.layout import SECTIONS

FOLDER = Path(__file__).parents[1] / "docs" / "findings"
#: Answers that a question never has, and why.
NEVER = {
    (
        "evaluates_plainly",
        "cannot tell",
    ): "A check passes or fails; what could not be tried is said beside it.",
    (
        "logged_loss",
        "cannot tell",
    ): "A logged number equals the mean to the digits it was logged with, or not.",
    (
        "outputs_in_order",
        "cannot tell",
    ): "The order counts as right until another one is better beyond doubt.",
    ("stuck_samples", "cannot tell"): "It counts samples, and a count has no error.",
}
SITES = list(np.random.default_rng(0).choice(["north", "south"], 1000))
TITLES = {part: section.title for section in SECTIONS for part in section.parts}


def run_of(logits, *, first=0, targets=TARGETS, train=(), **provenance):
    """Return checkpoints over these logits, with the same provenance at each."""
    plain = [
        Checkpoint.from_predictions(Predictions(z, targets), epoch=epoch, split=split)
        for split, part in (("val", logits), ("train", train))
        for epoch, z in enumerate(part, first)
    ]
    return [replace(one, provenance=Provenance(**provenance)) for one in plain]


def made(strength, scale=1.0):
    """Return logits of 500 samples that know as much as a strength says."""
    return scale * (strength * SIGNAL + NOISE)


def few_explode():
    """Return two epochs: one sample in a hundred gets worse by far, the others slightly better."""
    worse = np.where((np.arange(len(TARGETS)) < 5)[:, None], -60.0 * SIGNAL, 0.0)
    return run_of([made(2), made(2.02) + worse], first=1)


def one_class_gets_worse():
    """Return two epochs: the samples of one class get worse, the others slightly better."""
    worse = np.where((TARGETS == 0)[:, None], -2.0 * SIGNAL, 0.0)
    return run_of([made(2), made(2.02) + worse], first=1)


def measured(factor, **checks):
    """Return one epoch whose loss the training loop logged, times a factor, and what was tried on a batch."""
    passed = {name: {"status": "passed"} for name in ("modes", "repeatable", "alone", "samples")}
    (one,) = run_of([made(2)], first=1)
    loss = round(factor * one.metrics()["loss"], 4)
    train = [made(3 if checks else 1.5)]
    return run_of([made(2)], first=1, train=train, logged={"loss": loss}, checks={**passed, **checks})


def named_too_early():
    """Return three epochs of a trained network, the first of which says that it is from before training."""
    trained = checkpoints_of("lr_drops")[30:33]
    return [replace(one, epoch=epoch) for epoch, one in enumerate(trained)]


#: Each run by a description; the first one with an answer is its example. The real ones are described in
#: tests/findings/real_runs.py and tests/benchmarks/trainings.py.
RUNS = {
    "A small network on ten classes that knows its training set; the learning rate drops twice": partial(
        checkpoints_of, "lr_drops"
    ),
    "A linear head on fixed features of 64 classes, a tenth of the labels wrong": partial(
        checkpoints_of, "many_classes"
    ),
    "Short texts; one class comes ever more often in the training": partial(checkpoints_of, "class_drift"),
    "Short texts; first many, mostly of one class, then few, some of them labelled wrong": partial(
        checkpoints_of, "biased_start"
    ),
    "Handwritten digits, a tenth of the training labels wrong": partial(checkpoints_of, "noisy_digits"),
    "A seventh of the validation labels wrong": partial(checkpoints_of, "wrong_validation_labels"),
    "A learning rate that is far too high at epochs 13 and 14": partial(checkpoints_of, "accident"),
    "A learning rate that rises until the network collapses": partial(
        checkpoints_of, "rate_rises_until_it_collapses"
    ),
    "Logits that shrink after eight epochs": lambda: run_of(ODD["underconfident"]),
    "Two epochs": lambda: run_of([made(1), made(2)]),
    "Logits that are noise, on a growing scale": lambda: run_of(ODD["never learned"]),
    "The first of these networks, without a record of its learning rate": lambda: [
        replace(one, metadata={}) for one in checkpoints_of("lr_drops")
    ],
    "Five samples of 500 get far worse, the others slightly better": few_explode,
    "One class of four gets worse, the others slightly better": one_class_gets_worse,
    "A model that was saved twice": lambda: run_of([made(2), made(2)], first=1),
    "One epoch, measured well": partial(measured, 1.0),
    "One epoch, measured badly": partial(measured, 1.37, repeatable={"status": "failed", "difference": 0.1}),
    "One epoch, with the same samples for training": lambda: run_of([made(2)], first=1, train=[made(2)]),
    "A trained network, inspected as if before training": named_too_early,
    "A start that is confident of wrong answers": lambda: run_of([made(-1, 4), made(1), made(2)]),
    "Outputs in another order than the labels": lambda: run_of(
        [made(0, 0.1), np.roll(made(2), 1, axis=1), np.roll(made(3), 1, axis=1)]
    ),
    "One epoch, before training": lambda: run_of([made(0, 0.1) + BIAS]),
}


#: Which subset each sample of some of these runs is in: at random, but for the last.
SUBSETS = {
    "A small network on ten classes that knows its training set; the learning rate drops twice": SITES,
    "A learning rate that rises until the network collapses": SITES,
    "Two epochs": SITES,
    "One class of four gets worse, the others slightly better": [f"book {k}" for k in TARGETS],
}


def subsets_of(description, run):
    """Return the subsets of the samples of a run; None where it has none."""
    if description not in SUBSETS:
        return None
    ids = next(iter(run)).measurement.sample_ids
    return pd.Series(SUBSETS[description][: len(ids)], index=ids, name="source")


def examples():
    """Return each question with an example of each answer: the run's description, and the finding."""
    found = {}
    for description, make in RUNS.items():
        run = make()
        for finding in diagnose(run, slices=subsets_of(description, run)):
            _, answers = found.setdefault(finding.code, (finding.question, {}))
            answers.setdefault(finding.verdict, (description, finding))
    return found


def escaped(text):
    """Return a text as Markdown that shows it as it is."""
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", text)


def written(question, answers, explanation):
    """Return the page of a question."""
    bad = f"the bad news is **{question.problem}**" if question.problem else "neither answer is bad news"
    lines = [
        f"# {question.title}\n",
        f"`{question.code}`, in the section *{TITLES[question.section]}*; {bad}.\n",
        f"{explanation}\n",
        "## Examples of the answers\n",
    ]
    for verdict in VERDICTS:
        if verdict not in answers:
            lines.append(f"### {verdict}: never\n\n{NEVER[question.code, verdict]}\n")
            continue
        description, finding = answers[verdict]
        lines += [f"### {verdict}: {escaped(finding.answer)}\n", f"*{description}.*\n"]
        said = [escaped(part) for part in (finding.sentence, finding.details) if part]
        said += [f"**Next:** {escaped(finding.next_step)}"] if finding.next_step else []
        said += [f"`{finding.command}`"] if finding.command else []
        lines.append("\n>\n".join(f"> {part}" for part in said) + "\n")
    return "\n".join(lines)


def pages():
    """Return the text of each page by its name."""
    found = examples()
    rows = [
        f"| [{question.title}]({code}.md) | `{code}` | {question.problem or ''} |"
        for code, (question, _) in found.items()
    ]
    texts = {
        "index": "# Every question that is asked\n\nEach has a page: what it asks, by which formula and "
        "thresholds, what to do (`confshift explain CODE` prints these), and an example of each answer.\n\n"
        "| question | code | bad news |\n|--|--|--|\n" + "\n".join(rows) + "\n"
    }
    by_code = explanations()
    for code, (question, answers) in found.items():
        texts[code] = written(question, answers, by_code[code])
    return texts


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
