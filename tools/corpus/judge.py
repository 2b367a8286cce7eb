"""How well a model hears the corpus's held-out sources: the figures of a model card, with intervals.

    python -m tools.corpus.judge --corpus ROOT --store TEST_STORE [--json FILE] RUN_OR_NPZ [NAME=RUN_OR_NPZ ...]

Kinds of labels, each alone:

    genre, mood, instrument, era                 games: the teacher's opinion (it is no truth)
    tempo, key                                   renders: exact
    genre (exact), instrument (exact)            renders: exact
    tempo (stretched), key (shifted)             games, stretched and shifted: exact relative to each other
    genre (same package), ...                    as genre, ..., with tracks of the anchor's package and artist
                                                 admitted, but not its own recording

All but the two relative ones are the matrix of ``msim_tf.evaluate.disentanglement``: for every anchor, the share of
all pairs of a similar and a dissimilar track whose similar track is nearer, none of them of the anchor's own group
(package or artist, style file) but where admitted. The relative ones are the triplets that ``tools.corpus.stretched``
wrote. Intervals are 95 % and count groups, not tracks.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msim_tf.data.store import FeatureStore
from msim_tf.dimensions import DIMENSION_NAMES, TAG_DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings, load_embeddings
from msim_tf.evaluate.artists import Artists
from msim_tf.evaluate.disentanglement import disentanglement
from msim_tf.evaluate.distances import WHOLE, subspace
from msim_tf.evaluate.statistics import group_means, percentile_interval
from msim_tf.files import save_json
from msim_tf.labels.encoding import EncodedLabels, encode
from msim_tf.labels.tables import divided_groups
from tools.corpus.command import run
from tools.corpus.ledger import Ledger

RELATIVE = {"tempo (stretched)": "tempo", "key (shifted)": "key"}
Cell = dict[str, Any]


def stored_embeddings(run_path: Path, store: FeatureStore, name: str) -> Embeddings:
    """The best model's vectors of all tracks of a store: means over whole, non-overlapping segments."""
    from msim_tf.model.network import embedding_function
    from msim_tf.model.params import layout
    from msim_tf.model.run import load_model, load_run

    run = load_run(run_path)
    embed = embedding_function(load_model(run))
    inputs, length = run.params.network.inputs, store.params.segment_frames
    vectors = []
    for clip, frames in enumerate(store.frames):
        starts = np.arange(frames // length) * length
        segments = store.read_segments(np.full(len(starts), clip), starts, names=inputs)
        vectors.append(embed(segments).mean(axis=0))
    return Embeddings(name, tuple(store.identifiers), np.stack(vectors), layout(run.params.network))


def judged_relations(labels: EncodedLabels) -> dict[str, np.ndarray]:
    """Relation matrices by kind, over the tracks of the labels in their order."""
    rows = np.arange(len(labels.identifiers))
    games = np.array([identifier.startswith("games/") for identifier in labels.identifiers])
    relations = {
        name: np.where(games[:, None] & games, tags.relation(rows, rows), 0) for name, tags in labels.teacher.items()
    }
    for name in DIMENSION_NAMES:
        kind = f"{name} (exact)" if name in TAG_DIMENSION_NAMES else name
        relations[kind] = EncodedLabels(labels.identifiers, labels.arrays, labels.vocabularies).relation(
            name, rows, rows
        )
    for relation in relations.values():
        np.fill_diagonal(relation, 0)
    return {kind: relation for kind, relation in relations.items() if (relation > 0).any() and (relation < 0).any()}


def relative_triplets(corpus: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Anchor, positive and negative of the stretched and shifted clips of the test part, by kind."""
    path = corpus / "stretched-triplets-test.csv"
    triplets_of: dict[str, list[tuple[str, str, str]]] = {kind: [] for kind in RELATIVE}
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                kind = next(kind for kind, name in RELATIVE.items() if name == row["dimension"])
                triplets_of[kind].append((row["anchor"], row["positive"], row["negative"]))
    return {kind: triplets for kind, triplets in triplets_of.items() if triplets}


def recordings(corpus: Path, identifiers: list[str]) -> np.ndarray:
    """Which original each clip was cut from."""
    originals = {clip.track: f"{clip.source} {clip.origin}" for clip in Ledger(corpus, "games").clips.values()}
    return np.array([originals.get(identifier, identifier) for identifier in identifiers])


def with_same_package(relations: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The relations that a teacher gives, under their names for the second, looser filter."""
    return {f"{name} (same package)": relations[name] for name in TAG_DIMENSION_NAMES if name in relations}


def triplet_cell(system: Embeddings, name: str, triplets: list[tuple[str, str, str]]) -> Cell:
    """Share of triplets that a subspace gets right; the interval draws packages."""
    vectors = subspace(system, name)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    anchor, positive, negative = (vectors[system.rows(column)] for column in zip(*triplets))
    right = (anchor * positive).sum(axis=1) > (anchor * negative).sum(axis=1)
    groups = np.array([Path(triplet[0]).parts[1] for triplet in triplets])
    interval = percentile_interval(group_means(right, groups))
    return {"accuracy": float(right.mean()), "low": interval.low, "high": interval.high, "anchors": len(triplets)}


def judge(
    system: Embeddings,
    relations: dict[str, np.ndarray],
    groups: Artists,
    triplets: dict[str, list[tuple[str, str, str]]],
) -> dict[str, dict[str, Cell]]:
    """Cells by kind and subspace; a system without subspaces has only "all"."""
    layered = system.layout is not None
    # The matrix wants subspaces; of a system that has none, one is named and not looked at.
    whole = EmbeddingLayout.equal(("genre",), system.embeddings.shape[1])
    seen = system if layered else Embeddings(system.name, system.identifiers, system.embeddings, whole)
    names = seen.layout.names if layered and seen.layout else ()
    wanted = (*names, WHOLE)
    cells: dict[str, dict[str, Cell]] = {kind: {} for kind in (*relations, *triplets)}
    for cell in disentanglement(seen, relations, groups=groups).to_json()["cells"]:
        if cell["subspace"] in wanted and cell["accuracy"] is not None:  # some kinds are never alike across groups
            cells[cell.pop("kind")][cell.pop("subspace")] = cell
    for kind, rows in triplets.items():
        complete = [row for row in rows if all(name in system for name in row)]
        if complete:
            cells[kind] = {name: triplet_cell(seen, name, complete) for name in wanted}
    return {kind: row for kind, row in cells.items() if row}


def own_subspace(kind: str, row: Mapping[str, Cell]) -> str:
    """Which subspace should know a kind of label: that of its dimension or, of a system
    without subspaces, all of the embedding.
    """
    name = kind.split(" ")[0]
    return name if name in row else WHOLE


def lines(name: str, cells: dict[str, dict[str, Cell]]) -> Iterator[str]:
    """A table: kinds down, subspaces across; the own subspace of a kind with its interval."""
    subspaces = list(next(iter(cells.values())))
    yield f"{name:<22}" + "".join(f"{subspace:>12}" for subspace in subspaces) + "   own, 95 %, anchors"
    for kind, row in cells.items():
        own = own_subspace(kind, row)
        best = max(row, key=lambda subspace: row[subspace]["accuracy"])
        figures = "".join(
            f"{row[subspace]['accuracy']:>11.3f}{'*' if subspace == best else ' '}" for subspace in subspaces
        )
        cell = row[own]
        interval = f"({cell['low']:.3f}-{cell['high']:.3f})"
        yield f"  {kind:<20}{figures}   {cell['accuracy']:.3f} {interval}, {cell['anchors']}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--store", type=Path, required=True, help="feature store of its test part, labelled")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("systems", nargs="+", help="training runs or embeddings, optionally NAME=PATH")
    arguments = parser.parse_args()
    store = FeatureStore(arguments.store)
    triplets = relative_triplets(arguments.corpus)
    judged = {}
    for text in arguments.systems:
        name, _, path = text.rpartition("=")
        name = name or Path(path).stem
        system = stored_embeddings(Path(path), store, name) if Path(path).is_dir() else load_embeddings(path, name=name)
        tracks = [identifier for identifier in store.identifiers if identifier in system]
        system = Embeddings(name, tuple(tracks), system.embeddings[system.rows(tracks)], system.layout)
        labels = encode(store.labels, tracks, DIMENSION_NAMES, teacher=store.teacher)
        groups = [divided_groups(store.labels.groups.get(identifier, "").casefold()) for identifier in tracks]
        relations = judged_relations(labels)
        judged[name] = judge(system, relations, groups, triplets)
        judged[name] |= judge(system, with_same_package(relations), recordings(arguments.corpus, tracks), {})
        print("\n".join(lines(name, judged[name])), flush=True)
    if arguments.json:
        save_json(arguments.json, judged)
    return 0


if __name__ == "__main__":
    run(main)
