"""Flipped bits and cut-off files: told in one line, or without effect; never a traceback, never another answer."""

import shutil

import numpy as np
import pytest
from synthetic import some_labels
from test_writer import make_shards, some_features

from msim_tf.data import joining, writer
from msim_tf.data.shards import ARRAYS, array_path
from msim_tf.data.store import FeatureStore, check_store
from msim_tf.data.store_database import StoreDatabase, write_labels
from msim_tf.data.teacher_files import write_passages, write_teacher
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.labels.passages import Passages

CASES = 240


@pytest.fixture(scope="module")
def whole(small_params, tmp_path_factory):
    """A store with everything that one can hold: two shards, labels, a teacher's scores, vectors and passages."""
    path = tmp_path_factory.mktemp("whole") / "store"
    rng = np.random.default_rng(5)
    make_shards(path, small_params, [3, 3], rng)
    size = joining.CLIPS_PER_JOINED_SHARD
    joining.CLIPS_PER_JOINED_SHARD = 3  # so that they are not joined
    try:
        writer.finish(path)
    finally:
        joining.CLIPS_PER_JOINED_SHARD = size
    names = FeatureStore(path).identifiers
    write_labels(path, some_labels(names))
    scores, vectors = rng.normal(size=(6, 2)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    write_teacher(path, names, Embeddings("scores", tuple(names), scores, meta={"tags": ["rock", "sad"]}))
    write_teacher(path, names, Embeddings("vectors", tuple(names), vectors))
    starts, size = np.arange(6, dtype=np.float32), (3,)
    write_passages(path, names, Passages(tuple(names), np.ones(6, np.int64), starts, vectors, 3.0, size))
    assert check_store(path) == []
    return path


def everything(path):
    """All that readers of a store see."""
    store = FeatureStore(path)
    clips = [store.read_clip(index) for index in range(len(store))]
    segments = store.read_segments(np.arange(len(store)), np.zeros(len(store), int))
    teacher, passages = store.teacher, store.passages
    assert teacher is not None and passages is not None
    return (
        store.params,
        store.identifiers,
        [getattr(clip, name).tobytes() for clip in clips for name in ARRAYS],
        {name: value.tobytes() for name, value in segments.items()},
        store.labels,
        (teacher.identifiers, teacher.embeddings.tobytes(), teacher.meta),
        (
            passages.identifiers,
            passages.vectors.tobytes(),
            passages.starts.tobytes(),
            passages.seconds,
            passages.widths,
        ),
    )


def damage(path, rng):
    """Flips a bit, or cuts the end off; says what it did."""
    data = bytearray(path.read_bytes())
    position = int(rng.integers(len(data)))
    if rng.random() < 0.2:
        path.write_bytes(data[:position])
        return f"{path.name} cut at {position}"
    bit = int(rng.integers(8))
    data[position] ^= 1 << bit
    path.write_bytes(data)
    return f"{path.name} byte {position} bit {bit}"


def test_damage_anywhere_is_told_or_without_effect(whole, tmp_path, rng):
    expected, refused, copy = everything(whole), 0, tmp_path / "store"
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file() and path.stat().st_size]
    assert len(names) == 12  # the database, two descriptions, six arrays, three files of teachers
    for case in range(CASES):
        shutil.copytree(whole, copy)
        what = damage(copy / names[case % len(names)], rng)
        problems = check_store(copy)
        assert all(line.startswith(str(copy)) and "\n" not in line for line in problems), what
        try:
            actual = everything(copy)
        except InputError as error:
            refused += 1
            assert str(error).startswith(str(copy)) and "\n" not in str(error), what
            assert problems, f"{what}: refused by a reader, passed by check_store: {error}"
        else:
            assert actual == expected, what
        shutil.rmtree(copy)
    assert refused > CASES / 2


def test_a_damaged_block_is_refused_when_it_is_first_read_and_only_then(small_params, tmp_path, rng):
    frames = 3000  # of 128 bytes of mel: six blocks
    with StoreDatabase(tmp_path, small_params) as database:
        database.execute(
            "INSERT INTO clips (identifier, size, modified, padded, status, shard)"
            " VALUES ('a.wav', 1, 2, 0, 'pending', 0)"
        )
    shard_writer = writer.ShardWriter(tmp_path, 0, small_params)
    shard_writer.add(writer.ShardClip("a.wav", 1, 2), some_features(small_params, rng, frames))
    shard = shard_writer.publish()
    shard_writer.close()
    writer.finish(tmp_path)
    path = array_path(tmp_path, shard.stem, "mel")
    data = bytearray(path.read_bytes())
    data[3 * 65536 + 5] ^= 1  # in the fourth block: frames 1536 to 2047
    path.write_bytes(data)
    store = FeatureStore(tmp_path)
    for start in (0, 1536 - small_params.segment_frames, 2048):
        store.read_segments([0], [start])
    for start, stretch in ((1536 - small_params.segment_frames + 1, 1.0), (1600, 0.8), (1600, 1.3), (2047, 1.0)):
        with pytest.raises(InputError, match=r"mel\.f16: damaged at byte 196608 or after; remove the store"):
            store.read_segments([0], [start], np.array([stretch]))
    store.read_segments([0], [1600], names=("cens", "onset"))
    with pytest.raises(InputError, match=r"mel\.f16: damaged"):
        store.read_clip(0)


def test_every_number_that_a_stretched_segment_reads_is_verified(store, rng):
    """Blocks are verified exactly where reads go: compared with the bounds of what interpolation touches."""
    params = store.params
    asked = {}

    class Recorder:
        def __init__(self, name):
            self.name = name

        def verify(self, shards, first, stop):
            asked[self.name] = first, stop

    blocks, store._blocks = store._blocks, {name: Recorder(name) for name in ARRAYS}
    try:
        for stretch in (0.75, 0.9, 1.0, 1.1, 1.35):
            clips = rng.integers(0, len(store), 20)
            spanned = int(np.ceil((params.segment_frames - 1) * stretch)) + 1
            starts = rng.integers(0, store.frames[clips] - spanned + 1)
            store.read_segments(clips, starts, np.full(20, stretch))
            half = params.tempogram_lags // 2
            positions = starts[:, None] + half + (np.arange(params.segment_onsets) - half) * stretch
            positions = np.clip(positions, 0, store.frames[clips][:, None] + 2 * half - 1)
            first, stop = (bound - store._onset_row[clips] for bound in asked["onset"])
            assert (first <= np.floor(positions.min(1))).all() and (stop > np.ceil(positions.max(1))).all()
            assert (stop <= store.frames[clips] + params.tempogram_lags).all()
            first, stop = (bound - store._row[clips] for bound in asked["mel"])
            assert (first == starts).all() and (stop >= starts + spanned).all()
    finally:
        store._blocks = blocks
