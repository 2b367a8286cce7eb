"""Other programs that analyse music, beside ``msim index`` with its words: processor seconds per four-minute mp3.

Each runs as a whole process on one core, by turns over few files and over more; the difference per file is what a file
costs after the program's start. Processor time is that of the program and of every process that it starts: those that
it leaves behind are waited for too. What is not installed is left out, and a line says how to install it.

musicnn is computed by ``tools/musicnn_embeddings.py``, which decodes as msim does. All others decode for themselves.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.bench import clips, frame

_ROOT = Path(__file__).parents[2]
_SECONDS = 240
_FEW = 1
_MANY_SLOW = 3
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_BAR = 0.55


@dataclass(frozen=True)
class Program:
    """A program that analyses files.

    Attributes:
        name: in the report.
        command: a folder of files to the command that analyses them all.
        many: files of its longer runs; fewer for those that take long.
        note: its version, and what it makes of a file.
    """

    name: str
    command: Callable[[Path], list[str]]
    many: int
    note: str


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    return frame.in_pinned_process(1, measured, options)


def measured(options: frame.Options) -> list[frame.Figure]:
    """The figures of all programs that are there; in a process that has no other children."""
    adopt_orphans()
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    programs = [_msim(options), *installed_peers(options)]
    scratch = Path(options.scratch)
    songs = clips.make_songs(
        options.music, max(program.many for program in programs), scratch / "all", seconds=_SECONDS
    )
    folders = {count: _folder(songs[:count], scratch / str(count)) for count in {_FEW, *(p.many for p in programs)}}

    few, many = "{}, few".format, "{}, many".format
    alternatives: dict[str, Callable[[], object]] = {}
    for program in programs:
        alternatives[few(program.name)] = functools.partial(run_program, program.command, folders[_FEW])
        alternatives[many(program.name)] = functools.partial(run_program, program.command, folders[program.many])
    runs = frame.measure(alternatives, 3 if options.quick else 5, clock=seconds_of_children)

    seconds = {p.name: per_file(runs[few(p.name)], runs[many(p.name)], p.many - _FEW) for p in programs}
    return figures(programs, seconds, runs[few("msim index")])


def per_file(few: list[float], many: list[float], files: int) -> list[float]:
    """What one of the files costs that only the longer runs had, round by round: seconds."""
    return [(longer - shorter) / files for shorter, longer in zip(few, many, strict=True)]


def figures(programs: list[Program], seconds: dict[str, list[float]], few: list[float]) -> list[frame.Figure]:
    """The report of processor seconds per file, by program and round.

    Args:
        programs: msim's own first.
        seconds: per file, by program.
        few: of the whole of ``msim index`` over ``_FEW`` files.
    """
    ours = seconds["msim index"]
    start = [whole - _FEW * one for whole, one in zip(few, ours, strict=True)]
    lines = [frame.spread(p.name, seconds[p.name], unit="s/file", note=p.note) for p in programs]
    lines.append(frame.spread("start of msim index", start, unit="s", note="once per run"))
    for program in programs[1:]:
        bar: dict[str, Any] = {"bar": _BAR, "at_most": True} if program.name == "bliss-audio" else {}
        lines.append(frame.ratio(f"msim index / {program.name}", ours, seconds[program.name], **bar))
    return lines


def _msim(options: frame.Options) -> Program:
    from msim_tf.export.metadata import load_metadata
    from msim_tf.settings import SHIPPED_MODEL

    metadata = load_metadata(options.model or SHIPPED_MODEL)
    library = Path(options.scratch) / "library"

    def command(folder: Path) -> list[str]:
        # Each run makes a library from nothing.
        shutil.rmtree(library, ignore_errors=True)
        arguments = ["index", str(folder), str(library), "--model", str(metadata.directory)]
        return [sys.executable, "-m", "msim_tf", *arguments]

    words = "with its words" if metadata.classes else "which has no words"
    note = f"{metadata.name} version {metadata.directory.name}, {words}"
    return Program("msim index", command, 4 if options.quick else 8, note)


def installed_peers(options: frame.Options) -> list[Program]:
    """The peers that are installed; of the others it says how to get them."""
    python, script = options.peers_python or sys.executable, str(Path(__file__).with_name("peer.py"))
    programs = []
    for name, many in (("bliss-audio", 4 if options.quick else 8), ("essentia", _MANY_SLOW)):
        probe = subprocess.run([python, script, name], capture_output=True, text=True, check=False)
        if probe.returncode:
            _say_left_out(name, f"{python} -m pip install {name}, or name a Python that has it by --peers-python")
            continue

        def command(folder: Path, name: str = name) -> list[str]:
            return [python, script, name, *map(str, sorted(folder.iterdir()))]

        programs.append(Program(name, command, many, f"version {probe.stdout.strip()}"))
    weights = Path(options.musicnn) / "MSD_musicnn"
    if not options.musicnn or not weights.is_dir():
        wheel = "pip install --no-deps --target wheel musicnn"
        _say_left_out("musicnn", f"{wheel}, and name its folder by --musicnn wheel/musicnn")
        return programs
    vectors = Path(options.scratch) / "musicnn.npz"

    def musicnn(folder: Path) -> list[str]:
        tool = str(_ROOT / "tools" / "musicnn_embeddings.py")
        return [sys.executable, tool, "--weights", str(weights), "--audio", str(folder), "--out", str(vectors)]

    return [*programs, Program("musicnn", musicnn, _MANY_SLOW, "MSD_musicnn, by tools/musicnn_embeddings.py")]


def _say_left_out(name: str, cure: str) -> None:
    print(f"peers: {name} is left out; {cure}", file=sys.stderr, flush=True)


def _folder(songs: list[Path], folder: Path) -> Path:
    """A folder of these files, which are not copied."""
    folder.mkdir()
    for song in songs:
        os.link(song, folder / song.name)
    return folder


def adopt_orphans() -> None:
    """Makes this process the parent of every process below it whose own parent has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_program(command_of: Callable[[Path], list[str]], folder: Path) -> None:
    """Runs a program over a folder and waits for what it leaves behind, which ``adopt_orphans`` made its own.

    Raises:
        RuntimeError: if the program fails, with the last line that it said.
    """
    command = command_of(folder)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ...: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def seconds_of_children() -> float:
    """Processor time of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
