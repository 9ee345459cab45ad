"""SIGKILL at any moment of a process that saves: what it was told is saved stays, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter

from children import big, start_child
from small_runs import call

from confshift import Run
from confshift.storage import writer

#: So many kills strike one run; then another is begun, as every checkpoint of it is read after each kill.
_PER_RUN = 30
#: No process gets further before it is killed.
_PLANNED = 8


def kills(folder, count, seed):
    """Kill a saving process `count` times, look at all of the run each time, and let the next one go on.

    Returns
    -------
    dict
        tried; in a save, how many were struck in one; acknowledged, the saves that were; whole, those not
        acknowledged that are there all the same; littered, how often something was left for repair;
        failures, a list of sentences.
    """
    draw, tally, failures = random.Random(seed), Counter(), []
    for start in range(0, count, _PER_RUN):
        victim = _Victim(folder / f"run-{start}", draw, tally)
        for number in range(start, min(start + _PER_RUN, count)):
            failures += [f"kill {number}: {one}" for one in victim.kill()]
        failures += [f"after kill {number}: {one}" for one in victim.go_on()]
    return {"tried": count, **tally, "failures": failures}


class _Victim:
    """A run in which one process after the other saves and is killed."""

    def __init__(self, path, draw, tally):
        self.path, self.draw, self.tally = path, draw, tally
        self.seeds = {}  # of each epoch: those it may be of; one, once that was seen
        self.saved = 0

    def kill(self):
        """Let a process begin some saves, kill it, and return what is wrong with the run."""
        jobs = self._plan()
        begun = self.draw.choice([1, 1, 2, 3])
        pid, pipe = start_child(lambda say: _save(self.path, jobs, say))
        said = b""
        while said.count(b"+") < begun:
            said += os.read(pipe, 1)
        time.sleep(self.draw.uniform(0.0, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(pipe, "rb") as stream:
            said += stream.read()
        done, begun = said.count(b"-"), said.count(b"+")
        self.tally["in a save"] += begun > done
        self.tally["acknowledged"] += done
        for epoch, seed in jobs[:done]:
            self.seeds[epoch] = {seed}
        unsure = jobs[done:begun]
        for epoch, seed in unsure:
            self.seeds.setdefault(epoch, {None}).add(seed)
        return self._problems()

    def _plan(self):
        """Return what the next process saves: new epochs, and a third of the time an older one anew."""
        highest, jobs = max(self.seeds, default=0), []
        for _ in range(_PLANNED):
            self.saved += 1
            older = highest and self.draw.random() < 1 / 3
            epoch = self.draw.randint(1, highest) if older else highest + 1
            highest = max(highest, epoch)
            jobs.append((epoch, self.saved))
        return jobs

    def _problems(self):
        """Return what is wrong; before and after what the kill left was collected."""
        found = self._wrong()
        left = _litter(self.path)
        if left:
            self.tally["littered"] += 1
        if Run(self.path).exists() and self.draw.random() < 1 / 2:
            code, raw = call("repair", self.path)
            if code:
                found.append(f"repair: exit code {code} {raw}")
            found += [f"after repair: {one}" for one in self._wrong()]
            found += [f"repair left {one}" for one in _litter(self.path)]
        return found

    def _wrong(self):
        """Read everything, as a process that has just begun."""
        writer._forget_writers()
        run = Run(self.path)
        if not run.exists():
            return [f"no run: {self.seeds}"] if any(None not in one for one in self.seeds.values()) else []
        found = [] if run.problems.empty else [run.problems.to_string()]
        stored = {int(one.epoch): one.predictions.logits.tobytes() for one in run.checkpoints()}
        if set(stored) - set(self.seeds):
            found.append(f"epochs that nobody saved: {sorted(set(stored) - set(self.seeds))}")
        for epoch, seeds in self.seeds.items():
            logits = stored.get(epoch)
            right = [
                seed for seed in seeds if logits == (None if seed is None else big(seed).logits.tobytes())
            ]
            if len(seeds) > 1 and right:
                self.tally["whole"] += right[0] == max(seed or 0 for seed in seeds)
                self.seeds[epoch] = set(right)
            elif not right:
                found.append(f"epoch {epoch} is {'lost' if logits is None else 'not what was saved'}")
        self.seeds = {epoch: seeds for epoch, seeds in self.seeds.items() if seeds != {None}}
        return found

    def go_on(self):
        """Let a last process save in peace; it tidies up too."""
        epoch, seed = job = max(self.seeds, default=0) + 1, self.saved + 1
        pid, pipe = start_child(lambda say: _save(self.path, [job], say))
        with os.fdopen(pipe, "rb") as stream:
            said = stream.read()
        os.waitpid(pid, 0)
        self.seeds[epoch] = {seed}
        found = [] if said == b"+-" else [f"the next process said {said}"]
        return found + self._wrong() + [f"{one} is left" for one in _litter(self.path)]


def _save(path, jobs, say):
    run = Run(path)
    for epoch, seed in jobs:
        given = big(seed)
        say(b"+")
        run.append(given, epoch=epoch)
        run.flush()
        say(b"-")


def _litter(path):
    """Return the files that no record names; of what is in the run's own folder only drafts."""
    records = list(path.glob("*/*.json"))
    contents = [json.loads(one.read_bytes())["content"] for one in records]
    named = {
        shard[kind]["name"] for one in contents for shard in one["shards"] for kind in ("logits", "columns")
    }
    files = {one.name for one in path.glob("*/*")} - {one.name for one in records} - named
    epochs = Counter(one["epoch"] for one in contents)
    return [*sorted(files), *path.glob("*.tmp"), *(f"epoch {one} twice" for one in epochs if epochs[one] > 1)]
