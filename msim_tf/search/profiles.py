"""Profiles of weights by name: what people ask for most, under one name in commands, API and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msim_tf.dimensions import TAG_DIMENSION_NAMES
from msim_tf.errors import InputError


@dataclass(frozen=True)
class NamedWeights:
    """Weights under a name.

    Attributes:
        name: as commands take it.
        title: as the page shows it.
        weights: dimension -> weight; negative is unlike, what is not named is off. Empty: all dimensions alike.
    """

    name: str
    title: str
    weights: dict[str, float]


PROFILES = (
    # The default: no dimension is preferred without a listener's own word. ``msim learn`` finds out who differs.
    NamedWeights("everything", "Everything alike", {}),
    NamedWeights("other-era", "Same mood and tempo, another era", {"mood": 1.0, "tempo": 1.0, "era": -0.4}),
    NamedWeights("other-genre", "Same sound, another genre", {"instrument": 1.0, "mood": 0.6, "genre": -0.4}),
    NamedWeights("mix", "For a transition: tempo and key", {"tempo": 1.0, "key": 1.0, "genre": 0.3}),
    NamedWeights("mood", "Mood only", {"mood": 1.0}),
    NamedWeights("feel", "The feel: genre, mood, instrument, era", dict.fromkeys(TAG_DIMENSION_NAMES, 1.0)),
)


def offered(dimensions: Sequence[str]) -> list[NamedWeights]:
    """The profiles that a library with these dimensions can answer."""
    return [profile for profile in PROFILES if set(profile.weights) <= set(dimensions)]


def named_weights(name: str) -> dict[str, float] | None:
    """Weights of a profile; None where all dimensions count alike.

    Raises:
        InputError: if there is no profile of that name.
    """
    for profile in PROFILES:
        if profile.name == name:
            return dict(profile.weights) or None
    raise InputError(
        f"no profile {name!r}: expected one of {', '.join(p.name for p in PROFILES)}, or a file of msim learn"
    )


def requested_weights(profile: str | None, weights: Mapping[str, float] | None) -> Mapping[str, float] | None:
    """The weights of a request that has a profile, or weights, or neither; None where all dimensions count alike.

    Raises:
        InputError: if both are given, or there is no profile of that name.
    """
    if profile and weights:
        raise InputError(f"profile {profile!r} and weights both say what counts; give one of them")
    return named_weights(profile) if profile else weights
