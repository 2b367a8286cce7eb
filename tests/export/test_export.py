"""An export answers every signature as the model in memory does, through the loader of the real server."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from thin_network import thin_blocks

from msim_tf.errors import InputError
from msim_tf.export import export
from msim_tf.export.metadata import load_metadata, next_version, version_directory
from msim_tf.export.servable import Servable
from msim_tf.features.extractor import Extractor
from msim_tf.model.network import build_network, embedding_model
from msim_tf.model.params import NETWORK_PRESETS, TrainParams, layout
from msim_tf.model.run import Run

NETWORK = dataclasses.replace(NETWORK_PRESETS["multi384"], width=0.03, subspace_width=4)


@pytest.fixture(scope="module")
def model(small_params):
    keras.utils.set_random_seed(1)
    return build_network(NETWORK, small_params)


@pytest.fixture(scope="module")
def base(model, small_params, tmp_path_factory):
    base = tmp_path_factory.mktemp("saved_models") / "tiny"
    export.export_model(model, NETWORK, small_params, base, training={"note": "untrained"})
    return base


@pytest.fixture(scope="module")
def servable(base):
    loaded = Servable.load(version_directory(base))
    yield loaded
    loaded.close()


def random_segments(params, count, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0, 1, (count, *shape)).astype(np.float32) for name, shape in params.input_shapes.items()}


def test_every_signature_equals_the_model(servable, model, small_params):
    inputs = random_segments(small_params, 5)
    full = np.asarray(embedding_model(model)(inputs))
    np.testing.assert_allclose(servable.run("serving_default", inputs)["embedding"], full, atol=1e-5)
    subspaces = model(inputs)
    for name, part in layout(NETWORK).slices.items():
        alone = servable.run(name, inputs)
        assert list(alone) == [name]
        np.testing.assert_allclose(alone[name], full[:, part], atol=1e-5)
        np.testing.assert_allclose(alone[name], np.asarray(subspaces[name]), atol=1e-5)
    together = servable.run("all", inputs)
    assert set(together) == set(NETWORK.dimensions)
    for name, value in together.items():
        np.testing.assert_allclose(value, servable.run(name, inputs)[name], atol=1e-6)


@pytest.mark.parametrize("segments", [1, 3, 40])  # 40: more than one chunk, and a last chunk that is not full
def test_audio_is_the_mean_over_segments(servable, model, small_params, segments):
    rng = np.random.default_rng(segments)
    samples = segments * small_params.segment_frames * small_params.hop_length + 100
    y = rng.normal(0, 0.1, (2, samples)).astype(np.float32)
    actual = servable.run("audio", {"audio": y})
    embed, extractor = embedding_model(model), Extractor(small_params)
    length, onsets = small_params.segment_frames, small_params.segment_onsets
    for row in range(2):
        features = extractor([y[row]])
        singles = []
        for start in range(0, segments * length, length):
            inputs = {
                "mel": features.mel[None, :, start : start + length],
                "onset": features.onset[None, start : start + onsets],
                "cens": features.cens[None, :, start : start + length],
            }
            singles.append(np.asarray(embed(inputs))[0])
        np.testing.assert_allclose(actual["embedding"][row], np.mean(singles, 0), atol=1e-4)
    for name, part in layout(NETWORK).slices.items():
        np.testing.assert_allclose(actual[name], actual["embedding"][:, part], atol=1e-6)


def test_audio_shorter_than_a_segment_is_refused(servable, small_params):
    y = np.zeros((1, small_params.segment_samples - small_params.hop_length), np.float32)
    with pytest.raises(InputError, match="shorter than one segment"):
        servable.run("audio", {"audio": y})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_audio_that_is_no_sound_is_refused(servable, small_params, value):
    y = np.zeros((2, 2 * small_params.segment_samples), np.float32)
    y[1, -1] = value
    with pytest.raises(InputError, match="audio holds samples that are not finite, or far beyond full scale"):
        servable.run("audio", {"audio": y})


def test_only_core_operations_are_used(base):
    """Stock TensorFlow Serving has the operations of core TensorFlow: those that a bare interpreter knows."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((base / "1" / "saved_model.pb").read_bytes())
    graph = proto.meta_graphs[0].graph_def
    used = {node.op for node in graph.node} | {n.op for function in graph.library.function for n in function.node_def}
    functions = {function.signature.name for function in graph.library.function}
    known = {name for name in dir(tf.raw_ops) if not name.startswith("_")}
    assert not {op for op in used - functions if op not in known and not op.startswith("_")}
    assert "PyFunc" not in used and "EagerPyFunc" not in used


def test_metadata_and_warmup_are_there(base, small_params):
    metadata = load_metadata(base)
    assert metadata.name == "tiny" and metadata.directory == base / "1"
    assert metadata.features == small_params and metadata.layout == layout(NETWORK)
    assert metadata.training == {"note": "untrained"}
    records = list(tf.data.TFRecordDataset(str(base / "1" / "assets.extra" / "tf_serving_warmup_requests")))
    assert len(records) == len(NETWORK.dimensions) + 3


def test_single_input_models_take_mel_only(small_params, tmp_path):
    network = dataclasses.replace(NETWORK_PRESETS["baseline"], width=0.03, subspace_width=6)
    with thin_blocks():
        model = build_network(network, small_params)
    version = export.export_model(model, network, small_params, tmp_path / "mel_only", training={})
    loaded = Servable.load(version)
    mel = random_segments(small_params, 2)["mel"]
    assert list(loaded.signatures["serving_default"].inputs) == ["mel"]
    expected = np.asarray(embedding_model(model)({"mel": mel}))
    np.testing.assert_allclose(loaded.run("serving_default", {"mel": mel})["embedding"], expected, atol=1e-5)
    loaded.close()


def test_versions_count_up_and_a_failed_export_leaves_none(model, small_params, tmp_path, monkeypatch):
    base = tmp_path / "model"
    (base / "7").mkdir(parents=True)
    assert next_version(base) == 8

    def fail(*_):
        raise RuntimeError("signatures differ")

    monkeypatch.setattr(export, "_verify", fail)
    with pytest.raises(RuntimeError, match="differ"):
        export.export_model(model, NETWORK, small_params, base, training={})
    assert [path.name for path in base.iterdir()] == ["7"]


def test_unfinished_and_foreign_runs_are_refused(small_params, tmp_path):
    run = Run(tmp_path / "run", TrainParams(), small_params.digest, {}, {})
    with pytest.raises(InputError, match="unfinished"):
        export.export_run(run, small_params, tmp_path / "model")
    with pytest.raises(InputError, match="was trained on features"):
        export.export_run(
            dataclasses.replace(run, digest="0" * 16, summary={"epochs": 1}), small_params, tmp_path / "model"
        )


def test_a_directory_without_a_model_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no exported model here"):
        load_metadata(tmp_path)
