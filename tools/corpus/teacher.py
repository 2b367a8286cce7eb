"""What MSD_musicnn hears in the clips of the corpus: the teacher of genre, mood, instrument and era.

    python -m tools.corpus.teacher --weights musicnn_wheel/musicnn/MSD_musicnn --corpus ROOT --part train

See ``tools/musicnn_embeddings.py`` for where the weights are from. Writes two files that ``msim_tf.embeddings`` reads, clips named relative
to ROOT/PART, each vector the mean over at most ``--segments`` evenly spread patches of 3 s:

    ROOT/teacher-PART-tags.npz          [n, 50] logits, before the sigmoid: activations of rare tags differ only in the third decimal
    ROOT/teacher-PART-penultimate.npz   [n, 200]
    ROOT/teacher-PART.jsonl             the journal: a line per clip that is done, so a run that was killed goes on where it was

It can run beside a builder: run again, it does the clips that were finished since.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.corpus.audio import load_clip
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError
from msim_tf.files import atomic_file
from tools.corpus.command import run
from tools.corpus.ledger import PARTS, CorpusClip, Ledger
from tools.musicnn_embeddings import SR, TAGS, Forward, compiled, load_weights, spread_patches

MODEL = "MSD_musicnn"
_BATCH = 64  # patches per pass through the network
_VALUES = ("logits", "penultimate")

ClipVectors = tuple[CorpusClip, np.ndarray, np.ndarray]  # [50] logits, [200] penultimate


class Journal:
    """The clips whose vectors are known; open it with ``with`` to add more.

    Args:
        path: the file.
        segments: patches per clip; a journal made with another number is refused.
    """

    def __init__(self, path: Path, *, segments: int) -> None:
        self.path = path
        self.header = {"format": "msim teacher journal", "model": MODEL, "segments": segments}
        self.entries = {entry["track"]: entry for entry in self._read()}

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        # What follows the last newline was cut off by a kill.
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        try:
            header, *entries = [json.loads(line) for line in lines]
        except ValueError as error:
            raise InputError(f"{self.path}: not a journal of the teacher ({error}); remove it to start anew") from error
        if header != self.header:
            raise InputError(f"{self.path} was made with {header}, not with {self.header}; use the same or remove it")
        return entries

    def __enter__(self) -> Journal:
        # Written anew, so that an unfinished line cannot be continued by the next.
        with atomic_file(self.path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in (self.header, *self.entries.values()))
        self._file = self.path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __contains__(self, clip: CorpusClip) -> bool:
        """Whether the vectors of this very clip are known; one cut elsewhere under the same name is another."""
        return clip.track in self.entries and self.entries[clip.track]["of"] == _origin(clip)

    def add(self, vectors: Iterable[ClipVectors]) -> None:
        """Records clips, all on disk when it returns."""
        for clip, logits, penultimate in vectors:
            entry = {"track": clip.track, "of": _origin(clip)}
            # Nine digits give a float32 back exactly.
            entry |= {name: [float(f"{v:.9g}") for v in x] for name, x in zip(_VALUES, (logits, penultimate))}
            self._file.write(json.dumps(entry) + "\n")
            self.entries[clip.track] = entry
        self._file.flush()
        os.fsync(self._file.fileno())


def _origin(clip: CorpusClip) -> list[Any]:
    return [clip.sha256, clip.start_seconds]


def finished_clips(root: Path, part: str, builders: Iterable[str]) -> list[CorpusClip]:
    """The clips of a part that the builders have finished so far, in order of their names."""
    ledgers = [Ledger(root, builder) for builder in builders]
    found = [clip for ledger in ledgers for clip in ledger.clips.values() if clip.part == part and clip.clip in ledger]
    return sorted(found, key=lambda clip: clip.clip)


def clip_vectors(
    forward: Forward, root: Path, clips: Sequence[CorpusClip], *, segments: int, pool: ThreadPoolExecutor
) -> Iterator[ClipVectors]:
    """Means over each clip's patches; a clip that cannot be read is named and left out."""
    features = list(zip(clips, pool.map(lambda clip: _patches(root / clip.clip, segments), clips)))
    heard = [(clip, x) for clip, x in features if x is not None]
    if not heard:
        return
    penultimate, logits = forward(np.concatenate([x for _, x in heard]))
    ends = np.cumsum([len(x) for _, x in heard])
    for (clip, x), end in zip(heard, ends):
        rows = slice(end - len(x), end)
        yield clip, logits[rows].mean(axis=0), penultimate[rows].mean(axis=0)


def _patches(path: Path, segments: int) -> np.ndarray | None:
    try:
        x = spread_patches(load_clip(path, sr=SR), segments)
    except InputError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return None
    if not len(x):
        print(f"skipped: {path} is shorter than 3 s", file=sys.stderr)
        return None
    return x


def write_vectors(root: Path, part: str, journal: Journal, clips: Sequence[CorpusClip]) -> int:
    """The two npz of the clips that are in the journal; how many those are."""
    done = [clip for clip in clips if clip in journal]
    for name, stem, title in (("logits", "tags", "musicnn tags"), ("penultimate", "penultimate", "musicnn")):
        if not done:
            break
        vectors = np.array([journal.entries[clip.track][name] for clip in done], np.float32)
        if len(done) > 1 and np.ptp(vectors, axis=0).max() < 1e-6:
            raise InputError("all vectors are the same: the network does not listen, nothing was written")
        meta = {"name": title, "model": MODEL, "segments": journal.header["segments"], "output": name}
        if name == "logits":
            meta["tags"] = list(TAGS)
        save_embeddings(
            root / f"teacher-{part}-{stem}.npz",
            identifiers=[clip.track for clip in done],
            embeddings=vectors,
            meta=meta,
        )
    return len(done)


def teach(
    root: Path,
    part: str,
    *,
    forward: Forward,
    segments: int = 8,
    builders: Sequence[str] = ("games",),
    threads: int = 2,
) -> tuple[int, int]:
    """Embeds the clips that are finished and not yet embedded, and writes the tables.

    Args:
        root: the corpus.
        part: "train" or "test".
        forward: from ``musicnn_embeddings.compiled``.
        segments: patches per clip, at most.
        builders: whose clips.
        threads: that decode.

    Returns:
        Number of clips with vectors, and of those that could not be read.
    """
    clips = finished_clips(root, part, builders)
    with Journal(root / f"teacher-{part}.jsonl", segments=segments) as journal, ThreadPoolExecutor(threads) as pool:
        missing = [clip for clip in clips if clip not in journal]
        step = max(1, _BATCH // segments)
        start = time.monotonic()
        for first in range(0, len(missing), step):
            batch = missing[first : first + step]
            journal.add(clip_vectors(forward, root, batch, segments=segments, pool=pool))
            if first // step % 20 == 0:
                speed = (first + len(batch)) / (time.monotonic() - start)
                print(f"{part}: {first + len(batch)} of {len(missing)} new clips, {speed:.1f} clips/s", flush=True)
        done = write_vectors(root, part, journal, clips)
    return done, len(clips) - done


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="folder MSD_musicnn of the unpacked wheel")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--segments", type=int, default=8, help="patches of 3 s per clip, at most (default 8)")
    parser.add_argument("--builders", nargs="+", default=["games"])
    parser.add_argument("--threads", type=int, default=2, help="that decode (default 2)")
    arguments = parser.parse_args()
    if arguments.segments < 1 or arguments.threads < 1:
        raise InputError("--segments and --threads must be at least 1")
    done, skipped = teach(
        arguments.corpus,
        arguments.part,
        forward=compiled(load_weights(arguments.weights)),
        segments=arguments.segments,
        builders=arguments.builders,
        threads=arguments.threads,
    )
    print(f"{arguments.corpus}: teacher's vectors of {done} clips of {arguments.part}, {skipped} skipped")
    return 0 if done and not skipped else 1


if __name__ == "__main__":
    run(main)
