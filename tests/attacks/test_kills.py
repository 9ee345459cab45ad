"""Fifteen processes killed while they save, short form of tests/benchmarks/attacks.py."""

from kills import kills

from confshift import Run


def test_fifteen_kills_during_saves_lose_and_tear_nothing(tmp_path):
    figures = kills(tmp_path, 15, seed=0)
    assert figures["failures"] == []
    assert figures["tried"] == 15
    assert figures["in a save"] >= 7
    assert figures["acknowledged"] >= 3


def test_a_save_that_is_acknowledged_too_early_would_be_found_out(tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "flush", lambda self: None)
    assert any("is lost" in one or "no run" in one for one in kills(tmp_path, 3, seed=0)["failures"])
