"""What an exported model says of music: the signature, descriptions of tracks, the command."""

import csv
import io
import json

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from synthetic import write_clip
from tiny_model import WORDS, describing_model_path, tiny_model_path

from msim_tf.cli import cli
from msim_tf.errors import InputError
from msim_tf.export.description import joined_classes, joined_words, track_description
from msim_tf.export.embedder import Embedder
from msim_tf.export.metadata import load_metadata
from msim_tf.export.model import Model
from msim_tf.export.servable import Servable
from msim_tf.theory import TEMPO_STEPS, key_name

CLASSES = {
    "genre": ["rock", "jazz"],
    "instrument": ["piano", "speech", "noise"],
    "tempo": TEMPO_STEPS.tolist(),
    "key": [key_name(key) for key in range(24)],
}


def probabilities(*, genre=(0.9, 0.2), instrument=(0.7, 0.01, 0.02), bpm=92.0, key=21):
    tempo = np.where(np.abs(np.log2(TEMPO_STEPS / bpm)) < 0.02, 0.4, 1e-9)
    keys = np.full(24, 0.01)
    keys[key] = 0.77
    values = {"genre": genre, "instrument": instrument, "tempo": tempo / tempo.sum(), "key": keys}
    return {name: np.array([value], np.float32) for name, value in values.items()}


def test_a_description_states_what_is_likely():
    said = track_description(probabilities(), CLASSES)
    assert said.musical and said.stated("genre") == ["rock"] and list(said.words["genre"]) == ["rock", "jazz"]
    assert said.bpm == pytest.approx(92, rel=0.02) and said.key_name == "A minor"
    assert str(said) == f"rock; piano; {said.bpm:.0f} bpm; A minor"
    assert said.metadata() == {
        "genre": ["rock"],
        "instrument": ["piano"],
        "tempo": round(said.bpm, 1),
        "key": "A minor",
    }


def test_speech_and_noise_are_nothing_musical_and_have_no_tempo_or_key():
    said = track_description(probabilities(instrument=(0.7, 0.9, 0.02)), CLASSES)
    assert not said.musical and said.bpm is None and said.key_name is None
    assert str(said) == "nothing musical (speech)" and said.metadata() == {"instrument": ["speech"]}


def test_an_uncertain_track_is_said_to_be_uncertain():
    flat = probabilities(genre=(0.4, 0.3), instrument=(0.1, 0.1, 0.1))
    flat["tempo"][:] = 1 / len(TEMPO_STEPS)
    flat["key"][:] = 1 / 24
    assert str(track_description(flat, CLASSES)) == "nothing is likely"


def test_segments_join_as_the_mean_of_their_logits(rng):
    logits = rng.normal(0, 2, (7, 5))
    sigmoid = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(joined_words(sigmoid), 1 / (1 + np.exp(-logits.mean(0))), rtol=1e-6)
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    mean = np.exp(logits.mean(0))
    np.testing.assert_allclose(joined_classes(softmax), mean / mean.sum(), rtol=1e-6)
    assert np.isfinite(joined_words(np.array([[0.0, 1.0]]))).all() and np.isfinite(joined_classes(np.eye(3))).all()


def test_the_signature_gives_what_the_track_signature_averages(rng):
    metadata = load_metadata(describing_model_path())
    assert metadata.classes["mood"] == list(WORDS["mood"]) and metadata.classes["key"][21] == "A minor"
    with Servable.load(metadata.directory) as servable:
        assert set(servable.signatures) >= {"serving_default", "describe", "audio", "genre", "key"}
        shapes = metadata.features.input_shapes
        inputs = {name: rng.random((3, *shapes[name])).astype(np.float32) for name in metadata.inputs}
        segments = servable.run("describe", inputs)
        np.testing.assert_array_equal(segments["embedding"], servable.run("serving_default", inputs)["embedding"])
        for name, classes in metadata.classes.items():
            assert segments[name + "_probabilities"].shape == (3, len(classes))
        assert segments["tempo_candidates"].shape == (3, 3)
        # A waveform: the signature's description is that of its segments, joined outside.
        audio = rng.normal(0, 0.1, 3 * metadata.features.segment_samples).astype(np.float32)
        whole = servable.run("audio", {"audio": audio[None]})
    embedder = Embedder(describing_model_path())
    try:
        features = embedder.extract_waveform(audio)
        vector, said = embedder.hear(features)
        np.testing.assert_allclose(vector, whole["embedding"][0], atol=1e-4)
        np.testing.assert_array_equal(vector, embedder.embed_features(features))
    finally:
        embedder.close()
    track = {name: whole[name + "_probabilities"] for name in metadata.classes}
    for name, words in track_description(track, metadata.classes).words.items():
        assert said.words[name] == pytest.approx(words, abs=1e-3)
    assert said.key[0][0] == metadata.classes["key"][int(whole["key_probabilities"][0].argmax())]
    assert said.tempo[0][0] == pytest.approx(float(whole["tempo_candidates"][0, 0]), rel=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("described")
    for number in range(2):
        write_clip(folder / "music" / f"{number}.wav", 4, number)
    soundfile.write(folder / "music" / "short.wav", np.zeros(100) + 0.1, 8000)
    return folder / "music"


def run(*arguments):
    return CliRunner().invoke(cli, ["describe", *map(str, arguments), "--model", str(describing_model_path())])


def test_the_command_describes_a_folder_and_lists_what_it_cannot(folder):
    result = run(folder, "--format", "json", "--quiet")
    described = json.loads(result.stdout)
    assert [entry["track"] for entry in described] == ["0.wav", "1.wav"] and result.exit_code == 1
    assert set(described[0]["words"]) == set(WORDS) and len(described[0]["tempo"]) == 3
    assert "left out: short.wav" in result.stderr
    rows = list(csv.DictReader(io.StringIO(run(folder, "--format", "csv").stdout)))
    assert [row["track"] for row in rows] == ["0.wav", "1.wav"]
    for row, entry in zip(rows, described):
        likely = [word for word, p in entry["words"]["mood"].items() if p >= 0.5]
        assert row["musical"] == str(entry["musical"])
        assert not entry["musical"] or row["mood"] == ";".join(likely)
    assert run(folder).stdout.startswith("0.wav: ")


def test_the_command_shows_one_file_at_length(folder):
    result = run(folder / "0.wav")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("0.wav: ") and [line.split()[0] for line in lines[1:]] == [*WORDS, "tempo", "key"]


def test_a_model_without_words_is_one_line(folder):
    result = CliRunner().invoke(cli, ["describe", str(folder), "--model", str(tiny_model_path())])
    assert isinstance(result.exception, InputError) and "has no words for it" in str(result.exception)
    with Model(tiny_model_path()) as model, pytest.raises(InputError, match="no words"):
        model.describe(folder / "0.wav")


def test_python_describes_files_waveforms_and_lists(folder):
    with Model(describing_model_path()) as model:
        said = model.describe(folder / "0.wav")
        samples, sr = soundfile.read(folder / "0.wav", dtype="float32")
        assert model.describe(samples, sr=sr).words == said.words
        assert [str(one) for one in model.describe([folder / "0.wav", folder / "1.wav"])][0] == str(said)


def test_a_damaged_list_of_classes_is_one_line(tmp_path):
    import shutil

    from msim_tf.checksums import load_checked_json, save_checked_json
    from msim_tf.export.metadata import METADATA_FILE

    copy = tmp_path / "1"
    shutil.copytree(load_metadata(describing_model_path()).directory, copy)
    value = load_checked_json(copy / METADATA_FILE, "a description", cure="export it again")
    for damaged in ([], {"classes": [1]}, {"classes": {"mood": 3}}, "x", {"classes": {"nothing": ["a"]}}):
        save_checked_json(copy / METADATA_FILE, {**value, "description": damaged})
        with pytest.raises(InputError, match=r"msim\.json"):
            load_metadata(copy)
