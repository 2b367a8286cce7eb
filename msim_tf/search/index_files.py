"""An index on disk: a directory of immutable files and one manifest that is replaced.

    index.json          manifest: format, source, segments in order, removed rows, engine
    segment-000001/     some tracks, see ``segments``
    codes-000004.npz    codes of the FAISS engine, if there is one; rows after those it covers are encoded when it is opened

A save writes new files beside the old ones and then replaces the manifest, so that a process killed at any moment leaves the old index whole.
Files that the manifest does not name are removed by the next save; readers that have them mapped keep them. When a quarter of the rows is
dead, the save writes what is alive as one new segment. When the segments are many, it joins the last ones: all but those that are greater than
everything after them, so that a row is copied as often as its segment doubles. One process writes at a time: a save over somebody else's is refused.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msim_tf.errors import InputError
from msim_tf.files import load_json, save_json, validate_format
from msim_tf.search.calibration import Calibration
from msim_tf.search.engines import Engine, ExactEngine
from msim_tf.search.faiss_codes import CODES_VERSION, faiss_installed
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.segments import BLOCK, Rows, Segment, read_segment, write_segment
from msim_tf.search.source import Source

if TYPE_CHECKING:
    from msim_tf.search.index import Index

FORMAT = "msim-index"
FORMAT_VERSION = 1
MANIFEST = "index.json"
_DEAD = 0.25
_MOST_SEGMENTS = 64
_UNCOVERED = 0.05  # share of rows that may lack codes on disk before these are written again


@dataclass(frozen=True)
class Saved:
    """What is on disk.

    Attributes:
        path: the directory.
        generation: number of the save.
        codes: file of the FAISS codes, "" without.
        covered: rows that it covers.
        engine: the engine object the codes belong to.
        note: one line for the user about what could not be had, or "".
    """

    path: Path
    generation: int
    codes: str = ""
    covered: int = 0
    engine: Engine | None = None
    note: str = ""


def save_index(index: Index, path: Path) -> Saved:
    """Writes ``index`` to ``path``, see ``Index.save``."""
    path = path.absolute()
    saved = index.saved if index.saved and index.saved.path == path else None
    generation = _generation(path)
    if saved and generation != saved.generation:
        raise InputError(f"{path} was changed by another process since it was opened; open it again and repeat")
    path.mkdir(parents=True, exist_ok=True)
    renumbered = _write_segments(index, path, fresh=saved is None)
    codes, covered = _write_codes(index, path, generation + 1, None if renumbered else saved)
    save_json(path / MANIFEST, _manifest(index, generation + 1, codes, covered))
    _sweep(path, {*(segment.name for segment in index.rows.segments), codes})
    return Saved(path, generation + 1, codes, covered, index.engine)


def load_index(path: Path) -> tuple[Saved, Source, Rows, np.ndarray, Engine]:
    """Reads what ``save_index`` wrote: what is on disk, source, rows, which are alive [rows] bool, and the engine."""
    path = path.absolute()
    while True:
        manifest = _read_manifest(path)
        try:
            return _load(path, manifest)
        except InputError:
            # A save that ran meanwhile has swept files of the manifest just read; its own manifest names others.
            if _read_manifest(path)["generation"] == manifest["generation"]:
                raise


def _load(path: Path, manifest: dict[str, Any]) -> tuple[Saved, Source, Rows, np.ndarray, Engine]:
    source = Source.from_json(manifest["source"])
    size = source.layout.size
    rows = Rows(tuple(read_segment(path / name, rows=count, size=size) for name, count in manifest["segments"]))
    alive = np.ones(len(rows), bool)
    alive[np.array(manifest["removed"], np.intp)] = False
    engine, note = _open_engine(path, manifest["engine"], source)
    codes = manifest["engine"] if isinstance(engine, FaissEngine) else {}
    saved = Saved(path, manifest["generation"], codes.get("codes", ""), codes.get("covered", 0), engine, note)
    return saved, source, rows, alive, engine


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = load_json(path / MANIFEST, "the manifest of an index (msim index makes one)")
    validate_format(manifest, path / MANIFEST, name=FORMAT, version=FORMAT_VERSION)
    return manifest


def _open_engine(path: Path, value: dict[str, Any], source: Source) -> tuple[Engine, str]:
    if value["name"] == ExactEngine.name:
        return ExactEngine(source.layout), ""
    if not faiss_installed():
        note = f"{path} was built for the faiss engine, which is not installed (pip install 'msim-tf[faiss]'); using the exact scan"
        return ExactEngine(source.layout), note
    if value.get("codes_version") != CODES_VERSION:
        note = f"{path} has codes of another release, which are not read; using the exact scan until msim index builds the engine again"
        return ExactEngine(source.layout), note
    calibration = Calibration.from_json(value["calibration"])
    return FaissEngine.open(path / value["codes"], source.layout, calibration, rows=value["covered"]), ""


def _generation(path: Path) -> int:
    """Number of the save that is at ``path``, 0 if there is none."""
    if (path / MANIFEST).exists():
        return int(_read_manifest(path)["generation"])
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; an index is a directory, give another name")
    foreign = [entry.name for entry in path.iterdir() if not _ours(entry.name)] if path.exists() else []
    if foreign:
        raise InputError(f"{path} holds something that is not an index ({foreign[0]}); give an empty or new directory")
    return 0


def _ours(name: str) -> bool:
    return name.startswith(("segment-", "codes-", ".tmp-"))


def _write_segments(index: Index, path: Path, *, fresh: bool) -> bool:
    """Writes rows that are not at ``path`` as one segment, with the last ones there if they are many; or all that are alive, if much is dead.

    Returns:
        Whether the rows have new numbers.
    """
    kept = () if fresh else tuple(segment for segment in index.rows.segments if segment.name)
    dead = len(index.rows) - len(index)
    if dead > _DEAD * len(index.rows) or (fresh and dead > 0):
        index.renumber(Rows(_written(index, path, np.flatnonzero(index.alive))))
        return True
    if len(kept) >= _MOST_SEGMENTS:
        kept = _greatest(kept, len(index.rows))
    rows = np.arange(sum(len(segment) for segment in kept), len(index.rows))
    if rows.size:
        index.rows = Rows((*kept, *_written(index, path, rows)))
    return False


def _greatest(segments: tuple[Segment, ...], rows: int) -> tuple[Segment, ...]:
    """The first segments, as far as each is greater than all of the ``rows`` rows after it."""
    after = rows
    for number, segment in enumerate(segments):
        after -= len(segment)
        if len(segment) <= after:
            return segments[:number]
    return segments


def _written(index: Index, path: Path, rows: np.ndarray) -> tuple[Segment, ...]:
    """The given rows as a new segment on disk; none for no rows."""
    if not rows.size:
        return ()
    numbers = [int(entry.name.split("-")[1]) for entry in path.glob("segment-*")]
    directory = path / f"segment-{max(numbers, default=0) + 1:06d}"
    blocks = (index.rows.take(rows[start : start + BLOCK]) for start in range(0, len(rows), BLOCK))
    tracks = ((index.rows.identifier(row), index.rows.metadata(row)) for row in rows)
    write_segment(directory, len(rows), blocks, tracks)
    return (read_segment(directory, rows=len(rows), size=index.source.layout.size),)


def _write_codes(index: Index, path: Path, generation: int, saved: Saved | None) -> tuple[str, int]:
    """The file of the codes and the rows that it covers; the one on disk if it covers nearly all."""
    if not isinstance(index.engine, FaissEngine):
        return "", 0
    if saved and saved.engine is index.engine and saved.covered >= (1 - _UNCOVERED) * len(index.rows):
        return saved.codes, saved.covered
    name = f"codes-{generation:06d}.npz"
    index.engine.save_codes(path / name, index.rows)
    return name, len(index.rows)


def _manifest(index: Index, generation: int, codes: str, covered: int) -> dict[str, Any]:
    engine = index.engine.to_json()
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "generation": generation,
        "tracks": len(index),
        "source": index.source.to_json(),
        "segments": [[segment.name, len(segment)] for segment in index.rows.segments],
        "removed": np.flatnonzero(~index.alive).tolist(),
        "engine": {**engine, "codes": codes, "covered": covered} if codes else engine,
    }


def _sweep(path: Path, named: set[str]) -> None:
    for entry in path.iterdir():
        if _ours(entry.name) and entry.name not in named:
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
