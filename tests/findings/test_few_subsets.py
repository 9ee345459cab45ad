"""Subsets in sentences: named only beyond chance, with amounts that add up."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from test_change import assert_sound, comparison_of

from confshift.analysis.comparison import compare
from confshift.findings.change import about_change
from confshift.findings.diagnosis import diagnose
from confshift.findings.subsets import few_subsets
from confshift.findings.wording import percent

SAMPLES = 2000
SITE = np.random.default_rng(5).choice(list("ABCDE"), SAMPLES)


@pytest.fixture(scope="module")
def logits_of():
    """Return a function that compares logits with larger ones, where some samples' grow most."""
    rng = np.random.default_rng(4)
    targets = rng.integers(0, 4, SAMPLES)
    logits = rng.normal(size=(SAMPLES, 4))
    logits[np.arange(SAMPLES), targets] += 1.5

    def make(worse, factor=3.0, others=1.2, scale=1.5):  # calibrated
        before = scale * logits
        after = np.where(np.asarray(worse)[:, None], factor, others) * before
        return comparison_of(before, after, targets)

    return make


def finding(comparison, **slices):
    return few_subsets(comparison.by(pd.DataFrame(slices)))


def test_a_subset_that_carries_the_rise_is_named_with_amounts_that_add_up(logits_of):
    found = finding(logits_of(SITE == "B", others=1.3), site=SITE, half=np.arange(SAMPLES) % 2)
    row = found.evidence.loc[("site", "B")]
    assert found.verdict == "yes"
    assert re.fullmatch(r"site = B adds [\d.]+ % of the rise", found.answer)
    assert found.next_step == "Look at the samples with site = B first."
    pattern = (
        r"(\d+) samples with site = B, ([\d.]+) % of all, add \+([\d.]+) of the rise of \+([\d.]+) nats: "
        r"their loss rose by ([\d.]+), that of the others by ([\d.]+)\."
    )
    samples, share, added, total, inside, outside = map(float, re.fullmatch(pattern, found.sentence).groups())
    assert samples == row["samples"] == (SITE == "B").sum()
    assert added == pytest.approx(share / 100 * inside, abs=0.006)
    assert total == pytest.approx(share / 100 * inside + (1 - share / 100) * outside, abs=0.01)
    assert "Of 7 subsets by 2 attributes, 7 are judged: those with at least 20 samples" in found.details
    assert_sound([found])


def test_where_the_others_fall_the_amounts_are_nats(logits_of):
    found = finding(logits_of(SITE == "B", factor=6.0, scale=1.0), site=SITE)
    assert re.search(
        r"add \+[\d.]+ nats and the others −[\d.]+: their loss rose .* the others fell", found.sentence
    )
    assert re.fullmatch(r"site = B adds \+[\d.]+ nats, the others −[\d.]+", found.answer)


def test_several_that_stand_out_are_listed(logits_of):
    found = finding(logits_of(SITE == "B"), site=SITE, twin=np.where(SITE == "B", "yes", "no"))
    assert "Other subsets that stand out: twin = yes (+" in found.details
    assert "may share samples" in found.details


def test_random_subsets_are_not_named(logits_of):
    draw = np.random.default_rng(0)
    comparison = logits_of(np.ones(SAMPLES, bool))
    found = finding(comparison, **{f"a{at}": draw.integers(0, 5, SAMPLES) for at in range(10)})
    assert found.verdict in ("no", "cannot tell")
    assert found.answer != found.sentence
    assert found.next_step == ""
    assert_sound([found])


def test_enough_samples_say_that_no_subset_stands_out(logits_of):
    found = finding(logits_of(np.ones(SAMPLES, bool)), half=np.arange(SAMPLES) % 2)
    assert (found.verdict, found.answer) == ("no", "No subset stands out")
    assert found.sentence.startswith("In none of 2 subsets does the loss rise 1.5 times as much as elsewhere")


def test_what_is_beyond_chance_and_no_half_as_much_again_is_not_named():
    rng, targets = np.random.default_rng(0), np.zeros(SAMPLES, int)
    after = 1.5 - 0.1 * (SITE == "B") + rng.normal(0, 0.2, SAMPLES)
    columns = [np.stack([margin, np.zeros(SAMPLES)], axis=1) for margin in (np.full(SAMPLES, 2.0), after)]
    found = finding(comparison_of(*columns, targets), site=SITE, half=rng.integers(0, 2, SAMPLES))
    assert found.evidence.loc[("site", "B"), "p_value"] < 0.001
    assert found.verdict == "no"
    found = finding(comparison_of(*(part[:600] for part in columns), targets[:600]), site=SITE[:600])
    assert found.verdict == "cannot tell"
    assert found.sentence.endswith("whether its loss rose 1.5 times as much as elsewhere is uncertain.")


def test_few_samples_leave_it_open(logits_of):
    found = finding(logits_of(np.ones(SAMPLES, bool)), rare=np.arange(SAMPLES) % 80 == 0)
    assert found.verdict == "cannot tell"
    assert re.search(
        r"rare = (True|False), .* adds \+.* of the rise of \+.* among 2 subsets, that may be chance",
        found.sentence,
    )
    assert_sound([found])


def test_subsets_of_few_samples_or_groups_are_not_judged(logits_of):
    comparison = logits_of(SITE == "B")
    found = finding(comparison, rare=np.arange(SAMPLES) < 19)
    assert (found.verdict, found.answer) == ("not applicable", "The subsets are too small to judge")
    assert "No subset has 20 samples with as many outside it" in found.sentence
    grouped = compare(comparison.before, comparison.after, groups=SITE)
    assert finding(grouped, site=SITE).sentence.startswith("No subset has 20 groups")


def test_a_rise_within_its_error_or_none_names_nothing(logits_of):
    none = finding(logits_of(SITE == "B", factor=1.0, scale=1.0), site=SITE)
    assert none.verdict == "not applicable"
    assert none.sentence == "The loss did not rise."
    slight = finding(logits_of(SITE == "B", factor=4.0, scale=1.0), site=SITE)
    assert slight.verdict == "cannot tell"
    assert "is within its error" in slight.sentence


def test_it_is_asked_only_where_subsets_are_known(logits_of):
    comparison = logits_of(SITE == "B")
    assert "few_subsets" not in {one.code for one in about_change(comparison)}
    by_site = comparison.by(pd.Series(SITE, name="site"))
    assert "few_subsets" in {one.code for one in about_change(by_site)}
    assert {one.code for one in diagnose(comparison, slices=pd.Series(SITE))} == {
        one.code for one in about_change(by_site)
    }


def test_where_classes_have_weights_the_size_of_a_subset_is_said_by_them(logits_of):
    comparison = logits_of(SITE == "B", others=1.3)
    sides, weights = (comparison.before, comparison.after), [1, 2, 3, 4]
    found = few_subsets(compare(*sides, class_weight=weights, slices=pd.Series(SITE, name="site")))
    assert (
        f"{percent(found.evidence.loc[('site', 'B'), 'weight'])} of all by the weights of classes"
        in found.sentence
    )
    assert_sound([found])


def test_names_that_are_long_stay_out_of_the_heading(logits_of):
    long = "the name of a site that nobody would want in a heading of a page"
    found = finding(logits_of(SITE == "B", others=1.3), **{long: np.where(SITE == "B", long, "x")})
    assert re.fullmatch(r"One subset adds [\d.]+ % of the rise", found.answer)
    assert_sound([found])
