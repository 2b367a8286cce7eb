"""The frame of the benchmarks by hand arithmetic and a clock that the test moves; nothing is timed here."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def frame():
    sys.path.insert(0, str(ROOT))
    try:
        yield importlib.import_module("tools.bench.frame")
    finally:
        sys.path.remove(str(ROOT))


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
