"""Labels of another model: how strongly it hears each tag in a track, and what follows for which tracks are alike.

A *teacher* (such as MSD_musicnn, Pons and Serra 2019) gives every track a number for every tag. Few tags are frequent,
and some are always weak, so each tag is standardised over the corpus first; two tracks are then as alike in a dimension
as the cosine of its tags says. The most alike pairs count as similar, the least alike as dissimilar, and what lies
between is *unknown*: a teacher's opinion of a pair in the middle is noise.

Several teachers may stand side by side in one file. Each counts as much as the others in a dimension, however many of
its tags belong there: its standardised tags are scaled to length 1 on their own, so the cosine of two tracks is the
mean of the teachers' cosines. Two teachers together order songs more as people do than either alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.labels import taxonomy

SIMILAR_SHARE = 0.1  # of all pairs; both were the best of few tried on music of which human labels were known
DISSIMILAR_SHARE = 0.6
_PAIRS = 200_000
_SEPARATOR = "/"  # between the names of a teacher and of its tag, where there are several teachers


@dataclass(frozen=True)
class TagColumn:
    """What one column of a file of tag scores means.

    Attributes:
        teacher: whose score it is; empty where the file is of a single teacher.
        tag: as the teacher calls it.
        dimension: of the tag; None for one that the taxonomy does not list.
        word: what the taxonomy calls it, one word for all synonyms; ``tag`` itself where it is not listed.
    """

    teacher: str
    tag: str
    dimension: str | None
    word: str


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
        # [r, tags] @ [tags, c] -> [r, c] cosines of unit vectors; +1 and -1 outside the thresholds, 0 between them. A
        # vector of zeros is a track that was not heard.
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
        teacher: one number per track and tag, before any squashing; ``tag_columns`` says what the columns are.
        identifiers: the tracks of the result; those without scores are unknown.
        dimensions: of which tags are wanted; others than tag dimensions have none.

    Returns:
        Dimension -> its calibrated tags, one teacher's after the other's. A teacher does not take part in a dimension
        of which it has fewer than two tags: one cannot say what is alike. There is no dimension without a teacher,
        and none at all if fewer than two of the tracks were heard.

    Raises:
        InputError: if the names of the tags are missing.
    """
    columns = tag_columns(teacher)
    scored, scores = scores_of(teacher, identifiers)
    if len(scores) < 2:
        return {}
    # Per dimension [scored, tags]: the teachers' standardised tags side by side, [n, tags] with zeros for the unheard.
    calibrated = {}
    for name in dimensions:
        blocks = list(_blocks(columns, name)) if name in TAG_DIMENSION_NAMES else []
        if blocks:
            vectors = np.zeros((len(identifiers), sum(map(len, blocks))), np.float32)
            sides = [_unit(standardised(scores[:, block])) for block in blocks]
            # Each teacher's side has length 1, all of them together the square root of their number: made 1 again, the
            # cosine of two tracks is the mean of the teachers' cosines.
            vectors[scored] = _unit(np.concatenate(sides, axis=1))

            # Above one cosine lie the most alike pairs, below another the least alike: quantiles over random pairs of
            # two different tracks, [pairs, tags] -> [pairs], since all pairs would be a square.
            own = vectors[scored]
            a, b = np.random.default_rng(0).integers(len(own), size=(2, _PAIRS))
            cosine = np.einsum("ij,ij->i", own[a], own[b])[a != b]
            similar, dissimilar = np.quantile(cosine, [1.0 - SIMILAR_SHARE, DISSIMILAR_SHARE])
            calibrated[name] = TeacherTags(vectors, float(similar), float(dissimilar))
    return calibrated


def scores_of(teacher: Embeddings, identifiers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """What a teacher says of those tracks that it has heard.

    Args:
        teacher: one number per track and tag.
        identifiers: of n tracks.

    Returns:
        [n] bool, which of them have scores, and those scores, [scored, columns] float32.
    """
    scored = np.array([identifier in teacher for identifier in identifiers], bool)
    present = [identifier for identifier, there in zip(identifiers, scored) if there]
    return scored, teacher.embeddings[teacher.rows(present)]


def _blocks(columns: Sequence[TagColumn], dimension: str) -> Iterator[list[int]]:
    """The columns of a dimension, teacher by teacher; none of a teacher that has a single one."""
    for teacher in dict.fromkeys(column.teacher for column in columns):
        block = [
            index for index, column in enumerate(columns) if (column.teacher, column.dimension) == (teacher, dimension)
        ]
        if len(block) > 1:
            yield block


def joined_tag_names(teachers: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Unambiguous names for the columns of teachers side by side, as ``tag_columns`` reads them.

    Args:
        teachers: (name, its tags) of each.

    Returns:
        The tags of a single teacher as they are; of several "MTT_musicnn/rock".
    """
    if len(teachers) == 1:
        return list(teachers[0][1])
    return [f"{name}{_SEPARATOR}{tag}" for name, tags in teachers for tag in tags]


def tag_columns(teacher: Embeddings) -> tuple[TagColumn, ...]:
    """What the columns of a file of tag scores mean.

    ``meta["tags"]`` names them in their order. A file of several teachers lists these as ``meta["teachers"]``, and a
    tag is then "TEACHER/TAG": two teachers may both have a "rock".

    Raises:
        InputError: if the names are missing, or not one for each column.
    """
    teachers = teacher.meta.get("teachers")
    teacher_names = {str(name) for name in teachers} if isinstance(teachers, list) else set()
    columns = []
    for text in teacher_tag_names(teacher):
        # A slash may be part of a tag ("drum/bass"), so what stands before it must be a teacher of the file.
        name, separator, tag = text.partition(_SEPARATOR)
        if not separator or name not in teacher_names:
            name, tag = "", text
        dimension, word = taxonomy.resolve(tag) or (None, tag)
        columns.append(TagColumn(name, tag, dimension, word))
    return tuple(columns)


def teacher_tag_names(teacher: Embeddings) -> tuple[str, ...]:
    """The names of a teacher's columns, as they are in the file; ``tag_columns`` says what they mean.

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


def standardised(scores: np.ndarray) -> np.ndarray:
    """Every column with mean 0 and standard deviation 1; one that never changes is 0."""
    spread = scores.std(axis=0)
    return (scores - scores.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Every row with length 1; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
