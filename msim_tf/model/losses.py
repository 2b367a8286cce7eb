"""The conditional triplet loss over relation masks (paper, section 3.3, eq. 1): pure functions, thin Keras adapters.

A *relation* says, for every two members of a batch and one dimension, whether they are similar (> 0), dissimilar (< 0)
or of unknown relation (0). There are no class ids, because tempo similarity and shared tags are not transitive. Unknown
pairs are neither positives nor negatives, and nobody is related to itself: the diagonal is ignored.

Mining is *per replica*: an anchor meets the positives and negatives of its own replica's block only. The sampler
makes one block per replica on purpose, so a gather over replicas would add negatives that nobody chose, for the
price of communication. Targets of a global batch of B are therefore [B, B / replicas]; row i relates member i to the
members of its own block, and they split along axis 0 like the inputs.

L_MD is the mean of L_s over dimensions: one loss per output, weighted by ``loss_weights``. Lee's track regularisation
is the same loss with the relation "cut from the same track" (+1, else -1) on the whole embedding, the output "track" of
the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from msim_tf.errors import InputError

MARGIN = 0.1  # paper, section 3.3
FALLBACKS = ("hardest", "skip")  # what a pair without a semi-hard negative does


def cosine_distances(embeddings: tf.Tensor) -> tf.Tensor:
    """1 - cosine of every two vectors.

    Args:
        embeddings: [batch, width] float.

    Returns:
        [batch, batch] float32 in [0, 2]. A zero vector is at distance 1 from all, and gets no gradient.
    """
    # [batch, width]: vectors of length 1; zero vectors stay zero. In 16 bits distances would keep only three digits.
    embeddings = tf.cast(embeddings, tf.float32)
    square = tf.reduce_sum(tf.square(embeddings), -1, keepdims=True)
    present = square > 1e-12
    # The inner where keeps 1 / 0 out of the gradient, which the outer one alone would turn into 0 * inf.
    unit = embeddings * tf.where(present, tf.math.rsqrt(tf.where(present, square, 1.0)), 0.0)

    # [batch, batch]: rounding may put the cosine of equal vectors above 1.
    return tf.maximum(1.0 - tf.matmul(unit, unit, transpose_b=True), 0.0)


def relation_masks(relation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits a relation into who is similar and who is dissimilar.

    Args:
        relation: [batch, batch], > 0 similar, < 0 dissimilar, 0 unknown.

    Returns:
        similar and dissimilar, each [batch, batch] bool, False on the diagonal.

    Raises:
        InputError: if the relation is known not to be square.
    """
    rows, columns = relation.shape
    if rows is not None and columns is not None and rows != columns:
        raise InputError(
            f"targets of shape [{rows}, {columns}] on one replica: expected a square block; "
            "sample one block per replica, targets [batch, batch / replicas]"
        )
    # [batch, batch]: every pair except a member with itself, which would be a positive at distance 0.
    others = tf.logical_not(tf.eye(tf.shape(relation)[0], dtype=tf.bool))
    return tf.logical_and(relation > 0, others), tf.logical_and(relation < 0, others)


def semi_hard_negatives(
    distances: tf.Tensor, similar: tf.Tensor, dissimilar: tf.Tensor, *, margin: float, fallback: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mines a negative for every anchor-positive pair (Schroff et al., "FaceNet", CVPR 2015).

    It is the nearest of those with d(a, p) < d(a, n) < d(a, p) + margin. If there is none, ``fallback`` "hardest" takes
    the nearest that is farther than the positive, and if none is farther, the farthest of all; "skip" drops the pair.

    Args:
        distances: [batch, batch] float, from anchors (rows).
        similar: [batch, batch] bool.
        dissimilar: [batch, batch] bool.
        margin: > 0.
        fallback: "hardest" or "skip".

    Returns:
        Distance from anchor ``a`` to the negative of the pair (a, p), [batch, batch] float, meaningful where the second
        is True; valid pairs, [batch, batch] bool: similar, and with a known negative.
    """
    validate_mining(margin, fallback)
    fixed = tf.stop_gradient(distances)  # the choice of a negative has no gradient, only its distance has

    # [batch, batch] column numbers and distances: the negatives of each anchor, nearest first, all others behind them.
    order = tf.argsort(tf.where(dissimilar, fixed, fixed.dtype.max), axis=1, stable=True)
    ascending = tf.gather(tf.where(dissimilar, fixed, fixed.dtype.max), order, batch_dims=1)
    count = tf.reduce_sum(tf.cast(dissimilar, tf.int32), 1, keepdims=True)

    # [batch, batch] ranks: the nearest negative that is farther than the positive. It is the semi-hard one if there is
    # any, and the fallback if not, so one search serves both, without the [batch, batch, batch] masks of the usual
    # implementations. Where no negative is farther, the rank is that of the last one, the farthest of all.
    position = tf.minimum(tf.searchsorted(ascending, fixed, side="right"), tf.maximum(count - 1, 0))

    # Back from ranks to columns, and to distances that have a gradient.
    negatives = tf.gather(distances, tf.gather(order, position, batch_dims=1), batch_dims=1)

    # [batch, batch]: pairs that have a negative and, with "skip", a semi-hard one.
    valid = tf.logical_and(similar, count > 0)
    if fallback == "skip":
        valid &= tf.logical_and(negatives > distances, negatives < distances + margin)
    return negatives, valid


def triplet_hinges(
    distances: tf.Tensor, relation: tf.Tensor, *, margin: float, fallback: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """max(d(a, p) - d(a, n) + margin, 0) with the mined negative.

    Args:
        distances: [batch, batch] float.
        relation: [batch, batch], > 0 similar, < 0 dissimilar, 0 unknown.
        margin: > 0.
        fallback: "hardest" or "skip".

    Returns:
        [batch, batch] float, 0 where the pair is not valid; valid pairs, [batch, batch] bool.
    """
    # All [batch, batch], from anchor (row) to positive (column); a pair that is not valid adds 0 and no gradient.
    similar, dissimilar = relation_masks(relation)
    negatives, valid = semi_hard_negatives(distances, similar, dissimilar, margin=margin, fallback=fallback)
    return tf.where(valid, tf.maximum(distances - negatives + margin, 0.0), 0.0), valid


def triplet_loss(
    embeddings: tf.Tensor, relation: tf.Tensor, *, margin: float = MARGIN, fallback: str = "hardest"
) -> tf.Tensor:
    """L_s of eq. (1): the mean hinge over all valid anchor-positive pairs; 0 when there is none.

    Args:
        embeddings: [batch, width], the subspace of one dimension.
        relation: [batch, batch], > 0 similar, < 0 dissimilar, 0 unknown.
        margin: > 0.
        fallback: "hardest" or "skip", for pairs without a semi-hard negative.

    Returns:
        A float32 scalar >= 0.
    """
    hinges, valid = triplet_hinges(cosine_distances(embeddings), relation, margin=margin, fallback=fallback)
    return tf.reduce_sum(hinges) / pair_count(valid)


def contrastive_terms(distances: tf.Tensor, relation: tf.Tensor, *, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """-log of a positive's share among itself and all negatives of its anchor.

    Khosla et al., "Supervised contrastive learning", NeurIPS 2020.

    Unknown pairs stand in neither sum, and other positives not in the denominator: relations are not classes, so
    positives of one anchor need not be near each other.

    Args:
        distances: [batch, batch] float, 1 - cosine.
        relation: [batch, batch], > 0 similar, < 0 dissimilar, 0 unknown.
        temperature: > 0; the smaller, the more the nearest negatives count.

    Returns:
        [batch, batch] float >= 0, 0 where the pair is not valid; valid pairs (similar, with a known negative), [batch,
        batch] bool.
    """
    # [batch, batch]: 1 - distance is the cosine, and a constant added to all logits of a row changes nothing.
    similar, dissimilar = relation_masks(relation)
    logits = -distances / temperature

    # [batch, 1] log of the sum over the negatives: -log(e^p / (e^p + sum)) = softplus(log sum - p).
    negatives = tf.where(dissimilar, logits, logits.dtype.min)
    weight = tf.reduce_logsumexp(negatives, axis=1, keepdims=True)

    # [batch, batch] terms. The inner where keeps the smallest float of an anchor without negatives out of the gradient.
    valid = tf.logical_and(similar, tf.reduce_any(dissimilar, axis=1, keepdims=True))
    terms = tf.nn.softplus(tf.where(valid, weight - logits, 0.0))
    return tf.where(valid, terms, 0.0), valid


def teacher_terms(subspace: tf.Tensor, tags: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Squared differences of cosines: of two members' subspaces, and of their tags.

    Park et al., "Relational knowledge distillation", CVPR 2019.

    Args:
        subspace: [batch, width] float.
        tags: [batch, tags] float of length 1, or 0 where the teacher has no score of the member.

    Returns:
        [batch, batch] float >= 0, 0 where the pair is not valid; valid pairs (both scored), [batch, batch]
        bool.
    """
    # [batch, batch]: pairs of two different members that the teacher has both scored.
    scored = tf.reduce_any(tags != 0, axis=1)
    others = tf.logical_not(tf.eye(tf.shape(tags)[0], dtype=tf.bool))
    valid = scored[:, None] & scored[None, :] & others

    # A difference of distances is one of cosines: the 1 in both cancels.
    difference = cosine_distances(subspace) - cosine_distances(tags)
    return tf.where(valid, tf.square(difference), 0.0), valid


def loss_weights(dimensions: Sequence[str]) -> dict[str, float]:
    """Weights that make the sum of the dimensions' losses L_MD: 1 / N_D each."""
    return dict.fromkeys(dimensions, 1.0 / len(dimensions))


@keras.saving.register_keras_serializable(package="msim")
class ConditionalTripletLoss(keras.losses.Loss):
    """``triplet_loss`` for ``compile``: one instance per output.

    ``call`` returns one value per anchor, [batch], whose mean is L_s. So Keras' mean over the batch, and its mean over
    replicas, are that of the losses of the replicas' blocks.

    Args:
        margin: > 0.
        fallback: "hardest" or "skip".
        reduction: as in ``keras.losses.Loss``.
        name: as in ``keras.losses.Loss``.
    """

    def __init__(
        self,
        margin: float = MARGIN,
        fallback: str = "hardest",
        reduction: str = "sum_over_batch_size",
        name: str = "conditional_triplet_loss",
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        validate_mining(margin, fallback)
        self.margin = float(margin)
        self.fallback = fallback

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Per-anchor losses; ``y_true`` is the relation [batch, batch], ``y_pred`` the subspace [batch, width]."""
        hinges, valid = triplet_hinges(cosine_distances(y_pred), y_true, margin=self.margin, fallback=self.fallback)
        return _per_anchor(hinges, valid)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"margin": self.margin, "fallback": self.fallback, "reduction": self.reduction, "name": self.name}


@keras.saving.register_keras_serializable(package="msim")
class ContrastiveLoss(keras.losses.Loss):
    """``contrastive_terms`` for ``compile``, with per-anchor values as ``ConditionalTripletLoss`` has them.

    Args:
        temperature: > 0.
        reduction: as in ``keras.losses.Loss``.
        name: as in ``keras.losses.Loss``.
    """

    def __init__(
        self, temperature: float = 0.1, reduction: str = "sum_over_batch_size", name: str = "contrastive_loss"
    ) -> None:
        super().__init__(reduction=reduction, name=name)
        self.temperature = float(temperature)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Per-anchor losses; ``y_true`` is the relation [batch, batch], ``y_pred`` the subspace [batch, width]."""
        return _per_anchor(*contrastive_terms(cosine_distances(y_pred), y_true, temperature=self.temperature))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"temperature": self.temperature, "reduction": self.reduction, "name": self.name}


@keras.saving.register_keras_serializable(package="msim")
class TeacherLoss(keras.losses.Loss):
    """``teacher_terms`` for ``compile``, with per-anchor values as ``ConditionalTripletLoss`` has them.

    Args:
        reduction: as in ``keras.losses.Loss``.
        name: as in ``keras.losses.Loss``.
    """

    def __init__(self, reduction: str = "sum_over_batch_size", name: str = "teacher_loss") -> None:
        super().__init__(reduction=reduction, name=name)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Per-anchor losses; ``y_true``: the teacher's tags [batch, tags], ``y_pred``: the subspace [batch, width]."""
        return _per_anchor(*teacher_terms(y_pred, y_true))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"reduction": self.reduction, "name": self.name}


@keras.saving.register_keras_serializable(package="msim")
class RegressionLoss(keras.losses.Loss):
    """Mean squared error over the coordinates of ``y_true`` that are known (not NaN).

    Both are [batch, coordinates].

    Args:
        reduction: as in ``keras.losses.Loss``.
        name: as in ``keras.losses.Loss``.
    """

    def __init__(self, reduction: str = "sum_over_batch_size", name: str = "regression_loss") -> None:
        super().__init__(reduction=reduction, name=name)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Per-member losses, [batch]; a member of whom nothing is known has 0."""
        # [batch, coordinates]: errors, 0 where the target is unknown. The inner where keeps NaN out of the gradient.
        finite = tf.math.is_finite(y_true)
        error = tf.where(finite, tf.where(finite, y_true, 0.0) - tf.cast(y_pred, tf.float32), 0.0)
        return tf.reduce_mean(tf.square(error), axis=1)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"reduction": self.reduction, "name": self.name}


def _per_anchor(terms: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """[batch] values whose mean is the mean of ``terms`` over valid pairs."""
    # Keras divides the sum over anchors by the batch; eq. (1) divides it by the number of pairs.
    return tf.reduce_sum(terms, 1) * tf.cast(tf.shape(terms)[0], tf.float32) / pair_count(valid)


def pair_count(valid: tf.Tensor) -> tf.Tensor:
    """Number of valid pairs as a float32 scalar, at least 1 so that it divides."""
    return tf.maximum(tf.reduce_sum(tf.cast(valid, tf.float32)), 1.0)


def validate_mining(margin: float, fallback: str) -> None:
    """Refuses a margin that is not positive, and an unknown fallback, by ``InputError``."""
    if not margin > 0:
        raise InputError(f"margin is {margin}, expected > 0")
    if fallback not in FALLBACKS:
        raise InputError(f"fallback {fallback!r}: expected one of {', '.join(FALLBACKS)}")
