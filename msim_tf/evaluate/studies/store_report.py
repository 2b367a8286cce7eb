"""The full report on embeddings of a store's tracks: triplets, matrix of subspaces and labels, retrieval, baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msim_tf
from msim_tf.data.store import FeatureStore
from msim_tf.data.store_database import StoreDatabase
from msim_tf.embeddings import Embeddings, shortlist
from msim_tf.errors import InputError
from msim_tf.evaluate.comparison import LABEL_NOTE
from msim_tf.evaluate.disentanglement import disentanglement
from msim_tf.evaluate.distances import WHOLE
from msim_tf.evaluate.label_triplets import label_triplets
from msim_tf.evaluate.report import Report, write_report
from msim_tf.evaluate.retrieval import neighbour_scores, retrieval
from msim_tf.evaluate.studies.table1 import MOST_TRACKS
from msim_tf.evaluate.studies.tracks import LabelledTracks, baselines, labelled_tracks, sampled, stored_mels
from msim_tf.evaluate.tables import subset_scores, system_facts
from msim_tf.evaluate.triplet_scores import in_words_of, score_systems
from msim_tf.evaluate.triplets import LABELS, Triplets, matched
from msim_tf.model.params import NetworkParams


@dataclass(frozen=True)
class ReportOptions:
    """What is reported and how.

    Attributes:
        k: depth of the retrieval's precision.
        metric: distance of the triplets; matrix and retrieval use the cosine, as training does.
        baseline: system that Table 1 compares the others with; None takes the last, a baseline from the store.
        per_kind: label triplets of each kind, where no triplets are given.
        key_relation: which keys are similar.
        seed: of what is drawn.
    """

    k: int = 10
    metric: str = "euclidean"
    baseline: str | None = None
    per_kind: int = 200
    key_relation: str = "parallel"
    seed: int = 0


def store_report(
    store: FeatureStore,
    systems: Sequence[Embeddings],
    out: str | Path,
    options: ReportOptions,
    *,
    triplets: Triplets | None = None,
    split: Mapping[str, Sequence[str]] | None = None,
    audio: Mapping[str, Path] | None = None,
) -> tuple[Report, Path]:
    """Evaluates the first of ``systems`` in full, and the others beside it, and writes the page.

    Args:
        store: its labels decide the relations, its mel-spectrograms the baselines.
        systems: at least one; identifiers as in the store, or file names without their suffix.
        out: folder of the report.
        options: what is reported.
        triplets: of listeners, already filtered; None makes triplets from the labels.
        split: of the training of the first system, by identifiers: only its validation tracks are evaluated, and
            the training tracks standardise the baselines.
        audio: identifier -> its sound, for links.

    Returns:
        The report and the path of its page.

    Raises:
        InputError: if no track of the first system is in the store, or nothing can be scored.
    """
    # The tracks that are evaluated, and every system's vectors under the store's names.
    tracks = _tracks(store, systems[0], split, options)
    named = [_restricted(system, tracks.identifiers) for system in systems]
    subject = named[0]
    others = _baselines(store, tracks, named, split)

    # What is scored: triplets of listeners or of labels, on the systems and on the baselines that can keep up.
    judged = triplets or label_triplets(
        tracks.identifiers, tracks.relations, groups=tracks.groups, per_kind=options.per_kind, seed=options.seed
    )
    # Triplets of listeners may be about tracks that the store does not have, and need all vectors of a file.
    candidates = [in_words_of(judged, system) for system in (systems if triplets else named)]
    # The store's baselines, if it has every track that the triplets are about: else they would shrink N for all.
    names = matched(judged.identifiers, others[0].identifiers if others else (), paths=judged.paths)
    if len(names) == len(judged.identifiers):
        candidates += [in_words_of(judged, system) for system in others]
    results = score_systems(judged, candidates, metric=options.metric)

    # Sound of every track or clip in the triplets, under the name that they use.
    audio = audio or {}
    clips = {clip.identifier: clip.track for clip in judged.clips()}
    matches = matched(set(clips.values()), list(audio), paths=judged.paths)
    sounds = {name: audio[matches[track]].resolve() for name, track in clips.items() if track in matches}

    # All parts of the report that the first system's vectors allow: subsets and matrix need subspaces.
    layered = subject.layout is not None
    relations, groups = tracks.relations, tracks.groups
    retrieved = retrieval(subject, relations, groups=groups, k=options.k)
    report = Report(
        title=f"Evaluation of {subject.name}",
        facts=_facts(store, subject, tracks, split, options),
        results=tuple(results),
        baseline=options.baseline,
        systems={system.name: system_facts(system) for system in candidates},
        subsets=subset_scores(judged, candidates[0], metric=options.metric) if layered else None,
        matrix=disentanglement(subject, relations, groups=groups, seed=options.seed) if layered else None,
        retrieval=tuple(item for item in retrieved if item.subspace in (item.kind, WHOLE)),
        neighbours=tuple(neighbour_scores(subject, tempo=tracks.tempo, key=tracks.key, groups=groups)),
        audio=sounds,
        notes=_notes(store, systems[0], tracks, judged, split),
    )
    return report, write_report(report, out)


def _tracks(
    store: FeatureStore, subject: Embeddings, split: Mapping[str, Sequence[str]] | None, options: ReportOptions
) -> LabelledTracks:
    """The store's tracks that the subject has a vector of (and that were held out)."""
    # The tracks wanted, those of them with a vector, and of these no more than relation matrices can take.
    wanted = store.identifiers if split is None else list(split["validation"])
    unknown = set(wanted) - set(store.identifiers)
    if unknown:
        raise InputError(
            f"{store.path}: has no track {shortlist(sorted(unknown))}, which the split names; give the store it was "
            "trained on"
        )
    owned = set(_names_in(subject, wanted))
    both = [identifier for identifier in wanted if identifier in owned]
    if len(both) < 3:
        raise InputError(
            f"{subject.name}: has vectors of {len(both)} of the {len(wanted)} {'held-out ' if split else ''}tracks of "
            f"{store.path}, "
            "expected at least 3; embed them with msim embed"
        )
    return labelled_tracks(store, sampled(both, MOST_TRACKS, seed=options.seed), key_relation=options.key_relation)


def _names_in(system: Embeddings, identifiers: Sequence[str]) -> dict[str, str]:
    """Identifier of the store -> identifier in the system, which may have left out the suffix."""
    return {identifier: name for name, identifier in matched(system.identifiers, identifiers).items()}


def _restricted(system: Embeddings, identifiers: Sequence[str]) -> Embeddings:
    """The system's vectors of these tracks, under the store's names; it may lack some."""
    names = _names_in(system, identifiers)
    kept = tuple(identifier for identifier in identifiers if identifier in names)
    if not kept:
        raise InputError(f"{system.name}: has no vector of any track that is evaluated")
    rows = system.rows(names[identifier] for identifier in kept)
    return dataclasses.replace(system, identifiers=kept, embeddings=system.embeddings[rows])


def _baselines(
    store: FeatureStore, tracks: LabelledTracks, named: Sequence[Embeddings], split: Mapping[str, Sequence[str]] | None
) -> list[Embeddings]:
    systems = baselines(
        tracks.identifiers,
        stored_mels(store, tracks.identifiers),
        size=NetworkParams().embedding_size,
        reference=stored_mels(store, split["train"]) if split else None,
    )
    # A system of the caller's under a baseline's name takes its place.
    names = {system.name for system in named}
    return [system for system in systems if system.name not in names]


def _facts(
    store: FeatureStore,
    subject: Embeddings,
    tracks: LabelledTracks,
    split: Mapping[str, Sequence[str]] | None,
    options: ReportOptions,
) -> dict[str, str]:
    # What is not known is left out rather than shown empty.
    artists = f"{len(set(chain.from_iterable(tracks.groups)))} (artists or, where unknown, folders)"
    facts = {
        "Model": " version ".join(str(subject.meta[key]) for key in ("model", "version") if key in subject.meta),
        "Tracks": f"{len(tracks.identifiers)} of {store.path.name}, "
        f"{'held out' if split else 'all that have a vector'}",
        "Artists": artists,
        "Features": store.params.digest,
        "Distance of triplets": options.metric,
        "Similar keys": options.key_relation,
        "Made by": f"msim-tf {msim_tf.__version__}",
    }
    return {name: text for name, text in facts.items() if text}


def _notes(
    store: FeatureStore,
    subject: Embeddings,
    tracks: LabelledTracks,
    judged: Triplets,
    split: Mapping[str, Sequence[str]] | None,
) -> tuple[str, ...]:
    notes = []
    if judged.judges == LABELS:
        notes.append(LABEL_NOTE)
    if split is None:
        notes.append(
            "No split was given, so these tracks may include those the model was trained on: then the figures show "
            "memory, not music."
        )
    else:
        notes.append(
            "Only held-out tracks; the same tracks' loss chose the model's best epoch, which is a little optimistic."
        )
    if tracks.unlabelled:
        notes.append(f"No label: {', '.join(tracks.unlabelled)}. What these subspaces hold is not tested.")
    with StoreDatabase(store.path) as database:
        annotated = database.value("SELECT count(*) FROM annotations WHERE error IS NULL")
    if annotated:
        notes.append(
            "Tempo and key are estimates by madmom where the label table says nothing: agreement with them is "
            "agreement with madmom."
        )
    if len(set(chain.from_iterable(tracks.groups))) == sum(map(len, tracks.groups)):
        notes.append(
            "No two tracks share an artist or folder: the artist filter leaves nothing out, and an album's sound can "
            "pass for its label."
        )
    if store.teacher:
        notes.append(
            "Tracks that are not labelled count as similar or not by the tags of "
            f"{store.teacher.meta.get('model', 'a teacher')}: "
            "agreement with them is agreement with that model."
        )
    left = len(subject.identifiers) - len(tracks.identifiers)
    if left:
        notes.append(
            f"{left} of the {len(subject.identifiers)} vectors are not part of this: not in the store, or not held out."
        )
    return tuple(notes)
