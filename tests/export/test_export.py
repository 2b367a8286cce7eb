"""An export answers every signature as the model in memory does, through the loader of the real server."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from msim_tf.errors import InputError
from msim_tf.export import export
from msim_tf.export.embedder import Embedder
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
    found = servable.run("audio", {"audio": y})
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
        np.testing.assert_allclose(found["embedding"][row], np.mean(singles, 0), atol=1e-4)
    for name, part in layout(NETWORK).slices.items():
        np.testing.assert_allclose(found[name], found["embedding"][:, part], atol=1e-6)


def test_audio_shorter_than_a_segment_is_refused(servable, small_params):
    y = np.zeros((1, small_params.segment_samples - small_params.hop_length), np.float32)
    with pytest.raises(InputError, match="shorter than one segment"):
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


def test_embedding_a_folder_equals_the_audio_signature(base, servable, clips_folder, small_params):
    from msim_tf.audio.decode import load_clip

    embedder = Embedder(base)
    seen = []
    tracks = embedder.embed(clips_folder, progress=lambda done, total: seen.append(done))
    identifiers, embeddings = tracks.identifiers, tracks.embeddings
    again = embedder.embed(clips_folder).embeddings
    assert len(identifiers) == 12 and not tracks.failures and not tracks.notes and seen == list(range(1, 13))
    np.testing.assert_array_equal(embeddings, again)
    for identifier, vector in zip(identifiers[:3], embeddings):
        y = load_clip(clips_folder / identifier, sr=small_params.sr)
        np.testing.assert_allclose(vector, servable.run("audio", {"audio": y[None]})["embedding"][0], atol=1e-4)
    single = embedder.embed(clips_folder / identifiers[0])
    assert single.identifiers == [identifiers[0].split("/")[-1]]
    np.testing.assert_array_equal(single.embeddings[0], embeddings[0])
    embedder.close()


def test_embedding_a_store_is_that_of_its_audio_within_float16(base, store, clips_folder):
    embedder = Embedder(base)
    stored, fresh = embedder.embed(store.path), embedder.embed(clips_folder)
    assert stored.identifiers == fresh.identifiers
    stored, fresh = stored.embeddings, fresh.embeddings
    np.testing.assert_allclose(stored, fresh, atol=0.05)
    cosines = np.sum(stored * fresh, 1) / np.linalg.norm(stored, axis=1) / np.linalg.norm(fresh, axis=1)
    assert np.mean(cosines) > 0.9999
    embedder.close()


def test_a_store_of_other_features_is_refused(base, store, tmp_path):
    import shutil

    from msim_tf.data.store_database import StoreDatabase
    from msim_tf.params import FeatureParams

    shutil.copytree(store.path, tmp_path / "store")
    other = FeatureParams.from_json({**store.params.to_json(), "mel_gain": 11.0})
    with StoreDatabase(tmp_path / "store", writable=True) as database:
        database.execute("UPDATE store SET feature_params = ?, digest = ?", (json.dumps(other.to_json()), other.digest))
    with pytest.raises(InputError, match=f"{other.digest}.*{store.params.digest}"):
        Embedder(base).embed(tmp_path / "store")
