"""What `report` and `diagnose` cost, beside another checkout: CPU seconds, wall seconds and peak memory.

    python tests/benchmarks/reports.py [--against REVISION|CHECKOUT] [--rows 200x10000x10 ...]
                                       [--anew 9x50000x1000 ...] [--commands report diagnose] [--rounds 1]
                                       [--seconds 480] [--gigabytes 12] [--folder DIR]
                                       [--runs DIR] [--write] [--kept] [--small]

A row is a run of epochs x samples x classes. Each checkout saves one, from the same logits; an older one
can't read what a newer one saved, so this checkout is measured on the other's files and on its own. Every
command runs in a process of its own, on one thread, the checkouts in alternating order; of several rounds the
least counts. The files are in the system's memory, and the user's cache holds what the report of a small run
of as many classes, or 1,000, left there; "again" is the same command right after that. A process beyond
--seconds of CPU time or --gigabytes is ended, and the table says so. --write puts the tables into
docs/benchmarks.md, where rows that were measured before and are not now stay; --small
is a quick run of everything.

--anew: `history` of a run of schema 1, which makes what that schema lacks from the logits, beside reading the
run's bytes, both from the disk. 90x50000x1000 are 18 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import reports_page
from checkouts import HERE, Cost, cost_of, environment, sources
from pages import BENCHMARKS, keep, kept, machine, put
from timing import say

ROWS = (
    *("200x10000x10", "30x50000x100", "8x50000x1000", "20x500000x10"),
    *("3x2000000x2", "2x500x150000"),
)
ANEW = ("9x50000x1000",)
SMALL = ("4x150x3",)
COMMANDS = ("report", "diagnose")
#: A child of this script on one checkout.
_CONFSHIFT = "from confshift.cli import main; main()"
_READ = (
    "import pathlib, sys\n"
    "for path in sorted(pathlib.Path(sys.argv[1]).rglob('*')):\n"
    "    if path.is_file():\n"
    "        with path.open('rb', buffering=0) as stream:\n"
    "            while stream.read(1 << 22): pass\n"
)
_BLOCK = 1 << 22  # of random numbers
#: The run that warms the cache has no more classes: nothing that is drawn differs beyond.
_FEW_CLASSES = 1000


# ------------------------------------------------------------------------------------------------- the runs
class Size(NamedTuple):
    """How many epochs, samples and classes a run has."""

    epochs: int
    samples: int
    classes: int

    @classmethod
    def parse(cls, text: str) -> Size:
        try:
            size = cls(*map(int, text.lower().split("x")))
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(f"{text!r} is not EPOCHSxSAMPLESxCLASSES") from None
        if min(size) < 1 or size.epochs < 2 or size.classes < 2:
            raise argparse.ArgumentTypeError(f"{text!r}: at least 2 epochs, 1 sample, 2 classes")
        return size

    def __str__(self) -> str:
        return reports_page.title(self)


def targets_of(size: Size, seed: int) -> np.ndarray:
    """Return the labels, of which each class has about as many."""
    return np.random.default_rng((seed, 1)).permutation(np.arange(size.samples) % size.classes)


def logits_at(epoch: int, size: Size, seed: int) -> np.ndarray:
    """Return the logits of an epoch, as float32; only one epoch is ever in memory.

    The model learns what tells the classes apart in the first half of the run and grows ever more confident,
    so that the loss rises late. It gives some classes too much, differs from epoch to epoch in each sample,
    and 3 % of the labels are wrong.
    """
    stage = (epoch + 1) / size.epochs
    same, fresh = np.random.default_rng((seed, 2)), np.random.default_rng((seed, 3, epoch))
    seen = targets_of(size, seed)
    wrong = same.random(size.samples) < 0.03
    seen = np.where(wrong, same.integers(0, size.classes, size.samples), seen)
    hardness = same.uniform(0.2, 1.6, size.samples).astype(np.float32)
    biases = 0.4 * same.standard_normal(size.classes, np.float32)
    lead = np.float32(2 + np.log(size.classes) / 2)
    learnt = lead * np.float32(1 - np.exp(-6 * stage - 0.3)) * hardness
    logits = np.empty((size.samples, size.classes), np.float32)
    step = max(1, _BLOCK // size.classes)
    for start in range(0, size.samples, step):
        part = logits[start : start + step]
        same.standard_normal(out=part, dtype=np.float32)
        part += np.float32(0.25) * fresh.standard_normal(part.shape, np.float32) + biases
    logits[np.arange(size.samples), seen] += learnt
    logits *= np.float32(lead * (0.15 + 0.85 * stage))
    return logits


def save_run(folder: Path, size: Size, seed: int) -> None:
    """Save a run with the confshift that this process imports."""
    from confshift import Predictions, Run

    run, targets = Run(folder), targets_of(size, seed)
    for epoch in range(size.epochs):
        run.append(Predictions(logits_at(epoch, size, seed), targets), epoch=epoch + 1)
        run.flush()


# ---------------------------------------------------------------------------------------------- one process
@dataclass
class Bench:
    """The folder, the limits and the caches of all measurements."""

    folder: Path
    seconds: float
    gigabytes: float
    seed: int
    runs: Path | None = None  # where runs are kept
    caches: dict[tuple[Path, int], Path] = field(default_factory=dict)

    def save(self, source: Path, size: Size, name: str) -> Path:
        """Let a checkout save a run, where it is not kept from an earlier time."""
        text = "x".join(map(str, size))
        folder = (self.runs or self.folder) / f"{name}-{text}-{self.seed}"
        if folder.exists():
            return folder
        draft = folder.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        arguments = [__file__, "--save", draft, "--rows", text, "--seed", str(self.seed)]
        cost_of(arguments, environment(source), seconds=np.inf, gigabytes=np.inf)
        return draft.rename(folder)

    def forget(self, run: Path) -> None:
        """Remove a run that is not to be kept."""
        if self.runs is None:
            shutil.rmtree(run)

    def confshift(self, source: Path, command: str, run: Path, cache: Path) -> Cost:
        """Run a command of a checkout."""
        page = ["-o", self.folder / "page.html"] if command == "report" else []
        return cost_of(
            ["-c", _CONFSHIFT, command, run, *page],
            environment(source, XDG_CACHE_HOME=cache),
            seconds=self.seconds,
            gigabytes=self.gigabytes,
        )

    def read(self, run: Path) -> Cost:
        """Read every byte of a run."""
        return cost_of(["-c", _READ, run], dict(os.environ), seconds=np.inf, gigabytes=np.inf)

    def cache(self, source: Path, command: str, classes: int) -> Path:
        """Return a user's cache for a command: with what the report of a small run leaves there, or empty.

        Only pages take anything of another run from it.
        """
        copy = self.folder / "cache"
        shutil.rmtree(copy, ignore_errors=True)
        if command != "report":
            copy.mkdir()
            return copy
        key = source, min(classes, _FEW_CLASSES)
        if key not in self.caches:
            number = len(self.caches)
            run = self.save(source, Size(4, 150, key[1]), "own-small" if source == HERE else "theirs-small")
            cache = self.folder / f"cache-{number}"
            cache.mkdir()
            self.confshift(source, "report", run, cache)
            self.forget(run)
            self.caches[key] = cache
        shutil.copytree(self.caches[key], copy)
        return copy


def least(costs: list[Cost]) -> Cost:
    """Return the least of each number: whatever else the machine does adds to it."""
    ended = [cost for cost in costs if cost.over]
    if ended:
        return ended[0]
    return Cost(*(min(getattr(cost, name) for cost in costs) for name in ("cpu", "wall", "peak")))


# ------------------------------------------------------------------------------------------------ the rows
def measure_row(bench: Bench, size: Size, other: Path | None, commands, rounds) -> dict[str, dict[str, Cost]]:
    """Return by command what it costs the checkouts: "other", "same" on the other's files, "own", "again"."""
    own = bench.save(HERE, size, "own")
    sides = {"own": (HERE, own)}
    if other is not None:
        theirs = bench.save(other, size, "theirs")
        sides = {"other": (other, theirs), "same": (HERE, theirs), **sides}
    for _, run in sides.values():
        bench.read(run)
    found: dict[str, dict[str, list[Cost]]] = {command: {} for command in commands}
    for number in range(rounds):
        for command in commands:
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                source, run = sides[side]
                cache = bench.cache(source, command, size.classes)
                cost = bench.confshift(source, command, run, cache)
                found[command].setdefault(side, []).append(cost)
                remark(
                    f"{size}: {command}, {side}: {reports_page.written(asdict(cost))}, wall {cost.wall:.1f} s"
                )
                if side == "own" and not cost.over:
                    found[command].setdefault("again", []).append(bench.confshift(HERE, command, run, cache))
    for run in {run for _, run in sides.values()}:
        bench.forget(run)
    return {
        command: {side: least(costs) for side, costs in every.items()} for command, every in found.items()
    }


def measure_anew(bench: Bench, size: Size, other: Path) -> dict[str, Any]:
    """Return what it costs to read a run of the other checkout from the disk, and to make columns anew."""
    run = bench.save(other, size, "theirs")
    cold = drop(run)
    reading = bench.read(run)
    cache = bench.cache(HERE, "history", size.classes)
    drop(run)
    history = bench.confshift(HERE, "history", run, cache)
    bench.forget(run)
    return {"size": size, "cold": cold, "reading": asdict(reading), "history": asdict(history)}


def drop(run: Path) -> bool:
    """Let the system forget the files of a run; return whether it can."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in run.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
    return True


def remark(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def measure(bench: Bench, chosen: argparse.Namespace, other: Path | None) -> dict[str, Any]:
    """Measure everything; print each row when it is there."""
    found: dict[str, Any] = {
        "machine": machine("numpy", "scipy", "torch"),
        **{"against": chosen.against, "rounds": chosen.rounds, "rows": [], "anew": []},
    }
    say(f"Measured on {found['machine']}.\n\n{reports_page.head(chosen.against)}")
    for size in chosen.rows:
        for command, costs in measure_row(bench, size, other, chosen.commands, chosen.rounds).items():
            costs = {side: asdict(cost) for side, cost in costs.items()}
            found["rows"].append({"size": size, "command": command, "costs": costs})
            say(reports_page.row(found["rows"][-1]))
    if chosen.anew and other is None:
        remark("No columns are made anew: name a checkout whose runs lack some (--against 1e10a55).")
    elif chosen.anew:
        found["anew"] = [measure_anew(bench, size, other) for size in chosen.anew]
        say("\n" + reports_page.anew(found["anew"]))
    return found


def merged(before: dict[str, Any] | None, found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found, and of what was measured alike before the rows that it lacks."""
    alike = ("machine", "against", "rounds")
    if before is None or any(before[name] != found[name] for name in alike):
        return found
    rows = {(*one["size"], one["command"]): one for one in (*before["rows"], *found["rows"])}
    anew = {tuple(one["size"]): one for one in (*before["anew"], *found["anew"])}
    return {**found, "rows": list(rows.values()), "anew": list(anew.values())}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", metavar="REVISION|CHECKOUT")
    parser.add_argument("--rows", nargs="*", type=Size.parse, metavar="TxNxK")
    parser.add_argument("--anew", nargs="*", type=Size.parse, metavar="TxNxK")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--gigabytes", type=float, default=12)
    parser.add_argument(
        "--folder", type=Path, help="for the runs; default: for temporary files. --anew: on a disk"
    )
    parser.add_argument(
        "--runs",
        type=Path,
        help="an existing folder, where the runs of these two checkouts are kept for the next time",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--kept", action="store_true", help="write the page of what was measured last")
    parser.add_argument("--save", type=Path, help=argparse.SUPPRESS)  # a child: save a run and end
    chosen = parser.parse_args()
    chosen.commands = chosen.commands or (COMMANDS[1:] if chosen.small else COMMANDS)
    for name, usual in (("rows", ROWS), ("anew", ANEW)):
        if getattr(chosen, name) is None:
            setattr(chosen, name, [Size.parse(text) for text in (SMALL if chosen.small else usual)])
    return chosen


def main() -> None:
    chosen = options()
    if chosen.save is not None:
        return save_run(chosen.save, chosen.rows[0], chosen.seed)
    if chosen.kept:
        return put(BENCHMARKS, "reports", reports_page.page(kept()["reports"]))
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=chosen.folder))
        other = stack.enter_context(sources(chosen.against)) if chosen.against else None
        bench = Bench(Path(folder), chosen.seconds, chosen.gigabytes, chosen.seed, chosen.runs)
        found = measure(bench, chosen, other)
    if chosen.write:
        keep("reports", merged(kept().get("reports"), found))
        put(BENCHMARKS, "reports", reports_page.page(kept()["reports"]))
    return None


if __name__ == "__main__":
    main()
