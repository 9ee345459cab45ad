"""What reaches a terminal: no name moves its cursor, none is beyond it; and how commands end."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import sys
import warnings
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

import confshift.cli
from confshift import Predictions, Run
from confshift.cli import main
from confshift.cli.output import clear_endings, remarks_of_the_library
from confshift.errors import ConfshiftError
from confshift.storage import saving

pytestmark = pytest.mark.usefixtures("blank_pictures")

ODD = {"escapes": "a\x1b[2J\nb\u202e", "bytes": os.fsdecode(b"s\xff\xfe")}
COMMANDS = {
    "history": (),
    "diagnose": (),
    "compare": (0, 2),
    "verify": (),
    "repair": (),
    "plot": ("loss", "-o", "loss.svg"),
    "calibrate": (),
}


def call(*arguments):
    """Run a command in this process; an exception that is not an ending fails the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def fill(path, make_logits, checkpoints=3):
    logits, targets = make_logits(40, 3, checkpoints)
    run = Run(path)
    for epoch, z in enumerate(logits):
        run.append(Predictions(z, targets), epoch=epoch)
    run.flush()
    return run


@pytest.fixture(params=ODD)
def odd_run(request, tmp_path, monkeypatch, make_logits):
    """A run in a folder of an odd name, in the working folder; its name."""
    monkeypatch.chdir(tmp_path)
    fill(ODD[request.param], make_logits)
    return ODD[request.param]


def is_clean(text):
    return all(character.isprintable() for line in text.split("\n") for character in line)


# ----------------------------------------------------------------------------------------- names of all kinds
@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_of_any_name_is_read_and_no_name_reaches_the_terminal_as_it_is(odd_run, command):
    result = call(command, odd_run, *COMMANDS[command])
    assert result.exit_code == 0, result.output
    assert is_clean(result.output)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "plot"])
def test_as_json_a_run_of_any_name_comes_back_as_it_is(odd_run, command):
    result = call(command, odd_run, *COMMANDS[command], "--json")
    assert result.exit_code == 0, result.output
    assert is_clean(result.output)
    assert Path(json.loads(result.stdout)["run"]).name == odd_run


def test_the_page_of_a_run_of_any_name_is_utf8_and_shows_it(odd_run):
    result = call("report", odd_run, "--json")
    assert result.exit_code == 0
    assert is_clean(result.output)
    assert json.loads(result.stdout)["page"] == f"{odd_run}.html"
    page = Path(f"{odd_run}.html").read_bytes().decode("utf-8")
    assert os.fsencode(odd_run).decode(errors="replace") in page


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_a_character_gets_the_rest(odd_run, monkeypatch, encoding):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    with monkeypatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        assert main(["compare", odd_run, "0", "2"], standalone_mode=False) is None
    printed = streams["stdout"].detach().getvalue().decode(encoding)
    assert is_clean(printed)
    assert "accuracy" in printed
    assert ("−" in printed) == (encoding == "utf-8")
    assert ("\\u2212" in printed) == (encoding != "utf-8")


def test_add_says_what_it_added_in_one_line(odd_run, make_logits):
    logits, targets = make_logits(40, 3, 1)
    file = f"{odd_run}.npz"
    with Path(file).open("wb") as stream:
        np.savez(stream, logits=logits[0], targets=targets)
    added = call("add", odd_run, file, "--epoch", 3)
    assert added.stdout.count("\n") == 1
    assert is_clean(added.stdout)
    again = call("add", odd_run, file, "--epoch", 4, "--split", odd_run)
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)
    assert is_clean(again.output)


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", "{}"),
        ("report", "{}/nowhere"),
        ("report", "r", "-o", "{}/page.html"),
        ("plot", "r", "loss", "-o", "{}/a.svg"),
        ("plot", "r", "{}"),
        ("compare", "r", "0", "{}"),
        ("compare", "r", "0", "1", "--split", "{}"),
        ("diagnose", "r", "--fail-on", "{}"),
        ("diagnose", "r", "--looks", "{}"),
        ("add", "r", "{}.npz", "--epoch", "1"),
        ("report", "r", "r", "{}"),
        ("history", "--{}"),
        ("{}",),
        ("--{}",),
        ("demo", "-o", "file/{}/page.html"),
    ],
)
@pytest.mark.parametrize("name", ODD)
def test_an_error_repeats_what_was_given_without_its_effects(
    tmp_path, monkeypatch, make_logits, arguments, name
):
    monkeypatch.chdir(tmp_path)
    fill("r", make_logits, 1)
    Path("file").write_text("")
    result = call(*(argument.format(ODD[name]) for argument in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert is_clean(result.stderr)
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_what_the_library_warns_of_is_a_remark(capsys):
    with remarks_of_the_library():
        logging.getLogger("confshift").warning("%s was replaced", "a\x1b[2J\n")
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.warn("b\x1b[2J\n", stacklevel=1)
    logging.getLogger("confshift").handlers.clear()
    assert capsys.readouterr().err == "a\\x1b[2J\\n was replaced\nwarning: b\\x1b[2J\\n\n"


def test_nothing_is_printed_past_the_one_place():
    for file in Path(confshift.cli.__file__).parent.glob("*.py"):
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"print", "click.secho", "sys.stdout.write", "sys.stderr.write"}
        assert ("click.echo" in calls) == (file.name == "output.py")


# ---------------------------------------------------------------------------------------------------- endings
def test_without_a_command_the_help_is_shown_as_it_is():
    shown = call().output
    assert "Usage: " in shown
    assert "\\n" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", ""),
        ("report", "r", ""),
        ("report", "r", "-o", ""),
        ("plot", "r", "loss", "-o", ""),
        ("add", "", "file", "--epoch", "1"),
        ("add", "r", "", "--epoch", "1"),
        ("demo", "--run", ""),
        ("demo", "-o", ""),
    ],
)
@pytest.mark.parametrize(("end", "said"), [("", "it is empty"), ("a\0b", "it holds a null character")])
def test_a_path_that_names_nothing_is_refused_and_nothing_is_made(
    tmp_path, monkeypatch, arguments, end, said
):
    monkeypatch.chdir(tmp_path)
    result = call(*(argument or end for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_said_before_the_demo_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("confshift.demo.train", lambda *_, **__: pytest.fail("it trained"))
    Path("file").write_text("")
    assert "the folder file/in can't be made: Not a directory" in call("demo", "-o", "file/in/a.html").stderr


def test_the_demo_does_not_train_for_a_page_that_can_not_be_drawn(tmp_path, monkeypatch):
    def refuse():
        raise ConfshiftError("the charts can't be drawn")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("confshift.demo.train", lambda *_, **__: pytest.fail("it trained"))
    monkeypatch.setattr("confshift.reporting.vega.check_drawing", refuse)
    assert call("demo").stderr == "Error: the charts can't be drawn\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("looks", ["often", "0", "-1", "1.5", "every", "²", "once "])
def test_every_command_refuses_looks_that_mean_nothing(tmp_path, make_logits, looks):
    fill(tmp_path / "r", make_logits, 1)
    for command in ("history", "diagnose", "report"):
        result = call(command, tmp_path / "r", "--looks", looks)
        assert result.exit_code == 2
        assert f"looks={int(looks) if looks == '0' else looks!r}: " in result.stderr


@pytest.mark.parametrize("split", ["", "..", "a/b", ".", "CON", "x" * 65])
def test_a_split_that_can_not_be_one_is_not_looked_for_elsewhere(tmp_path, make_logits, split):
    fill(tmp_path / "r", make_logits, 1)
    result = call("compare", tmp_path / "r", 0, 0, "--split", split)
    assert result.exit_code == 2
    assert f"split={split!r} can't name a folder" in result.stderr


def test_a_reader_of_a_page_who_goes_away_ends_it_quietly(tmp_path, monkeypatch, make_logits):
    fill(tmp_path / "r", make_logits, 1)

    def fail(*_):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(saving, "_write", fail)
    with pytest.raises(BrokenPipeError), clear_endings():
        saving.save_file("page.html", b"")


def test_other_failures_to_write_are_one_line():
    with pytest.raises(click.ClickException, match="can't be written"), clear_endings():
        raise ConfshiftError("path='x' can't be written")


def test_a_page_to_stdout_is_all_that_is_on_stdout(tmp_path, monkeypatch, make_logits):
    fill(tmp_path / "r", make_logits)
    monkeypatch.setattr(saving, "is_stdout", lambda path: path == Path(tmp_path / "page.html"))
    shown = call("report", tmp_path / "r", "-o", tmp_path / "page.html")
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "--all prints every check." in shown.stderr
    usual = call("report", tmp_path / "r", "-o", tmp_path / "other.html")
    assert usual.stdout.splitlines() == shown.stderr.splitlines()[:-1]
