"""What a save costs beside 2, 200, 2,000 and 10,000 checkpoints: CPU time of the process, by their number.

    python tests/benchmarks/saves.py [--against REVISION|CHECKOUT] [--checkpoints 2 200 2000 10000]
                                     [--samples 10000] [--classes 10] [--splits val train] [--rounds 10]

The columns: what `inspect` asks before the pass (is this epoch there?), the save of a new epoch, of one that
is there, and a process's first save, which reads every record once. Medians in milliseconds, of all threads,
with the wall clock of a new epoch's save, which waits for the disk. `--against` measures another checkout in
turns with this one, so that a change of the machine's speed meets both, and prints the ratio. The checkpoints
are copies of one, made without any confshift. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from checkouts import HERE, environment, sources

COLUMNS = ("look", "new epoch", "replaced", "first save")


def predictions(seed, samples, classes):
    from confshift import Predictions

    logits = np.random.default_rng(seed).normal(size=(samples, classes)).astype(np.float32)
    return Predictions(logits, np.arange(samples) % classes)


def multiply(folder, count):
    """Make `count` checkpoints of the one in a split's folder."""
    content = json.loads((folder / "000001.json").read_text())["content"]
    for number in range(2, count + 1):
        content |= {"epoch": float(number), "sequence": number, "writer": f"{0:016x}"}
        for kind in ("logits", "columns"):
            stored = content["shards"][0][kind]
            name = f"{number:06d}-{number:032x}.{kind}.npy"
            os.link(folder / stored["name"], folder / name)
            stored["name"] = name
        body = json.dumps(content).encode("ascii")
        checksum = hashlib.blake2b(body, digest_size=16).hexdigest().encode("ascii")
        raw = b'{"content": ' + body + b', "checksum": "%s"}\n' % checksum
        (folder / f"{number:06d}.json").write_bytes(raw)


def work(chosen):
    """Answer each line, "first COUNT" or "COUNT SEED", with milliseconds."""
    from confshift import Run
    from confshift.storage import writer

    def clocks():
        return 1e3 * time.process_time(), 1e3 * time.perf_counter()

    def timed(action):
        start = clocks()
        action()
        return [after - before for before, after in zip(start, clocks(), strict=True)]

    def save(count, epoch, seed):
        given = [predictions(seed + n, chosen.samples, chosen.classes) for n in range(len(chosen.splits))]

        def saved():
            for split, one in zip(chosen.splits, given, strict=True):
                run = Run(folders[count])  # as a loop does that passes a path
                run.append(one, epoch=epoch, split=split)
            run.flush()

        return timed(saved)

    def look(count, epoch):
        def looked():
            for split in chosen.splits:
                run = Run(folders[count])
                run.check_epoch(epoch, split=split)
                run.holds(split)

        return timed(looked)

    folders = {}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        for line in sys.stdin:
            what, number = line.split()
            if what == "first":
                count = int(number)
                folders[count] = Path(folder) / number
                save(count, 1, 0)
                for split in chosen.splits:
                    multiply(folders[count] / split, count)
                writer._writers.clear()  # as a new process
                answer = save(count, 20_000, 1)
            else:
                count, seed = int(what), int(number)
                save(count, 20_000 + seed, seed)  # the one before was a replacement
                answer = [*look(count, 30_000 + seed), *save(count, 30_000 + seed, seed)]
                answer += save(count, 30_000 + seed, -1 - seed + 10**6)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def started(source):
    """Start this script as a worker on a checkout."""
    argv = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(source),
    )


def asked(worker, line):
    worker.stdin.write(line + "\n")
    worker.stdin.flush()
    return json.loads(worker.stdout.readline())


def measure(workers, counts, rounds):
    """Return for each worker and count the medians of COLUMNS, and of the wall clock of a new epoch."""
    first, later = {}, {}
    for count in counts:
        for name, worker in workers.items():
            first[name, count] = asked(worker, f"first {count}")[0]
    for seed in range(1, rounds + 1):
        for count in counts:
            for name, worker in workers.items():
                later.setdefault((name, count), []).append(asked(worker, f"{count} {seed}"))
    medians = {key: np.median(rows, axis=0) for key, rows in later.items()}
    return {key: [one[0], one[2], one[4], first[key], one[3]] for key, one in medians.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", nargs="+", type=int, default=[2, 200, 2000, 10_000])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--splits", nargs="+", default=["val"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--against", metavar="REVISION|CHECKOUT")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--worker", action="store_true")
    chosen = parser.parse_args()
    if chosen.worker:
        return work(chosen)
    with contextlib.ExitStack() as stack:
        workers = {"this": started(HERE)}
        if chosen.against is not None:
            workers["other"] = started(stack.enter_context(sources(chosen.against)))
        found = measure(workers, chosen.checkpoints, chosen.rounds)
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    show(found, chosen.checkpoints)
    return None


def show(found, counts):
    print(f"{'checkpoints':>11} {'':>6}", *(f"{column:>10}" for column in COLUMNS), "  new, wall")  # noqa: T201
    for count in counts:
        rows = {name: found[name, count] for name in ("this", "other") if (name, count) in found}
        if "other" in rows:
            rows["ratio"] = [a / b for a, b in zip(rows["this"], rows["other"], strict=True)]
        for name, row in rows.items():
            print(f"{count:11d} {name:>6}", *(f"{value:10.3f}" for value in row))  # noqa: T201


if __name__ == "__main__":
    main()
