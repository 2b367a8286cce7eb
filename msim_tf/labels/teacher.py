"""Labels of another model: how strongly it hears each tag in a track, and what follows for which tracks are alike.

A *teacher* (such as MSD_musicnn, Pons and Serra 2019) gives every track a number for every tag. Few tags are frequent,
and some are always weak, so each tag is standardised over the corpus first; two tracks are then as alike in a dimension
as the cosine of its tags says. The most alike pairs count as similar, the least alike as dissimilar, and what lies
between is *unknown*: a teacher's opinion of a pair in the middle is noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.labels import taxonomy

SIMILAR_SHARE = 0.1  # of all pairs; both were the best of few tried on music of which human labels were known
DISSIMILAR_SHARE = 0.6
_PAIRS = 200_000


@dataclass(frozen=True, eq=False)
class TeacherTags:
    """A teacher's opinion in one dimension, calibrated.

    Attributes:
        vectors: [n, tags] float32 of length 1; zero for a track that the teacher has not heard.
        similar_above: cosine from which two tracks are similar.
        dissimilar_below: cosine up to which they are dissimilar.
    """

    vectors: np.ndarray
    similar_above: float
    dissimilar_below: float

    def known(self) -> np.ndarray:
        """[n] bool: which tracks the teacher has heard."""
        return np.asarray(self.vectors.any(axis=1))

    def relation(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """How tracks are related, in the teacher's opinion.

        Args:
            rows: [r] int indices of tracks.
            columns: [c] int indices of tracks.

        Returns:
            [r, c] int8: +1 similar, -1 dissimilar, 0 undecided or unheard.
        """
        a, b = self.vectors[rows], self.vectors[columns]
        cosine = a @ b.T
        signs = (cosine >= self.similar_above).astype(np.int8) - (cosine <= self.dissimilar_below)
        return np.where(a.any(axis=1)[:, None] & b.any(axis=1), signs, 0).astype(np.int8)

    def take(self, indices: np.ndarray) -> TeacherTags:
        """The rows ``indices``, with the same thresholds."""
        return TeacherTags(self.vectors[indices], self.similar_above, self.dissimilar_below)


def teacher_tags(teacher: Embeddings, identifiers: Sequence[str], dimensions: Iterable[str]) -> dict[str, TeacherTags]:
    """A teacher's scores of tags, calibrated over the tracks ``identifiers``.

    Args:
        teacher: one number per track and tag, before any squashing; ``meta["tags"]`` names
            the tags in the order of the columns.
        identifiers: the tracks of the result; those without scores are unknown.
        dimensions: of which tags are wanted; others than tag dimensions have none.

    Returns:
        Dimension -> its calibrated tags; none of dimensions of which the taxonomy holds fewer than two of the teacher's
        tags, and none at all if the teacher has heard fewer than two of the tracks.

    Raises:
        InputError: if the names of the tags are missing.
    """
    tags = teacher_tag_names(teacher)
    heard, scores = _heard(teacher, identifiers)
    if heard.sum() < 2:
        return {}
    calibrated = {}
    for name in dimensions:
        columns = [column for column, tag in enumerate(tags) if taxonomy.dimension_of(tag) == name]
        if name in TAG_DIMENSION_NAMES and len(columns) > 1:
            vectors = np.zeros((len(identifiers), len(columns)), np.float32)
            vectors[heard] = _unit(standardised(scores[:, columns]))
            calibrated[name] = TeacherTags(vectors, *_thresholds(vectors[heard]))
    return calibrated


def teacher_tag_names(teacher: Embeddings) -> tuple[str, ...]:
    """The tags of a teacher's columns.

    Raises:
        InputError: if they are not given, or not one for each column.
    """
    tags = teacher.meta.get("tags")
    if not isinstance(tags, list) or len(tags) != teacher.embeddings.shape[1]:
        raise InputError(
            f"{teacher.name}: meta['tags'] must name its {teacher.embeddings.shape[1]} columns; is it a file of tag "
            "scores?"
        )
    return tuple(str(tag) for tag in tags)


def _heard(teacher: Embeddings, identifiers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which tracks a teacher has heard, [n] bool, and what it says of those, [heard, coordinates]."""
    heard = np.array([identifier in teacher for identifier in identifiers], bool)
    return heard, teacher.embeddings[teacher.rows([name for name, there in zip(identifiers, heard) if there])]


def standardised(scores: np.ndarray) -> np.ndarray:
    """Every column with mean 0 and standard deviation 1; one that never changes is 0."""
    spread = scores.std(axis=0)
    return (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _thresholds(vectors: np.ndarray) -> tuple[float, float]:
    """Cosines above which the most alike, and below which the least alike pairs lie;
    the same tracks always give the same.
    """
    a, b = np.random.default_rng(0).integers(len(vectors), size=(2, _PAIRS))
    cosine = np.einsum("ij,ij->i", vectors[a], vectors[b])[a != b]
    similar, dissimilar = np.quantile(cosine, [1.0 - SIMILAR_SHARE, DISSIMILAR_SHARE])
    return float(similar), float(dissimilar)
