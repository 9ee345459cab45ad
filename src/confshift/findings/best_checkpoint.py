"""Which checkpoint is best by which criterion, and which one to keep?"""

from __future__ import annotations

import math

import pandas as pd

from confshift.analysis.best_epochs import CRITERIA
from confshift.analysis.history import History
from confshift.analysis.recommendation import Recommendation
from confshift.analysis.series import ALPHA
from confshift.findings.left_out import epochs_in_words
from confshift.findings.question import Finding, Question, Verdict
from confshift.findings.told import rests_on
from confshift.findings.wording import apart, count, epoch, epoch_argument, nats, percent

_BEST_CHECKPOINT = Question(
    "best_checkpoint",
    "Do loss, refinement loss and accuracy agree on the best checkpoint?",
    section="rise",
    problem=None,
)


def best_checkpoint(history: History) -> Finding:
    """Do loss, refinement loss and accuracy choose the same checkpoint?"""
    best = history.best.loc[list(CRITERIA)]  # what the test split says is no criterion
    epochs_judged = history.rise.loc["loss", "epochs"]
    if epochs_judged < 2:
        sentence = "There is one checkpoint only." if epochs_judged else "No checkpoint can be judged."
        answer = "One checkpoint: nothing to choose from" if epochs_judged else "No checkpoint can be judged"
        return _BEST_CHECKPOINT.not_applicable(sentence, best, answer=answer)
    sets = {criterion: tied_with_best(history, criterion) for criterion in best.index}
    agree = best["epoch"].nunique() == 1
    tied_by_all = sorted(set.intersection(*sets.values()))
    verdict: Verdict = "yes" if agree else "cannot tell" if tied_by_all else "no"
    answer, chosen, ties = _choices_in_words(best["epoch"], tied_by_all, verdict)
    caveats = f"{_unscored(history)}{_few_wrong(history)}"
    advice, details = _recommendation(history)
    choice = history.recommendation
    return _BEST_CHECKPOINT.answer(
        verdict,
        f"{chosen}{caveats or ties}",
        best,
        advice,
        answer=answer,
        details=f"{_numbers(best, sets)}{ties if caveats else ''} {details}",
        command=f"confshift calibrate RUN --epoch {epoch_argument(choice.epoch)}"
        if choice.calibrated
        else "",
    )


def _choices_in_words(epochs: pd.Series, tied_by_all: list[float], verdict: Verdict) -> tuple[str, str, str]:
    """Return the heading, and the sentences about the epochs that the criteria choose and about ties."""
    loss, rest, accuracy = (epoch(epochs[name]) for name in ("loss", "refinement_loss", "accuracy"))
    if verdict == "yes":
        everywhere = f"Loss, loss once calibrated and accuracy are all best at epoch {loss}."
        return f"Epoch {loss} is best by every criterion", everywhere, ""
    chosen = (
        f"Loss and loss once calibrated are best at epoch {loss}, accuracy at epoch {accuracy}."
        if loss == rest
        else f"Loss is best at epoch {loss}, loss once calibrated at epoch {rest}, accuracy at epoch "
        f"{accuracy}."
    )
    if verdict == "cannot tell":
        tied = _epoch_list(tied_by_all)
        answer = (
            f"{tied} ties with the best by every criterion"
            if len(tied_by_all) == 1
            else f"{count(len(tied_by_all), 'epoch')} tie with the best by every criterion"
        )
        are = "is" if len(tied_by_all) == 1 else "are"
        return answer, chosen, f" {tied} {are} about as good by all three: the differences are within noise."
    answer = f"Loss is best at epoch {loss}, " + (
        f"accuracy at epoch {accuracy}" if loss == rest else f"calibrated loss at {rest}"
    )
    return answer, chosen, " No checkpoint ties with the best by all three."


def _numbers(best: pd.DataFrame, sets: dict[str, set[float]]) -> str:
    """Give the numbers of the best checkpoint by each criterion, and those that tie with it."""
    loss, refinement, accuracy = (best.loc[name] for name in ("loss", "refinement_loss", "accuracy"))
    ties = {name: _ties_in_words(epochs - {best.loc[name, "epoch"]}) for name, epochs in sets.items()}
    return (
        f"By loss epoch {epoch(loss['epoch'])} ({_loss(loss, 'loss')}, accuracy "
        f"{percent(loss['accuracy'])}{ties['loss']}); by refinement loss, the loss once "
        f"calibrated, epoch {epoch(refinement['epoch'])} ({_loss(refinement, 'refinement_loss')}"
        f"{_at_temperature(refinement)}, accuracy {percent(refinement['accuracy'])}"
        f"{ties['refinement_loss']}); by accuracy epoch {epoch(accuracy['epoch'])} "
        f"({percent(accuracy['accuracy'])}{ties['accuracy']})."
    )


def kept(history: History) -> str:
    """Name the checkpoint to keep, the same one in every sentence, and whether to calibrate it."""
    choice = history.recommendation
    return f"epoch {epoch(choice.epoch)}{' and calibrate it' if choice.calibrated else ''}"


#: More biases are not written out.
_MOST_BIASES = 10


def _recommendation(history: History) -> tuple[str, str]:
    """Name the checkpoint to keep; and, in more words, why, the alternative, and the code to calibrate it."""
    loss, choice = history.best.loc["loss"], history.recommendation
    step = f"Keep {kept(history)}."
    if not math.isfinite(choice.loss):
        return step, f"Kept: {choice.reason}."
    plain = (
        f"epoch {epoch(loss['epoch'])}, the plain minimum of the loss: {nats(loss['loss'])} nats, accuracy "
        f"{percent(loss['accuracy'])}"
    )
    if not choice.calibrated and choice.epoch == loss["epoch"]:
        return step, f"Kept is {plain}. {_without_gain(history)}{_lowest(history)}"
    text = (
        f"Epoch {epoch(choice.epoch)}{_with_map(choice)} is {choice.reason}; its expected loss is "
        f"{nats(choice.loss)} nats, its accuracy {_accuracy(history)}."
        f"{_lowest(history)} Without calibration: {plain}."
    )
    code = f" {_in_code(choice)}{_richer(history)}" if choice.calibrated else ""
    return step, f"{text}{_on_labels(choice)}{code}"


def _accuracy(history: History) -> str:
    """Write the accuracy of the checkpoint to keep; where biases are recommended, with and without them."""
    choice, found = history.recommendation, history.calibrated_accuracy
    if not choice.with_biases:
        return percent(choice.accuracy)
    if math.isnan(found.value):
        return f"{percent(choice.accuracy)} without the biases (with them it was not measured)"
    noise = "a difference within noise" if found.p_value >= ALPHA else f"p = {found.p_value:.2g}"
    return f"{percent(found.value)} on samples left out, {percent(choice.accuracy)} without biases ({noise})"


def with_biases_in_words(history: History) -> str:
    """Say what the accuracy is with the recommended biases; "" without them, and where it is not known."""
    choice, found = history.recommendation, history.calibrated_accuracy
    if not choice.with_biases or math.isnan(found.value):
        return ""
    noise = "" if found.p_value < ALPHA else ", within noise"
    return f" and accuracy {percent(found.value)} ({percent(choice.accuracy)} without biases{noise})"


def _lowest(history: History) -> str:
    """Compare the checkpoint to keep with that of the lowest expected loss; "" where they are one."""
    kept = history.recommendation.kept
    if kept.lowest == kept.epoch:
        return ""
    plain, of_lowest = apart(kept.loss, kept.lowest_loss)
    return (
        f" Epoch {epoch(kept.lowest)} has the lowest expected loss once calibrated, {nats(kept.behind)} nats "
        f"less (standard error {nats(kept.behind_se)}), but uncalibrated {of_lowest} instead of {plain} nats."
    )


def _without_gain(history: History) -> str:
    """Say that temperature and biases gain nothing; where tried, what richer maps do."""
    found = history.richer_map
    if found is None or not found.method:
        return "Calibration gains nothing here."
    return f"A temperature and biases gain nothing here.{_richer(history)}"


def _richer(history: History) -> str:
    """Say what a scale for each class or a matrix gains; "" where they were not tried."""
    found = history.richer_map
    if found is None:
        return ""
    if not found.method:
        return " Neither a scale for each class nor a matrix gains more."
    does = {"vector": "scales each class", "matrix": "mixes the classes by a matrix"}[found.method]
    return (
        f" confshift.calibrate(run[{epoch_argument(history.recommendation.epoch)}]).module() {does}: another "
        f"{nats(found.gain)} nats lower (standard error {nats(found.gain_se)}) on samples left out."
    )


def _few_wrong(history: History) -> str:
    """Say that the recommended temperature rests on few wrong samples; "" where it does not."""
    choice = history.recommendation
    if not choice.calibrated or not math.isfinite(choice.loss):
        return ""
    at = next(saved for saved in history.main.checkpoints if saved.epoch == choice.epoch)
    few = rests_on(at)
    return f" Its calibration {few}: measure it on other samples." if few else ""


def _with_map(choice: Recommendation) -> str:
    if not choice.calibrated:
        return ""
    biases = " and one bias for each class" if choice.with_biases else ""
    return f" with T = {choice.temperature:.3g}{biases}"


def _on_labels(choice: Recommendation) -> str:
    """Say why the temperature is not the one with the least loss here, where labels look wrong."""
    if choice.method != "label_noise_temperature":
        return ""
    return (
        " Some labels look wrong, and that T allows for it: fitted as if all were right, it would be too "
        "high. On these labels the loss looks higher with it, on right ones it is lower."
    )


def _in_code(choice: Recommendation) -> str:
    if len(choice.biases) > _MOST_BIASES and choice.with_biases:
        call = f'confshift.calibrate(run[{epoch_argument(choice.epoch)}], method="{choice.method}")'
        return f"In code: probabilities = {call}.module()(model(inputs)).softmax(dim=-1)."
    biases = ", ".join(f"{bias:.3g}" for bias in choice.biases)
    added = f" + torch.tensor([{biases}])" if choice.with_biases else ""
    return f"In code: probabilities = (model(inputs) / {choice.temperature:.4g}{added}).softmax(dim=-1)."


def _loss(row: pd.Series, name: str) -> str:
    """Write a mean loss; of an infinite one also the mean over the samples where the loss is finite."""
    if math.isinf(row[name]):
        has_finite_part = math.isfinite(row["finite_loss"])
        return "infinite" + (
            f"; the loss is {nats(row['finite_loss'])} nats where it is finite" if has_finite_part else ""
        )
    return f"{nats(row[name])} nats"


def _ties_in_words(epochs: set[float]) -> str:
    return f"; statistically tied: {_epoch_list(sorted(epochs)).lower()}" if epochs else "; no other as good"


def _epoch_list(epochs: list[float]) -> str:
    if len(epochs) <= 3:
        return f"Epoch{'' if len(epochs) == 1 else 's'} {', '.join(epoch(value) for value in epochs)}"
    return f"{count(len(epochs), 'epoch')} from {epoch(epochs[0])} to {epoch(epochs[-1])}"


def tied_with_best(history: History, criterion: str) -> set[float]:
    """Return the epochs that are statistically tied with the best by this criterion.

    An epoch is none of them where more samples have no finite loss than at the best: candidates are compared
    over the other samples.
    """
    candidates = history.candidates
    members = candidates[candidates["in_set"].astype(bool)]
    criteria, epochs = members.index.get_level_values("criterion"), members.index.get_level_values("epoch")
    table = history.table[history.table["split"] == history.split].set_index("epoch")
    left_out, best = table["nonfinite_samples"], history.best.loc[criterion, "epoch"]
    return {epoch for epoch in epochs[criteria == criterion] if left_out[epoch] <= left_out[best]}


def _at_temperature(row: pd.Series) -> str:
    return f" at T = {row['temperature']:.3g}" if row["fit_status"] == "ok" else ""


def _unscored(history: History) -> str:
    """Name the checkpoints that can't be the best, because no sample has a finite loss there."""
    without_loss = history.main.counts.finite == 0
    if not without_loss.any():
        return ""
    names = epochs_in_words(history.main, without_loss)
    return f" No sample has a finite loss at {names}, left out here and in the comparison."
