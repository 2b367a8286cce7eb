"""Studies on a store of synthetic clips: clips cut by hand, Table 1 interrupted and continued, a report recomputed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from devices import one_device
from synthetic import SMALL, write_clip

from msim_tf.data.store import FeatureStore
from msim_tf.data.store_database import StoreDatabase, write_labels
from msim_tf.data.writer import extract_folder
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings, load_embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.studies.clips import StoredParts, clip_starts, embed_triplets
from msim_tf.evaluate.studies.store_report import ReportOptions, store_report
from msim_tf.evaluate.studies.table1 import Table1Options, run_table1, table1_networks
from msim_tf.evaluate.studies.tracks import baselines, labelled_tracks, sampled, stored_mels
from msim_tf.evaluate.triplets import Clip, Triplets, clip_reading
from msim_tf.features.segments import audible_segments
from msim_tf.labels.annotations import Annotation, AnnotationRecord, save_records
from msim_tf.model.params import NETWORK_PRESETS, TrainParams
from msim_tf.model.run import load_run

pytestmark = pytest.mark.usefixtures("thin_blocks")

# Two networks with one input and few outputs: tracing them takes most of the time.
RECIPE = TrainParams(
    epochs=2, steps_per_epoch=2, validation_steps=1, batch_size=8, learning_rate=1e-2, validation=0.5, seed=3
)
NETWORKS = {
    "baseline": dataclasses.replace(NETWORK_PRESETS["baseline"], dimensions=("genre", "mood"), subspace_width=4),
    "single384": dataclasses.replace(
        NETWORK_PRESETS["single384"], dimensions=("genre", "tempo", "key"), subspace_width=4
    ),
}


def listeners(members, **more) -> Triplets:
    anchor, positive, negative = zip(*members)
    ids = tuple(f"q{row}" for row in range(len(members)))
    return Triplets("fixture", ids, anchor, positive, negative, np.full(len(members), np.nan), **more)


@pytest.fixture(scope="module")
def options() -> Table1Options:
    return Table1Options(table1_networks(RECIPE, NETWORKS, width=0.03), per_kind=30)


@pytest.mark.parametrize(
    "clip, expected",
    [
        (Clip("a", "a"), [0, 64, 128]),  # three whole segments of 64 frames in 200
        (Clip("a@0", "a", 0.0, 1.024), [0]),
        (Clip("a@1", "a", 1.0, 1.024), [62]),  # frame 62.5 at 62.5 frames a second
        (Clip("a@1", "a", 1.0, 2.1), [62, 126]),
        (Clip("a@2.2", "a", 2.2, 1.024), [136]),  # 137.5 would end at 201.5: within a quarter second
        (Clip("a@1", "a", 1.0, 0.5), [62]),  # a clip shorter than a segment is one segment all the same
    ],
)
def test_where_the_segments_of_a_clip_begin(clip, expected):
    assert clip_starts(clip, 200, SMALL).tolist() == expected


def test_a_clip_beyond_its_track_is_refused():
    with pytest.raises(InputError, match="ends at 3.2 s, before its clip of 1.024 s from 2.6 s on does"):
        clip_starts(Clip("a", "a", 2.6, 1.024), 200, SMALL)
    with pytest.raises(InputError, match="before its clip"):
        clip_starts(Clip("a", "a", 0.0, 1.024), 50, SMALL)
    with pytest.raises(InputError, match="shorter than one segment"):
        clip_starts(Clip("a", "a"), 50, SMALL)


class MeanFrame:
    """Stands for a model whose embedding is the mean over the mel's time, so that segments can be checked by hand."""

    def __init__(self):
        from msim_tf.features.extractor import Extractor
        from msim_tf.features.from_file import features_or_reason

        self.metadata = SimpleNamespace(features=SMALL)
        extractor = Extractor(SMALL)
        self.extract = lambda path: features_or_reason(path, extractor, pad=False)

    def embed_segments(self, features, starts):
        return np.mean([features.mel[:, start : start + 64].mean(axis=1) for start in starts], axis=0)


def test_triplets_are_embedded_from_whole_tracks_and_what_is_missing_is_listed(tmp_path):
    for seed, name in enumerate(("a", "b", "c")):
        write_clip(tmp_path / "music" / f"{name}.wav", 4, seed)
    (tmp_path / "music" / "broken.wav").write_bytes(b"no sound")
    starts = np.array([[0.0, 1.0, 2.0], [1.5, 0.0, 3.9], [0.0, 0.0, 0.0]])
    triplets = listeners([("a", "b", "c"), ("a", "lost", "b"), ("c", "broken", "a")], starts=starts, clip_seconds=1.024)
    embedder = MeanFrame()
    names, vectors, failures = embed_triplets(embedder, triplets, tmp_path / "music")
    assert sorted(names) == ["a", "b", "c"] and failures["lost"] == "no audio" and "audio" in failures["broken"]

    seen = []
    names, vectors, failures = embed_triplets(
        embedder, clip_reading(triplets), tmp_path / "music", progress=lambda done, total: seen.append((done, total))
    )
    assert set(names) == {"a@0", "b@1", "c@2", "a@1.5", "c@0"} and seen[-1] == (4, 4)
    assert set(failures) == {"lost@0", "b@3.9", "broken@0"} and "ends at" in failures["b@3.9"]
    whole = embedder.extract(tmp_path / "music" / "a.wav")
    expected = whole.mel[:, 94:158].mean(axis=1)  # 1.5 s are 93.75 frames
    np.testing.assert_allclose(vectors[names.index("a@1.5")], expected, rtol=1e-6)
    with pytest.raises(InputError, match="nothing that fixture needs could be embedded; x: no audio"):
        embed_triplets(embedder, listeners([("x", "y", "z")]), tmp_path / "music")


def silent_middle(path):
    """4 s of a synthetic clip with digital silence from 1 s to 2.1 s."""
    write_clip(path, 4, 0)
    y, sr = soundfile.read(path)
    y[sr : round(2.1 * sr)] = 0.0
    soundfile.write(path, y, sr)


def test_silent_segments_stay_out_of_tracks_and_clips(tmp_path):
    for name in "abc":
        silent_middle(tmp_path / "music" / f"{name}.wav")
    embedder = MeanFrame()
    whole = embedder.extract(tmp_path / "music" / "a.wav")
    # Segments of 64 frames at 62.5 a second: the second one is silent.
    audible = audible_segments(whole, SMALL)
    assert 64 not in audible and 0 in audible

    names, vectors, _ = embed_triplets(embedder, listeners([("a", "b", "c")]), tmp_path / "music")
    np.testing.assert_allclose(vectors[names.index("a")], embedder.embed_segments(whole, audible), rtol=1e-6)

    clips = listeners([("a", "b", "c")], starts=np.zeros((1, 3)), clip_seconds=2.1)
    names, vectors, _ = embed_triplets(embedder, clip_reading(clips), tmp_path / "music")
    np.testing.assert_allclose(vectors[names.index("a@0")], whole.mel[:, :64].mean(axis=1), rtol=1e-6)

    # And so from a store.
    extract_folder(tmp_path / "music", tmp_path / "store", SMALL)
    store = FeatureStore(tmp_path / "store")
    stored = {clip.identifier: starts.tolist() for clip, _, starts in StoredParts(store, clip_reading(clips))}
    assert stored == {"a@0": [0], "b@0": [0], "c@0": [0]}
    mels = list(StoredParts(store, clip_reading(clips)).mels())
    assert {mel.shape for mel in mels} == {(SMALL.n_mels, 128)}  # statistics see what listeners heard, silence too


def test_labels_of_tracks_become_relations(labelled_store):
    chosen = labelled_store.identifiers[2:11]
    tracks = labelled_tracks(labelled_store, chosen)
    values = [labelled_store.labels.values[name] for name in chosen]
    for row, first in enumerate(values):
        for column, second in enumerate(values):
            known = "mood" in first and "mood" in second
            same = known and first["mood"] == second["mood"]
            assert tracks.relations["mood"][row, column] == (0 if not known else 1 if same else -1)
    assert tracks.tempo == tuple(float(known["tempo"][0]) if "tempo" in known else None for known in values)
    assert tracks.tempo.count(None) == 1
    assert tracks.groups == tuple((name.split("/")[0],) for name in chosen)
    assert tracks.unlabelled == ()


def test_a_sample_of_tracks_keeps_their_order():
    names = [f"{row:03d}" for row in range(100)]
    drawn = sampled(names, 7, seed=1)
    assert len(set(drawn)) == 7 and list(drawn) == sorted(drawn) and sampled(names, 100) == tuple(names)


def test_baselines_are_standardised_by_the_reference(labelled_store):
    names, training = labelled_store.identifiers[:4], labelled_store.identifiers[4:]
    mels = [labelled_store.read_clip(row).mel for row in range(len(labelled_store))]
    mfcc, projection = baselines(
        names, stored_mels(labelled_store, names), size=9, reference=stored_mels(labelled_store, training)
    )
    assert projection.embeddings.shape == (4, 9) and mfcc.embeddings.shape == (4, 80)
    from scipy.fft import dct

    first = np.array([dct(mel.astype(float), axis=0, norm="ortho")[0].mean() for mel in mels])
    expected = (first[:4] - first[4:].mean()) / first[4:].std()
    np.testing.assert_allclose(mfcc.embeddings[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_store_gives_the_clips_of_triplets(labelled_store):
    a, b, c = (name.removesuffix(".wav") for name in labelled_store.identifiers[:3])
    stems = [name.rsplit("/", 1)[1] for name in (a, b, c)]
    starts = np.array([[0.5, 0.0, 0.25], [0.0, 99.0, 0.0]])
    triplets = clip_reading(
        listeners([(stems[0], stems[1], stems[2]), (stems[0], stems[1], "lost")], starts=starts, clip_seconds=1.024)
    )
    parts = StoredParts(labelled_store, triplets)
    assert set(parts.identifiers) == {f"{stems[0]}@0.5", f"{stems[1]}@0", f"{stems[2]}@0.25", f"{stems[0]}@0"}
    assert len(parts) == 4 and set(parts.failures) == {f"{stems[1]}@99", "lost@0"}
    cut = dict(zip(parts.identifiers, parts.mels()))
    whole = labelled_store.read_clip(0).mel
    np.testing.assert_array_equal(cut[f"{stems[0]}@0.5"], whole[:, 31:95])  # 31.25 frames
    with pytest.raises(InputError, match="has none of the tracks of fixture"):
        StoredParts(labelled_store, listeners([("x", "y", "z")]))


def test_networks_differ_only_in_the_network():
    recipe = dataclasses.replace(RECIPE, describe_steps=300)  # no table scores heads that describe
    made = table1_networks(recipe, NETWORK_PRESETS, width=0.5, time_averaged_heads=True)
    assert {name: params.network.time_averaged_heads for name, params in made.items()} == {
        "baseline": False,
        "multi4": True,
        "single258": False,
        "single384": False,
        "multi384": True,
    }
    for name, params in made.items():
        assert dataclasses.replace(params, network=RECIPE.network) == RECIPE
        assert dataclasses.replace(params.network, width=1.0, time_averaged_heads=False) == NETWORK_PRESETS[name]
    assert not any(params.network.time_averaged_heads for params in table1_networks(RECIPE, NETWORK_PRESETS).values())


class Interrupted:
    """Records progress and stops the second training as Ctrl-C would, when its first epoch is done."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, what, done, total):
        self.calls.append((what, done, total))
        if (what, done) == self.stop_at:
            raise KeyboardInterrupt

    @property
    def stages(self):
        return list(dict.fromkeys(what for what, _, _ in self.calls))


@pytest.fixture(scope="module")
def study(labelled_store, options, tmp_path_factory):
    """Table 1, interrupted in its second training, continued, and asked for once more; and what each call did."""
    out = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(5)
    other = Embeddings("other", tuple(labelled_store.identifiers), rng.normal(size=(12, 5)).astype(np.float32))

    def call(progress):
        return run_table1(labelled_store, out, options, externals=[other], strategy=one_device(), progress=progress)

    first, second, third = Interrupted(("train single384", 1)), Interrupted(), Interrupted()
    with pytest.raises(KeyboardInterrupt):
        call(first)
    left = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    table = call(second)
    again = call(third)
    return SimpleNamespace(out=out, table=table, again=again, left=left, other=other, calls=(first, second, third))


def test_an_interrupted_study_continues_where_it_stopped(study):
    first, second, third = study.calls
    assert first.stages == ["train baseline", "embed baseline", "train single384"]
    assert "embeddings/baseline.npz" in study.left and "runs/baseline/summary.json" in study.left
    assert "runs/single384/summary.json" not in study.left and "table1.md" not in study.left
    assert second.stages == ["train single384", "embed single384"]
    assert [call for call in second.calls if call[0] == "train single384"] == [
        ("train single384", 1, 2),
        ("train single384", 2, 2),
    ]
    assert third.calls == [] and study.again == study.table
    seconds = json.loads((study.out / "seconds" / "single384.json").read_text())
    assert set(seconds) == {"0", "1"}
    row = json.loads((study.out / "table1.json").read_text())["rows"][1]
    assert row["training s"] == pytest.approx(sum(seconds.values()))


def test_table1_holds_the_scores_of_its_vectors_on_held_out_label_triplets(study, labelled_store):
    rows = {row[0]: dict(zip(study.table.columns, row)) for row in study.table.rows}
    assert list(rows) == ["baseline", "single384", "MFCC statistics", "random projection", "other"]
    held_out = load_run(study.out / "runs" / "baseline").identifiers["validation"]
    assert load_run(study.out / "runs" / "single384").identifiers["validation"] == held_out
    systems = {name: load_embeddings(study.out / "embeddings" / f"{name}.npz") for name in ("baseline", "single384")}
    assert all(set(system.identifiers) <= set(held_out) for system in systems.values())
    assert systems["baseline"].layout.names == ("genre", "mood")
    tracks = labelled_tracks(labelled_store, held_out)
    from msim_tf.evaluate.label_triplets import label_triplets

    triplets = label_triplets(held_out, tracks.relations, groups=tracks.groups, per_kind=30, seed=RECIPE.seed)
    for name, system in {**systems, "other": study.other}.items():
        vectors = dict(zip(system.identifiers, system.embeddings.astype(float)))
        correct = sum(
            np.linalg.norm(vectors[a] - vectors[p]) < np.linalg.norm(vectors[a] - vectors[n])
            for a, p, n in zip(triplets.anchor, triplets.positive, triplets.negative)
        )
        assert (rows[name]["correct"], rows[name]["N"]) == (correct, len(triplets))
    assert (rows["single384"]["dimensions"], rows["single384"]["inputs"], rows["single384"]["size"]) == (3, "mel", 12)
    text = (study.out / "table1.md").read_text()
    assert "not human similarity" in text and "Given as files: other" in text and "0.8169" not in text


def test_vectors_are_those_of_the_saved_model(study, labelled_store):
    import keras

    run = load_run(study.out / "runs" / "single384")
    model = keras.models.load_model(run.model_path, compile=False)
    actual = load_embeddings(study.out / "embeddings" / "single384.npz")
    assert actual.meta["parameters"] == sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    row = labelled_store.identifiers.index(actual.identifiers[0])
    mel = labelled_store.read_clip(row).mel
    segments = np.stack([mel[:, first : first + 64] for first in range(0, mel.shape[1] - 63, 64)])
    parts = model.predict({"mel": segments}, verbose=0)
    expected = np.concatenate([np.asarray(parts[name]) for name in run.params.network.dimensions], axis=1).mean(axis=0)
    np.testing.assert_allclose(actual.embeddings[0], expected, rtol=1e-4, atol=1e-5)


def test_vectors_are_made_anew_when_other_sound_was_extracted(study, options, labelled_store, clips_folder, tmp_path):
    # The same tracks, as long as before, with other tones in them.
    for name in labelled_store.identifiers:
        seconds = soundfile.info(clips_folder / name).duration
        write_clip(tmp_path / "music" / name, seconds, 100 + labelled_store.identifiers.index(name))
    extract_folder(tmp_path / "music", tmp_path / "store", SMALL)
    write_labels(tmp_path / "store", labelled_store.labels)
    shutil.copytree(study.out, tmp_path / "study")
    progress = Interrupted()
    run_table1(FeatureStore(tmp_path / "store"), tmp_path / "study", options, strategy=one_device(), progress=progress)
    assert progress.stages == ["embed baseline", "embed single384"]
    before, now = (load_embeddings(out / "embeddings" / "baseline.npz") for out in (study.out, tmp_path / "study"))
    assert now.identifiers == before.identifiers and not np.allclose(now.embeddings, before.embeddings)


def test_sound_that_was_extracted_again_is_the_same(labelled_store, clips_folder, tmp_path):
    extract_folder(clips_folder, tmp_path / "again", SMALL)
    stems = [name.rsplit("/", 1)[1].removesuffix(".wav") for name in labelled_store.identifiers[:4]]
    triplets, fewer = listeners([tuple(stems[:3]), tuple(stems[1:])]), listeners([tuple(stems[:3])])
    digest = StoredParts(labelled_store, triplets).digest
    assert StoredParts(FeatureStore(tmp_path / "again"), triplets).digest == digest
    assert StoredParts(labelled_store, fewer).digest != digest


@pytest.mark.parametrize(
    "change, more, message",
    [
        ({"baseline": "best"}, {}, "baseline 'best' is not among the systems baseline, single384"),
        ({}, {"externals": ["baseline"]}, "two systems are called 'baseline'"),
        ({}, {"triplets": [("x", "y", "z")]}, "has none of the tracks of fixture"),
        ({"networks": {}}, {}, "no network to train"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(labelled_store, options, tmp_path, change, more, message):
    more = dict(more)
    if "externals" in more:
        vectors = np.ones((12, 2), np.float32)
        more["externals"] = [Embeddings(name, tuple(labelled_store.identifiers), vectors) for name in more["externals"]]
    if "triplets" in more:
        more["triplets"] = listeners(more["triplets"])
    with pytest.raises(InputError, match=message):
        run_table1(labelled_store, tmp_path / "study", dataclasses.replace(options, **change), **more)
    assert not (tmp_path / "study").exists()


def test_networks_of_different_splits_are_refused(options):
    networks = dict(options.networks)
    networks["single384"] = dataclasses.replace(networks["single384"], seed=4)
    with pytest.raises(InputError, match="differ in seed"):
        dataclasses.replace(options, networks=networks)


def test_held_out_tracks_of_one_artist_say_what_to_do(labelled_store, options, tmp_path):
    networks = {name: dataclasses.replace(params, validation=0.2) for name, params in options.networks.items()}
    with pytest.raises(InputError, match="held-out tracks: no triplet can be formed.*hold out more by --validation"):
        run_table1(labelled_store, tmp_path, dataclasses.replace(options, networks=networks))


@pytest.fixture
def subject(labelled_store, rng) -> Embeddings:
    """Vectors whose genre subspace knows the genre; one track too many, file names without suffix."""
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 12)
    vectors = rng.normal(size=(13, 12)).astype(np.float32)
    for row, name in enumerate(labelled_store.identifiers):
        genre = labelled_store.labels.values[name].get("genre", ("?",))[0]
        vectors[row, :2] = {"rock": (1, 0.1), "jazz": (0.1, 1), "?": (1, 1)}[genre]
    names = (*(name.rsplit("/", 1)[1].removesuffix(".wav") for name in labelled_store.identifiers), "elsewhere")
    return Embeddings("demo", names, vectors, layout, {"model": "demo", "version": "1"})


def test_a_report_of_a_store(labelled_store, subject, clips_folder, tmp_path):
    audio = {name: clips_folder / name for name in labelled_store.identifiers}
    report, page = store_report(labelled_store, [subject], tmp_path / "report", ReportOptions(k=3), audio=audio)
    actual = json.loads((tmp_path / "report" / "report.json").read_text())
    own = {cell["kind"]: cell["accuracy"] for cell in actual["disentanglement"]["cells"] if cell["subspace"] == "genre"}
    assert own["genre"] == 1.0 and actual["disentanglement"]["artist_filter"]
    assert [system["name"] for system in actual["systems"]] == ["demo", "MFCC statistics", "random projection"]
    assert {(item["subspace"], item["kind"]) for item in actual["retrieval"]} <= {
        *((name, name) for name in DIMENSION_NAMES),
        *(("all", name) for name in DIMENSION_NAMES),
    }
    assert actual["facts"]["Tracks"] == "12 of features, all that have a vector"
    assert any("1 of the 13 vectors" in note for note in actual["notes"])
    assert any("may include those the model was trained on" in note for note in actual["notes"])
    text = page.read_text()
    assert "not human similarity" in text and "listeners" not in text and "paper, N" not in text
    assert "madmom" not in text  # nothing here was annotated
    links = [failure["anchor"]["href"] for failure in actual["worst_triplets"]]
    assert links and all((page.parent / link).resolve().exists() for link in links)


def test_a_report_of_held_out_tracks_and_listeners(labelled_store, subject, tmp_path):
    held_out = labelled_store.identifiers[:6]
    split = {"train": labelled_store.identifiers[6:], "validation": held_out}
    names = subject.identifiers
    triplets = listeners([(names[0], names[2], names[12]), (names[1], names[3], names[4])])
    shutil.copytree(labelled_store.path, tmp_path / "features")
    estimate = AnnotationRecord(held_out[0], 1, 1, 120.0, Annotation(120.0, 0.5, "A minor", 0.5))
    with StoreDatabase(tmp_path / "features", writable=True) as database:
        save_records(database, [estimate])
    annotated = FeatureStore(tmp_path / "features")
    report, _ = store_report(annotated, [subject], tmp_path / "out", ReportOptions(k=2), triplets=triplets, split=split)
    assert report.facts["Tracks"] == "6 of features, held out"
    # "elsewhere" has a vector but no features in the store: the triplet counts, the baselines step back.
    assert [(result.name, len(result.correct)) for result in report.results] == [("demo", 2)]
    assert report.matrix.anchors.max() <= 6
    assert any("Only held-out tracks" in note for note in report.notes)
    assert any("estimates by madmom" in note for note in report.notes)


@pytest.mark.parametrize(
    "identifiers, split, message",
    [
        (("x", "y", "z"), None, "demo: has vectors of 0 of the 12 tracks.*msim embed"),
        (None, {"train": [], "validation": ["nowhere.wav"]}, "has no track nowhere.wav, which the split names"),
    ],
)
def test_reports_of_nothing_are_refused(labelled_store, subject, tmp_path, identifiers, split, message):
    if identifiers:
        subject = Embeddings("demo", identifiers, subject.embeddings[:3], subject.layout)
    with pytest.raises(InputError, match=message):
        store_report(labelled_store, [subject], tmp_path, ReportOptions(), split=split)
