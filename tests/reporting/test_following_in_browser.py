"""A page that follows a training, in a browser: it reloads itself, keeps its place, waits for its reader."""

from __future__ import annotations

import pytest
from visiting import Visit, messages

from confshift.reporting.page import report

#: Longer than any test waits: these pages reload when a test says so.
NEVER = 10_000
RELOAD = "window.confshift.following.due = 0; document.dispatchEvent(new Event('visibilitychange'));"


@pytest.fixture
def checkpoints(make_run):
    return make_run(200, 3, 9, churn=0.2)


@pytest.fixture
def page(browser, tmp_path, checkpoints):
    path = report(checkpoints[:8], reload=NEVER).save(tmp_path / "page.html").path
    return Visit(browser, path).open()


def reload(visit, checkpoints):
    """Write the page of one more epoch, and let the open one reload itself."""
    report(checkpoints, visit.path, reload=NEVER)
    visit.run(RELOAD)
    visit.wait("return window.confshift?.pairs.epochs.length", 9)
    visit.wait("return Boolean(document.body.dataset.shown && document.body.dataset.ready)")


def test_it_shows_the_new_checkpoint_and_the_newest_pair(page, checkpoints):
    page.run("window.confshift.choose({pinned: 5})")
    reload(page, checkpoints)
    assert page.run("return [document.querySelector('#epoch-B').value, location.hash]") == ["8", ""]
    assert page.run("return window.confshift.rows('pinned')[0].sample") == "5"
    assert not messages(page.browser)


def test_it_keeps_what_the_reader_chose_and_where_they_were(page, checkpoints):
    page.run(
        "window.confshift.choose({before: 2, after: 4});"
        "document.querySelector(`button[value='odds']`).click();"
        "const only = document.querySelector('#only'); only.value = '1';"
        "only.dispatchEvent(new Event('change'));"
        "document.querySelector('#figure-cells details').open = true;"
    )
    page.wait("return document.body.dataset.shown", "2,4")
    page.run("document.querySelector('#samples').scrollIntoView({behavior: 'instant', block: 'start'})")
    before = page.run("return document.querySelector('#samples').getBoundingClientRect().top")
    reload(page, checkpoints)
    kept = page.run(
        "return [location.hash, document.querySelector(`button[value='odds']`).ariaPressed,"
        " document.querySelector('#only').value, document.querySelector('#figure-cells details').open,"
        " document.querySelector('#epoch-A').value]"
    )
    assert kept == ["#A=2&B=4", "true", "1", True, "2"]
    after = page.run("return document.querySelector('#samples').getBoundingClientRect().top")
    assert after == pytest.approx(before, abs=2)
    assert not messages(page.browser)


@pytest.mark.parametrize(
    "busy",
    [
        "document.querySelector('#pause').click()",
        "document.querySelector('#epoch-A').focus()",
        "getSelection().selectAllChildren(document.querySelector('h1'))",
        "document.body.dispatchEvent(new WheelEvent('wheel', {bubbles: true}))",
    ],
)
def test_it_waits_while_the_reader_is_at_work_on_it(page, busy):
    page.run(f"window.same = true; {busy}; {RELOAD}")
    assert page.run("return window.same && window.confshift.following.due === 0")


def test_a_pause_lasts_and_ends(page, checkpoints):
    page.run("document.querySelector('#pause').click()")
    assert page.text("#pause") == "Follow again"
    page.run("document.querySelector('#pause').click()")
    reload(page, checkpoints)
    assert page.text("#pause") == "Pause"


def test_another_page_does_not_reload(browser, tmp_path, checkpoints):
    html = report(checkpoints[:2]).html
    assert 'id="pause"' not in html
    assert "data-reload" not in html.split("<script", 1)[0]
