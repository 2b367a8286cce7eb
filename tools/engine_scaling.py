"""What a cluster adds to each track, and what grows with their number: `msim extract` alone and on a Spark cluster.

    python -m tools.engine_scaling SCRATCH --clips 1000 10000 100000

The cluster is a genuine standalone one: a master and two workers of one core each, on loopback. Clips are synthetic, of
3 s, a thousand different ones under as many names as are wanted. Prints, for each number of clips and each way,
processor seconds of all processes, seconds of wall clock, the driver's memory, the store's size, and how long the
store takes to open; then the exponents between the smallest and the largest number. SCRATCH holds up to 40 kB per clip.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tools.spark_cluster import ROOT, SparkCluster, missing

_DIFFERENT, _PER_FOLDER, _SECONDS, _SR = 1000, 1000, 3.05, 22050
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_MB = resource.getpagesize() / 1e6
_OPEN = """
import resource, sys, time
from msim_tf.data.store import FeatureStore
memory = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
before, begun = memory(), time.perf_counter()
store = FeatureStore(sys.argv[1])
print(time.perf_counter() - begun, memory() - before, len(store.identifiers))
"""


@dataclass(frozen=True)
class Run:
    """One extraction.

    Attributes:
        clips: how many.
        engine: "plain" or "spark".
        processor: seconds of all processes.
        wall: seconds.
        driver_mb: largest memory of the command's own process.
        store_mb: on disk.
        open_seconds: until the store is open.
        open_mb: what that takes.
    """

    clips: int
    engine: str
    processor: float
    wall: float
    driver_mb: float
    store_mb: float
    open_seconds: float
    open_mb: float


def main() -> int:
    """Runs all of it and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--clips", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--engines", nargs="+", choices=["plain", "spark"], default=["plain", "spark"])
    options = parser.parse_args()
    if "spark" in options.engines and missing():
        parser.error(missing())
    options.scratch.mkdir(parents=True, exist_ok=True)
    sounds = _make_sounds(options.scratch / "sounds")
    runs = []
    print("clips engine processor_s ms_per_clip wall_s driver_MB store_MB open_s open_MB", flush=True)
    for clips in options.clips:
        music = _make_music(options.scratch / f"music-{clips}", sounds, clips)
        for engine in options.engines:
            run = _measured(music, options.scratch / "work", clips, engine)
            runs.append(run)
            print(
                f"{clips:,} {engine} {run.processor:.1f} {1e3 * run.processor / clips:.1f} {run.wall:.1f} "
                f"{run.driver_mb:.0f} {run.store_mb:.0f} {run.open_seconds:.2f} {run.open_mb:.0f}",
                flush=True,
            )
        shutil.rmtree(music)
    for engine in options.engines:
        _print_exponents(engine, [run for run in runs if run.engine == engine])
    return 0


def _make_sounds(folder: Path) -> list[Path]:
    """Different clips: a tone of its own pitch, which pulses, with noise."""
    folder.mkdir(exist_ok=True)
    time_axis = np.arange(int(_SECONDS * _SR)) / _SR
    paths = []
    for number in range(_DIFFERENT):
        path = folder / f"{number:04d}.wav"
        if not path.exists():
            rng = np.random.default_rng(number)
            tone = np.sin(2 * np.pi * rng.uniform(100, 2000) * time_axis)
            pulse = (1 + np.sin(2 * np.pi * rng.uniform(1, 3) * time_axis)) / 2
            soundfile.write(path, 0.3 * tone * pulse + rng.normal(0, 0.01, len(time_axis)), _SR)
        paths.append(path)
    return paths


def _make_music(folder: Path, sounds: Sequence[Path], clips: int) -> Path:
    """As many names as are wanted, by hard links; no folder holds more than a thousand."""
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(clips):
        if number % _PER_FOLDER == 0:
            (folder / f"{number // _PER_FOLDER:04d}").mkdir(parents=True)
        os.link(sounds[number % len(sounds)], folder / f"{number // _PER_FOLDER:04d}" / f"{number:07d}.wav")
    return folder


def _measured(music: Path, work: Path, clips: int, engine: str) -> Run:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    cluster = SparkCluster(work) if engine == "spark" else None
    try:
        begun = time.monotonic()
        process = _command(cluster, music, work / "store")
        watcher = _Watcher(process.pid, [process.pid, *(cluster.sessions if cluster else [])])
        output, errors = process.communicate()
        wall = time.monotonic() - begun
        processor, memory = watcher.stop()
        if process.returncode:
            raise RuntimeError(f"{output}\n{errors}")
    finally:
        if cluster:
            cluster.close()
    opened = subprocess.run(
        [sys.executable, "-c", _OPEN, str(work / "store")],
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, megabytes, count = map(float, opened.stdout.split())
    if count != clips:
        raise RuntimeError(f"the store has {count:.0f} clips, not {clips}")
    size = sum(path.stat().st_size for path in (work / "store").rglob("*") if path.is_file()) / 1e6
    shutil.rmtree(work)
    return Run(clips, engine, processor, wall, memory, size, seconds, megabytes)


def _command(cluster: SparkCluster | None, music: Path, store: Path) -> subprocess.Popen:
    if cluster is not None:
        return cluster.driver("extract", music, store)
    command = [sys.executable, "-m", "msim_tf", "extract", str(music), str(store)]
    return subprocess.Popen(
        command,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


class _Watcher:
    """Reads, twice a second, the processor time of all processes of sessions and the memory of one process.

    Time of a process that lives for less than half a second is missed. Nothing else would do: Spark's executors and the
    Python processes of theirs end without being waited for.

    Args:
        pid: the process whose memory is watched.
        sessions: whose processes are watched.
    """

    def __init__(self, pid: int, sessions: Sequence[int]) -> None:
        self._pid, self._sessions = pid, set(sessions)
        self._ticks: dict[tuple[int, int], int] = {}  # (pid, start) -> ticks so far
        self._largest, self._ended = 0.0, threading.Event()
        self._read()
        self._before = sum(self._ticks.values())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            self._read()

    def _read(self) -> None:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[3]) in self._sessions:
                    self._ticks[int(stat.parent.name), int(fields[19])] = int(fields[11]) + int(fields[12])
        with suppress(OSError):
            pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
            self._largest = max(self._largest, pages * _PAGE_MB)

    def stop(self) -> tuple[float, float]:
        """Processor seconds since the start, and the largest memory in MB."""
        self._ended.set()
        self._thread.join()
        return (sum(self._ticks.values()) - self._before) / _TICKS, self._largest


def _print_exponents(engine: str, runs: Sequence[Run]) -> None:
    """How each figure grows with the number of clips n: as n to the power of."""
    if len(runs) < 2:
        return
    first, last = runs[0], runs[-1]
    steps = math.log(last.clips / first.clips)
    for name in ("processor", "wall", "driver_mb", "store_mb", "open_seconds"):
        exponent = math.log(getattr(last, name) / getattr(first, name)) / steps
        print(f"{engine} {name}: n^{exponent:.2f} from {first.clips:,} to {last.clips:,} clips")
    per_clip = 1e3 * (last.processor - first.processor) / (last.clips - first.clips)
    print(f"{engine}: {per_clip:.2f} ms of processor time per clip beyond the first {first.clips:,}")


if __name__ == "__main__":
    sys.exit(main())
