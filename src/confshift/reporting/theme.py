"""Colours, labels and the Vega configuration that all charts share. Plain data."""

from __future__ import annotations

from typing import Any

#: Room for the labels of every chart over epochs, in pixels, so that their epochs line up.
LEFT = 40

#: Okabe-Ito colours by role; the style sheet has their values for light, dark and print.
_ROLES = {
    "stayed_right": "blue",
    "forgotten": "pink",
    "learned": "green",
    "stayed_wrong": "vermilion",
    "up": "vermilion",
    "down": "blue",
    "A": "sky",
    "B": "orange",
    "loss": "vermilion",
    "refinement": "blue",
    "scale": "orange",
    "balance": "pink",
    "accuracy": "green",
    "other": "muted",
    "total": "muted",
    "not_finite": "problem",
    "infinite": "text",
}

TRANSITION_LABELS = {
    "stayed_right": "still right",
    "forgotten": "newly wrong",
    "learned": "newly right",
    "stayed_wrong": "still wrong",
}

#: The eight cells with a change of the loss, in a reader's words; (transition, direction): label.
CELL_LABELS = {
    ("stayed_right", "up"): "still right, less confident",
    ("stayed_right", "down"): "still right, more confident",
    ("forgotten", "up"): "newly wrong, loss up",
    ("forgotten", "down"): "newly wrong, loss down",
    ("learned", "up"): "newly right, loss up",
    ("learned", "down"): "newly right, loss down",
    ("stayed_wrong", "up"): "still wrong, loss up",
    ("stayed_wrong", "down"): "still wrong, loss down",
}

#: Series over epochs: role, dash. A dash distinguishes them without colours.
SERIES = {
    "loss": ("loss", [1, 0]),
    "refinement_loss": ("refinement", [6, 3]),
    "accuracy": ("accuracy", [1, 0]),
}

#: The names of the series in the chart of the loss.
LOSSES = {"loss": "loss", "refinement_loss": "loss once calibrated"}

#: The three parts of a loss, from the bottom up: role, label.
PARTS = {
    "refinement_loss": ("refinement", "the rest"),
    "balance_loss": ("balance", "class balance"),
    "scale_loss": ("scale", "scale"),
}

#: Marked checkpoints: label, shape.
MARKS = {"loss": ("best loss", "circle"), "refinement_loss": ("best once calibrated", "diamond")}

#: The mark of the checkpoint to keep, around any other mark: label, shape.
KEPT = ("to keep", "ring")

#: The two compared checkpoints, of one run or of two: shape.
SIDES = {"A": "circle", "B": "square"}


def colour(role: str) -> str:
    """Return the colour of a role, by its name in the style sheet."""
    return f"var(--{_ROLES[role]})"


CONFIG: dict[str, Any] = {
    "background": "transparent",
    # Each chart is one image with a name and a table behind it; labels at 2,000 dots would help nobody.
    "aria": False,
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "labelLimit": 150,
        "tickCount": 6,
    },
    "axisX": {"grid": False, "titlePadding": 6},
    # The unit is above the axis, where it need not be rotated.
    "axisY": {
        "domain": False,
        "ticks": False,
        "titleAngle": 0,
        "titleAlign": "left",
        "titleAnchor": "end",
        "titleBaseline": "bottom",
        "titleX": -LEFT,
        "titleY": -8,
    },
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": "var(--text)",
        "labelFontSize": 12,
        "labelLimit": 260,
        "symbolStrokeWidth": 2,
        "symbolOpacity": 1,
        "offset": 24,
        "columnPadding": 16,
    },
    "text": {"fill": "var(--text)", "fontSize": 11},
    "rule": {"stroke": "var(--soft)"},
    "range": {"category": ["var(--blue)", "var(--vermilion)", "var(--green)", "var(--pink)"]},
}
