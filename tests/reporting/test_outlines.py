"""Charts compiled in outline and filled in are those compiled for the run; what the user's cache may hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from test_charts import LIMITS, frame

from confshift.findings.wording import Vocabulary
from confshift.reporting import outlines, vega
from confshift.reporting.charts import chart_specs, said_in
from confshift.reporting.outlines import outline_of, vega_charts
from confshift.reporting.vega import compiled
from confshift.storage import user_cache
from confshift.storage.run import Run
from confshift.storage.user_cache import cached_file, keep_file, read_own, write_own
from confshift.tasks import TASKS

USUAL = Vocabulary(TASKS["multiclass"])
TOKENS = Vocabulary(TASKS["tokens"], ("share of the samples",))
#: Names that would break an expression, or look like a part of one.
RUNS = ('A: it\'s "one" </script>', "B: \\ {datum.value} \ud800")
SIGNED = {name: dict.fromkeys(ends, -0.25) for name, ends in LIMITS.items()}
CONTEXTS = {
    "usual": frame(),
    "one epoch": replace(frame(epochs=1, classes=2), marks={}, rise="", not_finite={}),
    "many epochs": replace(frame(90, 9), epochs=[number / 7 for number in range(90)], splits=("a", "b")),
    "other numbers": replace(frame(2, 30), limits=SIGNED, odds_ticks=(0, 2.5, 5, 7.5, 10), splits=()),
    "no limits": replace(
        frame(), limits={name: {} for name in LIMITS}, odds_ticks=(1.5, 3), unit="weighted nats", sides=RUNS
    ),
    "two runs": replace(frame(), runs=RUNS, splits=(), marks={}, rise="", lone=True),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(outlines, "_used", {})
    return tmp_path / "confshift"


@pytest.mark.parametrize(
    ("context", "words"),
    [*((context, USUAL) for context in CONTEXTS.values()), (frame(), TOKENS)],
    ids=[*CONTEXTS, "tokens"],
)
def test_filled_outlines_are_the_charts_compiled_for_the_run(context, words):
    assert vega_charts(context, words) == compiled(said_in(words, chart_specs(context)))


def test_runs_that_differ_in_numbers_and_names_share_an_outline():
    other = replace(
        frame(31, 3),
        odds_ticks=(-9, 0, 3, 6, 9),
        limits={name: {end: value + 1 for end, value in ends.items()} for name, ends in LIMITS.items()},
        splits=["another"],
        rise="another",
        marks={label: f"another {label}" for label in frame().marks},
    )
    assert outline_of(other).context == outline_of(frame()).context
    for different in (frame(41), frame(1), frame(classes=6), frame(classes=13), replace(frame(), rise="")):
        assert outline_of(different).context != outline_of(frame()).context


# ------------------------------------------------------------------------------------------------- the cache
@pytest.fixture
def drawn(monkeypatch):
    """Count how often charts are drawn, in place of drawing them."""
    counted = []
    monkeypatch.setattr(outlines, "chart_specs", lambda context: counted.append(context) or {"loss_near": {}})
    monkeypatch.setattr(outlines, "compiled", lambda specs: specs)
    return counted


def in_a_new_process():
    outlines._used.clear()
    return vega_charts(frame(), USUAL)


def test_an_outline_is_drawn_once(drawn, cache):
    assert in_a_new_process() == vega_charts(frame(), USUAL) == in_a_new_process()
    assert len(drawn) == 1
    (kept,) = cache.iterdir()
    assert kept.name.startswith("charts-")
    assert cache.stat().st_mode & 0o777 == 0o700


def test_what_charts_depend_on_is_part_of_an_outlines_name(drawn, monkeypatch):
    vega_charts(frame(), USUAL)
    vega_charts(frame(), TOKENS)
    monkeypatch.setattr(outlines, "version", lambda name: "another")
    vega_charts(frame(), USUAL)
    monkeypatch.setattr(outlines, "_code", lambda: "another")
    vega_charts(frame(), USUAL)
    assert len(drawn) == 4


def test_only_what_this_user_wrote_is_read(cache, monkeypatch):
    write_own("a", b"content")
    assert read_own("a") == b"content"
    for mode, mode_of_file, is_read in (
        (0o700, 0o666, True),
        (0o755, 0o644, True),
        (0o755, 0o664, False),
        (0o777, 0o600, False),
    ):
        cache.chmod(mode)
        cached_file("a").chmod(mode_of_file)
        assert (read_own("a") is not None) == is_read
    cache.chmod(0o700)
    owner = os.getuid()
    monkeypatch.setattr(user_cache.os, "getuid", lambda: owner + 1)
    assert read_own("a") is None


def test_a_damaged_file_a_link_and_a_folder_are_not_read(cache):
    write_own("a", b"content")
    whole = cached_file("a").read_bytes()
    for damaged in (b"", whole[:-1], whole + b" ", whole.replace(b"c", b"d")):
        cached_file("a").write_bytes(damaged)
        assert read_own("a") is None
    write_own("a", b"content")
    (cache / "b").symlink_to(cache)
    (cache / "c").mkdir()
    assert read_own("b") is read_own("c") is read_own("d") is None


def test_a_page_is_made_where_nothing_can_be_cached(drawn, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", "/\0", "/proc/nowhere"):
        monkeypatch.setattr(user_cache.os, "environ", {"XDG_CACHE_HOME": str(folder)})
        assert in_a_new_process().keys() == {"loss_near"}


# ------------------------------------------------------------------------------- what a command leaves alone
def test_the_command_report_imports_only_what_it_needs(make_run, tmp_path):
    from confshift.reporting.page import report

    run = Run(tmp_path / "run")
    for checkpoint in make_run(60, 3, 3):
        run.append(checkpoint.predictions, epoch=checkpoint.epoch)
    expected = report(run, tmp_path / "first.html")  # leaves the outlines in the cache
    (digest,) = vega._DIGESTS.values()
    keep_file(cached_file(f"vega-{digest}.js"), vega.vega_bundle().encode())  # made in this process before
    code = (
        "import sys\nfrom confshift.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "report", run.path, "-o", tmp_path / "second.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()} | set(done.stderr.split())
    assert {"numpy", "pandas", "jinja2", "vl_convert"} <= loaded
    assert not {"torch", "sklearn", "altair", "jsonschema", "PIL", "tqdm", "scipy.stats"} & loaded
    # Vega numbers the clippings of all that a process draws.
    pages = [
        re.sub(r"clip\d+", "clip", page) for page in ((tmp_path / "second.html").read_text(), expected.html)
    ]
    assert pages[0] == pages[1]
