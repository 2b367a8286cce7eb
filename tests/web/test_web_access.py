"""The web page of a library for everybody: by keyboard, with a screen reader, on a phone, light and dark."""

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from selenium.webdriver.common.keys import Keys
from web_page import track_hash

axe_core = pytest.importorskip("axe_core_python", reason="needs axe-core: pip install axe-core-python")
AXE = Path(axe_core.__file__).parent / "axe.min.js"

pytestmark = pytest.mark.slow  # a browser, and a server with a model behind it

QUERY = "hedgewars__art.ogg"
OTHER = "colobot__music004.ogg"

_CONTROLS = (
    "button",
    "textbox",
    "searchbox",
    "combobox",
    "slider",
    "spinbutton",
    "checkbox",
    "tab",
    "tabpanel",
    "listbox",
    "image",
    "application",
)

# WCAG 2.1: relative luminance and contrast of every text that is seen, against the nearest background that is there.
_CONTRASTS = """
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const backdrop = (element) => {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const low = [];
let seen = 0;
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (!node.textContent.trim() || !element.checkVisibility()) continue;
  if (element.closest("script, noscript, svg, option, :disabled")) continue;
  seen += 1;
  const [a, b] = [numbers(getComputedStyle(element).color), backdrop(element)].map(luminance).sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) low.push(node.textContent.trim());
}
return [seen, low];
"""


def test_everything_by_keyboard(page, index):
    page.keys(Keys.TAB)
    assert page.focused().text == "Skip to the results"
    page.keys(Keys.TAB)
    assert page.focused().get_attribute("id") == "search"
    page.keys("hedgewars")
    page.until(lambda: len(page.all("#search-list [role=option]")) == 4)
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    active = page.one("#search").get_attribute("aria-activedescendant")
    chosen = page.text(f"#{active} .suggestion-text")
    page.keys(Keys.ENTER)
    page.until(lambda: page.hits() and page.text("#query-title") == chosen)
    # On from the heading to the card's play button would be backwards; the next stop is the first slider's Reset.
    for _ in range(3):
        page.keys(Keys.TAB)
        if page.focused().get_attribute("id") == "weight-genre":
            break
    assert page.focused().get_attribute("id") == "weight-genre"
    page.keys(Keys.END)
    assert page.sliders()["genre"] == 1
    page.js("document.getElementById('tab-results').focus()")
    page.keys(Keys.ARROW_RIGHT)
    assert page.shown("#map")
    assert page.focused().get_attribute("id") == "tab-map"
    page.keys(Keys.ARROW_LEFT, Keys.TAB, Keys.TAB)
    assert page.focused().get_attribute("data-play") == page.hits()[0]
    page.keys(Keys.SPACE)
    page.until(lambda: not page.js("return document.getElementById('audio').paused"))
    page.keys(Keys.SPACE)


def test_every_control_has_a_name_and_every_landmark_is_there(page):
    page.open(track_hash(QUERY))
    page.until(page.hits)
    page.one("#filters summary").click()
    for view in ("results", "map", "compare", "path"):
        page.one(f"#tab-{view}").click()
        nameless = [node for node in page.accessible() if node["role"] in _CONTROLS and not node["name"]]
        assert not nameless
    roles = [node["role"] for node in page.accessible()]
    assert [roles.count(role) for role in ("banner", "main", "search")] == [1, 1, 1]
    assert roles.count("slider") >= 6
    identifiers = page.js("return [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(identifiers) == len(set(identifiers))


@pytest.mark.parametrize("view", ["results", "map", "compare", "path"])
def test_axe_finds_nothing(page, view):
    """axe-core's rules of WCAG 2.1 A and AA, and that labels contain the text that is seen."""
    page.open(track_hash(QUERY, view=view, to=OTHER))
    page.until(page.hits)
    page.one("#filters summary").click()
    if view == "results":
        page.one(".hit .why").click()
        page.one(".hit .play").click()
        page.until(lambda: page.shown("#player"))
    page.js(AXE.read_text(encoding="utf-8"))
    page.browser.set_script_timeout(60)
    options = {
        "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"],
        "rules": {"label-content-name-mismatch": {"enabled": True}},
    }
    report = page.browser.execute_async_script("axe.run(document, arguments[0]).then(arguments[1])", options)
    assert len(report["passes"]) > 15
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in report["violations"]] == []


def test_rows_are_low_and_nothing_in_them_is_cut_off(page):
    page.open(track_hash(QUERY))
    page.until(page.hits)
    heights = page.js("return [...document.querySelectorAll('#results-list .hit')].map((row) => row.offsetHeight)")
    assert max(heights) <= 90
    targets = page.js(
        "return [...document.querySelectorAll('.hit button, .hit summary')].filter((b) => b.checkVisibility())"
        ".map((b) => b.getBoundingClientRect().height)"
    )
    assert min(targets) >= 24  # WCAG 2.2, target size


def test_on_a_phone_the_sliders_stand_beside_the_hits(page):
    size = {"width": 390, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open(track_hash(QUERY))
        page.until(page.hits)
        assert not page.shown("#weight-tempo")
        page.one("#sheet-toggle").click()
        seen = (
            "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return b.top >= 0 && b.bottom <= innerHeight"
        )
        for selector in ("#weight-genre", "#weight-key", "#results-list .hit"):
            page.until(lambda selector=selector: page.js(seen, selector), f"{selector} in view")
        before = page.hits()
        page.slider("genre").send_keys(Keys.HOME)
        page.until(lambda: page.hits() != before)
        page.keys(Keys.ESCAPE)
        assert not page.shown("#weight-tempo") and page.focused().get_attribute("id") == "sheet-toggle"
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_and_contrasts_in_both_schemes(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for view in ("results", "map", "compare", "path"):
            page.open(track_hash(QUERY, view=view, to=OTHER, bpm="80..200"))
            page.until(lambda: page.hits())
            page.js("document.getElementById('sheet-toggle').click()")
            assert page.js("return document.documentElement.scrollWidth") <= 360
            seen, low = page.js(_CONTRASTS)
            assert seen > 30
            assert not low
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
