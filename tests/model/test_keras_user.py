"""Loss, masks and batches in somebody else's ``compile`` and ``fit``, with a model that is not ours."""

import keras
import numpy as np

from msim_tf.data.batch_sampler import BatchParams
from msim_tf.data.pipeline import make_dataset, make_part
from msim_tf.dimensions import EmbeddingLayout
from msim_tf.model.layers import SubspaceMask
from msim_tf.model.losses import ConditionalTripletLoss
from msim_tf.model.network import build_network

NAMES = ("genre", "tempo")
LAYOUT = EmbeddingLayout.equal(NAMES, 16)


def foreign_model(features):
    """A perceptron on the mean of the mel-spectrogram over time."""
    mel = keras.Input(features.input_shapes["mel"], name="mel")
    x = keras.layers.GlobalAveragePooling1D(data_format="channels_first")(mel)
    x = keras.layers.Dense(16)(keras.layers.Dense(32, activation="relu")(x))
    return keras.Model({"mel": mel}, {name: SubspaceMask(LAYOUT.mask([name]), name=name)(x) for name in NAMES})


def test_a_foreign_model_learns_from_a_store(labelled_store, tmp_path):
    part = make_part(labelled_store, NAMES, BatchParams(batch_size=12))
    model = foreign_model(labelled_store.params)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-2),
        loss={name: ConditionalTripletLoss(margin=0.2) for name in NAMES},
        jit_compile=False,
    )
    history = model.fit(
        make_dataset(part, ("mel",), first=0, last=60), epochs=4, steps_per_epoch=15, shuffle=False, verbose=0
    ).history
    # Twelve clips can be learned by heart: both dimensions fall to well below the margin.
    for name in NAMES:
        assert history[f"{name}_loss"][-1] < 0.5 * history[f"{name}_loss"][0], (name, history)
    model.save(tmp_path / "foreign.keras")
    again = keras.models.load_model(tmp_path / "foreign.keras")
    inputs, _ = next(iter(make_dataset(part, ("mel",), first=0, last=1)))
    for name, subspace in again(inputs).items():
        assert subspace.shape == (12, 8)
        np.testing.assert_array_equal(subspace, model(inputs)[name])


def test_a_network_is_built_by_the_name_of_its_preset():
    model = build_network("baseline")
    assert list(model.output) == ["genre", "mood", "instrument", "era"]
    assert model.input["mel"].shape == (None, 128, 129) and model.output["era"].shape == (None, 64)
