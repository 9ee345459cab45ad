"""The sentences under the charts: templates that Python fills here and the page's script for other pairs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from confshift.findings import wording

#: `{name:format}`: a value of `pair_values` in one of the formats below. format.js has the same formats.
READINGS = {
    "pair": ("Epoch {A:epoch} to {B:epoch}: loss {loss_moved:text}, accuracy {accuracy_difference:text}."),
    "loss_levels": "{loss_levels:text}",
    "loss_status": "{loss_status:text}",
    "loss_detail": "{finite_part:text}{loss_detail:text}",
    "accuracy_levels": "{accuracy_levels:text}",
    "accuracy_status": "{accuracy_status:text}",
    "accuracy_detail": "{accuracy_detail:text}",
    "calibrated_levels": "{calibrated_levels:text}",
    "calibrated_status": "{calibrated_status:text}",
    "calibrated_detail": "{calibrated_detail:text}",
    "not_counted": "{not_counted:text}",
    "sources": "Where the {loss_difference:text} nats come from",
    "total_amount": "{loss_difference:text}",
    "split": (
        "Of which calibration: {calibration_change_amount:text}; the loss once calibrated: "
        "{refinement_change_amount:text}."
    ),
    **{
        f"{transition}_amount": f"{{{transition}_amount:text}}"
        for transition in ("stayed_wrong", "forgotten", "learned", "stayed_right")
    },
    **{
        f"{transition}_count": f"{{{transition}_samples:samples}}"
        for transition in ("stayed_wrong", "forgotten", "learned", "stayed_right")
    },
    "total_count": "{N:samples}",
    **{
        f"{part}_part_{text}": f"{{{part}_part_{text}:text}}"
        for part in ("scale", "balance", "rest")
        for text in ("amount", "levels")
    },
    "accuracy": (
        "Accuracy {accuracy_change:rose} from {accuracy_from:text} to {accuracy_to:text}: "
        "{learned_answers:samples} newly right, {forgotten_answers:samples} newly wrong."
    ),
    "account": (
        "{loss_from:text} {hedging_amount:text} by hedging, {error_rate_amount:text} by the number of "
        "mistakes, {mistake_cost_amount:text} by what a mistake costs = {loss_to:text}{left_out:text}. "
        "{costs:text}"
    ),
    "cells": (
        "At {at_B:text}, {up_samples:samples} have a higher loss than at {at_A:text} and add "
        "{up_amount:text} nats; {down_samples:samples} have a lower one and add {down_amount:text}. "
        "Together {loss_difference:text}."
    ),
    "history": (
        "From {at_A:text} to {at_B:text}: still wrong {stayed_wrong_amount:text}, newly wrong "
        "{forgotten_amount:text}, newly right {learned_amount:text}, still right {stayed_right_amount:text}; "
        "together {loss_difference:text} nats."
    ),
    "parts": (
        "Of {loss_difference:text} nats, {calibration_change_amount:text} is calibration, which a "
        "temperature and class biases repair; the rest, {refinement_change_amount:text}, stays."
    ),
    "class_accuracy": "{class_fall:text}",
    "class_contributions": (
        "{class_top:text} The {shown_classes:count} classes shown add up to {shown_contribution:signed} of "
        "{loss_difference:text}."
    ),
    "reliability": (
        "Confidence minus accuracy: {gap_before:points} at {at_A:text}, {gap_after:points} at "
        "{at_B:text}. Calibration error over 15 bins: {ece_before:percent} and {ece_after:percent}; chance "
        "alone gives about {ece_null_before:percent} and {ece_null_after:percent}."
    ),
    "confidence_right": (
        "Confidence was above 90 % for {sure_right_before:percent} of the right answers at {at_A:text}, and "
        "for {sure_right_after:percent} at {at_B:text}."
    ),
    "confidence_wrong": (
        "Confidence was above 90 % for {sure_wrong_before:percent} of the wrong answers at {at_A:text}, and "
        "for {sure_wrong_after:percent} at {at_B:text}."
    ),
    "concentration": "{carried:text}",
    "scatter": "Above the dashed line, where the loss rose, lie {up_samples:samples} of {N:count}.",
}

#: Sentences, or parts of one, that depend on the numbers: by case, the text for that case.
CHOICES: dict[str, dict[str, str]] = {
    "loss_moved": {
        "finite": "{loss_difference:text} nats",
        "rose": "rose to infinity",
        "fell": "no longer infinite",
        "stayed": "infinite at both",
    },
    "loss_levels": {
        "finite": "{loss_from:text} → {loss_to:text}",
        "rose": "rose to infinity",
        "fell": "no longer infinite",
        "stayed": "infinite at both",
    },
    # Of the chosen pair; where the run's verdict counts from another epoch, or knows that A was picked, the
    # report's own pair has others.
    "loss_detail": {
        "pair": (
            "{loss_difference:text} nats, 95 % interval{by_groups:text} {loss_low:signed} to "
            "{loss_high:signed}"
        ),
    },
    "accuracy_levels": {"pair": "{accuracy_from:text} → {accuracy_to:text}"},
    "accuracy_detail": {
        "pair": (
            "{accuracy_difference:text}, 95 % interval{by_groups:text} {accuracy_low:bare_points} to "
            "{accuracy_high:bare_points}"
        ),
    },
    "calibrated_levels": {"pair": "{refinement_from:text} → {refinement_to:text}"},
    "calibrated_detail": {
        "pair": (
            "{refinement_difference:text} nats, 95 % interval{by_groups:text} {refinement_low:signed} to "
            "{refinement_high:signed}"
        ),
    },
    **{
        f"{quantity}_status": {
            "up": "measurably up",
            "down": "measurably down",
            "same": "no measurable change",
            "unknown": "too few samples to tell",
            "infinite": "not finite",
        }
        for quantity in ("loss", "accuracy", "calibrated")
    },
    **{
        f"missing_{side}": {
            "none": "",
            "some": f" Without one at {{at_{side}:text}}: {{nonfinite_{when}:samples}}.",
            "infinite": (
                f" Without one at {{at_{side}:text}}: {{nonfinite_{when}:samples}} "
                f"({{infinite_{when}:count}} infinite)."
            ),
        }
        for side, when in (("A", "before"), ("B", "after"))
    },
    "not_counted": {
        "none": "",
        "some": (
            "Losses are over the {scored:samples} with a finite loss at both.{missing_A:text}"
            "{missing_B:text} Accuracy is over the {answered:samples} with an answer at both."
        ),
    },
    "finite_part": {
        "finite": "",
        **dict.fromkeys(("rose", "fell", "stayed"), "Over the samples with a finite loss at both: "),
    },
    "left_out": {
        "none": "",
        "some": (
            ". Losses are over the {scored:samples} with a finite loss at both.{missing_A:text}"
            "{missing_B:text} Accuracy is over the {answered:samples} with an answer at both"
        ),
    },
    "costs": {
        "wrong": (
            "Each mistake cost {cost_before:nats} nats at {at_A:text} and {cost_after:nats} at {at_B:text}."
        ),
        "right": "Almost no sample is wrong at both epochs; see the table.",
    },
    "class_fall": {
        "fell": (
            "Of the classes shown, the accuracy of {fell_class:text} ({fell_samples:samples}) fell most: "
            "{fell_before:percent} to {fell_after:percent}."
        ),
        "none": "No class shown lost accuracy.",
    },
    "class_top": {
        "adds": "Of the classes shown, {top_class:text} adds most: {top_contribution:signed} nats.",
        "none": "No class shown adds to the loss.",
    },
    "carried": {
        "rise": (
            "The 1 % of samples that rose most have {top_1:percent} of all increases, 10 % have "
            "{top_10:percent}. Without the {cancelling:samples} that rose most there is no rise."
        ),
        "within_noise": (
            "The rise is within its error. Without the {cancelling:samples} that rose most there is none."
        ),
        "none": "The loss did not rise, so there is no rise to attribute.",
    },
}

#: How to write a value; format.js has the same functions.
FORMATS: dict[str, Callable[[Any], str]] = {
    "nats": wording.nats,
    "signed": wording.signed,
    "percent": wording.percent,
    "points": wording.points,
    "bare_points": lambda value: wording.points(value).removesuffix(" points"),
    "count": lambda value: f"{value:,.0f}",
    "samples": wording.count,
    "epoch": wording.epoch,
    "rose": wording.rose_or_fell,
    "text": str,
}
_PLACE = re.compile(r"\{(\w+):(\w+)\}")


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Fill a template; a number that does not exist is written as a dash.

    Examples
    --------
    >>> fill("loss {change:signed} nats at epoch {B:epoch}", {"change": 0.5, "B": 12.0})
    'loss +0.50 nats at epoch 12'
    """

    def write(place: re.Match[str]) -> str:
        value = values[place[1]]
        if isinstance(value, float) and not math.isfinite(value):
            return "–"
        return FORMATS[place[2]](value)

    return _PLACE.sub(write, template)
