"""When does a validation loss rise systematically? And why does the training loss drop suddenly?

Two trainings of one small network on the same images. With a strong weight decay it forgets as fast as it
learns: its validation loss only fluctuates. Without weight decay it overfits. The script saves the loss of
each training batch, to compare the end of an epoch with the start of the next, and inspects the training
images in eval mode at the end of each epoch. A third training draws its batches with replacement, so that
an epoch does not contain each image once: if the drops of the training loss come from the epochs, this
training has none.

The thread names no data and no recipe. This uses digits, each cut to a random window, or your images
(--data).

    python examples/t3_fluctuation_or_rise.py [--data DIR] [--epochs N] [--out PAGE] [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, RandomSampler

import confshift
from images import Images, load_images

QUESTION = "Does the validation loss rise or fluctuate, and why does the training loss drop suddenly?"
EPOCHS = 40
RUNS = Path("runs/t3_fluctuation_or_rise")
PAGE = Path("reports/t3_fluctuation_or_rise.html")
TRAININGS = {
    "fluctuates": {"weight_decay": 0.03, "replacement": False},
    "overfits": {"weight_decay": 0.0, "replacement": False},
    "no_epochs": {"weight_decay": 0.0, "replacement": True},
}
#: The findings about the question; the page has all.
SELECTION = ("rise", "refinement_rise", "error_rise", "run_kind", "best_checkpoint", "train_gap")


def train(
    training: Images,
    validation: Images,
    run: confshift.Run,
    *,
    weight_decay: float,
    replacement: bool,
    epochs: int,
) -> None:
    """Train; inspect validation and training images after every epoch, both in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(training.pixels[0].numel(), 128),
        nn.ReLU(),
        nn.Linear(128, len(training.classes)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=weight_decay)
    sampler = RandomSampler(training, replacement=replacement)
    train_loader = DataLoader(training, batch_size=32, sampler=sampler)
    train_probe = DataLoader(training, batch_size=500)
    val_loader = DataLoader(validation, batch_size=500)
    for _ in range(epochs):
        model.train()
        losses = []  # of each batch, while the weights change
        for pixels, targets in train_loader:
            optimizer.zero_grad()
            loss = cross_entropy(model(pixels), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        confshift.inspect(model, val_loader, run=run)
        confshift.inspect(model, train_probe, run=run, split="train", metadata=in_parts(losses))
    run.flush()


def in_parts(losses: Sequence[float]) -> dict[str, float]:
    """Return the mean of an epoch's batches, of its first fifth and of its last fifth."""
    fifth = max(1, len(losses) // 5)
    parts = {"running": losses, "first": losses[:fifth], "last": losses[-fifth:]}
    return {name: float(np.mean(part)) for name, part in parts.items()}


def boundaries(run: confshift.Run) -> pd.DataFrame:
    """Return a row for each end of an epoch: the training loss before it, at it and after it.

    Columns: last (mean of the last fifth of the batches), running (mean of all batches of the epoch),
    eval_mode (all training images, with the weights at the end of the epoch), first (mean of the first fifth
    of the next epoch's batches).
    """
    checkpoints = run.checkpoints("train")
    table = pd.DataFrame(
        [{"eval_mode": checkpoint.metrics()["loss"], **checkpoint.metadata} for checkpoint in checkpoints],
        index=[checkpoint.epoch for checkpoint in checkpoints],
    )
    table["first"] = table["first"].shift(-1)
    return table[["last", "running", "eval_mode", "first"]].dropna()


def drop_at_boundaries(run: confshift.Run) -> tuple[float, float]:
    """Return the mean of log(last / first) over the boundaries, and its standard error."""
    table = boundaries(run)
    drops = np.log(table["last"] / table["first"])
    return float(drops.mean()), float(drops.sem())


def answer(runs: dict[str, confshift.Run]) -> list[str]:
    """Answer in three sentences from the runs' own numbers."""
    histories = {name: confshift.summarize(runs[name]) for name in ("fluctuates", "overfits")}
    return [rises(histories), best(histories), drops(runs)]


def rises(histories: dict[str, confshift.History]) -> str:
    """Say of both runs whether the loss rises, and how much it fluctuates."""
    sentences = []
    for name, history in histories.items():
        row = history.rise.loc["loss"]
        steps = np.diff(history.table.loc[history.table["split"] == "val", "loss"])
        sentences.append(
            f"{row['verdict']} ({row['status'].replace('_', ' ')}) for the run that {name}, "
            f"{row['last_value']:.3f} at epoch {row['last_epoch']:g} after {row['best_value']:.3f} at epoch "
            f"{row['best_epoch']:g}, with {(steps > 0).sum()} of {len(steps)} steps upwards, the largest "
            f"{steps.max():+.3f}"
        )
    return f"Does the validation loss rise systematically? {'; '.join(sentences).capitalize()}."


def best(histories: dict[str, confshift.History]) -> str:
    """Say which checkpoints can't be counts from the best."""
    counts = []
    for name, history in histories.items():
        candidates = history.candidates.loc["loss"]
        epochs = candidates.index[candidates["in_set"].astype(bool)]
        counts.append(
            f"{len(epochs)} of {len(candidates)} (from {epochs[0]:g} to {epochs[-1]:g}) where it {name}"
        )
    return f"Epochs that can't be told from the one with the lowest loss: {', '.join(counts)}."


def drops(runs: dict[str, confshift.Run]) -> str:
    """Say whether the training loss drops between epochs, and whether the epochs are the cause."""
    (drop, error), (control, control_error) = (
        drop_at_boundaries(runs[name]) for name in ("overfits", "no_epochs")
    )
    at = boundaries(runs["overfits"])
    at = at.loc[(at["last"] - at["first"]).idxmax()]
    if not drop > 2 * error:
        verdict = "The training loss does not drop between epochs in this run"
    elif drop - control > 2 * np.hypot(error, control_error):
        verdict = (
            "The training loss drops between epochs, where no weight changes: the batches after the boundary "
            "hold images seen once more, and more recently, than those before it"
        )
    else:
        verdict = "The training loss drops between epochs, but the repeats of the images do not explain it"
    return (
        f"{verdict} (on average {1 - np.exp(-drop):.0%} lower, drawn with replacement "
        f"{1 - np.exp(-control):.0%}; after epoch {at.name:g} from {at['last']:.3f} to {at['first']:.3f}, "
        f"when all training images in eval mode have {at['eval_mode']:.3f} and the epoch's running mean is "
        f"{at['running']:.3f})."
    )


def load(data: Path | None, *, quick: bool) -> tuple[Images, Images]:
    """Return the training and the validation images."""
    if data is not None:
        training, validation = load_images(data, size=32)
    else:
        training, validation = (part.windows(20, seed=seed) for seed, part in enumerate(load_images(size=28)))
    if quick:
        training, validation = training.split(0.2)[0], validation.split(0.2)[0]
    print(f"{len(training)} images to train on, {len(validation)} to validate.")
    return training.standardised(training), validation.standardised(training)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument(
        "--data", type=Path, help="your own images; see images.py for the forms of the folder"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=PAGE, help="the page of the run that overfits")
    parser.add_argument("--quick", action="store_true", help="use a fifth of the images, as a quick test")
    options = parser.parse_args(arguments)
    print(QUESTION)
    if options.data is None:
        torch.set_num_threads(1)  # more threads don't help with images this small
    training, validation = load(options.data, quick=options.quick)
    runs = {name: confshift.Run(RUNS / name) for name in TRAININGS}
    for name, recipe in TRAININGS.items():
        if runs[name].exists():
            runs[name].delete()
        print(f"training: {name}, {recipe}")
        train(training, validation, runs[name], epochs=options.epochs, **recipe)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    beside = options.out.with_stem(f"{options.out.stem}_fluctuates")
    for name, path in {"fluctuates": beside, "overfits": options.out}.items():
        page = confshift.report(runs[name], path, thumbnail=validation)
        selection = [finding for finding in page.findings if finding.code in SELECTION]
        print("", f"The run that {name}, page {path}:", *selection, sep="\n")
    print("", *answer(runs), sep="\n")


if __name__ == "__main__":
    main()
