"""The frame of all benchmarks: what is measured how, and how it is reported. Standard library only.

Alternatives are timed in interleaved rounds, A B C A B C ..., so that whatever else the machine does falls on all of
them. A ratio is taken within each round; the figure is the median over the rounds, with the least and the greatest
beside it. A *bar* is what a figure was meant to reach; whether it did is printed, never asserted.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT = "msim-benchmark"
FORMAT_VERSION = 1
_PACKAGES = ("msim-tf", "tensorflow", "keras", "numpy", "librosa", "soundfile", "soxr", "grpcio", "httpx", "faiss-cpu")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


@dataclass(frozen=True)
class Options:
    """What every section is told.

    Attributes:
        quick: small sizes and few rounds, some five minutes in all.
        music: folder of sound files.
        scratch: an empty directory, removed afterwards.
        serving: "host:port" of the gRPC API of a real TensorFlow Serving that serves ``model``; "" for none.
        model: exported model to serve, ``saved_models/NAME``; "" for a small untrained one.
        embeddings: npz of real tracks whose like the search sections draw; "" for synthetic ones.
        store: labelled feature store to read from, only read; "" for a small one of ``music``.
        peers_python: interpreter that has the peers of the section ``peers``; "" for this one.
        musicnn: folder ``musicnn`` of the unpacked wheel; "" for none.
    """

    quick: bool
    music: str
    scratch: str
    serving: str = ""
    model: str = ""
    embeddings: str = ""
    store: str = ""
    peers_python: str = ""
    musicnn: str = ""


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Attributes:
        name: what was measured.
        value: the median over the rounds.
        low: the least.
        high: the greatest.
        unit: "x" for a ratio.
        bar: what it was meant to reach; None for a figure without a bar.
        at_most: the bar is an upper limit.
        note: how to read it.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str = "x"
    bar: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the bar; None without a bar."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar


@dataclass(frozen=True)
class Section:
    """What one section measured: its figures, and how long it took in seconds."""

    name: str
    figures: tuple[Figure, ...]
    seconds: float


@dataclass(frozen=True)
class Report:
    """One run: where, and what came of it."""

    quick: bool
    environment: dict[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()


def run_section(name: str, options: Options) -> Section:
    """Imports the module of one section and runs it in this process."""
    begun = time.perf_counter()
    figures = importlib.import_module(f"tools.bench.{name}").run(options)
    return Section(name, tuple(figures), time.perf_counter() - begun)


def pinned_process(cores: int) -> ProcessPoolExecutor:
    """A process for functions to run in, confined to so many cores before any library starts its threads."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_pin, initargs=(cores,))


def in_pinned_process(cores: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls ``function`` in such a process."""
    with pinned_process(cores) as process:
        return process.submit(function, *arguments).result()


def _pin(cores: int) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def measure(
    alternatives: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    warmup: int = 1,
    pause: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Times alternatives in interleaved rounds.

    Args:
        alternatives: what to call, by name.
        rounds: how often each is timed; at least 1.
        warmup: untimed rounds before.
        pause: seconds of rest before each is timed, so that what one leaves running does not fall on the next.
        clock: returns seconds.

    Returns:
        Seconds of each round, by name.

    Raises:
        ValueError: if ``rounds`` is less than 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}, expected at least 1")
    for _ in range(warmup):
        for call in alternatives.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, call in alternatives.items():
            time.sleep(pause)
            begun = clock()
            call()
            seconds[name].append(clock() - begun)
    return seconds


def spread(name: str, values: Sequence[float], **rest: Any) -> Figure:
    """Median, least and greatest of ``values``; ``rest`` are further fields of the figure."""
    return Figure(name, statistics.median(values), min(values), max(values), **rest)


def ratio(name: str, slower: Sequence[float], faster: Sequence[float], *, scale: float = 1.0, **rest: Any) -> Figure:
    """How many times longer ``slower`` took, round by round, times ``scale``."""
    return spread(name, [scale * a / b for a, b in zip(slower, faster, strict=True)], **rest)


def rate(name: str, seconds: Sequence[float], count: float, unit: str, **rest: Any) -> Figure:
    """``count`` per second."""
    return spread(name, [count / value for value in seconds], unit=unit, **rest)


def environment() -> dict[str, Any]:
    """Versions, processor, cores, thread settings, and how busy the machine was before."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "threads": {name: os.environ.get(name, "one per core") for name in _THREADS},
        "versions": versions,
    }


def table(report: Report) -> str:
    """The report as text."""
    return "\n\n".join([_heading(report), *(section_table(section) for section in report.sections)])


def section_table(section: Section) -> str:
    """One section as text: figure, spread, bar, verdict, note."""
    width = max((len(figure.name) for figure in section.figures), default=0)
    lines = [f"{section.name} ({section.seconds:.0f} s)"]
    for figure in section.figures:
        low_high = f"{_number(figure.low)} .. {_number(figure.high)}"
        line = f"  {figure.name:<{width}} {_number(figure.value):>9} {figure.unit:<10} {low_high:<20} "
        lines.append(f"{line}{_verdict(figure):<26}{figure.note}".rstrip())
    return "\n".join(lines)


def save_report(path: str | Path, report: Report) -> None:
    """Writes the report as JSON, each figure with its verdict."""
    value = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(report)}
    for section, written in zip(report.sections, value["sections"], strict=True):
        for figure, row in zip(section.figures, written["figures"], strict=True):
            row["met"] = figure.met
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_report(path: str | Path) -> Report:
    """The inverse of ``save_report``.

    Raises:
        ValueError: if it is no such file.
    """
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    if (value.get("format"), value.get("format_version")) != (FORMAT, FORMAT_VERSION):
        raise ValueError(f"{path}: expected {FORMAT} version {FORMAT_VERSION}")
    names = {field.name for field in dataclasses.fields(Figure)}
    sections = [
        Section(
            section["name"],
            tuple(Figure(**{k: v for k, v in row.items() if k in names}) for row in section["figures"]),
            section["seconds"],
        )
        for section in value["sections"]
    ]
    return Report(value["quick"], value["environment"], tuple(sections))


def _heading(report: Report) -> str:
    facts = report.environment
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    threads = ", ".join(f"{name}={value}" for name, value in facts["threads"].items())
    quick = " (quick run: few rounds)" if report.quick else ""
    return (
        f"{facts['processor']}, {facts['cores']} cores, load before {facts['load_before']}; "
        f"Python {facts['python']}, {versions}\n"
        f"threads: {threads}\n"
        f"figure: median over interleaved rounds, least .. greatest, bar{quick}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _number(value: float) -> str:
    if value and abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _verdict(figure: Figure) -> str:
    if figure.bar is None:
        return ""
    sign = "<=" if figure.at_most else ">="
    return f"bar {sign} {_number(figure.bar)}: {'met' if figure.met else 'NOT MET'}"
