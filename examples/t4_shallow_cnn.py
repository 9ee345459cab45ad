"""Why does the validation loss of a shallow CNN keep rising while its accuracy settles?

The network and the recipe are those of the thread: one convolution, ReLU, one linear layer, for cats, dogs
and pandas; SGD with learning rate 0.005, batches of 32, 100 epochs. Photos: --data, class folders.

Without photos the three classes are the digits 3, 5 and 8. Whole digits are too easy: with 300 of them to
train on the loss rose by 0.01 nats. So each digit is seen through a window at a random place, 18 of its 28
pixels wide, which leaves about a third of them in doubt, as small photos of animals are. Pixels are
standardised because digits are mostly black: without it 100 epochs are too few to fit the training images.

    python examples/t4_shallow_cnn.py [--data DIR] [--epochs N] [--seed N] [--run FOLDER] [--out PAGE]
                                       [--quick]
    python examples/t4_shallow_cnn.py --answer RUN [RUN ...]

The second form trains nothing: it answers from stored runs, and then for all of them together.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from scipy.special import stdtrit
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import confshift
from images import Images, load_images

QUESTION = "The validation loss rises: are the right ones less sure, or do the wrong ones get worse?"
EPOCHS = 100
RUN = Path("runs/t4_shallow_cnn")
PAGE = Path("reports/t4_shallow_cnn.html")
LATE = {
    "loss": "loss",
    "scale_loss": "its part scale",
    "balance_loss": "class balance",
    "refinement_loss": "and the rest",
}


class ShallowNet(nn.Module):
    """The network of the thread."""

    def __init__(self, size: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(32 * size * size, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits."""
        return self.fc1(torch.relu(self.conv1(pixels)).flatten(1))


def train(training: Images, validation: Images, run: confshift.Run, *, epochs: int) -> None:
    """Train as the thread did; inspect the validation images before training and after every epoch."""
    model = ShallowNet(training.pixels.shape[-1], training.pixels.shape[1], len(training.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    train_loader = DataLoader(training, batch_size=32, shuffle=True)
    val_loader = DataLoader(validation, batch_size=250)
    confshift.inspect(model, val_loader, run=run, epoch=0)
    for epoch in range(1, epochs + 1):
        model.train()
        for pixels, targets in train_loader:
            optimizer.zero_grad()
            cross_entropy(model(pixels), targets).backward()
            optimizer.step()
        metrics = confshift.inspect(model, val_loader, run=run).metrics()
        if epoch % 10 == 0:
            print(f"epoch {epoch:3}  loss {metrics['loss']:.3f}  accuracy {metrics['accuracy']:.3f}")
    run.flush()


def load(data: Path | None, *, quick: bool) -> tuple[Images, Images]:
    """Return the training and the validation images, and print what differs from the thread."""
    if data is not None:
        return load_images(data, size=32)
    training, validation = (
        part.of_classes("3", "5", "8").windows(32, seed=seed)
        for seed, part in enumerate(load_images(size=50))  # 32 of 50 is 18 of 28
    )
    if quick:
        training, validation = training.split(0.2)[0], validation.split(0.2)[0]
    print(
        f"Not as in the thread: {len(training)} digits (3, 5, 8) to train on and {len(validation)} to "
        "validate in place of photos, each seen through a random window, 18 of its 28 pixels wide; pixels "
        "standardised."
    )
    return training.standardised(training), validation.standardised(training)


def answer(run: confshift.Run) -> list[str]:
    """Answer in three sentences from the run's own numbers."""
    history = confshift.summarize(run)
    comparison = confshift.compare(*pair_by_loss(history))
    return [course(history, comparison), shares(comparison), who(comparison)]


def pair_by_loss(history: confshift.History) -> tuple[confshift.Checkpoint, confshift.Checkpoint]:
    """Return the checkpoint of the lowest loss, or the first where that is the last, and the last."""
    checkpoints = history.main.checkpoints
    lowest = history.main.checkpoint_at(history.best.loc["loss", "epoch"])
    return (checkpoints[0] if lowest is checkpoints[-1] else lowest), checkpoints[-1]


def course(history: confshift.History, comparison: confshift.Comparison) -> str:
    """Say whether the loss rose, and what the accuracy did meanwhile."""
    before, after = comparison.before.epoch, comparison.after.epoch
    loss, accuracy = comparison.change.loc["loss"], comparison.change.loc["accuracy"]
    numbers = (
        f"{loss['before']:.3f} at epoch {before:g}, {loss['after']:.3f} at epoch {after:g}; accuracy "
        f"{accuracy['before']:.1%} and {accuracy['after']:.1%}"
    )
    status = history.rise.loc["loss", "status"]
    if status == "systematic":
        settled = "" if accuracy["change_high"] < 0 else " and the accuracy does not fall with it"
        return f"The validation loss rises systematically{settled}: {numbers}."
    return (
        "This run does not show the phenomenon, a systematic rise of the validation loss "
        f"({status.replace('_', ' ')}): {numbers}."
    )


def shares(comparison: confshift.Comparison) -> str:
    """Say how much of the change is carried by right, by wrong and by changed predictions."""
    parts = comparison.cells.groupby("transition", observed=True)[["samples", "contribution"]].sum()
    right, wrong, learned, forgotten = (
        f"{parts.loc[name, 'contribution']:+.3f} ({parts.loc[name, 'samples']:g})"
        for name in ("stayed_right", "stayed_wrong", "learned", "forgotten")
    )
    total = comparison.change.loc["loss", "change"]
    return (
        f"Of the change of {total:+.3f} nats the images right at both epochs carry {right}, those wrong at "
        f"both {wrong}, the learned {learned} and the forgotten {forgotten}; in brackets, how many."
    )


def who(comparison: confshift.Comparison) -> str:
    """Answer the question itself."""
    parts = comparison.cells.groupby("transition", observed=True)["contribution"].sum()
    right, wrong = parts["stayed_right"], parts["stayed_wrong"]
    errors, cost = comparison.change.loc["error_rate"], comparison.change.loc["mistake_cost"]
    if max(right, wrong) <= 0:
        verdict = "neither: both groups improved"
    elif min(right, wrong) > 0:
        verdict = f"both, {'the wrong ones' if wrong > right else 'the right ones'} more"
    elif wrong > 0:
        verdict = "the wrong ones got worse; the right ones, on the whole, became surer"
    else:
        verdict = "the right ones became less sure; the wrong ones, on the whole, less wrong"
    return (
        f"So, less sure or worse? {verdict[0].upper()}{verdict[1:]}: the share of mistakes went from "
        f"{errors['before']:.1%} to {errors['after']:.1%}, and what a mistake costs on average from "
        f"{cost['before']:.2f} to {cost['after']:.2f} nats."
    )


def together(runs: Sequence[confshift.Run]) -> str:
    """Answer for several runs at once: do they agree, and does the rise come back in each?"""
    histories = [confshift.summarize(run) for run in runs]
    systematic = sum(history.rise.loc["loss", "status"] == "systematic" for history in histories)
    sums = pd.DataFrame([confshift.compare(*pair_by_loss(history)).by_transition for history in histories])
    agreeing = ((sums["stayed_wrong"] > 0) & (sums["stayed_right"] < 0)).sum()
    wrong, right = (
        f"{sums[name].min():+.3f} to {sums[name].max():+.3f}" for name in ("stayed_wrong", "stayed_right")
    )
    late = pd.DataFrame([late_change(history) for history in histories])
    means, reach = late.mean(), stdtrit(len(late) - 1, 0.975) * late.sem()
    amounts = [
        f"{words} {means[name]:+.3f} ({means[name] - reach[name]:+.3f} to {means[name] + reach[name]:+.3f})"
        for name, words in LATE.items()
    ]
    return (
        f"Judged one by one, {systematic} of {len(runs)} runs rise systematically. In {agreeing} the wrong "
        f"ones got worse and the right ones surer: images wrong at both epochs carry {wrong}, those right at "
        f"both {right}. From the third fifth of the epochs to the last, the means change by (in nats, with "
        f"95 % intervals over the runs, on these images): {', '.join(amounts)}."
    )


def late_change(history: confshift.History) -> pd.Series:
    """Return the mean of the last fifth of the epochs minus that of the third: of the loss and its parts."""
    table, fifth = history.table[list(LATE)], max(1, len(history.table) // 5)
    return table.tail(fifth).mean() - table.iloc[-3 * fifth : -2 * fifth].mean()


def trained(options: argparse.Namespace) -> confshift.Run:
    """Train as asked, write the page and print its findings; return the run."""
    if options.data is None:
        torch.set_num_threads(1)  # more threads don't help with images this small
    torch.manual_seed(options.seed)
    training, validation = load(options.data, quick=options.quick)
    run = confshift.Run(options.run)
    if run.exists():
        run.delete()
    train(training, validation, run, epochs=options.epochs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page = confshift.report(run, options.out, thumbnail=validation)
    print(*(finding for finding in page.findings if finding.verdict in ("yes", "no")), sep="\n")
    print(f"The page: {options.out}")
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument(
        "--data", type=Path, help="your own images; see images.py for the forms of the folder"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the images")
    parser.add_argument("--run", type=Path, default=RUN, help="the folder of the run; one there is replaced")
    parser.add_argument("--answer", type=Path, nargs="+", metavar="RUN", help="only answer, from stored runs")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page")
    parser.add_argument("--quick", action="store_true", help="use a fifth of the digits, as a quick test")
    options = parser.parse_args(arguments)
    print(QUESTION)
    runs = [confshift.Run(run) for run in options.answer or ()] or [trained(options)]
    for run in runs:
        print("", *answer(run), sep="\n")
    if len(runs) > 1:
        print("", together(runs), sep="\n")


if __name__ == "__main__":
    main()
