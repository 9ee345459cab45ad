"""A page that follows a training, in a browser: it reloads itself, keeps its place, waits for its reader."""

from __future__ import annotations

import pytest
from visiting import Visit, messages

from confshift.reporting.page import report

pytestmark = pytest.mark.usefixtures("blank_pictures")

#: Longer than any test waits: these pages reload when a test says so.
NEVER = 10_000
#: As if nobody had touched the page for ten seconds: a page that has just opened would wait for three.
UNTOUCHED = "window.confshift.following.touched = -10_000;"
RELOAD = "window.confshift.following.due = 0; document.dispatchEvent(new Event('visibilitychange'));"


@pytest.fixture(scope="module")
def checkpoints(make_run):
    return make_run(200, 3, 9, churn=0.2)


@pytest.fixture(scope="module")
def pages(checkpoints):
    """Return the page of eight epochs, and that of one more."""
    return [report(checkpoints[:end], reload=NEVER).html for end in (8, 9)]


@pytest.fixture
def page(browser, tmp_path, pages):
    path = tmp_path / "page.html"
    path.write_text(pages[0], encoding="utf-8")
    return Visit(browser, path).open()


def reload(visit, pages):
    """Write the page of one more epoch, and let the open one reload itself."""
    visit.path.write_text(pages[1], encoding="utf-8")
    visit.run(UNTOUCHED + RELOAD)
    visit.wait("return window.confshift?.pairs.epochs.length", 9)
    visit.wait("return Boolean(document.body.dataset.shown && document.body.dataset.ready)")


def test_it_shows_the_new_checkpoint_and_the_newest_pair(page, pages):
    page.run("window.confshift.choose({pinned: 5})")
    reload(page, pages)
    assert page.run("return [document.querySelector('#epoch-B').value, location.hash]") == ["8", ""]
    assert page.run("return window.confshift.rows('pinned')[0].sample") == "5"
    assert not messages(page.browser)


def test_it_keeps_what_the_reader_chose_and_where_they_were(page, pages):
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
    reload(page, pages)
    kept = page.run(
        "return [location.hash, document.querySelector(`button[value='odds']`).ariaPressed,"
        " document.querySelector('#only').value, document.querySelector('#figure-cells details').open,"
        " document.querySelector('#epoch-A').value]"
    )
    assert kept == ["#A=2&B=4", "true", "1", True, "2"]
    after = page.run("return document.querySelector('#samples').getBoundingClientRect().top")
    assert after == pytest.approx(before, abs=2)
    assert not messages(page.browser)


#: What a reader does at the page, and how it ends.
AT_WORK = [
    ("document.querySelector('#pause').click()", "document.querySelector('#pause').click()"),
    ("document.querySelector('#epoch-A').focus()", "document.activeElement.blur()"),
    ("getSelection().selectAllChildren(document.querySelector('h1'))", "getSelection().removeAllRanges()"),
    ("document.body.dispatchEvent(new WheelEvent('wheel', {bubbles: true}))", ""),
]


def test_it_waits_while_the_reader_is_at_work_on_it(page):
    is_waiting = (
        "const waits = window.confshift.following.due === 0; window.confshift.following.due = Infinity;"
    )
    for begin, end in AT_WORK:
        assert page.run(f"{UNTOUCHED} {begin}; {RELOAD} {is_waiting} {end}; return waits"), begin
    assert not page.run(f"{UNTOUCHED} {RELOAD} {is_waiting} return waits")


def test_a_pause_lasts_and_ends(page, pages):
    page.run("document.querySelector('#pause').click()")
    assert page.text("#pause") == "Follow again"
    page.run("document.querySelector('#pause').click()")
    reload(page, pages)
    assert page.text("#pause") == "Pause"


def test_another_page_does_not_reload(checkpoints):
    html = report(checkpoints[:2]).html
    assert 'id="pause"' not in html
    assert "data-reload" not in html.split("<script", 1)[0]
