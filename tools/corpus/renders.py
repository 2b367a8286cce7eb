"""Builds the exactly labelled part of the corpus: mma composes over progressions of ours,
fluidsynth plays, and every label is known.

Run ``python -m tools.corpus.renders --corpus ROOT``. Killed at any moment, it goes on from there when
run again; with a larger ``--clips`` it continues the same plan. It needs mma, fluidsynth and three
sound fonts, which Debian and Ubuntu carry.

Labels: genre from the style file, instrument from the programs that are prominent, tempo and key as written. What is
free to vary varies independently (``tools.corpus.renders_plan``).
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import numpy as np

from msim_tf.errors import InputError
from tools.corpus.command import reported
from tools.corpus.ledger import SR, CorpusClip, Ledger, sha256
from tools.corpus.renders_midi import LIBRARY, Song, prominent_families, song, write_midi
from tools.corpus.renders_mix import SOUND_FONTS, mixed, rendered
from tools.corpus.renders_plan import Recipe, recipe

APT_LINE = "apt-get install mma fluidsynth fluid-soundfont-gm timgm6mb-soundfont musescore-general-soundfont"
_QUIETEST = 1e-4  # peak of the dry sound, below which something is wrong


def missing_programs() -> list[str]:
    """What must be installed and is not."""
    missing = [program for program in ("mma", "fluidsynth") if shutil.which(program) is None]
    if not missing and not LIBRARY.is_dir():
        missing.append(str(LIBRARY))
    return missing + [str(font.path) for font in SOUND_FONTS.values() if not font.path.is_file()]


def render(plan: Recipe, *, seed: int = 0) -> tuple[CorpusClip, np.ndarray]:
    """Makes one clip.

    Returns:
        Its record, and [samples] float, mono at ``SR``.

    Raises:
        InputError: if mma or fluidsynth fail, or nothing is heard.
    """
    rng = plan.rng("mix", seed)
    with tempfile.TemporaryDirectory(prefix="msim-render-") as folder:
        composed = song(plan, Path(folder), seed=seed)
        midi = Path(folder) / "clip.mid"
        levels = {role: rng.randint(80, 115) for role in sorted({note.role for note in composed.notes})}
        write_midi(composed, midi, levels=levels)
        y = rendered(midi, SOUND_FONTS[plan.font])
        checksum = sha256(midi)
    # Anywhere in the first bar, after its attack, so that clips do not all begin on a downbeat.
    start = rng.uniform(0.1, 0.1 + plan.style.beats * 60 / composed.tempo)
    y = y[int(start * SR) :][: int(plan.seconds * SR)]
    if len(y) < SR * (plan.seconds - 2) or np.abs(y).max() < _QUIETEST:
        raise InputError(f"{plan.style.name}, groove {plan.groove}: nothing, or too little, was heard")
    return _record(plan, composed, start, checksum), mixed(y, rng)


def _record(plan: Recipe, composed: Song, start: float, checksum: str) -> CorpusClip:
    font = SOUND_FONTS[plan.font]
    labels = {
        "genre": plan.style.genre,
        "instrument": prominent_families(composed, start, plan.seconds),
        "tempo": (f"{plan.tempo:g}",),
        "key": (plan.key,),
    }
    labels = {name: values for name, values in labels.items() if values}
    return CorpusClip(
        clip=plan.clip,
        source=font.package,
        version=_version(font.package),
        origin=f"mma {_version('mma')}, {plan.style.name}, groove {plan.groove}; progression {plan.progression.name}",
        start_seconds=round(start, 3),
        artist="",
        title=f"{plan.groove} in {plan.key} at {plan.tempo:g} bpm",
        licence=f"sound font: {font.licence}; composed with mma and its styles (GPL-2+)",
        sha256=checksum,
        group=plan.group,
        labels=labels,
        labels_from=dict.fromkeys(labels, "exact"),
    )


@functools.cache
def _version(package: str) -> str:
    """The version of a Debian package, as far as dpkg knows it."""
    if shutil.which("dpkg-query") is None:
        return "unknown"
    done = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def build(root: Path, count: int, *, seed: int = 0, processes: int = 2) -> list[str]:
    """Makes what is missing of the first ``count`` clips; writes the tables.

    Returns:
        What failed, a line each.
    """
    failures = []
    with Ledger(root, "renders") as ledger:
        missing = [plan for plan in (recipe(index, seed=seed) for index in range(count)) if plan.clip not in ledger]
        print(f"{count - len(missing)} of {count} clips are there", flush=True)
        try:
            for number, (plan, future) in enumerate(_finished(missing, seed=seed, processes=processes), start=1):
                try:
                    ledger.add(*future.result())
                except (InputError, subprocess.TimeoutExpired) as error:
                    failures.append(f"{plan.clip}: {error}")
                if number % 50 == 0:
                    print(f"{number} of {len(missing)} rendered, {len(failures)} failed", flush=True)
        finally:
            ledger.write_tables()
        print(
            ", ".join(f"{part} {n}" for part, n in sorted(Counter(clip.part for clip in ledger.clips.values()).items()))
        )
    return failures


def _finished(plans: Sequence[Recipe], *, seed: int, processes: int) -> Iterator[tuple[Recipe, Future]]:
    """Every clip as it is made; few wait, so that memory stays small and an interruption is quick."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker) as pool:
        waiting: dict[Future, Recipe] = {}
        for plan in plans:
            waiting[pool.submit(render, plan, seed=seed)] = plan
            if len(waiting) >= 2 * processes:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future
        for future in wait(waiting).done:
            yield waiting[future], future


def _start_worker() -> None:
    # Ctrl-C is the parent's to handle; a parent killed outright must not leave workers that wait for ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.corpus.renders", description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--clips", type=int, default=1800, help="clips in all, a fifth of them for testing")
    parser.add_argument("--seed", type=int, default=0, help="of the plan; another one is another corpus")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    if missing := missing_programs():
        print(f"not installed: {', '.join(missing)}. Run: {APT_LINE}", file=sys.stderr)
        return 1
    return reported(lambda: build(options.corpus, options.clips, seed=options.seed, processes=options.processes))


if __name__ == "__main__":
    sys.exit(main())
