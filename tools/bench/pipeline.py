"""The input pipeline: composed, gathered and batched segments per second, against TFRecords of full
tempograms, and what training waits for it.

The peers hold what a pipeline without our store would: mel, tempogram and CENS as float32 in a TFRecord file,
parsed and batched in parallel by ``tf.data``, already in the page cache. *Clips* holds whole clips and cuts a
segment from anywhere in each that it reads, which is what our batches are made of; *segments* has cut them before,
so nothing else is ever heard, and is faster for it. Neither draws pairs or knows relations, so both do less. All
are consumed inside TensorFlow, as ``fit`` does.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tools.bench import clips, frame
from tools.bench.training_step import compiled_network

_BATCH = 64
_RECORDED = 360  # segments in the peer's file, at least: 96 MB, which stay in the page cache
_RECORDED_CLIPS = 36  # clips in the other's, at most: 97 MB of half a minute each


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    import numpy as np

    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    from msim_tf.data.batch_sampler import BatchParams, BatchSampler
    from msim_tf.data.pipeline import StorePart, make_dataset
    from msim_tf.performance import ReusedMemory

    store, labels = _labelled_store(options)
    every = np.arange(len(store))
    sampler = BatchSampler(labels, store.frames, store.params.segment_frames, BatchParams(batch_size=_BATCH))
    record, segments = _write_records(store, Path(options.scratch) / "segments.tfrecord")
    whole = _write_clips(store, Path(options.scratch) / "clips.tfrecord")
    steps, few, rounds = (400, 48, 3) if options.quick else (1000, 200, 5)
    names = tuple(store.params.input_shapes)
    dataset = make_dataset(StorePart(store, every, sampler), names, first=0, last=steps)
    cut = _cut_records(whole, store.params, few)
    records = _records(record, store.params, segments, few, tuned=False)
    tuned = _records(record, store.params, segments, few, tuned=True)
    batches = [sampler.batch(step) for step in range(steps)]
    memory = ReusedMemory()
    # Each round iterates anew over a finite dataset: nothing has been prefetched before, nothing runs on afterwards.
    seconds = frame.measure(
        {
            "composed": lambda: [sampler.batch(step) for step in range(steps)],
            "related": lambda: [sampler.relations(batch) for batch in batches],
            "gathered": lambda: [
                store.read_segments(batch.clips, batch.starts[:, 0], memory=memory) for batch in batches
            ],
            "clips": lambda: _consumed(cut),
            "records": lambda: _consumed(records),
            "tuned": lambda: _consumed(tuned),
            "batched": lambda: _consumed(dataset),
        },
        rounds,
    )
    frames, parameters = int(store.frames.sum()), store.params
    stored = sum(path.stat().st_size for path in store.path.rglob("*.f16"))
    shards = len({clip.shard for clip in store.clips})
    hours = frames / parameters.frame_rate / 3600
    compact = stored / hours
    full = record.stat().st_size / (segments * parameters.segment_seconds / 3600)
    return [
        frame.rate("composed", seconds["composed"], steps * _BATCH, "seg/s", note="pairs drawn, one thread"),
        frame.rate(
            "related", seconds["related"], steps * _BATCH, "seg/s", note="relations of six dimensions, one thread"
        ),
        frame.rate(
            "gathered",
            seconds["gathered"],
            steps * _BATCH,
            "seg/s",
            note=f"read from {shards} shard{'s' * (shards > 1)}, one thread",
            bar=20_000,
        ),
        frame.rate(
            "batched", seconds["batched"], steps * _BATCH, "seg/s", note="all of it, as training sees it", bar=20_000
        ),
        frame.rate("TFRecord, clips", seconds["clips"], few * _BATCH, "seg/s", note="one segment of each that is read"),
        frame.rate(
            "TFRecord, segments", seconds["records"], few * _BATCH, "seg/s", note="each example parsed, then batched"
        ),
        frame.rate(
            "TFRecord, segments at once", seconds["tuned"], few * _BATCH, "seg/s", note="batched, then parsed at once"
        ),
        frame.ratio("batched / TFRecord, clips", seconds["clips"], seconds["batched"], scale=steps / few, bar=40),
        frame.ratio("batched / TFRecord, segments", seconds["records"], seconds["batched"], scale=steps / few, bar=40),
        frame.ratio(
            "batched / TFRecord, segments at once", seconds["tuned"], seconds["batched"], scale=steps / few, bar=40
        ),
        frame.spread("store", [compact / 2**20], unit="MB/hour"),
        frame.spread("TFRecord / store", [full / compact], note="bytes per hour of music"),
        *_waiting(make_dataset(StorePart(store, every, sampler), names, first=0, last=10**9), options),
    ]


def _labelled_store(options: frame.Options) -> tuple[Any, Any]:
    """The store that was named, or one of real excerpts with labels drawn at random in all dimensions."""
    import numpy as np

    from msim_tf.data.store import FeatureStore
    from msim_tf.data.writer import extract_folder
    from msim_tf.dimensions import DIMENSION_NAMES
    from msim_tf.labels.encoding import Labels, encode
    from msim_tf.labels.tables import canonical_label
    from msim_tf.params import FEATURE_PRESETS

    if options.store:
        store = FeatureStore(options.store)
        return store, encode(store.labels, store.identifiers, DIMENSION_NAMES)
    music, path = Path(options.scratch) / "music", Path(options.scratch) / "store"
    music.mkdir()
    for file in clips.sound_files(options.music, 12 if options.quick else 36):
        (music / file.name).symlink_to(file.resolve())
    extract_folder(music, path, FEATURE_PRESETS["paper"])
    store, rng = FeatureStore(path), np.random.default_rng(0)
    values: dict[str, dict[str, tuple[str, ...]]] = {
        identifier: {name: (canonical_label(name, _label(name, rng)),) for name in DIMENSION_NAMES}
        for identifier in store.identifiers
    }
    return store, encode(Labels(values), store.identifiers, DIMENSION_NAMES)


def _label(name: str, rng: Any) -> str:
    if name == "tempo":
        return f"{rng.uniform(60, 180):.1f}"
    return (
        rng.choice(["A minor", "C major", "G major"]) if name == "key" else rng.choice(["rock", "pop", "jazz", "folk"])
    )


def _consumed(dataset: Any) -> int:
    """How many elements there were."""
    return int(dataset.reduce(0, lambda count, *_: count + 1))


def _write_records(store: Any, path: Path) -> tuple[Path, int]:
    """Whole segments of the first clips as float32 tf.train.Examples; returns the file and how many."""
    import numpy as np
    import tensorflow as tf

    from msim_tf.features.tempogram import tempogram

    length, written = store.params.segment_frames, 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for clip, frames in enumerate(store.frames):
            if written >= _RECORDED:
                break
            starts = np.arange(frames // length) * length
            segments = store.read_segments(np.full(len(starts), clip), starts)
            onset = tf.cast(segments.pop("onset"), tf.float32)
            segments["tempogram"] = tempogram(onset, lags=store.params.tempogram_lags).numpy()
            for row in range(len(starts)):
                writer.write(_example({name: value[row] for name, value in segments.items()}))
                written += 1
    return path, written


def _write_clips(store: Any, path: Path) -> Path:
    """The first clips as float32 tf.train.Examples."""
    import tensorflow as tf

    from msim_tf.features.tempogram import tempogram

    with tf.io.TFRecordWriter(str(path)) as writer:
        for clip in range(min(len(store), _RECORDED_CLIPS)):
            features = store.read_clip(clip)
            whole = tempogram(tf.constant(features.onset[:-1]), lags=store.params.tempogram_lags).numpy()
            writer.write(_example({"mel": features.mel, "tempogram": whole, "cens": features.cens}))
    return path


def _example(values: dict[str, Any]) -> bytes:
    import numpy as np
    import tensorflow as tf

    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[np.ascontiguousarray(value, np.float32).tobytes()]))
        for name, value in values.items()
    }
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
    return serialized


def _rows(params: Any) -> dict[str, int]:
    return {"mel": params.n_mels, "tempogram": params.tempogram_lags, "cens": params.n_chroma}


def _parsed(serialized: Any, shapes: dict[str, list[int]]) -> dict[str, Any]:
    import tensorflow as tf

    parsed = tf.io.parse_example(serialized, {name: tf.io.FixedLenFeature([], tf.string) for name in shapes})
    return {name: tf.reshape(tf.io.decode_raw(parsed[name], tf.float32), shape) for name, shape in shapes.items()}


def _records(path: Path, params: Any, segments: int, steps: int, *, tuned: bool) -> Any:
    """The peer: ``steps`` batches, shuffled, prefetched; parsed in parallel, each example as the
    guide does it, or (tuned) a batch at once.
    """
    import tensorflow as tf

    lead = [-1] if tuned else []
    shapes = {name: [*lead, rows, params.segment_frames] for name, rows in _rows(params).items()}

    def parse(serialized: Any) -> dict[str, Any]:
        return _parsed(serialized, shapes)

    records = tf.data.TFRecordDataset(str(path)).shuffle(min(segments, 1000)).repeat()
    if tuned:
        batches = records.batch(_BATCH).take(steps).map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        batches = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(_BATCH).take(steps)
    return batches.prefetch(tf.data.AUTOTUNE)


def _cut_records(path: Path, params: Any, steps: int) -> Any:
    """The peer that holds clips: a segment from anywhere in each clip that is read, shuffled,
    parsed in parallel, batched, prefetched.
    """
    import tensorflow as tf

    shapes = {name: [rows, -1] for name, rows in _rows(params).items()}
    length = params.segment_frames

    def parse(serialized: Any) -> dict[str, Any]:
        clip = _parsed(serialized, shapes)
        start = tf.random.uniform([], 0, tf.shape(clip["mel"])[1] - length + 1, tf.int32)
        return {
            name: tf.ensure_shape(value[:, start : start + length], [shapes[name][0], length])
            for name, value in clip.items()
        }

    records = tf.data.TFRecordDataset(str(path)).shuffle(_RECORDED_CLIPS).repeat()
    batches = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(_BATCH).take(steps)
    return batches.prefetch(tf.data.AUTOTUNE)


def _waiting(dataset: Any, options: frame.Options) -> list[frame.Figure]:
    """Share of the time of training steps that the next batch was waited for, and fed steps
    against steps on one batch kept in memory.
    """
    width = 0.25
    model, steps = compiled_network(width), 2 if options.quick else 10
    batches = iter(dataset)
    kept = next(batches)
    shares = []

    def fed() -> None:
        waited, begun = 0.0, time.perf_counter()
        for _ in range(steps):
            before = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - before
            model.train_on_batch(*batch)
        shares.append(waited / (time.perf_counter() - begun))

    def alone() -> None:
        for _ in range(steps):
            model.train_on_batch(*kept)

    seconds = frame.measure({"fed": fed, "alone": alone}, 2 if options.quick else 5)
    waited = [100 * share for share in shares[1:]]
    return [
        frame.spread(
            "training waits for data", waited, unit="%", bar=1, at_most=True, note=f"width {width}, batch {_BATCH}"
        ),
        frame.ratio(
            "step fed / step alone",
            seconds["fed"],
            seconds["alone"],
            note="the floor: 1; the pipeline shares the cores",
        ),
    ]
