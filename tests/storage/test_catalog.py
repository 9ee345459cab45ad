"""What a run folder holds, whatever has happened to it: damage, links, folders of others, no permission."""

import os
import random
import shutil
from pathlib import Path

import pytest
from stored_runs import another_process, failure, predictions

from confshift import ConfshiftError, Run
from confshift.storage import files, reading, run_folder
from confshift.storage.signed_json import encode

NAMES = ["cat", "dog", "猫"]
GOLDEN = Path(__file__).parent / "golden"


def flip(file, at, bit=0):
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path / "run")
    for epoch in (1, 2):
        run.append(predictions(epoch, class_names=NAMES), epoch=epoch)
    run.flush()
    return another_process(run.path)


class TestDamagedNames:
    def test_any_bit_of_run_json_costs_nothing(self, run):
        file, draw = run.path / "run.json", random.Random(0)
        whole = file.read_bytes()
        for at in range(0, len(whole), 3):
            file.write_bytes(whole)
            flip(file, at, draw.randrange(8))
            look = another_process(run.path)
            assert (look.class_names, look.epochs) == (tuple(NAMES), (1, 2))
            (problem,) = look.problems.to_dict("records")
            assert (problem["file"], problem["kind"]) == ("run.json", "in part")
            assert "another copy of the class names is used" in problem["reason"]

    def test_a_damaged_copy_costs_nothing_but_is_listed(self, run):
        flip(run.path / "class_names.json", 30)
        look = another_process(run.path)
        assert look.class_names == tuple(NAMES)
        assert look.problems["file"].tolist() == ["class_names.json"]
        assert look.verify()["sound"].tolist() == [False, True, True, True, True]

    @pytest.mark.parametrize("put", [os.mkdir, os.mkfifo, lambda file: file.symlink_to("class_names.json")])
    def test_what_cant_be_read_in_the_place_of_run_json_costs_nothing(self, run, put):
        file = run.path / "run.json"
        file.unlink()
        put(file)
        look = another_process(run.path)
        assert (look.class_names, look.epochs) == (tuple(NAMES), (1, 2))
        assert "not an ordinary file" in look.problems["reason"][0]

    def test_a_sector_that_cant_be_read_costs_nothing(self, run, monkeypatch):
        real = Path.open

        def failing(path, mode="r"):
            if path.name == "run.json":
                raise OSError(5, "Input/output error", str(path))
            return real(path, mode)

        monkeypatch.setattr(Path, "open", failing)
        look = another_process(run.path)
        assert (look.class_names, look.epochs) == (tuple(NAMES), (1, 2))
        assert "Input/output error" in look.problems["reason"][0]

    @pytest.mark.parametrize("copy", ["missing", "damaged"])
    def test_without_any_copy_the_records_tell_how_many_classes_there_are(self, run, copy):
        flip(run.path / "run.json", 30)
        if copy == "missing":  # as in a run that an earlier version wrote
            (run.path / "class_names.json").unlink()
        else:
            flip(run.path / "class_names.json", 30)
        look = another_process(run.path)
        assert look.class_names == ("0", "1", "2")
        assert [one.loss for one in look] == [one.loss for one in look.checkpoints()]
        assert look.problems["reason"].str.contains("the classes are called by their numbers").all()

    def test_names_that_come_again_are_kept_again(self, run):
        flip(run.path / "run.json", 30)
        (run.path / "class_names.json").unlink()
        look = another_process(run.path)
        look.append(predictions(3, class_names=NAMES), epoch=3)
        look.flush()
        assert another_process(run.path).class_names == tuple(NAMES)
        assert another_process(run.path).epochs == (1, 2, 3)

    @pytest.mark.parametrize("names", [None, NAMES])
    def test_saving_goes_on_where_both_are_damaged(self, run, names):
        flip(run.path / "run.json", 30)
        flip(run.path / "class_names.json", 30)
        look = another_process(run.path)
        look.append(predictions(3, class_names=names), epoch=3)
        look.flush()
        assert another_process(run.path).epochs == (1, 2, 3)

    def test_other_classes_are_still_refused(self, run):
        flip(run.path / "run.json", 30)
        look = another_process(run.path)
        assert "has 3 classes" in failure(look.append, predictions(3, classes=4), epoch=3)
        other = predictions(3, class_names=["dog", "cat", "猫"])
        assert "class names changed" in failure(look.append, other, epoch=3)

    def test_a_run_of_numbers_keeps_no_copy(self, tmp_path):
        run = Run(tmp_path / "run")
        run.append(predictions(1))
        run.flush()
        assert not (run.path / "class_names.json").exists()

    def test_a_run_without_a_copy_gets_one_with_its_next_checkpoint(self, tmp_path):
        shutil.copytree(GOLDEN / "schema-1", tmp_path / "run")
        run = another_process(tmp_path / "run")
        one = run[2].predictions
        run.append(predictions(1, samples=4, class_names=run.class_names), split="other", epoch=7)
        run.flush()
        assert one.class_names == another_process(run.path).class_names
        flip(run.path / "run.json", 40)
        assert another_process(run.path).class_names == one.class_names

    def test_without_a_readable_record_the_damage_is_the_error(self, run):
        for file in (*run.path.glob("*.json"), *run.path.glob("val/*.json")):
            flip(file, 30)
        assert "run.json is damaged" in failure(lambda: another_process(run.path).epochs)

    def test_a_newer_run_json_is_refused_and_not_taken_for_damaged(self, run):
        newer = encode({"schema": 3, "class_names": NAMES, "versions": {"confshift": "9.8.7"}})
        (run.path / "run.json").write_bytes(newer)
        assert "confshift>=9.8.7" in failure(lambda: run.epochs)

    @pytest.mark.parametrize(
        "names", [["a", "\ud800", "c"], ["a"], [], {"a": 1}, [1, 2, 3], None, ["a", ["b"], "c"]]
    )
    def test_names_that_no_run_has_are_damage(self, run, names):
        (run.path / "run.json").write_bytes(encode({"class_names": names}))
        look = another_process(run.path)
        assert look.class_names == tuple(NAMES)
        assert look.problems["file"].tolist() == ["run.json"]

    def test_a_million_names_for_three_columns_make_every_record_a_problem(self, run):
        (run.path / "run.json").write_bytes(encode({"class_names": ["x"] * 1_000_000}))
        look = another_process(run.path)
        assert (len(look), len(look.problems)) == (0, 2)
        assert "3 columns, and the run has 1000000 classes" in look.problems["reason"][0]


def everything(run):
    """Read a run in every way, as far as it can be read."""
    return len(run), run.problems, list(run), run.splits, run.epochs, run.checkpoints(), run.verify()


class TestOddEntries:
    @pytest.mark.parametrize("target", ["nowhere", "000002.json", "000009.json", "../run.json"])
    def test_a_link_in_place_of_a_record_is_a_problem_and_no_more(self, run, target):
        (run.path / "val" / "000009.json").symlink_to(target)
        everything(run)
        assert run.epochs == (1, 2)
        assert run.problems["file"].tolist() == ["000009.json"]
        run.append(predictions(3, class_names=NAMES), epoch=3)
        run.flush()
        assert run.epochs == (1, 2, 3)

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
    @pytest.mark.parametrize(
        "name", ["val/000009.json", "class_names.json", "val/000001.json.claim", "extra"]
    )
    def test_pipes_and_folders_of_any_name_hold_nothing_up(self, run, make, name):
        place = run.path / name
        place.unlink(missing_ok=True)
        make(place)
        if name == "class_names.json":  # not ordinary, so it is refused where it would be read
            assert run.epochs == (1, 2)
        everything_but_names = len(run), run.epochs, run.splits
        assert everything_but_names == (2, (1, 2), ("val",))

    def test_records_that_are_replaced_all_the_time_are_not_waited_for_for_ever(self, run, monkeypatch):
        looks = []

        def vanishing(path, *, limit):
            looks.append(path)
            raise ConfshiftError("gone")

        monkeypatch.setattr(run_folder, "read_bytes", vanishing)
        monkeypatch.setattr(
            run_folder, "status_of", lambda path: None if path.suffix == ".json" else os.lstat(path)
        )
        assert "changed each time it was read" in failure(run._writer.run_folder.split_folder, "val", 3)

    @pytest.mark.parametrize("name", ["annotations", "notes.d"])
    def test_a_folder_with_files_of_the_users_own_is_not_a_split(self, run, name):
        (run.path / name).mkdir()
        (run.path / name / "000001.json").write_text('{"boxes": []}')
        assert run.splits == ("val",)
        assert run.problems.empty
        assert run.verify()["sound"].all()

    def test_a_split_whose_only_record_is_damaged_is_still_a_split(self, run):
        for file in run.path.glob("val/*.json"):
            file.write_bytes(b"\0" * 100)
        look = another_process(run.path)
        assert look.problems["file"].tolist() == ["000001.json", "000002.json"]


def test_a_name_with_a_nul_is_an_error_of_ours():
    assert "can't name a folder" in failure(Run, "nul\0byte")


@pytest.mark.parametrize("name", ["a" * 300, "x/" * 3000])
def test_a_name_that_no_disk_takes_is_an_error_of_ours(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for look in ("class_names", "problems", "epochs", "splits"):
        with pytest.raises(ConfshiftError, match=r"can't be (read|a name)"):
            getattr(Run(name), look)
    with pytest.raises(ConfshiftError, match=r"can't be (read|a name)"):
        Run(name).exists()


class TestNoPermission:
    """Tests may run as root, whom no mode stops: the system's answer is put in its place."""

    @pytest.fixture
    def denied(self, monkeypatch):
        def deny(folder):
            names, status = files.DISK.names, files.DISK.status

            def names_or_denied(path):
                if path == folder:
                    raise PermissionError(13, "Permission denied", str(path))
                return names(path)

            def status_or_denied(path, **options):
                if folder in path.parents:
                    raise PermissionError(13, "Permission denied", str(path))
                return status(path, **options)

            monkeypatch.setattr(files.DISK, "names", names_or_denied)
            monkeypatch.setattr(files.DISK, "status", status_or_denied)

        return deny

    def test_a_split_that_cant_be_listed_is_a_problem_and_the_others_are_read(self, run, denied):
        run.append(predictions(5, class_names=NAMES), split="train", epoch=1)
        run.flush()
        denied(run.path / "train")
        found = everything(another_process(run.path))
        assert found[0] == 2
        (problem,) = found[1].to_dict("records")
        assert (problem["split"], problem["kind"]) == ("train", "damaged")
        assert "Permission denied" in problem["reason"]

    def test_nothing_is_saved_into_a_split_that_cant_be_listed(self, run, denied):
        denied(run.path / "val")
        assert "Permission denied" in failure(run.append, predictions(9, class_names=NAMES), epoch=9)

    @pytest.mark.parametrize("look", ["class_names", "problems", "epochs", "splits"])
    def test_a_run_that_cant_be_listed_is_an_error_of_ours(self, run, denied, look):
        denied(run.path)
        with pytest.raises(ConfshiftError, match="Permission denied"):
            getattr(run, look)

    def test_a_disk_that_fails_while_a_file_is_read_is_an_error_of_ours(self, run, monkeypatch):
        real = Path.open

        class Failing:
            def __init__(self, stream):
                self.stream = stream

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.stream.close()

            def fileno(self):
                return self.stream.fileno()

            def read(self, *_):
                raise OSError(5, "Input/output error")

        monkeypatch.setattr(Path, "open", lambda path, mode="r": Failing(real(path, mode)))
        file = next(run.path.glob("val/*.columns.npy"))
        with pytest.raises(ConfshiftError, match="Input/output error"):
            reading.read_bytes(file, limit=1 << 20)
