"""report(): makes one HTML file of findings and charts that needs no network."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from confshift.analysis.attributes import Slices
from confshift.analysis.grouping import Groups
from confshift.analysis.history import summarize
from confshift.analysis.objective import ClassWeight, Smoothing
from confshift.analysis.series import Looks
from confshift.errors import ConfshiftError
from confshift.findings.answer import Answer
from confshift.findings.question import Finding
from confshift.reporting.characters import encodable, unbroken
from confshift.reporting.subject import (
    Source,
    Story,
    as_source,
    tell_run,
    tell_two_runs,
    trained_alike,
)
from confshift.reporting.summary import Summary, summary_of
from confshift.reporting.template_context import contents, key_table, sample_contents, sample_limit
from confshift.reporting.thumbnails import Thumbnail
from confshift.reporting.vega import check_drawing, vega_bundle
from confshift.storage.saving import save_file

#: The size limit of a page.
MAX_BYTES = 8_000_000
#: A page holds fewer samples than this one by one at any size.
_FEWEST_SAMPLES = 100
_STYLE = "style.css"
_FIRST_SCRIPT = "colours.js"
_SCRIPTS = ("format.js", "pairs.js", "rows.js", "state.js", "charts.js", "page.js", "follow.js", "app.js")


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """A page about a run.

    Attributes
    ----------
    html : str
        The whole page; one file, no network.
    findings : tuple of Finding
    summary : Summary
        What the page says first, as text and for programs.
    change : DataFrame
        `Comparison.change` of the report's own pair.
    path : Path or None
        The file of the page; None before it is written.
    """

    html: str
    findings: tuple[Finding, ...]
    summary: Summary
    change: pd.DataFrame
    path: Path | None

    @property
    def answer(self) -> Answer:
        """What to do about the run, why, what the numbers leave out, and the steps that follow."""
        return self.summary.answer

    @property
    def verdict(self) -> str:
        """Action, why and remarks of the answer, as one paragraph."""
        return self.answer.text

    def __repr__(self) -> str:
        place = f", {str(self.path)!r}" if self.path else ", not saved"
        return f"Report({len(self.findings)} findings, {len(self.html) / 1e6:.1f} MB{place})"

    def _repr_html_(self) -> str:
        """Show the first lines and the key table in a notebook, without the page itself."""
        problems = [finding for finding in self.findings if finding.severity == "problem"]
        return _render(
            "notebook.html.j2",
            summary=self.summary,
            problems=[finding.answer or finding.title for finding in problems],
            table=key_table(self.change),
            path=self.path,
        )

    def save(self, path: str | os.PathLike[str]) -> Report:
        """Write the page and return the report with its path.

        An ordinary file is replaced once the page is complete, and keeps its permissions. A link stays, and
        the file that it leads to is replaced; a pipe or a device is written to.

        Raises
        ------
        ConfshiftError
            Where the file can't be written.
        """
        save_file(path, self.html.encode("utf-8"))
        return replace(self, path=Path(path))


def report(
    run: Source | str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    other: Source | str | os.PathLike[str] | None = None,
    before: float | None = None,
    after: float | None = None,
    title: str | None = None,
    thumbnail: Thumbnail | None = None,
    looks: Looks = "once",
    groups: Groups | None = None,
    class_weight: ClassWeight = "stored",
    label_smoothing: Smoothing = "stored",
    slices: Slices | None = None,
    reload: float | None = None,
) -> Report:
    """Make the page about a run: the answer first, then the evidence; any two epochs can be compared in it.

    Parameters
    ----------
    run : Run, iterable of Checkpoint, or the path of a run
    path : str or path-like, optional
        The file to write; without it the page is not written.
    other : Run or iterable of Checkpoint, optional
        Another run on the same samples. The page then compares one checkpoint of each, "before" being of
        `run` and "after" of `other`, and no other pair.
    before, after : float, optional
        Epochs that the page compares when it opens; without them those of `History.pair`, of two runs the
        best of each. `after` alone is compared with the best of those before it.
    title : str, optional
        Defaults to the name of the run's folder.
    thumbnail : callable or dataset, optional
        Shows the inputs of the samples that changed most beside their numbers: a function of a sample's id
        that returns an image (PIL, array, tensor) or a text, or a dataset that is indexed by it.
    looks
        As in `diagnose`, for the verdicts on a rise; not with `other`.
    groups
        As in `diagnose`, for the verdicts on a rise and the intervals of a change.
    class_weight, label_smoothing
        As in `summarize`. Of two runs the "stored" ones count where both are trained alike.
    slices
        As in `compare`: the page then has the change by subset.
    reload : float, optional
        Seconds after which the open page reloads itself from its file, for a page that is written anew after
        every epoch. It keeps its place, and waits while the reader is at work on it.

    Returns
    -------
    Report

    Raises
    ------
    ConfshiftError
        Where a run is empty or holds no such epoch, two runs hold different samples, `thumbnail` fails,
        `looks`, `groups`, `class_weight`, `label_smoothing` or `slices` can't be used, or the file can't
        be written.
    """
    if reload is not None and not (isinstance(reload, Real) and 0 < reload < math.inf):
        raise ConfshiftError(f"reload={reload!r}: give seconds, a number above 0, or leave it out")
    check_drawing()
    run, other = as_source(run), None if other is None else as_source(other)
    options: Any = {"title": title, "thumbnail": thumbnail, "slices": slices}
    counting: Any = {"groups": groups, "class_weight": class_weight, "label_smoothing": label_smoothing}
    if other is None:
        history = summarize(run, looks=looks, **counting)
        story = tell_run(run, history, before=before, after=after, **options)
    elif looks != "once":
        raise ConfshiftError(f"looks={looks!r} is about the rise of one run; with other= leave it out")
    else:
        histories = trained_alike(summarize(run, **counting), summarize(other, **counting))
        story = tell_two_runs((run, other), histories, before=before, after=after, **options)
    summary = summary_of(story)
    page = Report(_page(story, reload), summary.findings, summary, story.comparison.change, None)
    return page if path is None else page.save(path)


def _page(story: Story, reload: float | None) -> str:
    """Fill the template; where the page is too large, again with fewer samples."""
    style, *programs = _assets()
    policy = " ".join(map(_script_source, programs))
    content = {
        **contents(story),
        "style": style,
        "first_program": programs[0],
        "programs": programs[1:],
        "script_sources": policy,
        "reload": reload,
    }
    limit = sample_limit(story)
    while True:
        count, samples = sample_contents(story, limit=limit)
        html = story.words.say_page(_render("report.html.j2", **content, **samples))
        if len(html.encode("utf-8")) <= MAX_BYTES or count < _FEWEST_SAMPLES:
            return html
        limit = count * 2 // 3


def _render(name: str, **context: Any) -> str:
    return encodable(_environment().get_template(name).render(**context))


@cache  # it keeps the compiled templates
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("confshift.reporting", "assets"),
        autoescape=True,
        finalize=lambda value: unbroken(value) if type(value) is str else value,  # not code, which is escaped
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = unbroken
    return environment


def _assets() -> tuple[str, str, str, str]:
    """Return the style sheet and the programs of a page: the first, Vega, and the script of the page."""
    folder = files("confshift.reporting") / "assets"
    names = (_STYLE, _FIRST_SCRIPT, *_SCRIPTS)
    style, first, *scripts = ((folder / name).read_text(encoding="utf-8") for name in names)
    strict = ('"use strict";\n' + text for text in (first, "\n".join(scripts)))
    first, script = map(_program, strict)
    return style, first, _program(vega_bundle()), script


def _program(text: str) -> str:
    """Make a program safe inside a script element: nothing in it may end the element. It may wait."""
    safe = text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return f"(async () => {{ {safe}\n}})();"


def _script_source(program: str) -> str:
    """Return the entry of the page's policy that lets this program run, and no other."""
    digest = hashlib.sha256(program.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
