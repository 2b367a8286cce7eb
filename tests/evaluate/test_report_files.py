"""Figures and the report: what is on them is what was computed, whatever the identifiers look like."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate import plots
from msim_tf.evaluate.disentanglement import disentanglement
from msim_tf.evaluate.report import Report, audio_href, worst_triplets, write_report
from msim_tf.evaluate.retrieval import neighbour_scores, retrieval
from msim_tf.evaluate.tables import SystemFacts, subset_scores
from msim_tf.evaluate.triplet_scores import score_systems
from msim_tf.evaluate.triplets import Triplets, clip_reading

HOSTILE = "<script>alert('x')</script>&\"|\n"
SCORES = dict(zip(DIMENSION_NAMES, (0.75, 0.7, 0.69, 0.76, 0.58, 0.64)))


class _Page(HTMLParser):
    """Collects what a browser would fetch or run, the text, and whether every element is closed."""

    VOID = frozenset({"meta", "line", "circle", "path", "use", "br", "input", "link", "img", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.targets: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.targets += [value for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _page(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def report() -> Report:
    rng = np.random.default_rng(2)
    names = (HOSTILE, *(f"track {row}" for row in range(19)))
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 12)
    ours = Embeddings(f"ours {HOSTILE}", names, rng.standard_normal((20, 12)).astype(np.float32), layout)
    other = Embeddings("baseline", names, rng.standard_normal((20, 3)).astype(np.float32))
    members = [tuple(names[row] for row in rng.choice(20, 3, replace=False)) for _ in range(60)]
    members += [(HOSTILE, names[1], names[2]), ("lost", names[1], names[2])]
    anchor, positive, negative = zip(*members)
    ids = tuple(f"t{row}" for row in range(62))
    starts = np.tile([1.0, 2.5, 0.0], (62, 1))
    triplets = Triplets("synthetic", ids, anchor, positive, negative, np.full(62, 0.9), starts, 3.0)
    labels = rng.integers(0, 2, 20)
    relations = {
        name: np.where(labels[:, None] == labels, 1, -1).astype(np.int8) for name in DIMENSION_NAMES if name != "mood"
    }
    relations["mood"] = np.zeros((20, 20), np.int8)
    return Report(
        f"Title {HOSTILE}",
        facts={"data": HOSTILE},
        results=tuple(score_systems(triplets, [ours, other])),
        baseline="baseline",
        systems={"baseline": SystemFacts(4, "mel", 256, 1000, 2.0)},
        subsets=subset_scores(triplets, ours),
        matrix=disentanglement(ours, relations),
        retrieval=tuple(retrieval(ours, relations, k=3)),
        neighbours=tuple(neighbour_scores(ours, tempo=[100.0] * 20, key=["C major"] * 20)),
        audio={name: f"/music/{name}.mp3" for name in names[1:]},
        notes=(HOSTILE,),
    )


def test_the_page_is_whole_safe_and_self_contained(report, tmp_path):
    page = _page(write_report(report, tmp_path / "report"))
    assert "script" not in page.tags and "iframe" not in page.tags
    assert page.text.count("<script>alert('x')</script>") >= 4
    outside = [target for target in page.targets if not target.startswith(("./", "../", "#"))]
    assert outside == ["report.json"]
    assert "audio" in page.tags
    assert f"{report.results[0].score:.4f}" in page.text and "1 dropped" in page.text
    source = (tmp_path / "report" / "report.html").read_text()
    assert "@import" not in source and "url(" not in source.replace("url(#", "")


def test_json_says_what_was_computed(report, tmp_path):
    write_report(report, tmp_path)
    actual = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    ours = actual["systems"][0]
    assert (ours["score"], ours["N"]) == (report.results[0].score, 61)
    assert ours["missing"] == ["lost"]
    assert actual["single_dimensions"] == report.subsets.singles
    assert len(actual["tables"]["table2"]["rows"]) == 63
    assert len(actual["worst_triplets"]) == 10
    mood = [cell for cell in actual["disentanglement"]["cells"] if cell["kind"] == "mood"]
    assert all(cell["accuracy"] is None for cell in mood)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.html", "report.json", "kiviat.png", "kiviat.svg", "matrix.png", "matrix.svg"),
        *(f"{name}.{suffix}" for name in ("table1", "table2", "table2_best") for suffix in ("md", "csv", "json")),
    }


def test_headlines_are_intervals_over_queries_and_no_p_values(report, tmp_path):
    ours, baseline = report.results
    text = " ".join(_page(write_report(report, tmp_path)).text.split())
    first_screen = text[: text.index("Table 1")]
    # Sums of the errors of each anchor, as their own sample: by hand, without the tested function.
    errors = {}
    for anchor, right in zip(ours.triplets.anchor, ours.correct):
        errors[anchor] = errors.get(anchor, 0.0) + right - ours.score
    variance = sum(error**2 for error in errors.values()) / len(ours.correct) ** 2 * len(errors) / (len(errors) - 1)
    half = stats.t.ppf(0.975, len(errors) - 1) * variance**0.5
    assert f"95 % interval {ours.score - half:.3f} to {ours.score + half:.3f}" in first_screen
    assert f"of {len(errors)} queries" in first_screen
    assert f"{ours.score - baseline.score:+.3f} against baseline".replace("-", "−") in first_screen
    assert "McNemar" not in first_screen
    saved = json.loads((tmp_path / "report.json").read_text())["systems"][0]
    assert saved["queries95"] == pytest.approx([ours.score - half, ours.score + half])
    assert saved["queries"] == len(errors)


def test_a_report_with_nothing_in_it_is_still_a_page(tmp_path):
    page = _page(write_report(Report("Empty"), tmp_path))
    assert "Empty" in page.text and "h2" not in page.tags


def test_worst_triplets_are_wrong_and_in_order(report, tmp_path):
    result = report.results[0]
    failures = worst_triplets(result, tmp_path, audio=report.audio, count=1000)
    assert len(failures) == int((~result.correct).sum())
    margins = [(failure.near - failure.far) / (failure.near + failure.far) for failure in failures]
    assert margins == sorted(margins, reverse=True) and margins[-1] >= 0
    linked = next(
        failure for failure in failures if HOSTILE not in (failure.anchor.identifier, failure.positive.identifier)
    )
    assert linked.anchor.href.endswith(".mp3#t=1,4") and linked.positive.href.endswith("#t=2.5,5.5")
    perfect = score_systems(
        Triplets("one", ("t",), ("a",), ("b",), ("c",), np.array([np.nan])),
        [Embeddings("line", ("a", "b", "c"), np.array([[0.0], [1.0], [2.0]], np.float32))],
    )[0]
    assert worst_triplets(perfect, tmp_path) == ()


def test_clips_link_to_their_track(tmp_path):
    triplets = Triplets(
        "one", ("t",), ("a",), ("b",), ("c",), np.array([0.9]), np.array([[1.0, 2.0, 3.0]]), clip_seconds=3.0
    )
    system = Embeddings("line", ("a@1", "b@2", "c@3"), np.array([[0.0], [2.0], [1.0]], np.float32))
    (result,) = score_systems(clip_reading(triplets), [system])
    (failure,) = worst_triplets(result, tmp_path, audio={"a": tmp_path / "a b.mp3"})
    assert failure.anchor.href == "./a%20b.mp3#t=1,4"
    assert failure.positive.href is None


@pytest.mark.parametrize(
    ("target", "href"),
    [
        ("/music/ü #1.mp3", "./../music/%C3%BC%20%231.mp3"),
        (Path("/out/x:y.mp3"), "./x%3Ay.mp3"),
        ("https://example.org/a.mp3", "https://example.org/a.mp3"),
        ("javascript:alert(1)", None),
        ("data:text/html,x", None),
        (None, None),
    ],
)
def test_links_are_files_or_http(target, href):
    assert audio_href(target, Path("/out")) == href


def _pixels(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)).convert("RGB"))


def test_the_kiviat_polygon_stands_where_the_scores_are():
    figure = plots.kiviat({"multi384": SCORES})
    (axes,) = figure.axes
    line = next(line for line in axes.lines if line.get_marker() == "o")
    # Centre 0.4, rim 0.8; the first spoke points up, the fourth down.
    radii = np.hypot(*line.get_data())
    np.testing.assert_allclose(radii[:6], (np.array(list(SCORES.values())) - 0.4) / 0.4)
    np.testing.assert_allclose([line.get_xdata()[0], line.get_xdata()[3]], 0, atol=1e-12)
    assert line.get_ydata()[0] > 0 > line.get_ydata()[3]
    shown = {text.get_text() for text in axes.texts}
    assert {*DIMENSION_NAMES, "0.750", "0.580"} <= shown
    assert (_pixels(plots.png(figure)) != 255).any()


def test_figures_as_svg_and_as_array():
    figure = plots.kiviat({"a": SCORES, "b": {name: score - 0.3 for name, score in SCORES.items()}})
    vector = plots.svg(figure, text=True)
    ElementTree.fromstring(vector)
    assert b"instrument" in vector and vector == plots.svg(figure, text=True)
    assert b">instrument<" not in plots.svg(figure)
    array = plots.rgba(figure, dpi=60)
    assert array.dtype == np.uint8 and array.shape == (288, 312, 4)
    # The first series' colour is on it.
    assert (np.abs(array[..., :3].astype(int) - (0, 114, 178)).sum(axis=2) < 12).any()


def test_the_heat_map_carries_its_numbers(report):
    figure = plots.heat_map(report.matrix, title="matrix")
    shown = {text.get_text() for text in figure.axes[0].texts}
    assert f"{report.matrix.accuracy[0, 0]:.2f}" in shown and "–" in shown
    assert plots.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ({}, "0 systems"),
        ({"a": {"genre": 0.5, "mood": 0.5}}, "three or more dimensions"),
        ({"a": SCORES, "b": dict(list(SCORES.items())[:5])}, "three or more dimensions"),
        ({"a": {**SCORES, "key": np.nan}}, r"must lie in \[0, 1\]"),
        ({"a": {**SCORES, "key": 83.8}}, r"must lie in \[0, 1\]"),
    ],
)
def test_a_kiviat_needs_comparable_scores(series, message):
    with pytest.raises(InputError, match=message):
        plots.kiviat(series)
