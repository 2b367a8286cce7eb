"""What the library API accepts, as pydantic models: they validate bodies and describe them in the OpenAPI document.

They are strict: no field that is not described, no text for a number, no number for a text.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag
from typing_extensions import TypeAliasType

MOST_HITS = 500
MOST_EXAMPLES = 100
MOST_CHOICES = 1000

# The document of a library lists the names here: see ``api_openapi``.
Dimension = TypeAliasType("Dimension", Annotated[str, Field(description="A dimension of the library's embedding.")])
TrackId = Annotated[str, Field(description="A track's id: its path in the music folder.")]
# An integer of 400 digits is JSON and no float; far below its limits, sums and products stay finite.
Number = Annotated[float, Field(ge=-1e300, le=1e300)]
Hits = Annotated[int, Field(ge=1, le=MOST_HITS)]


class Body(BaseModel):
    """What every object of a request has in common."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# --- queries -------------------------------------------------------------------------------------------------------


class TrackQuery(Body):
    """Near to one track."""

    track: TrackId


class TracksQuery(Body):
    """Near to the middle of several tracks."""

    tracks: list[TrackId] = Field(min_length=1, max_length=MOST_EXAMPLES)


class UploadQuery(Body):
    """Near to an uploaded file."""

    upload: str = Field(description="Token of an upload.")


def _only_field(value: Any) -> str | None:
    """The name of the single field of an object: the kind of a query. Ids of tracks are the kind "id"."""
    if isinstance(value, str):
        return "id"
    if isinstance(value, BaseModel):
        return next(iter(type(value).model_fields))
    return str(next(iter(value))) if isinstance(value, dict) and len(value) == 1 else None


def _one_of(*names: str) -> Discriminator:
    """Chooses a query by its only field, so that an error speaks of that kind alone."""
    return Discriminator(_only_field, "query_kind", f"expected exactly one of {', '.join(names)}")


Example = TypeAliasType(
    "Example",
    Annotated[
        Annotated[TrackQuery, Tag("track")] | Annotated[UploadQuery, Tag("upload")],
        _one_of("track", "upload"),
    ],
)


class ExamplesQuery(Body):
    """Near to the middle of tracks and uploads."""

    examples: list[Example] = Field(min_length=1, max_length=MOST_EXAMPLES)


SimpleQuery = TypeAliasType(
    "SimpleQuery",
    Annotated[
        Annotated[TrackQuery, Tag("track")]
        | Annotated[TracksQuery, Tag("tracks")]
        | Annotated[UploadQuery, Tag("upload")]
        | Annotated[ExamplesQuery, Tag("examples")],
        _one_of("track", "tracks", "upload", "examples"),
    ],
)


class MixQuery(Body):
    """Near to another query in each dimension: genre of this, tempo of that. Absent dimensions have no say."""

    mix: dict[Dimension, SimpleQuery] = Field(min_length=1)


Query = TypeAliasType(
    "Query",
    Annotated[
        Annotated[TrackQuery, Tag("track")]
        | Annotated[TracksQuery, Tag("tracks")]
        | Annotated[UploadQuery, Tag("upload")]
        | Annotated[ExamplesQuery, Tag("examples")]
        | Annotated[MixQuery, Tag("mix")],
        _one_of("track", "tracks", "upload", "examples", "mix"),
    ],
)
ChoiceQuery = TypeAliasType(
    "ChoiceQuery",
    Annotated[
        Annotated[TrackId, Tag("id")]
        | Annotated[TrackQuery, Tag("track")]
        | Annotated[TracksQuery, Tag("tracks")]
        | Annotated[UploadQuery, Tag("upload")]
        | Annotated[ExamplesQuery, Tag("examples")]
        | Annotated[MixQuery, Tag("mix")],
        _one_of("track", "tracks", "upload", "examples", "mix"),
    ],
)

AnyQuery = TrackQuery | TracksQuery | UploadQuery | ExamplesQuery | MixQuery

# --- requests ------------------------------------------------------------------------------------------------------

Weights = TypeAliasType(
    "Weights",
    Annotated[
        dict[Dimension, Number],
        Field(
            description="Relative; 0 or absent is off, negative is unlike. Without any, all dimensions weigh the same."
        ),
    ],
)


class Filters(Body):
    """All must hold: any of keys and artists, all of tags. Tracks that lack a field which is asked for are left out."""

    bpm: list[Number] | None = Field(None, min_length=2, max_length=2, description="Slowest and fastest tempo.")
    octaves: bool | None = Field(None, description="Whether a tempo also passes doubled or halved.")
    keys: list[str] | None = Field(None, description='Names of keys, e.g. "A minor".')
    tags: list[str] | None = None
    artists: list[str] | None = None
    years: list[Annotated[float, Field(ge=0, le=9999)]] | None = Field(
        None, min_length=2, max_length=2, description="First and last year."
    )


class Diversity(Body):
    """How many hits may be alike."""

    per_artist: Hits | None = None
    per_album: Hits | None = None
    relevance: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Below 1, hits also keep away from each other (maximal marginal relevance)."
    )
    versions: bool | None = Field(
        None, description="Whether versions of one song are one hit, which names the others; true if absent."
    )


Profile = Annotated[str, Field(description="A name in the place of weights: one of the library's `profiles`.")]


class SimilarRequest(Body):
    """What to find."""

    query: Query
    weights: Weights | None = None
    profile: Profile | None = None
    filters: Filters | None = None
    diversity: Diversity | None = None
    k: Hits = 10


class ExplainRequest(Body):
    """Which track to compare with a query."""

    query: Query
    track: TrackId
    weights: Weights | None = None
    profile: Profile | None = None


class PathRequest(Body):
    """Which way to take. Without diversity two tracks of an artist, and more only where no other track is left."""

    start: TrackId = Field(alias="from")
    end: TrackId = Field(alias="to")
    length: int = Field(10, ge=2, le=MOST_HITS)
    weights: Weights | None = None
    profile: Profile | None = None
    filters: Filters | None = None
    diversity: Diversity | None = None


class Choice(Body):
    """``better`` is nearer to ``query`` than ``worse``."""

    query: ChoiceQuery
    better: TrackId
    worse: TrackId


class ProfileRequest(Body):
    """What a listener chose."""

    choices: list[Choice] = Field(min_length=1, max_length=MOST_CHOICES)
    name: str = ""
