"""The results of rules.py as the page of the documents and as the README's lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "what_others_say.json"
PAGE, README = ROOT / "docs" / "what_others_say.md", ROOT / "README.md"

RULES = ("patience 10", "a fixed gap", "the two curves", "confshift")
#: Another rule's checkpoint is clearly better from this difference of the test loss on.
CLEARLY = 0.005

Run = Mapping[str, Any]


# ------------------------------------------------------------------------------------------------- one run
def verdict(run: Run, rule: Run) -> str:
    """Hold what a rule says of the model against the test half: right, wrong, or not to be decided."""
    if rule["worse"] is None:
        return "left open" if rule["rule"] == "confshift" else "–"
    truth = run["knows"]["answer"]
    if truth == "open":
        return "can't be checked"
    return "right" if rule["worse"] == (truth == "worse") else "**wrong**"


def advised_loss(rule: Run) -> float:
    return float(rule.get("advised_loss", rule["loss"]))


def section(name: str, run: Run) -> str:
    """Write what was true of a run, and a row for each rule."""
    title = name.replace("_", " ")
    if "title" in run:
        title += f": {run['title'][0].lower()}{run['title'][1:]}"
    origin = f"`{run['command']}`" if "command" in run else f"Expected beforehand: {run['expected']}."
    rows = "\n".join(_row(run, rule) for rule in run["rules"])
    best, lowest = run["best"], run["lowest"]
    notes = [_missing(run), _better_elsewhere(run)]
    return (
        f"### {title[0].upper()}{title[1:]}\n\n"
        f"{origin} {run['epochs']:g} epochs; the rules see {run['seen']:,} samples, the test half has "
        f"{run['test']:,}.\n\n"
        f"**True on the test half:** {course(run)} The best possible: epoch {best['epoch']:g}, "
        f"{best['loss']:.3f} nats and {best['accuracy']:.1%} right, repaired on the test half itself; the "
        f"lowest test loss without any repair is {lowest['loss']:.3f}, at epoch {lowest['epoch']:g}.\n\n"
        "| rule | says | first at epoch | keeps epoch | its test loss | recalibrated as advised | with one "
        "temperature | accuracy | about the model |\n|--|--|--|--|--|--|--|--|--|\n"
        f"{rows}\n" + "".join(f"\n{note}\n" for note in notes if note)
    )


def course(run: Run) -> str:
    """Say what the loss did, and what the model knows."""
    loss, knows = (_changed(run[name]) for name in ("loss", "knows"))
    model = {
        "worse": "what the model knows got worse",
        "not worse": "what the model knows did not get worse",
        "open": "whether what the model knows got worse is too close to call",
    }[run["knows"]["answer"]]
    rose = {"worse": "the loss rose", "not worse": "the loss did not rise", "open": "the loss may have risen"}
    return f"{rose[run['loss']['answer']]} ({loss}); {model} ({knows})."


def _changed(change: Mapping[str, float]) -> str:
    return f"{change['amount']:+.3f} nats, {change['low']:+.3f} to {change['high']:+.3f}"


def _row(run: Run, rule: Run) -> str:
    advised = f"{rule['advised_loss']:.3f}" if rule.get("advised_loss", rule["loss"]) != rule["loss"] else "–"
    accuracy = f"{rule['accuracy']:.1%}"
    if rule.get("advised_accuracy", rule["accuracy"]) != rule["accuracy"]:
        accuracy += f", recalibrated {rule['advised_accuracy']:.1%}"
    cells = [
        *(rule["rule"], _says(rule), _when(rule), f"{rule['keeps']:g}", f"{rule['loss']:.3f}", advised),
        *(f"{rule['tempered_loss']:.3f}", accuracy, verdict(run, rule)),
    ]
    return f"| {' | '.join(cells)} |"


def _says(rule: Run) -> str:
    text = f"“{rule['says']}”" if rule["says"] != "nothing" else "nothing"
    if "temperature" not in rule:
        return text
    biases = " and biases" if rule["biases"] else ""
    recalibrated = rule["temperature"] != 1 or rule["biases"]
    advice = f"; recalibrate: T = {rule['temperature']:.2f}{biases}" if recalibrated else ""
    stop = f"; “stop” at {rule['stop']:g}" if rule.get("stop") is not None else ""
    return f"{text}{advice}{stop}"


def _when(rule: Run) -> str:
    if rule["at"] is None:
        return "–" if rule.get("silent", True) else "at the end only"
    first = rule.get("first_says", "")
    return f"{rule['at']:g}" + (f": “{first}”" if first not in ("", rule["says"]) else "")


def _missing(run: Run) -> str:
    there = {rule["rule"] for rule in run["rules"]}
    missing = [name for name in RULES if name not in there]
    return f"No training curve was recorded, which {' and '.join(missing)} need." if missing else ""


def _better_elsewhere(run: Run) -> str:
    """Say which rule's checkpoint does clearly better than confshift's, with its own advice or none."""
    own = advised_loss(run["rules"][-1])
    best = min(run["rules"], key=lambda rule: min(rule["loss"], rule["tempered_loss"]))
    value = min(best["loss"], best["tempered_loss"])
    if best is run["rules"][-1] or own - value < CLEARLY:
        return ""
    how = "as it is" if value == best["loss"] else "with one temperature"
    return (
        f"**Here confshift's advice is not the best:** the checkpoint of {best['rule']}, {how}, has a test "
        f"loss of {value:.3f}, that of confshift as advised {own:.3f}."
    )


# -------------------------------------------------------------------------------------------- all together
def counted(runs: Iterable[Run]) -> dict[str, dict[str, float]]:
    """Count for each rule what it said of the model, and what its checkpoints cost."""
    found = {}
    every = list(runs)
    for name in RULES:
        pairs = [(run, rule) for run in every for rule in run["rules"] if rule["rule"] == name]
        worse = [rule for run, rule in pairs if run["knows"]["answer"] == "worse"]
        sound = [rule for run, rule in pairs if run["knows"]["answer"] == "not worse"]
        best = [run["best"]["loss"] for run, _ in pairs]
        found[name] = {
            "runs": len(pairs),
            "worse": len(worse),
            "sound": len(sound),
            "false": sum(rule["worse"] is True for rule in sound),
            "missed": sum(rule["worse"] is False for rule in worse),
            "open": sum(rule["worse"] is None for rule in (*worse, *sound)),
            "advised": float(np.median(np.array([advised_loss(rule) for _, rule in pairs]) - best)),
            "tempered": float(np.median(np.array([rule["tempered_loss"] for _, rule in pairs]) - best)),
            "largest": float(np.max(np.array([advised_loss(rule) for _, rule in pairs]) - best)),
        }
    return found


def summary(runs: Iterable[Run]) -> str:
    """Write a row for each rule."""
    lines = [
        "| rule | says that the model gets worse, wrongly | misses that it does | leaves that open "
        "| above the best possible: median, as advised | with one temperature | largest, as advised |",
        "|--|--|--|--|--|--|--|",
    ]
    for name, row in counted(runs).items():
        claims = (
            f"{row['false']:g} of {row['sound']:g}",
            f"{row['missed']:g} of {row['worse']:g}",
            f"{row['open']:g} of {row['sound'] + row['worse']:g}",
        )
        if name == "patience 10":
            claims = ("never says", "never says", "always")
        amounts = [f"{row[key]:.3f}" for key in ("advised", "tempered", "largest")]
        lines.append(f"| {' | '.join((name, *claims, *amounts))} |")
    return "\n".join(lines)


def _listed(runs: Iterable[Run]) -> str:
    seeds = sorted({run["seed"] for run in runs})
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {' and '.join(map(str, seeds))}"


def _wrong(runs: Iterable[Run]) -> Iterator[str]:
    """List the runs of which confshift says what was not true."""
    for run in runs:
        own = run["rules"][-1]
        if verdict(run, own) == "**wrong**":
            yield (
                f"- confshift is wrong about `{run['training']}`, seed {run['seed']}: it says "
                f"“{own['says']}”, and {course(run).split('; ')[1]}\n"
            )


def page(results: Mapping[str, Any]) -> str:
    """Write what belongs between the marks of the page."""
    runs = results["runs"]
    lines = [f"## These {len(runs)} runs together\n", summary(runs.values()), ""]
    if results.get("all"):
        every = results["all"]
        kinds = len({run["training"] for run in every})
        lines += [
            f"## {len(every)} small trainings\n",
            f"All {kinds} kinds of `tests/benchmarks/trainings.py`, {_listed(every)}, which "
            "nobody looked at when confshift's limits were set.\n",
            summary(every),
            "",
            *_wrong(every),
        ]
    lines += ["## Run by run\n", *(section(name, run) for name, run in runs.items())]
    return "\n" + "\n".join(lines).rstrip() + "\n\n"


def readme(results: Mapping[str, Any]) -> str:
    """Write what belongs between the marks of the README."""
    runs = results.get("all") or list(results["runs"].values())
    row = counted(runs)
    gap, curves, own = (row[name] for name in RULES[1:])
    sound, worse = int(own["sound"]), int(own["worse"])
    unknown = len(runs) - sound - worse
    undecided = f" ({unknown} can't be told)" if unknown else ""
    text = (
        f"Of {len(runs)} small trainings {sound} kept what they knew and {worse} lost some of it, on a test "
        f"half that no rule saw{undecided}. A fixed gap between training and validation calls "
        f"{gap['false']:g} of the {sound} overfitting, “validation up, training down” {curves['false']:g}, "
        f"confshift {own['false']:g}; they miss {gap['missed']:g}, {curves['missed']:g} and "
        f"{own['missed']:g} of the {worse} (confshift leaves {own['open']:g} open). "
        "[What others would have said](docs/what_others_say.md), run by run."
    )
    return "\n".join(wrap(text, 118)) + "\n"
