"""Published splits of the Million Song Dataset: Lee's pickled lists, Choi's lists of ids, Last.FM's own division."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msim_tf.datasets.lastfm import json_files
from msim_tf.datasets.tables import find_file, read_lines
from msim_tf.errors import InputError

_CHOI = {"train": "train_x_msd_id.txt", "validation": "valid_x_msd_id.txt", "test": "test_x_msd_id.txt"}
# Of the 213,454 ids in filtered_list_train.cP; the rest is validation.
_LEE_TRAINING = 201_680


def million_song_split(root: Path) -> tuple[str, list[tuple[str, str]]]:
    """The best split that lies below ``root``: its name, and (part, track id) of its tracks; [] without one.

    Raises:
        InputError: if a list cannot be read.
    """
    training, test = (find_file(root, f"filtered_list_{part}.cP") for part in ("train", "test"))
    if training and test:
        ids = _pickled_ids(training)
        parts = {"train": ids[:_LEE_TRAINING], "validation": ids[_LEE_TRAINING:], "test": _pickled_ids(test)}
        return "Lee's filtered lists of the Million Song Dataset", _pairs(parts)
    lists = {part: find_file(root, name) for part, name in _CHOI.items()}
    if all(lists.values()):
        parts = {part: read_lines(path) for part, path in lists.items() if path}
        return "Choi's split of the Million Song Dataset", _pairs(parts)
    return "Last.FM's own division into training and test", [(part, path.stem) for part, path in json_files(root)]


def _pairs(parts: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(part, track_id) for part, ids in parts.items() for track_id in ids]


class _PlainUnpickler(pickle.Unpickler):
    """Lists of text and nothing else: a pickle from the net must not run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _pickled_ids(path: Path) -> list[str]:
    try:
        with open(path, "rb") as file:
            value: Iterable[str | bytes] = _PlainUnpickler(file, encoding="latin1").load()
        return [track_id.decode() if isinstance(track_id, bytes) else str(track_id) for track_id in value]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (pickle.UnpicklingError, EOFError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: not a pickled list of track ids ({error})") from error
