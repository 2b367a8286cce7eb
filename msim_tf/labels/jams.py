"""Labels from JAMS files (the annotation format of music information retrieval)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from msim_tf.errors import InputError
from msim_tf.labels import taxonomy
from msim_tf.labels.tables import Labels, LabelTable, canonical_label

# JAMS namespaces whose every value is a tag of one dimension; the other tag_* ones are open: the taxonomy decides.
_TAG_DIMENSIONS = {
    "tag_gtzan": "genre",
    "tag_fma_genre": "genre",
    "tag_fma_subgenre": "genre",
    "tag_audioset_genre": "genre",
    "tag_msd_tagtraum_cd1": "genre",
    "tag_msd_tagtraum_cd2": "genre",
    "tag_medleydb_instruments": "instrument",
    "tag_audioset_instruments": "instrument",
}


def read_labels_jams(path: str | Path, identifiers: Iterable[str] | None = None) -> Labels:
    """Reads one ``.jams`` file, or every one below a folder.

    It reads the namespaces ``tempo`` and ``key_mode`` (of several observations the one of highest confidence, then of
    longest duration, then the first), all ``tag_*`` (of open vocabularies what the taxonomy lists; other tags are
    ignored), and the artist in the file's metadata as the group. Tempo 0, key "N" and modes other than major and minor
    are unknown.

    A file belongs to the track of the same path without suffixes; failing that, to the only track with the same stem.

    Args:
        path: a file or a folder.
        identifiers: the tracks to choose from; ``None`` takes the path without ``.jams`` as the identifier.

    Raises:
        InputError: if there is no JAMS file, one cannot be parsed, or one belongs to no track or to several.
    """
    path = Path(path)
    root, files = (path, sorted(path.rglob("*.jams"))) if path.is_dir() else (path.parent, [path])
    if not files:
        raise InputError(f"{path}: holds no .jams file")

    # Tracks by their path without suffix, and by "*/stem" for a file that lies elsewhere than its track.
    by_name: dict[str, list[str]] = defaultdict(list)
    for identifier in identifiers or ():
        track = PurePosixPath(identifier)
        by_name[str(track.with_suffix(""))].append(identifier)
        by_name[f"*/{track.stem}"].append(identifier)

    # Each file is matched to a track by its name, then added value by value.
    table = LabelTable()
    for file in files:
        relative = PurePosixPath(file.relative_to(root).as_posix())
        same_path = str(relative.with_suffix(""))
        matches = [same_path]
        if identifiers is not None:
            matches = by_name.get(same_path) or by_name.get(f"*/{relative.stem}") or []
        if len(matches) != 1:
            what = f"{len(matches)} tracks ({', '.join(matches[:3])})" if matches else "no track"
            raise InputError(f"{file}: {what} named {relative.stem!r}; name each .jams file as its sound file")
        for name, value in _values(file):
            try:
                table.add(matches[0], name, value)
            except InputError as error:
                raise InputError(f"{file}: {error}") from error
    return table.labels()


def _values(file: Path) -> Iterator[tuple[str, str]]:
    """(dimension or "artist", value) of everything in a file that is a label."""
    import jams  # takes most of a second to load, and is needed by nobody else

    try:
        annotations = jams.load(str(file), validate=False)
        artist = (annotations.file_metadata.artist or "").strip()
        annotated = [(annotation.namespace, list(annotation.data)) for annotation in annotations.annotations]
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except (jams.JamsError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{file}: not a JAMS file ({error})") from error
    if artist:
        yield "artist", artist

    # Tempo and key: the most trusted of all annotators' observations.
    for namespace, name in (("tempo", "tempo"), ("key_mode", "key")):
        observations = [seen for space, data in annotated if space == namespace for seen in data]
        if not observations:
            continue
        best = max(observations, key=lambda seen: (_finite(seen.confidence), _finite(seen.duration)))
        try:
            yield name, canonical_label(name, str(best.value))
        except InputError:  # tempo 0, key "N": the annotator found none
            continue

    # Tags: every one, in the dimension of its namespace or of the taxonomy.
    for namespace, data in annotated:
        if not namespace.startswith("tag_"):
            continue
        for tag in [str(seen.value) for seen in data]:
            dimension = _TAG_DIMENSIONS.get(namespace) or taxonomy.dimension_of(tag)
            if dimension and tag.strip():
                yield dimension, tag


def _finite(value: Any) -> float:
    """A number to compare by; 0 where an annotator left it out."""
    try:
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
    except OverflowError:  # a whole number of hundreds of digits
        return 0.0
