"""Ctrl-C at every moment of an inspection: whatever it strikes, the training must be able to go on.

`strikes_at_lines` is deterministic: a signal arrives just before a line of the collector. `strikes_at_random`
sends real ones, from another process, at random moments. Both may be asked for as many as wanted.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import confshift

SAMPLES = 24
COLLECTION = str(Path(confshift.__file__).parent / "collection")


class Drawing(Dataset):
    """Draws from every kind of generator."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        drawn = random.random(), np.random.rand(), torch.rand(1).item(), self.generator.random()
        return torch.full((4,), float(index)) + 1e-3 * sum(drawn), index % 3


class Counting(nn.Linear):
    """Changes in eval mode too, and refuses the plain way back."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("count", torch.zeros(()))

    def train(self, mode: bool = True) -> Counting:
        self.merged = not mode
        return super().train(mode)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return super().forward(inputs)


class Target:
    """A training that is inspected, and what must be as before afterwards."""

    def __init__(self, folder: str) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), Counting())
        self.model[0].eval()  # frozen
        self.model(torch.ones(2, 4)).sum().backward()
        self.loader = DataLoader(Drawing(), 8, shuffle=True, generator=torch.Generator())
        self.run = confshift.Run(Path(folder) / "run")
        self.before = self.state()

    def inspect(self) -> confshift.Checkpoint:
        return confshift.inspect(self.model, self.loader, run=self.run, check=True)

    def state(self) -> dict[str, Any]:
        tensors = {**self.model.state_dict(), **{n: p.grad for n, p in self.model.named_parameters()}}
        return {
            "modes": [module.training for module in self.model.modules()],
            "merged": getattr(self.model[2], "merged", False),
            "tensors": str({name: value.tolist() for name, value in tensors.items()}),
            "hooks": [len(module._forward_pre_hooks) for module in self.model],
            "python": random.getstate(),
            "numpy": str(np.random.get_state()),
            "torch": torch.get_rng_state().tolist(),
            "dataset": str(self.loader.dataset.generator.bit_generator.state),
            "sampler": self.loader.generator.get_state().tolist(),
            "batch_sampler": id(self.loader.batch_sampler),
            "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
            "handler": signal.getsignal(signal.SIGINT),
        }

    def problems(self) -> list[str]:
        """Return what is not as before."""
        now, before = self.state(), self.before
        found = [name for name, value in before.items() if now[name] != value]
        self.before = now  # a fault is reported once
        if len(self.inspect()) != SAMPLES:
            found.append("next inspection")
        return found


def strikes_at_lines(
    count: int | None = None, *, files: tuple[str, ...] = (), opcodes: bool = False
) -> Iterator[tuple[str, bool, list[str]]]:
    """Interrupt one inspection after the other, each at another line that the collector executes.

    Yields, for each, the line, whether the interrupt came out of `inspect`, and the problems it left.
    `count` lines are taken, spread evenly; all of them without it. `files` names those to look at, all of
    the collection without it; with `opcodes` it is each bytecode in turn.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Target(folder)
        target.inspect()
        seen: dict[str, None] = {}
        _traced(target.inspect, lambda moment: seen.setdefault(moment), files, opcodes)
        moments = list(seen)
        step = max(1, len(moments) // count) if count else 1
        for chosen in moments[::step]:
            struck = []

            def strike(moment: str, chosen: str = chosen, struck: list[str] = struck) -> None:
                if moment == chosen and not struck:
                    struck.append(moment)
                    signal.raise_signal(signal.SIGINT)

            came_out = False
            try:
                _traced(target.inspect, strike, files, opcodes)
            except KeyboardInterrupt:
                came_out = True
            yield chosen, came_out, target.problems()
        target.run.flush()


def _traced(
    action: Callable[[], object], at: Callable[[str], object], files: tuple[str, ...], opcodes: bool
) -> None:
    def trace(frame: Any, event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(COLLECTION) or (files and Path(name).name not in files):
            return None
        frame.f_trace_opcodes = opcodes
        if event == ("opcode" if opcodes else "line"):
            place = f"{Path(name).name}:{frame.f_lineno}"
            at(f"{place} {frame.f_code.co_name}+{frame.f_lasti}" if opcodes else place)
        return trace

    tracing = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(tracing)


def strikes_at_random(count: int, *, seed: int = 0) -> Iterator[tuple[str, bool, list[str]]]:
    """Interrupt `count` inspections by a real SIGINT each, at random moments; yield as for lines."""
    draws = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, _Sender() as sender:
        target = Target(folder)
        target.inspect()  # the first is much longer
        for number in range(count):
            if number % 20 == 0:
                lasts = min(_seconds(target.inspect) for _ in range(5))
            delay = draws.uniform(0, lasts)
            inside, came_out = False, False
            try:
                sender.send_in(delay)
                inside = True
                target.inspect()
                inside = False
                _wait_for_it()
                lost = ["interrupt lost"]
            except KeyboardInterrupt:
                came_out, lost = inside, []
            yield f"{1e3 * delay:.2f} ms", came_out, lost + target.problems()
        target.run.flush()


def _wait_for_it() -> None:
    for _ in range(1000):  # a signal that comes just before a sleep begins is handled only after it
        time.sleep(0.01)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


class _Sender:
    """A process that interrupts this one: a thread would wait for the lock that the inspection holds."""

    _CODE = """
import os, signal, struct, time
while raw := os.read(0, 8):
    time.sleep(struct.unpack("d", raw)[0])
    os.kill(os.getppid(), signal.SIGINT)
"""

    def __enter__(self) -> _Sender:
        command = [sys.executable, "-S", "-c", self._CODE]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        return self

    def send_in(self, seconds: float) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), struct.pack("d", seconds))

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


#: Where an interrupt could do harm.
GUARDS = ("guards.py", "interrupts.py", "model_state.py", "random_states.py", "turns.py", "sample_ids.py")
