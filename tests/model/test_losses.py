"""The triplet loss against a plain NumPy loop, by hand, and against numerical derivatives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from msim_tf.errors import InputError
from msim_tf.model.losses import (
    ConditionalTripletLoss,
    ContrastiveLoss,
    RegressionLoss,
    TeacherLoss,
    cosine_distances,
    loss_weights,
    semi_hard_negatives,
    triplet_loss,
)
from msim_tf.model.metrics import active_triplets, triplet_metrics, valid_pairs

# On the unit circle, so that distances are exact by hand: AB .2, AC .4, AD 1, BC .04, BD .4, CD .2.
FOUR_POINTS = np.float32([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])
# A and B are similar; A knows two dissimilar ones, B one; the rest is unknown.
FOUR_RELATIONS = np.int8([[0, 1, -1, -1], [1, 0, -1, 0], [-1, -1, 0, 0], [-1, 0, 0, 0]])


def loop_hinges(embeddings, relation, margin, fallback):
    """The definition, pair by pair: (anchor, positive, hinge, which rule found the negative)."""
    x = embeddings.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = 1.0 - x @ x.T
    hinges = []
    for a in range(len(x)):
        negatives = [distance[a, n] for n in range(len(x)) if n != a and relation[a, n] < 0]
        for p in range(len(x)):
            if p == a or relation[a, p] <= 0 or not negatives:
                continue
            semi_hard = [d for d in negatives if distance[a, p] < d < distance[a, p] + margin]
            farther = [d for d in negatives if d > distance[a, p]]
            if semi_hard:
                rule, negative = "semi-hard", min(semi_hard)
            elif fallback == "skip":
                continue
            elif farther:
                rule, negative = "farther", min(farther)
            else:
                rule, negative = "nearer", max(negatives)
            hinges.append((a, p, max(distance[a, p] - negative + margin, 0.0), rule))
    return hinges


def random_relation(rng, size, unknown):
    """Not transitive, and with unknown pairs."""
    relation = rng.choice([-1, 0, 1], size=(size, size), p=[(1 - unknown) / 2, unknown, (1 - unknown) / 2])
    relation = np.triu(relation, 1)
    return (relation + relation.T).astype(np.int8)


@pytest.mark.parametrize("fallback", ["hardest", "skip"])
@pytest.mark.parametrize("margin", [0.1, 0.5])
def test_equals_a_plain_loop_on_relations_that_are_not_transitive(rng, fallback, margin):
    rules = set()
    for case in range(30):
        size = 2 + case % 11
        embeddings = rng.normal(size=(size, 2 + case % 3)).astype(np.float32)
        relation = random_relation(rng, size, unknown=case / 40)
        expected = loop_hinges(embeddings, relation, margin, fallback)
        rules |= {rule for *_, rule in expected}
        mean = np.mean([hinge for _, _, hinge, _ in expected]) if expected else 0.0
        loss = triplet_loss(embeddings, tf.constant(relation), margin=margin, fallback=fallback)
        np.testing.assert_allclose(loss, mean, atol=2e-6)
        options = {"margin": margin, "fallback": fallback}
        assert int(valid_pairs(tf.constant(relation), embeddings, **options)) == len(expected)
        active = np.mean([hinge > 1e-6 for _, _, hinge, _ in expected]) if expected else 0.0
        np.testing.assert_allclose(active_triplets(tf.constant(relation), embeddings, **options), active, atol=1e-6)
    assert rules == ({"semi-hard"} if fallback == "skip" else {"semi-hard", "farther", "nearer"})


@pytest.mark.parametrize(
    ("margin", "fallback", "expected"),
    [
        # (A, B): C at .4 is semi-hard, .2 - .4 + .3 = .1. (B, A): no one is farther than A, the farthest negative is C,
        # .2 - .04 + .3 = .46.
        (0.3, "hardest", (0.1 + 0.46) / 2),
        (0.3, "skip", 0.1),
        # Nothing is semi-hard: (A, B) costs nothing, (B, A) .2 - .04 + .1 = .26.
        (0.1, "hardest", 0.26 / 2),
        (0.1, "skip", 0.0),
    ],
)
def test_four_points_by_hand(margin, fallback, expected):
    loss = triplet_loss(FOUR_POINTS, tf.constant(FOUR_RELATIONS), margin=margin, fallback=fallback)
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_mined_negatives_by_hand():
    distances = cosine_distances(FOUR_POINTS)
    negatives, valid = semi_hard_negatives(
        distances, FOUR_RELATIONS > 0, FOUR_RELATIONS < 0, margin=0.3, fallback="hardest"
    )
    assert np.argwhere(valid.numpy()).tolist() == [[0, 1], [1, 0]]
    assert negatives.numpy()[0, 1] == pytest.approx(0.4, abs=1e-6)
    assert negatives.numpy()[1, 0] == pytest.approx(0.04, abs=1e-6)


def test_a_positive_without_a_known_negative_is_no_pair():
    relation = tf.constant([[0, 1, 0], [1, 0, 0], [0, 0, 0]], tf.int8)
    points = tf.constant(FOUR_POINTS[:3])
    assert float(valid_pairs(relation, points)) == 0.0
    assert float(triplet_loss(points, relation)) == 0.0
    assert float(active_triplets(relation, points)) == 0.0


def test_the_diagonal_says_nothing():
    claimed = FOUR_RELATIONS + 5 * np.eye(4, dtype=np.int8)
    denied = FOUR_RELATIONS - 5 * np.eye(4, dtype=np.int8)
    losses = [float(triplet_loss(FOUR_POINTS, tf.constant(r))) for r in (FOUR_RELATIONS, claimed, denied)]
    assert losses[0] == losses[1] == losses[2] > 0


def test_cosine_distances_of_known_angles():
    angles = np.radians([0.0, 60.0, 90.0, 180.0])
    lengths = np.array([1.0, 5.0, 0.01, 300.0])
    distances = cosine_distances((np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]).astype(np.float32))
    np.testing.assert_allclose(distances, 1.0 - np.cos(angles[:, None] - angles), atol=1e-6)
    assert distances.numpy().min() >= 0.0


def test_order_of_the_batch_does_not_matter(rng):
    embeddings = rng.normal(size=(12, 3)).astype(np.float32)
    relation = random_relation(rng, 12, unknown=0.3)
    order = rng.permutation(12)
    loss = ConditionalTripletLoss(margin=0.3)
    before = loss.call(tf.constant(relation), embeddings).numpy()
    after = loss.call(tf.constant(relation[order][:, order]), embeddings[order]).numpy()
    np.testing.assert_allclose(after, before[order], atol=1e-6)


def test_gradient_equals_numerical_derivatives(rng):
    embeddings = rng.normal(size=(7, 3)).astype(np.float32)
    relation = random_relation(rng, 7, unknown=0.2)

    def exact(x):
        return np.mean([hinge for _, _, hinge, _ in loop_hinges(x, relation, 0.4, "hardest")])

    variable = tf.Variable(embeddings)
    with tf.GradientTape() as tape:
        loss = triplet_loss(variable, tf.constant(relation), margin=0.4)
    gradient = tape.gradient(loss, variable).numpy()
    step = 1e-6
    for index in np.ndindex(embeddings.shape):
        shift = np.zeros(embeddings.shape)
        shift[index] = step
        slope = (exact(embeddings + shift) - exact(embeddings - shift)) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=2e-5)
    assert np.abs(gradient).max() > 0.01


@pytest.mark.parametrize("fallback", ["hardest", "skip"])
def test_gradients_stay_finite_with_duplicates_and_zero_vectors(rng, fallback):
    embeddings = rng.normal(size=(8, 4)).astype(np.float32)
    embeddings[1] = embeddings[0]
    embeddings[2] = embeddings[3] = 0.0
    embeddings[4] *= 1e-20
    variable = tf.Variable(embeddings)
    with tf.GradientTape() as tape:
        loss = triplet_loss(variable, tf.constant(random_relation(rng, 8, unknown=0.0)), fallback=fallback)
    gradient = tape.gradient(loss, variable).numpy()
    assert np.isfinite(loss) and np.isfinite(gradient).all()
    assert np.abs(gradient).max() < 10.0
    assert not gradient[2:5].any()


def test_the_adapter_has_one_value_per_anchor_with_the_loss_as_mean(rng):
    embeddings = rng.normal(size=(10, 3)).astype(np.float32)
    relation = random_relation(rng, 10, unknown=0.2)
    loss = ConditionalTripletLoss(margin=0.2, fallback="skip")
    values = loss.call(tf.constant(relation), embeddings)
    expected = triplet_loss(embeddings, tf.constant(relation), margin=0.2, fallback="skip")
    assert values.shape == (10,) and values.dtype == tf.float32
    assert float(tf.reduce_mean(values)) == pytest.approx(float(expected), rel=1e-5)
    assert float(loss(relation, embeddings)) == pytest.approx(float(expected), rel=1e-5)
    half = loss.call(tf.constant(relation), tf.cast(embeddings, tf.float16))
    assert half.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_mean(half), expected, atol=1e-3)


def test_the_loss_survives_serialisation():
    loss = ConditionalTripletLoss(margin=0.25, fallback="skip", name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, ConditionalTripletLoss)
    assert again.get_config() == loss.get_config()
    assert (again.margin, again.fallback, again.name) == (0.25, "skip", "mine")


def test_metrics_keep_margin_and_fallback_through_serialisation():
    for metric, expected in zip(triplet_metrics(margin=0.3, fallback="skip"), (1.0, 1.0)):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert again.name == metric.name
        again.update_state(FOUR_RELATIONS, FOUR_POINTS)
        assert float(again.result()) == pytest.approx(expected)  # one pair, and it pushes; margin .1 would find none


def subspace_model(width, dimensions):
    """Two linear subspaces: enough of a model to see how Keras weighs and averages."""
    inputs = keras.Input((width,), name="x")
    outputs = {name: keras.layers.Dense(3, use_bias=False, name=name)(inputs) for name in dimensions}
    return keras.Model({"x": inputs}, outputs)


@pytest.mark.parametrize("replicas", [1, 2])
def test_fit_averages_over_dimensions_and_replicas(rng, two_replicas, replicas):
    """One step of SGD on blocks per replica equals the step computed from the blocks' losses one by one."""
    block, dimensions = 8, ("genre", "mood")
    x = rng.normal(size=(block * replicas, 5)).astype(np.float32)
    relations = {
        name: np.concatenate([random_relation(rng, block, unknown=0.3) for _ in range(replicas)]) for name in dimensions
    }
    relations["mood"][:block] = 0  # nothing known: contributes 0, and counts
    strategy = two_replicas if replicas == 2 else tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        keras.utils.set_random_seed(3)
        model = subspace_model(5, dimensions)
        model.compile(
            optimizer=keras.optimizers.SGD(1.0),
            loss={name: ConditionalTripletLoss(margin=0.5) for name in dimensions},
            loss_weights=loss_weights(dimensions),
            metrics={"genre": triplet_metrics(margin=0.5), "mood": [active_triplets, valid_pairs]},
            jit_compile=False,
        )
    weights = {name: tf.Variable(model.get_layer(name).get_weights()[0]) for name in dimensions}
    blocks = [slice(i * block, (i + 1) * block) for i in range(replicas)]
    with tf.GradientTape() as tape:
        losses = {
            name: [triplet_loss(x[b] @ weights[name], tf.constant(relations[name][b]), margin=0.5) for b in blocks]
            for name in dimensions
        }
        total = tf.add_n([tf.add_n(values) / replicas for values in losses.values()]) / len(dimensions)
    gradients = tape.gradient(total, weights)

    data = tf.data.Dataset.from_tensor_slices(({"x": x}, relations)).batch(block * replicas, drop_remainder=True)
    logs = {name: values[0] for name, values in model.fit(data, shuffle=False, verbose=0).history.items()}

    assert logs["loss"] == pytest.approx(float(total), rel=1e-5)
    for name in dimensions:
        assert logs[f"{name}_loss"] == pytest.approx(float(np.mean(losses[name])), rel=1e-5)
        moved = weights[name].numpy() - model.get_layer(name).get_weights()[0]
        np.testing.assert_allclose(moved, gradients[name], atol=1e-6)
    counted = [len(loop_hinges(x[b] @ weights["genre"].numpy(), relations["genre"][b], 0.5, "hardest")) for b in blocks]
    assert logs["genre_valid_pairs"] == pytest.approx(np.mean(counted))
    assert 0 < logs["genre_active_triplets"] <= 1
    if replicas == 1:
        assert logs["mood_loss"] == logs["mood_valid_pairs"] == logs["mood_active_triplets"] == 0


def test_weights_of_the_dimensions_sum_to_one():
    assert loss_weights(["genre", "mood", "key"]) == dict.fromkeys(["genre", "mood", "key"], pytest.approx(1 / 3))


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match=r"\[8, 16\] on one replica: expected a square block"):
        triplet_loss(tf.zeros([8, 3]), tf.zeros([8, 16], tf.int8))
    with pytest.raises(InputError, match="fallback 'easiest': expected one of hardest, skip"):
        ConditionalTripletLoss(fallback="easiest")
    with pytest.raises(InputError, match=r"margin is 0\.0, expected > 0"):
        triplet_loss(tf.zeros([2, 3]), tf.zeros([2, 2]), margin=0.0)


def loop_contrastive(embeddings, relation, temperature):
    """The mean of -log(exp(p) / (exp(p) + sum of exp(n))) over anchors and positives, in float64."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine, terms = unit @ unit.T, []
    for a in range(len(unit)):
        negatives = [n for n in range(len(unit)) if n != a and relation[a, n] < 0]
        for p in range(len(unit)):
            if p != a and relation[a, p] > 0 and negatives:
                near = np.exp((cosine[a, p] - 1) / temperature)
                far = sum(np.exp((cosine[a, n] - 1) / temperature) for n in negatives)
                terms.append(-np.log(near / (near + far)))
    return np.mean(terms) if terms else 0.0


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_contrastive_equals_a_plain_loop(rng, temperature):
    embeddings = rng.normal(size=(12, 5))
    relation = rng.integers(-1, 2, (12, 12))
    relation[3] = 0  # knows nobody
    relation[4] = np.abs(relation[4])  # has no negative
    actual = ContrastiveLoss(temperature)(relation.astype(np.int8), embeddings.astype(np.float32))
    assert float(actual) == pytest.approx(loop_contrastive(embeddings, relation, temperature), rel=1e-4)


def test_contrastive_gradients_stay_finite(rng):
    embeddings = tf.Variable(np.concatenate([np.zeros((1, 4)), np.ones((3, 4)), rng.normal(size=(2, 4))]).astype("f4"))
    relation = rng.integers(-1, 2, (6, 6)).astype(np.int8)
    relation[5] = 1
    with tf.GradientTape() as tape:
        loss = ContrastiveLoss(0.01)(relation, embeddings)
    assert np.isfinite(tape.gradient(loss, embeddings)).all()


def test_teacher_loss_is_the_squared_difference_of_cosines(rng):
    subspace, tags = rng.normal(size=(7, 5)), rng.normal(size=(7, 3))
    tags /= np.linalg.norm(tags, axis=1, keepdims=True)
    tags[2] = 0  # unheard
    unit = subspace / np.linalg.norm(subspace, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(7) for j in range(7) if i != j and 2 not in (i, j)]
    expected = np.mean([(unit[i] @ unit[j] - tags[i] @ tags[j]) ** 2 for i, j in pairs])
    assert float(TeacherLoss()(tags.astype("f4"), subspace.astype("f4"))) == pytest.approx(expected, rel=1e-4)
    copied = np.concatenate([tags, np.zeros((7, 2))], axis=1)
    copied[2] = 1.0
    assert float(TeacherLoss()(tags.astype("f4"), copied.astype("f4"))) == pytest.approx(0.0, abs=1e-10)


def test_regression_loss_counts_what_is_known(rng):
    target, predicted = rng.normal(size=(5, 3)).astype("f4"), rng.normal(size=(5, 3)).astype("f4")
    target[1, 2] = np.nan
    target[4] = np.nan
    expected = np.nansum(np.square(target - predicted)) / 15
    variable = tf.Variable(predicted)
    with tf.GradientTape() as tape:
        loss = RegressionLoss()(target, variable)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    gradient = tape.gradient(loss, variable).numpy()
    np.testing.assert_allclose(gradient, np.nan_to_num(2 * (predicted - target) / 15), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", [ContrastiveLoss(0.3), TeacherLoss(), RegressionLoss()])
def test_the_other_losses_survive_serialisation(loss):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
