"""Predictions from a .npz of another program."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from confshift import ConfshiftError
from confshift.storage import memory, npz
from confshift.storage.npz import read_npz

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
TARGETS = np.array([0, 2])


def saved(folder, **arrays):
    path = folder / "some.npz"
    np.savez(path, **arrays)
    return path


def test_every_known_array_is_taken_and_others_are_not(tmp_path):
    names, ids = np.array(["a", "b", "c"]), np.array(["y", "x"])
    path = saved(tmp_path, logits=LOGITS, targets=TARGETS, sample_ids=ids, class_names=names, epoch=3)
    read = read_npz(path)
    assert read.class_names == ("a", "b", "c")
    assert read.sample_ids.tolist() == ["x", "y"]  # in the order of the ids
    np.testing.assert_array_equal(read.logits, LOGITS[::-1])
    np.testing.assert_array_equal(read.targets, TARGETS[::-1])


def test_groups_and_what_the_rows_are_may_come_with_them(tmp_path):
    rows = {"groups": np.array(["b", "a"]), "task": "tokens", "total_rows": 9}
    read = read_npz(saved(tmp_path, logits=LOGITS, targets=TARGETS, **rows))
    assert (read.groups.tolist(), read.task, read.total_rows) == (["b", "a"], "tokens", 9)
    labels = {"task": "multilabel", "label_names": np.array(["cat", "dog"])}
    assert read_npz(saved(tmp_path, logits=LOGITS[:, :2], targets=[0, 1], **labels)).label_names == (
        "cat",
        "dog",
    )
    with pytest.raises(ConfshiftError, match=r"groups has shape \(3,\)"):
        read_npz(saved(tmp_path, logits=LOGITS, targets=TARGETS, groups=np.arange(3)))


def test_without_ids_and_names_the_order_and_the_index_stand_for_them(tmp_path):
    read = read_npz(saved(tmp_path, logits=LOGITS, targets=TARGETS))
    assert (read.id_source, read.class_names) == ("order", ("0", "1", "2"))


def test_probabilities_are_taken_under_their_own_name_only(tmp_path):
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    read = read_npz(saved(tmp_path, probabilities=shares, targets=TARGETS))
    np.testing.assert_allclose(np.exp(read.logits), shares, rtol=1e-12)
    with pytest.raises(ConfshiftError, match="these are probabilities"):
        read_npz(saved(tmp_path, logits=shares, targets=TARGETS))


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"targets": TARGETS}, "holds targets;"),
        ({"logits": LOGITS, "answers": TARGETS}, "holds logits, answers;"),
        (
            {"logits": LOGITS, "probabilities": LOGITS, "targets": TARGETS},
            "holds logits, probabilities, targets;",
        ),
        ({}, "holds nothing;"),
    ],
)
def test_a_missing_or_ambiguous_array_is_refused_and_what_is_there_is_named(tmp_path, arrays, named):
    with pytest.raises(ConfshiftError, match=named):
        read_npz(saved(tmp_path, **arrays))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["logits", "targets", "class_names"])
def test_a_pickle_in_the_file_is_refused_unopened(tmp_path, name):
    sprung = tmp_path / "sprung"
    path = saved(tmp_path, **{"logits": LOGITS, "targets": TARGETS, name: np.array([Trap(sprung)], object)})
    with pytest.raises(ConfshiftError, match=r"some\.npz can't be read .* without objects"):
        read_npz(path)
    assert not sprung.exists()


def test_a_pickle_under_an_unknown_name_is_not_looked_at(tmp_path):
    sprung = tmp_path / "sprung"
    read_npz(saved(tmp_path, logits=LOGITS, targets=TARGETS, notes=np.array([Trap(sprung)], object)))
    assert not sprung.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x93NUMPY"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "odd.npz"
    path.write_bytes(content)
    with pytest.raises(ConfshiftError, match=r"odd\.npz can't be read"):
        read_npz(path)


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "one.npy", LOGITS)
    with pytest.raises(ConfshiftError, match=r"one\.npy can't be read .* numpy\.savez"):
        read_npz(tmp_path / "one.npy")


def test_a_cut_and_a_damaged_file_are_refused(tmp_path):
    path = saved(tmp_path, logits=np.zeros((200, 3)) - 1, targets=np.zeros(200, int))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfshiftError, match=r"can't be (read|a name)"):
        read_npz(path)
    flipped = bytearray(whole)
    flipped[300] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(ConfshiftError, match=r"can't be (read|a name)"):
        read_npz(path)


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }"
    array = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("logits.npy", array)
        archive.writestr("targets.npy", array)
    with pytest.raises(ConfshiftError, match=r"huge\.npz can't be read"):
        read_npz(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfshiftError, match=r"none\.npz is missing"):
        read_npz(tmp_path / "none.npz")


def npy(header, data=b"", version=b"\x01\x00"):
    """Return the bytes of a .npy file."""
    header += b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + data


def archive(path, members, **more):
    with zipfile.ZipFile(path, "w", **more) as made:
        for name, raw in members.items():
            made.writestr(f"{name}.npy", raw)
    return path


def sound(folder):
    """Return the members of a file that can be read."""
    with zipfile.ZipFile(saved(folder, logits=LOGITS, targets=TARGETS)) as made:
        return {name.removesuffix(".npy"): made.read(name) for name in made.namelist()}


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("logits", npy(b"((((((((((")),
        ("logits", npy(b"\t{\n  'descr'")),
        ("logits", npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", b"\0" * 47)),
        ("logits", npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-2, 3), }", b"\0" * 48)),
        ("logits", npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", b"\0" * 48)),
        ("logits", npy(b"9" * 5000)),
        ("logits", npy(b"[" * 3000)),
        ("logits", npy(b"", version=b"\x09\x00")),
        ("logits", b""),
        ("logits", b"\x80\x04."),
        (
            "sample_ids",
            npy(b"{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }", b"\xff\xff\xff\x7f" * 2),
        ),
        (
            "class_names",
            npy(b"{'descr': '>U1', 'fortran_order': False, 'shape': (3,), }", b"\x7f\xff\xff\xff" * 3),
        ),
    ],
    ids=range(12),
)
@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_an_array_that_numpy_stumbles_over_is_a_file_that_cant_be_read(tmp_path, name, raw):
    path = archive(tmp_path / "odd.npz", {**sound(tmp_path), name: raw})
    with pytest.raises(ConfshiftError, match=r"odd\.npz can't be read"):
        read_npz(path)


@pytest.mark.parametrize("method", [1, 2, 6, 12, 14, 93, 95, 97, 98, 99])
def test_a_compression_that_is_unknown_or_not_what_it_says_is_refused(tmp_path, method):
    path = archive(tmp_path / "odd.npz", sound(tmp_path))
    raw = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = raw.find(sign)
        while at >= 0:
            raw[at + offset : at + offset + 2] = method.to_bytes(2, "little")
            at = raw.find(sign, at + 1)
    path.write_bytes(raw)
    with pytest.raises(ConfshiftError, match=r"can't be (read|a name)"):
        read_npz(path)


@pytest.mark.parametrize("flag", [0x1, 0x20, 0x40, 0x2041])
def test_an_encrypted_or_patched_member_is_refused(tmp_path, flag):
    path = archive(tmp_path / "odd.npz", sound(tmp_path))
    raw = bytearray(path.read_bytes())
    for sign, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(sign)
        while at >= 0:
            raw[at + offset : at + offset + 2] = flag.to_bytes(2, "little")
            at = raw.find(sign, at + 1)
    path.write_bytes(raw)
    with pytest.raises(ConfshiftError, match=r"can't be (read|a name)"):
        read_npz(path)


@pytest.mark.parametrize(("make", "kind"), [(os.mkfifo, "a pipe"), (os.mkdir, "a folder")])
def test_what_is_not_an_ordinary_file_is_refused_and_not_waited_for(tmp_path, make, kind):
    make(tmp_path / "odd.npz")
    with pytest.raises(ConfshiftError, match=f"odd.npz is {kind}, not an ordinary file"):
        read_npz(tmp_path / "odd.npz")


def test_devices_and_names_that_no_disk_takes_are_refused(tmp_path):
    with pytest.raises(ConfshiftError, match="not an ordinary file"):
        read_npz(Path("/dev/zero"))
    (tmp_path / "loop").symlink_to("loop")
    for name in ("a" * 300, "nul\0", "loop"):
        with pytest.raises(ConfshiftError, match=r"can't be (read|a name)"):
            read_npz(tmp_path / name)


def test_a_link_to_a_file_is_that_file(tmp_path):
    path = saved(tmp_path, logits=LOGITS, targets=TARGETS)
    (tmp_path / "link.npz").symlink_to(path)
    np.testing.assert_array_equal(read_npz(tmp_path / "link.npz").logits, LOGITS)


def test_no_message_advises_to_load_objects(tmp_path):
    path = saved(tmp_path, logits=np.array([{}], object), targets=TARGETS)
    with pytest.raises(ConfshiftError, match="Python objects") as caught:
        read_npz(path)
    assert "allow_pickle" not in str(caught.value)


def test_a_bomb_is_refused_by_the_size_it_tells_and_not_unpacked(tmp_path, monkeypatch):
    zeros = npy(b"{'descr': '<f8', 'fortran_order': False, 'shape': (6000000, 2), }", b"\0" * 96_000_000)
    path = archive(tmp_path / "bomb.npz", {"logits": zeros, "targets": b""}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(memory, "free_memory", lambda: 300_000_000)
    monkeypatch.setattr(npz, "_array", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ConfshiftError, match=r"0\.4 GiB of memory, and 0\.3 GiB are free"):
        read_npz(path)


@pytest.mark.parametrize("targets", ["labels", "label_ids", "targets"])
@pytest.mark.parametrize("logits", ["predictions", "logits"])
def test_the_names_that_others_give_the_arrays_are_known(tmp_path, logits, targets):
    z, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 2, 0])
    np.savez(tmp_path / "a.npz", **{logits: z, targets: y})
    found = read_npz(tmp_path / "a.npz")
    assert (found.logits == z).all()
    assert found.targets.tolist() == y.tolist()


def test_a_name_itself_goes_before_what_stands_for_it(tmp_path):
    z, y = np.arange(12.0).reshape(4, 3), np.array([0, 1, 2, 0])
    np.savez(tmp_path / "a.npz", predictions=z.argmax(1), logits=z, labels=y[::-1], targets=y)
    assert read_npz(tmp_path / "a.npz").targets.tolist() == y.tolist()


def test_predicted_classes_are_no_logits(tmp_path):
    np.savez(tmp_path / "a.npz", predictions=np.array([0, 1, 2]), labels=np.array([0, 1, 2]))
    with pytest.raises(ConfshiftError, match="predicted classes"):
        read_npz(tmp_path / "a.npz")
