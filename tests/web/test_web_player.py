"""The player of the web page: one track at a time, a queue, next and previous, a volume that is kept."""

import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from web_page import order, track_hash

pytestmark = pytest.mark.slow  # a browser, and a server with a model behind it

QUERY = "hedgewars__art.ogg"


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
    player = "const a = document.getElementById('audio'); return [decodeURIComponent(a.src.split('/').pop()), a.paused]"

    def plays(track):
        page.until(lambda: page.js(player) == [track, False], f"plays {track}")

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
