"""The page of a library behind a token."""

import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from urllib.parse import quote

from web_page import Page, order, track_hash
from web_server import running

pytestmark = pytest.mark.slow  # a browser, and a server with a model behind it

TOKEN = "a secret/&é✓"
QUERY = "hedgewars__art.ogg"


@pytest.fixture(scope="module")
def guarded(library):
    """The address of the library API alone, with a token: no model, for nothing is uploaded here."""
    from msim_tf.library.api import Access, library_site
    from msim_tf.serving.versions import Models

    with running(library_site(library.path, access=Access(TOKEN))(Models({}))) as address:
        yield address


def test_the_token_is_taken_from_the_address_kept_and_sent(browser, guarded, index):
    page = Page(browser, guarded)
    page.open(track_hash(QUERY), query="?token=" + quote(TOKEN, safe=""))
    page.until_hits(order(index, QUERY))
    assert "token" not in browser.current_url
    page.one(".hit .play").click()
    page.until(lambda: page.js("return document.getElementById('audio').currentTime > 0"), "sound, behind the token")
    browser.refresh()
    page.until_hits(order(index, QUERY))
    assert not page.console_errors()


def test_without_the_token_the_page_asks_for_it(browser, guarded):
    page = Page(browser, guarded)
    page.open()
    page.js("sessionStorage.clear()")
    page.open()
    assert "asks for a token" in page.text("#problem")
    page.one("#token").send_keys(TOKEN)
    page.one("#token-form button").click()
    page.until(lambda: page.all("body.ready"))
    assert "14 tracks" in page.text("#library-facts")
    page.js("sessionStorage.clear()")
