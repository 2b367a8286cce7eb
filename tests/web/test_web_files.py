"""Files that are dropped on the web page: found by, listened to, refused with a reason."""

import base64

import pytest
import soundfile

pytest.importorskip("selenium", reason="needs selenium: pip install selenium")

from web_library import MOST_BYTES
from web_page import track_hash

pytestmark = pytest.mark.slow  # a browser, and a server with a model behind it

QUERY = "hedgewars__art.ogg"
OTHER = "colobot__music004.ogg"


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
    player = "const a = document.getElementById('audio'); return [a.currentTime, a.src]"
    page.until(lambda: page.js(player)[0] > 0.2, "the file itself is heard")
    source = page.js(player)[1]
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
