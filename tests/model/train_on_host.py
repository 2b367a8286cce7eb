"""One host of a training, run by test_multi_worker.py: train_on_host.py STORE RUN WEIGHTS HEADS KILL_AT.

Trains with the hosts of TF_CONFIG and saves the weights of this process. KILL_AT is the number of the batch after which
this process kills itself with SIGKILL; -1 for never.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from msim_tf.data.store import FeatureStore
from msim_tf.model.params import NETWORK_PRESETS, TrainParams
from msim_tf.model.training import train


def params(heads):
    """A few steps with clipping, a plateau schedule and, if wanted, a stage for the heads.

    The loss is the smooth one: two negatives at all but the same distance are mined in either order after one rounding
    or another, and the mean of so few triplets then differs by per cents.
    """
    network = NETWORK_PRESETS["multi384" if heads else "single384"]
    network = dataclasses.replace(network, width=0.03, subspace_width=4, time_averaged_heads=heads)
    return TrainParams(
        network=network,
        objective="contrastive",
        epochs=3,
        steps_per_epoch=2,
        validation_steps=2,
        batch_size=8,
        learning_rate=1e-2,
        patience=1,
        clip_norm=0.1,
        validation=0.25,
        keep="last",
        head_epochs=2 if heads else 0,
        head_steps=2,
    )


class Watch(keras.callbacks.Callback):
    """Keeps the model, and kills the process."""

    def __init__(self, kill_at=-1):
        super().__init__()
        self.kill_at, self.batches, self.models = kill_at, 0, []

    def on_train_begin(self, logs=None):
        self.models.append(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def weights(self):
        return [np.asarray(value) for model in self.models for value in model.get_weights()]


if __name__ == "__main__":
    store, run, weights, heads, kill_at = sys.argv[1:]
    watch = Watch(int(kill_at))
    sys.path.append(str(Path(__file__).parents[1]))
    from thin_network import thin_blocks

    with thin_blocks():
        train(FeatureStore(store), run, params(heads == "heads"), callbacks=[watch])
    np.savez(weights, *watch.weights())
