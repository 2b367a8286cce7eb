"""``assets.extra/msim.json`` and the numbering of versions: what an exported model says of itself.

Needs no TensorFlow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msim_tf.checksums import file_checksum, load_checked_json
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.errors import InputError
from msim_tf.export.documents import check_documents
from msim_tf.files import validate_format
from msim_tf.params import FeatureParams, validate_digest

FORMAT = "msim-model"
FORMAT_VERSION = 1
METADATA_FILE = "assets.extra/msim.json"
_WHAT = "the description of an exported model (msim export makes one)"
_CURE = "export the model again, or copy the version directory again"


@dataclass(frozen=True)
class ModelMetadata:
    """What a reader needs to know of an exported model.

    Attributes:
        directory: the version directory.
        name: the model's name.
        features: how its inputs are made.
        layout: its subspaces.
        inputs: names of its inputs.
        training: how it was trained, for people.
        classes: dimension -> what its description is in: words, tempi in bpm, or names of keys; empty for a model that
            describes nothing.
    """

    directory: Path
    name: str
    features: FeatureParams
    layout: EmbeddingLayout
    inputs: tuple[str, ...]
    training: dict[str, Any]
    classes: dict[str, list[Any]] = field(default_factory=dict)

    def validate_features(self, stored: FeatureParams, where: str | Path) -> None:
        """Refuses features of other parameters than the model takes.

        Args:
            stored: the parameters of a store.
            where: the store.

        Raises:
            InputError: if they differ.
        """
        validate_digest(stored.digest, where, self.features.digest, f"the model {self.directory}")


def load_metadata(path: str | Path) -> ModelMetadata:
    """Reads what the model at ``path`` says of itself.

    Args:
        path: ``saved_models/NAME`` (its newest version is taken) or a version directory.

    Raises:
        InputError: if there is no exported model of ours.
    """
    # Damage first, then another format, then fields that are missing: each has an error of its own.
    directory = version_directory(path)
    value = load_description(directory)
    file = directory / METADATA_FILE
    validate_format(value, file, name=FORMAT, version=FORMAT_VERSION)
    try:
        # Dimension -> classes; a model that describes nothing has none.
        classes = value.get("description", {"classes": {}})["classes"]
        if not all(name in DIMENSION_NAMES and isinstance(own, list) for name, own in classes.items()):
            raise TypeError("classes that are no lists of a dimension")
        return ModelMetadata(
            directory=directory,
            name=value["name"],
            features=FeatureParams.from_json(value["feature_params"]),
            layout=EmbeddingLayout.from_json(value),
            inputs=tuple(value["inputs"]),
            training=value["training"],
            classes=dict(classes),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not the description of an exported model ({error!r}); {_CURE}") from error


def load_description(directory: Path) -> dict[str, Any]:
    """Reads ``msim.json`` of a version directory, and verifies every file that it names by its checksum.

    Exports of msim 0.1 name none.

    Raises:
        InputError: if it is missing or damaged, or a file is.
    """
    value = load_checked_json(directory / METADATA_FILE, _WHAT, cure=_CURE, optional_without="files")
    problems = _damaged_files(directory, value.get("files", {}))
    if problems:
        raise InputError(problems[0])
    return value


def checksums_of_files(directory: Path) -> dict[str, str]:
    """Relative path -> checksum of every file of a version directory but its description, for ``msim.json``."""
    checksums = {}
    for path in sorted(directory.rglob("*")):
        # With slashes on every system: an export may be read on another one.
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != METADATA_FILE:
            checksums[name] = file_checksum(path)
    return checksums


def _damaged_files(directory: Path, files: Any) -> list[str]:
    """One line for each of ``files`` (name -> checksum) that is missing, unreadable or changed."""
    if not isinstance(files, dict):
        return [f"{directory / METADATA_FILE}: names its files in a way that is not ours; {_CURE}"]
    problems = []
    for name, checksum in files.items():
        try:
            if file_checksum(directory / name) != checksum:
                problems.append(f"{directory / name}: damaged (it does not have its checksum); {_CURE}")
        except OSError as error:
            problems.append(f"{directory / name}: cannot be read ({error.strerror}); {_CURE}")
        except ValueError:  # a name that no file can have
            return [f"{directory / METADATA_FILE}: names a file {name!r}; {_CURE}"]
    return problems


def check_export(path: str | Path) -> list[str]:
    """Reads an exported model whole and compares it with its checksums: one line per problem.

    Args:
        path: a version directory, or ``saved_models/NAME`` with all of its versions and what lies beside them.
    """
    path = Path(path)
    is_version = (path / "saved_model.pb").exists() or (path / METADATA_FILE).exists()
    versions = {} if is_version or not path.is_dir() else version_directories(path)
    if not versions:
        return _check_version(path)
    problems = [line for number in sorted(versions) for line in _check_version(versions[number])]
    try:
        return problems + check_documents(path)
    except (InputError, OSError) as error:
        return [*problems, str(error)]


def _check_version(directory: Path) -> list[str]:
    """The problems of one version."""
    # Every damaged file is named; fields are checked only when all files are whole.
    try:
        value = load_checked_json(directory / METADATA_FILE, _WHAT, cure=_CURE, optional_without="files")
        problems = _damaged_files(directory, value.get("files", {}))
        if not problems:
            load_metadata(directory)
    except InputError as error:
        return [str(error)]
    return problems


def version_directories(base_path: Path) -> dict[int, Path]:
    """Directories in ``base_path`` whose names are whole numbers in 64 bits ("0005" is 5); others are ignored."""
    directories = {}
    for entry in sorted(base_path.iterdir()):
        # As TensorFlow Serving reads them: digits only, and a number that its int64 can hold.
        if re.fullmatch(r"[0-9]+", entry.name) and int(entry.name) < 2**63 and entry.is_dir():
            directories[int(entry.name)] = entry
    return directories


def next_version(base: str | Path) -> int:
    """The number of the version to publish next."""
    # They count up: TensorFlow Serving takes the largest number for the newest.
    base = Path(base)
    return max(version_directories(base), default=0) + 1 if base.is_dir() else 1


def version_directory(path: str | Path) -> Path:
    """``path`` itself if it is a version directory, else its newest version.

    Raises:
        InputError: if there is none.
    """
    path = Path(path)
    if (path / "saved_model.pb").exists():
        return path
    versions = version_directories(path) if path.is_dir() else {}
    if not versions:
        raise InputError(
            f"{path}: no exported model here; expected a directory like saved_models/NAME with versions 1, 2, ..."
        )
    return versions[max(versions)]
