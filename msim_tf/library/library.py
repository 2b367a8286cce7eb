"""A library as Python code uses it, and as the commands do: search it by track, by file, by several or by a mix.

library = msim_tf.open_library()
for hit in library.similar("song.mp3", mood=1, tempo=1, era=-0.5):
    print(hit.path, hit.distance, hit.why)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msim_tf import settings
from msim_tf.audio.scan import scan_folder
from msim_tf.errors import InputError
from msim_tf.library.catalog import load_catalog
from msim_tf.library.hits import Hit, Hits
from msim_tf.names import unprintable
from msim_tf.search.diversity import Diversity
from msim_tf.search.explanation import explain
from msim_tf.search.filters import Filters
from msim_tf.search.path import track_path
from msim_tf.search.profiles import requested_weights
from msim_tf.search.query import Match, Query, examples_query, mixed_query, search, track_query, vector_query
from msim_tf.startup import quiet_tensorflow

if TYPE_CHECKING:
    from msim_tf.export.embedder import Embedder
    from msim_tf.library.update import Progress
    from msim_tf.library.update_options import Summary, UpdateOptions

Track = str | Path | np.ndarray


class Library:
    """The tracks of a music folder with their embeddings.

    Args:
        path: its directory.
        model: the model that embeds files which are not in it; by default the one that embedded the library.

    Attributes:
        catalog: what it is of.
        index: what is searched.
        summary: what ``index`` did to bring it up to date; None if it was only opened.
    """

    def __init__(self, path: str | Path, *, model: str | Path | None = None) -> None:
        self.catalog = load_catalog(path)
        self.index = self.catalog.open_index()
        self._model = model
        self.summary: Summary | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.catalog.name

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What can be weighed."""
        return self.index.source.layout.names

    @property
    def tracks(self) -> list[str]:
        """Identifiers of all tracks: paths below the music folder."""
        return self.index.identifiers

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, track: object) -> bool:
        return isinstance(track, str) and track in self.index

    def __iter__(self) -> Iterator[str]:
        return iter(self.tracks)

    def __getitem__(self, track: str) -> dict[str, Any]:
        """What the library knows of a track.

        Raises:
            InputError: if there is none, with names that are alike.
        """
        return self.index.metadata(track)

    def __repr__(self) -> str:
        return f"<Library {self.name!r}: {len(self):,} tracks, {', '.join(self.dimensions)}>"

    def similar(
        self,
        track: Track | Sequence[Track],
        *,
        k: int = 10,
        filters: Filters | None = None,
        diversity: Diversity | None = None,
        profile: str | None = None,
        **weights: float,
    ) -> Hits:
        """The tracks nearest to a track, or to the middle of several.

        Args:
            track: a track of the library, any sound file, a vector of the model; or several of these.
            k: how many.
            filters: what may be found.
            diversity: how different the hits should be from each other.
            profile: weights by name, see ``msim_tf.search.profiles``.
            **weights: by dimension: 0 or unnamed is off, negative is unlike. Without any, all count alike.

        Raises:
            InputError: if a track is not there or cannot be embedded, for a weight of an unknown dimension, or for
                both a profile and weights.
        """
        chosen = requested_weights(profile, weights or None)
        several = isinstance(track, (list, tuple))
        query = self.query(track if several else [track])  # type: ignore[list-item, arg-type]
        matches = search(self.index, query, weights=chosen, k=k, filters=filters, diversity=diversity)
        return self._hits(query, matches)

    def mix(
        self,
        parts: Mapping[str, Track],
        *,
        k: int = 10,
        filters: Filters | None = None,
        diversity: Diversity | None = None,
        profile: str | None = None,
        **weights: float,
    ) -> Hits:
        """The tracks nearest to a mix, such as the genre of one track with the tempo of another.

        Args:
            parts: dimension -> track; dimensions that are not named do not count.
            k: as ``similar``.
            filters: as ``similar``.
            diversity: as ``similar``.
            profile: as ``similar``.
            **weights: as ``similar``, of the dimensions of the mix.

        Raises:
            InputError: as ``similar``.
        """
        chosen = requested_weights(profile, weights or None)
        query = mixed_query(self.index, {name: self.locate(track) for name, track in parts.items()})
        matches = search(self.index, query, weights=chosen, k=k, filters=filters, diversity=diversity)
        return self._hits(query, matches)

    def path(
        self,
        start: str,
        end: str,
        *,
        length: int = 10,
        diversity: Diversity | None = None,
        profile: str | None = None,
        **weights: float,
    ) -> Hits:
        """A playlist from one track to another that turns gradually, without repeats.

        Args:
            start: the first track.
            end: the last track.
            length: tracks, both ends included.
            diversity: limits per artist and album; by default two of an artist while others are left.
            profile: weights by name, none of them negative.
            **weights: by dimension, >= 0. Without any, all count alike.

        Raises:
            InputError: if an end is not there, the library has too few tracks, or a weight is negative.
        """
        chosen = requested_weights(profile, weights or None)
        start, end = self.identify(start), self.identify(end)
        steps = track_path(self.index, start, end, length=length, weights=chosen, diversity=diversity)
        return Hits(self._hit(step, "") for step in steps)

    def query(self, tracks: Sequence[Track]) -> Query:
        """A query by one track, or by the middle of several.

        Raises:
            InputError: if there is none, or one is not there or cannot be embedded.
        """
        located = [self.locate(track) for track in tracks]
        # The mean of one is the same up to rounding, and rounding would show in ties.
        if len(located) != 1:
            return examples_query(self.index, located)
        return (
            track_query(self.index, located[0]) if isinstance(located[0], str) else vector_query(self.index, located[0])
        )

    def locate(self, track: Track) -> str | np.ndarray:
        """A track of the library by its identifier or its file; the embedding of any other sound file.

        Raises:
            InputError: if it is neither, with names that are alike, or cannot be embedded.
        """
        if isinstance(track, np.ndarray):
            return track
        identifier = self.identifier_of(track)
        if identifier is not None:
            return identifier
        # What is neither a track nor a file is refused with the best reason there is.
        if not Path(track).is_file():
            if os.path.lexists(track) and not os.path.isdir(track):
                scan_folder(Path(track))  # raises: a pipe, a link to nothing
            self.index.row(str(track))  # raises, with names that are alike
        return self._embedder.embed_file(track)

    def identify(self, track: str | Path) -> str:
        """The identifier of a track of the library, from that or from its file.

        Raises:
            InputError: if the library does not have it, with names that are alike.
        """
        identifier = self.identifier_of(track)
        if identifier is None:
            self.index.row(str(track))  # raises
        return str(identifier)

    def identifier_of(self, track: str | Path) -> str | None:
        """The identifier of a track of the library, from that or from its file; None if the library lacks it."""
        # As it is called, or as a listing prints names that a terminal cannot show.
        for name in (str(track), unprintable(str(track))):
            if name in self.index:
                return name
        if "\0" in str(track):  # a playlist's address can spell it; no file has such a name
            return None
        file, music = Path(track).absolute(), self.catalog.music
        # As it is written, for links in the music folder; then as it is stored. Path.resolve fails on a ring of links.
        for place in (file, Path(os.path.realpath(file))):
            if music is not None and place.is_relative_to(music) and place.relative_to(music).as_posix() in self.index:
                return place.relative_to(music).as_posix()
        return None

    @cached_property
    def _embedder(self) -> Embedder:
        """The model of the library, loaded when a file that is not in it is asked for."""
        model = self._model or self.catalog.model
        if not model:
            raise InputError(
                f"{self.catalog.path} does not say which model made its vectors; name the model with --model"
            )
        quiet_tensorflow()
        from msim_tf.export.embedder import Embedder
        from msim_tf.library.update import source_of

        embedder = Embedder(model)
        self.index.source.validate(source_of(embedder.metadata), self.catalog.path, model)
        return embedder

    def _hits(self, query: Query, matches: Iterable[Match]) -> Hits:
        return Hits(self._hit(match, explain(self.index, query, match).line()) for match in matches)

    def _hit(self, match: Match, why: str) -> Hit:
        music = self.catalog.music
        path = None if music is None else music / match.identifier
        return Hit(match.identifier, path, match.distance, match.shares, match.metadata, why)


def open_library(path: str | Path | None = None) -> Library:
    """Opens a library that ``index`` or ``msim index`` made.

    Args:
        path: its directory; by default as ``msim_tf.settings`` says.

    Raises:
        InputError: if there is none.
    """
    return Library(settings.default_library() if path is None else path)


def index(
    music: str | Path,
    path: str | Path | None = None,
    *,
    model: str | Path | None = None,
    options: UpdateOptions | None = None,
    progress: Progress | None = None,
) -> Library:
    """Makes a library of a folder of music, or brings it up to date, and opens it. What has not changed is skipped.

    Args:
        music: the folder.
        path: the library's directory; by default as ``msim_tf.settings`` says.
        model: the model; by default the one that embedded the library before, else as ``msim_tf.settings`` says.
        options: how, see ``msim_tf.library.update_options.UpdateOptions``.
        progress: called with (stage, done, total).

    Returns:
        The library; its ``summary`` says what was done and which files could not be used.

    Raises:
        InputError: if the library belongs to another folder or model, or no file at all could be embedded.
    """
    quiet_tensorflow()
    from msim_tf.export.embedder import Embedder
    from msim_tf.library.build import update_library
    from msim_tf.library.catalog import is_library
    from msim_tf.library.update_options import UpdateOptions

    directory = Path(settings.default_library() if path is None else path)
    recorded = load_catalog(directory).model if is_library(directory) else ""
    embedder = Embedder(model or recorded or settings.default_model())
    try:
        report = progress or (lambda stage, done, total: None)
        summary = update_library(
            Path(music).expanduser(), directory, embedder, options or UpdateOptions(), progress=report
        )
    finally:
        embedder.close()
    library = Library(directory)
    library.summary = summary
    return library
