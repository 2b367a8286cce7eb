"""The embedding of some tracks as it travels to whoever does it, and what comes back.

A plan is a file of all jobs of one embedding. A job travels as a line of JSON. Its result is a *part*: one npz with the
vectors of its tracks, which says in JSON what became of each and what they were embedded with. A job of ``msim index``
also keeps what a library knows of its tracks.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.audio.scan import FileState, states_from_json, states_to_json
from msim_tf.checksums import file_checksum, load_checked_json, save_checked_json
from msim_tf.dimensions import EmbeddingLayout
from msim_tf.embeddings import load_arrays, save_arrays
from msim_tf.errors import InputError
from msim_tf.export.metadata import METADATA_FILE, ModelMetadata
from msim_tf.files import parse_json, validate_format

_JOB_FORMAT, _PART_FORMAT, _FORMAT_VERSION = "msim-embedding-job", "msim-embedding-part", 2
_PLAN_FORMAT, _PLAN_VERSION = "msim-embedding-plan", 2


@dataclass(frozen=True)
class Recipe:
    """What decides a track's vector beside the track itself; parts of different recipes are never joined.

    Attributes:
        model: the model's name.
        version: the name of its version directory.
        checksum: of its description, which holds the checksums of all its files.
        digest: of its features.
        pad: whether clips shorter than a segment are lengthened with silence.
        stored: whether the tracks are those of a feature store rather than sound files.
        task: the command that planned it, "embed" or "index".
    """

    model: str
    version: str
    checksum: str
    digest: str
    pad: bool
    stored: bool
    task: str = "embed"

    @classmethod
    def of_model(cls, metadata: ModelMetadata, *, pad: bool, stored: bool = False, task: str = "embed") -> Recipe:
        """The recipe of an exported model."""
        checksum = file_checksum(metadata.directory / METADATA_FILE)
        return cls(metadata.name, metadata.directory.name, checksum, metadata.features.digest, pad, stored, task)

    def __str__(self) -> str:
        source = "a store's features" if self.stored else "sound"
        return f"{self.model} version {self.version} (checksum {self.checksum}, features {self.digest}) of {source}" + (
            ", padded" if self.pad else ""
        )


@dataclass(frozen=True)
class EmbeddingJob:
    """The tracks of one part.

    Attributes:
        number: of the part.
        recipe: how they are embedded.
        files: identifier -> state when the job was planned.
    """

    number: int
    recipe: Recipe
    files: Mapping[str, FileState]

    def to_json(self) -> dict[str, Any]:
        """The job as a JSON object."""
        return {
            "format": _JOB_FORMAT,
            "format_version": _FORMAT_VERSION,
            "number": self.number,
            "recipe": dataclasses.asdict(self.recipe),
            "files": states_to_json(self.files),
        }

    @classmethod
    def from_json(cls, value: Any) -> EmbeddingJob:
        """The inverse of ``to_json``.

        Raises:
            InputError: if it is no such object.
        """
        validate_format(value, "the job", name=_JOB_FORMAT, version=_FORMAT_VERSION)
        try:
            return cls(int(value["number"]), Recipe(**value["recipe"]), states_from_json(value["files"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"not a job of an embedding ({error!r}); plan again with --plan") from error


@dataclass(frozen=True)
class Plan:
    """All jobs of one embedding, finished ones included, and what the scan left out."""

    jobs: list[EmbeddingJob]
    layout: EmbeddingLayout
    failures: dict[str, str]
    notices: list[str]


def plan_path(directory: Path) -> Path:
    """Where the plan lies."""
    return directory / "plan.json"


def save_plan(directory: Path, planned: Plan) -> None:
    """Writes a plan, atomically."""
    value = {
        "format": _PLAN_FORMAT,
        "format_version": _PLAN_VERSION,
        "layout": planned.layout.to_json(),
        "failures": planned.failures,
        "notices": planned.notices,
        "jobs": [job.to_json() for job in planned.jobs],
    }
    save_checked_json(plan_path(directory), value)


def load_plan(directory: Path) -> Plan:
    """Reads a plan.

    Raises:
        InputError: if it is missing or damaged.
    """
    path = plan_path(directory)
    what, header = "the plan of an embedding (--plan)", (_PLAN_FORMAT, _PLAN_VERSION)
    value = load_checked_json(path, what, cure=f"remove {directory} and plan again", header=header)
    jobs = [EmbeddingJob.from_json(job) for job in value["jobs"]]
    return Plan(jobs, EmbeddingLayout.from_json(value["layout"]), value["failures"], value["notices"])


@dataclass(frozen=True)
class PartTrack:
    """One track of a part.

    Attributes:
        state: of its file when the job was planned.
        vector: [size] float32; None if it has none.
        reason: why not.
        notes: what is worth knowing of the file although it has a vector.
        sha256: of the file's contents; "" where nobody asked for it, or it could not be read.
        metadata: what a library knows of the track (``search.tracks``), a JSON object; empty where nobody asked for it.
    """

    state: FileState
    vector: np.ndarray | None
    reason: str = ""
    notes: tuple[str, ...] = ()
    sha256: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> list[Any]:
        """All but the vector, as a part's JSON has it, and whether there is one."""
        kept = [self.reason, list(self.notes), self.sha256, dict(self.metadata)]
        return [self.state.size, self.state.modified, self.vector is not None, *kept]


@dataclass(frozen=True)
class Part:
    """The result of a job.

    Attributes:
        number: of the job.
        recipe: how its tracks were embedded.
        tracks: identifier -> what became of it.
    """

    number: int
    recipe: Recipe
    tracks: Mapping[str, PartTrack]

    def fulfils(self, job: EmbeddingJob) -> bool:
        """Whether nothing of the job is left to do."""
        return self.recipe == job.recipe and all(
            name in self.tracks and self.tracks[name].state == state for name, state in job.files.items()
        )


def part_path(directory: Path, number: int) -> Path:
    """Where a part lies."""
    return directory / f"{number:05d}.npz"


def save_part(directory: Path, part: Part, size: int) -> None:
    """Writes a part, atomically: two attempts at one job never touch each other's file.

    Args:
        directory: where the parts of the embedding lie.
        part: the part.
        size: coordinates of a vector.
    """
    vectors = [track.vector for track in part.tracks.values() if track.vector is not None]
    description = {
        "format": _PART_FORMAT,
        "format_version": _FORMAT_VERSION,
        "recipe": dataclasses.asdict(part.recipe),
        "tracks": [[name, *track.to_json()] for name, track in part.tracks.items()],
    }
    arrays = {"vectors": np.array(vectors, np.float32).reshape(-1, size), "part": np.array(json.dumps(description))}
    save_arrays(part_path(directory, part.number), arrays)


def load_part(directory: Path, number: int) -> Part:
    """Reads a part.

    Raises:
        InputError: if it is missing, damaged, or not one.
    """
    path = part_path(directory, number)
    arrays = load_arrays(path)
    try:
        description = parse_json(str(arrays["part"]))
        validate_format(description, path, name=_PART_FORMAT, version=_FORMAT_VERSION)
        # [embedded tracks, size]: a track without a vector has no row, so rows are taken one by one.
        vectors = iter(arrays["vectors"])
        tracks = {}
        for name, size, modified, has_vector, reason, notes, sha256, metadata in description["tracks"]:
            vector, state = next(vectors) if has_vector else None, FileState(size, modified)
            tracks[name] = PartTrack(state, vector, reason, tuple(notes), sha256, metadata)
        return Part(number, Recipe(**description["recipe"]), tracks)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a part of an embedding ({error!r}); remove it and embed again") from error
