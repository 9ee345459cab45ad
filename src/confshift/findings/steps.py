"""What to do next, in detail: the checkpoint to keep and its calibration first, then what findings advise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from confshift.analysis.history import History
from confshift.findings import commands
from confshift.findings.best_checkpoint import with_biases_in_words
from confshift.findings.diverged import REMEDY
from confshift.findings.kinds import OVERFITTING
from confshift.findings.overfitting import remedy
from confshift.findings.question import SEVERITIES, Finding
from confshift.findings.reasons import tied_epochs
from confshift.findings.run_kind import kind_of
from confshift.findings.wording import count, epoch, fault_of, nats

_MOST = 3
#: What the answer itself and the first step say.
_SAID = (
    *("rise", "refinement_rise", "error_rise", "run_kind", "diverged", "best_checkpoint"),
    *("temperature_repairs", "dearer_mistakes", "scale_growth", "class_bias", "lost_information"),
)
_OF_KIND = {
    "diverged": f"{REMEDY[0].upper()}{REMEDY[1:]}.",
    "improving": "Train on, and inspect further epochs.",
    "setback": "Find out what happened there: the learning rate, the data, the code.",
    "infinite": "Return the model's logits, not the outputs of a softmax; let no mask cover a true class.",
    "unscored": "Find out why these outputs are not finite, and inspect again.",
    "undecidable": "Validate on more samples, or train more epochs.",
    "too_early": "Inspect more epochs, and ask again.",
}
#: The kinds whose own step comes before that of keeping a checkpoint, as their action does.
_FIRST = ("improving", "infinite", "unscored")


@dataclass(frozen=True)
class Step:
    """Something to do.

    Attributes
    ----------
    text : str
    code : str
        A command line or lines of Python to copy; RUN stands for the path of the run, OTHER for that of a
        second one; "" where there is nothing to copy.
    finding : str
        The code of the finding behind it.
    """

    text: str
    code: str = ""
    finding: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, for JSON."""
        return asdict(self)


def steps_of(history: History, findings: Sequence[Finding]) -> tuple[Step, ...]:
    """Return at most 3 steps: which checkpoint to keep, what the kind of run needs, what findings advise."""
    first = [_keep(history), _of_kind(history, findings)]
    if kind_of(history) in _FIRST:
        first.reverse()
    steps = [*first[0], *first[1], *_of_findings(findings)]
    return tuple({step.text: step for step in steps}.values())[:_MOST]


def _keep(history: History) -> Iterator[Step]:
    """Return the step to keep a checkpoint, where that says more than the answer."""
    is_alone = len(history.main.checkpoints) == 1
    has_learned = kind_of(history) != "diverged" or history.recommendation.epoch > 0
    if has_learned and (history.recommendation.calibrated or not is_alone):
        yield keep(history)


def keep(history: History, *, run: str = "RUN", name: str = "") -> Step:
    """Return the step to keep a run's checkpoint and calibrate it, with the code that does it.

    Parameters
    ----------
    history : History
    run : str
        What stands for the path of the run in the code.
    name : str
        Of the run, where there are two.
    """
    choice = history.recommendation
    kept = epoch(choice.epoch)
    text = f"Keep epoch {kept}{f' of {name}' if name else ''}"
    if not choice.calibrated:
        plain = f"{text} as it is, {choice.reason}; no calibration gains anything measurable."
        return Step(f"{plain}{_ties(history)}", "", "best_checkpoint")
    text += f", {choice.reason}"
    method = (
        "one temperature and a bias for each class"
        if choice.with_biases
        else f"T = {choice.temperature:.3g}, because it is {fault_of(choice.temperature)}"
    )
    text += f": {nats(choice.loss)} nats{with_biases_in_words(history)} expected with {method}."
    if choice.method == "label_noise_temperature":
        text += " Some labels look wrong; this T allows for them, so on these labels the loss looks higher."
    else:
        text += _ties(history)
    if not choice.with_biases:
        code = f"probabilities = (model(inputs) / {choice.temperature:.3g}).softmax(dim=-1)"
        return Step(text, code, "best_checkpoint")
    code = (
        f"{commands.calibrate(choice.epoch).replace('RUN', run)} -o calibration.json\n"
        "# then, in Python:\n"
        'calibration = confshift.Calibration.load("calibration.json")\n'
        "logits = calibration.module()(model(inputs))\n"
        "probabilities = logits.softmax(dim=-1)"
    )
    return Step(text, code, "best_checkpoint")


def _ties(history: History) -> str:
    """Say which other epochs this set can't rank below the one to keep, where its reason names none."""
    if history.recommendation.kept.lowest != history.recommendation.epoch:
        return ""
    others = [value for value in tied_epochs(history) if value != history.recommendation.epoch]
    if not others:
        return ""
    if len(others) == 1:
        return f" Epoch {epoch(others[0])} is as good within noise."
    if len(others) == 2:
        return f" Epochs {epoch(others[0])} and {epoch(others[1])} are as good within noise."
    ends = f"{epoch(others[0])} and {epoch(others[-1])}"
    return f" {count(len(others), 'epoch')} between {ends} are as good within noise."


def _of_kind(history: History, findings: Sequence[Finding]) -> Iterator[Step]:
    kind = kind_of(history)
    if len(history.main.checkpoints) == 1:
        return
    if kind in OVERFITTING:
        yield Step(*remedy(history), "run_kind")
    if kind not in _OF_KIND:
        return
    code = "diverged" if kind == "diverged" else "run_kind"
    if kind in ("undecidable", "too_early"):
        rise = next((finding for finding in findings if finding.code == "rise" and finding.next_step), None)
        if rise is not None:
            yield Step(rise.next_step, rise.command, "rise")
            return
    yield Step(_OF_KIND[kind], "", code)


def _of_findings(findings: Sequence[Finding]) -> Iterator[Step]:
    """Return what the problems advise, beside what the answer itself says."""
    for finding in by_severity(findings):
        if finding.severity == "problem" and finding.next_step and finding.code not in _SAID:
            yield step_of(finding)


def step_of(finding: Finding) -> Step:
    """Return the step that a finding advises, after what it is about."""
    advice = finding.next_step
    text = f"{finding.answer}: {advice[0].lower()}{advice[1:]}" if finding.answer else advice
    return Step(text, finding.command, finding.code)


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings with the problems first, then the undecided, fine and inapplicable ones."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
