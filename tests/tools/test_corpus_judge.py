"""The corpus's ledger, its judge and its baselines: against what was put in, hand arithmetic and least squares."""

import csv
import json

import numpy as np
import pytest
import soundfile
from scipy.linalg import lstsq

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.labels.encoding import encode, read_labels_csv
from msim_tf.labels.tables import Labels
from tools.corpus import baselines, judge
from tools.corpus.ledger import SR, CorpusClip, Ledger


def clip(name, **changes):
    labels = {"genre": ("jazz",), "tempo": ("120",), "key": ("A minor",)}
    values = {
        "clip": f"train/renders/swing/{name}.flac",
        "source": "a-soundfont",
        "version": "1",
        "origin": "swing",
        "start_seconds": 1.5,
        "artist": "",
        "title": 'A, "B"',
        "licence": "MIT",
        "sha256": "00",
        "group": "swing",
        "labels": labels,
        "labels_from": dict.fromkeys(labels, "exact"),
    }
    return CorpusClip(**{**values, **changes})


def test_a_ledger_keeps_what_was_added_and_drops_a_torn_line(tmp_path, rng):
    y = rng.uniform(-2, 2, SR)
    with Ledger(tmp_path, "renders") as ledger:
        ledger.add(clip("a"), y)
        ledger.add(clip("b", clip="test/renders/waltz/b.flac", group="waltz"), y)
        ledger.write_tables()
    with open(tmp_path / "renders.jsonl", "a") as file:
        file.write(json.dumps({"clip": "train/renders/swing/torn"})[:-5])
    again = Ledger(tmp_path, "renders")
    assert again.clips == ledger.clips and "train/renders/swing/a.flac" in again
    heard, sr = soundfile.read(tmp_path / "train/renders/swing/a.flac")
    np.testing.assert_allclose(heard, y / np.abs(y).max(), atol=1e-4)
    assert sr == SR
    labels = read_labels_csv(tmp_path / "renders-labels-train.csv")
    assert labels.values == {
        "renders/swing/a.flac": {name: clip("a").labels[name] for name in ("genre", "tempo", "key")}
    }
    assert labels.groups == {"renders/swing/a.flac": "swing"}
    with open(tmp_path / "renders-manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["clip"] for row in rows] == ["test/renders/waltz/b.flac", "train/renders/swing/a.flac"]
    assert rows[1]["title"] == 'A, "B"' and rows[1]["labels_from"] == "genre: exact; tempo: exact; key: exact"
    (tmp_path / "train/renders/swing/a.flac").unlink()
    assert "train/renders/swing/a.flac" not in again


def test_clips_that_belong_to_no_part_are_refused():
    with pytest.raises(InputError, match="expected train or test"):
        clip("a", clip="elsewhere/renders/a.flac")


@pytest.fixture
def system(rng):
    """Twelve tracks whose tempo subspace is their tempo's angle and whose other subspaces are noise."""
    names = tuple(f"{'games' if i < 6 else 'renders'}/{'abc'[i % 3]}/{i}.flac" for i in range(12))
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 12)
    vectors = rng.normal(size=(12, 12))
    angles = np.repeat([0.0, 1.0, 2.0, 3.0, 0.0, 1.0], 2)
    vectors[:, layout.slices["tempo"]] = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Embeddings("known", names, vectors.astype(np.float32), layout)


def test_each_kind_is_judged_on_its_own_clips(system, rng):
    teacher = Embeddings("t", system.identifiers, rng.normal(size=(12, 3)), meta={"tags": ["rock", "jazz", "blues"]})
    values = {name: {"tempo": (f"{60 + 20 * (i // 2 % 4)}",)} for i, name in enumerate(system.identifiers) if i >= 6}
    encoded = encode(Labels(values), system.identifiers, DIMENSION_NAMES, teacher=teacher)
    relations = judge.judged_relations(encoded)
    assert set(relations) == {"genre", "tempo"}
    assert not relations["genre"][6:].any() and not relations["genre"][:, 6:].any()
    assert not relations["tempo"][:6].any() and not np.diag(relations["tempo"]).any()


def test_the_looser_filter_leaves_out_the_recording_only(tmp_path, system):
    parts = [
        clip(name, clip=f"test/games/pkg/{name}.flac", source="pkg", origin=origin)
        for name, origin in (("a0", "a.ogg"), ("a30", "a.ogg"), ("b0", "b.ogg"))
    ]
    with Ledger(tmp_path, "games") as ledger:
        for part in parts:
            ledger.add(part, np.zeros(100, np.float32))
    first, second, other, foreign = judge.recordings(tmp_path, [*(part.track for part in parts), "renders/x.flac"])
    assert first == second != other and foreign == "renders/x.flac"
    genre = np.ones((2, 2))
    assert judge.with_same_package({"genre": genre, "tempo": genre}) == {"genre (same package)": genre}


def test_triplets_of_stretched_clips_by_hand(system):
    names = system.identifiers
    # 0 and 1 are equal in tempo; 2 and 3 differ from them.
    right, wrong, tie = (names[0], names[1], names[2]), (names[0], names[3], names[1]), (names[0], names[2], names[2])
    cell = judge.triplet_cell(system, "tempo", [right, right, right, wrong])
    assert cell["accuracy"] == 0.75 and cell["low"] <= 0.75 <= cell["high"] and cell["anchors"] == 4
    assert judge.triplet_cell(system, "tempo", [right, tie])["accuracy"] == 0.5


def test_ridge_is_least_squares_with_a_penalty(rng):
    x, y = rng.normal(size=(40, 7)), rng.normal(size=(40, 3))
    augmented = np.concatenate([x, np.sqrt(5.0) * np.eye(7)]), np.concatenate([y, np.zeros((7, 3))])
    np.testing.assert_allclose(baselines.ridge(x, y, 5.0), lstsq(*augmented)[0], atol=1e-10)
    # Noise alone is best explained by nothing.
    train, held_out = np.arange(30), np.arange(30, 40)
    assert baselines.chosen_penalty(x, y, train, held_out) == max(baselines._PENALTIES)


def test_statistics_of_a_store_have_one_row_per_track(store):
    mfcc, every = baselines.track_statistics(store)
    assert mfcc.shape == (len(store), 80) and len(every) == len(store) and np.isfinite(every).all()
    chroma = store.read_clip(3).cens.mean(axis=1)
    np.testing.assert_allclose(every[3, -len(chroma) :], chroma, rtol=1e-6)
