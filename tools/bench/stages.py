"""The stages whose scaling is measured: each makes its simulated tracks, runs the real code over
them, and returns the seconds that count.

Every function runs in a process of its own and imports what it needs itself.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import shutil
import time
from pathlib import Path
from typing import Any

_DISTINCT = 32
_SECONDS = 4
_PER_FOLDER = 1000
_QUERIES = 24
_STEPS = 2


def memory() -> tuple[int, int]:
    """Most bytes that this process has had, pages mapped from files included, and those that are its own now."""
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak, own_bytes()


def own_bytes() -> int:
    """Bytes of this process that are not mapped from files, and so cannot be dropped and read again.

    Raises:
        RuntimeError: where /proc does not tell.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status does not tell RssAnon: memory is measured on Linux only")


def load_tensorflow(*_: Any) -> None:
    """Imports it and everything that extraction needs, and lets the kernels warm up."""
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    import numpy as np

    from msim_tf.data.writer import extract_folder  # noqa: F401
    from msim_tf.features.extractor import Extractor
    from msim_tf.params import FEATURE_PRESETS

    Extractor(FEATURE_PRESETS["paper"])([np.zeros(22050 * _SECONDS, np.float32)])


def make_sources(music: str, folder: str) -> None:
    """What is linked many times, in ``folder``: ``clips``, short sound files, and ``store``,
    one full shard of the real excerpts.
    """
    load_tensorflow()
    import soundfile

    from msim_tf.audio.decode import load_clip
    from msim_tf.data.extraction_plan import CLIPS_PER_SHARD
    from msim_tf.data.writer import extract_folder
    from msim_tf.params import FEATURE_PRESETS
    from tools.bench.clips import sound_files

    params, root = FEATURE_PRESETS["paper"], Path(folder)
    (root / "clips").mkdir(parents=True)
    (root / "music").mkdir()
    paths = sound_files(music, _DISTINCT)
    for number in range(CLIPS_PER_SHARD):
        path = paths[number % len(paths)].resolve()
        (root / "music" / f"{number:02d}{path.suffix}").symlink_to(path)
    for number, path in enumerate(paths):
        y = load_clip(path, sr=params.sr)[: _SECONDS * params.sr]
        soundfile.write(root / "clips" / f"{number:02d}.wav", y, params.sr)
    extract_folder(root / "music", root / "store", params)


def _links(source: Path, folder: Path, count: int) -> None:
    """``count`` names for the files of ``source``."""
    paths = sorted(source.iterdir())
    for number in range(count):
        parent = folder / f"{number // _PER_FOLDER:04d}"
        parent.mkdir(parents=True, exist_ok=True)
        os.link(paths[number % len(paths)], parent / f"{number:06d}.wav")


def extract(source: str, folder: str, count: int) -> float:
    """``msim extract`` of ``count`` clips of four seconds into a new store."""
    from msim_tf.data.writer import extract_folder
    from msim_tf.params import FEATURE_PRESETS

    music, store = Path(folder) / "music", Path(folder) / "store"
    if not music.exists():
        _links(Path(source) / "clips", music, count)
    begun = time.perf_counter()
    done = extract_folder(music, store, FEATURE_PRESETS["paper"])
    seconds = time.perf_counter() - begun
    if done.failures or done.clips != count:
        raise RuntimeError(f"{done.clips} clips, {len(done.failures)} failed, expected {count}")
    shutil.rmtree(store)
    return seconds


def make_store(source: str, store: str, count: int) -> None:
    """A store of ``count`` labelled tracks, ten of an artist: its shards are links to the one of ``source``."""
    import numpy as np

    from msim_tf.data.shards import ARRAYS, array_path, load_shard
    from msim_tf.data.store_database import OK, StoreDatabase
    from msim_tf.labels.tables import Labels, canonical_label

    rng, origin = np.random.default_rng(0), Path(source) / "store"
    with StoreDatabase(origin) as database:
        params, ((number, shard),) = database.params, database.shards().items()
    clips = load_shard(origin, number).clips
    Path(store, "shards").mkdir(parents=True)
    identifiers = [f"{position:07d}.ogg" for position in range(count)]
    with StoreDatabase(store, params) as database, database.transaction():
        for copy in range(-(-count // len(clips))):
            linked = dataclasses.replace(shard, number=copy, stem=f"{copy:05d}{shard.stem[-9:]}")
            for name in ARRAYS:
                os.link(array_path(origin, shard.stem, name), array_path(store, linked.stem, name))
            database.add_shard(linked)
        database.executemany(
            "INSERT INTO clips VALUES (?, 0, 0, 0, ?, '', '', ?, ?, ?, ?)",
            (
                (name, OK, position // len(clips), clip.frames, clip.row, clip.onset_row)
                for position, name in enumerate(identifiers)
                for clip in (clips[position % len(clips)],)
            ),
        )
    tags = {name: [f"{name} {number}" for number in range(12)] for name in ("genre", "mood", "instrument", "era")}
    tags["key"] = [f"{tonic} {mode}" for tonic in "CDEFGAB" for mode in ("major", "minor")]
    values = {
        identifier: {
            **{name: (canonical_label(name, str(rng.choice(known))),) for name, known in tags.items()},
            "tempo": (canonical_label("tempo", f"{rng.uniform(60, 180):.1f}"),),
        }
        for identifier in identifiers
    }
    groups = {identifier: f"artist {position // 10}" for position, identifier in enumerate(identifiers)}
    with StoreDatabase(store, writable=True) as database:
        database.write_labels(Labels(values, groups))


_prepared: dict[str, Any] = {}


def prepare(source: str, store: str, count: int) -> float:
    """Opens a store, encodes its labels, splits it and gets ready to compose batches, as training does."""
    load_tensorflow()
    from msim_tf.data.batch_sampler import BatchParams, BatchSampler
    from msim_tf.data.store import FeatureStore
    from msim_tf.dimensions import DIMENSION_NAMES
    from msim_tf.labels.encoding import encode, split_by_group

    begun = time.perf_counter()
    opened = FeatureStore(store)
    labels = encode(opened.labels, opened.identifiers, DIMENSION_NAMES)
    clips = split_by_group(opened.identifiers, opened.labels.groups)["train"]
    sampler = BatchSampler(labels.take(clips), opened.frames[clips], opened.params.segment_frames, BatchParams())
    seconds = time.perf_counter() - begun
    _prepared[store] = opened, clips, sampler
    return seconds


def epoch(source: str, store: str, count: int) -> float:
    """All batches of an epoch, as many as hear each segment about once, as training gets them; without the network."""
    from msim_tf.data.pipeline import StorePart, make_dataset

    opened, clips, sampler = _prepared[store]
    params = opened.params
    steps = int((opened.frames[clips] // params.segment_frames).sum()) // sampler.params.batch_size
    begun = time.perf_counter()
    seen = sum(
        1 for _ in make_dataset(StorePart(opened, clips, sampler), tuple(params.input_shapes), first=0, last=steps)
    )
    if seen != steps:
        raise RuntimeError(f"{seen} batches, expected {steps}")
    return time.perf_counter() - begun


def train(source: str, store: str, count: int) -> float:
    """``msim train`` with a tiny network, from its start until the first step, and
    then a few steps and an evaluation.
    """
    load_tensorflow()
    import keras

    from msim_tf.data.store import FeatureStore
    from msim_tf.model.params import NETWORK_PRESETS, TRAIN_PRESETS
    from msim_tf.model.training import train as real_train

    class Clock(keras.callbacks.Callback):
        first = 0.0

        def on_train_begin(self, logs: Any = None) -> None:
            self.first = time.perf_counter()

    network = dataclasses.replace(NETWORK_PRESETS["multi384"], width=0.0625)
    params = dataclasses.replace(
        TRAIN_PRESETS["small"], network=network, epochs=1, steps_per_epoch=_STEPS, validation_steps=_STEPS
    )
    clock, begun = Clock(), time.perf_counter()
    real_train(FeatureStore(store), Path(store) / "run", params, callbacks=[clock])
    return clock.first - begun


def index(folder: str, count: int, embeddings: str) -> float:
    """An index that grows batch by batch, each saved, as ``msim index`` makes it; the
    embedding itself is not counted.
    """
    import numpy as np

    from msim_tf.embeddings import Embeddings
    from msim_tf.library.update_options import BATCH
    from msim_tf.search.index import Index
    from tools.bench.vectors import TrackVectors

    vectors, rng, seconds = TrackVectors.load(embeddings), np.random.default_rng(0), 0.0
    path, built = Path(folder) / "grown", None
    shutil.rmtree(path, ignore_errors=True)
    for start in range(0, count, BATCH):
        drawn = vectors.draw(min(BATCH, count - start), rng)
        names = tuple(f"Artist {row // 10}/Title {row}.mp3" for row in range(start, start + len(drawn)))
        begun = time.perf_counter()
        batch = Embeddings("bench", names, drawn, vectors.layout)
        metadata = {name: {"artist": name.split("/")[0], "year": 1990} for name in names}
        if built is None:
            built = Index.build(batch, metadata, engine="exact")
        else:
            built.add(batch, metadata)
        built.save(path)
        seconds += time.perf_counter() - begun
    if built is None or len(Index.open(path)) != count:
        raise RuntimeError(f"{path} does not hold {count} tracks")
    return seconds


def engines() -> tuple[str, ...]:
    """Those that are installed."""
    from msim_tf.search.faiss_codes import faiss_installed

    return ("exact", "faiss") if faiss_installed() else ("exact",)


def query(folder: str, count: int, embeddings: str, engine: str) -> float:
    """Seconds of one query of the index that ``index`` has made; the first call builds the engine."""
    from msim_tf.search.index import Index
    from msim_tf.search.query import search, track_query

    if folder not in _prepared:
        opened = Index.open(Path(folder) / "grown")
        opened.build_engine(engine)
        _prepared[folder] = opened
    opened = _prepared[folder]
    asked = [track_query(opened, opened.identifiers[number * (count // _QUERIES)]) for number in range(_QUERIES)]
    begun = time.perf_counter()
    for one in asked:
        search(opened, one)
    return (time.perf_counter() - begun) / _QUERIES
