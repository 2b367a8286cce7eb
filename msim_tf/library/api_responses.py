"""What the library API answers, as typed dictionaries, which cost nothing to build and describe the OpenAPI document.

A field that is absent is unknown.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import NotRequired, TypedDict

from msim_tf.library.api_requests import Dimension, TrackId


class Error(TypedDict):
    """Why a request cannot be answered, in one line."""

    error: str


class Track(TypedDict):
    """What the library knows of a track; ``api_openapi`` adds a list of tags for each kind of tag."""

    id: TrackId
    title: NotRequired[str]
    artist: NotRequired[str]
    album_artist: NotRequired[str]
    album: NotRequired[str]
    year: NotRequired[int]
    tempo: NotRequired[Annotated[float, Field(description="Beats per minute.")]]
    key: NotRequired[str]
    seconds: NotRequired[float]
    described: Annotated[list[str], Field(description="Fields that the model filled in, as no tag told them.")]
    audio: Annotated[str, Field(description="Address of its sound.")]


class UnderstoodFilters(TypedDict):
    """Filters that words of a search stand for; as filters of a request."""

    bpm: NotRequired[list[float]]
    keys: NotRequired[list[str]]
    tags: NotRequired[list[str]]


class Understood(TypedDict):
    """What a search says beside names."""

    filters: UnderstoodFilters
    tracks: Annotated[int, Field(description="How many pass these filters.")]
    rest: Annotated[str, Field(description="The words that are no filters.")]


class Tracks(TypedDict):
    """One page of tracks: those that are named so, then those that are as the search describes them."""

    total: int
    offset: int
    limit: int
    understood: Annotated[Understood | None, Field(description="Null where the search has only names.")]
    tracks: list[Track]


class Artist(TypedDict):
    """An artist, and how many tracks are theirs."""

    artist: str
    tracks: int


class Artists(TypedDict):
    """One page of artists."""

    total: int
    offset: int
    limit: int
    artists: list[Artist]


class Hit(TypedDict):
    """A track, how far it is from the query, and why."""

    track: Track
    distance: float
    distances: Annotated[
        dict[Dimension, float], Field(description="Unweighted, 0 to 4, of the dimensions that the query has.")
    ]
    shares: Annotated[dict[Dimension, float], Field(description="What each dimension adds; they sum to the distance.")]
    evidence: dict[Dimension, str]
    notes: list[str]
    explanation: Annotated[str, Field(description="All of it in one readable line.")]
    summary: Annotated[str, Field(description="What both share, in words, and what the hit sounds like; may be empty.")]
    versions: Annotated[list[TrackId], Field(description="Other versions of the same song that were found with it.")]


class Similar(TypedDict):
    """Hits, nearest first, and the weights as they were applied: magnitudes sum to 1."""

    weights: dict[Dimension, float]
    hits: list[Hit]
    reason: Annotated[str | None, Field(description="Why there are no hits; null if there are.")]


class Explained(TypedDict):
    """One hit."""

    weights: dict[Dimension, float]
    hit: Hit


class Path(TypedDict):
    """A playlist; distances of each step are to the track before."""

    weights: dict[Dimension, float]
    tracks: list[Hit]


class Profile(TypedDict):
    """Weights learnt from choices."""

    name: str
    weights: dict[Dimension, float]
    choices: int
    agreement: Annotated[
        float | None, Field(description="Share of choices that weights learnt from the others explain.")
    ]
    equal_agreement: Annotated[float | None, Field(description="Share that equal weights explain.")]


class Uploaded(TypedDict):
    """A sound file that was understood."""

    upload: Annotated[str, Field(description="Its token: a query, until it expires.")]
    seconds: float
    expires_in: Annotated[float, Field(description="Seconds.")]
    notes: Annotated[list[str], Field(description="What is wrong with it though it is used: its damage, its header.")]


class Point(TypedDict):
    """A track on the map; ``api_openapi`` adds the first tag of each kind."""

    id: TrackId
    x: float
    y: float
    title: NotRequired[str]
    artist: NotRequired[str]
    year: NotRequired[int]
    tempo: NotRequired[float]
    key: NotRequired[str]


class Map(TypedDict):
    """Tracks in two dimensions, within [-1, 1]."""

    dimension: Annotated[Dimension | None, Field(description="Whose subspace; null is the whole embedding.")]
    total: Annotated[int, Field(description="Tracks in the library; a large one is shown by tracks at even steps.")]
    variance: Annotated[list[float], Field(description="Shares of the variance that x and y have.")]
    points: list[Point]


class Model(TypedDict):
    """The model that embedded the library."""

    name: str
    version: str
    features: Annotated[str, Field(description="Digest of its feature parameters.")]


class UploadBounds(TypedDict):
    """The most that an upload may have."""

    bytes: int
    seconds: float


class NamedWeights(TypedDict):
    """Weights that people ask for often. Dimensions that they do not name are off; where they name none, all count."""

    name: str
    title: str
    weights: dict[str, float]


class Library(TypedDict):
    """The library: its size, dimensions and model, and what filters can ask for."""

    name: str
    tracks: int
    artists: int
    albums: int
    dimensions: list[Dimension]
    profiles: list[NamedWeights]
    model: Model
    engine: str
    tags: Annotated[
        dict[str, list[tuple[str, int]]], Field(description="Kind of tag to its tags and how many tracks have each.")
    ]
    keys: list[str]
    bpm: Annotated[list[float] | None, Field(description="Slowest and fastest.")]
    years: Annotated[list[int] | None, Field(description="First and last.")]
    distances: Annotated[
        dict[Dimension, list[float]],
        Field(description="21 ascending distances of two tracks: below the i-th lie (i / 20)² of all pairs."),
    ]
    uploads: UploadBounds
