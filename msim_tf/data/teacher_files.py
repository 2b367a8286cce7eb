"""What a feature store keeps of a teacher, another model that has heard its tracks::

    teacher.npz             its scores of tags
    teacher_vectors.npz     its own embeddings of the tracks
    teacher_passages.npz    all that it says, passage by passage

Each may be there or not; a track is named by its identifier in the store. ``labels.teacher``
and ``labels.passages`` say what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msim_tf.embeddings import Embeddings, load_embeddings, save_embeddings
from msim_tf.errors import InputError
from msim_tf.labels.passages import Passages, load_passages, save_passages, whole_tracks
from msim_tf.labels.teacher import teacher_tag_names

_TAGS, _VECTORS, _PASSAGES = "teacher.npz", "teacher_vectors.npz", "teacher_passages.npz"


def load_teacher(store: Path) -> Embeddings | None:
    """Scores of tags; None if there are none."""
    return _load(store / _TAGS)


def load_passages_or_vectors(store: Path, scores: Embeddings | None) -> Passages | None:
    """All that the teacher says of passages of the tracks, or of whole tracks where no passages are there.

    None if it says nothing.

    Args:
        store: directory of the store.
        scores: what ``load_teacher`` gave.
    """
    path = store / _PASSAGES
    if path.exists():
        return load_passages(path)
    vectors = _load(store / _VECTORS)
    return whole_tracks([embeddings for embeddings in (scores, vectors) if embeddings])


def _load(path: Path) -> Embeddings | None:
    return load_embeddings(path) if path.exists() else None


def write_teacher(store: Path, tracks: Sequence[str], teacher: Embeddings) -> int:
    """Replaces the scores of tags, or, if ``teacher`` names no tags, its own embeddings.

    New embeddings take the place of what was known of passages, which would else count instead.

    Args:
        store: directory of the store.
        tracks: identifiers of its tracks.
        teacher: what it says of any tracks.

    Returns:
        Of how many tracks of the store something is known now.

    Raises:
        InputError: if names of tags do not fit the columns, or nothing is of a track of the store.
    """
    named = "tags" in teacher.meta
    if named:
        teacher_tag_names(teacher)
    # Keep only rows of the store's own tracks, in the order of the store: [tracks present, columns].
    present = [identifier for identifier in tracks if identifier in teacher]
    if not present:
        raise InputError(f"{teacher.name}: scores for none of the tracks in {store}; a track is named by its path")
    save_embeddings(
        store / (_TAGS if named else _VECTORS),
        identifiers=present,
        embeddings=teacher.embeddings[teacher.rows(present)],
        meta=teacher.meta,
    )
    # Vectors of whole tracks count only where there are no passages.
    if not named:
        (store / _PASSAGES).unlink(missing_ok=True)
    return len(present)


def write_passages(store: Path, tracks: Sequence[str], passages: Passages) -> int:
    """Replaces what the teacher says of passages.

    Args:
        store: directory of the store.
        tracks: identifiers of its tracks.
        passages: of any tracks.

    Returns:
        How many tracks of the store have some now.

    Raises:
        InputError: if none is of a track of the store.
    """
    present = passages.take(tracks)
    if present is None:
        raise InputError(f"passages of none of the tracks in {store}; a track is named by its path")
    save_passages(store / _PASSAGES, present)
    return len(present.identifiers)
