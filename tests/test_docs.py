"""The site's sources: generated pages are up to date, every block runs, nothing public is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import confshift
import finding_pages
from confshift.findings.question import VERDICTS, explanations
from test_readme import README, parts, run

DOCS = Path(__file__).parents[1] / "docs"
#: These want the trainers, or dask: tests/integrations runs them.
ELSEWHERE = {"trainers", "workers"}
PAGES = sorted(
    path
    for path in DOCS.rglob("*.md")
    if parts(path.read_text(encoding="utf-8")) and path.stem not in ELSEWHERE
)


@pytest.fixture(scope="module")
def written():
    return finding_pages.pages()


def test_the_pages_of_the_findings_are_what_the_script_writes(written):
    kept = {path.stem: path.read_text(encoding="utf-8") for path in finding_pages.FOLDER.glob("*.md")}
    assert set(kept) == set(written)
    differing = [name for name, text in written.items() if kept[name] != text]
    assert not differing, "run python tests/finding_pages.py, and look at what changed"


def test_each_finding_has_an_example_of_each_answer_or_says_why_none(written):
    for name in set(written) - {"index"}:
        answers = re.findall(r"^### ([a-z ]+): (.*)", written[name], re.MULTILINE)
        assert [verdict for verdict, _ in answers] == list(VERDICTS), name
        never = {(name, verdict) for verdict, answer in answers if answer == "never"}
        assert never == {one for one in finding_pages.NEVER if one[0] == name}


def test_each_question_is_explained(written):
    assert list(explanations()) == [name for name in written if name != "index"]
    for name, text in explanations().items():
        parts = re.findall(r"^\*\*(.+)\.\*\* \S", text, re.MULTILINE)
        assert parts == ["What it asks", "Formula and source", "Thresholds", "What to do"], name
        assert text in written[name]


def test_what_is_said_is_shown_as_it_is():
    assert finding_pages.escaped("a*b_c <x> [y] |") == r"a\*b\_c \<x\> \[y\] \|"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_block_of_the_documents_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setup = parts(README.read_text(encoding="utf-8"))[0]  # a small model and its loaders
    text = path.read_text(encoding="utf-8")
    run(f"<!-- test: setup\n{setup.code}-->\n{text}", path.name)


def test_the_reference_has_every_public_name():
    named = re.findall(r"^::: confshift\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(confshift.__all__)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A built site of two pages, without a fault."""
    monkeypatch.syspath_prepend(str(DOCS / "site"))
    (tmp_path / "style.css").write_text("a { background: url(data:image/png;base64,) }")
    head = '<link rel="stylesheet" href="style.css">'
    (tmp_path / "a.html").write_text(f'{head}<h1 id="x">A</h1><a href="b.html">b</a><a href="https://x.org">')
    (tmp_path / "b.html").write_text('<a href="a.html#x">a</a><a href="#here"></a><p id="here"></p>')
    return tmp_path


def faults(site):
    from site_faults import faults

    return list(faults(site))


def test_a_sound_site_has_no_fault(site):
    assert faults(site) == []


@pytest.mark.parametrize(
    ("html", "fault"),
    [
        ('<a href="c.html">', "b.html links to c.html, which is not there"),
        ('<a href="a.html#y">', "b.html links to a.html#y: that page has no such anchor"),
        ('<img src="c.png">', "b.html links to c.png, which is not there"),
        ('<img src="https://x.org/c.png">', "b.html loads https://x.org/c.png"),
        ('<script src="//x.org/c.js"></script>', "b.html loads //x.org/c.js"),
        ('<link rel="preconnect" href="https://x.org">', "b.html loads https://x.org"),
        ('<pre class="a mermaid">', "b.html loads https://unpkg.com/mermaid"),
        ('<a data-md-component="source">', "b.html loads https://api.github.com"),
        ("<style>@import 'https://x.org/c.css'</style>", "b.html loads https://x.org/c.css"),
    ],
)
def test_a_dead_link_or_a_request_to_another_host_is_found(site, html, fault):
    (site / "b.html").write_text(html)
    assert faults(site) == [fault]


def test_a_request_of_a_style_sheet_is_found(site):
    (site / "style.css").write_text("@font-face { src: url(https://x.org/f.woff2) }")
    assert faults(site) == ["style.css loads https://x.org/f.woff2"]
