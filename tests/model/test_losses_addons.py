"""On class labels our loss is TripletSemiHardLoss of tensorflow-addons: live, or from its golden file."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from msim_tf.model.losses import triplet_loss

GOLDEN = Path(__file__).parent.parent / "golden" / "triplet_semi_hard.npz"


def loss_and_gradient(embeddings, labels, margin):
    relation = tf.constant(np.where(labels[:, None] == labels, 1, -1).astype(np.int8))
    variable = tf.Variable(embeddings)
    with tf.GradientTape() as tape:
        loss = triplet_loss(variable, relation, margin=margin, fallback="hardest")
    return loss.numpy(), tape.gradient(loss, variable).numpy()


def test_golden_numbers_of_tensorflow_addons():
    golden = np.load(GOLDEN, allow_pickle=False)
    assert len(golden["losses"]) == 12
    for case in zip(*(golden[name] for name in ("embeddings", "labels", "margins", "losses", "gradients"))):
        embeddings, labels, margin, expected, expected_gradient = case
        loss, gradient = loss_and_gradient(embeddings, labels, float(margin))
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected_gradient, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_addons_itself(rng):
    losses = pytest.importorskip(
        "tensorflow_addons.losses", reason="runs with the extra [addons] only", exc_type=ImportError
    )
    for classes in (2, 4, 8):
        embeddings = rng.normal(size=(32, 4)).astype(np.float32)
        labels = rng.integers(0, classes, size=32)
        variable = tf.Variable(embeddings)
        with tf.GradientTape() as tape:
            expected = losses.TripletSemiHardLoss(margin=0.2, distance_metric="angular")(labels, variable)
        loss, gradient = loss_and_gradient(embeddings, labels, 0.2)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, tape.gradient(expected, variable), atol=1e-6)
