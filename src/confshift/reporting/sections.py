"""What stands where on the page: sections, the charts in each, the findings that belong to them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OTHER", "SECTIONS", "TOP", "Figure", "Section"]


@dataclass(frozen=True)
class Figure:
    """A chart with its title, how to read it, and what it does when another pair is chosen."""

    chart: str  # the id of the spec; with a variant, its beginning
    title: str
    table: str  # the table behind it
    reading: str = ""  # the key of its sentence
    note: str = ""  # how to read it
    follows: str = "exact"  # another pair: "exact", "samples" (from the samples carried), "fixed"
    variant: str = ""  # what it is drawn in two ways by: "scale" (of confidences) or "span" (of losses)
    pair_only: bool = False  # needs two checkpoints
    one_run: bool = False  # follows the epochs of one run
    drag: bool = False  # dragging on it chooses two epochs
    half: bool = False  # two of them share a row


@dataclass(frozen=True)
class Section:
    """A step of the argument."""

    anchor: str
    title: str
    figures: tuple[Figure, ...] = ()


TOP = (
    Figure(
        "loss",
        "Validation loss, as it is and after temperature scaling",
        "epochs",
        "loss",
        "Bands: 95 % of each mean.",
        variant="span",
        drag=True,
    ),
    Figure("accuracy", "Accuracy", "epochs", "accuracy", variant="span", drag=True),
)

SECTIONS = (
    Section("rise", "Is it systematic, and which checkpoint is best?"),
    Section(
        "account",
        "What changed",
        (
            Figure(
                "account",
                "From the loss before to the loss after, in three steps that add up",
                "account",
                "account",
                "Loss = mean hedge (how unsure the model is of its own answer, right or wrong) + error rate "
                "× mean cost of a mistake.",
                pair_only=True,
            ),
        ),
    ),
    Section(
        "cells",
        "In which samples",
        (
            Figure(
                "cells",
                "The same change, by what became of the samples",
                "cells",
                "cells",
                "Every sample is in one bar; the bars add up to the change. Forgotten: right before, wrong "
                "after; learned: the other way round.",
                pair_only=True,
            ),
        ),
    ),
    Section(
        "history",
        "How it came about",
        (
            Figure(
                "history",
                "Every epoch against epoch A, by what became of the samples",
                "history",
                "history",
                "The bars of an epoch add up to the line, the change of the loss since epoch A. The epochs "
                "of the initial fall are left out.",
                pair_only=True,
                one_run=True,
            ),
        ),
    ),
    Section(
        "parts",
        "Calibration or information",
        (
            Figure(
                "parts",
                "The loss in two parts: what one temperature repairs, and the rest",
                "part_series",
                "parts",
                "The two add up to the loss.",
                variant="span",
                one_run=True,
                drag=True,
            ),
        ),
    ),
    Section(
        "classes",
        "Where: classes",
        (
            Figure(
                "class_contributions",
                "Which classes the change comes from",
                "class_cells",
                "class_contributions",
                "Diamond: a class's whole contribution; all classes add up to the change.",
                "samples",
                pair_only=True,
            ),
            Figure(
                "class_accuracy", "Accuracy by true class", "class_accuracy", "class_accuracy", pair_only=True
            ),
            Figure(
                "competitors",
                "True classes (rows) and the wrong classes that gained on them (columns)",
                "competitors",
                "",
                "Nats of the change. Vermilion, +: the wrong class gained on the true one; blue, −: it lost.",
                "fixed",
                pair_only=True,
            ),
        ),
    ),
    Section(
        "reliability",
        "Can the confidence be believed?",
        (
            Figure(
                "reliability_before",
                "Reliability at A",
                "bins_before",
                variant="scale",
                pair_only=True,
                half=True,
            ),
            Figure("reliability_after", "Reliability at B", "bins_after", variant="scale", half=True),
            Figure(
                "confidence_right",
                "Confidence of right answers",
                "confidence_right",
                "confidence_right",
                variant="scale",
                half=True,
            ),
            Figure(
                "confidence_wrong",
                "Confidence of wrong answers",
                "confidence_wrong",
                "confidence_wrong",
                variant="scale",
                half=True,
            ),
        ),
    ),
    Section(
        "concentration",
        "How many samples carry it",
        (
            Figure(
                "concentration",
                "The change summed up, samples that rose most first",
                "concentration",
                "concentration",
                "The curve climbs while losses rose, falls where they fell, and ends at the mean's change.",
                "samples",
                pair_only=True,
            ),
        ),
    ),
    Section(
        "samples",
        "Single samples",
        (
            Figure(
                "scatter",
                "Each sample's loss, before and after",
                "samples",
                "scatter",
                "Hover for the sample, click to follow it. Losses below 0.001 stand at the edge.",
                "samples",
                pair_only=True,
                half=True,
            ),
            Figure(
                "trajectory",
                "The chosen sample over the epochs",
                "trajectory",
                follows="samples",
                one_run=True,
                half=True,
            ),
        ),
    ),
    Section("start", "Was the start sane?"),
    Section("measuring", "Is it measured right?"),
)

#: Findings that no section names stand here.
OTHER = Section("other", "Further questions")
