"""The words of the page, explained in a line each, and linked from their first use."""

from __future__ import annotations

import re

#: By the word as the page writes it: its explanation.
TERMS = {
    "loss": (
        "How little probability the model gives to the true classes: minus its logarithm, averaged over the "
        "samples."
    ),
    "nats": "The unit of a loss, the natural logarithm: 0.69 nats is the loss of a fair coin toss.",
    "systematic": (
        "Beyond what this many samples leave uncertain, and beyond the jitter from one epoch to the next."
    ),
    "calibrated": (
        "With confidences that are right as often as they say: the logits are divided by a temperature, and "
        "each class gets a bias where that helps."
    ),
    "temperature": ("What all logits are divided by. Above 1 it lowers every confidence; no answer changes."),
    "overconfident": "More often wrong than the confidences say.",
    "overfitting": "Fitting the training set ever better while the model gets worse on other data.",
    "scale": "The part of a loss that one temperature removes: logits that are too large, or too small.",
    "class balance": (
        "The part of a loss that one bias for each class removes: classes that get too much probability, or "
        "too little."
    ),
    "the rest": "The loss once calibrated: what the model does not know, which no recalibration removes.",
    "95 % interval": (
        "Of 100 such intervals about 95 hold the true change. It takes the two epochs as given: it does not "
        "know that they may have been picked as the best."
    ),
    "still wrong": "Samples that are wrong at both epochs; still right: right at both.",
    "newly wrong": "Samples that were right at A and are wrong at B; newly right: the other way round.",
    "confidence": "The probability that the model gives to its own answer.",
    "cost of a mistake": (
        "By how much a model prefers its wrong answer to the true class: the logarithm of the ratio of their "
        "probabilities."
    ),
    "competitor": "Of a class: a wrong class that the model takes it for.",
    "calibration error": (
        "How far confidence and accuracy are apart, averaged over bins of samples with a similar confidence."
    ),
    "hedging": (
        "How unsure the model is of its own answers, right or wrong: minus the logarithm of its confidence, "
        "averaged."
    ),
}


def anchor(term: str) -> str:
    """Return the id of a word's explanation."""
    return "word-" + re.sub(r"\W+", "-", term).strip("-")


class Glossary:
    """Finds the first use of each word in the texts of one page, in the order in which it is asked."""

    def __init__(self) -> None:
        self._unused = dict(TERMS)

    @property
    def lines(self) -> list[tuple[str, str, str]]:
        """The id, the word and the explanation of each."""
        return [(anchor(term), term, text) for term, text in TERMS.items()]

    def parts(self, text: str) -> list[tuple[str, str]]:
        """Split a text at the words that it is the first to use.

        Returns
        -------
        list of tuple
            Parts of the text that add up to it, each with the id of its explanation, or "".
        """
        if not self._unused:
            return [(text, "")]
        words = "|".join(
            re.escape(term).replace(r"\ ", r"[ \xa0]") for term in sorted(self._unused, key=len, reverse=True)
        )
        parts, start = [], 0
        for found in re.finditer(rf"\b(?:{words})\b", text, re.IGNORECASE):
            term = found[0].lower().replace("\xa0", " ")
            if self._unused.pop(term, None) is not None:
                parts += [(text[start : found.start()], ""), (found[0], anchor(term))]
                start = found.end()
        return [(part, place) for part, place in [*parts, (text[start:], "")] if part]
