"""What needs a GPU, checked by hand: `python tests/gpu_checks.py`.

Without a GPU it says so; `python tests/gpu_checks.py cpu` tries the script itself.
Each check compares rows with an evaluation of one sample after the other on the processor.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

sys.path.insert(0, str(Path(__file__).parent / "collection"))
from toy_training import INPUTS, TARGETS, TRAIN_INPUTS, TRAIN_TARGETS, make_loader, make_model, true_logits

from confshift import Collector, Run, inspect

#: The largest difference of a logit, by the format that it is computed in.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 2e-1}


def near(logits: np.ndarray, model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    np.testing.assert_allclose(logits, true_logits(model.cpu().float()), atol=TOLERANCES[dtype])


def inspects_from_pinned_memory_and_workers(device: torch.device, folder: Path) -> None:
    model = make_model().to(device)
    for epoch, options in enumerate(({"pin_memory": True}, {"pin_memory": True, "num_workers": 2}), 1):
        checkpoint = inspect(model, make_loader(**options), run=folder / "run", epoch=epoch)
        near(checkpoint.predictions.logits, make_model())
    assert all(check["status"] != "failed" for check in Run(folder / "run")[1].provenance.checks.values())


def keeps_the_random_states_of_the_device(device: torch.device, folder: Path) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_model()

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            torch.rand(3, device=inputs.device)
            return self.inner(inputs)

    model = Noisy().to(device)
    torch.manual_seed(1)
    expected = torch.rand(3, device=device), torch.rand(3)
    torch.manual_seed(1)
    inspect(model, make_loader(), run=folder / "run")
    assert torch.equal(torch.rand(3, device=device), expected[0])
    assert torch.equal(torch.rand(3), expected[1])


def inspects_in_half_precision(device: torch.device, folder: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        model = make_model().to(device)
        with torch.autocast(device.type, dtype):
            near(inspect(model, make_loader(), run=folder / str(dtype)).predictions.logits, model, dtype)
    model = make_model().to(device, torch.bfloat16)
    loader = DataLoader(TensorDataset(INPUTS.bfloat16(), TARGETS), 16)
    near(inspect(model, loader, run=folder / "all").predictions.logits, model, torch.bfloat16)


def trains_with_a_scaler_as_without_inspecting(device: torch.device, folder: Path) -> None:
    def train(then: Callable[[nn.Module], object]) -> list[torch.Tensor]:
        torch.manual_seed(2)
        model = make_model().to(device)
        optimizer, scaler = torch.optim.SGD(model.parameters(), 0.1), torch.amp.GradScaler(device.type)
        for _ in range(3):
            for inputs, targets in DataLoader(TensorDataset(TRAIN_INPUTS, TRAIN_TARGETS), 50, shuffle=True):
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16):
                    loss = nn.functional.cross_entropy(model(inputs.to(device)), targets.to(device))
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            then(model)
        return list(model.state_dict().values())

    inspected = train(lambda model: inspect(model, make_loader(pin_memory=True), run=folder / "run"))
    assert all(map(torch.equal, inspected, train(lambda model: None)))
    assert Run(folder / "run").epochs == (1, 2, 3)


def collects_logits_that_are_overwritten_at_once(device: torch.device, folder: Path) -> None:
    model = make_model().to(device).eval()
    side = torch.cuda.stream(torch.cuda.Stream()) if device.type == "cuda" else torch.no_grad()
    collector = Collector(folder / "run")
    with torch.no_grad(), side:
        for inputs, targets in make_loader(pin_memory=True):
            logits, moved = model(inputs.to(device, non_blocking=True)), targets.to(device, non_blocking=True)
            collector.add(logits, moved)
            logits.zero_()
            moved.zero_()
    predictions = collector.save().predictions
    near(predictions.logits, model)
    np.testing.assert_array_equal(predictions.targets, TARGETS.numpy())


def _rank(rank: int, kind: str, folder: str) -> None:
    several = kind == "cuda" and torch.cuda.device_count() > 1
    device = torch.device(kind, rank) if several else torch.device(kind)
    torch.distributed.init_process_group(
        "nccl" if several else "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    if several:
        torch.cuda.set_device(device)
    data = TensorDataset(INPUTS, TARGETS)
    loader = DataLoader(data, 16, sampler=DistributedSampler(data, shuffle=False), pin_memory=True)
    checkpoint = inspect(make_model().to(device), loader, run=Path(folder) / "run")
    near(checkpoint.predictions.logits, make_model())
    torch.distributed.destroy_process_group()


def joins_the_rows_of_two_processes(device: torch.device, folder: Path) -> None:
    torch.multiprocessing.spawn(_rank, (device.type, str(folder)), nprocs=2)
    assert Run(folder / "run").epochs == (1,)


CHECKS = (
    inspects_from_pinned_memory_and_workers,
    keeps_the_random_states_of_the_device,
    inspects_in_half_precision,
    trains_with_a_scaler_as_without_inspecting,
    collects_logits_that_are_overwritten_at_once,
    joins_the_rows_of_two_processes,
)


def main(kind: str = "cuda") -> int:
    if kind == "cuda" and not torch.cuda.is_available():
        print("no GPU: nothing was checked")  # noqa: T201
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    name = torch.cuda.get_device_name() if kind == "cuda" else "the processor"
    print(f"torch {torch.__version__} on {name}")  # noqa: T201
    failed = 0
    for check in CHECKS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(torch.device(kind), Path(folder))
            except Exception as error:
                failed += 1
                print(f"FAILED {check.__name__}: {type(error).__name__}: {error}")  # noqa: T201
            else:
                print(f"passed {check.__name__}")  # noqa: T201
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
