"""The web page of a library in a real browser: what it finds, in which order, and that it can be used by everybody."""

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from web_library import HOSTILE
from web_page import limited, order, track_hash

pytestmark = pytest.mark.slow  # a browser, and a server with a model behind it

QUERY = "hedgewars__art.ogg"
OTHER = "colobot__music004.ogg"


def test_opens_with_the_library_and_says_how_to_start(page):
    assert page.text("h1") == "Test <b>library</b>"
    assert "14 tracks" in page.text("#library-facts")
    assert "Nothing chosen yet" in page.text("#results-empty")
    assert list(page.sliders()) == ["genre", "mood", "instrument", "era", "tempo", "key"]


def test_search_suggests_and_finds_in_the_order_of_the_distances(page, index):
    page.open("perArtist=any")
    page.search_for("hedgew art").send_keys(Keys.ENTER)
    page.until_hits(order(index, QUERY, per_artist=99))
    assert page.text("#query-title") == "hedgewars art"
    assert page.focused().get_attribute("id") == "query-title"
    assert "10 tracks" in page.text("#results-status")
    page.one("#results-more").click()
    page.until_hits(order(index, QUERY, k=13, per_artist=99))


def test_a_search_without_result_says_so(page):
    page.one("#search").send_keys("no such words")
    page.until(lambda: "Nothing in the library has “no such words”" in page.text(".search .suggestions-note"))


def test_a_slider_changes_the_order_at_once(page, index):
    page.open(track_hash(QUERY))
    before = order(index, QUERY)
    page.until_hits(before)
    for name, key, weight in (("tempo", Keys.END, 1.0), ("genre", Keys.HOME, -1.0)):
        page.slider(name).send_keys(key)
        assert page.sliders()[name] == weight
    after = order(index, QUERY, {"tempo": 1.0, "genre": -1.0})
    assert after != before
    page.until_hits(after)
    assert page.slider("genre").get_attribute("aria-valuetext") == "unlike, 1.00"
    page.one("#weights-reset").click()
    page.until_hits(before)


def test_the_last_of_many_moves_is_the_one_that_is_shown(page, index):
    page.open(track_hash(QUERY))
    page.until_hits(order(index, QUERY))
    page.slider("mood").send_keys(*[Keys.ARROW_LEFT] * 20, Keys.HOME, Keys.END, Keys.HOME)
    page.until_hits(order(index, QUERY, {"mood": -1.0}))


def test_all_sliders_off_is_explained(page):
    off = dict.fromkeys(("genre", "mood", "instrument", "era", "tempo", "key"), 0)
    page.open(track_hash(QUERY, **off))
    page.until(lambda: "All sliders are off" in page.text("#results-empty"))


def test_a_preset_moves_the_sliders(page, index):
    page.open(track_hash(QUERY))
    page.one("#presets button").click()
    weights = {"genre": 0.0, "mood": 1.0, "instrument": 0.0, "era": -0.4, "tempo": 1.0, "key": 0.0}
    assert page.sliders() == weights
    page.until_hits(order(index, QUERY, weights))


def test_a_hit_says_in_words_and_bars_why_it_is_there(page, index):
    from msim_tf.search.explanation import explain
    from msim_tf.search.query import search, track_query

    page.open(track_hash(QUERY, era=0, genre=-0.5))
    page.until(page.hits)
    weights = {"genre": -0.5, "mood": 0.5, "instrument": 0.5, "era": 0, "tempo": 0.5, "key": 0.5}
    query = track_query(index, QUERY)
    nearest = search(index, query, weights=weights, k=1)[0]
    assert page.hits()[0] == nearest.identifier
    assert page.text(".hit .hit-summary") == explain(index, query, nearest).summary
    # The share of all pairs of tracks that are nearer to each other in mood, which the bar's length squares away.
    mood = index.vectors(index.identifiers)[:, index.source.layout.slices["mood"]].astype(float)
    pairs = np.sort(2 - 2 * (mood @ mood.T)[np.triu_indices(len(mood), 1)])
    share = np.interp(nearest.distances["mood"], pairs, np.linspace(0, 1, len(pairs)))
    bar = page.js(
        "const line = document.querySelectorAll('.hit .bar')[1].querySelector('.bar-line');"
        "return line.firstChild.offsetWidth / line.offsetWidth"
    )
    assert bar == pytest.approx(1 - share**0.5, abs=0.06)
    kinds = [bar.get_attribute("class").split() for bar in page.all(".hit .bar")[:6]]
    assert ["bar-unlike" in kind for kind in kinds] == [True] + [False] * 5
    assert ["bar-off" in kind for kind in kinds] == [name == "era" for name in weights]
    why, sum_ = page.one(".hit .why"), page.one(".hit-why")
    assert not sum_.is_displayed() and why.get_attribute("aria-expanded") == "false"
    why.click()
    assert sum_.text == explain(index, query, nearest).line()
    assert why.get_attribute("aria-controls") == sum_.get_attribute("id")


def test_words_of_the_search_box_are_filters(page, index):
    page.search_for("metal under 120 bpm")
    page.until(lambda: page.text("#search-list .suggestion-text") == "Only metal, up to 120 bpm")
    passing = [
        track
        for track in sorted(index.identifiers)
        if "metal" in index.metadata(track)["genre"] and index.metadata(track)["tempo"] <= 120
    ]
    assert page.text("#search-list .suggestion-detail") == f"{len(passing)} tracks, starting at one of them"
    page.one("#search").send_keys(Keys.ENTER)
    page.until(page.hits)
    assert page.text("#filters-count") == "2 filters on" and page.text("#tags-chips") == "metal"
    assert page.one("#bpm-high").get_property("value") == "120"
    assert set(page.hits()) < set(passing)


def test_filters_open_into_view(page):
    page.open(track_hash(QUERY))
    page.until(page.hits)
    assert not page.shown("#artists")
    page.one("#filters summary").click()
    seen = (
        "const b = document.getElementById('%s').getBoundingClientRect(); return b.top >= 0 && b.bottom <= innerHeight"
    )
    page.until(lambda: page.js(seen % "filters-reset"), "the last of the filters in view")


def test_use_as_query_and_back(page, index):
    page.open(track_hash(QUERY))
    before = order(index, QUERY)
    page.until_hits(before)
    page.one(".hit .use").click()
    page.until_hits(order(index, before[0]))
    page.browser.back()
    page.until_hits(before)


def test_several_examples_are_one_query(page, index):
    page.open(track_hash(QUERY))
    page.until_hits(order(index, QUERY))
    second = page.hits()[2]
    page.all(".hit .example")[2].click()
    expected = order(index, QUERY, also=[second])
    assert expected != order(index, QUERY)
    page.until_hits(expected)
    third = expected[0]
    page.one(".hit .example").click()
    page.until_hits(order(index, QUERY, also=[second, third]))
    page.until(lambda: len(page.all("#query-also li")) == 2)
    assert page.text("#query-also").startswith("and ")
    page.open(page.hash())  # the address tells all of them
    page.until_hits(order(index, QUERY, also=[second, third]))
    page.open(page.hash() + f"&mix.tempo={OTHER}")
    mixed = order(index, QUERY, also=[second, third], mix={"tempo": OTHER})
    page.until_hits(mixed)
    assert not {second, third, OTHER} & set(mixed)
    page.one("#query-mix button").click()
    page.until_hits(order(index, QUERY, also=[second, third]))
    page.one("#query-also button").click()
    page.until_hits(order(index, QUERY, also=[third]))
    page.browser.back()
    page.until_hits(order(index, QUERY, also=[second, third]))
    page.one(".hit .use").click()
    page.until(lambda: not page.all("#query-also li"))


def test_any_artist_of_the_library_is_suggested(page, index):
    page.open(track_hash(QUERY))
    page.one("#filters summary").click()
    field = page.one("#artists")
    counts = {}
    for track in index.identifiers:
        artist = index.metadata(track)["artist"]
        counts[artist] = counts.get(artist, 0) + 1
    wanted = sorted(counts, key=lambda artist: (-counts[artist], artist.casefold()))
    field.click()
    suggested = lambda: [element.text for element in page.all("#artists-list .suggestion-text")]  # noqa: E731
    page.until(lambda: suggested() == wanted[:12])
    field.send_keys(wanted[-1].upper())
    page.until(lambda: suggested() == [wanted[-1]])
    assert page.text("#artists-list .suggestion-detail").startswith(str(counts[wanted[-1]]))
    field.send_keys(Keys.ENTER)
    every = order(index, QUERY, k=99, per_artist=99)
    page.until_hits([track for track in every if index.metadata(track)["artist"] == wanted[-1]][:10])


def test_mixes_a_dimension_of_another_track_in(page, index):
    page.open(track_hash(QUERY))
    page.until_hits(order(index, QUERY))
    other = page.hits()[1]
    row = page.all(".hit")[1]
    row.find_element(By.CSS_SELECTOR, ".menu summary").click()
    row.find_element(By.XPATH, ".//button[text()='Tempo']").click()
    page.until_hits(order(index, QUERY, mix={"tempo": other}))
    assert page.until(lambda: page.text("#query-mix")).startswith("tempo of ")
    page.one("#query-mix button").click()
    page.until_hits(order(index, QUERY))


def test_filters_and_limits_hold_and_the_address_shares_them(page, index):
    page.open(track_hash(QUERY))
    page.one("#filters summary").click()
    page.one("#bpm-low").send_keys("100")
    page.one("#bpm-high").send_keys("130")
    tags = page.one("#tags")
    tags.click()
    tags.send_keys("met")
    page.until(lambda: page.shown("#tags-list [role=option]"))
    tags.send_keys(Keys.ENTER)
    metadata = {track: index.metadata(track) for track in order(index, QUERY, k=99, per_artist=99)}
    passing = [
        track for track in metadata if 100 <= metadata[track]["tempo"] <= 130 and "metal" in metadata[track]["genre"]
    ]
    assert 1 < len(passing) < 8
    page.until_hits(limited(index, passing, 2))
    per_artist = Select(page.one("#per-artist"))
    per_artist.select_by_visible_text("any")
    page.until_hits(passing)
    per_artist.select_by_visible_text("1")
    artists = [metadata[track]["artist"] for track in passing]
    diverse = [track for place, track in enumerate(passing) if artists.index(artists[place]) == place]
    assert len(diverse) < len(passing)
    page.until_hits(diverse)
    assert page.text("#filters-count") == "3 filters on"
    page.open(page.hash())
    page.until_hits(diverse)
    page.one("#filters-reset").click()
    page.until_hits(order(index, QUERY))


def test_filters_that_leave_nothing_say_what_to_do(page):
    page.open(track_hash(QUERY, bpm="400..500"))
    page.until(lambda: "No track of this library has a tempo from 400 to 500 bpm." in page.text("#results-empty"))
    page.one("#results-empty button").click()
    page.until(page.hits)


def test_names_stay_text(page, index):
    page.open(track_hash(QUERY, k=20, perArtist="any"))
    page.until(lambda: len(page.hits()) == 13)
    assert HOSTILE in [element.text for element in page.all(".hit-title")]
    page.search_for("onerror")
    # The field has offered other tracks before anything was typed.
    page.until(lambda: page.text("#search-list .suggestion-text") == HOSTILE)
    page.one("#search").send_keys(Keys.ENTER)
    page.until(lambda: page.text("#query-title") == HOSTILE)
    assert page.js("return [window.owned ?? null, document.querySelectorAll('main img, main script').length]") == [
        None,
        0,
    ]
    assert page.browser.title == f"{HOSTILE} – msim"


def test_a_server_that_is_gone_is_told_and_tried_again(page, index):
    page.troubles_expected = True
    page.open(track_hash(QUERY))
    page.until_hits(order(index, QUERY))
    line = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.browser.execute_cdp_cmd("Network.enable", {})
    page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **line})
    try:
        page.slider("tempo").send_keys(Keys.END)
        page.until(lambda: "Is msim serve still running?" in page.text("#problem"))
        assert "out of date" in page.text("#results-status")
    finally:
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": False, **line})
    page.one("#problem-retry").click()
    page.until_hits(order(index, QUERY, {"tempo": 1.0}))
    assert not page.shown("#problem")


def test_a_track_that_is_not_there_is_told(page):
    page.troubles_expected = True
    page.open("track=gone.ogg")
    page.until(lambda: "The library has no track 'gone.ogg'" in page.text("#problem"))
    assert "No results" in page.text("#results-empty")
