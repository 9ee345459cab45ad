"""Every system call of a save fails in turn; files are flipped, cut, swapped, forged."""

import errno
import os
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stored_runs import CountingDisk, another_process, failure, litter, names, predictions, stored_logits

from confshift import ConfshiftError, Run
from confshift.storage import arrays, files, signed_json


def outcome(action):
    """Return the ConfshiftError an action ends in; any other passes through."""
    try:
        action()
    except ConfshiftError as error:
        return error
    return None


def save(path, epoch, seed):
    run = another_process(path)
    run.append(predictions(seed), epoch=epoch)
    run.flush()


def same(found, seed):
    return found.tobytes() == predictions(seed).logits.tobytes()


@pytest.fixture
def run(tmp_path):
    save(tmp_path / "run", 1, 1)
    save(tmp_path / "run", 2, 2)
    return another_process(tmp_path / "run")


def calls_of(monkeypatch, action):
    """Return the system calls that an action makes."""
    counting = CountingDisk()
    with monkeypatch.context() as patch:
        patch.setattr(files, "DISK", counting)
        action()
    return counting.calls


@pytest.mark.parametrize(
    ("code", "for_good"), [(errno.ENOSPC, True), (errno.EIO, False)], ids=["full", "EIO once"]
)
@pytest.mark.parametrize("what", ["first", "another", "replacing"])
def test_an_error_at_any_system_call_loses_nothing_and_tears_nothing(
    tmp_path, monkeypatch, what, code, for_good
):
    start = tmp_path / "start"
    if what != "first":
        save(start, 1, 1)
    epoch = 1 if what == "replacing" else 2
    shutil.copytree(start, tmp_path / "counted") if start.exists() else None
    calls = calls_of(monkeypatch, lambda: save(tmp_path / "counted", epoch, 2))
    assert {"create", "write", "sync", "close", "sync_folder", "link", "unlink"} <= set(calls)
    for at in range(len(calls)):
        path, place = tmp_path / str(at), f"{calls[at]} at {at}"
        shutil.copytree(start, path) if start.exists() else None
        with monkeypatch.context() as patch:
            disk = CountingDisk(OSError(code, os.strerror(code)), at, for_good=for_good)
            patch.setattr(files, "DISK", disk)
            writing = another_process(path)
            given = writing.append(predictions(2), epoch=epoch)
            error = outcome(writing.flush)
            if error is not None:
                assert isinstance(error.__cause__, OSError), place
                for part in (f"epoch {epoch} (val)", str(path), os.strerror(code)):
                    assert part in str(error), place
            assert len(given.columns) == 20  # measured all the same
        found = stored_logits(path) if another_process(path).exists() else {}
        assert set(found) <= {1, epoch}, place
        if what == "another":
            assert same(found[1], 1), place
        if what == "replacing":
            assert same(found[1], 2) or (same(found[1], 1) and error is not None), place
        if error is None:
            assert same(found[epoch], 2), place
        save(path, epoch, 2)  # with room again it works
        assert same(stored_logits(path)[epoch], 2), place
        assert litter(path) == [], place


def test_a_full_disk_leaves_no_litter_where_files_can_still_be_removed(run, monkeypatch):
    before = names(run.path)
    with monkeypatch.context() as patch:
        disk = CountingDisk()
        patch.setattr(disk, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
        patch.setattr(files, "DISK", disk)
        run.append(predictions(3), epoch=3)
        assert "No space left" in failure(run.flush)
    assert names(run.path) == before


def test_the_same_content_again_is_acknowledged_only_once_its_name_is_on_the_disk(run, monkeypatch):
    # The save before may have put the record and failed in the sync after it.
    assert "sync_folder" in calls_of(monkeypatch, lambda: save(run.path, 2, 2))


def test_a_limit_on_the_size_of_files_is_an_error_like_any_other(run):
    code = (
        "import resource, sys; sys.path[:0] = [sys.argv[2]]; from stored_runs import *\n"
        "run = Run(sys.argv[1]); run.append(predictions(3), epoch=3)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "run.append(predictions(4, samples=20), epoch=4, metadata={'big': 'x' * 2000})\n"
        "print(failure(run.flush))"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    argv = [sys.executable, "-c", code, run.path, Path(__file__).parent]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert set(stored_logits(run.path)) in ({1, 2}, {1, 2, 3})


class TestGaps:
    @pytest.fixture
    def gap(self, run, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(
                files, "DISK", CountingDisk(OSError(errno.ENOSPC, "No space left"), 3, for_good=True)
            )
            run.append(predictions(3), epoch=3)
            run._writer.wait()
        return run

    def test_the_next_call_raises_it_once_and_has_saved_nothing(self, gap):
        assert "epoch 3 (val) was not saved" in failure(gap.append, predictions(4))
        assert gap.append(predictions(4)).epoch == 4
        gap.flush()
        assert gap.epochs == (1, 2, 4)

    def test_flush_raises_it_once(self, gap):
        assert "No space left" in failure(gap.flush)
        gap.flush()

    def test_reading_goes_on_and_names_the_reason(self, gap):
        assert gap.epochs == (1, 2)
        assert "No space left" in failure(lambda: gap[3])

    def test_a_later_record_tells_of_it(self, gap):
        for look in (gap, None):
            found = (look or another_process(gap.path)).problems
            assert found[["split", "epoch", "kind", "file"]].values.tolist() == [["val", 3.0, "gap", ""]]
            assert "No space left" in found["reason"][0]
            gap.raise_failure() if look is None else failure(gap.raise_failure)
            gap.append(predictions(4), epoch=4)
            gap.flush()

    def test_a_gap_that_was_filled_is_none(self, gap):
        failure(gap.flush)
        gap.append(predictions(3), epoch=3)
        assert gap.problems.empty

    def test_a_record_that_is_replaced_hands_its_gaps_on(self, gap):
        failure(gap.flush)
        for seed in (4, 5):
            gap.append(predictions(seed), epoch=4)
        gap.flush()
        assert another_process(gap.path).problems["epoch"].tolist() == [3]

    def test_what_nobody_was_told_is_logged_at_exit(self, run):
        code = (
            "import errno, logging, sys; sys.path[:0] = [sys.argv[2]]; from stored_runs import *\n"
            "from confshift.storage import files; logging.basicConfig(stream=sys.stdout)\n"
            "files.DISK = CountingDisk(OSError(errno.EIO, 'broken'), 3, for_good=True)\n"
            "Run(sys.argv[1]).append(predictions(3), epoch=3)"
        )
        argv = [sys.executable, "-c", code, run.path, Path(__file__).parent]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        assert "ERROR:confshift" in done.stdout
        assert "epoch 3 (val) was not saved" in done.stdout


class TestDamage:
    def test_every_flipped_bit_and_every_cut_is_found_and_the_rest_stays_usable(self, run):
        draw = random.Random(0)
        files_of_1 = [run.path / "val" / "000001.json", *run.path.glob("val/000001-*.npy")]
        assert len(files_of_1) == 3
        for file in files_of_1:
            whole = file.read_bytes()
            cuts = [whole[:0], whole[:-1], whole + b"\0", whole[: len(whole) // 2]]
            places = [*range(0, 130, 7), *(draw.randrange(len(whole)) for _ in range(40))]
            for place in places:
                flipped = bytearray(whole)
                flipped[place] ^= 1 << draw.randrange(8)
                cuts.append(bytes(flipped))
            for content in cuts:
                file.write_bytes(content)
                look = another_process(run.path)
                report = look.verify()
                assert not report.loc[~report["sound"], "reason"].empty, (file, len(content))
                assert report.loc[~report["sound"], "reason"].str.contains("000001").all()
                assert same(np.array(look[2].predictions.logits), 2)
            file.write_bytes(whole)
        assert another_process(run.path).verify()["sound"].all()

    @pytest.mark.parametrize("ending", ["columns.npy", "json"])
    def test_a_damaged_checkpoint_is_left_out_and_listed(self, run, ending):
        (file,) = run.path.glob(f"val/000001*{ending}")
        content = bytearray(file.read_bytes())
        content[-20] ^= 4
        file.write_bytes(content)
        assert [one.epoch for one in run.checkpoints()] == [one.epoch for one in run] == [2]
        (problem,) = run.problems.to_dict("records")
        assert problem["kind"] == "damaged"
        assert problem["file"] == "000001.json"
        assert file.name in problem["reason"]
        assert run.epochs == (2,)

    def test_damage_names_the_file_and_the_piece(self, tmp_path, monkeypatch):
        monkeypatch.setattr(arrays, "PIECE_BYTES", 100)
        save(tmp_path / "run", 1, 1)
        (file,) = tmp_path.glob("run/val/*.logits.npy")
        content = bytearray(file.read_bytes())
        content[128 + 150] ^= 1
        file.write_bytes(content)
        report = Run(tmp_path / "run").verify()
        (reason,) = report.loc[~report["sound"], "reason"]
        assert file.name in reason
        assert "piece 2 of 3 (bytes 228 to 328)" in reason

    @pytest.mark.parametrize("ending", ["columns.npy", "logits.npy"])
    def test_a_missing_file_is_an_error_that_names_it(self, run, ending):
        (file,) = run.path.glob(f"val/000001-*.{ending}")
        file.unlink()
        assert f"{file.name} is missing" in failure(lambda: run[1])
        assert run.epochs == (2,)

    @pytest.mark.parametrize("ending", ["columns.npy", "logits.npy"])
    def test_swapped_files_are_found(self, run, ending):
        first, second = sorted(run.path.glob(f"val/*.{ending}"))
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
        assert run.verify()["sound"].sum() == 2

    def test_a_damaged_record_keeps_its_files_from_being_tidied_away(self, run):
        file = run.path / "val" / "000001.json"
        whole = file.read_bytes()
        file.write_bytes(whole[:-3])
        save(run.path, 3, 3)
        file.write_bytes(whole)
        assert set(stored_logits(run.path)) == {1, 2, 3}

    def test_what_a_crash_left_is_tidied_away_by_the_next_process_that_saves(self, run):
        left = [
            run.path / "val" / f"000003-{'0' * 32}.logits.npy",
            run.path / "val" / f"000003-{'0' * 32}.tmp",
            run.path / "val" / "000003.json.claim",
            run.path / f"run-{'0' * 32}.tmp",
        ]
        (run.path / "train").mkdir()
        left.append(run.path / "train" / f"000001-{'0' * 32}.columns.npy")
        for file in left:
            file.write_bytes(b"x")
        assert another_process(run.path).problems.empty
        save(run.path, 3, 3)
        assert not any(file.exists() for file in left)
        assert set(stored_logits(run.path)) == {1, 2, 3}


def forge(run, change):
    """Change the record of epoch 1 and sign it anew, as an attacker would."""
    file = run.path / "val" / "000001.json"
    content = signed_json.decode(file.read_bytes(), file)
    change(content)
    file.write_bytes(signed_json.encode(content))


def signed(body):
    """Return a file with a checksum of its own."""
    return signed_json._OPENING + body + signed_json._CLOSING % signed_json._checksum(body)


def in_file(name, value, which="logits"):
    return lambda content: content["shards"][0][which].update({name: value})


class TestForgery:
    @pytest.mark.parametrize(
        "change",
        [
            in_file("name", "../../../../etc/hostname"),
            in_file("name", "/etc/hostname"),
            in_file("name", "000001.json"),
            in_file("dtype", "|O"),
            in_file("dtype", "<f2"),
            in_file("dtype", [["x", "|O"]], "columns"),
            in_file("dtype", [["sample_id", "|S99999"]], "columns"),
            in_file("dtype", [], "columns"),
            in_file("shape", [10**18, 3]),
            in_file("shape", [-1, 3]),
            in_file("shape", [20, 3, 1]),
            in_file("shape", [0], "columns"),
            in_file("shape", [], "columns"),
            in_file("shape", [20.0, 3]),
            in_file("shape", 20),
            in_file("size", 10**18),
            in_file("size", "368"),
            in_file("offset", 0),
            in_file("offset", 10**9),
            in_file("crcs", []),
            in_file("crcs", [True]),
            in_file("more", 1),
            lambda content: content["shards"][0].update(encoding="pickle"),
            lambda content: content["shards"][0].pop("columns"),
            lambda content: content.update(shards=[]),
            lambda content: content.update(shards=content["shards"] * 2),
            lambda content: content.update(shards=None),
            lambda content: content.update(epoch=float("nan")),
            lambda content: content.update(epoch=-1.0),
            lambda content: content.update(epoch="1"),
            lambda content: content.update(beta=None),
            lambda content: content.update(split="train"),
            lambda content: content.update(sequence=7),
            lambda content: content.update(sequence="1"),
            lambda content: content.update(metadata=[1]),
            lambda content: content.update(gaps=[{"a": 1}]),
            lambda content: content.update(surprise=1),
            lambda content: content.pop("fingerprint"),
            lambda content: content.update(schema="1"),
            lambda content: content.update(schema=None),
        ],
        ids=range(40),
    )
    def test_a_forged_record_is_refused_cleanly_and_nothing_is_allocated(self, run, change):
        forge(run, change)
        assert run.epochs == (2,)
        (reason,) = run.problems["reason"]
        assert "000001" in reason
        assert [one.epoch for one in run] == [2]

    def test_a_record_deeper_than_the_stack_is_refused_cleanly(self, run):
        body = b"[" * 100_000 + b"]" * 100_000
        (run.path / "val" / "000001.json").write_bytes(signed(body))
        assert run.epochs == (2,)
        assert len(run.problems) == 1

    def test_a_newer_schema_is_refused_with_the_version_that_reads_it(self, run):
        def change(content):
            content["schema"] = signed_json.SCHEMA + 1
            content["versions"]["confshift"] = "9.8.7"

        forge(run, change)
        (reason,) = run.problems["reason"]
        assert "pip install 'confshift>=9.8.7'" in reason
        assert run.epochs == (2,)

    @pytest.mark.parametrize("name", ["000001.json", "logits", "columns", "run.json", "val"])
    def test_a_symbolic_link_in_a_run_is_refused(self, run, tmp_path, name):
        (file,) = [
            *run.path.glob(name),
            *run.path.glob(f"val/000001-*.{name}.npy"),
            *run.path.glob(f"val/{name}"),
        ]
        file.rename(tmp_path / "outside")
        file.symlink_to(tmp_path / "outside")
        if name == "val":
            assert "symbolic link" in failure(lambda: run.epochs)
            assert "symbolic link" in failure(run.append, predictions(3), epoch=3)
        elif name == "run.json":
            assert run.epochs == (1, 2)
            assert "symbolic link" in run.problems["reason"][0]
        else:
            assert run.epochs == (2,)
            assert "symbolic link" in run.problems["reason"][0]

    @pytest.mark.parametrize("ending", ["columns.npy", "logits.npy"])
    def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(self, run, ending):
        (file,) = run.path.glob(f"val/000001-*.{ending}")
        file.unlink()
        os.mkfifo(file)
        assert run.epochs == (2,)
        assert "not an ordinary file" in run.problems["reason"][0]

    def test_a_record_of_absurd_size_is_refused_unread(self, run):
        with (run.path / "val" / "000001.json").open("r+b") as stream:
            stream.truncate(1 << 40)  # sparse: takes no room
        assert run.epochs == (2,)
        assert "are allowed" in run.problems["reason"][0]
