"""A training as it lies on disk: the run directory, what it must hold, and reading it back.

A run directory holds everything about one training::

    run.json          TrainParams, digest of the features, dimensions, the split by identifiers
    best.keras        the model of the epoch with the least validation loss (or of the last epoch: TrainParams.keep)
    history.csv       one row per epoch
    tensorboard/      scalars per dimension, embedding statistics, input images, HParams, projector
    backup/           what a resumed training continues from; removed at the end
    description.json  the words that the heads can say; beside it the heads, describe_NAME.keras
    checksums.json    of the models that were kept
    summary.json      written last: the training is finished
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from msim_tf.checksums import file_checksum, load_checked_json, save_checked_json
from msim_tf.errors import InputError
from msim_tf.model.callbacks import read_history
from msim_tf.model.description_heads import load_heads
from msim_tf.model.network import in_float32
from msim_tf.model.params import TrainParams

FORMAT = "msim-training-run"
FORMAT_VERSION = 2
CHECKSUMS_FILE = "checksums.json"
_CURE = "restore the run from a copy, or train again into another directory"


@dataclass(frozen=True)
class Run:
    """A training as it lies on disk.

    Attributes:
        path: the run directory.
        params: the parameters of the command.
        digest: of the features.
        identifiers: those of each split, by name.
        summary: what came of it; empty while it is unfinished.
    """

    path: Path
    params: TrainParams
    digest: str
    identifiers: dict[str, list[str]]
    summary: dict[str, Any]

    @property
    def model_path(self) -> Path:
        """The model that is kept: the best one, or the last (``TrainParams.keep``)."""
        return self.path / "best.keras"


def load_run(path: str | Path) -> Run:
    """Reads a run directory.

    Raises:
        InputError: if it is none.
    """
    path = Path(path)
    # An unfinished run has no summary yet; one that is there must be whole.
    file, finished = path / "run.json", path / "summary.json"
    what = "a training run (msim train makes one)"
    value = load_checked_json(file, what, cure=_CURE, header=(FORMAT, FORMAT_VERSION))
    summary = load_checked_json(finished, "a summary", cure=_CURE) if finished.exists() else {}
    try:
        return Run(path, TrainParams.from_json(value["params"]), value["digest"], value["identifiers"], summary)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: not a training run ({error!r}); {_CURE}") from error


def load_model(run: Run) -> keras.Model:
    """The best model of a run, computed in float32 however it was trained.

    Raises:
        InputError: if its file is missing or damaged.
    """
    validate_model_file(run)
    return in_float32(keras.models.load_model(run.model_path, compile=False))


def validate_model_file(run: Run) -> None:
    """Compares the kept model with the checksum that a finished run has of it.

    Raises:
        InputError: if it is missing or damaged.
    """
    file = run.path / CHECKSUMS_FILE
    if not run.summary or not file.exists():
        return  # an unfinished run still changes its model
    checksums = load_checked_json(file, "the checksums of a training run", cure=_CURE)
    try:
        if file_checksum(run.model_path) != checksums.get(run.model_path.name):
            raise InputError(f"{run.model_path}: damaged (it does not have its checksum); {_CURE}")
    except OSError as error:
        raise InputError(f"{run.model_path}: cannot be read ({error.strerror}); {_CURE}") from error


def check_run(path: str | Path) -> list[str]:
    """Reads a run and compares its models with their checksums: one line per problem; an unfinished run is none."""
    try:
        validate_model_file(load_run(path))
        load_heads(Path(path))
    except InputError as error:
        return [str(error)]
    return []


def start_run(fresh: Run) -> Run:
    """Starts a run directory, or checks that the one that is there belongs to the same command.

    Args:
        fresh: the run as the command describes it.

    Returns:
        The run, with its summary if it is finished.

    Raises:
        InputError: naming what differs.
    """
    if not (fresh.path / "run.json").exists():
        value = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "digest": fresh.digest,
            "params": fresh.params.to_json(),
            "identifiers": fresh.identifiers,
        }
        save_checked_json(fresh.path / "run.json", value)
        return fresh

    # An existing run resumes only with the same parameters, features and tracks; the error names what differs.
    run = load_run(fresh.path)
    old, new = run.params.to_json(), fresh.params.to_json()
    changed = [f"{name} {old[name]} -> {new[name]}" for name in new if old[name] != new[name] and name != "network"]
    changed += [f"network.{name}" for name in new["network"] if old["network"].get(name) != new["network"][name]]
    if run.digest != fresh.digest or run.identifiers != fresh.identifiers:
        changed.append("the store's features, tracks or groups, or the split")
    if changed:
        raise InputError(f"{run.path} is a run of another command ({'; '.join(changed)}); choose another directory")
    return run


def finish_run(run: Run, summary: dict[str, Any]) -> None:
    """Writes the checksum of the kept model and then the summary, by which the run is finished."""
    # In this order: a kill between the two leaves an unfinished run, which the same command finishes.
    save_checked_json(run.path / CHECKSUMS_FILE, {run.model_path.name: file_checksum(run.model_path)})
    save_checked_json(run.path / "summary.json", summary)


def kept_epoch(history: Path, keep: str) -> dict[str, Any]:
    """The history's row of the epoch whose model is kept, and how many epochs there were.

    Args:
        history: the run's history.csv.
        keep: as in ``TrainParams``.
    """
    # As ``SaveBest``: ties go to the first epoch, and a loss that is not a number comes last. Epochs count from 0.
    rows = read_history(history)
    kept = rows[-1] if keep == "last" else min(rows, key=lambda row: (math.isnan(row["val_loss"]), row["val_loss"]))
    return {"epochs": len(rows), "kept_epoch": int(kept["epoch"]) + 1, "first_loss": rows[0]["loss"], **kept}
