"""The same questions answered by confshift and by other packages, each from float32 logits and targets.

A package that wants probabilities gets them by its own means where it has some, else by scipy's softmax: that
is a part of its answer. Each is imported by the function that needs it, since most are no dependency.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from confshift import Checkpoint, Predictions, calibrate, recalibration, temperature
from confshift.analysis.calibration import expected_calibration_error, smooth_calibration_error
from confshift.analysis.reliability import bin_columns, isotonic_curve
from confshift.scoring import score

BINS = 15
Logits = NDArray[np.float32]
Targets = NDArray[np.int64]


def draw(samples: int, classes: int, *, seed: int = 0) -> tuple[Logits, Targets]:
    """Return the logits of an overconfident model with a bias for each class; some samples are harder."""
    random = np.random.default_rng(seed)
    targets = random.permutation(np.arange(samples) % classes)  # each occurs: scikit-learn asks for that
    logits = random.standard_normal((samples, classes), np.float32)
    logits += 0.4 * random.standard_normal(classes, np.float32)
    lead = np.float32(2 + np.log(classes) / 2)
    logits[np.arange(samples), targets] += lead * random.uniform(0.4, 1.6, samples).astype(np.float32)
    return np.float32(1.25) * lead * logits, targets


def mean_loss(logits: NDArray[Any], targets: Targets, scale: float = 1.0) -> float:
    """Return the mean cross-entropy in double precision, by scipy: the judge of whatever is fitted."""
    below = log_softmax(scale * logits.astype(np.float64), axis=1)
    return float(-below[np.arange(len(targets)), targets].mean())


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked, who answers it how, and when two answers are the same."""

    name: str
    ways: Mapping[str, Callable[[Logits, Targets], Any]]  # confshift's is the first
    tolerance: float  # of the difference to confshift's answer, relative to 1 + its size
    beside: str  # what confshift gives with its answer
    known: Mapping[str, str] = field(default_factory=dict)  # whose answer may differ, and why
    judge: Callable[[Any, Logits, Targets], float] | None = None  # what is compared; default: the answer

    def value(self, answer: Any, logits: Logits, targets: Targets) -> NDArray[np.float64]:
        """Return the numbers by which an answer is compared."""
        return np.asarray(self.judge(answer, logits, targets) if self.judge else answer, np.float64)


# ------------------------------------------------------------------------------------------- the mean loss
def torch_loss(logits, targets):
    loss = torch.nn.functional.cross_entropy(*tensors(logits, targets), reduction="none")
    return float(loss.mean())


def scipy_loss(logits, targets):
    return float(-log_softmax(logits, axis=1)[np.arange(len(targets)), targets].mean())


def sklearn_loss(logits, targets):
    from sklearn.metrics import log_loss

    return log_loss(targets, softmax(logits.astype(np.float64), axis=1), labels=np.arange(logits.shape[1]))


def probmetrics_metric(name):
    def metric(logits, targets):
        from probmetrics.metrics import Metrics

        values = Metrics.from_names([name]).compute_all_from_labels_logits(*tensors(logits, targets)[::-1])
        return float(values[name])

    return metric


def tensors(logits, targets):
    return torch.from_numpy(logits), torch.from_numpy(targets)


# --------------------------------------------------------------------------------------- calibration errors
def our_ece(logits, targets):
    scores = score(logits, targets)
    return expected_calibration_error(scores.confidence, scores.correct, bins=BINS)[0]


def netcal_ece(logits, targets):
    from netcal.metrics import ECE

    return float(ECE(BINS).measure(softmax(logits, axis=1), targets))


def torchmetrics_ece(logits, targets):
    from torchmetrics.functional.classification import multiclass_calibration_error

    classes = logits.shape[1]
    return float(multiclass_calibration_error(*tensors(logits, targets), classes, n_bins=BINS, norm="l1"))


def torchmetrics_accumulated_ece(logits, targets):
    from torchmetrics.classification import MulticlassCalibrationError

    metric = MulticlassCalibrationError(logits.shape[1], n_bins=BINS, norm="l1")
    for part in zip(*(values.split(256) for values in tensors(logits, targets)), strict=True):
        metric.update(*part)
    return float(metric.compute())


def relplot_ece(logits, targets):
    from relplot.metrics import binnedECE, multiclass_logits_to_confidences

    return float(binnedECE(*multiclass_logits_to_confidences(logits, targets), nbins=BINS))


def our_smooth_ece(logits, targets):
    scores = score(logits, targets)
    return smooth_calibration_error(scores.confidence, scores.correct)


def relplot_smooth_ece(logits, targets):
    from relplot.metrics import multiclass_logits_to_confidences, smECE

    return float(smECE(*multiclass_logits_to_confidences(logits, targets)))


# ---------------------------------------------------------------------------------------------- reliability
def our_reliability(logits, targets):
    scores = score(logits, targets)
    columns = bin_columns(scores.confidence, scores.correct, binning="equal_width", bins=BINS)
    return np.stack([columns["confidence"], columns["accuracy"]])


def sklearn_reliability(logits, targets):
    from sklearn.calibration import calibration_curve

    confidence, correct = _top(logits, targets)
    accuracy, means = calibration_curve(correct, confidence, n_bins=BINS)
    return np.stack([means, accuracy])


def our_isotonic(logits, targets):
    scores = score(logits, targets)
    curve = isotonic_curve(scores.confidence, scores.correct)
    return np.interp(_PLACES, curve["confidence"], curve["accuracy"])


def sklearn_isotonic(logits, targets):
    from sklearn.isotonic import IsotonicRegression

    confidence, correct = _top(logits.astype(np.float64), targets)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(confidence, correct)
    return np.interp(_PLACES, fitted.X_thresholds_, fitted.y_thresholds_)


_PLACES = np.linspace(0.5, 0.999, 50)


def _top(logits, targets):
    probabilities = softmax(logits, axis=1)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == targets


# ---------------------------------------------------------------------------------------------- temperature
def our_temperature(logits, targets):
    return temperature.optimum(temperature.fit(logits, targets))[0]


def scipy_temperature(logits, targets):
    def loss(value):
        return scipy_loss(logits / np.float32(value), targets)

    return 1 / minimize_scalar(loss, bounds=(0.05, 20), method="bounded").x


def lbfgs_recipe(logits, targets):
    """Fit as the recipe that is usually copied: 50 steps of LBFGS at a learning rate of 0.01 from 1.5."""
    return _lbfgs(logits, targets, lr=0.01, max_iter=50)


def lbfgs_line_search(logits, targets):
    return _lbfgs(logits, targets, lr=1.0, max_iter=50, line_search_fn="strong_wolfe")


def _lbfgs(logits, targets, **options):
    values, labels = tensors(logits, targets)
    fitted = torch.nn.Parameter(torch.ones(1) * 1.5)
    optimizer = torch.optim.LBFGS([fitted], **options)
    criterion = torch.nn.CrossEntropyLoss()

    def closure():
        optimizer.zero_grad()
        loss = criterion(values / fitted.unsqueeze(1).expand(*values.shape), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return 1 / float(fitted.detach())


def netcal_temperature(logits, targets):
    from netcal.scaling import TemperatureScaling

    fitted = TemperatureScaling().fit(softmax(logits.astype(np.float64), axis=1), targets)
    return float(np.asarray(fitted.temperature).item())


def probmetrics_temperature(logits, targets):
    from probmetrics.calibrators import get_calibrator
    from probmetrics.distributions import CategoricalLogits

    values, labels = tensors(logits, targets)
    return float(get_calibrator("temp-scaling").fit_torch(CategoricalLogits(values), labels).invtemp_)


def sklearn_temperature(logits, targets):
    fitted = _sklearn(logits, targets, "temperature")
    return float(fitted.calibrated_classifiers_[0].calibrators[0].beta_)


def _sklearn(logits, targets, method):
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        """A classifier whose decision function is its input."""

        def fit(self, values, labels):
            self.classes_ = np.arange(values.shape[1])
            return self

        def decision_function(self, values):
            return values

        def predict(self, values):
            return values.argmax(axis=1)

    given = FrozenEstimator(Given().fit(logits, targets))
    return CalibratedClassifierCV(given, method=method).fit(logits, targets)


# ------------------------------------------------------------------------------- what calibration leaves over
def our_refinement(logits, targets):
    curve = temperature.fit(logits, targets)
    wrong = logits.argmax(axis=1) != targets
    return float(recalibration.left_out(logits, targets, curve, wrong).scaled.mean())


def probmetrics_refinement(logits, targets):
    from probmetrics.calibrators import get_calibrator
    from probmetrics.metrics import Metrics, MetricsWithCalibration
    from probmetrics.splitters import CVSplitter

    metric = MetricsWithCalibration(
        Metrics.from_names(["logloss"]),
        get_calibrator("temp-scaling"),
        val_splitter=CVSplitter(n_cv=5),
        cal_name="ts",
        random_state=0,
    )
    values = metric.compute_all_from_labels_logits(*tensors(logits, targets)[::-1])
    return float(values["refinement_logloss_ts_cv-5"])


# -------------------------------------------------------------------------------------------- recalibration
Probabilities = Callable[[Logits], NDArray[Any]]


def our_recalibration(logits: Logits, targets: Targets) -> Probabilities:
    fitted = calibrate(Checkpoint.from_predictions(Predictions(logits, targets)))
    return lambda values: softmax(fitted.apply(values), axis=1)


def probmetrics_recalibration(name: str) -> Callable[[Logits, Targets], Probabilities]:
    quiet = {f"{name}_print_init_info": False} if name in ("svs", "sms") else {}

    def fit(logits, targets):
        from probmetrics.calibrators import get_calibrator
        from probmetrics.distributions import CategoricalLogits

        values, labels = tensors(logits, targets)
        fitted = get_calibrator(name, **quiet).fit_torch(CategoricalLogits(values), labels)
        return lambda others: (
            fitted.predict_proba_torch(CategoricalLogits(torch.from_numpy(others))).get_probs().numpy()
        )

    return fit


def netcal_vector(logits: Logits, targets: Targets) -> Probabilities:
    from netcal.scaling import LogisticCalibration

    fitted = LogisticCalibration().fit(softmax(logits.astype(np.float64), axis=1), targets)
    return lambda others: fitted.transform(softmax(others.astype(np.float64), axis=1))


def sklearn_recalibration(method: str) -> Callable[[Logits, Targets], Probabilities]:
    return lambda logits, targets: _sklearn(logits, targets, method).predict_proba


#: By name: fit to logits and targets, and return the function that recalibrates others.
RECALIBRATIONS = {
    "confshift `calibrate`": our_recalibration,
    "probmetrics `svs`": probmetrics_recalibration("svs"),
    "probmetrics `sms`": probmetrics_recalibration("sms"),
    "probmetrics `temp-scaling`": probmetrics_recalibration("temp-scaling"),
    "netcal `LogisticCalibration`": netcal_vector,
    "scikit-learn, temperature": sklearn_recalibration("temperature"),
    "scikit-learn, sigmoid": sklearn_recalibration("sigmoid"),
    "scikit-learn, isotonic": sklearn_recalibration("isotonic"),
}
#: Takes 37 seconds at 5,000 samples and 100 classes.
SLOW = {"netcal `LogisticCalibration`": 10}

_SMOOTH = (
    "smoothing moves gaps and makes none larger, so where a model is overconfident throughout, the error is "
    "its mean confidence less its accuracy: confshift's number. Theirs is larger where many confidences are "
    "near 1, the end of the grid"
)
QUESTIONS = (
    Question(
        "loss of each sample",
        {
            "confshift": lambda logits, targets: float(score(logits, targets).loss.mean()),
            "torch": torch_loss,
            "scipy": scipy_loss,
            "scikit-learn": sklearn_loss,
            "probmetrics": probmetrics_metric("logloss"),
        },
        1e-6,
        "hedge, mistake, confidence, margin, ties and predicted class of each sample, where the others give "
        "one number",
        {"scikit-learn": "it cuts probabilities at the rounding of 1, and with them losses above 36 nats"},
    ),
    Question(
        "ECE in 15 bins",
        {
            "confshift": our_ece,
            "netcal": netcal_ece,
            "torchmetrics": torchmetrics_ece,
            "torchmetrics, batches of 256": torchmetrics_accumulated_ece,
            "probmetrics": probmetrics_metric("ece-15"),
            "relplot": relplot_ece,
        },
        1e-4,  # the edges of torchmetrics' bins are in single precision
        "all of the first row, and the ECE that a calibrated model of these confidences would have",
    ),
    Question(
        "ECE without bins",
        {
            "confshift": our_smooth_ece,
            "relplot": relplot_smooth_ece,
            "probmetrics": probmetrics_metric("smece"),
        },
        1e-4,
        "all of the first row",
        dict.fromkeys(("relplot", "probmetrics"), _SMOOTH),
    ),
    Question(
        "reliability diagram, 15 bins",
        {"confshift": our_reliability, "scikit-learn": sklearn_reliability},
        1e-6,
        "all of the first row, and an interval of each bin",
    ),
    Question(
        "isotonic reliability curve",
        {"confshift": our_isotonic, "scikit-learn": sklearn_isotonic},
        1e-5,  # a steep stretch between two corners shows the rounding of confidences
        "all of the first row",
    ),
    Question(
        "temperature",
        {
            "confshift": our_temperature,
            "LBFGS as usually copied": lbfgs_recipe,
            "LBFGS with line search": lbfgs_line_search,
            "scipy, bounded": scipy_temperature,
            "probmetrics": probmetrics_temperature,
            "scikit-learn": sklearn_temperature,
            "netcal": netcal_temperature,
        },
        1e-6,
        "the loss of each sample as a function of the temperature",
        {"LBFGS as usually copied": "its 50 steps end before the optimum"},
        lambda scale, logits, targets: mean_loss(logits, targets, scale),
    ),
    Question(
        "loss at the best temperature, of samples it was not fitted to",
        {"confshift": our_refinement, "probmetrics": probmetrics_refinement},
        2e-4,
        "the same with a bias for each class beside the temperature; both sample by sample, each left out "
        "for itself",
        {"probmetrics": "it leaves out fifths, drawn at random, and confshift each sample for itself"},
    ),
)
