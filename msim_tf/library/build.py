"""Makes a library of a folder of music, and brings it up to date.

A library belongs to one folder and one model: another is refused, or takes over in a rebuild, which
fills a second index in the same directory and replaces the first at its end. A rebuild that was killed
goes on where it was when it is asked for again.

``update_library`` embeds in this process. On several machines an update is the three steps of ``library.index_jobs``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from msim_tf.audio.scan import FileState, Scan, scan_folder
from msim_tf.errors import InputError
from msim_tf.export.embedding_job import PartTrack
from msim_tf.export.metadata import ModelMetadata
from msim_tf.library.catalog import CATALOG, Catalog, is_library, load_catalog, writing
from msim_tf.library.embedded_files import TrackEmbedder, embedded_files
from msim_tf.library.plan import Plan, make_plan
from msim_tf.library.update import Progress, TrackSource, Update, must_retry, remembered_files, source_of
from msim_tf.library.update_options import Summary, UpdateOptions
from msim_tf.search.index import Index
from msim_tf.search.index_directory import REBUILD, foreign_names, publish, refuse_old_format
from msim_tf.search.source import Source


def planned_update(music: Path, path: Path, options: UpdateOptions) -> tuple[Plan, Scan]:
    """What ``update_library`` would do; nothing is written and no model is needed.

    Raises:
        InputError: as ``update_library``.
    """
    catalog = music_catalog(music, path, options)
    index = None if options.rebuild or not is_library(path) else _opened(path)
    return compared(catalog, index, options)


def compared(catalog: Catalog, index: Index | None, options: UpdateOptions) -> tuple[Plan, Scan]:
    """What an update of ``index`` has to do, and the folder as it is now.

    Args:
        catalog: names the folder.
        index: the index that the update would go on with, which is closed here; None if it begins anew.
        options: how.
    """
    assert catalog.music is not None
    scan = scan_folder(catalog.music)
    plan = make_plan(catalog.music, scan, remembered_files(index), retry=must_retry(index, options))
    if index is not None:
        index.close()
    return plan, scan


def update_library(
    music: Path,
    path: Path,
    embedder: TrackEmbedder,
    options: UpdateOptions,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> Summary:
    """Brings the library at ``path`` up to date with the folder ``music``, or makes it: all three steps at once, here.

    Nothing waits in a part meanwhile: what is embedded is saved in the library, batch by batch.

    Args:
        music: the folder of music.
        path: the library's directory.
        embedder: the model.
        options: how.
        progress: called with (stage, done, total).

    Returns:
        What was done; failures are listed in it and raise nothing.

    Raises:
        InputError: if another process is writing, the library belongs to another folder or model, the folder holds no
            audio, or no track at all could be embedded.
    """

    def tracks(files: Mapping[str, FileState]) -> Iterator[tuple[str, PartTrack]]:
        return embedded_files(files, Path(os.path.realpath(music)), embedder, pad=options.pad)

    return update_from(music, path, embedder.metadata, tracks, options, progress)


def update_from(
    music: Path,
    path: Path,
    metadata: ModelMetadata,
    tracks: TrackSource,
    options: UpdateOptions,
    progress: Progress,
) -> Summary:
    """``update_library`` with tracks that come from anywhere.

    Args:
        music: the folder of music.
        path: the library's directory.
        metadata: of the model that embeds the tracks.
        tracks: takes files and yields what became of them; those that it leaves out are pending.
        options: how.
        progress: called with (stage, done, total).
    """
    music_catalog(music, path, options)  # before anything is written
    source = source_of(metadata)
    with writing(path):
        catalog = replace(music_catalog(music, path, options), model=str(metadata.directory.parent.resolve()))
        assert catalog.music is not None
        # A rebuild fills an index of its own; otherwise the present one is changed, or the update makes the first.
        scan = scan_folder(catalog.music)
        present = _opened(path) if is_library(path) else None
        update = Update(catalog, source, tracks, options, progress)
        if options.rebuild and present is not None:
            update.index, update.before, update.database = _unfinished(path, source), present, REBUILD
            return _rebuilt(update, scan)
        if present is not None:
            _validate_source(present, source, path)
            present.begin()
            present.table.set_setting(CATALOG, catalog.to_json())
        update.index = present
        try:
            update.run(scan)
        finally:
            if update.index is not None:
                update.index.close()
    return update.summary


def index_to_update(path: Path, source: Source, options: UpdateOptions) -> Index | None:
    """The index that an update would go on with: that of the library, or of its unfinished rebuild."""
    if not is_library(path):
        return None
    if options.rebuild:
        return _unfinished(path, source)
    index = _opened(path)
    _validate_source(index, source, path)
    return index


def _rebuilt(update: Update, scan: Scan) -> Summary:
    """Fills the second index and lets it take the place of the first."""
    try:
        update.run(scan)
    finally:
        if update.index is not None:
            update.index.close()
    # Unfinished, the first index serves on, and the next rebuild goes on with the second.
    if update.summary.pending:
        return update.summary
    assert update.index is not None and update.index.directory is not None
    publish(update.index.directory, REBUILD)
    index = Index.open(update.index.directory)
    index.begin()
    index.save()  # sweeps the files of the first
    index.close()
    return update.summary


def music_catalog(music: Path, path: Path, options: UpdateOptions) -> Catalog:
    """The catalog to work with: a new one, or the one that is there if it is of this folder."""
    music = Path(os.path.realpath(music))  # which a ring of links does not stop
    if not music.is_dir():
        raise InputError(f"{music}: not a folder; expected a folder of music")
    refuse_old_format(path)
    if not is_library(path):
        if path.exists() and (not path.is_dir() or foreign_names(path)):
            raise InputError(f"{path}: exists and is not a library; give an empty or new directory")
        return Catalog(path, options.name or music.name, music)
    # A library of another folder is taken over only by a rebuild, or when its folder is no longer there (it was moved).
    catalog = load_catalog(path)
    if catalog.music is None:
        raise InputError(f"{path} is a library of imported vectors; give another directory for the folder {music}")
    if catalog.music != music and catalog.music.is_dir() and not options.rebuild:
        raise InputError(
            f"{path} is a library of {catalog.music}, not of {music}; give another directory, or --rebuild it"
        )
    return replace(catalog, music=music, name=options.name or catalog.name)


def _opened(path: Path) -> Index:
    """The index of a library; if only the codes of its engine are damaged, without
    them, for they will be made again.
    """
    try:
        return Index.open(path)
    except InputError:
        return Index.open(path, engine=False)


def _unfinished(path: Path, source: Source) -> Index | None:
    """The index of a rebuild that was interrupted, if it is by the same model and whole."""
    if not (path / REBUILD).exists():
        return None
    try:
        index = Index.open(path, name=REBUILD)
    except InputError:
        return None
    if index.source == source:
        return index
    index.close()
    return None


def _validate_source(index: Index, source: Source, path: Path) -> None:
    stored = index.source
    if stored != source:
        raise InputError(
            f"{path} was embedded by {stored.model} version {stored.version} (features {stored.digest}), this model is "
            f"{source.model} version {source.version} (features {source.digest}): give the old model, or embed "
            "everything "
            "again with msim index --rebuild"
        )
