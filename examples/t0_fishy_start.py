"""Curves that look wrong from their first point on: is the model overfitting, or is it measured wrongly?

The thread puts an untrained head for eight classes on a pretrained backbone. At the first point of its
curves the accuracy is above 70 % on training and about 45 % on validation images, and the validation loss
lies above the training loss and rises at once. The answer asks for a point from before training, where both
losses should be near ln 8 = 2.08 and both accuracies near 12.5 %, all measured in eval mode. This script
does it once correctly, and once with each of the faults that would explain such curves:

- late snapshot: the model called epoch 0 has already seen every image once
- train mode: the loop's own numbers are computed with dropout on and BatchNorm averaging over the batch
- label order: the validation set numbers its last four classes in the opposite order

A quarter of the training images, of all ten digits, pretrains the backbone; the head for the digits 0 to 7
is trained with the others. So the backbone has learned the very classes of the head: no backbone fits
better, and still the start has to be that of a random guess. Each digit is cut to a window of 20 of its 28
pixels, at a random place, because whole ones are too easy. With --data the script uses the first eight
classes of your images.

    python examples/t0_fishy_start.py [--data DIR] [--epochs N] [--out PAGE] [--quick]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import confshift
from images import Images, load_images

QUESTION = "Validation is far worse than training from the first point on: overfitting, or measured wrongly?"
EPOCHS = 12
CLASSES = 8
FEATURES = 512
HEADS = 200
RUNS = Path("runs/t0_fishy_start")
#: The faults, and the finding that should catch each.
FAULTS = {"late snapshot": "too_good", "train mode": "logged_loss", "label order": "outputs_in_order"}
TRAININGS = ("sane", *FAULTS)
#: The answers for a run that starts well and is measured well.
SANE = {
    "start_loss": "yes",
    "too_good": "no",
    "outputs_in_order": "yes",
    "evaluates_plainly": "yes",
    "logged_loss": "yes",
}


def pretrain(images: Images, *, epochs: int) -> nn.Sequential:
    """Return a small network of convolutions, trained on these images, without its head."""
    backbone = nn.Sequential(
        nn.Conv2d(images.pixels.shape[1], 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(4),
        nn.Flatten(),
    )
    model = nn.Sequential(backbone, nn.Linear(FEATURES, len(images.classes)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    loader = DataLoader(images, batch_size=32, shuffle=True)
    for _ in range(epochs):
        train_epoch(model, loader, optimizer)
    return backbone


def train_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """Train on each image once; return the mean loss of the batches, as most loops print it."""
    model.train()
    losses = []
    for pixels, targets in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(pixels), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


def evaluate(model: nn.Module, loader: DataLoader, *, eval_mode: bool) -> dict[str, float]:
    """Return loss and accuracy as a user's own loop computes them."""
    model.train(not eval_mode)
    loss, right, samples = 0.0, 0, 0
    with torch.no_grad():
        for pixels, targets in loader:
            logits = model(pixels)
            loss += cross_entropy(logits, targets, reduction="sum").item()
            right += int((logits.argmax(dim=1) == targets).sum())
            samples += len(targets)
    return {"loss": loss / samples, "accuracy": right / samples}


def train(
    backbone: nn.Module,
    training: Images,
    validation: Images,
    run: confshift.Run,
    *,
    epochs: int,
    late: bool = False,
    eval_mode: bool = True,
) -> None:
    """Train backbone and new head; inspect both sets, in eval mode, before training and after each epoch."""
    torch.manual_seed(1)
    model = nn.Sequential(
        copy.deepcopy(backbone), nn.Dropout(0.5), nn.Linear(FEATURES, len(training.classes))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    train_loader = DataLoader(training, batch_size=32, shuffle=True)
    train_probe = DataLoader(training, batch_size=500)
    val_loader = DataLoader(validation, batch_size=500)
    for epoch in range(epochs + 1):
        running = {}
        if epoch > 0 or late:
            running["loss"] = train_epoch(model, train_loader, optimizer)
        own = evaluate(model, val_loader, eval_mode=eval_mode)
        confshift.inspect(model, val_loader, run=run, epoch=epoch, logged=own)
        confshift.inspect(model, train_probe, run=run, epoch=epoch, split="train", logged=running)
    run.flush()


def many_starts(backbone: nn.Module, images: Images) -> np.ndarray:
    """Return the accuracies of many new heads: a single one is right or wrong for whole classes by luck."""
    torch.manual_seed(2)
    backbone.eval()
    with torch.no_grad():
        features = torch.cat([backbone(pixels) for pixels, _ in DataLoader(images, batch_size=500)])
        heads = [nn.Linear(FEATURES, len(images.classes)) for _ in range(HEADS)]
        return np.array([(head(features).argmax(1) == images.targets).float().mean() for head in heads])


def in_another_order(images: Images) -> Images:
    """Return the images with the last four classes numbered backwards, as by folders in another order."""
    numbers = torch.arange(len(images.classes))
    numbers[-4:] = numbers[-4:].flip(0)
    return replace(images, targets=numbers[images.targets])


def alarms(findings: Sequence[confshift.Finding]) -> list[confshift.Finding]:
    """Return the findings whose answer is the opposite of a sane run's."""
    return [
        finding
        for finding in findings
        if finding.code in SANE and finding.verdict in ("yes", "no") and finding.verdict != SANE[finding.code]
    ]


def course(run: confshift.Run) -> str:
    """Return a table: both sets in eval mode, and the loop's own numbers for training and validation."""
    lines = ["epoch  loss: train    val  running  logged  accuracy: train    val"]
    for epoch in run.epochs:
        val, train = run[epoch], run.checkpoint(epoch, split="train")
        metrics, probe = val.metrics(), train.metrics()
        running = train.provenance.logged.get("loss", float("nan"))
        lines.append(
            f"{epoch:5g}  {probe['loss']:11.3f}  {metrics['loss']:5.3f}  {running:7.3f}  "
            f"{val.provenance.logged['loss']:6.3f}  {probe['accuracy']:15.3f}  {metrics['accuracy']:5.3f}"
        )
    return "\n".join([*lines[:4], "  ...", lines[-1]] if len(lines) > 6 else lines)


def answer(
    runs: dict[str, confshift.Run],
    findings: dict[str, Sequence[confshift.Finding]],
    starts: np.ndarray,
) -> list[str]:
    """Answer in three sentences from the runs' own numbers."""
    return [start(runs["sane"], findings["sane"], starts), caught(runs, findings), like_the_thread(runs)]


def start(run: confshift.Run, findings: Sequence[confshift.Finding], starts: np.ndarray) -> str:
    """Say what the start looks like where everything is right."""
    val, train = run[0].metrics(), run.checkpoint(0, split="train").metrics()
    classes = len(run.class_names)
    false_alarms = alarms(findings)
    opening = (
        f"alarms where there is no fault ({', '.join(codes(false_alarms))})" if false_alarms else "no alarm"
    )
    low, high = np.quantile(starts, [0.05, 0.95])
    return (
        f"Measured as it should be: {opening}; before training the loss is {train['loss']:.2f} on training "
        f"and {val['loss']:.2f} on validation images (ln {classes} = {np.log(classes):.2f}), the accuracy "
        f"{train['accuracy']:.1%} and {val['accuracy']:.1%} (1/{classes} = {1 / classes:.1%}; of "
        f"{len(starts)} new heads on this backbone the mean is {starts.mean():.1%}, and 90 % of them have "
        f"{low:.1%} to {high:.1%})."
    )


def codes(findings: Sequence[confshift.Finding]) -> list[str]:
    return [finding.code for finding in findings]


def caught(runs: dict[str, confshift.Run], findings: dict[str, Sequence[confshift.Finding]]) -> str:
    """Say which faults were caught, by which finding, and the numbers that give each away."""
    late = runs["late snapshot"][0].metrics()
    run = runs["train mode"]
    mode, probe = run[run.epochs[-1]], run.checkpoint(run.epochs[-1], split="train")
    order = runs["label order"][runs["label order"].epochs[-1]].metrics()
    signs = {
        "late snapshot": f"loss {late['loss']:.2f}, accuracy {late['accuracy']:.1%} at its epoch 0",
        "train mode": (
            f"validation loss {mode.provenance.logged['loss']:.3f} by the loop and "
            f"{mode.metrics()['loss']:.3f} in eval mode at epoch {mode.epoch:g}, training loss "
            f"{probe.provenance.logged['loss']:.3f} and {probe.metrics()['loss']:.3f}"
        ),
        "label order": f"accuracy {order['accuracy']:.1%} after training",
    }
    alarm_codes = {name: codes(alarms(findings[name])) for name in signs}
    count = sum(code in alarm_codes[name] for name, code in FAULTS.items())
    details = "; ".join(
        f"{name} ({', '.join(alarm_codes[name]) or 'no alarm'}): {sign}" for name, sign in signs.items()
    )
    return f"Of the three faults {count} are caught: {details}."


def like_the_thread(runs: dict[str, confshift.Run]) -> str:
    """Say which run has the thread's picture: validation far below training, its loss rising at once."""
    similar, details = [], []
    for name, run in runs.items():
        first = run.epochs[0] if name == "late snapshot" else run.epochs[1]  # the first trained point
        val, train = (run.checkpoint(first, split=split).metrics()["accuracy"] for split in ("val", "train"))
        trained = [checkpoint for checkpoint in run.checkpoints() if checkpoint.epoch >= first]
        rise = confshift.summarize(trained).rise.loc["loss"]
        if train - val > 0.1 and rise["status"] == "systematic" and rise["best_epoch"] == first:
            similar.append(name)
        details.append(
            f"{name} {train:.1%} and {val:.1%}, {rise['best_value']:.2f} to {rise['last_value']:.2f}"
        )
    opening = f"only the run with {' and '.join(similar)} is" if similar else "none of these runs is"
    return (
        "Like the thread's curves, accuracies far apart at the first trained point and a validation loss "
        f"that rises at once, {opening} (accuracy of training and validation there, then the validation loss "
        f"from its lowest to its last: {'; '.join(details)})."
    )


def load(data: Path | None, *, quick: bool) -> tuple[Images, Images, Images]:
    """Return the images to pretrain with, to train the head with and to validate with."""
    if data is not None:
        training, validation = load_images(data, size=32)
    else:
        training, validation = (part.windows(20, seed=seed) for seed, part in enumerate(load_images(size=28)))
    if quick:
        training, validation = training.split(0.2)[0], validation.split(0.2)[0]
    reference = training
    pretraining, training = training.split(0.25)
    names = training.classes[:CLASSES]
    training, validation = training.of_classes(*names), validation.of_classes(*names)
    print(
        f"{len(pretraining)} images of {len(pretraining.classes)} classes pretrain the backbone; "
        f"{len(training)} of {len(names)} train (thread: 18,000), {len(validation)} validate."
    )
    return tuple(images.standardised(reference) for images in (pretraining, training, validation))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument(
        "--data", type=Path, help="your own images; see images.py for the forms of the folder"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=Path("reports/t0_fishy_start.html"), help="the page")
    parser.add_argument("--quick", action="store_true", help="use a fifth of the images, as a quick test")
    options = parser.parse_args(arguments)
    print(QUESTION)
    if options.data is None:
        torch.set_num_threads(1)  # more threads don't help with images this small
    torch.manual_seed(0)
    pretraining, training, validation = load(options.data, quick=options.quick)
    backbone = pretrain(pretraining, epochs=10)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pages = {"sane": options.out, "label order": options.out.with_stem(f"{options.out.stem}_label_order")}
    runs = {name: confshift.Run(RUNS / name.replace(" ", "_")) for name in TRAININGS}
    findings = {}
    for name, run in runs.items():
        if run.exists():
            run.delete()
        train(
            backbone,
            training,
            in_another_order(validation) if name == "label order" else validation,
            run,
            epochs=options.epochs,
            late=name == "late snapshot",
            eval_mode=name != "train mode",
        )
        page = pages.get(name)
        findings[name] = confshift.diagnose(run)
        if page:
            confshift.report(run, page, thumbnail=validation)
        selection = alarms(findings[name])
        if name == "sane":
            selection = [
                finding for finding in findings[name] if finding.code in SANE or finding.code == "train_gap"
            ]
        print("", f"The run: {name}", course(run), *selection, sep="\n")
    print("", *answer(runs, findings, many_starts(backbone, validation)), sep="\n")
    print("The pages:", *pages.values())


if __name__ == "__main__":
    main()
