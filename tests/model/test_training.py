"""Training end to end on a few synthetic clips: what a run holds; a killed run ends as an uninterrupted one."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import one_device
from shared import made_once
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from msim_tf.data.store import FeatureStore
from msim_tf.data.store_database import write_labels
from msim_tf.data.teacher_files import write_teacher
from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.model import backup
from msim_tf.model.callbacks import SaveBest
from msim_tf.model.params import NETWORK_PRESETS, TRAIN_PRESETS, TrainParams
from msim_tf.model.run import kept_epoch, load_model, load_run
from msim_tf.model.tensorboard_logs import sample_tracks
from msim_tf.model.tensorboard_run import projector_labels
from msim_tf.model.training import train

pytestmark = pytest.mark.usefixtures("thin_blocks")

NETWORK = dataclasses.replace(NETWORK_PRESETS["multi384"], width=0.03, subspace_width=4)
PARAMS = TrainParams(
    network=NETWORK,
    epochs=6,
    steps_per_epoch=2,
    validation_steps=1,
    batch_size=8,
    learning_rate=1e-2,
    patience=1,
    validation=0.25,
)


# Tracing takes most of a test's time; one input is enough where the network is not the point, and three dimensions
# where the labels are not.
SINGLE = dataclasses.replace(
    PARAMS, network=dataclasses.replace(NETWORK_PRESETS["single384"], width=0.03, subspace_width=4)
)
FEW = dataclasses.replace(SINGLE, network=dataclasses.replace(SINGLE.network, dimensions=("genre", "mood", "era")))


@pytest.fixture(scope="module")
def finished(labelled_store):
    """An uninterrupted run."""
    return load_run(made_once("run", lambda path: train(labelled_store, path, PARAMS, strategy=one_device())))


def history(run_path):
    with open(run_path / "history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_presets_are_the_papers_and_survive_json():
    paper = TRAIN_PRESETS["paper"]
    assert (paper.learning_rate, paper.plateau_factor, paper.patience, paper.min_learning_rate) == (
        1e-5,
        0.2,
        10,
        1e-10,
    )
    assert (paper.margin, paper.track_weight, paper.schedule) == (0.1, 0.0, "plateau")
    assert paper.network == NETWORK_PRESETS["multi384"]
    for params in TRAIN_PRESETS.values():
        assert TrainParams.from_json(json.loads(json.dumps(params.to_json()))) == params


def test_a_run_holds_what_it_says(finished, labelled_store):
    run = load_run(finished.path)
    assert run == finished
    assert run.params == PARAMS and run.digest == labelled_store.params.digest
    groups = {name: {i.split("/")[0] for i in run.identifiers[name]} for name in ("train", "validation")}
    assert not groups["train"] & groups["validation"]
    rows = history(run.path)
    assert [row["epoch"] for row in rows] == list(range(6))
    assert run.summary["val_loss"] == min(row["val_loss"] for row in rows)
    assert not (run.path / "backup").exists()


def test_total_loss_is_the_mean_over_dimensions(finished):
    for row in history(finished.path):
        mean = np.mean([row[f"{name}_loss"] for name in DIMENSION_NAMES])
        np.testing.assert_allclose(row["loss"], mean, rtol=1e-4)


def test_the_best_model_is_saved_with_the_training_statistics(finished, labelled_store):
    model = keras.models.load_model(finished.model_path, compile=False)
    mels = [
        labelled_store.read_clip(i).mel
        for i, identifier in enumerate(labelled_store.identifiers)
        if identifier in finished.identifiers["train"]
    ]
    values = np.concatenate([mel.ravel() for mel in mels])
    zscore = model.get_layer("mel_zscore")
    np.testing.assert_allclose(np.ravel(zscore.mean), values.mean(), rtol=1e-3)
    np.testing.assert_allclose(np.ravel(zscore.variance), values.var(), rtol=1e-3)


def test_tensorboard_shows_every_dimension(finished):
    logdir = finished.path / "tensorboard"
    train_events = EventAccumulator(str(logdir / "train")).Reload()
    validation = EventAccumulator(str(logdir / "validation")).Reload()
    for name in DIMENSION_NAMES:
        for tag in (f"loss/{name}", f"active_triplets/{name}", f"valid_pairs/{name}"):
            assert len(train_events.Tensors(tag)) == 6, tag
        spread = tf.make_ndarray(validation.Tensors(f"embedding/spread_{name}")[-1].tensor_proto)
        assert 0 <= spread <= 1
    assert {"loss/total", "learning_rate"} <= set(train_events.Tags()["tensors"])
    groups = {tag.partition("/")[0] for tag in validation.Tags()["tensors"]}
    # So few tracks are held out here that no dimension has label triplets; what cannot be tested has no scalar.
    assert groups == {"loss", "active_triplets", "valid_pairs", "embedding", "evaluation"}
    assert "evaluation/matrix" in validation.Tags()["tensors"]
    assert "input/features" in train_events.Tags()["tensors"]


def test_hparams_show_the_parameters_and_the_scores_of_the_model_that_is_kept(finished):
    # HParams reads the scores from the run that has the session, so parameters and scores lie together.
    events = EventAccumulator(str(finished.path / "tensorboard")).Reload()

    def stored(tag):
        return HParamsPluginData.FromString(events.SummaryMetadata(tag).plugin_data.content)

    session = stored("_hparams_/session_start_info").session_start_info
    assert session.hparams["learning_rate"].number_value == PARAMS.learning_rate
    assert session.hparams["network_inputs"].string_value == "mel,onset,cens"
    experiment = stored("_hparams_/experiment").experiment
    assert {info.name for info in experiment.hparam_infos} == set(session.hparams)
    expected = ["final/loss", *(f"final/{name}" for name in DIMENSION_NAMES)]
    assert [info.name.tag for info in experiment.metric_infos] == expected
    (event,) = events.Tensors("final/loss")
    assert tf.make_ndarray(event.tensor_proto) == pytest.approx(finished.summary["val_loss"])


def test_the_projector_has_one_entry_per_subspace(finished, labelled_store):
    logdir = finished.path / "tensorboard"
    config = (logdir / "projector_config.pbtxt").read_text()
    metadata = (logdir / "projector" / "metadata.tsv").read_text().splitlines()
    # The vectors are those of the model that is kept, not of the last epoch.
    kept = keras.models.load_model(finished.model_path, compile=False)
    sample = sample_tracks(labelled_store, np.arange(len(labelled_store)), NETWORK.inputs)
    expected = kept.predict(sample.inputs, verbose=0)
    for name in DIMENSION_NAMES:
        assert f'tensor_path: "projector/{name}.tsv"' in config
        vectors = np.loadtxt(logdir / "projector" / f"{name}.tsv", delimiter="\t")
        np.testing.assert_allclose(vectors, expected[name], atol=2e-5)
    shown = {line.split("\t")[0]: line.split("\t")[1] for line in metadata[1:]}
    assert list(shown) == labelled_store.identifiers
    assert [name for name, split in shown.items() if split == "validation"] == finished.identifiers["validation"]


def test_the_projector_colours_by_the_tag_that_most_tracks_share_or_the_teachers(taught_store):
    tracks = taught_store.identifiers
    values = {track: {**own, "genre": ("jazz", "rock")} for track, own in taught_store.labels.values.items()}
    values[tracks[0]]["genre"] = ("jazz",)
    values[tracks[1]]["genre"] = ()  # the teacher knows this one
    taught_store.labels = dataclasses.replace(taught_store.labels, values=values)
    scores = taught_store.teacher.embeddings[:, :2]  # "rock" and "jazz"
    surest = ("rock", "jazz")[((scores - scores.mean(0)) / scores.std(0))[0].argmax()]
    expected = ["jazz", surest, *["jazz"] * (len(tracks) - 2)]
    assert projector_labels(taught_store, tracks, "genre") == expected
    tempi = [values[track].get("tempo", ("",))[0] for track in tracks]
    assert projector_labels(taught_store, tracks, "tempo") == tempi


RUN = """
import sys
sys.path[:0] = {path!r}
import keras, tensorflow as tf
import test_training
from msim_tf.data.store import FeatureStore
from msim_tf.model.training import train
from thin_network import thin_blocks

class Say(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print(epoch, flush=True)

with thin_blocks():
    train(
        FeatureStore(sys.argv[1]),
        sys.argv[2],
        test_training.PARAMS,
        strategy=tf.distribute.MirroredStrategy(["CPU:0"]),
        callbacks=[Say()],
    )
"""


def start_training(store, run_path):
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    command = [sys.executable, "-c", RUN.format(path=path), str(store.path), str(run_path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_a_killed_run_ends_as_an_uninterrupted_one(finished, labelled_store, tmp_path):
    process = start_training(labelled_store, tmp_path / "killed")
    for line in process.stdout:
        if line.strip() == "3":
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not load_run(tmp_path / "killed").summary

    resumed = train(labelled_store, tmp_path / "killed", PARAMS, strategy=one_device())
    assert [row["epoch"] for row in history(resumed.path)] == list(range(6))
    for ours, theirs in zip(history(resumed.path), history(finished.path)):
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    rate = next(name for name in history(finished.path)[0] if name in ("lr", "learning_rate"))
    assert history(finished.path)[-1][rate] < PARAMS.learning_rate  # the schedule did act
    states = [json.loads((path / "schedule.json").read_text()) for path in (resumed.path, finished.path)]
    assert states[0]["6"]["plateau"]["wait"] == states[1]["6"]["plateau"]["wait"]
    np.testing.assert_allclose(states[0]["6"]["best"]["value"], states[1]["6"]["best"]["value"], rtol=1e-4)
    models = [keras.models.load_model(path.model_path, compile=False) for path in (resumed, finished)]
    for ours, theirs in zip(*(model.get_weights() for model in models)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(keras.__version__.startswith("2."), reason="Keras 2 writes whole checkpoints")
def test_a_torn_backup_falls_back_or_starts_again(labelled_store, tmp_path, finished):
    import h5py

    folder = tmp_path / "backup"
    folder.mkdir()

    def weights(path, steps):
        with h5py.File(path, "w") as file:
            file["optimizer/vars/0"] = np.int64(steps)

    weights(folder / "latest.weights.h5", 8)
    (folder / "training_metadata.json").write_text('{"epoch": 3, "batch": 0}')  # killed before the metadata followed
    assert backup.backed_up_epochs(folder, 2) == 4
    assert json.loads((folder / "training_metadata.json").read_text())["epoch"] == 4
    weights(folder / "latest.weights.h5", 7)  # loss scaling skipped a step of the fourth epoch
    assert backup.backed_up_epochs(folder, 2) == 4
    weights(folder / "latest.weights.h5.bkp", 6)
    (folder / "latest.weights.h5").write_bytes(b"torn")
    assert backup.backed_up_epochs(folder, 2) == 3
    for name in ("latest.weights.h5", "latest.weights.h5.bkp"):
        (folder / name).write_bytes(b"torn")
    assert backup.backed_up_epochs(folder, 2) == 0
    assert not folder.exists()


@pytest.mark.skipif(keras.__version__.startswith("2."), reason="Keras 2 writes whole checkpoints")
def test_weights_torn_by_a_kill_cost_one_epoch(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    points = np.ones((2, 1), np.float32)
    model.fit(points, points, epochs=3, verbose=0, callbacks=[backup.backup_callback(tmp_path)])
    (tmp_path / "latest.weights.h5").write_bytes(b"torn")

    assert backup.backed_up_epochs(tmp_path, steps_per_epoch=1) == 2

    resumed = model.fit(points, points, epochs=3, verbose=0, callbacks=[backup.backup_callback(tmp_path)])
    assert resumed.epoch == [2]


def test_a_finished_run_is_returned_and_another_command_refused(finished, labelled_store):
    assert train(labelled_store, finished.path, PARAMS, strategy=one_device()) == finished
    with pytest.raises(InputError, match="another command.*learning_rate 0.01 -> 0.5"):
        train(labelled_store, finished.path, dataclasses.replace(PARAMS, learning_rate=0.5))


@pytest.mark.parametrize("replicas", [1, 2])
def test_trains_on_one_and_on_two_devices(labelled_store, tmp_path, replicas, two_replicas):
    params = dataclasses.replace(SINGLE, epochs=1, track_weight=0.5, fallback="skip", schedule="cosine", clip_norm=1.0)
    strategy = two_replicas if replicas == 2 else one_device()
    run = train(labelled_store, tmp_path / "run", params, strategy=strategy)
    assert np.isfinite(run.summary["val_loss"]) and run.summary["track_loss"] > 0


def test_mixed_precision_trains_and_restores_the_policy(labelled_store, tmp_path):
    run = train(
        labelled_store,
        tmp_path / "run",
        dataclasses.replace(FEW, epochs=1, mixed_precision=True),
        strategy=one_device(),
    )
    assert np.isfinite(run.summary["val_loss"])
    assert keras.layers.Dense(1).compute_dtype == "float32"


@pytest.mark.parametrize(("always", "kept"), [(False, 2.0), (True, 3.0)])
def test_the_model_of_the_best_or_of_the_last_epoch_is_kept(always, kept, tmp_path):
    losses = [float("nan"), 3.0, 1.0, 2.0]
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    saver = SaveBest(tmp_path / "kept.keras", always=always)
    saver.set_model(model)
    for epoch, loss in enumerate(losses):
        model.set_weights([np.full((1, 1), float(epoch), np.float32)])
        saver.on_epoch_end(epoch, {"val_loss": loss})
    again = keras.models.load_model(tmp_path / "kept.keras", compile=False)
    assert again.get_weights()[0].item() == kept and saver.value == 1.0

    rows = [f"{epoch},{loss},{loss}" for epoch, loss in enumerate(losses)]
    (tmp_path / "history.csv").write_text("\n".join(["epoch,loss,val_loss", *rows]))
    assert kept_epoch(tmp_path / "history.csv", "last" if always else "best")["kept_epoch"] == kept + 1


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_summary_is_of_the_epoch_that_is_kept(keep, labelled_store, tmp_path):
    params = dataclasses.replace(
        FEW, epochs=3, steps_per_epoch=2, learning_rate=0.3, keep=keep
    )  # too large: losses rise
    run = train(labelled_store, tmp_path / "run", params, strategy=one_device())
    losses = [row["val_loss"] for row in history(run.path)]
    kept = {"best": int(np.argmin(losses)), "last": 2}[keep]
    assert run.summary["kept_epoch"] == kept + 1 and run.summary["val_loss"] == pytest.approx(losses[kept])


@pytest.fixture
def taught_store(labelled_store, tmp_path, rng):
    """A copy of the labelled store whose tracks a teacher has heard, all but one."""
    path = tmp_path / "taught"
    shutil.copytree(labelled_store.path, path)
    tags = ["rock", "jazz", "sad", "happy"]
    heard = labelled_store.identifiers[1:]
    scores = Embeddings("t", tuple(heard), rng.normal(size=(len(heard), 4)), meta={"tags": tags})
    vectors = Embeddings("v", tuple(heard[2:]), rng.normal(size=(len(heard) - 2, 3)))
    for teacher in (scores, vectors):
        write_teacher(path, labelled_store.identifiers, teacher)
    return FeatureStore(path)


@pytest.mark.parametrize("replicas", [1, 2])
def test_learns_from_a_teacher_and_from_other_tempi_and_keys(taught_store, tmp_path, replicas, two_replicas):
    params = dataclasses.replace(
        SINGLE,
        epochs=10,
        steps_per_epoch=6,
        schedule="cosine",
        learning_rate=3e-3,
        objective="contrastive",
        teacher_weight=2.0,
        regression_weight=0.5,
        augment=True,
    )
    strategy = two_replicas if replicas == 2 else one_device()
    run = train(taught_store, tmp_path / "run", params, strategy=strategy)
    rows = history(run.path)
    assert rows[-1]["genre_teacher_loss"] < rows[0]["genre_teacher_loss"]
    assert rows[-1]["teacher_loss"] < rows[0]["teacher_loss"]
    assert "era_teacher_loss" not in rows[0]
    row = rows[-1]
    dimensions = params.network.dimensions
    expected = sum(row[f"{name}_loss"] for name in dimensions) / len(dimensions)
    expected += 2.0 * (row["genre_teacher_loss"] + row["mood_teacher_loss"]) / 2 + 0.5 * row["teacher_loss"]
    assert row["loss"] == pytest.approx(expected, rel=1e-3)
    model = load_model(run)
    assert set(model.output) == {*dimensions, "genre_teacher", "mood_teacher", "teacher"}
    assert model.output["teacher"].shape == (None, 7)  # four tags and a vector of three


def test_a_small_corpus_is_learned(labelled_store, tmp_path, inception_blocks):
    params = dataclasses.replace(FEW, epochs=15, steps_per_epoch=4, schedule="cosine", learning_rate=3e-3)
    run = train(labelled_store, tmp_path / "run", params, strategy=one_device())
    rows = history(run.path)
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]


def test_a_dimension_nobody_labels_is_an_error_unless_allowed(labelled_store, tmp_path, store):
    shutil.copytree(store.path, tmp_path / "store")
    labels = labelled_store.labels.to_json()
    for known in labels["values"].values():
        known.pop("era", None)
    write_labels(tmp_path / "store", labelled_store.labels.from_json(labels))
    partly = FeatureStore(tmp_path / "store")
    with pytest.raises(InputError, match="no track has a label in era"):
        train(partly, tmp_path / "run", PARAMS)
    params = dataclasses.replace(FEW, epochs=1)
    run = train(partly, tmp_path / "run", params, allow_unlabelled=True, strategy=one_device())
    assert run.summary["era_valid_pairs"] == 0 and run.summary["era_loss"] == 0


def test_too_few_tracks_are_refused(labelled_store, tmp_path, monkeypatch):
    groups = dict.fromkeys(labelled_store.identifiers, "many") | {labelled_store.identifiers[0]: "alone"}
    monkeypatch.setattr(labelled_store, "labels", dataclasses.replace(labelled_store.labels, groups=groups))
    with pytest.raises(InputError, match="1 tracks for validation, expected at least 2"):
        train(labelled_store, tmp_path / "run", PARAMS)
