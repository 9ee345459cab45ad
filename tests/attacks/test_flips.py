"""A hundred and fifty damages of a run's files, short form of tests/benchmarks/attacks.py."""

from flips import flips

from confshift.storage import arrays


def test_no_number_is_made_of_a_damaged_byte(tmp_path):
    figures = flips(tmp_path, 150, seed=1)
    assert figures["failures"] == []
    assert figures["found"] + figures["harmless"] == figures["tried"] == 150
    assert figures["found"] > 100  # a lock file holds nothing, and zeros may overwrite zeros


def test_a_reader_that_compares_no_checksum_would_be_found_out(tmp_path, monkeypatch):
    def trusting(stream, path, stored, into=None):
        stream.read(stored.offset)
        if into is not None:
            stream.readinto(into)

    monkeypatch.setattr(arrays, "_check", trusting)
    assert any("a wrong number" in one for one in flips(tmp_path, 60, seed=1)["failures"])
