"""The frame of the benchmarks by hand arithmetic and a clock that the test moves; nothing is timed here.

What the search and scaling sections simulate is compared with what it stands for, and
what they compute from it with loops.
"""

import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic import write_clip

from msim_tf.data.store import FeatureStore
from msim_tf.data.writer import extract_folder
from msim_tf.dimensions import EmbeddingLayout
from msim_tf.embeddings import save_embeddings
from msim_tf.params import FEATURE_PRESETS
from msim_tf.search.index import Index
from msim_tf.search.ranking import normalised

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def frame():
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("tools.bench.frame")
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def bench(frame):
    names = ("peers", "precision", "search", "scaling", "stages", "vectors")
    return SimpleNamespace(**{name: importlib.import_module(f"tools.bench.{name}") for name in names})


class Clock:
    """Seconds that pass only when work is done."""

    def __init__(self):
        self.now, self.order = 100.0, []

    def __call__(self):
        return self.now

    def work(self, name, seconds):
        durations = iter(seconds)

        def call():
            self.order.append(name)
            self.now += next(durations)

        return call


def test_rounds_are_interleaved_and_the_warmup_is_not_counted(frame):
    clock = Clock()
    alternatives = {"a": clock.work("a", [50, 1, 2, 4]), "b": clock.work("b", [70, 2, 8, 4])}
    seconds = frame.measure(alternatives, 3, clock=clock)
    assert "".join(clock.order) == "abababab"
    assert seconds == {"a": [1, 2, 4], "b": [2, 8, 4]}


def test_a_measurement_needs_a_round(frame):
    with pytest.raises(ValueError, match="rounds is 0, expected at least 1"):
        frame.measure({}, 0)


def test_a_ratio_is_taken_within_each_round(frame):
    figure = frame.ratio("b / a", [2, 8, 4], [1, 2, 4], bar=2)  # 2, 4, 1
    assert (figure.value, figure.low, figure.high, figure.met) == (2, 1, 4, True)
    scaled = frame.ratio("b / a", [2, 8], [1, 2], scale=10, unit="%")  # 20, 40
    assert (scaled.value, scaled.low, scaled.high, scaled.unit, scaled.met) == (30, 20, 40, "%", None)


def test_a_ratio_of_unlike_rounds_is_refused(frame):
    with pytest.raises(ValueError, match="shorter"):
        frame.ratio("b / a", [1, 2, 3], [1, 2])


def test_a_rate_is_the_count_over_the_seconds(frame):
    figure = frame.rate(
        "r", [0.5, 2.0, 1.0, 4.0], 8, "seg/s"
    )  # 16, 4, 8, 2: the median of four is the middle of 4 and 8
    assert (figure.value, figure.low, figure.high) == (6, 2, 16)


@pytest.mark.parametrize(
    ("value", "bar", "at_most", "met"),
    [(6, 6, False, True), (5.9, 6, False, False), (1, 1, True, True), (1.1, 1, True, False), (1, None, False, None)],
)
def test_a_bar_is_a_least_or_a_most(frame, value, bar, at_most, met):
    assert frame.Figure("f", value, value, value, bar=bar, at_most=at_most).met is met


def test_a_report_is_read_as_it_was_written(frame, tmp_path):
    figures = (
        frame.ratio("reached", [9.0], [1.0], bar=6, note="read me"),
        frame.spread("missed", [3e-5], unit="abs", bar=5e-6, at_most=True),
        frame.spread("free", [12345.0, 2.0, 7.0], unit="seg/s"),
    )
    report = frame.Report(
        True, frame.environment(), (frame.Section("one", figures, 1.5), frame.Section("none", (), 0.0))
    )
    frame.save_report(tmp_path / "bench.json", report)
    assert frame.load_report(tmp_path / "bench.json") == report
    written = json.loads((tmp_path / "bench.json").read_text())
    assert [row["met"] for row in written["sections"][0]["figures"]] == [True, False, None]
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def test_another_file_is_refused(frame, tmp_path):
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="expected msim-benchmark version 1"):
        frame.load_report(tmp_path / "other.json")


def test_the_table_says_what_is_met_and_what_is_not(frame):
    section = frame.Section("s", (frame.ratio("x", [9.0], [1.0], bar=6), frame.ratio("yy", [9.0], [1.0], bar=24)), 2.0)
    text = frame.table(frame.Report(True, frame.environment(), (section,)))
    lines = text.splitlines()
    assert lines[-3:-2] == ["s (2 s)"]
    assert lines[-2].split() == ["x", "9", "x", "9", "..", "9", "bar", ">=", "6:", "met"]
    assert lines[-1].split() == ["yy", "9", "x", "9", "..", "9", "bar", ">=", "24:", "NOT", "MET"]
    assert f"tensorflow {frame.environment()['versions']['tensorflow']}" in text
    assert "cores" in text
    assert "OPENBLAS_NUM_THREADS" in text


def test_the_exponent_is_that_of_the_power_law(bench):
    sizes = [10, 100, 1000]
    assert bench.scaling.slope(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert bench.scaling.slope([10, 100], [2, 200]) == pytest.approx(2)


def test_a_stage_is_told_round_by_round(bench):
    seconds = {100: [1.0, 2.0], 10: [0.1, 0.02]}  # slopes 1 and 2; 10 and 20 ms per track at 100, 10 and 2 at 10
    memory = [(2**20, 2**19), (3 * 2**20, 2**19)]  # peak, own
    exponent, least, most, peak, own = bench.scaling.figures_of("s", "track", seconds, memory, flat=True)
    assert (exponent.value, exponent.low, exponent.high) == pytest.approx((1.5, 1, 2))
    assert (exponent.bar, exponent.at_most, exponent.met) == (1.1, True, False)
    assert [(f.name, f.value, f.low, f.high, f.unit) for f in (least, most)] == [
        ("s, 10", 6, 2, 10, "ms/track"),
        ("s, 100", 15, 10, 20, "ms/track"),
    ]
    assert (peak.value, peak.met, own.value, own.met) == (3, False, 1, None)
    assert peak.note == "1 MB at 10, 3 MB at 100: 22.76 kB per track"  # 2048 kB / 90


def test_each_size_runs_in_a_process_of_its_own(bench):
    figures = bench.scaling.stage("s", "", math.log10, {10: (10,), 100: (100,)}, 2, warm=math.sqrt)  # 1 and 2 "seconds"
    assert [figure.value for figure in figures[:3]] == pytest.approx([math.log(2) / math.log(10), 1000, 2000])
    assert 0.5 < figures[3].value < 2


def test_a_file_costs_what_the_longer_run_took_beyond_the_shorter(bench):
    programs = [bench.peers.Program(name, list, 4, "") for name in ("msim index", "bliss-audio", "essentia")]
    few, many = [5.0, 6.0, 5.0], [6.5, 7.2, 5.9]  # .5, .4 and .3 for each of three files
    seconds = {"msim index": bench.peers.per_file(few, many, 3), "bliss-audio": [1.0, 0.5, 0.5], "essentia": [8.0] * 3}
    lines = {figure.name: figure for figure in bench.peers.figures(programs, seconds, few)}
    assert (lines["msim index"].value, lines["msim index"].unit) == (pytest.approx(0.4), "s/file")
    assert lines["start of msim index"].value == pytest.approx(4.7)  # 4.5, 5.6 and 4.7
    beside = lines["msim index / bliss-audio"]  # .5, .8 and .6
    assert (beside.value, beside.bar, beside.at_most, beside.met) == (pytest.approx(0.6), 0.55, True, False)
    assert lines["msim index / essentia"].met is None


def test_processor_time_of_what_a_program_leaves_behind_counts(frame):
    burn = "import time; end = time.process_time() + .4\nwhile time.process_time() < end: pass"
    leaves = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {burn!r}], stdout=subprocess.DEVNULL)"
    code = (
        "import sys; from tools.bench import peers; peers.adopt_orphans()\n"
        f"peers.run_program(lambda folder: [sys.executable, '-c', {leaves!r}], '.'); print(peers.seconds_of_children())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.4


def test_overlap_of_nearest_rows_against_a_loop(bench, rng):
    layout = EmbeddingLayout(("genre", "tempo"), (3, 3))
    wide = normalised(rng.normal(size=(40, 6)), layout)
    narrow = normalised(wide + rng.normal(0, 0.1, (40, 6)), layout)

    def nearest(rows, query):
        order = sorted(range(len(rows)), key=lambda row: np.square(rows[row] - rows[query]).sum())
        return {row for row in order if row != query} & set(order[:11])

    expected = [len(nearest(wide, query) & nearest(narrow, query)) / 10 for query in range(40)]
    np.testing.assert_allclose(bench.precision.overlap(wide, narrow), expected)
    lines = {figure.name: figure for figure in bench.precision.figures(wide, narrow, layout)}
    assert lines["top 10, equal weights, all"].value == pytest.approx(np.mean(expected)) and np.mean(expected) < 0.99
    assert lines["top 10, tempo, all"].met is False
    assert all(figure.value == 1 for figure in bench.precision.figures(wide, wide, layout) if figure.bar)


def test_peers_that_are_not_installed_are_left_out_with_the_cure(bench, frame, tmp_path, capsys):
    options = frame.Options(True, "", str(tmp_path), peers_python="/bin/false", musicnn=str(tmp_path))
    assert bench.peers.installed_peers(options) == []
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["bliss-audio", "essentia", "musicnn"]
    assert all("install" in line for line in lines)


def test_drawn_tracks_have_the_mean_and_covariance_of_those_given(bench, rng):
    layout = EmbeddingLayout(("genre", "tempo"), (3, 4))
    tracks = bench.vectors.TrackVectors.fit(layout, rng.normal(1, [1, 2, 0.5, 1, 1, 3, 0.1], (300, 7)), "test")
    drawn = tracks.draw(200_000, rng)
    assert all(0.1 < share < 0.9 for share in tracks.smoothing)
    for part in layout.slices.values():
        np.testing.assert_allclose(drawn[:, part].mean(0), tracks.tracks[:, part].mean(0), atol=0.01)
        np.testing.assert_allclose(np.cov(drawn[:, part].T), np.cov(tracks.tracks[:, part].T), atol=0.01)


def test_dimensions_of_a_drawn_track_belong_together(bench, rng):
    layout = EmbeddingLayout(("genre", "tempo"), (4, 4))
    one = rng.normal(size=(500, 4))
    drawn = bench.vectors.TrackVectors.fit(layout, np.tile(one, 2), "test").draw(5000, rng)
    related = [np.corrcoef(drawn[:, i], drawn[:, 4 + i])[0, 1] for i in range(4)]
    assert min(related) > 0.3  # of independent draws it would be 0 within .05


def test_smoothing_follows_silverman(bench):
    # (4 / ((2 + 2) * 64)) ** (1 / 6) = 64 ** (-1 / 6) at two equal eigenvalues; at one of them
    # it is as if there were one dimension.
    assert bench.vectors.bandwidth(64, np.array([5.0, 5.0])) == pytest.approx(0.5)
    assert bench.vectors.bandwidth(1000, np.array([5.0, 0.0])) == pytest.approx((4 / 3000) ** 0.2)
    assert bench.vectors.bandwidth(1, np.array([1.0, 1.0])) == 0.9


def test_recall_against_a_loop(bench, rng):
    layout = EmbeddingLayout(("genre", "tempo"), (2, 2))
    matrix, queries = (normalised(rng.normal(size=(n, 4)), layout) for n in (40, 30))
    weights = rng.dirichlet([1, 1], 30)
    neighbours = rng.integers(0, 40, (30, 5)).tolist()
    expected = []
    for query, (first, second), rows in zip(queries, weights, neighbours):
        distances = [first * sum((query[:2] - x[:2]) ** 2) + second * sum((query[2:] - x[2:]) ** 2) for x in matrix]
        expected.append(np.mean([row in np.argsort(distances)[:5] for row in rows]))
    shares = bench.search.recall(neighbours, matrix, queries, weights, layout.widths)
    np.testing.assert_allclose(shares, expected)
    assert 0 < shares.mean() < 1


def test_one_of_equally_near_tracks_is_as_good_as_another(bench):
    matrix = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    shares = bench.search.recall([[1], [2]], matrix, matrix[[0, 0]], np.ones((2, 1)), (2,))
    assert shares.tolist() == [1, 0]


def test_the_search_section_measures_what_it_says(bench, frame, tmp_path, monkeypatch):
    monkeypatch.setattr("msim_tf.search.faiss_codes.faiss_installed", lambda: False)
    figures = bench.search.measured(bench.vectors.TrackVectors.load(""), 300, frame.Options(True, "", str(tmp_path)))
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names)
    recalls = [figure for figure in figures if "recall" in figure.name]
    # The peer and the exact engine find all.
    assert [(figure.value, figure.low, figure.met) for figure in recalls] == [(1, 1, True)] * 6
    assert "300 tracks, exact, memory" in names


def test_a_library_is_drawn_as_large_as_asked_for_and_the_same_twice(bench, tmp_path):
    tracks = bench.vectors.TrackVectors.load("")
    one, two = (bench.vectors.write_library(tracks, 9000, tmp_path / name) for name in "ab")  # more than one block
    assert len(one) == 9000
    unit = one.vectors(["track 0", "track 8999"]).reshape(2, 6, 64)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=2), 1, atol=1e-6)
    assert not np.allclose(unit[0], unit[1])
    np.testing.assert_array_equal(one.rows.take(np.arange(9000)), two.rows.take(np.arange(9000)))


def test_vectors_like_those_of_a_file(bench, tmp_path, rng):
    layout = EmbeddingLayout(("genre", "tempo"), (3, 2))
    vectors = rng.normal(size=(50, 5)).astype(np.float32)
    save_embeddings(tmp_path / "x.npz", identifiers=list(map(str, range(50))), embeddings=vectors, layout=layout)
    tracks = bench.vectors.TrackVectors.load(str(tmp_path / "x.npz"))
    assert (tracks.layout, tracks.kind) == (layout, "like 50 real ones")
    np.testing.assert_allclose(tracks.tracks, normalised(vectors, layout))


def test_a_simulated_store_is_a_store(bench, store, tmp_path):
    (tmp_path / "store").symlink_to(store.path)
    bench.stages.make_store(str(tmp_path), str(tmp_path / "many"), 31)
    many = FeatureStore(tmp_path / "many")
    assert (len(many), len(many.labels.values), len(set(many.labels.groups.values()))) == (31, 31, 4)
    assert sorted(set(many.shards.tolist())) == [0, 1, 2]
    for index in (0, 11, 12, 30):
        np.testing.assert_array_equal(many.read_clip(index).mel, store.read_clip(index % 12).mel)
    arguments = str(tmp_path), str(tmp_path / "many"), 31
    assert bench.stages.prepare(*arguments) > 0
    assert bench.stages.epoch(*arguments) > 0


def test_extraction_of_links_leaves_nothing_behind(bench, clips_folder, tmp_path):
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "0.wav", 4, 0, sr=22050)
    assert bench.stages.extract(str(tmp_path), str(tmp_path / "files"), 3) > 0
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == ["music"]
    assert len(list((tmp_path / "files" / "music").rglob("*.wav"))) == 3


def test_a_simulated_index_grows_batch_by_batch_and_answers(bench, tmp_path):
    assert bench.stages.index(str(tmp_path), 430, "") > 0
    index = Index.open(tmp_path / "grown")
    assert (len(index), len(index.rows), len(list((tmp_path / "grown").iterdir()))) == (430, 430, 3)
    assert index.metadata("Artist 42/Title 429.mp3") == {"artist": "Artist 42", "year": 1990}
    assert bench.stages.query(str(tmp_path), 430, "", "exact") > 0


def test_the_recipe_of_three_steps_gives_the_store_of_the_whole(clips_folder, tmp_path):
    (recipe,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "scaling.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "music").symlink_to(clips_folder)
    (tmp_path / "recipe.py").write_text(recipe)
    done = subprocess.run(
        [sys.executable, "recipe.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    extract_folder(clips_folder, tmp_path / "whole", FEATURE_PRESETS["paper"])
    parts, whole = FeatureStore(tmp_path / "store"), FeatureStore(tmp_path / "whole")
    assert parts.identifiers == whole.identifiers and len(parts) == 8  # four are shorter than a segment
    for index in range(len(parts)):
        for name in ("mel", "onset", "cens"):
            np.testing.assert_array_equal(getattr(parts.read_clip(index), name), getattr(whole.read_clip(index), name))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "shards").iterdir()}
    again = extract_folder(tmp_path / "music", tmp_path / "store", FEATURE_PRESETS["paper"])
    assert again.clips == 8 and len(again.failures) == 4  # nothing is extracted again
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "shards").iterdir()} == before
