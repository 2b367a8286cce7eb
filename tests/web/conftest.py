"""A library of real excerpts under the tiny model, its server, and a headless Chromium that looks at the page.

The tests need Chromium and its driver (Debian: chromium, chromium-driver) and selenium;
without them they are skipped, and say so.
"""

import shutil

import pytest
from tiny_model import tiny_model_path
from web_library import MOST_BYTES, build_library

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def library(music, tmp_path_factory):
    """The catalogue of a library of real excerpts."""
    return build_library(music, tmp_path_factory.mktemp("music"), tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def index(library):
    return library.open_index()


@pytest.fixture(scope="session")
def address(library):
    """Where the page is. Uploads are limited to ``MOST_BYTES``."""
    from msim_tf.library.api import library_site
    from msim_tf.library.api_upload import UploadLimits
    from msim_tf.serving.server import ServerOptions, running_server

    site = library_site(library.path, limits=UploadLimits(bytes=MOST_BYTES))
    with running_server({"tiny": tiny_model_path()}, ServerOptions(grpc_port=0, rest_port=0), site) as addresses:
        yield addresses.rest


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One browser for all tests: to start one takes seconds."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    # Without its sandbox, because containers of CI run as root; muted, because it really plays.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    started.set_page_load_timeout(60)
    yield started
    started.quit()


@pytest.fixture
def page(browser, address):
    """The page on a desktop. After every test: no error in the console, and nothing asked of another host."""
    from web_page import Page

    browser.set_window_size(1280, 900)
    tested = Page(browser, address)
    tested.open()
    tested.js("localStorage.clear(); sessionStorage.clear()")
    tested.console_errors()
    tested.hosts()
    yield tested
    errors = tested.console_errors()
    assert tested.troubles_expected or not errors, errors
    assert tested.hosts() <= {address.removeprefix("http://")}
