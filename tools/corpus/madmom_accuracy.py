"""How well madmom, the annotator of ``msim annotate``, hears tempo and key: on
synthesized clips, of which both are exact.

    python -m tools.corpus.madmom_accuracy --corpus ROOT [--part test] [--workers N]

Every clip of the renders is heard, at whatever confidence. Resumes: what madmom said is kept in ROOT/madmom-PART.db.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from msim_tf.cli.options import progress_bar
from msim_tf.database import Database
from msim_tf.errors import InputError
from msim_tf.evaluate.statistics import wilson_interval
from msim_tf.labels.annotate import annotate_folder
from msim_tf.labels.annotations import ANNOTATIONS, Annotation
from msim_tf.theory import parse_key
from tools.corpus.command import run
from tools.corpus.ledger import PARTS, Ledger

TEMPO_TOLERANCE = 0.04  # of the true tempo, the field's (Gouyon et al., IEEE TASLP 2006)


def tempo_ratio(estimate: float | None, bpm: float, *, octaves: bool) -> float:
    """How far off a tempo is, as |ratio - 1|; with ``octaves`` of the nearest octave. Infinite if none was heard."""
    if not estimate:
        return math.inf
    off = math.log2(estimate / bpm)
    return abs(2 ** (off - round(off) if octaves else off) - 1)


def outcomes(
    annotations: Mapping[str, Annotation], labels: Mapping[str, Mapping[str, tuple[str, ...]]]
) -> dict[str, list[bool]]:
    """What was asked -> right or wrong, for each clip whose answer is known."""
    answers: dict[str, list[bool]] = {"tempo, any octave": [], "tempo, our octave": [], "key": []}
    for track, estimate in annotations.items():
        truth = labels[track]
        if "tempo" in truth:
            bpm = float(truth["tempo"][0])
            for kind, octaves in (("tempo, any octave", True), ("tempo, our octave", False)):
                answers[kind].append(tempo_ratio(estimate.tempo, bpm, octaves=octaves) <= TEMPO_TOLERANCE)
        if "key" in truth:
            answers["key"].append(parse_key(estimate.key) == parse_key(truth["key"][0]))
    return {kind: right for kind, right in answers.items() if right}


def lines(answers: Mapping[str, list[bool]]) -> Iterator[str]:
    """A line per question, with Wilson's 95 % interval."""
    for kind, right in answers.items():
        interval = wilson_interval(sum(right), len(right))
        share = sum(right) / len(right)
        yield f"{kind:<18} {share:.3f} ({interval.low:.3f}-{interval.high:.3f}), {len(right)} clips"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--part", choices=PARTS, default="test")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    arguments = parser.parse_args()
    ledger = Ledger(arguments.corpus, "renders")
    clips = {clip.track: clip for clip in ledger.clips.values() if clip.part == arguments.part and clip.clip in ledger}
    if not clips:
        raise InputError(f"{arguments.corpus}: no renders in its {arguments.part} part; run tools.corpus.renders first")
    path = arguments.corpus / f"madmom-{arguments.part}.db"
    with progress_bar("madmom") as progress, Database(path, ANNOTATIONS, create=True) as database:
        annotations, failures = annotate_folder(
            arguments.corpus / arguments.part,
            sorted(clips),
            database,
            workers=arguments.workers,
            progress=progress,
        )
    print("\n".join(lines(outcomes(annotations, {track: clip.labels for track, clip in clips.items()}))))
    return 1 if failures else 0


if __name__ == "__main__":
    run(main)
