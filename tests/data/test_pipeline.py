"""Batches are what they say: sampled, related by the labels, read from the store, the same under the same seed."""

import numpy as np
import pytest

from msim_tf.data.batch_sampler import BatchParams, BatchSampler
from msim_tf.data.pipeline import Share, StorePart, make_dataset
from msim_tf.dimensions import DIMENSION_NAMES, TRACK
from msim_tf.errors import InputError
from msim_tf.labels.encoding import encode
from msim_tf.labels.passages import Passages
from msim_tf.labels.tables import Labels

INPUTS = ("mel", "onset", "cens")


def sparse_labels(identifiers):
    """Few labels per dimension, so that random batches would hardly hold a pair."""
    values = {identifier: {} for identifier in identifiers}
    for i, identifier in enumerate(identifiers):
        if i in (0, 5):
            values[identifier]["genre"] = ("rock",)
        if i in (1, 2, 7):
            values[identifier]["mood"] = ("sad", "calm") if i == 2 else ("calm",)
        if i in (3, 4):
            values[identifier]["instrument"] = ("guitar",)
        if i in (8, 9):
            values[identifier]["era"] = ("80s",)
        if i in (0, 9, 10):
            values[identifier]["tempo"] = ({0: "60", 9: "124", 10: "93"}[i],)
        if i in (6, 11, 2):
            values[identifier]["key"] = ({6: "C major", 11: "C minor", 2: "D major"}[i],)
    return Labels(values)


@pytest.fixture
def labels(store):
    return encode(sparse_labels(store.identifiers), store.identifiers, DIMENSION_NAMES)


def sampler_of(labels, store, **params):
    return BatchSampler(labels, store.frames, store.params.segment_frames, BatchParams(**params))


def members(sampler, step):
    batch = sampler.batch(step)
    return np.stack([batch.clips, batch.starts[:, 0]])


def test_every_batch_has_a_positive_in_every_dimension_that_has_one(labels, store):
    sampler = sampler_of(labels, store, batch_size=16)
    for step in range(30):
        for name, relation in sampler.relations(sampler.batch(step)).items():
            assert (relation > 0).any(), (name, step)


def test_relations_are_those_of_the_labels_inside_each_block(labels, store):
    sampler = sampler_of(labels, store, batch_size=8, replicas=3, key_relation="both")
    clips = sampler.batch(4).clips
    relations = sampler.relations(sampler.batch(4))
    for name, targets in relations.items():
        assert targets.shape == (24, 8) and targets.dtype == np.int8
        for i in range(24):
            for j in range(8):
                other = 8 * (i // 8) + j
                pair = labels.relation(name, [clips[i]], [clips[other]], key_relation="both")[0, 0]
                assert targets[i, j] == (0 if other == i else pair)


def test_starts_are_inside_the_clip_and_fixed_ones_on_the_grid(labels, store):
    length = store.params.segment_frames
    for random_crops in (True, False):
        sampler = sampler_of(labels, store, batch_size=16, random_crops=random_crops)
        starts = np.concatenate([sampler.batch(step).starts[:, 0] for step in range(50)])
        clips = np.concatenate([sampler.batch(step).clips for step in range(50)])
        assert starts.min() == 0 and (starts + length <= store.frames[clips]).all()
        assert (starts % length == 0).all() != random_crops


def test_a_batch_depends_on_seed_and_step_only(labels, store):
    first, again = sampler_of(labels, store, seed=3), sampler_of(labels, store, seed=3)
    again.batch(0)
    np.testing.assert_array_equal(members(first, 5), members(again, 5))
    assert not np.array_equal(members(first, 5), members(first, 6))
    assert not np.array_equal(members(first, 5), members(sampler_of(labels, store, seed=4), 5))


def test_track_pairs_relate_crops_of_one_clip(labels, store):
    sampler = sampler_of(labels, store, batch_size=16, track_pairs=True)
    clips = sampler.batch(0).clips
    relation = sampler.relations(sampler.batch(0))[TRACK]
    np.testing.assert_array_equal(relation > 0, (clips[:, None] == clips) & ~np.eye(16, dtype=bool))
    assert (relation > 0).any()


def test_datasets_deliver_what_was_sampled(labels, store):
    sampler = sampler_of(labels, store, batch_size=8, replicas=2)
    chosen = np.arange(len(store))
    batches = list(make_dataset(StorePart(store, chosen, sampler), INPUTS, first=3, last=6))
    assert len(batches) == 3
    for step, (inputs, targets) in zip(range(3, 6), batches):
        batch = sampler.batch(step)
        expected = store.read_segments(batch.clips, batch.starts[:, 0])
        assert tuple(inputs) == INPUTS
        for name in INPUTS:
            np.testing.assert_array_equal(inputs[name], expected[name])
        for name, relation in sampler.relations(batch).items():
            np.testing.assert_array_equal(targets[name], relation)


def test_segments_are_taught_what_was_heard_where_they_lie(store):
    """By a teacher that tells, ten times a second, which track it hears and when."""
    frame = store.params.hop_length / store.params.sr
    counts = np.ceil(10 * store.frames * frame).astype(int)
    starts = np.concatenate([np.arange(count) / 10 for count in counts]).astype(np.float32)
    vectors = np.stack([np.repeat(np.arange(len(store)), counts), starts + 0.05], axis=1)
    passages = Passages(tuple(store.identifiers), counts, starts, vectors, 0.1, (1, 1))
    taught = encode(sparse_labels(store.identifiers), store.identifiers, DIMENSION_NAMES, regression=passages)
    sampler = sampler_of(taught, store, batch_size=16, augment=True)
    stretched = 0
    for step, (_, targets) in enumerate(
        make_dataset(StorePart(store, np.arange(len(store)), sampler), INPUTS, first=0, last=20)
    ):
        batch = sampler.batch(step)
        track, when = (targets["teacher"].numpy() * vectors.std(axis=0) + vectors.mean(axis=0)).T
        np.testing.assert_allclose(track, batch.clips, atol=0.02)
        middle = frame * (batch.starts[:, 0] + store.params.segment_frames * batch.stretch / 2)
        np.testing.assert_allclose(when, middle, atol=0.06)
        stretched += (np.abs(batch.stretch - 1) > 0.1).sum()
    assert stretched > 40


def test_each_replica_gets_its_own_block(labels, store, two_replicas):
    strategy = two_replicas
    sampler = sampler_of(labels, store, batch_size=8, replicas=2)
    dataset = make_dataset(StorePart(store, np.arange(len(store)), sampler), INPUTS, first=0, last=1)
    inputs, targets = next(iter(strategy.experimental_distribute_dataset(dataset)))
    whole_inputs, whole_targets = next(iter(dataset))
    for replica in range(2):
        rows = slice(8 * replica, 8 * replica + 8)
        np.testing.assert_array_equal(
            strategy.experimental_local_results(inputs["mel"])[replica], whole_inputs["mel"][rows]
        )
        block = strategy.experimental_local_results(targets["genre"])[replica]
        np.testing.assert_array_equal(block, whole_targets["genre"][rows])
        assert block.shape == (8, 8)


@pytest.mark.parametrize(("replicas", "hosts"), [(2, 2), (4, 2), (3, 1)])
def test_hosts_read_the_blocks_of_their_own_replicas(labels, store, replicas, hosts):
    sampler = sampler_of(labels, store, batch_size=8, replicas=replicas)
    split = StorePart(store, np.arange(len(store)), sampler)
    whole = list(make_dataset(split, ("mel",), first=2, last=4))
    shares = [list(make_dataset(split, ("mel",), first=2, last=4, share=Share(host, hosts))) for host in range(hosts)]
    local = replicas // hosts
    assert [len(share) for share in shares] == [2 * local] * hosts
    for step, (inputs, targets) in enumerate(whole):
        blocks = [share[step * local + turn] for share in shares for turn in range(local)]
        np.testing.assert_array_equal(np.concatenate([block["mel"] for block, _ in blocks]), inputs["mel"])
        for name, relation in targets.items():
            np.testing.assert_array_equal(np.concatenate([block[name] for _, block in blocks]), relation)


def test_where_nobody_is_similar_any_clips_make_a_batch(store):
    # A third of an octave from one to the next; nobody knows the others' tempo.
    bpm = dict(zip(store.identifiers, ("60", "75.6", "95.2")))
    alone = encode(Labels({name: {"tempo": (tempo,)} for name, tempo in bpm.items()}), store.identifiers, ("tempo",))
    sampler = sampler_of(alone, store, batch_size=8)
    drawn = [sampler.batch(step) for step in range(40)]
    assert {len(batch.clips) for batch in drawn} == {8}
    assert not any(
        (sampler.relations(batch)["tempo"] > 0)[batch.clips[:, None] != batch.clips].any() for batch in drawn
    )
    counts = np.bincount(np.concatenate([batch.clips for batch in drawn]), minlength=len(store))
    assert (np.abs(counts - 320 / len(store)) < 5 * np.sqrt(320 / len(store))).all()


def test_too_small_batches_and_splits_are_refused(labels, store):
    with pytest.raises(InputError, match="batch size 2"):
        BatchParams(batch_size=2)
    with pytest.raises(InputError, match="1 tracks"):
        sampler_of(labels.take(np.array([0])), _only_first(store))


def _only_first(store):
    class One:
        frames, params = store.frames[:1], store.params

    return One
