"""What BackupAndRestore left behind: the one place that differs between Keras 2 and Keras 3.

Keras 3 writes ``latest.weights.h5`` and then ``training_metadata.json``; a process killed between the two leaves new weights with an old epoch,
and one killed inside the first leaves a torn file. Keras 2 writes a TensorFlow checkpoint, which is whole or not there.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import keras
import tensorflow as tf

_KERAS_2 = keras.__version__.startswith("2.")


def backed_up_epochs(backup: Path, steps_per_epoch: int) -> int:
    """Finished epochs in a backup directory, after mending what a kill may have torn.

    Args:
        backup: the directory given to ``keras.callbacks.BackupAndRestore``.
        steps_per_epoch: steps of an epoch, by which the optimizer's step count becomes epochs.

    Returns:
        Epochs that training will skip; 0 if there is nothing to restore.
    """
    if _KERAS_2:
        checkpoint = tf.train.latest_checkpoint(str(backup / "chief"))
        if checkpoint is None:
            return 0
        return 1 + int(tf.train.load_variable(checkpoint, "ckpt_saved_epoch/.ATTRIBUTES/VARIABLE_VALUE"))
    weights, metadata = backup / "latest.weights.h5", backup / "training_metadata.json"
    for candidate in (weights, backup / f"{weights.name}.bkp"):
        steps = _optimizer_steps(candidate)
        if steps is None:
            continue
        if candidate != weights:
            shutil.copyfile(candidate, weights)
        epochs = steps // steps_per_epoch
        metadata.write_text(json.dumps({"epoch": epochs, "batch": 0}))
        return epochs
    shutil.rmtree(backup, ignore_errors=True)
    return 0


def _optimizer_steps(weights: Path) -> int | None:
    """Steps that the optimizer in a Keras 3 weights file has taken; None if the file is missing or torn."""
    import h5py

    try:
        with h5py.File(weights) as file:
            return int(file["optimizer/vars/0"][()])
    except (OSError, KeyError):
        return None
