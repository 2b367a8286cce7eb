"""What BackupAndRestore left behind: the one place that differs between Keras 2 and Keras 3.

Keras 3 writes ``latest.weights.h5`` and then ``training_metadata.json``; a process killed between the two leaves new
weights with an old epoch, and one killed inside the first leaves a torn file. Keras 2 writes a TensorFlow checkpoint,
which is whole or not there.
"""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import keras
import tensorflow as tf

_KERAS_2 = keras.__version__.startswith("2.")


def backup_callback(backup: Path) -> keras.callbacks.Callback:
    """``BackupAndRestore`` that also keeps the backup before the last one, where Keras can (3.7 and later).

    Without it, a process killed while it writes the weights would begin with the first epoch again.

    Args:
        backup: its directory.
    """
    options = {"delete_checkpoint": False}
    if "double_checkpoint" in inspect.signature(keras.callbacks.BackupAndRestore).parameters:
        options["double_checkpoint"] = True
    return keras.callbacks.BackupAndRestore(str(backup), **options)


def backed_up_epochs(backup: Path, steps_per_epoch: int) -> int:
    """Finished epochs in a backup directory, after mending what a kill may have torn.

    Args:
        backup: the directory given to ``keras.callbacks.BackupAndRestore``.
        steps_per_epoch: steps of an epoch, by which the optimizer's step count becomes epochs.

    Returns:
        Epochs that training will skip; 0 if there is nothing to restore.
    """
    # Keras 2: the number of the last finished epoch, from 0, is a variable of the checkpoint.
    if _KERAS_2:
        checkpoint = tf.train.latest_checkpoint(str(backup / "chief"))
        if checkpoint is None:
            return 0
        return 1 + int(tf.train.load_variable(checkpoint, "ckpt_saved_epoch/.ATTRIBUTES/VARIABLE_VALUE"))

    # Keras 3: the latest pair of files, or else the pair before it, where Keras keeps one (``double_checkpoint``).
    weights, metadata = backup / "latest.weights.h5", backup / "training_metadata.json"
    for suffix in ("", ".bkp"):
        epochs = _epochs(Path(f"{weights}{suffix}"), Path(f"{metadata}{suffix}"), steps_per_epoch)
        if epochs is None:
            continue
        # Make the pair consistent: BackupAndRestore reads these two names when ``fit`` begins.
        if suffix:
            shutil.copyfile(f"{weights}{suffix}", weights)
        metadata.write_text(json.dumps({"epoch": epochs, "batch": 0}))
        return epochs

    # Nothing whole is left; torn files would stop the restoring.
    shutil.rmtree(backup, ignore_errors=True)
    return 0


def _epochs(weights: Path, metadata: Path, steps_per_epoch: int) -> int | None:
    """Finished epochs in a pair of Keras 3's files; None if the weights are missing or torn.

    The optimizer's steps tell when the weights are newer than the metadata. They may also be too few, since loss
    scaling in float16 skips steps that overflow: so the larger of the two counts.
    """
    import h5py

    try:
        with h5py.File(weights) as file:
            inner = "optimizer/inner_optimizer/vars/0"  # of a loss-scaling optimizer
            steps = int(file[inner if inner in file else "optimizer/vars/0"][()])
    except (OSError, KeyError):
        return None
    try:
        recorded = int(json.loads(metadata.read_text())["epoch"])
    except (OSError, ValueError, KeyError):
        recorded = 0
    return max(recorded, steps // steps_per_epoch)
