"""The kinds of run, and what each of them means."""

from __future__ import annotations

from typing import NamedTuple

from confshift.findings.left_out import REPAIR_ZERO
from confshift.findings.question import Verdict


class Kind(NamedTuple):
    """Whether the model itself is getting worse, what a run of this kind means, and what to do."""

    verdict: Verdict
    answer: str
    meaning: str
    step: str


#: Each kind of run: whether the model itself is getting worse, what that means, what to do.
KINDS = {
    "overfitting": Kind(
        "yes",
        "The model itself gets worse",
        "The loss rises, and not only because of the confidence: calibration alone is not enough.",
        "Keep {kept}.",
    ),
    "hidden_overfitting": Kind(
        "yes",
        "The model itself gets worse; the loss hides it",
        "The model gets worse while the loss does not show it.",
        "Keep {kept}.",
    ),
    "confidence": Kind(
        "no",
        "Purely a confidence problem",
        "The loss rises systematically; the calibrated loss and the error rate rise far too little, "
        "if at all, to explain that or to undo what was learned.",
        "Keep {kept}.",
    ),
    "mostly_confidence": Kind(
        "cannot tell",
        "Mostly a confidence problem; the rest is within noise",
        "More than half of the systematic rise of the loss is confidence; any decline of the model itself is "
        "within noise.",
        "Keep {kept}.",
    ),
    "confidence_and_more": Kind(
        "yes",
        "Mostly a confidence problem, but a little knowledge is lost",
        "The model itself gets worse too, but only a little compared with the rise of the loss or with what "
        "it learned.",
        "Keep {kept}.",
    ),
    "diverged": Kind(
        "not applicable",
        "The run diverged, so no other kind applies",
        "Neither a confidence problem nor overfitting: the run diverged, and its last outputs say nothing "
        "about the labels.",
        "",
    ),
    "class_drift": Kind(
        "no",
        "Class drift: the balance of the classes is off",
        "A large part of the rise comes from too much probability for some classes and too little for "
        "others, which one bias for each class repairs.",
        "Keep {kept}.",
    ),
    "improving": Kind(
        "no",
        "The run still improves",
        "The last epoch is better than the middle of the run, and no series rises systematically.",
        "",
    ),
    "no_rise": Kind(
        "no",
        "Nothing gets worse",
        "No series rises systematically, and the run no longer improves visibly.",
        "",
    ),
    "undecidable": Kind(
        "cannot tell",
        "Undecidable so far whether the model gets worse",
        "Any decline of the model itself is within noise, and too large a one to be ruled out.",
        "Validate on more samples, or train more epochs.",
    ),
    "setback": Kind(
        "yes",
        "A setback: the model lost something at once",
        "The model lost something at once that it has not learned again since: a jump, not a trend, and not "
        "only its confidence.",
        "Keep {kept}; find out what happened.",
    ),
    "loss_undecided": Kind(
        "no",
        "The model itself does not get worse",
        "The error rate does not rise, and at most little of what was learned is undone. Whether the loss "
        "rises, by confidence then, is within noise.",
        "Keep {kept}.",
    ),
    "infinite": Kind(
        "cannot tell",
        "An infinite loss can't show whether the model declines",
        "Some samples give their true class a probability of 0 at the end, and such a loss can't show "
        "whether the model itself gets worse.",
        REPAIR_ZERO,
    ),
    "unscored": Kind(
        "cannot tell",
        "Undecidable: some outputs are not finite",
        "Outputs that are not finite were left out, so what became of these samples is unknown.",
        "Find out why these outputs are not finite, and inspect again.",
    ),
    "too_early": Kind(
        "not applicable",
        "Too early to say what kind of run this is",
        "There are too few epochs to judge what becomes of the loss.",
        "Train more epochs, then ask again.",
    ),
}

#: The answers of those kinds that are called overfitting where the training loss fell meanwhile.
OVERFITTING = {
    "overfitting": "Overfitting: the model itself gets worse",
    "hidden_overfitting": "Hidden overfitting: the loss does not show it",
}

#: The cause of each kind of run, in the words of a program's reader.
CAUSES = {
    "confidence": "confidence (miscalibration); the model itself did not get worse",
    "mostly_confidence": "mostly confidence (miscalibration); whether the model got worse is undecided",
    "confidence_and_more": "mostly confidence (miscalibration); the model itself got a little worse too",
    "class_drift": "drift between classes, which one bias per class repairs",
    "overfitting": "the model itself got worse, even calibrated",
    "hidden_overfitting": "the model itself got worse, and the loss hides it",
    "setback": "a setback: the model lost something at once and has not learned it again",
    "loss_undecided": "none in the model itself; whether the loss rises is undecided",
    "improving": "none: the run still improves",
    "no_rise": "none: the loss does not rise beyond noise",
    "diverged": "divergence of the training",
    "infinite": "probabilities of exactly 0 for true classes",
    "unscored": "outputs that are not finite",
    "undecidable": "undecided: too few samples or epochs to tell",
    "too_early": "undecided: too few epochs",
    "one_checkpoint": "none: one checkpoint shows no change",
    "chosen_pair": "not judged: these epochs are not those of the run's verdict",
    "two_runs": "not judged: two runs are compared",
}
