"""The blocks of README.md are run in the order they stand in, in one folder and one namespace.

- ```python blocks are executed.
- ```console blocks: each line `$ confshift ...` is run, and must succeed. Lines that follow it must be its
  output (as in a doctest, `...` stands for anything); other `$` commands (pip, make) are not run.
- ```text blocks are not looked at; no other kind of block is allowed, so none goes unrun by a slip.
- An HTML comment <!-- test: skip --> on the line before a block leaves that block out.
- <!-- test: setup ... --> holds python that a reader need not see (a small model, a loader).
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
PARTS = re.compile(
    r"^<!-- test: setup\n(?P<setup>.*?)^-->"
    r"|(?P<skip>^<!-- test: skip -->\n)?^(?P<fence>```+)(?P<kind>[^\n`]*)\n(?P<body>.*?)^(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Part:
    kind: str
    code: str
    line: int


def parts(text):
    """Return what is to be run, in order."""
    found = []
    for match in PARTS.finditer(text):
        group = "body" if match["setup"] is None else "setup"
        line = text.count("\n", 0, match.start(group))
        kind = "python" if group == "setup" else match["kind"].strip()
        assert kind in ("python", "console", "text"), f"line {line}: a block of kind {kind!r}"
        if kind != "text" and not match["skip"]:
            found.append(Part(kind, match[group], line))
    return found


def commands(code):
    """Return the confshift commands of a console block, each with the output that follows it."""
    found = []
    for shown in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, output = shown.partition("\n")
        words = shlex.split(command, comments=True)
        if words[0] == "confshift":
            found.append((words[1:], output))
    return found


def run_console(code):
    from click.testing import CliRunner

    from confshift.cli import main

    for arguments, expected in commands(code):
        result = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert result.exit_code == 0, f"confshift {shlex.join(arguments)}: {result.output}"
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if expected.strip() and not doctest.OutputChecker().check_output(expected, result.output, flags):
            pytest.fail(f"confshift {shlex.join(arguments)} said\n{result.output}\nnot\n{expected}")


def run(text, name="README.md"):
    namespace = {"__name__": "readme"}
    for part in parts(text):
        if part.kind == "console":
            run_console(part.code)
        else:
            padded = "\n" * part.line + part.code  # a traceback names the line in the file
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(padded, name, "exec"), namespace)
    return namespace


def test_every_block_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(README.read_text(encoding="utf-8"))


def test_blocks_share_a_namespace_and_run_in_order():
    text = (
        "# x\n<!-- test: setup\na = 1\n-->\n```python\nb = a + 1\n```\ntext\n\n```python\nc = [a, b]\n```\n"
    )
    assert run(text)["c"] == [1, 2]


def test_skipped_blocks_and_text_are_left_out():
    text = "<!-- test: skip -->\n```python\n1 / 0\n```\n```text\n2 / 0\n```\n"
    assert parts(text) == []


def test_a_block_of_another_kind_is_refused():
    with pytest.raises(AssertionError, match="line 2: a block of kind 'bash'"):
        parts("hello\n```bash\nconfshift report\n```\n")


def test_a_failing_block_is_named_by_its_line():
    with pytest.raises(ZeroDivisionError) as failure:
        run("one\n\n```python\nx = 0\n1 / x\n```\n")
    assert failure.traceback[-1].lineno == 4  # counted from 0
    assert str(failure.traceback[-1].path).endswith("README.md")


def test_commands_are_taken_with_the_output_that_follows_them():
    code = "$ pip install confshift\n$ confshift report 'runs/a b'  # a page\nwrote ...\n$ confshift --help\n"
    assert commands(code) == [(["report", "runs/a b"], "wrote ...\n"), (["--help"], "")]


def anchors(text):
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_every_link_in_it_leads_somewhere():
    text = README.read_text(encoding="utf-8")
    assert text.count("\n") <= 120, "what is longer is a page of docs/"
    links = re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text)
    assert len(links) > 10
    for file, anchor in links:
        page = README.parent / file
        assert page.is_file(), file
        assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), f"{file}#{anchor}"
