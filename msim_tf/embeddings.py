"""Embeddings as search and evaluation see them: identifiers, one vector each, and (for our own
models) which coordinates hold which dimension.

Owns the npz format of ``msim embed``. Any other system takes part with a file of only two arrays:

    identifiers  [n] str (integers and bytes are read as text)
    embeddings   [n, size] float; the name ``vectors`` is read too
    dimensions   [d] str, widths [d] int: the layout, ours only
    meta         one JSON object as text, optional
    checksum     [] uint32, ours only: CRC-32 of the other arrays; verified where it is there

Nothing is pickled, in either direction.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.files import atomic_file, parse_json

_SHOWN = 5
_CHECKSUM = "checksum"
_END_RECORD = struct.Struct("<4s6xH10x")  # of a zip without a comment: signature, number of entries


def shortlist(names: Sequence[str]) -> str:
    """The first few of ``names`` as text, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


@dataclass(frozen=True, eq=False)
class Embeddings:
    """One system's vectors.

    Attributes:
        name: what tables call the system.
        identifiers: [n], unique.
        embeddings: [n, size] float32, finite.
        layout: the subspaces, or None for a system that has none.
        meta: what the file says about itself (model, features, parameters, ...).
    """

    name: str
    identifiers: tuple[str, ...]
    embeddings: np.ndarray
    layout: EmbeddingLayout | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validate_embeddings(self.name, self.identifiers, self.embeddings, self.layout)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {identifier: row for row, identifier in enumerate(self.identifiers)}

    def __contains__(self, identifier: str) -> bool:
        return identifier in self._positions

    def rows(self, identifiers: Iterable[str]) -> np.ndarray:
        """Row of each identifier.

        Returns:
            [num_identifiers] int.

        Raises:
            InputError: naming the identifiers that have no vector.
        """
        identifiers = list(identifiers)
        missing = list(dict.fromkeys(identifier for identifier in identifiers if identifier not in self))
        if missing:
            raise InputError(f"{self.name}: no vector for {shortlist(missing)}; embed them or leave them out")
        return np.array([self._positions[identifier] for identifier in identifiers], np.intp)

    @property
    def parts(self) -> tuple[slice, ...]:
        """The subspaces' slices in layout order; the whole vector as one part where there is no layout."""
        if self.layout is None:
            return (slice(0, self.embeddings.shape[1]),)
        return tuple(self.layout.slices.values())


def validate_embeddings(
    where: str, identifiers: Sequence[str], embeddings: np.ndarray, layout: EmbeddingLayout | None
) -> None:
    """Refuses what cannot be scored.

    Raises:
        InputError: naming ``where``, the fault and the cure.
    """
    if embeddings.ndim != 2 or not embeddings.size:
        raise InputError(f"{where}: embeddings have shape {embeddings.shape}, expected [n, size], both at least 1")
    if len(identifiers) != len(embeddings):
        raise InputError(f"{where}: {len(identifiers)} identifiers for {len(embeddings)} vectors, expected one each")
    twice = [identifier for identifier, count in Counter(identifiers).items() if count > 1]
    if twice:
        raise InputError(f"{where}: identifiers more than once: {shortlist(twice)}; keep one vector of each")
    broken = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if broken.size:
        names = shortlist([identifiers[int(row)] for row in broken])
        raise InputError(f"{where}: NaN or infinity in the vectors of {names}; embed these again")
    if layout is not None and layout.size != embeddings.shape[1]:
        raise InputError(
            f"{where}: vectors have {embeddings.shape[1]} coordinates, the layout {list(layout.widths)} describes "
            f"{layout.size}"
        )


def save_embeddings(
    path: str | Path,
    *,
    identifiers: Sequence[str],
    embeddings: np.ndarray,
    layout: EmbeddingLayout | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Writes one system's vectors, atomically.

    Args:
        path: destination, ``.npz``.
        identifiers: [n], unique.
        embeddings: [n, size] float, finite; stored as float32.
        layout: the subspaces, or None.
        meta: what to remember about the vectors, JSON-serialisable.

    Raises:
        InputError: for what ``load_embeddings`` would refuse.
    """
    vectors = np.asarray(embeddings, np.float32)
    validate_embeddings(str(path), identifiers, vectors, layout)
    if any("\0" in identifier for identifier in identifiers):
        raise InputError(f"{path}: an identifier holds a NUL character, which the file cannot keep")
    arrays = {"identifiers": np.array(list(identifiers), np.str_), "embeddings": vectors}
    if layout is not None:
        arrays["dimensions"] = np.array(layout.names, np.str_)
        arrays["widths"] = np.array(layout.widths, np.int64)
    arrays["meta"] = np.array(json.dumps(dict(meta or {})))
    save_arrays(path, arrays)


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes plain arrays as an npz with their checksum, atomically; ``load_arrays`` verifies it."""
    checksum = np.array(_checksum(arrays), np.uint32)
    with atomic_file(path) as file:
        np.savez(file, **arrays, **{_CHECKSUM: checksum})  # type: ignore[arg-type]


def load_embeddings(path: str | Path, *, name: str | None = None) -> Embeddings:
    """Reads our own or another system's vectors.

    Args:
        path: an npz as described at the head of this module.
        name: what to call the system; by default ``meta["name"]`` or the file's stem.

    Raises:
        InputError: if it is missing, not such an npz, or holds what cannot be scored.
    """
    path = Path(path)
    arrays = load_arrays(path)
    key = "embeddings" if "embeddings" in arrays else "vectors"
    absent = [wanted for wanted in ("identifiers", key) if wanted not in arrays]
    if absent:
        raise InputError(
            f"{path}: array {absent[0]!r} is missing (found {', '.join(arrays) or 'none'}); expected identifiers and "
            "embeddings"
        )
    vectors = arrays[key]
    if vectors.dtype.kind not in "fiu":
        raise InputError(f"{path}: {key} are of type {vectors.dtype}, expected real numbers")
    identifiers, layout = _texts(arrays["identifiers"]), _layout(path, arrays)
    try:
        meta = parse_json(str(arrays["meta"])) if "meta" in arrays else {}
    except ValueError as error:
        raise InputError(f"{path}: meta is not JSON ({error})") from None
    if not isinstance(meta, dict):
        raise InputError(f"{path}: meta is {type(meta).__name__}, expected a JSON object")
    vectors = vectors.astype(np.float32)
    validate_embeddings(str(path), identifiers, vectors, layout)
    return Embeddings(name or str(meta.get("name", path.stem)), identifiers, vectors, layout, meta)


def load_arrays(path: Path, *, only: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz by name, or ``only`` one of them if it is there.

    Raises:
        InputError: if it is missing, or not an npz of plain arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            _require_all_entries(path, len(archive.files))
            arrays = {key: archive[key] for key in archive.files if only in (None, key)}
    except FileNotFoundError:
        raise InputError(f"{path} not found; expected an npz with identifiers and embeddings") from None
    except Exception as error:  # zipfile and NumPy raise a dozen kinds of them when a byte is wrong
        detail = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: not an npz of plain arrays ({detail}); pickled objects are refused") from error
    # Only a checksum in our form is one: another system may call an array of its own so.
    stored = arrays.get(_CHECKSUM)
    ours = stored is not None and stored.dtype == np.uint32 and stored.shape == ()
    if ours and int(arrays[_CHECKSUM]) != _checksum(arrays):
        raise InputError(
            f"{path}: damaged (its arrays do not match their checksum); restore it from a copy or embed again"
        )
    return arrays


def _require_all_entries(path: Path, count: int) -> None:
    """Compares the arrays that were listed with the number at the end of the zip, which Python does not read.

    A wrong length in the list of entries hides those behind it, the checksum among them.

    Raises:
        ValueError: if the end of the file states another number.
    """
    with open(path, "rb") as file:
        file.seek(-_END_RECORD.size, os.SEEK_END)
        signature, stated = _END_RECORD.unpack(file.read(_END_RECORD.size))
    if signature == b"PK\5\6" and stated != count:
        raise ValueError(f"it lists {count} of {stated} arrays")


def _checksum(arrays: Mapping[str, np.ndarray]) -> int:
    """CRC-32 of the names, shapes, types and contents of all arrays but the checksum itself."""
    crc = 0
    for name in sorted(arrays):
        if name != _CHECKSUM:
            array = np.ascontiguousarray(arrays[name])
            crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
            crc = zlib.crc32(array.tobytes(), crc)
    return crc


def _texts(identifiers: np.ndarray) -> tuple[str, ...]:
    if identifiers.dtype.kind == "S":
        return tuple(identifier.decode("utf-8", "replace") for identifier in identifiers.ravel())
    return tuple(str(identifier) for identifier in identifiers.ravel())


def _layout(path: Path, arrays: dict[str, np.ndarray]) -> EmbeddingLayout | None:
    if "dimensions" not in arrays and "widths" not in arrays:
        return None
    if "dimensions" not in arrays or "widths" not in arrays:
        raise InputError(f"{path}: dimensions and widths belong together, only one of them is there")
    try:
        return EmbeddingLayout(_texts(arrays["dimensions"]), tuple(int(width) for width in arrays["widths"].ravel()))
    except (ValueError, TypeError, OverflowError) as error:  # an InputError is a ValueError
        raise InputError(f"{path}: {error}") from None
