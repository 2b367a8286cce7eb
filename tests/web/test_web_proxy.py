"""The page below a prefix, behind a proxy: nothing is asked for outside it."""

import httpx
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from tiny_model import tiny_model_path
from web_page import Page, order, track_hash
from web_server import Proxy, running

pytestmark = pytest.mark.slow  # a browser

QUERY = "hedgewars__art.ogg"


@pytest.fixture(scope="module")
def upstream(library):
    """The address of a server that is to be shown below /msim."""
    from msim_tf.library.api import library_site
    from msim_tf.serving.server import ServerOptions, running_server

    options = ServerOptions(grpc_port=0, rest_port=0, root_path="/msim")
    site = library_site(library.path, root_path="/msim")
    with running_server({"tiny": tiny_model_path()}, options, site) as addresses:
        yield addresses.rest


@pytest.fixture(scope="module", params=[True, False], ids=["prefix stripped", "prefix kept"])
def proxied(request, upstream):
    proxy = Proxy(upstream, "/msim", strip=request.param)
    with running(proxy) as address:
        yield f"{address}/msim", proxy


def test_the_page_works_below_a_prefix(browser, proxied, index):
    address, proxy = proxied
    browser.set_window_size(1280, 900)
    page = Page(browser, address)
    page.open(track_hash(QUERY))
    page.until_hits(order(index, QUERY))
    page.one(".hit .play").click()
    page.until(lambda: page.js("return document.getElementById('audio').currentTime > 0"), "sound, through the proxy")
    page.one("#tab-map").click()
    page.until(lambda: page.all("#map-legend li"))
    assert page.hash()
    assert proxy.outside == []
    assert not page.console_errors()


def test_addresses_in_answers_stay_below_the_prefix(proxied, library):
    address, proxy = proxied
    with httpx.Client(trust_env=False, timeout=60) as http:
        track = http.get(f"{address}/api/v1/tracks/{QUERY}").json()
        assert track["audio"] == f"/msim/api/v1/audio/{QUERY}"
        sound = http.get(address.removesuffix("/msim") + track["audio"])
        assert sound.content == (library.music / QUERY).read_bytes()
        document = http.get(f"{address}/api/v1/openapi.json").json()
        assert document["servers"] == [{"url": "/msim/api/v1"}]
    assert proxy.outside == []


def test_the_description_of_the_api_is_a_page_of_its_own(browser, proxied):
    address, proxy = proxied
    page = Page(browser, address)
    browser.get(f"{address}/docs")
    page.until(lambda: page.all("#operations section"))
    paths = httpx.get(f"{address}/api/v1/openapi.json", trust_env=False).json()["paths"]
    assert len(page.all("#operations section")) == sum(map(len, paths.values())) > 10
    assert "Tracks near to a query." in page.text("#operations")
    page.one("#operations a[href='#Similar']").click()
    assert "hits" in page.text("#Similar")
    assert page.one("#document").get_property("href") == f"{address}/api/v1/openapi.json"
    assert proxy.outside == []
    assert not page.console_errors()


def test_an_address_without_its_last_slash_leads_to_the_page(upstream):
    with httpx.Client(trust_env=False) as http:
        answer = http.get(f"{upstream}/msim")
        assert answer.status_code == 307
        assert answer.headers["location"] == "/msim/"
        assert http.get(f"{upstream}/msim/healthz").text == http.get(f"{upstream}/healthz").text == "ok\n"
        assert http.get(f"{upstream}/msimilar/healthz").status_code == 404
        for prefix in ("", "/msim"):
            assert http.get(f"{upstream}{prefix}/v1/models/tiny").status_code == 200
