"""How numbers are written in sentences. Nothing here computes: rounding happens at the last moment."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape

import pandas as pd

from confshift.analysis.attributes import Attribute
from confshift.analysis.panel import Panel
from confshift.tasks import TASKS, Nouns

#: A number smaller than this is only the rounding of a sum.
NOTHING = 1e-9
#: A part of a change is written with no more.
_MOST_DECIMALS = 6
#: A small level has so many decimals, unless its change needs more; up to as many help two to add up.
_MOST_OWN_DECIMALS = 4
#: Below this, and above its inverse, a temperature is a bound rather than a fit.
_NO_TEMPERATURE = 1e-3
#: A sentence of a finding has at most this many words.
MOST_WORDS = 40
#: A name is written in a sentence up to so many words and characters.
_NAME_WORDS, _NAME_LENGTH = 3, 30


def nats(value: float) -> str:
    """Write an amount of loss: two decimals, or two significant digits where it is small."""
    if not math.isfinite(value):
        return _unknown(value)
    size = abs(value)
    decimals = 2 if size < 100 else 0
    if NOTHING < size < 0.0995:
        decimals = 1 - math.floor(math.log10(size))
    return ("−" if value < -NOTHING else "") + f"{size:.{decimals}f}"


def _unknown(value: float) -> str:
    return "?" if math.isnan(value) else "∞"


def apart(first: float, second: float) -> tuple[str, str]:
    """Write two amounts of loss with as many more digits as it takes to distinguish them."""
    short = nats(first), nats(second)
    if short[0] != short[1] or not abs(first - second) > NOTHING:
        return short
    decimals = next(count for count in range(2, 12) if f"{first:.{count}f}" != f"{second:.{count}f}")
    return _with(first, decimals), _with(second, decimals)


def _with(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "−")


def levels_and_change(before: float, after: float) -> tuple[str, str, str]:
    """Write two amounts of loss and their difference, with enough digits to add up as they are written.

    The difference has two significant digits, or three where two do not add up; beyond four decimals one.
    It is rounded; of the two amounts, the one that is nearer to its other neighbour gives way where it takes
    that to add up, by less than one unit of the last digit.

    Examples
    --------
    >>> levels_and_change(0.5863, 0.6374)
    ('0.586', '0.637', '+0.051')
    """
    if not math.isfinite(after - before):
        first, second = (nats(value) if math.isfinite(value) else "–" for value in (before, after))
        return first, second, "–"
    own = min(max(_decimals(nats(before)), _decimals(nats(after))), _MOST_OWN_DECIMALS)
    size = _decimals(nats(after - before))
    places = max(own, size if size <= _MOST_OWN_DECIMALS else size - 1)
    more = (places + 1,) if places < _MOST_OWN_DECIMALS else ()
    start, end, change, decimals = _rounded(before, after, (places, *more))
    off, unit = change - (end - start), 10**decimals
    if off * (before * unit - start) <= off * (end - after * unit):
        return _written(start - off, end, decimals)
    return _written(start, end + off, decimals)


def shares_and_change(before: float, after: float) -> tuple[str, str, str]:
    """Write two fractions as percentages, and their difference in points, so that they add up as written.

    Here it is the difference that may be off, for thirds, by less than one unit of the last digit.

    Examples
    --------
    >>> shares_and_change(0.7807, 0.7713)
    ('78.07 %', '77.13 %', '−0.94 points')
    """
    if not math.isfinite(after - before):
        first, second = (percent(value) if math.isfinite(value) else "–" for value in (before, after))
        return first, second, "–"
    decimals = max(1, *(_decimals(percent(value).removesuffix(" %")) for value in (before, after)))
    units = _rounded(100 * before, 100 * after, (decimals, decimals + 1))
    first, second, change = _written(units[0], units[1], units[3])
    return f"{first} %", f"{second} %", f"{change} points"


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _rounded(before: float, after: float, places: Sequence[int]) -> tuple[int, int, int, int]:
    """Round two numbers and their difference to the first decimals that let them add up, else to the last.

    Returns
    -------
    tuple of int
        Both and the difference, in units of the last digit, and the decimals.
    """
    for decimals in places:
        texts = [f"{value:.{decimals}f}" for value in (before, after, after - before)]
        first, second, change = (int(text.replace(".", "")) for text in texts)
        if second - first == change:
            break
    return first, second, change, decimals


def _written(first: int, second: int, decimals: int) -> tuple[str, str, str]:
    texts = [_with(units / 10**decimals, decimals) for units in (first, second, abs(second - first))]
    return texts[0], texts[1], f"{'−' if second < first else '+'}{texts[2]}"


def adding_up(parts: Sequence[float], total: float, decimals: int | None = None) -> list[str]:
    """Write the parts of an amount of loss so that they add up as written, with its decimals or with more.

    What rounding down leaves over goes to the parts nearest to the next digit, so each is less than one unit
    of the last digit from its value.

    Examples
    --------
    >>> adding_up([0.394, 0.035, -0.027, -0.074], 0.328)
    ['+0.39', '+0.04', '−0.03', '−0.07']
    """
    if not all(map(math.isfinite, (*parts, total))):
        return ["–"] * len(parts)
    size = abs(total) if abs(total) > NOTHING else max(map(abs, parts))
    decimals = min(_decimals(nats(size)), _MOST_DECIMALS) if decimals is None else decimals
    units = [part * 10**decimals for part in parts]
    whole = [math.floor(unit) for unit in units]
    missing = round(float(f"{total:.{decimals}f}") * 10**decimals) - sum(whole)
    for place in sorted(range(len(parts)), key=lambda at: whole[at] - units[at])[: max(missing, 0)]:
        whole[place] += 1
    return [f"{unit / 10**decimals:+.{decimals}f}".replace("-", "−") for unit in whole]


def signed(value: float) -> str:
    """Write an amount of loss with its sign."""
    return ("−" if value < -NOTHING else "+") + nats(abs(value))


def percent(share: float) -> str:
    """Write a fraction as a percentage, with enough decimals to distinguish it from 0 and from 100 %."""
    if not math.isfinite(share):
        return _unknown(share)
    decimals, distance = 1, min(abs(share), 1 - abs(share))
    if distance < NOTHING:
        decimals = 0 if abs(share) > 0.5 else 1
    elif distance < 0.001:
        decimals = -math.floor(math.log10(100 * distance))
    return f"{100 * share:.{decimals}f} %".replace("-", "−")


def points(difference: float) -> str:
    """Write a difference of two fractions in percentage points, with its sign."""
    return f"{100 * difference:+.1f} points".replace("-", "−")


def count(number: float, noun: str = "sample") -> str:
    """Write a number of things, 0 as "no samples"."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{f'{number:,.0f}' if number else 'no'} {noun}{'' if number == 1 else plural}"


@dataclass(frozen=True)
class Vocabulary:
    """What the rows of a run and their groups are called.

    Sentences are written about samples, groups and labels. Where they leave confshift, to a reader, they are
    said in these words: once, since in a multi-label task samples are labels, and groups are samples.

    Attributes
    ----------
    nouns : Nouns
    names : tuple of str
        Of classes and runs, and phrases: they stay as they are.
    alone : tuple of str
        Names that stay as they are where they fill a cell of a table, or are the first in a line of one.
    """

    nouns: Nouns
    names: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    @property
    def are_usual(self) -> bool:
        """Whether rows are called samples, and groups groups."""
        return self.nouns == Nouns()

    @cached_property
    def pattern(self) -> str:
        """A regular expression, for Python and for JavaScript: a name, or a word, its noun and its plural.

        It passes over paths, code and the names of files, columns and options.
        """
        whole = [_ALONE.format(name) for name in _with_words(self.alone)]
        return f"({'|'.join([*_with_words(self.names), *whole]) or '(?!)'})|{_WORD}"

    def say(self, text: str) -> str:
        """Return a text in these words."""
        if self.are_usual:
            return text
        return re.sub(self.pattern, lambda match: match[1] or self._noun(match[2], match[3]), text)

    def _noun(self, word: str, plural: str) -> str:
        noun: str = getattr(self.nouns, word.lower())
        return (noun.capitalize() if word[0].isupper() else noun) + plural

    def say_page(self, html: str) -> str:
        """Return a page whose texts are in these words; its scripts and styles are as they were."""
        if self.are_usual:
            return html

        escaped = replace(self, names=_escaped(self.names), alone=_escaped(self.alone))

        def label(attribute: re.Match[str]) -> str:
            return attribute[1] + escaped.say(attribute[2])

        def write(part: re.Match[str]) -> str:
            return escaped.say(part["text"]) if part["text"] else _LABEL.sub(label, part[0])

        return _HTML.sub(write, html)


_WORD = r"(?<![\w/.=-])([Ss]ample|[Gg]roup|[Ll]abel)(s?)(?![\w/=(-]|\.\w| smoothing)"
#: A name that fills a text, or the first column of a table whose columns are two spaces apart.
_ALONE = r"(?<![^\n]){}(?= {{2}}|\n|$)"
_HTML = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>|(?P<text>[^<]+)", re.DOTALL)
_LABEL = re.compile(r'(\b(?:aria-label|title)=")([^"]*)')


def _with_words(names: Iterable[str]) -> list[str]:
    """Return patterns of the names that hold a word to replace, the longest first."""
    found = {name for name in names if re.search(_WORD, name)}
    return list(map(re.escape, sorted(found, key=lambda name: (-len(name), name))))


def _escaped(names: Iterable[str]) -> tuple[str, ...]:
    """Return names as they stand in a page."""
    return tuple(escape(name, quote=False).replace("'", "&#39;").replace('"', "&#34;") for name in names)


def vocabulary_of(panel: Panel, *names: str, attributes: Sequence[Attribute] = ()) -> Vocabulary:
    """Return what the rows of a panel are called; `names` are those of runs, `attributes` name subsets."""
    about = panel.checkpoints[-1].provenance
    subsets = [subset_name(one.name, value) for one in attributes for value in one.values]
    alone = [name for one in attributes for name in (one.name, *one.values)]
    names = (*names, *panel.class_names, *about.label_names, *subsets)
    return Vocabulary(TASKS[about.task], names, tuple(alone))


def rows_in_words(panel: Panel) -> str:
    """Write how many samples a panel has, in how many groups, and of how many they were drawn."""
    total = max(checkpoint.provenance.total_rows for checkpoint in panel.checkpoints)
    groups = "" if panel.codes is None else f" of {count(panel.units, 'group')}"
    return f"{count(len(panel.targets))}{groups}{f', drawn from {total:,}' if total else ''}"


def epoch(value: float) -> str:
    """Write an epoch: 12, 0.25; a step, in full."""
    if math.isnan(value):
        return "?"
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.6g}"


def epoch_argument(value: float) -> str:
    """Write an epoch for code and command lines, with all digits that it takes to find it."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else repr(float(value))


def interval(row: pd.Series) -> str:
    """Write the 95 % interval of a row of a change table, in its unit, with the groups where given."""
    low, high = float(row["change_low"]), float(row["change_high"])
    if math.isnan(low):
        return "no interval"
    name = f"95 % interval{by_groups(row)}"
    if row["unit"] == "fraction":
        return f"{name} {100 * low:+.1f} to {100 * high:+.1f} points".replace("-", "−")
    return f"{name} {signed(low)} to {signed(high)}"


def by_groups(row: pd.Series) -> str:
    """Say how many groups a row of a change table counts; "" where it counts samples."""
    return "" if row["units"] == row["samples"] else f" by {count(row['units'], 'group')}"


def divisor(temperature: float) -> str:
    """Write what logits are divided by; without a best temperature, in which direction the loss falls."""
    if temperature < _NO_TEMPERATURE:
        return "ever smaller numbers"
    return f"{temperature:.2f}" if temperature < 1 / _NO_TEMPERATURE else "ever larger numbers"


def fault_of(temperature: float) -> str:
    """Name what a temperature other than 1 repairs."""
    return "overconfident" if temperature > 1 else "underconfident"


def heading(answer: str, without_names: str) -> str:
    """Return an answer that names classes or causes, or one without where it is too long for a heading."""
    return answer if len(answer.split()) <= 10 and len(answer) <= 70 else without_names


def rose_or_fell(difference: float) -> str:
    """Name the direction of a change."""
    if abs(difference) <= NOTHING:
        return "did not change"
    return "rose" if difference > 0 else "fell"


def fitting(sentences: Iterable[str], most: int = MOST_WORDS) -> tuple[str, str]:
    """Return the sentences that fit into so many words, the first in any case, and those that do not."""
    kept: list[str] = []
    others: list[str] = []
    for sentence in filter(None, sentences):
        words = len(" ".join([*kept, sentence]).split())
        (others if kept and words > most else kept).append(sentence)
    return " ".join(kept), " ".join(others)


def subset_name(attribute: object, value: object) -> str:
    """Name a subset: "site = B"."""
    return f"{short_name(attribute)} = {short_name(value)}"


def short_name(name: object) -> str:
    """Write a name, of a class or a run, with the first of its words where there are many."""
    words = str(name).split()
    text = " ".join(words[:_NAME_WORDS])
    cut = text[:_NAME_LENGTH].rstrip()
    return str(name) if cut == text and len(words) <= _NAME_WORDS else f"{cut}…"
