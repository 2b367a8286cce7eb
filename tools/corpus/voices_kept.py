"""Which mixes of ``tools.corpus.voices`` sing: ``python -m tools.corpus.voices_kept --corpus ROOT [--drop]``.

Voices that nobody hears teach that singing sounds like an instrument. So a mix is kept only if the teacher trained on
MagnaTagATune answers to it: its mean logit of "vocal" must be above that of nine in ten clips of ``--beside``, music
without voices of which the mixes were made. Prints how its answers spread, as medians and 90th percentiles of
the activations. With ``--drop`` the other mixes are removed for good: run ``tools.corpus.teacher`` before, to hear
them, and again after, to forget them.

Of 609 mixes 491 were kept, a quarter of those with stems among them. Medians of "vocal", "female", "male", "no vocals":
game music .01, .01, .00, .06; one voice sung over it .17, .10, .05, .02; choirs .18, .12, .07, .02; stems .02, .02,
.01, .05; 61 recordings of people who sing .13, .04, .03, .02. Whether those 61 or 182 instrumental ones sing, "no
vocals" tells with a ROC AUC of .94, "vocal" with .90, and MSD_musicnn's "female vocalists" with .57.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from msim_tf.embeddings import Embeddings, load_embeddings
from msim_tf.errors import InputError
from msim_tf.files import atomic_file
from msim_tf.labels.teacher import tag_columns
from tools.corpus.command import run
from tools.corpus.ledger import CorpusClip, Ledger
from tools.corpus.voices import BUILDER, UNHEARD, unheard, voices_of

TEACHER = "MTT_musicnn"
SHOWN = ("vocal", "female", "male", "no vocals")
_QUANTILE = 0.9


def activations(tags: Embeddings, wanted: Sequence[str]) -> np.ndarray:
    """The second teacher's logits of some of its tags, [n, wanted], for all clips.

    Raises:
        InputError: if the file is not of that teacher, among others.
    """
    columns = [(column.teacher, column.tag) for column in tag_columns(tags)]
    absent = [tag for tag in wanted if (TEACHER, tag) not in columns]
    if absent:
        raise InputError(f"{tags.name}: no {absent[0]!r} of {TEACHER}; let both teachers hear the corpus")
    return tags.embeddings[:, [columns.index((TEACHER, tag)) for tag in wanted]]


def kind_of(clip: CorpusClip) -> str:
    """How a mix is made, in a few words."""
    count = len(voices_of(clip))
    sung = "sung by 1" if count == 1 else "sung by 2" if count == 2 else "choir"
    what = "stem" if clip.origin.startswith("stem") else sung
    return what + (", over music" if " over " in clip.origin else ", alone")


def table(rows: Sequence[tuple[str, np.ndarray]]) -> Iterator[str]:
    """Medians and 90th percentiles of activations, a line for each name and its logits [n, SHOWN]."""
    yield f"{'':<26}{'clips':>6}" + "".join(f"{tag:>14}" for tag in SHOWN)
    for name, logits in rows:
        middle, high = np.quantile(1 / (1 + np.exp(-logits)), (0.5, 0.9), axis=0)
        yield f"{name:<26}{len(logits):>6}" + "".join(f"{a:.2f} ({b:.2f})".rjust(14) for a, b in zip(middle, high))


def silent_mixes(root: Path, beside: str) -> tuple[list[CorpusClip], list[str]]:
    """The mixes in which no voice is heard, and the lines of the table.

    Args:
        root: the corpus, its training part heard by both teachers.
        beside: the builder of music without voices.

    Raises:
        InputError: if none of the mixes, or of the music beside them, was heard.
    """
    tags = load_embeddings(root / "teacher-train-tags.npz")
    ledgers = {name: Ledger(root, name).clips.values() for name in (beside, BUILDER)}
    clips = {
        name: [clip for clip in own if clip.part == "train" and clip.track in tags] for name, own in ledgers.items()
    }
    for name, own in clips.items():
        if not own:
            raise InputError(f"{root}: the teacher has heard no clip of {name}")
    every = activations(tags, SHOWN)
    music, mixes = (every[tags.rows([clip.track for clip in clips[name]])] for name in (beside, BUILDER))
    limit = np.quantile(music[:, 0], _QUANTILE)
    kept = mixes[:, 0] > limit
    kinds = np.array([kind_of(clip) for clip in clips[BUILDER]])
    rows = [(beside, music), *((kind, mixes[kinds == kind]) for kind in sorted(set(kinds)))]
    rows += [("kept", mixes[kept])] if kept.any() else []
    return [clip for clip, good in zip(clips[BUILDER], kept) if not good], list(table(rows))


def drop(root: Path, clips: Sequence[CorpusClip]) -> None:
    """Removes mixes, and notes that they are not to be made again."""
    numbers = unheard(root) | {int(Path(clip.clip).stem) for clip in clips}
    with atomic_file(root / UNHEARD, "w") as file:
        file.writelines(f"{number}\n" for number in sorted(numbers))
    ledger = Ledger(root, BUILDER)
    ledger.remove([clip.clip for clip in clips])
    with ledger:
        ledger.write_tables()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--beside", default="games", help="builder of music without voices (default games)")
    parser.add_argument("--drop", action="store_true", help="remove the mixes in which no voice is heard")
    arguments = parser.parse_args()
    silent, lines = silent_mixes(arguments.corpus, arguments.beside)
    print("\n".join(lines))
    if arguments.drop:
        drop(arguments.corpus, silent)
    print(f"{len(silent)} mixes in which no voice is heard{' removed' if arguments.drop else ''}")
    return 0


if __name__ == "__main__":
    run(main)
