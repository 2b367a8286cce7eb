"""The attribution list of a model: every recording, score and sound font that it was trained on, with its licence.

    python -m tools.corpus.attribution --corpus ROOT --store TRAIN_STORE --out saved_models/open6/ATTRIBUTION.csv

One row per original, however many clips were cut from it; only what the store holds
counts. Mixes are made of these clips; of mixes with voices, the voices have rows of their own.
"""

from __future__ import annotations

import argparse
import csv
import functools
from pathlib import Path

from msim_tf.data.store import FeatureStore
from msim_tf.files import atomic_file
from tools.corpus.command import run
from tools.corpus.ledger import CorpusClip, Ledger
from tools.corpus.recordings import load_catalogue
from tools.corpus.voices import BUILDER as VOICES
from tools.corpus.voices import voices_of

BUILDERS = ("games", "recordings", "scores", "renders", "unmusical")
_OURS = "synthesized"  # source of clips that nobody else made


def originals(corpus: Path, tracks: set[str]) -> dict[tuple[str, ...], int]:
    """Clips of each original (builder, source, version, original, artist, title, licence, sha256), sorted."""
    counts: dict[tuple[str, ...], int] = {}
    for builder in BUILDERS:
        for clip in Ledger(corpus, builder).clips.values():
            if clip.part == "train" and clip.track in tracks and clip.source != _OURS:
                key = (builder, *_original(builder, clip))
                counts[key] = counts.get(key, 0) + 1
    for clip in Ledger(corpus, VOICES).clips.values():
        for file in voices_of(clip) if clip.track in tracks else ():
            counts[_voice(file)] = counts.get(_voice(file), 0) + 1
    return dict(sorted(counts.items()))


@functools.cache
def _voice(file: str) -> tuple[str, ...]:
    """The row of a recording whose voice is in a mix."""
    one = next(one for one in load_catalogue() if one.file == file)
    return (VOICES, one.repository, one.commit, one.path, one.artist, one.title, one.licence, one.sha256)


def _original(builder: str, clip: CorpusClip) -> tuple[str, ...]:
    if builder == "renders":  # composed by the builder: what is owed is owed to sound fonts and styles
        return (clip.source, clip.version, f"style {clip.group}", "", "", clip.licence, "")
    return (clip.source, clip.version, clip.origin, clip.artist, clip.title, clip.licence, clip.sha256)


def listed(path: Path) -> dict[tuple[str, ...], int]:
    """The originals of a list that was written before, and how many clips of each."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return {tuple(row[:-1]): int(row[-1]) for row in rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--store", type=Path, required=True, help="feature store that the model was trained on")
    parser.add_argument("--out", type=Path, required=True, help="the table to write")
    parser.add_argument("--also", type=Path, help="an earlier list, of what the network was trained on before; kept")
    arguments = parser.parse_args()
    counts = originals(arguments.corpus, set(FeatureStore(arguments.store).identifiers))
    for key, count in (listed(arguments.also) if arguments.also else {}).items():
        counts[key] = max(count, counts.get(key, 0))
    counts = dict(sorted(counts.items()))
    with atomic_file(arguments.out, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("builder", "source", "version", "original", "artist", "title", "licence", "sha256", "clips"))
        writer.writerows((*key, count) for key, count in counts.items())
    print(f"{arguments.out}: {len(counts)} originals")
    return 0


if __name__ == "__main__":
    run(main)
