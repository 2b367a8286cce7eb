"""What training watches beside the loss: how many pairs a batch held, and how many still push."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from msim_tf.model.losses import MARGIN, cosine_distances, pair_count, triplet_hinges, validate_mining


@keras.saving.register_keras_serializable(package="msim")
def active_triplets(
    y_true: tf.Tensor, y_pred: tf.Tensor, margin: float = MARGIN, fallback: str = "hardest"
) -> tf.Tensor:
    """Share of the valid pairs that still push: hinge > 0.

    Near 0 the dimension is learned, or has collapsed; 0 without any pair.

    Args:
        y_true: relation, [batch, batch].
        y_pred: subspace, [batch, width].
        margin: of the loss.
        fallback: of the loss.

    Returns:
        A float32 scalar in [0, 1].
    """
    # [batch, batch] -> scalar: a hinge is 0 where the negative is farther than the positive by the margin.
    hinges, valid = triplet_hinges(cosine_distances(y_pred), y_true, margin=margin, fallback=fallback)
    return tf.reduce_sum(tf.cast(hinges > 0, tf.float32)) / pair_count(valid)


@keras.saving.register_keras_serializable(package="msim")
def valid_pairs(y_true: tf.Tensor, y_pred: tf.Tensor, margin: float = MARGIN, fallback: str = "hardest") -> tf.Tensor:
    """Anchor-positive pairs with a known negative.

    A batch without any adds nothing to this dimension's loss, and counts as 0 here.

    Args:
        y_true: relation, [batch, batch].
        y_pred: subspace, [batch, width].
        margin: of the loss; matters with "skip".
        fallback: of the loss; with "skip" only pairs with a semi-hard negative count.

    Returns:
        A float32 scalar >= 0, ordered pairs in one replica's block.
    """
    # [batch, batch] -> scalar; (a, p) and (p, a) are two pairs, each with the negatives of its own anchor.
    _, valid = triplet_hinges(cosine_distances(y_pred), y_true, margin=margin, fallback=fallback)
    return tf.reduce_sum(tf.cast(valid, tf.float32))


@keras.saving.register_keras_serializable(package="msim")
class TripletMetric(keras.metrics.Mean):
    """Mean over batches and replicas of ``active_triplets`` or ``valid_pairs``.

    Args:
        statistic: "active_triplets" or "valid_pairs"; also the name in the logs.
        margin: > 0.
        fallback: "hardest" or "skip".
        name: as in ``keras.metrics.Metric``.
        dtype: as in ``keras.metrics.Metric``.
    """

    def __init__(
        self,
        statistic: str,
        margin: float = MARGIN,
        fallback: str = "hardest",
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        # By name, not as a function: a ``.keras`` file stores the configuration as JSON.
        super().__init__(name=name or statistic, dtype=dtype)
        validate_mining(margin, fallback)
        self.statistic = statistic
        self.margin = float(margin)
        self.fallback = fallback

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> Any:
        """Adds one block: relation [batch, batch], subspace [batch, width]; weights of samples are ignored."""
        # One scalar per block goes into the mean, so blocks of few pairs count as much as those of many.
        function = active_triplets if self.statistic == "active_triplets" else valid_pairs
        return super().update_state(function(y_true, y_pred, margin=self.margin, fallback=self.fallback))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        own = {"statistic": self.statistic, "margin": self.margin, "fallback": self.fallback}
        return {**super().get_config(), **own}


def triplet_metrics(*, margin: float = MARGIN, fallback: str = "hardest") -> list[keras.metrics.Metric]:
    """New metrics ``active_triplets`` and ``valid_pairs`` for one output, with the margin and fallback of its loss."""
    return [TripletMetric(statistic, margin, fallback) for statistic in ("active_triplets", "valid_pairs")]
