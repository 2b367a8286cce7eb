"""Keras callbacks that keep a training: the best model, the state of a resumed run; and the history of its epochs."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from msim_tf.checksums import load_checked_json, save_checked_json
from msim_tf.files import atomic_file, sync_directory, temporary_name


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a ``.keras`` file atomically, which Keras does not."""
    # A whole file beside the old one, then one rename: a kill leaves the old model or the new one, never half of one.
    temporary = temporary_name(path)
    model.save(temporary)
    os.replace(temporary, path)
    sync_directory(path.parent)


class SaveBest(keras.callbacks.Callback):
    """Saves the model whenever the validation loss is the least so far.

    The write is atomic, which that of Keras' own checkpoint is not.

    Args:
        path: the ``.keras`` file.
        always: save after every epoch, so that the last one stays.
    """

    def __init__(self, path: Path, *, always: bool = False) -> None:
        super().__init__()
        self.path = path
        self.always = always
        self.value = float("inf")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Compares and saves."""
        # A loss that is not a number is never the least: neither kept, nor what later ones are compared with.
        value = float((logs or {})["val_loss"])
        if value < self.value or self.always:
            save_model(self.model, self.path)
        if value < self.value:
            self.value = value


class RememberState(keras.callbacks.Callback):
    """Keeps the Python state of other callbacks for a resumed run; BackupAndRestore forgets it.

    Place it after those callbacks and before BackupAndRestore: whatever epoch the backup holds, its state is then on
    disk.

    Args:
        path: JSON file with the state after each of the last epochs.
        remembered: name -> (callback, names of its attributes).
        epoch: finished epochs of the run that is resumed.
        writes: whether this host writes; the others only read.
    """

    def __init__(
        self,
        path: Path,
        remembered: Mapping[str, tuple[keras.callbacks.Callback, Sequence[str]]],
        epoch: int,
        *,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self._writes = writes
        self._path = path
        self._remembered = remembered
        self._epoch = epoch
        # Finished epochs (text, as JSON's keys are) -> callback -> attribute -> value.
        self._states: dict[str, Any] = {}
        if epoch:
            what, cure = "the state of a training", "train again into another directory"
            self._states = load_checked_json(path, what, cure=cure)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Gives the callbacks their state back, after they have reset themselves."""
        for name, values in self._states.get(str(self._epoch), {}).items():
            # A host that does not write has fewer callbacks than the chief, whose file this is.
            if name in self._remembered:
                for attribute, value in values.items():
                    setattr(self._remembered[name][0], attribute, value)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Writes the state; the epoch before stays, in case the backup of this one is never written."""
        if not self._writes:
            return

        # Keras may keep NumPy numbers, which JSON does not take.
        state: dict[str, dict[str, Any]] = {}
        for name, (callback, attributes) in self._remembered.items():
            state[name] = {}
            for attribute in attributes:
                value = getattr(callback, attribute)
                state[name][attribute] = value.item() if isinstance(value, np.generic) else value

        # ``epoch`` finished before this one, ``epoch + 1`` with it.
        self._states = {key: value for key, value in self._states.items() if int(key) == epoch}
        self._states[str(epoch + 1)] = state
        save_checked_json(self._path, self._states)


class RestoreOnly(keras.callbacks.BackupAndRestore):
    """Restores what another host's ``BackupAndRestore`` has written, and writes nothing; for Keras 3.

    Args:
        backup: its directory.
    """

    def __init__(self, backup: str) -> None:
        super().__init__(backup, delete_checkpoint=False)

    def _save_model(self) -> None:
        """Writes nothing."""


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of a CSVLogger's file as numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def truncate_history(path: Path, epochs: int) -> None:
    """Drops the rows of epochs that will be run again, and a last row that a kill tore."""
    if not path.exists():
        return
    # The header, then the whole rows of epochs that stay; the first column is the epoch, counted from 0.
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [line for line in lines[1:] if line.endswith("\n")]
    kept = lines[:1] + [row for row in rows if int(row.split(",")[0]) < epochs]

    # Without a row the header may be torn as well: the file goes, and CSVLogger begins a new one.
    if len(kept) == 1:
        path.unlink()
        return
    with atomic_file(path, "w") as file:
        file.writelines(kept)
