"""The answer at the top: what to do, why, what the numbers leave out, and the steps that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from confshift.analysis.comparison import Comparison
from confshift.analysis.history import History
from confshift.analysis.rise import leading
from confshift.findings.chosen_pair import about_chosen_pair, about_one_checkpoint
from confshift.findings.diverged import opening_of_divergence
from confshift.findings.left_out import few_infinite, opening, pair_opening
from confshift.findings.question import Finding
from confshift.findings.reasons import action_of, reason_of
from confshift.findings.run_kind import kind_of
from confshift.findings.steps import Step, steps_of
from confshift.findings.told import is_judged, wrong_samples
from confshift.findings.trained import trained_loss
from confshift.findings.wording import Vocabulary, count, epoch, nats, rose_or_fell
from confshift.recalibration import FEW_WRONG


@dataclass(frozen=True)
class Answer:
    """What to do about a run, and why, in the words of the page's first lines.

    Attributes
    ----------
    kind : str
        A key of `run_kind.KINDS`; "one_checkpoint", "chosen_pair" where the compared epochs are not those of
        the run's verdicts, or "two_runs".
    action : str
        What to do, in at most 8 words.
    why : str
        What happened and through whose fault, in one or two sentences of together at most 35 words.
    remarks : tuple of str
        What the numbers leave out, what is not finite, what rests on few samples: a sentence each.
    steps : tuple of Step
        What to do in detail, at most 3.
    """

    kind: str
    action: str
    why: str
    remarks: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()

    @property
    def text(self) -> str:
        """Action, why and remarks as one paragraph."""
        return " ".join((self.action, self.why, *self.remarks))

    def said_in(self, words: Vocabulary) -> Answer:
        """Return the answer in the words for the run's rows."""
        steps = tuple(replace(step, text=words.say(step.text)) for step in self.steps)
        remarks = tuple(map(words.say, self.remarks))
        return Answer(self.kind, words.say(self.action), words.say(self.why), remarks, steps)

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, for JSON."""
        return {
            "kind": self.kind,
            "action": self.action,
            "why": self.why,
            "remarks": list(self.remarks),
            "steps": [step.to_dict() for step in self.steps],
        }


def answer_run(history: History, comparison: Comparison, findings: Sequence[Finding]) -> Answer:
    """Answer what to do about one run.

    Parameters
    ----------
    history : History
        Of the run; every clause of the answer is one of its verdicts.
    comparison : Comparison
        Of the two checkpoints that are shown.
    findings : sequence of Finding
        Those of `diagnosis.answers`, in its order; the steps quote their next steps.
    """
    remarks = (*_remarks(history, comparison), *_subset_that_stands_out(findings))
    if len(history.main.checkpoints) == 1:
        return Answer("one_checkpoint", *about_one_checkpoint(history), remarks, steps_of(history, findings))
    if not _is_own_pair(history, comparison):
        action, why = about_chosen_pair(history, comparison)
        run = " ".join(
            filter(None, ("About the whole run:", opening_of_divergence(history), action_of(history)))
        )
        return Answer("chosen_pair", action, why, (run, *remarks), steps_of(history, findings))
    kind = kind_of(history)
    why = reason_of(history, comparison)
    return Answer(kind, action_of(history), why, remarks, steps_of(history, findings))


def _subset_that_stands_out(findings: Sequence[Finding]) -> list[str]:
    return [found.sentence for found in findings if found.code == "few_subsets" and found.verdict == "yes"]


def _is_own_pair(history: History, comparison: Comparison) -> bool:
    """Tell whether the verdicts on the run are about this pair: its own, or the one that they judge."""
    return (comparison.before, comparison.after) == history.pair or is_judged(history, comparison)


def _remarks(history: History, comparison: Comparison) -> tuple[str, ...]:
    """Return the sentences that change how the answer about a run is to be read."""
    first = opening(history.main) or pair_opening(comparison)
    remarks = [first, few_infinite(history.main), _other_numbers(history, comparison)]
    if any(comparison.infinite_samples):
        remarks.append(_over_finite(comparison))
    remarks += [_never_learned(history), _wrong_labels(history), _few_wrong(history), _start_is_best(history)]
    remarks.append(trained_loss(comparison))
    return tuple(remark for remark in remarks if remark)


def _other_numbers(history: History, comparison: Comparison) -> str:
    """Say where the verdict on a rise is over other samples or epochs than the numbers of its own pair."""
    row = history.rise.loc[leading(history.rise)]
    judged, compared = row["samples"], len(comparison.panel.targets)
    own = (comparison.before, comparison.after) == history.pair
    if not own or history.divergence or not row["amount"] > 0:
        return ""
    epochs, pair = (row["best_epoch"], row["last_epoch"]), (comparison.before.epoch, comparison.after.epoch)
    if epochs != pair:
        judged_ends, ends = (f"epochs {epoch(first)} and {epoch(last)}" for first, last in (epochs, pair))
        return f"The verdict compares {judged_ends}, the numbers {ends}."
    if judged != compared and not any(comparison.infinite_samples):
        return f"The verdict is over {count(judged)}, the numbers are over {compared:,}."
    return ""


def _over_finite(comparison: Comparison) -> str:
    """Say what the loss did over the samples where it is finite at both epochs."""
    change = float(comparison.change.loc["loss", "change"])
    samples = count(len(comparison.panel.targets))
    if comparison.before is comparison.after:
        loss = comparison.change.loc["loss", "after"]
        return f"Over the {samples} with a finite loss it is {nats(loss)} nats."
    size = f" by {nats(abs(change))} nats" if rose_or_fell(change) != "did not change" else ""
    return f"Over the {samples} with a finite loss at both epochs, it {rose_or_fell(change)}{size}."


def _few_wrong(history: History) -> str:
    """Say that a temperature would rest on few wrong samples, at the checkpoint to keep."""
    kept = history.recommendation.epoch
    checkpoint = history.main.checkpoint_at(kept)
    wrong = wrong_samples(checkpoint)
    if not checkpoint.finite.any() or wrong >= FEW_WRONG:
        return ""
    number = count(wrong, "wrong sample") if wrong else "no wrong sample"
    only = f"{'is' if wrong < 2 else 'are'} {'only ' if wrong else ''}{number}"
    return f"At epoch {epoch(kept)} there {only}: too few to fit a temperature to."


def _never_learned(history: History) -> str:
    divergence = history.divergence
    if divergence.learned or len(divergence.table) < 2 or not history.main.counts.answered.any():
        return ""
    return "No epoch's answers are better than a guess."


def _wrong_labels(history: History) -> str:
    if history.recommendation.method != "label_noise_temperature":
        return ""
    return "Some of these labels look wrong: there the loss is high although the model may be right."


def _start_is_best(history: History) -> str:
    if history.recommendation.epoch > 0 or len(history.main.checkpoints) < 2 or history.divergence:
        return ""
    return "No epoch of this training is better than the model it started from."
