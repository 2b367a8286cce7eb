"""The other views of the web page: the map, playlists, and weights that learn from choices."""

import json

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.keys import Keys
from web_page import order, track_hash

pytestmark = pytest.mark.slow  # a browser, and a server with a model behind it

QUERY = "hedgewars__art.ogg"
OTHER = "colobot__music004.ogg"


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
        tracks = [button.get_attribute("data-play") for button in page.all(".pair-card .play")]
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
    urls = [each["params"]["request"]["url"] for each in logged if each["method"] == "Network.requestWillBeSent"]
    assert any("/map?" in url and f"track={QUERY}" in url for url in urls)
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


def test_regions_are_named_where_a_label_is_at_home(page, rng):
    """Two crowds have names, whatever lies beyond the frame; a few points and "other" have none."""
    crowds = {
        "calm": [*rng.normal([150, 150], 20, (40, 2)), *rng.normal([-500, 150], 20, (90, 2))],
        "loud": rng.normal([700, 400], 20, (40, 2)),
        "rare": [[700, 130], [710, 130]],
        "other": rng.normal([400, 300], 20, (40, 2)),
    }
    points = [
        {"px": x, "py": y, "name": name} for name, places in crowds.items() for x, y in np.asarray(places).tolist()
    ]
    named = page.browser.execute_async_script(
        """const [points, names, done] = arguments;
        const groups = names.map((name, place) => ({ name, place, common: name !== "other" }));
        const labels = { groups, of: (point) => names.indexOf(point.name) };
        import(new URL("map_regions.js", location.href))
            .then(({ regions }) => done(regions(points, labels, 900, 600)));""",
        points,
        list(crowds),
    )
    places = {region["name"]: [region["px"], region["py"]] for region in named}
    assert places == {"calm": pytest.approx([150, 150], abs=15), "loud": pytest.approx([700, 400], abs=15)}
