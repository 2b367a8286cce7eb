"""The page of a library that has no track (any more): it says what to do, in every view, and nothing fails."""

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from web_page import Page
from web_server import running

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.library.catalog import Catalog, save_library
from msim_tf.search.index import Index

pytestmark = pytest.mark.slow


@pytest.fixture
def address(tmp_path):
    """A library whose only track was removed."""
    from msim_tf.library.api import library_site
    from msim_tf.serving.versions import Models

    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 48)
    vectors = np.random.default_rng(1).normal(size=(1, 48)).astype(np.float32)
    index = Index.build(Embeddings("music", ("gone.ogg",), vectors, layout))
    index.remove(["gone.ogg"])
    (tmp_path / "Music").mkdir()
    save_library(index, Catalog(tmp_path / "library", "Music", tmp_path / "Music"))
    with running(library_site(tmp_path / "library")(Models({}))) as address:
        yield address


def test_an_empty_library_says_what_to_do(browser, address):
    page = Page(browser, address)
    page.console_errors()
    page.open()
    assert "0 tracks" in page.text("#library-facts")
    assert "The library is empty" in page.text("#results-empty")
    assert "run msim index again" in page.text("#results-empty")
    assert page.one("#surprise").get_property("disabled")
    assert not page.shown("#weight-genre") and not page.shown("#filters")  # nothing to weigh, nothing to filter
    page.one("#tab-map").click()
    page.until(lambda: "The library is empty: run msim index." in page.text("#map-note"))
    page.one("#tab-compare").click()
    page.one("#tab-path").click()
    page.one("#search").send_keys("anything")
    page.until(lambda: "The library is empty" in page.text(".search .suggestions-note"))
    assert not page.shown("#problem") and not page.console_errors()
