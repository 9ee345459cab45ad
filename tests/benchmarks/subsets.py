"""How often is a random subset named, and a planted one found? Prints the tables of docs/statistics.md.

    python tests/benchmarks/subsets.py [--runs 1000]

Each run has 50 random subsets: of six attributes of 2 to 9 values of uneven sizes, half of them constant in a
group where there are groups, and single ones of 1.2 times the smallest size that is judged to half of the
samples. "Planted": a fifth of the samples, in which the loss rises by so many standard deviations of the
changes more than elsewhere.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "findings"))
from real_runs import checkpoints_of

from confshift import compare, summarize
from confshift.analysis.subsets import ALPHA, FEWEST, TIMES, chance_of_excess, holm

SUBSETS = 50
#: How the changes of single samples are distributed, in nats; each rises by a little on average.
CHANGES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(0.1, 1, n),
    "of a real training": lambda rng, n: rng.choice(real_changes(), n),
    "a quarter of the samples rise": lambda rng, n: (
        rng.normal(0, 0.05, n) + (rng.random(n) < 0.25) * rng.gamma(0.7, 2, n)
    ),
    "long tail to the right": lambda rng, n: rng.lognormal(0, 1.5, n) - 1,
    "long tail to the left": lambda rng, n: 4 - rng.lognormal(0, 1.5, n),
    "one in a hundred explodes": lambda rng, n: (
        rng.normal(0.02, 0.1, n) + (rng.random(n) < 0.01) * rng.exponential(10, n)
    ),
    "one in a hundred recovers": lambda rng, n: (
        rng.normal(0.2, 0.1, n) - (rng.random(n) < 0.01) * rng.exponential(10, n)
    ),
}
#: Samples, and samples in a group.
SIZES = {"500": (500, 1), "3,000": (3000, 1), "2,000 in groups of 5": (2000, 5)}


@cache
def real_changes() -> np.ndarray:
    """Return the changes from the best to the last epoch of a small network whose learning rate drops."""
    history = summarize(checkpoints_of("lr_drops"))
    return compare(*history.pair).samples["change"].to_numpy()


def members_of(rng: np.random.Generator, samples: int, codes: np.ndarray) -> list[np.ndarray]:
    """Return 50 random subsets."""
    members: list[np.ndarray] = []
    for attribute in range(6):
        values = int(rng.integers(2, 10))
        shares = rng.dirichlet(np.full(values, 0.7))
        drawn = rng.choice(values, samples, p=shares)
        drawn = drawn[codes] if attribute % 2 else drawn
        members += [drawn == value for value in range(values)]
    while len(members) < SUBSETS:
        members.append(rng.random(samples) < rng.uniform(1.2 * FEWEST / samples, 0.5))
    return members[:SUBSETS]


def judged(member: np.ndarray, codes: np.ndarray) -> bool:
    return min(len(np.unique(codes[part])) for part in (member, ~member)) >= FEWEST


def named(change: np.ndarray, members: list[np.ndarray], codes: np.ndarray | None) -> np.ndarray:
    """Return which subsets are named."""
    chances = holm(np.array([chance_of_excess(change, member, codes) for member in members]))
    return chances <= ALPHA


def one_run(
    rng: np.random.Generator, kind: str, samples: int, size: int, planted: float
) -> tuple[bool, bool]:
    """Return whether a random subset is named, and whether the planted one is among them."""
    codes = np.arange(samples) // size
    change = CHANGES[kind](rng, samples)
    if size > 1:
        change = change + CHANGES[kind](rng, samples // size)[codes]
    members = [one for one in members_of(rng, samples, codes) if judged(one, codes)]
    truth = rng.permutation(samples // size)[codes] < samples // size // 5
    change = change + planted * change.std() * truth
    found = named(change, [truth, *members] if planted else members, codes if size > 1 else None)
    if not planted:
        return bool(found.any()), False
    inside, outside = change[truth].mean(), change[~truth].mean()
    return False, bool(found[0] and inside >= TIMES * outside)


def other_spread(rng: np.random.Generator, samples: int, share: float, factor: float) -> bool:
    """Return whether a subset is named that differs from the rest in the spread of its changes only."""
    member = rng.random(samples) < share
    change = CHANGES["a quarter of the samples rise"](rng, samples) - 0.35
    change = 0.1 + np.where(member, factor, 1.0) * change
    return chance_of_excess(change, member) <= ALPHA


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    rng = np.random.default_rng(0)
    effects = (0.25, 0.5, 1.0)
    say(
        "| changes | samples | any of 50 named |"
        + "".join(f" planted +{effect:g} sd found |" for effect in effects)
    )
    say("|--|--|--|" + "--|" * len(effects))
    for kind in CHANGES:
        for text, (samples, size) in SIZES.items():
            false = np.mean([one_run(rng, kind, samples, size, 0)[0] for _ in range(runs)])
            found = [
                np.mean([one_run(rng, kind, samples, size, effect)[1] for _ in range(max(runs // 5, 20))])
                for effect in effects
            ]
            cells = [f"{100 * false:.1f} %", *(f"{100 * share:.0f} %" for share in found)]
            say(f"| {kind} | {text} | {' | '.join(cells)} |")
    say("\nOne subset that varies otherwise than the rest, at .05:")
    for share in (0.02, 0.2, 0.6):
        for factor in (1 / 3, 3):
            rate = np.mean([other_spread(rng, 2000, share, factor) for _ in range(runs)])
            say(f"share {share:g}, {factor:.2g} times the spread: {100 * rate:.1f} %")


if __name__ == "__main__":
    main()
