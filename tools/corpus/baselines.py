"""What a model must beat on the corpus's held-out sources, without training a network.

    python -m tools.corpus.baselines --corpus ROOT --train TRAIN_STORE --test TEST_STORE

Writes into ROOT, for all tracks of the test store:

    mfcc.npz       statistics of MFCC, standardised over the training tracks
    ridge.npz      ridge regression from statistics of the features to the teacher's penultimate layer (200),
                   fitted on the training tracks

The penalty is the one of least squared error on a tenth of the training *groups*, which are then added again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from msim_tf.data.store import FeatureStore
from msim_tf.embeddings import load_embeddings, save_embeddings
from msim_tf.evaluate.baselines import mel_statistics, mfcc_statistics, standardised
from msim_tf.features.tempogram import tempogram
from msim_tf.labels.encoding import split_by_group
from tools.corpus.command import run

_PENALTIES = tuple(10.0**power for power in range(0, 7))


def track_statistics(store: FeatureStore) -> tuple[np.ndarray, np.ndarray]:
    """MFCC statistics [n, 80]; and those of mel, MFCC, tempogram and CENS together [n, features], of every track."""
    mfcc, every = [], []
    lags, stride = store.params.tempogram_lags, store.params.segment_frames
    for clip in range(len(store)):
        features = store.read_clip(clip)
        rhythm = tempogram(features.onset[None, :-1], lags=lags, stride=stride).numpy()[0].mean(axis=1)
        mfcc.append(mfcc_statistics(features.mel))
        parts = (mfcc[-1], mel_statistics(features.mel), rhythm, features.cens.mean(axis=1))
        every.append(np.concatenate(parts))
    return np.stack(mfcc), np.stack(every)


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Weights that minimise |x w - y|^2 + penalty |w|^2: [features, targets]."""
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)


def chosen_penalty(x: np.ndarray, y: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> float:
    """The penalty with the least squared error on ``held_out``."""
    errors = {
        penalty: float(np.square(x[held_out] @ ridge(x[train], y[train], penalty) - y[held_out]).mean())
        for penalty in _PENALTIES
    }
    return min(errors, key=lambda penalty: errors[penalty])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus, with the teacher's vectors")
    parser.add_argument("--train", type=Path, required=True, help="feature store of its training part")
    parser.add_argument("--test", type=Path, required=True, help="feature store of its test part")
    arguments = parser.parse_args()
    train, test = FeatureStore(arguments.train), FeatureStore(arguments.test)
    teacher = load_embeddings(arguments.corpus / "teacher-train-penultimate.npz")
    (train_mfcc, train_all), (test_mfcc, test_all) = track_statistics(train), track_statistics(test)
    taught = [row for row, identifier in enumerate(train.identifiers) if identifier in teacher]
    names = [train.identifiers[row] for row in taught]
    x = standardised(train_all, reference=train_all)[taught].astype(np.float64)
    y = standardised(teacher.embeddings[teacher.rows(names)]).astype(np.float64)
    parts = split_by_group(names, train.labels.groups, validation=0.1)
    penalty = chosen_penalty(x, y, parts["train"], parts["validation"])
    predicted = standardised(test_all, reference=train_all) @ ridge(x, y, penalty)
    baselines = {
        "mfcc": (standardised(test_mfcc, reference=train_mfcc), "MFCC statistics"),
        "ridge": (predicted, f"ridge to the teacher, penalty {penalty:g}"),
    }
    for file, (vectors, name) in baselines.items():
        path = arguments.corpus / f"{file}.npz"
        save_embeddings(path, identifiers=test.identifiers, embeddings=vectors, meta={"name": name})
        print(f"{path}: {name}, {len(test)} tracks")
    return 0


if __name__ == "__main__":
    run(main)
