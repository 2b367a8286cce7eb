"""What a store knows of some tracks, as the evaluation takes it: relations, artists, tempo, key, baselines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.embeddings import Embeddings
from msim_tf.evaluate.baselines import mel_statistics, mfcc_statistics, random_projection, standardised
from msim_tf.labels.encoding import encode, groups_of

MFCC, RANDOM = "MFCC statistics", "random projection"
_MFCC_COEFFICIENTS = 20


@dataclass(frozen=True, eq=False)
class LabelledTracks:
    """Labels of n tracks.

    Attributes:
        identifiers: [n] tracks of the store.
        relations: dimension -> [n, n] int8: +1 similar, -1 dissimilar, 0 unknown.
        groups: [n] the artists of each track or, where unknown, its folder, as in the split.
        tempo: [n] bpm or None.
        key: [n] names or None.
    """

    identifiers: tuple[str, ...]
    relations: dict[str, np.ndarray]
    groups: tuple[tuple[str, ...], ...]
    tempo: tuple[float | None, ...]
    key: tuple[str | None, ...]

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Dimensions in which no track has a label."""
        return tuple(name for name, relation in self.relations.items() if not relation.any())


def labelled_tracks(
    store: FeatureStore, identifiers: Sequence[str], *, key_relation: str = "parallel"
) -> LabelledTracks:
    """Labels of ``identifiers``, all of them in the store."""
    # [n, n] relations of all tracks with all; tempo and key once more as values, for the neighbours' scores.
    labels, rows = store.labels, np.arange(len(identifiers))
    encoded = encode(labels, identifiers, DIMENSION_NAMES, teacher=store.teacher)
    values = [labels.values.get(identifier, {}) for identifier in identifiers]
    return LabelledTracks(
        tuple(identifiers),
        {name: encoded.relation(name, rows, rows, key_relation=key_relation) for name in DIMENSION_NAMES},
        tuple(groups_of(identifier, labels.groups) for identifier in identifiers),
        tuple(float(of_track["tempo"][0]) if of_track.get("tempo") else None for of_track in values),
        tuple(of_track["key"][0] if of_track.get("key") else None for of_track in values),
    )


def sampled(identifiers: Sequence[str], most: int, *, seed: int = 0) -> tuple[str, ...]:
    """At most ``most`` of the tracks, drawn at random, in their order: relation matrices grow with the square."""
    if len(identifiers) <= most:
        return tuple(identifiers)
    rows = np.random.default_rng(seed).choice(len(identifiers), most, replace=False)
    return tuple(identifiers[row] for row in np.sort(rows))


def baselines(
    identifiers: Sequence[str],
    mels: Iterable[np.ndarray],
    *,
    size: int,
    reference: Iterable[np.ndarray] | None = None,
    seed: int = 0,
) -> list[Embeddings]:
    """MFCC statistics, and a random projection of mel statistics: systems that learnt nothing.

    Args:
        identifiers: [n] names of the results.
        mels: [n] log-compressed mel-spectrograms, each [n_mels, frames]; gone through once.
        size: coordinates of the random projection.
        reference: mel-spectrograms that decide the standardisation, e.g. of the training tracks; None takes ``mels``.
        seed: of the projection.
    """
    own = _statistics(mels)
    bases = own if reference is None else _statistics(reference)
    # [n, statistics], standardised over the reference; their random projection is [n, size].
    systems = []
    for name, statistics, base in zip((MFCC, RANDOM), own, bases):
        vectors = standardised(statistics, reference=base)
        if name == RANDOM:
            vectors = random_projection(vectors, size, seed=seed)
        meta = {"name": name, "inputs": "mel", "parameters": 0, "training_seconds": 0.0}
        systems.append(Embeddings(name, tuple(identifiers), vectors, None, meta))
    return systems


def _statistics(mels: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """MFCC statistics and mel statistics, each [n, size], from one look at every mel-spectrogram."""
    rows = [(mfcc_statistics(mel, n_mfcc=min(_MFCC_COEFFICIENTS, len(mel))), mel_statistics(mel)) for mel in mels]
    mfcc, mel = zip(*rows)
    return np.stack(mfcc), np.stack(mel)


def stored_mels(store: FeatureStore, identifiers: Sequence[str]) -> Iterator[np.ndarray]:
    """The mel-spectrograms of some tracks of the store, one at a time."""
    rows = {identifier: row for row, identifier in enumerate(store.identifiers)}
    for identifier in identifiers:
        yield store.read_clip(rows[identifier]).mel
