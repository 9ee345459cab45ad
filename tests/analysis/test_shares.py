"""Parts of a change, sample by sample, against slow oracles; the error of a share in simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from confshift.analysis.comparison import compare
from confshift.analysis.grouping import second_half
from confshift.analysis.shares import (
    account_terms,
    excess_of,
    handful_of,
    largest_classes,
    part_of_classes,
    part_of_pair,
)
from confshift.analysis.significance import paired_interval
from confshift.predictions import Predictions


def some_comparison(seed=0, samples=240, classes=6, groups=None, growth=1.5):
    random = np.random.default_rng(seed)
    targets = random.integers(0, classes, samples)
    logits = random.normal(size=(samples, classes)) + 2 * np.eye(classes)[targets]
    after = growth * logits + random.normal(size=logits.shape)
    return compare(Predictions(logits, targets), Predictions(after, targets), groups=groups)


@given(arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 5)), st.integers(1, 8), st.data())
def test_halves_share_each_class_and_split_no_group(targets, number, data):
    halves = second_half(targets)
    for label in np.unique(targets):
        assert abs(2 * halves[targets == label].sum() - (targets == label).sum()) <= 1
    codes = data.draw(arrays(np.int64, len(targets), elements=st.integers(0, number)))
    halves = second_half(targets, codes)
    for code in np.unique(codes):
        assert len(set(halves[codes == code])) == 1
    assert abs(2 * len(np.unique(codes[halves])) - len(np.unique(codes))) <= 1


def test_parts_add_up_to_what_the_tables_say():
    comparison = some_comparison()
    classes = comparison.classes["contribution"].sort_values(ascending=False)
    assert part_of_classes(comparison, 2).chosen.mean() == pytest.approx(classes.head(2).sum(), rel=1e-12)
    pairs = comparison.competitors.sort_values("contribution", ascending=False)
    assert part_of_pair(comparison).chosen.mean() == pytest.approx(pairs["contribution"].iloc[0], rel=1e-12)


def test_what_is_held_out_is_chosen_on_the_other_half():
    comparison = some_comparison(3)
    change, second = comparison.samples["change"].to_numpy(), comparison.second_half
    targets = comparison.panel.targets
    classes = part_of_classes(comparison, 1).held_out
    for part, other in ((second, ~second), (~second, second)):
        sums = np.bincount(targets[other], change[other])
        assert np.array_equal(classes[part], np.where(targets[part] == sums.argmax(), change[part], 0.0))


@given(arrays(np.float64, st.integers(1, 400), elements=st.floats(-5, 5, allow_subnormal=False)))
def test_the_samples_that_rose_most_add_up(change):
    number = max(1, round(len(change) / 100))
    top = np.sort(change)[-number:]
    assert handful_of(change).sum() == pytest.approx(top[top > 0].sum(), abs=1e-9)


@pytest.mark.parametrize("right_before", [False, True])
def test_terms_of_the_account_have_its_contributions_and_their_errors(right_before):
    random = np.random.default_rng(5)
    targets = random.integers(0, 4, 400)
    before = random.normal(size=(400, 4)) + (9 if right_before else 1.5) * np.eye(4)[targets]
    after = random.normal(size=(400, 4)) * 2 + 2 * np.eye(4)[targets]
    comparison = compare(Predictions(before, targets), Predictions(after, targets))
    assert (comparison.account.loc["error_rate", "before"] == 0) == right_before
    terms = account_terms(comparison.panel)
    assert terms.mean(axis=1) == pytest.approx(comparison.account["contribution"].to_numpy(), abs=1e-12)
    panel = comparison.panel
    redrawn = []
    for _ in range(400):
        rows = random.integers(0, 400, 400)
        columns = (panel.hedge, ~panel.correct, panel.mistake)
        hedge, wrong, mistake = (column[:, rows].mean(axis=1) for column in columns)
        cost = [mistake[1] / wrong[1] if not wrong[at] else mistake[at] / wrong[at] for at in (0, 1)]
        rate_part = np.mean(cost) * (wrong[1] - wrong[0])
        redrawn.append([hedge[1] - hedge[0], rate_part, mistake[1] - mistake[0] - rate_part])
    errors = terms.std(axis=1, ddof=1) / np.sqrt(400)
    assert errors == pytest.approx(np.std(redrawn, axis=0), rel=0.2, abs=1e-6)


def test_a_share_has_the_error_of_redrawn_samples():
    comparison = some_comparison(1, growth=-1)
    part = part_of_classes(comparison, 2)
    change = comparison.samples["change"].to_numpy()
    random = np.random.default_rng(0)
    rows = random.integers(0, len(change), (2000, len(change)))
    shares = part.chosen[rows].mean(axis=1) / change[rows].mean(axis=1)
    assert excess_of(comparison, part, 0.5).share_se == pytest.approx(shares.std(), rel=0.15)


@pytest.mark.parametrize("samples", [100, 1000])
@pytest.mark.parametrize("noise", ["exponential", "normal", "lognormal"])
def test_a_share_at_its_limit_is_seldom_called_more(samples, noise):
    """One class of five that carries exactly half of the rise; a level of 2.5 % on this side."""
    random = np.random.default_rng(0)
    targets = np.arange(samples) % 5
    halves, mean = second_half(targets), np.where(targets == 0, 0.5, 0.125)
    claims = 0
    for _ in range(500):
        draws = {
            "exponential": lambda: mean * random.exponential(size=samples),
            "normal": lambda: mean + 0.4 * random.normal(size=samples),
            "lognormal": lambda: mean * random.lognormal(-0.5, 1.0, size=samples),
        }[noise]
        change = draws()
        lows = [
            paired_interval(change * (members - 0.5)).low
            for members in largest_classes(change, targets, halves, 1)
        ]
        claims += min(lows) > 0
    assert claims <= 0.05 * 500


def test_classes_chosen_by_noise_carry_less_of_the_other_half():
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(100), 40)
    halves = second_half(targets)
    shares = []
    for _ in range(50):
        change = random.normal(0.05, 1.0, len(targets))
        members = largest_classes(change, targets, halves, 20)
        chosen, held_out = (change[part].sum() / change.sum() for part in members)
        assert chosen > held_out
        shares.append(held_out)
    assert np.mean(shares) == pytest.approx(0.2, abs=0.1)
    change[targets < 10] += 1.0
    assert change[largest_classes(change, targets, halves, 10)[1]].sum() / change.sum() > 0.5


def test_groups_widen_the_interval_of_a_share():
    groups = np.arange(240) // 12
    alone, grouped = some_comparison(), some_comparison(groups=groups)
    for comparison in (alone, grouped):
        assert len(comparison.second_half) == 240
    assert not any(0 < grouped.second_half[groups == group].mean() < 1 for group in range(20))
    change = alone.samples["change"].to_numpy()
    expected = paired_interval(0.5 * change, codes=groups)
    assert grouped.beyond_share(change, 0.5) == expected
