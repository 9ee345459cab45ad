"""Where a page is written: through links, into pipes, in place of files; and what a killed process leaves."""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
import warnings
from pathlib import Path

import pytest

from confshift.errors import ConfshiftError
from confshift.storage import files, saving
from confshift.storage.files import DISK
from confshift.storage.saving import is_stdout, save_file

STEPS = ("create", "write", "make_like", "sync", "close", "rename")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


# ----------------------------------------------------------------------------------------- kinds of paths
@pytest.mark.parametrize("links", [1, 3])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, links):
    page = tmp_path / "there" / "page.html"
    page.parent.mkdir()
    page.write_bytes(b"old")
    link = page
    for number in range(links):
        (tmp_path / f"link{number}").symlink_to(link)
        link = tmp_path / f"link{number}"
    save_file(link, b"new")
    assert link.is_symlink()
    assert page.read_bytes() == b"new"
    assert names(page.parent) == ["page.html"]


def test_a_relative_link_to_nothing_in_another_folder_is_followed_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pages").mkdir()
    Path("pages/latest.html").symlink_to("third.html")
    save_file("pages/latest.html", b"new")
    assert Path("pages/third.html").read_bytes() == b"new"
    assert names(tmp_path) == ["pages"]
    assert Path("pages/latest.html").is_symlink()


def test_a_circle_of_links_is_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(ConfshiftError, match=r"symbolic links; give a file that is not a circle of links"):
        save_file(tmp_path / "a", b"new")
    assert names(tmp_path) == ["a", "b"]


def test_a_link_that_changes_meanwhile_is_not_followed_elsewhere(tmp_path, monkeypatch):
    page, other = tmp_path / "page.html", tmp_path / "other"
    page.write_bytes(b"old")
    other.write_bytes(b"of others")
    monkeypatch.setattr(os.path, "realpath", lambda path: str(other))
    with pytest.raises(ConfshiftError, match="it changes all the time"):
        save_file(page, b"new")
    assert (page.read_bytes(), other.read_bytes()) == (b"old", b"of others")


def test_a_pipe_stays_a_pipe_and_its_reader_gets_the_page(tmp_path):
    pipe, content, got = tmp_path / "pipe.html", os.urandom(200_000), []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    save_file(pipe, content)
    reader.join()
    assert got == [content]
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe.html"]


def test_a_device_stays_a_device():
    save_file("/dev/null", b"new")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has such a device")
def test_a_device_that_takes_nothing_is_an_error_that_says_why():
    with pytest.raises(ConfshiftError, match="No space left on device; give a file on a disk with"):
        save_file("/dev/full", b"new")


def test_what_is_printed_after_a_page_to_stdout_comes_after_it(tmp_path, monkeypatch):
    redirected = tmp_path / "out"
    with redirected.open("wb", buffering=0) as stdout:
        monkeypatch.setattr(saving, "_STANDARD", (stdout.fileno(),))
        stdout.write(b"before,")
        save_file(redirected, b"page,")
        stdout.write(b"after")
    assert redirected.read_bytes() == b"before,page,after"


def test_only_what_stdout_goes_to_is_stdout(tmp_path):
    (tmp_path / "file").write_text("")
    assert is_stdout("/dev/fd/1")
    assert not is_stdout(tmp_path / "file")
    assert not is_stdout(tmp_path / "missing")
    assert not is_stdout("a\0b")


def test_a_page_and_findings_for_nobody_do_not_meet(monkeypatch):
    null = os.stat("/dev/null")  # noqa: PTH116
    monkeypatch.setattr(os, "fstat", lambda _: null)
    assert not is_stdout("/dev/null")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o777])
def test_a_page_keeps_its_permissions(tmp_path, mode):
    page = tmp_path / "page.html"
    page.write_bytes(b"old")
    page.chmod(mode)
    save_file(page, b"new")
    assert (page.read_bytes(), mode_of(page)) == (b"new", mode)


def test_a_new_page_has_the_permissions_of_any_new_file(tmp_path):
    save_file(tmp_path / "page.html", b"new")
    (tmp_path / "other").write_bytes(b"")
    assert mode_of(tmp_path / "page.html") == mode_of(tmp_path / "other")


def test_a_page_that_only_its_owner_may_read_is_never_open_to_others_in_between(tmp_path, monkeypatch):
    page, seen = tmp_path / "page.html", []
    page.write_bytes(b"old")
    page.chmod(0o600)
    monkeypatch.setattr(DISK, "write", lambda one, piece: seen.append(os.fstat(one).st_mode & 0o777))
    save_file(page, b"new")
    assert seen == [0o600]


@pytest.mark.parametrize("length", [1, 224, 250, 255])
def test_a_name_of_any_length_that_the_disk_takes_can_be_written(tmp_path, length):
    page = tmp_path / ("x" * length)
    for content in (b"old", b"new"):
        save_file(page, content)
        assert page.read_bytes() == content
    assert names(tmp_path) == [page.name]


def test_a_name_that_is_not_unicode_can_be_written(tmp_path):
    page = tmp_path / os.fsdecode(b"p\xff\xfe.html")
    save_file(page, b"new")
    assert page.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing/page.html", "No such file or directory; give a file in a folder that exists"),
        ("file/page.html", "Not a directory; give a file in a folder that exists"),
        ("folder", "Is a directory; give the name of a file, not of a folder"),
        ("", "Is a directory; give the name of a file, not of a folder"),
        ("x" * 256, "File name too long; give a shorter name"),
        ("a\0b", "null"),
    ],
)
def test_what_can_not_be_written_is_refused_with_a_remedy_for_it(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    Path("folder").mkdir()
    with pytest.raises(ConfshiftError, match=said):
        save_file(path, b"new")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "give a file that you may write, in a folder that you may write to"),
        (errno.EROFS, "give a file that you may write, in a folder that you may write to"),
        (errno.EDQUOT, "give a file on a disk with space left"),
        (errno.EIO, "give another file"),
    ],
)
def test_the_remedy_is_one_for_what_the_system_says(tmp_path, monkeypatch, number, remedy):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(DISK, "create", fail)
    with pytest.raises(ConfshiftError, match=f"can't be written: {os.strerror(number)}; {remedy}"):
        save_file(tmp_path / "page.html", b"new")


# --------------------------------------------------------------------------------------------------- failures
@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_leaves_the_old_page_and_no_draft(tmp_path, monkeypatch, step):
    page = tmp_path / "page.html"
    page.write_bytes(b"old")
    real = getattr(DISK, step)

    def fail(*arguments):
        if step == "close":  # of the draft, not of the page that was looked at
            real(*arguments)
            if len(names(tmp_path)) == 1:
                return
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(DISK, step, fail)
    with pytest.raises(ConfshiftError, match="can't be written: no"):
        save_file(page, b"new")
    assert page.read_bytes() == b"old"
    assert names(tmp_path) == ["page.html"]


def draft_of(page, letter="0"):
    """Return the path of a draft of a page."""
    return page.with_name(f"{saving._draft_prefix(page)}-{letter * 32}.tmp")


def test_a_draft_of_a_killed_report_goes_with_the_next_page_of_that_name(tmp_path):
    page, other = tmp_path / "page.html", tmp_path / "other.html"
    for draft in (draft_of(page), draft_of(page, "1"), draft_of(other)):
        draft.write_bytes(b"part")
    save_file(page, b"new")
    assert names(tmp_path) == sorted([draft_of(other).name, "page.html"])


def test_a_real_kill_leaves_the_old_page_and_the_next_report_removes_the_draft(tmp_path):
    page = tmp_path / "page.html"
    page.write_bytes(b"old")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if not child:
        try:
            DISK.sync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
            save_file(page, b"new")
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(names(tmp_path)) == 2
    assert page.read_bytes() == b"old"
    save_file(page, b"new")
    assert names(tmp_path) == ["page.html"]


def test_a_draft_that_is_being_written_stays(tmp_path):
    page = tmp_path / "page.html"
    draft = draft_of(page)
    with draft.open("wb") as stream, files.hold_lock(stream.fileno(), wait=True):
        save_file(page, b"new")
    assert names(tmp_path) == sorted([draft.name, "page.html"])


def test_what_is_called_like_a_draft_and_is_none_stays(tmp_path):
    page = tmp_path / "page.html"
    os.mkfifo(draft_of(page))
    draft_of(page, "1").mkdir()
    draft_of(page, "2").symlink_to("page.html")
    save_file(page, b"new")
    assert len(names(tmp_path)) == 4


def test_without_locks_a_draft_may_be_alive_and_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "HAS_LOCKS", False)
    page = tmp_path / "page.html"
    draft_of(page).write_bytes(b"part")
    save_file(page, b"new")
    assert names(tmp_path) == sorted([draft_of(page).name, "page.html"])


def test_a_draft_that_is_taken_for_dead_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    create, made = DISK.create, []

    def create_and_lose_the_first(path, mode):
        descriptor = create(path, mode)
        made.append(path)
        if len(made) == 1:
            path.unlink()
        return descriptor

    monkeypatch.setattr(DISK, "create", create_and_lose_the_first)
    save_file(tmp_path / "page.html", b"new")
    assert len(made) == 2
    assert names(tmp_path) == ["page.html"]


def test_many_who_write_one_page_at_once_leave_it_whole(tmp_path):
    page, failures = tmp_path / "page.html", []

    def write(letter):
        try:
            for _ in range(20):
                save_file(page, letter * 10_000)
        except BaseException as error:  # seen below
            failures.append(error)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert page.read_bytes() in {letter * 10_000 for letter in (b"a", b"b", b"c")}
    assert names(tmp_path) == ["page.html"]
