"""The page as a test drives it, and what it should show, reckoned without it."""

import json
import time
from collections import Counter
from urllib.parse import quote, urlsplit

import numpy as np
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

WAIT = 60.0  # seconds until a test gives up; machines that test are busy


class Page:
    """One page in the browser."""

    def __init__(self, browser, address):
        self.browser = browser
        self.address = address
        self.troubles_expected = False

    def open(self, hash_="", *, query=""):
        self.browser.get("about:blank")  # else another hash would not load the page again
        self.browser.get(f"{self.address}/{query}" + (f"#{hash_}" if hash_ else ""))
        self.until(lambda: self.all("body.ready") or self.shown("#problem"))

    def until(self, condition, why=""):
        """What ``condition`` gives once it holds."""
        end = time.monotonic() + WAIT
        while True:
            try:
                result = condition()
            except StaleElementReferenceException:
                result = None
            if result:
                return result
            assert time.monotonic() < end, f"{why or condition}: not within {WAIT:g} s; {self.text('#problem')}"
            time.sleep(0.05)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def shown(self, selector):
        return any(element.is_displayed() for element in self.all(selector))

    def text(self, selector):
        return self.one(selector).text

    def keys(self, *keys):
        """To whatever has the focus."""
        ActionChains(self.browser).send_keys(*keys).perform()

    def js(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def focused(self):
        return self.browser.switch_to.active_element

    def accessible(self):
        """What a screen reader is given: role and name of every node."""
        nodes = self.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        return [
            {key: node.get(key, {}).get("value", "") for key in ("role", "name")}
            for node in nodes
            if not node["ignored"]
        ]

    def search_for(self, words):
        field = self.one("#search")
        field.click()
        field.send_keys(words)
        self.until(lambda: self.shown("#search-list [role=option]"), f"suggestions for {words}")
        return field

    def slider(self, name):
        return self.one(f"#weight-{name}")

    def sliders(self):
        """Where each slider stands, by dimension."""
        return {
            slider.get_attribute("id").removeprefix("weight-"): float(slider.get_property("value"))
            for slider in self.all(".slider")
        }

    def hits(self, within="#results-list"):
        """The tracks of a list, in its order."""
        return self.js(
            "return [...document.querySelectorAll(arguments[0] + ' .hit')].map((row) => row.dataset.id)", within
        )

    def until_hits(self, expected):
        self.until(lambda: self.hits() == expected, f"results {expected}")
        self.until_still()

    def until_still(self):
        """Hits glide to their places, and a click on one that moves meets its neighbour."""
        moving = "return document.querySelector('#results-list').getAnimations({subtree: true}).length"
        self.until(lambda: not self.js(moving), "hits that stand still")

    def hash(self):
        return urlsplit(self.browser.current_url).fragment

    def console_errors(self):
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] == "SEVERE"]

    def hosts(self):
        """Every host that something was asked of since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}


def track_hash(track, **more):
    """The address of a view: track as query, and more."""
    parameters = {"track": track, **more}
    return "&".join(f"{name}={quote(str(value), safe='')}" for name, value in parameters.items())


def order(index, query, weights=None, *, also=(), mix=None, k=10, per_artist=2):
    """Tracks by weighted distance, by a loop; at most so many of an artist.

    Of several examples the middle is the query: the mean of their unit vectors, made unit again.
    """
    layout = index.source.layout
    weights = dict.fromkeys(layout.names, 0.5) | (weights or {})
    mix = mix or {}
    distances = {}
    for track in index.identifiers:
        if track in (query, *also) or track in mix.values():
            continue
        distances[track] = 0.0
        for name, part in layout.slices.items():
            examples = [mix[name]] if name in mix else [query, *also]
            here = index.vectors(examples)[:, part].astype(np.float64).mean(0)
            here /= np.linalg.norm(here)
            there = index.vectors([track])[0, part].astype(np.float64)
            distances[track] += weights[name] * float(((here - there) ** 2).sum())
    return limited(index, sorted(distances, key=distances.__getitem__), per_artist)[:k]


def limited(index, tracks, per_artist):
    """The tracks without those of artists who have so many before them."""
    kept, counts = [], Counter()
    for track in tracks:
        artist = index.metadata(track)["artist"].casefold()
        counts[artist] += 1
        if counts[artist] <= per_artist:
            kept.append(track)
    return kept
