"""Did the run diverge or collapse? Where it did, that is the first thing to say, and other answers stop."""

from __future__ import annotations

import math
from dataclasses import replace

from confshift.analysis.causes.divergence import MOST_TEMPERATURE, Divergence
from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.findings import commands
from confshift.findings.best_checkpoint import kept
from confshift.findings.left_out import epochs_in_words
from confshift.findings.question import Finding, Question
from confshift.findings.wording import epoch, fitting, nats, percent

_DIVERGED = Question("diverged", "Did the run diverge or collapse?", section="rise", problem="yes")

#: What explains nothing about outputs that say nothing.
_SWITCHED_OFF = ("temperature_repairs", "scale_growth", "class_bias")

REMEDY = "train with a lower learning rate, warm it up, or clip the gradients"


def diverged(history: History) -> Finding:
    """Say whether the run ends in outputs that say nothing about the labels, from when on, and what to do."""
    divergence = history.divergence
    last = divergence.table.iloc[-1]
    if divergence:
        return _diverged(history)
    table = divergence.table.tail(1)
    if len(divergence.table) < 2:
        reason, answer = "There is only one checkpoint.", "One checkpoint shows no divergence"
        return _DIVERGED.not_applicable(reason, table, answer=answer)
    if last["state"] == "no finite output":
        reason = "No checkpoint has finite outputs for most samples."
        return _DIVERGED.answer("cannot tell", reason, table, answer="No finite outputs to judge")
    if not divergence.learned:
        return _never_learned(divergence)
    accuracy = percent(last["accuracy"])
    answer = f"No divergence: accuracy is {accuracy} at the end"
    sentences = [f"The answers at the last epoch are better than a guess (accuracy {accuracy})."]
    if last["state"] == "guess":
        answer = "No divergence: the outputs still say something"
        sentences = [
            "The answers at the last epoch are no better than a guess, but its outputs still say something "
            "about the labels."
        ]
    if divergence.recovered:
        members = divergence.table.index.isin(divergence.recovered)
        sentences.append(
            f"At {epochs_in_words(history.main, members)} they were no better than a guess, or missing: "
            "the run recovered."
        )
    if MOST_TEMPERATURE < last["temperature"] < math.inf:
        sentences.append(f"Its best temperature, {last['temperature']:.3g}, means logits on another scale.")
    sentence, details = fitting(sentences)
    return _DIVERGED.answer("no", sentence, table, answer=answer, details=details)


def _diverged(history: History) -> Finding:
    divergence, choice = history.divergence, history.recommendation
    short, full = _end(history)
    return _DIVERGED.answer(
        "yes",
        f"{since_when(divergence)}: {short}.",
        divergence.end,
        f"Keep {kept(history)}; {REMEDY}.",
        answer=f"The run diverged at epoch {epoch(divergence.epoch)}",
        details=full,
        command=commands.calibrate(choice.epoch) if choice.calibrated else "",
    )


def _never_learned(divergence: Divergence) -> Finding:
    last = divergence.table.iloc[-1]
    sentence = "No checkpoint's answers are better than a guess: nothing was learned that could be lost."
    table = divergence.table.tail(1)
    if last["state"] != "lost":
        return _DIVERGED.answer("no", sentence, table, answer="No divergence: nothing was learned to lose")
    sentence += (
        " The learning rate may be too high from the start, or the network memorises what says nothing about "
        "these labels."
    )
    step = "Repeat the run at a tenth of the learning rate; check that inputs and labels belong together."
    answer = "The run may have diverged from the start"
    return _DIVERGED.answer("cannot tell", sentence, table, step, answer=answer)


def since_when(divergence: Divergence) -> str:
    """Write when a run diverged, and at which learning rate: the start of a sentence."""
    rate = divergence.table.loc[divergence.epoch, "learning_rate"]
    at_rate = "" if math.isnan(rate) else f" (learning rate {rate:.2g})"
    return f"Diverged at epoch {epoch(divergence.epoch)}{at_rate}"


def answers_after(divergence: Divergence) -> str:
    """Say what became of the outputs of a run that diverged."""
    if (divergence.end["state"] == "no finite output").all():
        return "its outputs are not finite"
    return "its answers are no better than a guess"


def opening_of_divergence(history: History, name: str = "") -> str:
    """Return the first sentence about a run that diverged, by its name where there are two; "" for another.

    Outputs that are not finite have a sentence of their own that follows.
    """
    divergence = history.divergence
    if not divergence:
        return ""
    since = since_when(divergence)
    if name:
        since = f"{name} {since[0].lower()}{since[1:]}"
    if (divergence.end["state"] == "no finite output").all():
        return f"{since}."
    return f"{since}: the answers are then no better than a guess."


def _end(history: History) -> tuple[str, str]:
    """Describe the checkpoints of the bad end, in short and in numbers."""
    divergence, panel = history.divergence, history.main
    silent = divergence.end["state"] == "no finite output"
    parts, numbers = [], ""
    if not silent.all():
        last = divergence.end[~silent].iloc[-1]
        no_use = f", of no use at any temperature up to {MOST_TEMPERATURE:.0f}"
        loss = f"loss {nats(last['loss'])} nats" if math.isfinite(last["loss"]) else "infinite loss"
        parts.append("the answers are then no better than a guess")
        numbers = (
            f"At epoch {epoch(float(last.name))}: accuracy {percent(last['accuracy'])}, {loss}"
            f"{no_use if last['temperature'] > MOST_TEMPERATURE else ''}; a uniform guess costs "
            f"{nats(math.log(len(panel.class_names)))} nats."
        )
    if silent.any():
        members = divergence.table.index.isin(divergence.end.index[silent])
        have = "have" if silent.sum() > 1 else "has"
        every = not panel.counts.answered[members].any()
        what = "no finite output" if every else "no finite output for most samples"
        parts.append(f"{epochs_in_words(panel, members)} {have} {what}")
    text = ", and ".join(parts)
    if len(divergence.end) == 1:
        text += ". So far that is one epoch, which the next may take back"
    return text, numbers


def shows_divergence(history: History, comparison: Comparison) -> bool:
    """Tell whether a comparison ends where the run has diverged, or at the last answer before."""
    divergence = history.divergence
    return bool(divergence) and comparison.after.epoch >= min(divergence.epoch, history.pair[1].epoch)


def without_steps(findings: list[Finding]) -> list[Finding]:
    """Return findings that advise nothing, where the divergence is what to act on."""
    return [finding.without_advice() for finding in findings]


def without_explanations(findings: list[Finding], divergence: Divergence) -> list[Finding]:
    """Return findings about a change that explain nothing by confidence, and advise nothing."""
    reason = (
        f"{since_when(divergence)}: outputs that say nothing about the labels are not a matter of confidence."
    )
    answer = "The run diverged: not a matter of confidence"
    return [
        replace(finding, verdict="not applicable", answer=answer, sentence=reason, details="")
        if finding.code in _SWITCHED_OFF
        else finding
        for finding in without_steps(findings)
    ]
