"""Adam that clips the gradient of the whole batch, however many replicas share it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

_KERAS_2 = keras.__version__.startswith("2.")


@keras.saving.register_keras_serializable(package="msim")
class ReducedClipAdam(keras.optimizers.Adam):
    """Adam for Keras 3 whose ``global_clipnorm`` bounds the gradient *after* it is summed over the replicas.

    Keras 3 clips in each replica, before the sum. A replica's loss is divided by their number, so with two replicas
    each gradient is about half as long as the batch's: a bound that the batch exceeds may not be reached by any
    replica, and the step is then not clipped at all. Keras 2 sums first. With one replica the numbers are those of
    ``keras.optimizers.Adam``.
    """

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        return grads  # the next method clips

    def _all_reduce_sum_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Sums over the replicas, then clips; every replica holds the same sums, so no more is communicated."""
        reduced = super()._all_reduce_sum_gradients(grads_and_vars)
        clipped = super()._clip_gradients([gradient for gradient, _ in reduced])
        return [(gradient, variable) for gradient, (_, variable) in zip(clipped, reduced)]


def build_adam(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule, clip_norm: float
) -> keras.optimizers.Optimizer:
    """Adam for a training.

    Args:
        learning_rate: a number, or a schedule over steps.
        clip_norm: bound of the norm of all gradients of a batch together; 0 for none.
    """
    if not clip_norm:
        return keras.optimizers.Adam(learning_rate)
    if _KERAS_2:  # sums over the replicas first
        return keras.optimizers.Adam(learning_rate, global_clipnorm=clip_norm)
    # If Keras renamed the method that is overridden above, gradients would silently stay unclipped.
    if not hasattr(keras.optimizers.Adam, "_all_reduce_sum_gradients") and tf.distribute.has_strategy():
        raise RuntimeError(
            f"Keras {keras.__version__} sums gradients in a way that is not known here: clipping is untested"
        )
    return ReducedClipAdam(learning_rate, global_clipnorm=clip_norm)
