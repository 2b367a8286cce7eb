"""Makes a library of a folder of music, and brings it up to date.

A library belongs to one folder and one model: another is refused, or takes over in a rebuild, which fills a second index and replaces the
first at its end. A rebuild that was killed goes on where it was when it is asked for again.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from msim_tf.audio.scan import Scan, scan_folder
from msim_tf.errors import InputError
from msim_tf.library.catalog import Catalog, is_library, load_catalog, save_catalog, writing
from msim_tf.library.plan import Plan, make_plan
from msim_tf.library.update import Progress, Summary, TrackEmbedder, Update, UpdateOptions, file_states, source_of
from msim_tf.search.index import Index
from msim_tf.search.index_files import MANIFEST as INDEX_MANIFEST
from msim_tf.search.source import Source


def planned_update(music: Path, path: Path, *, rebuild: bool = False) -> tuple[Plan, Scan]:
    """What ``update_library`` would do; nothing is written and no model is needed.

    Raises:
        InputError: as ``update_library``.
    """
    catalog = _catalog(music, path, UpdateOptions(rebuild=rebuild))
    index = None if rebuild else _opened(catalog)
    scan = scan_folder(catalog.music)
    return make_plan(catalog.music, scan, file_states(index)), scan


def update_library(
    music: Path,
    path: Path,
    embedder: TrackEmbedder,
    options: UpdateOptions,
    *,
    progress: Progress = lambda stage, done, total: None,
) -> Summary:
    """Brings the library at ``path`` up to date with the folder ``music``, or makes it.

    Args:
        music: the folder of music.
        path: the library's directory.
        embedder: the model.
        options: how.
        progress: called with (stage, done, total).

    Returns:
        What was done; failures are listed in it and raise nothing.

    Raises:
        InputError: if another process is writing, the library belongs to another folder or model, the folder holds no audio, or no track
            at all could be embedded.
    """
    _catalog(music, path, options)  # before anything is written
    source = source_of(embedder.metadata)
    with writing(path):
        rebuild = options.rebuild and is_library(path)
        catalog = _catalog(music, path, options)
        target = replace(catalog, model=str(embedder.metadata.directory.parent.resolve()))
        if rebuild:
            target = target.following()
            index = _unfinished(target, source)
        else:
            index = _opened(target)
            _validate_source(index, source, path)
            save_catalog(target)
        update = Update(target, index, _opened(catalog) if rebuild else None, embedder, options, progress)
        update.run()
        if rebuild:
            save_catalog(target)
            shutil.rmtree(catalog.index_path, ignore_errors=True)
    return update.summary


def _catalog(music: Path, path: Path, options: UpdateOptions) -> Catalog:
    """The manifest to work with: a new one, or the one that is there if it is of this folder."""
    music = music.resolve()
    if not music.is_dir():
        raise InputError(f"{music}: not a folder; expected a folder of music")
    if not is_library(path):
        if path.exists() and (not path.is_dir() or any(entry.name != ".lock" for entry in path.iterdir())):
            raise InputError(f"{path}: exists and is not a library; give an empty or new directory")
        return Catalog(path, options.name or music.name, music)
    catalog = load_catalog(path)
    if catalog.music != music and catalog.music.is_dir() and not options.rebuild:
        raise InputError(
            f"{path} is a library of {catalog.music}, not of {music}; give another directory, or --rebuild it"
        )
    return replace(catalog, music=music, name=options.name or catalog.name)


def _unfinished(target: Catalog, source: Source) -> Index | None:
    """The index of a rebuild that was interrupted, if it is by the same model."""
    index = _opened(target)
    if index is None or index.source != source:
        shutil.rmtree(target.index_path, ignore_errors=True)
        return None
    return index


def _validate_source(index: Index | None, given: Source, path: Path) -> None:
    held = index.source if index else given
    if held != given:
        raise InputError(
            f"{path} was embedded by {held.model} version {held.version} (features {held.digest}), this model is "
            f"{given.model} version {given.version} (features {given.digest}): give the old model, or embed everything again with "
            "msim index --rebuild"
        )


def _opened(catalog: Catalog) -> Index | None:
    return catalog.open_index() if (catalog.index_path / INDEX_MANIFEST).exists() else None
