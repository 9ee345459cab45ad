"""Vega by way of vl-convert: the script of a page, and where drawing works."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from confshift.errors import ConfshiftError
from confshift.reporting import page, plotting, vega
from confshift.reporting.vega import to_svg, to_vega

SPEC = {
    "data": {"values": [{"name": "a", "value": 1}, {"name": "b", "value": None}]},
    "mark": "bar",
    "encoding": {"x": {"field": "name", "type": "nominal"}, "y": {"field": "value", "type": "quantitative"}},
}
PATIENCE = 60  # seconds until a process that hangs is taken for one


def in_a_fork(work):
    """Do work in a forked process, which must end well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of forks beside threads
        child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    monkeypatch.setattr(vega, "_compilations", {})


@pytest.fixture
def elsewhere(monkeypatch):
    """Count what another process converts."""
    counted, real = [], vega._called_elsewhere

    def count(name, texts, options):
        counted.append(name)
        return real(name, texts, options)

    monkeypatch.setattr(vega, "_called_elsewhere", count)
    monkeypatch.setattr(vega, "_home", os.getpid())  # whoever imported vl-convert before
    return counted


# ------------------------------------------------------------------------------------------------- the script
@pytest.fixture
def made(tmp_path, monkeypatch):
    """Count how often the script is made, by a version whose digest is known."""
    made, script = [], f"// {vega.VEGA_LITE}"

    def make(snippet, *, vl_version):
        made.append(vl_version)
        return f"// {vl_version}"

    maker = SimpleNamespace(javascript_bundle=make, __version__="known")
    monkeypatch.setattr(vega, "_vl_convert", lambda: maker)
    monkeypatch.setattr(vega, "_home", os.getpid())
    monkeypatch.setattr(vega, "_DIGESTS", {"known": hashlib.sha256(script.encode()).hexdigest()})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vega.vega_bundle.cache_clear()
    yield made
    vega.vega_bundle.cache_clear()


def script_of_a_new_process():
    vega.vega_bundle.cache_clear()
    return vega.vega_bundle()


def test_the_script_is_made_once_and_its_copy_is_for_the_user_alone(made, tmp_path):
    assert {vega.vega_bundle(), vega.vega_bundle(), script_of_a_new_process()} == {f"// {vega.VEGA_LITE}"}
    assert made == [vega.VEGA_LITE]
    (copy,) = (tmp_path / "cache" / "confshift").iterdir()
    assert copy.read_text() == f"// {vega.VEGA_LITE}"
    assert copy.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", [b"", b"alert('planted')", b"// 6", b"\xff\xfe", None])
def test_a_copy_that_is_not_the_script_is_never_used(made, tmp_path, planted):
    vega.vega_bundle()
    (copy,) = (tmp_path / "cache" / "confshift").iterdir()
    copy.unlink()
    copy.mkdir() if planted is None else copy.write_bytes(planted)
    assert script_of_a_new_process() == f"// {vega.VEGA_LITE}"
    assert made == [vega.VEGA_LITE] * 2
    script_of_a_new_process()
    assert len(made) == (3 if planted is None else 2)  # the bad copy was replaced; a folder stays


def test_the_script_of_another_version_is_not_kept(made, tmp_path, monkeypatch):
    monkeypatch.setattr(vega, "_DIGESTS", {})
    vega.vega_bundle()
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(vega, "_DIGESTS", {"known": "0" * 64})
    assert script_of_a_new_process() == f"// {vega.VEGA_LITE}"
    assert not (tmp_path / "cache").exists()


def test_the_script_is_made_where_nothing_can_be_kept(made, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", "/\0", "/proc/nowhere"):
        monkeypatch.setattr(vega.os, "environ", {"XDG_CACHE_HOME": str(folder)})
        assert script_of_a_new_process() == f"// {vega.VEGA_LITE}"


def test_the_digest_of_the_present_script_is_known():
    maker = vega._vl_convert()
    script = maker.javascript_bundle(vega._EXPOSE, vl_version=vega.VEGA_LITE)
    assert vega._DIGESTS[maker.__version__] == hashlib.sha256(script.encode()).hexdigest()


def test_the_version_of_the_script_is_that_of_the_specs():
    import altair

    assert altair.SCHEMA_VERSION.startswith(f"v{vega.VEGA_LITE}.")


# --------------------------------------------------------------------------------- where V8 can't be started
def test_another_process_draws_the_same(monkeypatch, elsewhere):
    here = to_vega([SPEC, SPEC]), to_svg([SPEC], {})
    monkeypatch.setattr(vega, "_address_space", lambda: 2**40)
    vega._compilations.clear()
    there = to_vega([SPEC, SPEC]), to_svg([SPEC], {})
    assert here[0] == there[0]
    assert len(here[1][0]) == len(there[1][0])
    assert elsewhere == ["vegalite_to_vega", "vega_to_svg"]


def test_a_process_that_was_forked_after_drawing_can_draw():
    expected = to_vega([SPEC])

    def draw_again():
        assert to_vega([SPEC]) == expected

    in_a_fork(draw_again)


def test_where_other_code_started_it_nobody_knows_whether_its_thread_is_here(monkeypatch, elsewhere):
    to_vega([SPEC])
    assert elsewhere == []
    monkeypatch.setattr(vega, "_home", None)
    vega._compilations.clear()
    to_vega([SPEC])
    assert elsewhere == ["vegalite_to_vega"]


def test_threads_beside_the_main_one_draw_in_processes_of_their_own(elsewhere):
    """Two threads in V8 at once waited for each other for ever."""
    others = [{**SPEC, "width": 100 + number} for number in range(2)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(to_vega, [[spec, SPEC] for spec in others]))
    assert elsewhere == 2 * ["vegalite_to_vega"]
    assert found == [to_vega([spec, SPEC]) for spec in others]
    vega._compilations.clear()
    assert found == [to_vega([spec, SPEC]) for spec in others]


def limit_address_space(hard):
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, hard))


def test_a_limit_that_may_be_lifted_is_lifted_where_it_draws_and_only_there():
    expected = to_vega([SPEC])

    def draw():
        limit_address_space(resource.RLIM_INFINITY)
        assert to_vega([SPEC]) == expected
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == 8 * 2**30

    in_a_fork(draw)


def test_a_limit_that_is_too_low_is_named_before_anything_is_computed(monkeypatch, tmp_path):
    def try_to_draw():
        limit_address_space(8 * 2**30)
        monkeypatch.setattr(page, "summarize", lambda *_, **__: pytest.fail("the run was read"))
        monkeypatch.setattr(plotting, "summarize", lambda *_: pytest.fail("the run was read"))
        for draw in (lambda: page.report([]), lambda: plotting.plot([], "loss", tmp_path / "a.svg")):
            with pytest.raises(ConfshiftError, match=r"may use 8\.59 GB of address space.*ulimit -v unlim"):
                draw()

    in_a_fork(try_to_draw)
    assert list(tmp_path.iterdir()) == []


def test_without_a_limit_nothing_is_tried_before(monkeypatch):
    monkeypatch.setattr(vega, "to_vega", lambda specs: pytest.fail("it drew"))
    vega.check_drawing()


def test_the_other_process_runs_nothing_that_lies_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("json", "resource", "vl_convert"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one not in ("", str(tmp_path))])
    monkeypatch.setattr(vega, "_home", None)
    assert to_vega([SPEC])[0]["marks"]


def test_a_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(vega, "_home", None)
    with pytest.raises(
        ConfshiftError, match=r"can't be drawn: the process that draws ended with 1: \w*Error"
    ):
        to_vega([{"mark": "nonsense", "encoding": 5}])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ConfshiftError, match=r"no process can be started: .*No such file"):
        to_vega([SPEC])


def test_names_that_are_not_unicode_are_drawn_with_a_replacement():
    spec = {**SPEC, "data": {"values": [{"name": "r\ud800n\udcff", "value": 1}]}}
    assert "r\ufffdn\ufffd" in to_svg([spec], {})[0]
