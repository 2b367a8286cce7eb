"""Which words a model can learn to say of music, and of which tracks it knows that they fit or do not.

A word is a value of a tag dimension: one that label tables hold, or one that a teacher scores. A label settles whether
a word fits. A teacher settles it only in its clear cases, by the shares of pairs that ``labels.teacher`` takes for
similar and dissimilar; what lies between is unknown, because a teacher's opinion of a track in the middle is noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from msim_tf.embeddings import Embeddings
from msim_tf.labels import taxonomy
from msim_tf.labels.encoding import EncodedLabels
from msim_tf.labels.teacher import DISSIMILAR_SHARE, SIMILAR_SHARE, scores_of, standardised, tag_columns

# A tenth of any corpus scores highest for "country", also of one without country music. A teacher's own probability
# must reach this, too. Tags have been given to one track in two to one in a hundred, and musicnn's probabilities with
# them: at .05 most of its words are still above how often they were given.
CLEAR_PROBABILITY = 0.05
FEWEST = 5  # tracks that a word fits, and tracks that it does not; fewer teach nothing


@dataclass(frozen=True, eq=False)
class WordTargets:
    """What is known of words.

    Attributes:
        words: tag dimension -> its words.
        targets: tag dimension -> [tracks, words] int8: +1 fits, -1 does not, 0 unknown.
    """

    words: dict[str, tuple[str, ...]]
    targets: dict[str, np.ndarray]

    def select(self, chosen: Mapping[str, np.ndarray]) -> WordTargets:
        """The words where ``chosen`` (dimension -> [words] bool) is true; dimensions without a word are left out."""
        # [tracks, words] -> [tracks, chosen words], with their names.
        kept = {name: mask for name, mask in chosen.items() if mask.any()}
        return WordTargets(
            {name: tuple(word for word, keep in zip(self.words[name], mask) if keep) for name, mask in kept.items()},
            {name: self.targets[name][:, mask] for name, mask in kept.items()},
        )


def word_targets(labels: EncodedLabels, teacher: Embeddings | None = None) -> WordTargets:
    """The words of the tag dimensions that were encoded.

    Args:
        labels: of the tracks.
        teacher: another model's scores of tags before any squashing, as ``labels.teacher.teacher_tags`` takes them.

    Returns:
        Every word of which any track is known to have it or not to have it.

    Raises:
        InputError: if the names of the teacher's tags are missing.
    """
    # Dimension -> word -> [tracks] int8: first what the teacher is sure of, then labels, which overrule it.
    columns: dict[str, dict[str, np.ndarray]] = {name: {} for name in labels.vocabularies}
    for name, word, clear_cases in _teacher_scores(teacher, labels.identifiers) if teacher else ():
        if name in columns:
            columns[name][word] = clear_cases
    for name, vocabulary in labels.vocabularies.items():
        has_word = labels.arrays[name]
        # Who names values of a dimension would have named this one, too: a labelled track without it is a "no".
        labelled = np.asarray(has_word.any(axis=1))
        for column, word in enumerate(vocabulary):
            guessed = columns[name].get(word, np.zeros(len(labelled), np.int8))
            settled = np.where(has_word[:, column], 1, -1)
            # Nobody writes of music that it is not noise: a track that is not labelled so is a "no", too.
            certain = labelled | (name == "instrument" and word in taxonomy.NOT_MUSIC)
            columns[name][word] = np.where(certain, settled, guessed).astype(np.int8)
    words = {name: tuple(own) for name, own in columns.items() if own}
    return WordTargets(words, {name: np.stack([columns[name][word] for word in own], 1) for name, own in words.items()})


def learnable(candidates: WordTargets, training: np.ndarray) -> WordTargets:
    """The words that enough of the tracks ``training`` ([n] int) have, and enough do not have."""
    # [tracks, words] -> [words] bool.
    enough = {
        name: ((targets[training] > 0).sum(0) >= FEWEST) & ((targets[training] < 0).sum(0) >= FEWEST)
        for name, targets in candidates.targets.items()
    }
    return candidates.select(enough)


def _teacher_scores(teacher: Embeddings, identifiers: Iterable[str]) -> Iterable[tuple[str, str, np.ndarray]]:
    """Dimension, word and the teacher's clear cases, [tracks] int8, of every tag that the taxonomy knows."""
    tracks = list(identifiers)
    scored, scores = scores_of(teacher, tracks)
    if len(scores) < 2:
        return
    # Several tags may be one word: synonyms, or the same tag of two teachers.
    synonyms: dict[tuple[str, str], list[int]] = {}
    for index, column in enumerate(tag_columns(teacher)):
        if column.dimension is not None:
            synonyms.setdefault((column.dimension, column.word), []).append(index)
    for (name, word), columns in synonyms.items():
        # [scored]: the mean opinion decides the order, the surest one whether it is enough.
        opinion = standardised(scores[:, columns]).mean(axis=1)
        probability = 1 / (1 + np.exp(-scores[:, columns].max(axis=1)))
        low, high = np.quantile(opinion, [DISSIMILAR_SHARE, 1 - SIMILAR_SHARE])
        clear = np.zeros(len(tracks), np.int8)
        clear[scored] = ((opinion >= high) & (probability >= CLEAR_PROBABILITY)).astype(np.int8) - (opinion <= low)
        yield name, word, clear
