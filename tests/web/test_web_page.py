"""The web page of a library in a real browser: what it finds, in which order, and that it can be used by everybody."""

import base64
import json

import numpy as np
import pytest
import soundfile

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select
from web_library import HOSTILE, MOST_BYTES
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
    kinds = [found.get_attribute("class").split() for found in page.all(".hit .bar")[:6]]
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


def test_plays_one_track_at_a_time(page):
    page.open(track_hash(QUERY))
    page.until(page.hits)

    def playing():
        return page.js("const a = document.getElementById('audio'); return a.paused ? 0 : a.currentTime")

    first, second = page.all(".hit .play")[:2]
    first.click()
    start = page.until(playing, "playing")
    page.until(lambda: playing() > start + 0.3, "time goes on")
    assert first.get_attribute("aria-label").startswith("Pause ")
    second.click()
    page.until(lambda: second.get_attribute("data-on") == "true" and first.get_attribute("data-on") == "false")
    assert page.all("audio") == [page.one("#audio")]
    page.until(playing)
    page.js("const s = document.getElementById('player-seek'); s.value = 20; s.dispatchEvent(new Event('input'))")
    page.until(lambda: playing() > 20, "plays on from 0:20")
    page.one("#player-toggle").click()
    page.until(lambda: second.get_attribute("data-on") == "false")


def test_the_player_has_a_queue_next_previous_and_volume(page, index):
    page.open(track_hash(QUERY))
    expected = order(index, QUERY)
    page.until_hits(expected)
    told = "const a = document.getElementById('audio'); return [decodeURIComponent(a.src.split('/').pop()), a.paused]"

    def plays(track):
        page.until(lambda: page.js(told) == [track, False], f"plays {track}")

    page.all(".hit .play")[1].click()
    plays(expected[1])
    page.one("#player-next").click()
    plays(expected[2])
    page.one("#player-queue summary").click()
    buttons = page.all("#player-queue-list button")
    assert len(buttons) == len(expected) and buttons[2].get_attribute("aria-current") == "true"
    assert page.text("#player-queue-summary") == f"Queue, 3 of {len(expected)}"
    buttons[-1].click()
    plays(expected[-1])
    assert page.one("#player-next").get_property("disabled")
    page.one("#player-previous").click()
    plays(expected[-2])
    # Later in a track, "previous" is its beginning.
    page.js("document.getElementById('audio').currentTime = 10")
    page.until(lambda: page.js("return document.getElementById('audio').currentTime") >= 10)
    page.one("#player-previous").click()
    page.until(lambda: page.js("return document.getElementById('audio').currentTime") < 5)
    plays(expected[-2])
    # At its end the next one follows.
    page.js("const a = document.getElementById('audio'); a.currentTime = a.duration - 0.1")
    plays(expected[-1])
    assert page.js("return navigator.mediaSession.metadata.title") == page.text("#player-title")
    page.js("const v = document.getElementById('player-volume'); v.value = 0.4; v.dispatchEvent(new Event('input'))")
    assert page.js("return document.getElementById('audio').volume") == pytest.approx(0.4)
    page.open(track_hash(QUERY))
    assert page.js("return document.getElementById('audio').volume") == pytest.approx(0.4)


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
    suggested = lambda: [found.text for found in page.all("#artists-list .suggestion-text")]  # noqa: E731
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
    assert HOSTILE in [found.text for found in page.all(".hit-title")]
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


def test_uploads_a_file_and_queries_by_it(page, music, index):
    page.open("perArtist=any")
    page.one("#file").send_keys(str(music / "zaz__mus1.ogg"))
    page.until(page.hits)
    assert page.text("#query-title") == "zaz__mus1.ogg"
    assert len(page.hits()) == 10
    before = page.hits()
    play = page.one("#query-play button")
    assert play.get_attribute("aria-label") == "Play zaz__mus1.ogg"
    play.click()
    told = "const a = document.getElementById('audio'); return [a.currentTime, a.src]"
    page.until(lambda: page.js(told)[0] > 0.2, "the file itself is heard")
    source = page.js(told)[1]
    assert source.startswith("blob:") and page.text("#player-title") == "zaz__mus1.ogg"
    page.one("#player-toggle").click()
    page.all(".hit .example")[0].click()
    page.until(lambda: page.hits() and before[0] not in page.hits())
    page.browser.back()
    page.until_hits(before)
    page.browser.refresh()
    page.until_hits(before)
    assert not page.all("#query-play button")  # what the browser held is gone


def test_an_uploaded_file_that_decodes_only_in_part_is_said_to(page, music, tmp_path):
    y, sr = soundfile.read(music / "zaz__mus1.ogg", stop=80_000)
    soundfile.write(tmp_path / "half.wav", y[:, 0] if y.ndim > 1 else y, sr)
    content = (tmp_path / "half.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(content[: 44 + (len(content) - 44) * 6 // 10])
    page.one("#file").send_keys(str(tmp_path / "half.wav"))
    page.until(page.hits)
    assert page.text("#query-facts") == f"damaged: 60 % of {len(y) / sr:.1f} s decodes"
    page.one("#file").send_keys(str(music / "zaz__mus1.ogg"))
    page.until(lambda: page.text("#query-title") == "zaz__mus1.ogg")
    assert page.text("#query-facts") == ""


def test_the_sounds_of_the_last_files_are_kept_and_the_oldest_let_go(page, music):
    page.js(
        """window.let_go = []; const was = URL.revokeObjectURL;
        URL.revokeObjectURL = (address) => { window.let_go.push(address); was.call(URL, address); };"""
    )
    sounds = []
    for number in (1, 2, 3, 4, 1):
        before = page.hash()
        page.one("#file").send_keys(str(music / f"zaz__mus{number}.ogg"))
        page.until(lambda before=before: page.hash() != before)
        page.until(lambda number=number: page.text("#query-title") == f"zaz__mus{number}.ogg")
        page.one("#query-play button").click()
        sounds.append(page.js("return document.getElementById('audio').src"))
    assert len(set(sounds)) == 5
    assert page.js("return window.let_go") == sounds[:1]


def test_a_dropped_file_is_a_query(page, music):
    page.js(
        """const [bytes, name] = arguments, files = new DataTransfer();
        files.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], name, { type: "audio/ogg" }));
        const options = { dataTransfer: files, bubbles: true, cancelable: true };
        document.body.dispatchEvent(new DragEvent("drop", options));""",
        base64.b64encode((music / "zaz__mus1.ogg").read_bytes()).decode(),
        "<i>dropped</i>.ogg",
    )
    page.until(lambda: page.hits() and page.text("#query-title") == "<i>dropped</i>.ogg")


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"not music" * 100, "are understood"),
        (bytes(MOST_BYTES + 1), "shorter excerpt"),
        (bytes(30 * MOST_BYTES), "shorter excerpt"),
    ],
    ids=["not audio", "too large", "far too large"],
)
def test_a_file_that_cannot_be_used_is_explained(page, tmp_path, content, advice):
    page.troubles_expected = True  # the browser notes every refusal
    (tmp_path / "song.mp3").write_bytes(content)
    page.one("#file").send_keys(str(tmp_path / "song.mp3"))
    page.until(lambda: advice in page.text("#problem"))
    assert page.one("#problem").get_attribute("role") == "alert"
    assert not page.shown("#uploading")


def test_choices_teach_weights_that_move_the_sliders_once_they_help(page, index, tmp_path):
    from msim_tf.search.weights import choice_differences, learn_profile, load_profile

    layout, tempo = index.source.layout, index.source.layout.slices["tempo"]

    def far(track):
        """The distance from the query for a listener who hears only tempo."""
        return float(np.square(index.vectors([track])[0, tempo] - index.vectors([QUERY])[0, tempo]).sum())

    def learnt():
        (saved,) = page.js("return Object.values(localStorage)")
        choices = json.loads(saved)["choices"]
        anchors = index.vectors([choice["query"]["track"] for choice in choices])
        better, worse = (index.vectors([choice[side] for choice in choices]) for side in ("better", "worse"))
        return learn_profile("", choice_differences(anchors, better, worse, layout), layout)

    page.open(track_hash(QUERY, view="compare"))
    waited = False
    for answers in range(1, 20):
        page.until(lambda: len(page.all(".choose")) == 2)
        tracks = [found.get_attribute("data-play") for found in page.all(".pair-card .play")]
        page.all(".choose")[int(far(tracks[1]) < far(tracks[0]))].click()
        page.until(lambda count=answers: f"from {count} answer" in page.text("#compare-status"))
        profile = learnt()
        if profile.agreement > profile.equal_agreement:
            break
        # Weights that foresee no more than equal ones are held back.
        waited = True
        assert set(page.sliders().values()) == {0.5} and "wait" in page.text("#compare-status")
        assert not page.shown("#compare-export") and not page.shown("#preset-learnt")
    assert waited and profile.agreement > profile.equal_agreement
    weights = profile.weights
    expected = {name: round(weight / max(weights.values()), 2) for name, weight in weights.items()}
    page.until(lambda: page.sliders() == pytest.approx(expected, abs=0.011))
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.one("#compare-export").click()
    page.until(lambda: (tmp_path / "profile.json").exists())
    exported = load_profile(tmp_path / "profile.json")
    assert exported.weights == pytest.approx(weights, abs=1e-6) and exported.choices == answers
    page.one("#tab-results").click()
    page.until_hits(order(index, QUERY, page.sliders()))
    page.open(track_hash(QUERY, view="compare"))
    page.one("#preset-learnt").click()
    assert page.sliders() == pytest.approx(expected, abs=0.011)
    page.one("#compare-reset").click()
    assert not page.shown("#preset-learnt")
    assert set(page.sliders().values()) == {0.5}


def test_a_playlist_leads_from_one_track_to_another(page, index):
    from msim_tf.search.path import track_path

    page.open(track_hash(QUERY, view="path"))
    field = page.one("#path-to")
    field.click()
    field.send_keys("colobot music004")
    page.until(lambda: page.shown("#path-to-list [role=option]"))
    field.send_keys(Keys.ENTER)
    expected = [step.identifier for step in track_path(index, QUERY, OTHER, length=8)]
    page.until(lambda: page.hits("#path-list") == expected)


def test_a_file_can_start_a_playlist(page, music, index):
    from msim_tf.search.path import track_path

    page.one("#file").send_keys(str(music / "zaz__mus1.ogg"))
    page.until(page.hits)
    nearest = page.hits()[0]
    end = next(track for track in (OTHER, QUERY) if track != nearest)
    page.open(page.hash() + "&" + track_hash("", view="path", to=end).removeprefix("track=&"))
    expected = [step.identifier for step in track_path(index, nearest, end, length=8)]
    page.until(lambda: page.hits("#path-list") == expected)
    assert "the nearest to your file" in page.text("#path-lead")


def test_what_is_shown_is_saved_as_a_playlist(page, tmp_path):
    from msim_tf.library.playlists import read_playlist

    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.open(track_hash(QUERY))
    page.until(lambda: page.shown("#results-playlist"))
    shown = page.hits()
    page.one("#results-playlist").click()
    page.until(lambda: (tmp_path / "similar.m3u8").exists())
    assert read_playlist(tmp_path / "similar.m3u8") == [tmp_path / name for name in shown]
    page.open(track_hash(QUERY, view="path", to=OTHER))
    page.until(lambda: page.shown("#path-playlist"))
    steps = page.hits("#path-list")
    page.one("#path-playlist").click()
    page.until(lambda: (tmp_path / "path.m3u8").exists())
    assert read_playlist(tmp_path / "path.m3u8") == [tmp_path / name for name in steps]


def test_the_map_shows_and_chooses_tracks_by_pointer_and_keyboard(page, index):
    page.open("view=map")
    page.until(lambda: page.all("#map-legend li"))
    assert "metal" in page.text("#map-legend")
    coloured = page.js(
        "const c = document.getElementById('map-canvas');"
        "return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some((v) => v > 0)"
    )
    assert coloured
    page.js("document.getElementById('map-fit').focus()")
    page.keys(Keys.TAB)
    first = page.until(lambda: page.one("#map-spoken").get_property("textContent"))
    assert page.shown("#map-tip")
    moved = None
    for key in (Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_UP, Keys.ARROW_DOWN):
        page.keys(key)
        moved = page.one("#map-spoken").get_property("textContent")
        if moved != first:
            break
    assert moved != first
    page.keys(Keys.ENTER)
    page.until(page.hash)
    page.until(lambda: page.text("#query-title") and moved.startswith(page.text("#query-title")))
    page.one("#map-colour").send_keys("Tempo")
    page.until(lambda: "bpm" in page.text("#map-legend"))


def test_the_map_zooms_and_asks_for_the_query_and_its_hits(page, index):
    page.hosts()
    page.open(track_hash(QUERY, view="map"))
    page.until(lambda: page.all("#map-legend li"))
    page.until_hits(order(index, QUERY))
    logged = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = [told["params"]["request"]["url"] for told in logged if told["method"] == "Network.requestWillBeSent"]
    assert any("/map?" in url and f"track={QUERY}" in url for url in asked)
    drawn = "return document.getElementById('map-canvas').toDataURL()"
    everything = page.js(drawn)
    page.one("#map-in").click()
    page.one("#map-in").click()
    assert page.js(drawn) != everything
    page.one("#map-out").click()
    page.one("#map-fit").click()
    assert page.js(drawn) == everything
    # With the keyboard a track beyond the frame is brought into it.
    page.js("document.getElementById('map-canvas').focus()")
    page.keys("+", "+", "+", *[Keys.ARROW_LEFT] * 9)
    tip, frame = (page.one(selector).rect for selector in ("#map-tip", "#map-frame"))
    assert frame["x"] <= tip["x"] <= frame["x"] + frame["width"]
    page.keys("0")


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
