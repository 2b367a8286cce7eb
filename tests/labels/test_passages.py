"""What a teacher says of passages: the target of a segment is what was heard where it lies."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import zscore

from msim_tf.embeddings import Embeddings, save_embeddings
from msim_tf.errors import InputError
from msim_tf.labels.encoding import encode
from msim_tf.labels.passages import (
    Passages,
    is_passages,
    load_passages,
    regression_targets,
    save_passages,
    whole_tracks,
)
from msim_tf.labels.tables import Labels

TRACKS = tuple(f"{i}.ogg" for i in range(40))


@pytest.fixture
def passages(rng):
    counts = rng.integers(1, 5, len(TRACKS))
    starts = np.concatenate([np.arange(count) * 3.0 for count in counts]).astype(np.float32)
    vectors = rng.normal(2.0, 3.0, (counts.sum(), 8)).astype(np.float16)
    return Passages(TRACKS, counts, starts, vectors, 3.0, (2, 6), {"model": "t"})


def overlapped(passages, targets, track, start, end):
    """The mean over the time from ``start`` to ``end``, by looking at every hundredth of a second."""
    first = int(passages.counts[:track].sum())
    known = range(first, first + int(passages.counts[track]))
    moments = np.arange(start, end, 0.01) + 0.005
    heard = [
        targets.vectors[row].astype(float)
        for t in moments
        for row in known
        if passages.starts[row] <= t < passages.starts[row] + passages.seconds
    ]
    return np.mean(heard, axis=0)


def test_a_segment_is_what_was_heard_where_it_lies(passages, rng):
    targets = regression_targets(passages, TRACKS)
    tracks = rng.integers(len(TRACKS), size=30)
    starts = np.round(rng.uniform(0, 3.0 * passages.counts[tracks] - 0.5), 2)
    ends = starts + 3.0
    actual = targets.of(tracks, starts, ends)
    assert actual.dtype == np.float32
    for row, (track, start, end) in enumerate(zip(tracks, starts, ends)):
        np.testing.assert_allclose(actual[row], overlapped(passages, targets, track, start, end), atol=0.02)


def test_a_segment_between_passages_is_the_nearest(rng):
    sparse = Passages(("a",), np.array([2]), np.array([0.0, 20.0], np.float32), rng.normal(size=(2, 3)), 3.0, (3,))
    targets = regression_targets(sparse, ["a"])
    actual = targets.of(np.array([0, 0]), np.array([5.0, 15.0]), np.array([8.0, 18.0]))
    np.testing.assert_array_equal(actual, targets.vectors.astype(np.float32))


def test_targets_are_standardised_and_every_output_counts_the_same(rng):
    vectors = rng.normal(3, 2, (50, 8)).astype(np.float32)
    vectors[0, 4] = 1000.0
    tracks = [f"{i}.ogg" for i in range(50)]
    heard = Passages(tuple(tracks), np.ones(50, int), np.zeros(50, np.float32), vectors, math.inf, (2, 6))
    targets = regression_targets(heard, [*tracks, "unheard.ogg"]).of(np.arange(51), np.zeros(51), np.ones(51))
    np.testing.assert_allclose(targets[:50, :2], zscore(vectors[:, :2], axis=0) * np.sqrt(8 / 2 / 2), atol=4e-3)
    expected = np.clip(zscore(vectors[:, 2:], axis=0), -4, 4) * np.sqrt(8 / 2 / 6)
    np.testing.assert_allclose(targets[:50, 2:], expected, atol=4e-3)
    assert np.isnan(targets[50]).all()
    assert regression_targets(heard, ["elsewhere.ogg"]).of(np.array([0]), np.zeros(1), np.ones(1)).shape == (1, 8)


def test_whole_tracks_are_one_passage_each(rng):
    tags = Embeddings("tags", TRACKS, rng.normal(size=(40, 2)).astype(np.float32))
    wide = Embeddings("vectors", TRACKS[10:], rng.normal(size=(30, 3)).astype(np.float32))
    whole = whole_tracks([tags, wide])
    assert whole.identifiers == TRACKS[10:] and whole.widths == (2, 3)
    np.testing.assert_array_equal(whole.vectors, np.concatenate([tags.embeddings[10:], wide.embeddings], axis=1))
    targets = regression_targets(whole, TRACKS)
    early, late = (targets.of(np.arange(10, 40), np.full(30, at), np.full(30, at + 3.0)) for at in (0.0, 25.0))
    np.testing.assert_array_equal(early, late)
    assert whole_tracks([]) is None and whole_tracks([Embeddings("x", ("x",), wide.embeddings[:1]), wide]) is None


def test_targets_follow_their_tracks(passages):
    encoded = encode(Labels(), [*TRACKS, "unheard.ogg"], ["genre"], regression=passages)
    every = np.arange(41)
    all_targets = encoded.regression.of(every, np.ones(41), np.full(41, 4.0))
    some = np.array([5, 40, 0])
    taken = encoded.take(some).regression.of(np.arange(3), np.ones(3), np.full(3, 4.0))
    np.testing.assert_array_equal(taken, all_targets[some])
    assert encode(Labels(), TRACKS, ["genre"]).regression is None


def test_what_is_saved_is_loaded(passages, tmp_path):
    path = tmp_path / "p.npz"
    save_passages(path, passages)
    loaded = load_passages(path)
    for name in ("counts", "starts", "vectors"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(passages, name))
    plain = ("identifiers", "seconds", "widths", "meta")
    assert [getattr(loaded, name) for name in plain] == [getattr(passages, name) for name in plain]
    assert is_passages(path)
    some = loaded.take(["7.ogg", "elsewhere.ogg", "3.ogg"])
    assert some.identifiers == ("7.ogg", "3.ogg") and some.counts.tolist() == passages.counts[[7, 3]].tolist()
    first = int(passages.counts[:7].sum())
    np.testing.assert_array_equal(some.vectors[: some.counts[0]], passages.vectors[first : first + some.counts[0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": np.zeros(40, int)}, "at least one"),
        ({"identifiers": ("twice",) * 40}, "more than once"),
        ({"widths": (2, 5)}, "of 7 coordinates"),
        ({"seconds": 0.0}, "a length above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(passages, change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(passages, **change)


def test_what_half_floats_cannot_hold_is_refused(passages, tmp_path):
    loud = dataclasses.replace(passages, vectors=passages.vectors.astype(np.float32) * 1e6)
    with pytest.raises(InputError, match="goes beyond 65504; scale it down"):
        save_passages(tmp_path / "p.npz", loud)
    assert not list(tmp_path.iterdir())


def test_other_files_are_no_passages(tmp_path, rng, passages):
    path = tmp_path / "v.npz"
    save_embeddings(path, identifiers=["a"], embeddings=rng.normal(size=(1, 3)))
    assert not is_passages(path)
    with pytest.raises(InputError, match=r"v\.npz: array 'format_version' is missing"):
        load_passages(path)
    save_passages(path, passages)
    with np.load(path) as archive:
        arrays = dict(archive)
    del arrays["checksum"]  # as an earlier release wrote it
    np.savez(path, **(arrays | {"format_version": np.array(2)}))
    with pytest.raises(InputError, match="passages of format 2; this release reads format 1"):
        load_passages(path)
    save_passages(path, passages)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="not an npz"):
        load_passages(path)
