"""What is removed from a run folder: what nothing refers to, and no file of anybody else's."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner
from stored_runs import another_process, failure, litter, names, predictions, stored_logits

from confshift import Run
from confshift.cli import main
from confshift.storage import files
from confshift.storage.cleaning import repair

UNIQUE = "0" * 32
LITTER = {
    f"run-{UNIQUE}.tmp": "a draft",
    f"class_names-{UNIQUE}.tmp": "a draft",
    "run.json.claim": "a draft",
    f"val/000009-{UNIQUE}.tmp": "a draft",
    "val/000009.json.claim": "a draft",
    f"val/000009-{UNIQUE}.logits.npy": "no record names it",
    f"val/000009-{UNIQUE}.columns.npy": "no record names it",
    f"train/000001-{UNIQUE}.columns.npy": "no record names it",
}


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run")
    for epoch in (1, 2):
        run.append(predictions(epoch), epoch=epoch)
    run.flush()
    return another_process(run.path)


@pytest.fixture
def littered(run):
    (run.path / "train").mkdir()
    for name in LITTER:
        (run.path / name).write_bytes(b"x")
    return run


def repaired(run, **more):
    return {
        str(one.path.relative_to(run.path)): (one.removed, one.reason)
        for one in repair(another_process(run.path)._writer.run_folder, **more)
    }


def flip(file):
    content = bytearray(file.read_bytes())
    content[-20] ^= 4
    file.write_bytes(content)


class TestRepair:
    def test_litter_goes_and_all_that_loads_stays(self, run, littered):
        clean, kept = set(names(run.path)) - set(LITTER), stored_logits(run.path)
        found = repaired(littered)
        assert {name: reason[: len(LITTER[name])] for name, (_, reason) in found.items()} == LITTER
        assert all(removed for removed, _ in found.values())
        assert set(names(run.path)) - {files.LOCK} == clean - {files.LOCK}
        assert {epoch: one.tobytes() for epoch, one in stored_logits(run.path).items()} == {
            epoch: one.tobytes() for epoch, one in kept.items()
        }
        assert repaired(littered) == {}

    def test_a_dry_run_says_the_same_and_removes_nothing(self, littered):
        before = names(littered.path)
        found = repaired(littered, dry_run=True)
        assert names(littered.path) == before
        assert repaired(littered) == found

    def test_the_lock_of_a_process_goes_once_it_has_ended(self, run):
        (run.path / ".writer-0123456789abcdef.lock").touch()
        run.append(predictions(3), epoch=3)
        run.flush()
        found = {one.path.name: one for one in repair(run._writer.run_folder)}
        (living,) = run.path.glob(".writer-*")
        assert not found[living.name].removed
        assert "still running" in found[living.name].reason
        assert ".writer-0123456789abcdef.lock" not in found  # the save has removed it
        run._writer.lose_sign()
        assert {one.path.name: one.removed for one in repair(run._writer.run_folder)}[living.name]

    def test_an_older_record_of_an_epoch_goes_with_its_files(self, run):
        shutil.copytree(run.path, run.path.parent / "before")
        run.append(predictions(7), epoch=2)
        run.flush()
        for file in (run.path.parent / "before" / "val").iterdir():  # as after a crash before the removal
            shutil.copy(file, run.path / "val")
        assert litter(run.path) != []
        found = repaired(run)
        assert found["val/000002.json"] == (True, "epoch 2 was replaced by 000003.json")
        assert len(found) == 3
        assert litter(run.path) == []
        assert stored_logits(run.path)[2].tobytes() == predictions(7).logits.tobytes()

    def test_an_older_record_stays_where_the_newer_one_is_damaged(self, run):
        shutil.copytree(run.path, run.path.parent / "before")
        run.append(predictions(7), epoch=2)
        run.flush()
        for file in (run.path.parent / "before" / "val").iterdir():
            shutil.copy(file, run.path / "val")
        flip(next(run.path.glob("val/000003-*.columns.npy")))
        found = repaired(run)
        assert [removed for removed, _ in found.values()] == [False]
        assert "does not match its checksum" in found["val/000003.json"][1]
        assert (run.path / "val" / "000002.json").exists()

    def test_data_that_an_unreadable_record_may_name_stays(self, littered):
        flip(littered.path / "val" / "000001.json")
        found = repaired(littered)
        assert not found["val/000001.json"][0]
        unnamed = {name: one for name, one in found.items() if "val/" in name and name.endswith(".npy")}
        assert len(unnamed) == 4  # its own two and the litter
        assert set(unnamed.values()) == {(False, "000001.json can't be read and may need it")}
        assert found[f"val/000009-{UNIQUE}.tmp"][0]  # a draft is nobody's
        flip(littered.path / "val" / "000001.json")
        assert set(stored_logits(littered.path)) == {1, 2}

    def test_files_of_others_stay(self, run):
        others = [run.path / "page.html", run.path / "val" / "notes.txt", run.path / "mine" / "000001.json"]
        (run.path / "mine").mkdir()
        for file in others:
            file.write_text("{}")
        assert repaired(run) == {"val/notes.txt": (False, "not a file of a run")}
        assert all(file.exists() for file in others)

    def test_the_draft_of_a_page_goes_unless_a_report_is_at_it(self, run):
        old, new, other = (run.path / f".confshift-page-{digit * 32}.tmp" for digit in "012")
        for file in (old, new):
            file.write_text("")
        other.symlink_to(new)
        with new.open("rb") as stream, files.hold_lock(stream.fileno(), wait=True):
            assert repaired(run) == {
                old.name: (True, "a draft of a page"),
                new.name: (False, "a page is being written"),
            }
        assert [file.is_symlink() or file.exists() for file in (old, new, other)] == [False, True, True]

    def test_a_run_that_is_being_saved_to_is_refused(self, littered):
        with files.lock(littered.path, exclusive=False):
            assert "another process is saving" in failure(repaired, littered)
        assert (littered.path / f"run-{UNIQUE}.tmp").exists()

    @pytest.mark.parametrize("has_locks", [True, False])
    def test_without_locks_it_is_refused(self, littered, monkeypatch, has_locks):
        monkeypatch.setattr(files, "HAS_LOCKS", has_locks)
        if not has_locks:
            assert "can't tell whether" in failure(repaired, littered)
        else:
            assert len(repaired(littered)) == len(LITTER)

    def test_a_file_that_cant_be_removed_is_left_and_said_to_be(self, littered, monkeypatch):
        disk = files.Disk()

        def refuse(path):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(disk, "unlink", refuse)
        monkeypatch.setattr(files, "DISK", disk)
        found = repaired(littered)
        assert {removed for removed, _ in found.values()} == {False}
        assert all("can't be removed: Permission denied" in reason for _, reason in found.values())

    def test_what_is_not_a_run_is_refused(self, tmp_path):
        assert "there is no run" in failure(lambda: repair(Run(tmp_path / "none")._writer.run_folder))

    def test_with_damaged_class_names_it_works_all_the_same(self, littered):
        flip(littered.path / "run.json")
        assert all(removed for removed, _ in repaired(littered).values())


class TestRepairOnTheCommandLine:
    def test_it_prints_what_was_removed_and_what_was_left(self, littered):
        (littered.path / "val" / "notes\x1b.txt").write_text("")
        first = CliRunner().invoke(main, ["repair", str(littered.path), "--dry-run"])
        assert first.exit_code == 0
        assert (
            f"would remove val/000009-{UNIQUE}.tmp: a draft of a save that was never finished\n"
            in first.output
        )
        assert "left val/notes\\x1b.txt: not a file of a run\n" in first.output
        assert first.output.endswith("would remove 8 files, left 1\n")
        second = CliRunner().invoke(main, ["repair", str(littered.path)])
        assert second.output == first.output.replace("would remove", "removed")
        assert (
            CliRunner()
            .invoke(main, ["repair", str(littered.path)])
            .output.endswith("removed 0 files, left 1\n")
        )

    def test_json_has_a_row_for_each_file(self, littered):
        done = CliRunner().invoke(main, ["repair", str(littered.path), "--json"])
        found = json.loads(done.output)
        assert not found["dry_run"]
        assert {one["file"] for one in found["files"]} == set(LITTER)

    def test_a_folder_that_is_not_a_run_is_wrong_usage(self, tmp_path):
        done = CliRunner().invoke(main, ["repair", str(tmp_path)])
        assert done.exit_code == 2
        assert "is not a run" in done.output


class TestDelete:
    def test_files_of_the_users_own_stay_whatever_they_are_called(self, run):
        own = [
            run.path / "annotations" / "000001.json",
            run.path / "val" / "000777.json",
            run.path / "val" / "notes.json",
            run.path / "notes.txt",
        ]
        own[0].parent.mkdir()
        for file in own:
            file.write_text('{"boxes": []}')
        run.delete()
        assert names(run.path) == sorted(str(file.relative_to(run.path)) for file in own)

    def test_a_link_with_the_name_of_a_record_stays(self, run, tmp_path):
        (tmp_path / "elsewhere.json").write_bytes((run.path / "val" / "000001.json").read_bytes())
        (run.path / "val" / "000777.json").symlink_to(tmp_path / "elsewhere.json")
        run.delete()
        assert [path.name for path in run.path.rglob("*")] == ["val", "000777.json"]

    @pytest.mark.parametrize(
        "damage",
        [lambda raw: raw[:-30], lambda raw: b"?" + raw[1:], lambda raw: raw.replace(b"epoch", b"epocH")],
    )
    def test_a_damaged_record_goes_too(self, run, damage):
        for file in [run.path / "run.json", *run.path.glob("val/*.json")]:
            file.write_bytes(damage(file.read_bytes()))
        another_process(run.path).delete()
        assert not run.path.exists()

    def test_a_split_that_cant_be_read_is_refused_before_anything_goes(self, run, monkeypatch):
        (run.path / "zoo").mkdir()
        before, real = names(run.path), files.DISK.names

        def denied(path):
            if path.name == "zoo":
                raise PermissionError(13, "Permission denied")
            return real(path)

        with monkeypatch.context() as patch:
            patch.setattr(files.DISK, "names", denied)
            assert "Permission denied" in failure(run.delete)
        assert set(names(run.path)) == {*before, os.fspath(files.LOCK)}
