"""Table 1 as one study: networks trained on the same store, split, seed and budget, scored on the same triplets.

Everything lies in one folder, and the same command on it continues where it was interrupted::

    runs/NAME           one training each, as msim train leaves it; resumes by itself
    seconds/NAME.json   seconds of each epoch, so that an interrupted training's time is known
    embeddings/NAME.npz vectors of what the triplets need; made again when the model, the need or the sound changed
    table1.*, pairs.*   the tables, as Markdown, CSV and JSON; table2_NAME.* and kiviat_NAME.* for every network

Baselines are scored beside them. Triplets are the caller's, or made from the labels of the held-out tracks. What cannot
work is noticed before the first training.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from msim_tf.data.store import FeatureStore
from msim_tf.embeddings import Embeddings, load_embeddings, save_embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate.comparison import write_comparison
from msim_tf.evaluate.label_triplets import label_triplets
from msim_tf.evaluate.studies.clips import StoredParts
from msim_tf.evaluate.studies.tracks import baselines, labelled_tracks, sampled, stored_mels
from msim_tf.evaluate.tables import Table, system_facts
from msim_tf.evaluate.triplet_scores import in_words_of, score_systems
from msim_tf.evaluate.triplets import LABELS, Triplets, scorable
from msim_tf.export.embedder import mean_embedding
from msim_tf.files import load_json, save_json
from msim_tf.labels.splits import Split, training_rows
from msim_tf.model.network import embedding_function
from msim_tf.model.params import MULTI_INPUT, NetworkParams, TrainParams, layout
from msim_tf.model.run import Run, load_model
from msim_tf.model.training import train

MOST_TRACKS = 4000  # of which relation matrices are made
_POOLING = "mean over the segments that are not silent"  # vectors made in another way are made anew
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Table1Options:
    """What is compared and how.

    Attributes:
        networks: name -> its training; all with the same seed and validation share.
        baseline: the system that the others are paired with.
        metric: "euclidean" or "cosine".
        per_kind: label triplets of each kind, where no triplets are given.
        allow_unlabelled: train although a dimension has no label; its subspace stays as initialised.
        split: a published split, whose test part no network hears; None divides the tracks by artist.
    """

    networks: Mapping[str, TrainParams]
    baseline: str = "baseline"
    metric: str = "euclidean"
    per_kind: int = 200
    allow_unlabelled: bool = False
    split: Split | None = None

    def __post_init__(self) -> None:
        if not self.networks:
            raise InputError("no network to train; name at least one")
        if len({(params.seed, params.validation) for params in self.networks.values()}) > 1:
            raise InputError("the networks differ in seed or validation share; a comparison needs the same split")

    @property
    def first(self) -> TrainParams:
        """One of the trainings, for what all share."""
        return next(iter(self.networks.values()))


def table1_networks(
    recipe: TrainParams,
    networks: Mapping[str, NetworkParams],
    *,
    width: float | None = None,
    time_averaged_heads: bool = False,
) -> dict[str, TrainParams]:
    """The same recipe for each network.

    Args:
        recipe: how to train; its network gives the width only. Heads that describe music are left out, because no
            table scores them.
        networks: e.g. ``NETWORK_PRESETS``.
        width: another width.
        time_averaged_heads: switch the time-averaged heads on in the networks that have the inputs for them.
    """
    width = recipe.network.width if width is None else width
    return {
        name: dataclasses.replace(
            recipe,
            describe_steps=0,
            network=dataclasses.replace(
                network, width=width, time_averaged_heads=time_averaged_heads and network.inputs == MULTI_INPUT
            ),
        )
        for name, network in networks.items()
    }


class EpochSeconds(keras.callbacks.Callback):
    """Remembers how long each epoch took, over interruptions, and reports every epoch.

    Args:
        path: the JSON file, epoch -> seconds.
        progress: called with (epochs done, epochs in all).
    """

    def __init__(self, path: Path, progress: Callable[[int, int], None]) -> None:
        super().__init__()
        self._path = path
        self._progress = progress
        self._seconds: dict[str, float] = load_json(path, "seconds of epochs") if path.exists() else {}
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._began = time.monotonic()
        self._progress(epoch, self.params["epochs"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the epoch's time."""
        self._seconds[str(epoch)] = round(time.monotonic() - self._began, 2)
        save_json(self._path, self._seconds)
        self._progress(epoch + 1, self.params["epochs"])


def run_table1(
    store: FeatureStore,
    out: str | Path,
    options: Table1Options,
    *,
    triplets: Triplets | None = None,
    externals: Sequence[Embeddings] = (),
    strategy: tf.distribute.Strategy | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Table:
    """Trains, embeds, scores and writes; continues what an earlier call began.

    Args:
        store: features and labels.
        out: folder of the study.
        options: what is compared.
        triplets: what to score on, already filtered; None makes label triplets from the held-out tracks.
        externals: other systems, with vectors of the tracks.
        strategy: for all trainings of this process: a new one for each would number its collective operations from the
            start again, and without NCCL two of the same number abort each other. None makes a MirroredStrategy.
        progress: called with (what, done, total) for each epoch and each embedded track.

    Raises:
        InputError: if there is nothing to score, labels are missing, or the folder holds another study.
    """
    out = Path(out)
    # The split that ``train`` will make, by identifiers.
    first = options.first
    rows = training_rows(
        store.identifiers, store.labels.groups, validation=first.validation, seed=first.seed, split=options.split
    )
    split = {name: [store.identifiers[row] for row in part] for name, part in rows.items()}
    if triplets is None:
        triplets = _held_out_triplets(store, split["validation"], options)
    # Systems that need no training first: they show what cannot be scored before hours have gone by.
    parts = StoredParts(store, triplets)
    training = stored_mels(store, split["train"])
    size = max(params.network.embedding_size for params in options.networks.values())
    others = baselines(parts.identifiers, parts.mels(), size=size, reference=training, seed=first.seed)
    others += [in_words_of(triplets, system) for system in externals]
    _validate(triplets, parts, others, options)

    # Each network: trained, or resumed, or found done; then the vectors that the triplets need.
    strategy = strategy or tf.distribute.MirroredStrategy()
    ours = []
    for name, params in options.networks.items():
        clock = EpochSeconds(out / "seconds" / f"{name}.json", functools.partial(progress, f"train {name}"))
        run = train(
            store,
            out / "runs" / name,
            params,
            split=options.split,
            strategy=strategy,
            allow_unlabelled=options.allow_unlabelled,
            callbacks=[clock],
        )
        ours.append(_embedded(store, out, name, run, parts, progress))

    # Every system on the same triplets: those that all have vectors for.
    systems = [*ours, *others]
    results = score_systems(triplets, systems, metric=options.metric)
    facts = {system.name: system_facts(system) for system in systems}
    notes = _notes(store, triplets, parts, split["train"], options)
    if externals:
        names = ", ".join(system.name for system in externals)
        notes += (f"Given as files: {names}; whether these were trained on the same tracks is not known here.",)
    return write_comparison(out, results, systems, baseline=options.baseline, facts=facts, notes=notes)


def _held_out_triplets(store: FeatureStore, held_out: Sequence[str], options: Table1Options) -> Triplets:
    params = options.first
    tracks = labelled_tracks(store, sampled(held_out, MOST_TRACKS, seed=params.seed), key_relation=params.key_relation)
    try:
        return label_triplets(
            tracks.identifiers, tracks.relations, groups=tracks.groups, per_kind=options.per_kind, seed=params.seed
        )
    except InputError as error:
        raise InputError(f"{store.path}, held-out tracks: {error}; or hold out more by --validation") from None


def _validate(triplets: Triplets, parts: StoredParts, others: Sequence[Embeddings], options: Table1Options) -> None:
    """Finds before hours of training what would make the scoring fail."""
    score_systems(triplets, others, metric=options.metric)
    names = [*options.networks, *(system.name for system in others)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise InputError(f"two systems are called {twice[0]!r}; give the other one another name, NAME=FILE.npz")
    if options.baseline not in names:
        raise InputError(f"baseline {options.baseline!r} is not among the systems {', '.join(names)}")
    if not len(scorable(triplets, parts.identifiers)[0]):
        raise InputError(f"{triplets.name}: no triplet of it is whole in the store")


def _embedded(
    store: FeatureStore, out: Path, name: str, run: Run, parts: StoredParts, progress: Progress
) -> Embeddings:
    """The vectors of one run, from its file if that still holds what is asked for."""
    # The mark covers the model, the pooling and what is embedded: if any of them differs, the vectors are made anew.
    path = out / "embeddings" / f"{name}.npz"
    made_from = run.model_path.read_bytes() + f"{_POOLING}\0{parts.digest}".encode()
    mark = hashlib.sha256(made_from).hexdigest()
    if path.exists():
        stored = load_embeddings(path, name=name)
        if stored.meta.get("made_from") == mark:
            return stored

    # One vector per track or clip, [size]: the mean over its segments.
    model = load_model(run)
    run_model = embedding_function(model)
    inputs = run.params.network.inputs
    vectors = []
    for _, features, starts in parts:
        vectors.append(mean_embedding(run_model, features, starts, store.params))
        progress(f"embed {name}", len(vectors), len(parts))

    # Read back from the file, so that a resumed study scores the very numbers of an uninterrupted one.
    seconds = out / "seconds" / f"{name}.json"
    meta = {
        "name": name,
        "inputs": "multi" if len(inputs) > 1 else inputs[0],
        "parameters": int(sum(np.prod(weight.shape) for weight in model.trainable_weights)),
        "training_seconds": sum(load_json(seconds, "seconds of epochs").values())
        if seconds.exists()
        else run.summary["seconds"],
        "digest": run.digest,
        "made_from": mark,
    }
    save_embeddings(
        path, identifiers=parts.identifiers, embeddings=np.stack(vectors), layout=layout(run.params.network), meta=meta
    )
    return load_embeddings(path, name=name)


def _notes(
    store: FeatureStore, triplets: Triplets, parts: StoredParts, training: Sequence[str], options: Table1Options
) -> tuple[str, ...]:
    params = options.first
    trained_on = set(training).intersection(parts.tracks.values())
    notes = [
        f"Trained here on {len(training)} tracks of {store.path.name}: {params.epochs} epochs, width "
        f"{params.network.width:g}, seed "
        f"{params.seed}, the same split and budget for all; one training each, so differences between seeds are not "
        "in the intervals.",
        "MFCC statistics and random projection are standardised by the training tracks; training s: wall time of the "
        "epochs on this machine.",
    ]
    if triplets.judges == LABELS:
        notes.append(
            "The triplets are of the held-out tracks, whose loss also chose each network's best epoch: a little "
            "optimistic."
        )
    if trained_on:
        notes.append(
            f"{len(trained_on)} of the {len(parts.tracks)} tracks in the triplets are training tracks of this study."
        )
    return tuple(notes)
