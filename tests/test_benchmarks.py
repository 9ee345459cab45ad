"""The benchmarks that write docs/benchmarks.md: what they measure and write, without a look at a clock."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import pages
import reports
import reports_page
from checkouts import HERE, Cost, cost_of, environment, sources
from reports import Size

from confshift.scoring import score

LIMITS = {"seconds": 60, "gigabytes": 4}


# --------------------------------------------------------------------------------------- other processes
def test_a_process_is_measured_from_its_own_start():
    held = np.ones(50_000_000)  # 400 MB of this process are not of one that it starts
    small = cost_of(["-c", "pass"], environment(HERE), **LIMITS)
    large = cost_of(["-c", "b = b'x' * 200_000_000"], environment(HERE), **LIMITS)
    assert held.all()
    assert small.peak < 0.1 < 0.2 < large.peak < 0.3
    assert small.cpu > 0
    assert not small.over


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a system without /proc")
@pytest.mark.parametrize(
    ("code", "seconds", "gigabytes", "over"),
    [
        ("while True: pass", 0.5, np.inf, "over 0.5 s"),
        ("b = b'x' * 10**9; import time; time.sleep(60)", np.inf, 0.3, "over 0.3 GB"),
    ],
)
def test_a_process_beyond_a_limit_is_ended_and_that_is_said(code, seconds, gigabytes, over):
    assert cost_of(["-c", code], environment(HERE), seconds=seconds, gigabytes=gigabytes).over == over


def test_a_process_that_fails_ends_the_benchmark_with_what_it_wrote():
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        cost_of(["-c", "1 / 0"], environment(HERE), **LIMITS)


@pytest.mark.parametrize("given", [HERE, HERE.parent])
def test_a_checkout_is_found_by_its_folder(given):
    with sources(given) as found:
        assert found == HERE


@pytest.mark.skipif(not (HERE.parent / ".git").exists(), reason="not a clone")
def test_a_checkout_is_found_by_its_revision():
    with sources("HEAD") as found:
        said = cost_of(
            ["-c", "import confshift, sys; assert sys.argv[1] in confshift.__file__", found],
            environment(found),
            **LIMITS,
        )
    assert not said.over
    assert not found.exists()
    with pytest.raises(SystemExit, match="no-such-revision is no checkout"), sources("no-such-revision"):
        pass


# ----------------------------------------------------------------------------------------------- the runs
@pytest.mark.parametrize("size", [Size(8, 3000, 3), Size(8, 3000, 100), Size(3, 5000, 2)])
def test_the_loss_of_a_run_falls_and_rises_late(size):
    targets = reports.targets_of(size, seed=0)
    scores = [score(reports.logits_at(epoch, size, 0), targets) for epoch in range(size.epochs)]
    losses = [float(one.loss.mean()) for one in scores]
    best = int(np.argmin(losses))
    assert 0 < best < size.epochs - 1
    assert losses[-1] > 1.05 * losses[best]
    assert 0.6 < scores[-1].correct.mean() < 0.97
    assert scores[-1].correct.mean() > scores[0].correct.mean() - 0.02


def test_an_epoch_of_a_run_is_the_same_whenever_it_is_drawn():
    size = Size(3, 40, 5)
    first, again = (reports.logits_at(1, size, seed=3) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, reports.logits_at(1, size, seed=4))


@pytest.mark.parametrize("text", ["3x100", "3x100xmany", "1x100x10", "3x0x10", "3x100x1"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(reports.argparse.ArgumentTypeError, match=text):
        Size.parse(text)


# ----------------------------------------------------------------------------------------------- the table
def test_a_row_says_how_many_times_as_much_each_way_takes():
    costs = {
        **{"other": Cost(10, 11, 2), "same": Cost(5, 6, 1.5), "own": Cost(2.5, 2.6, 1)},
        "again": Cost(1, 1, 1),
    }
    one = {"size": (2, 1000, 10), "command": "report", "costs": {key: asdict(costs[key]) for key in costs}}
    row = reports_page.row(one)
    assert row.startswith("| T = 2, N = 1,000, K = 10 | `report` | 10.0 s, 2.00 GB |")
    assert "| 5.0 s, 1.50 GB: **0.50**, 0.75 |" in row
    assert "| 2.5 s, 1.00 GB: **0.25**, 0.50 | 1.0 s |" in row
    one["costs"]["other"] = asdict(Cost(480, 480, 2, "over 480 s"))
    assert "| over 480 s | 5.0 s, 1.50 GB | 2.5 s" in reports_page.row(one)


def test_a_row_that_is_measured_again_replaces_that_row_alone():
    def measured(seconds, *epochs, **more):
        rows = [{"size": [number, 10, 2], "command": "report", "costs": seconds} for number in epochs]
        return {"machine": "A", "against": "b", "rounds": 1, "rows": rows, "anew": [], **more}

    both = reports.merged(measured(1, 2, 3), measured(5, 3))
    assert [(one["size"][0], one["costs"]) for one in both["rows"]] == [(2, 1), (3, 5)]
    assert reports.merged(None, measured(5, 3)) == measured(5, 3)
    elsewhere = measured(5, 3, machine="another")
    assert reports.merged(measured(1, 2, 3), elsewhere) == elsewhere


def test_the_script_measures_two_checkouts_and_writes_a_table(tmp_path):
    script = [sys.executable, reports.__file__, "--small", "--against", HERE, "--folder", tmp_path]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    machine, blank, *lines = done.stdout.splitlines()
    assert machine.startswith("Measured on ")
    assert not blank
    table, anew = (part.splitlines() for part in "\n".join(lines).split("\n\n"))
    for rows in (table, anew):
        assert len(rows) == 3
        assert len({row.count("|") for row in rows}) == 1
    assert table[2].startswith("| T = 4, N = 150, K = 3 | `diagnose` |")
    assert not list(tmp_path.iterdir())  # runs and pages are removed


def test_what_is_put_between_marks_is_what_stands_there(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        f"# Page\n{pages.begin('one')}old\n{pages.END}between\n{pages.begin('two')}{pages.END}end\n"
    )
    pages.put(page, "two", "\nsecond\n")
    pages.put(page, "one", "first\n")
    text = page.read_text(encoding="utf-8")
    assert [pages.between(text, name) for name in ("one", "two")] == ["first\n", "\nsecond\n"]
    assert text.startswith("# Page\n")
    assert "between\n" in text
    assert text.endswith("end\n")
    with pytest.raises(SystemExit, match="no place for three"):
        pages.put(page, "three", "")


@pytest.mark.skipif("reports" not in pages.kept(), reason="not measured yet")
def test_the_page_is_what_the_script_writes_of_the_results_beside_it():
    text = pages.BENCHMARKS.read_text(encoding="utf-8")
    assert pages.between(text, "reports") == reports_page.page(pages.kept()["reports"])
