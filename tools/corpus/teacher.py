"""What networks of musicnn hear in the clips of the corpus: the teachers of genre, mood, instrument and era.

    python -m tools.corpus.teacher --corpus ROOT --part train --weights musicnn/MSD_musicnn musicnn/MTT_musicnn

See ``tools/musicnn_embeddings.py`` for where the weights are from. Every network hears the same patches: at most
``--segments`` evenly spread ones of 3 s of a clip; ten are all of an excerpt of 30 s, as the model that learns from
them hears all. Writes two files that ``msim_tf.embeddings`` reads, each vector the mean over a clip's patches, and one
that ``msim_tf.labels.passages`` reads; clips are named relative to ROOT/PART:

    ROOT/teacher-PART-tags.npz          [n, tags] logits, before the sigmoid: activations of rare tags differ only in
                                        the third decimal; of several networks side by side, "NETWORK/TAG"
    ROOT/teacher-PART-penultimate.npz   [n, size]; of several networks side by side, each of length 1
    ROOT/teacher-PART-passages.npz      [patches, tags + size], every patch: first all logits, then all penultimate
    ROOT/teacher-PART-NETWORK-tags.npz, ROOT/teacher-PART-NETWORK-penultimate.npz
                                        one network's alone, where there are several
    ROOT/teacher-PART.jsonl             the journal: a line per clip that is done, so a run that was killed goes on
                                        where it was
    ROOT/teacher-PART.f32               its vectors, tags + size float32 per patch

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
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from msim_tf.audio.decode import load_clip
from msim_tf.embeddings import save_embeddings
from msim_tf.errors import InputError
from msim_tf.files import atomic_file, exclusive
from msim_tf.labels.passages import Passages, save_passages
from msim_tf.labels.teacher import joined_tag_names
from tools.corpus.command import run
from tools.corpus.ledger import PARTS, CorpusClip, finished_clips
from tools.musicnn_embeddings import FRAMES, HOP, SR, Network, load_network, log_mel, patch_starts, patches_at

_BATCH = 64  # patches per pass through a network

# A clip, [patches] starts in seconds, [patches, size] all logits, then all penultimate.
ClipVectors = tuple[CorpusClip, np.ndarray, np.ndarray]


OUTPUTS = ("logits", "penultimate")


def output_widths(networks: Sequence[Network]) -> tuple[int, ...]:
    """Coordinates of each output in a patch's vector: all networks' logits, then all their penultimate layers."""
    return (*(len(network.tags) for network in networks), *(network.size for network in networks))


def model_name(networks: Sequence[Network]) -> str:
    """What files call one or several networks."""
    return " + ".join(network.name for network in networks)


class Journal:
    """The clips whose vectors are known; open it with ``with`` to add more, which one process at a time can.

    Args:
        path: the file; the vectors lie beside it.
        networks: that listen.
        segments: patches per clip; a journal made with another number, or by other networks, is refused.
    """

    def __init__(self, path: Path, networks: Sequence[Network], *, segments: int) -> None:
        self.path = path
        self.vectors_path = path.with_suffix(".f32")
        self.widths = output_widths(networks)
        self.size = sum(self.widths)
        model = model_name(networks)
        self.header = {"format": "msim teacher journal", "format_version": 2, "model": model, "segments": segments}
        self._lines = self._read()
        self.entries: dict[str, dict[str, Any]] = {}  # with "first", the row of the clip's first patch
        self._rows = 0
        for line in self._lines:
            self._count(line)

    def _count(self, line: dict[str, Any]) -> None:
        # A clip that was cut anew under its old name has two lines; the rows of the first are dead.
        self.entries[line["track"]] = {**line, "first": self._rows}
        self._rows += len(line["starts"])

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
        stored_bytes = self.vectors_path.stat().st_size if self.vectors_path.exists() else 0
        if stored_bytes < 4 * self.size * sum(len(entry["starts"]) for entry in entries):
            raise InputError(f"{self.vectors_path}: shorter than {self.path} says; remove both to start anew")
        return entries

    def __enter__(self) -> Journal:
        with ExitStack() as stack:
            lock = f".{self.path.stem}.lock"
            stack.enter_context(exclusive(self.path.parent, f"hearing clips for {self.path.name}", name=lock))
            # Written anew, so that an unfinished line cannot be continued by the next.
            with atomic_file(self.path, "w") as file:
                file.writelines(json.dumps(line) + "\n" for line in (self.header, *self._lines))
            self._file = stack.enter_context(self.path.open("a", encoding="utf-8"))
            self._vectors = stack.enter_context(self.vectors_path.open("ab"))
            self._vectors.truncate(4 * self.size * self._rows)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def __contains__(self, clip: CorpusClip) -> bool:
        """Whether the vectors of this very clip are known; one cut elsewhere under the same name is another."""
        return clip.track in self.entries and self.entries[clip.track]["of"] == _origin(clip)

    def add(self, vectors: Iterable[ClipVectors]) -> None:
        """Records clips, all on disk when it returns: the vectors first, so that no
        line names some that are not there.
        """
        lines = []
        for clip, starts, values in vectors:
            self._vectors.write(values.astype("<f4").tobytes())
            lines.append({"track": clip.track, "of": _origin(clip), "starts": [round(float(s), 3) for s in starts]})
            self._count(lines[-1])
        self._lines += lines
        _to_disk(self._vectors)
        self._file.writelines(json.dumps(line) + "\n" for line in lines)
        _to_disk(self._file)

    def passages(self, clips: Sequence[CorpusClip]) -> Passages:
        """All that is known of some clips in the journal, in their order."""
        every = np.fromfile(self.vectors_path, "<f4").reshape(-1, self.size)
        entries = [self.entries[clip.track] for clip in clips]
        counts = np.array([len(entry["starts"]) for entry in entries])
        rows = [np.arange(entry["first"], entry["first"] + count) for entry, count in zip(entries, counts)]
        return Passages(
            tuple(clip.track for clip in clips),
            counts,
            np.concatenate([entry["starts"] for entry in entries]).astype(np.float32),
            every[np.concatenate(rows)],
            FRAMES * HOP / SR,
            self.widths,
            {
                "name": "musicnn",
                "model": self.header["model"],
                "segments": self.header["segments"],
                "outputs": [output for output in OUTPUTS for _ in range(len(self.widths) // len(OUTPUTS))],
            },
        )


def _to_disk(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _origin(clip: CorpusClip) -> list[Any]:
    return [clip.sha256, clip.start_seconds]


def clip_vectors(
    networks: Sequence[Network], root: Path, clips: Sequence[CorpusClip], *, segments: int, pool: ThreadPoolExecutor
) -> Iterator[ClipVectors]:
    """What each clip's patches sound like; a clip that cannot be read is named and left out."""
    features = list(zip(clips, pool.map(lambda clip: _patches(root / clip.clip, segments), clips)))
    readable = [(clip, *x) for clip, x in features if x is not None]
    if not readable:
        return
    x = np.concatenate([x for _, _, x in readable])
    penultimate, logits = zip(*(network.forward(x) for network in networks))
    values = np.concatenate([*logits, *penultimate], axis=1)
    for (clip, starts, _), rows in zip(readable, np.split(values, np.cumsum([len(x) for _, _, x in readable])[:-1])):
        yield clip, starts, rows


def _patches(path: Path, segments: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the patches of a clip start, [n] seconds, and the patches."""
    try:
        frames = log_mel(load_clip(path, sr=SR))
    except InputError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return None
    starts = patch_starts(len(frames), segments)
    if not len(starts):
        print(f"skipped: {path} is shorter than 3 s", file=sys.stderr)
        return None
    return starts * HOP / SR, patches_at(frames, starts)


def write_vectors(
    root: Path, part: str, journal: Journal, clips: Sequence[CorpusClip], networks: Sequence[Network]
) -> int:
    """The npz files of the clips that are in the journal; how many those are.

    Raises:
        InputError: if a network says the same of all clips; nothing is written then.
    """
    done = [clip for clip in clips if clip in journal]
    if not done:
        return 0
    passages = journal.passages(done)
    firsts = np.cumsum(passages.counts) - passages.counts
    means = np.add.reduceat(passages.vectors, firsts, axis=0) / passages.counts[:, None]
    outputs = np.split(means, np.cumsum(journal.widths)[:-1], axis=1)
    if len(done) > 1 and any(np.ptp(vectors, axis=0).max() < 1e-6 for vectors in outputs):
        raise InputError("all vectors are the same: a network does not listen, nothing was written")
    logits, penultimate = outputs[: len(networks)], outputs[len(networks) :]
    names = passages.identifiers
    _save_outputs(root / f"teacher-{part}", names, networks, np.concatenate(logits, axis=1), _side_by_side(penultimate))
    if len(networks) > 1:
        for network, own_logits, own_penultimate in zip(networks, logits, penultimate):
            _save_outputs(root / f"teacher-{part}-{network.name}", names, [network], own_logits, own_penultimate)
    save_passages(root / f"teacher-{part}-passages.npz", passages)
    return len(done)


def _side_by_side(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """Several networks' vectors, each of length 1; a single one's as they are."""
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate([x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in blocks], axis=1)


def _save_outputs(
    stem: Path, identifiers: Sequence[str], networks: Sequence[Network], logits: np.ndarray, penultimate: np.ndarray
) -> None:
    """STEM-tags.npz and STEM-penultimate.npz."""
    model = model_name(networks)
    tags: dict[str, Any] = {"tags": joined_tag_names([(network.name, network.tags) for network in networks])}
    if len(networks) > 1:
        tags["teachers"] = [network.name for network in networks]
    for kind, vectors, meta in (
        ("tags", logits, {"name": f"{model} tags", "model": model, "output": "logits", **tags}),
        ("penultimate", penultimate, {"name": model, "model": model, "output": "penultimate"}),
    ):
        path = stem.with_name(f"{stem.name}-{kind}.npz")
        save_embeddings(path, identifiers=identifiers, embeddings=vectors, meta=meta)


def teach(
    root: Path,
    part: str,
    *,
    networks: Sequence[Network],
    segments: int = 10,
    builders: Sequence[str] = ("games",),
    threads: int = 2,
) -> tuple[int, int]:
    """Embeds the clips that are finished and not yet embedded, and writes the tables.

    Args:
        root: the corpus.
        part: "train" or "test".
        networks: from ``musicnn_embeddings.load_network``; all hear the same patches.
        segments: patches per clip, at most.
        builders: whose clips.
        threads: that decode.

    Returns:
        Number of clips with vectors, and of those that could not be read.
    """
    clips = finished_clips(root, part, builders)
    path = root / f"teacher-{part}.jsonl"
    with Journal(path, networks, segments=segments) as journal, ThreadPoolExecutor(threads) as pool:
        missing = [clip for clip in clips if clip not in journal]
        step = max(1, _BATCH // segments)
        start = time.monotonic()
        for first in range(0, len(missing), step):
            batch = missing[first : first + step]
            journal.add(clip_vectors(networks, root, batch, segments=segments, pool=pool))
            if first // step % 20 == 0:
                speed = (first + len(batch)) / (time.monotonic() - start)
                print(f"{part}: {first + len(batch)} of {len(missing)} new clips, {speed:.1f} clips/s", flush=True)
        done = write_vectors(root, part, journal, clips, networks)
    return done, len(clips) - done


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        nargs="+",
        help="networks' folders of the unpacked wheel, MSD_musicnn ...",
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--segments", type=int, default=10, help="patches of 3 s per clip, at most (default 10)")
    parser.add_argument("--builders", nargs="+", default=["games"])
    parser.add_argument("--threads", type=int, default=2, help="that decode (default 2)")
    arguments = parser.parse_args()
    if arguments.segments < 1 or arguments.threads < 1:
        raise InputError("--segments and --threads must be at least 1")
    done, skipped = teach(
        arguments.corpus,
        arguments.part,
        networks=[load_network(folder) for folder in arguments.weights],
        segments=arguments.segments,
        builders=arguments.builders,
        threads=arguments.threads,
    )
    print(f"{arguments.corpus}: teacher's vectors of {done} clips of {arguments.part}, {skipped} skipped")
    return 0 if done and not skipped else 1


if __name__ == "__main__":
    run(main)
