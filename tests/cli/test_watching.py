"""`confshift report --watch`: the page follows the run, from before its first checkpoint to the interrupt."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from confshift import Predictions, Run
from confshift.cli import main, watching

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def meanwhile(monkeypatch):
    """Do one thing at each look at the folder instead of waiting; then interrupt."""

    def schedule(*events):
        rest = list(events)

        def instead_of_sleeping(_):
            if not rest:
                raise KeyboardInterrupt
            rest.pop(0)()

        monkeypatch.setattr(watching.time, "sleep", instead_of_sleeping)

    return schedule


@pytest.fixture
def save(tmp_path, make_logits):
    logits, targets = make_logits(60, 3, 4)

    def save(epoch, split="val"):
        run = Run(tmp_path / "run")
        run.append(Predictions(logits[epoch], targets), epoch=epoch, split=split)
        run.flush()

    return save


def call(*arguments, code=0):
    result = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def nothing():
    pass


def test_it_waits_for_the_run_and_writes_a_page_for_each_checkpoint(tmp_path, meanwhile, save):
    page, seen = tmp_path / "page.html", []

    def look():
        seen.append(page.exists() and "data-reload" in page.read_text(encoding="utf-8"))

    def save_and(epoch, split="val"):
        return lambda: (look(), save(epoch, split))

    meanwhile(nothing, save_and(0, "train"), save_and(0), save_and(1), nothing, save_and(2))
    result = call(tmp_path / "run", "--watch", "-o", page)
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["2 checkpoints", "3 checkpoints", "4 checkpoints"]
    assert seen == [False, False, True, True]
    last = page.read_text(encoding="utf-8")
    assert "data-reload" not in last  # the watch is over
    assert '<option value="2" selected>2</option>' in last


def test_it_asks_after_every_epoch_unless_told_otherwise(tmp_path, meanwhile, save, monkeypatch):
    looks = []
    monkeypatch.setattr(
        "confshift.cli.watching._follow", lambda *_, **options: looks.append(options["looks"])
    )
    for options in ([], ["--looks", "once"], ["--looks", "40"]):
        call(tmp_path / "run", "--watch", *options)
    assert looks == ["every epoch", "once", 40]


def test_a_state_without_a_page_is_waited_out(tmp_path, meanwhile, save):
    save(0)
    meanwhile(lambda: save(1), lambda: save(2), lambda: save(3))
    result = call(tmp_path / "run", "--watch", "--before", "2", "-o", tmp_path / "page.html")
    assert result.stderr.count("page.html was not written: before=2: the run has no such epoch") == 2
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == [
        "3 checkpoints",
        "4 checkpoints",
    ]


def test_where_nothing_was_written_nothing_is(tmp_path, meanwhile):
    meanwhile(nothing)
    assert "wrote" not in call(tmp_path / "none", "--watch", "-o", tmp_path / "page.html").stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("more", [["other"], ["--json"]])
def test_it_follows_one_run_in_lines(tmp_path, more):
    assert "leave out" in call(tmp_path / "run", *more, "--watch", code=2).stderr
