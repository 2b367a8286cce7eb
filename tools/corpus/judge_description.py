"""How well a model says what it hears in the corpus's held-out sources, with 95 % intervals over whole groups.

    python -m tools.corpus.judge_description --store TEST_STORE [--madmom FILE] [--json FILE] saved_models/NAME

====================  ============================================================================================
words                 area under the ROC curve of each word, over the teachers' clear cases and what is labelled
calibration           of all cases together: how often a word fits, by the probability that was said
tempo                 share within 4 % of the exact tempo, and with octaves folded
key                   share of exact keys, and MIREX' weighted score
music                 share of music that is taken for music, and of noise and speech that is not
madmom tempo, key     the same figures of madmom's estimates of the same tracks (``tools.corpus.madmom_accuracy``)
====================  ============================================================================================
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.cli.options import progress_bar
from msim_tf.data.store import FeatureStore
from msim_tf.database import Database
from msim_tf.dimensions import DIMENSION_NAMES, TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.evaluate.statistics import group_means, percentile_interval
from msim_tf.export.description import Description
from msim_tf.export.embedder import Embedder
from msim_tf.files import save_json
from msim_tf.labels.annotations import ANNOTATIONS, Annotation, load_records
from msim_tf.labels.encoding import EncodedLabels, encode, groups_of
from msim_tf.labels.taxonomy import NOT_MUSIC
from msim_tf.labels.words import WordTargets, word_targets
from msim_tf.model.description_training import key_scores, tempo_hits
from msim_tf.model.word_training import roc_area
from msim_tf.theory import parse_key
from tools.corpus.command import run

_BINS = 5
_RESAMPLES = 200


def judged(descriptions: Sequence[Description], fitting: WordTargets, groups: np.ndarray) -> dict[str, Any]:
    """Areas, their mean and the calibration of words.

    Args:
        descriptions: of n tracks.
        known: which words fit which of them.
        groups: [n] int, never divided by the bootstrap.
    """
    columns = [
        (f"{name}/{word}", np.array([said.words[name][word] for said in descriptions]), fitting.targets[name][:, place])
        for name, words in fitting.words.items()
        for place, word in enumerate(words)
        if word in descriptions[0].words.get(name, {})
    ]
    areas = {title: area for title, scores, target in columns if (area := roc_area(scores, target)) is not None}
    kept = [(scores, target) for title, scores, target in columns if title in areas]
    # The mean area again with whole groups drawn with replacement.
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    means = []
    for _ in range(_RESAMPLES):
        rows = np.concatenate([members[place] for place in rng.integers(len(members), size=len(members))])
        again = [roc_area(scores[rows], target[rows]) for scores, target in kept]
        means.append(np.mean([area for area in again if area is not None]))
    interval = percentile_interval(np.array(means))
    scores, targets = (np.concatenate([pair[side] for pair in kept]) for side in (0, 1))
    return {
        "areas": areas,
        "mean": float(np.mean(list(areas.values()))),
        "interval": [interval.low, interval.high],
        "words": len(areas),
        "calibration": calibration(scores[targets != 0], targets[targets != 0] > 0),
    }


def calibration(probabilities: np.ndarray, fits: np.ndarray) -> list[dict[str, float]]:
    """For equal bins of probability: the mean probability, how often it was right, and of how many cases."""
    bins = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    return [
        {
            "said": float(probabilities[bins == place].mean()),
            "right": float(fits[bins == place].mean()),
            "cases": int((bins == place).sum()),
        }
        for place in range(_BINS)
        if (bins == place).any()
    ]


def _share(values: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """A mean with its interval over whole groups."""
    interval = percentile_interval(group_means(values.astype(float), groups))
    return {"share": float(values.mean()), "interval": [interval.low, interval.high], "tracks": len(values)}


def judge(embedder: Embedder, store: FeatureStore) -> dict[str, Any]:
    """Everything that is known of the tracks of a store against what the model says of them."""
    embedder.metadata.validate_features(store.params, store.path)
    labels = encode(store.labels, store.identifiers, DIMENSION_NAMES, teacher=store.teacher)
    groups = _groups(store)
    descriptions: list[Description] = []
    with progress_bar("describe") as progress:
        for row in range(len(store)):
            said = embedder.hear(store.read_clip(row))[1]
            assert said is not None
            descriptions.append(said)
            progress(row + 1, len(store))
    result: dict[str, Any] = {"words": judged(descriptions, word_targets(labels, store.teacher), groups)}
    for name in DIMENSION_NAMES:
        if name in TAG_DIMENSION_NAMES or name not in embedder.metadata.classes:
            continue
        if name == "tempo":
            estimate = np.array([said.tempo[0][0] for said in descriptions])
        else:
            estimate = np.array([parse_key(said.key[0][0]) for said in descriptions])
        if labels.labelled(name).any():
            result[name] = _exact(name, estimate, labels, groups)
    not_music = np.array([bool(set(_instruments(store, name)) & set(NOT_MUSIC)) for name in store.identifiers])
    musical = np.array([said.musical for said in descriptions])
    result["music taken for music"] = _share(musical[~not_music], groups[~not_music])
    if not_music.any():
        result["noise and speech taken for none"] = _share(~musical[not_music], groups[not_music])
    return result


def judge_annotations(annotations: Mapping[str, Annotation], store: FeatureStore) -> dict[str, Any]:
    """What an annotator says of every track of a store whose tempo and key are known; a tempo not found is wrong.

    Raises:
        InputError: if it has not annotated all of them.
    """
    labels = encode(store.labels, store.identifiers, ("tempo", "key"))
    labelled = labels.labelled("tempo") | labels.labelled("key")
    missing = [track for track, needed in zip(store.identifiers, labelled) if needed and track not in annotations]
    if missing:
        raise InputError(f"{len(missing)} tracks of {store.path} are not annotated, e.g. {missing[0]}")
    said = [annotations.get(track) for track in store.identifiers]
    tempi = np.array([own.tempo if own and own.tempo else math.nan for own in said])
    keys = np.array([parse_key(own.key) if own else 0 for own in said])
    groups = _groups(store)
    return {
        "madmom tempo": _exact("tempo", tempi, labels, groups),
        "madmom key": _exact("key", keys, labels, groups),
    }


def _groups(store: FeatureStore) -> np.ndarray:
    """[tracks] int: equal for tracks of one source."""
    names = [groups_of(identifier, store.labels.groups)[0] for identifier in store.identifiers]
    return np.unique(names, return_inverse=True)[1]


def _exact(name: str, estimate: np.ndarray, labels: EncodedLabels, groups: np.ndarray) -> dict[str, Any]:
    """Shares over the tracks whose tempo or key is known; estimates and groups are [tracks] of all."""
    rows = np.flatnonzero(labels.labelled(name))
    estimate, truth, groups = estimate[rows], labels.arrays[name][rows].astype(float), groups[rows]
    if name == "tempo":
        exact, folded = tempo_hits(estimate, truth)
        return {"within 4 %": _share(exact, groups), "octaves folded": _share(folded, groups)}
    return {
        "exact": _share(estimate == truth, groups),
        "weighted score": _share(key_scores(estimate, truth.astype(int)), groups),
    }


def _instruments(store: FeatureStore, identifier: str) -> tuple[str, ...]:
    return store.labels.values.get(identifier, {}).get("instrument", ())


def lines(result: Mapping[str, Any]) -> list[str]:
    """The figures for people."""
    words = result["words"]
    low, high = words["interval"]
    text = [f"words: mean area {words['mean']:.3f} ({low:.3f}-{high:.3f}), {words['words']} words"]
    text += [f"  {title:<32} {area:.3f}" for title, area in sorted(words["areas"].items(), key=lambda item: item[1])]
    text += [
        f"  said {one['said']:.2f}, right {one['right']:.2f}, {one['cases']} cases" for one in words["calibration"]
    ]
    for name, own in result.items():
        if name != "words":
            cells = {"": own} if "share" in own else own
            for what, cell in cells.items():
                low, high = cell["interval"]
                text.append(f"{name} {what}: {cell['share']:.3f} ({low:.3f}-{high:.3f}), {cell['tracks']} tracks")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="saved_models/NAME, or one of its versions")
    parser.add_argument("--store", type=Path, required=True, help="store of the test part, with labels and the teacher")
    parser.add_argument("--madmom", type=Path, help="what tools.corpus.madmom_accuracy wrote: judged beside the model")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    annotations = {}
    if arguments.madmom:
        with Database(arguments.madmom, ANNOTATIONS) as database:
            outcomes = {track: record.outcome for track, record in load_records(database).items()}
        annotations = {track: own for track, own in outcomes.items() if isinstance(own, Annotation)}
    store = FeatureStore(arguments.store)
    embedder = Embedder(arguments.model)
    try:
        embedder.validate_describes()
        result = judge(embedder, store)
        if arguments.madmom:
            result |= judge_annotations(annotations, store)
    finally:
        embedder.close()
    print("\n".join(lines(result)))
    if arguments.json:
        save_json(arguments.json, result)
    return 0


if __name__ == "__main__":
    run(main)
