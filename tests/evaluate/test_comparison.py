"""Several systems as files: tests between pairs against scipy, and what is said of label triplets."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import binomtest

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.evaluate import agreement
from msim_tf.evaluate.comparison import LABEL_NOTE, pairs_table, write_comparison
from msim_tf.evaluate.tables import SystemFacts, system_facts
from msim_tf.evaluate.triplet_scores import in_words_of, score_systems
from msim_tf.evaluate.triplets import LABELS, Triplets

NAMES = tuple(f"TR{row:02d}" for row in range(20))


@pytest.fixture
def triplets(rng) -> Triplets:
    members = [rng.choice(20, 3, replace=False) for _ in range(80)]
    anchor, positive, negative = (tuple(NAMES[row] for row in column) for column in zip(*members))
    ids = tuple(str(row) for row in range(80))
    return Triplets("fixture", ids, anchor, positive, negative, np.full(80, np.nan))


@pytest.fixture
def systems(rng) -> list[Embeddings]:
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 12)
    meta = {"inputs": "multi", "parameters": 7, "training_seconds": 1.5}
    files = tuple(f"{name}.mp3" for name in NAMES)
    return [
        Embeddings("a/b: one", files, rng.normal(size=(20, 12)).astype(np.float32), layout, meta),
        Embeddings("two", NAMES, rng.normal(size=(20, 3)).astype(np.float32)),
        Embeddings("three", NAMES[::-1], rng.normal(size=(20, 5)).astype(np.float32)),
    ]


def test_systems_that_name_tracks_differently_are_scored_together(triplets, systems):
    renamed = in_words_of(triplets, systems[0])
    assert set(renamed.identifiers) == set(triplets.identifiers)
    for row, name in enumerate(renamed.identifiers):
        np.testing.assert_array_equal(renamed.embeddings[row], systems[0].embeddings[NAMES.index(name)])
    stranger = dataclasses.replace(systems[1], identifiers=tuple(f"other{row}" for row in range(20)))
    with pytest.raises(InputError, match="two: no vector for any of the .* identifiers of fixture"):
        in_words_of(triplets, stranger)


def test_every_pair_is_tested(triplets, systems, monkeypatch):
    results = score_systems(triplets, [in_words_of(triplets, system) for system in systems])
    table = pairs_table(results)
    rows = [dict(zip(table.columns, row)) for row in table.rows]
    assert [(row["first"], row["second"]) for row in rows] == [
        ("a/b: one", "two"),
        ("a/b: one", "three"),
        ("two", "three"),
    ]
    first, second = results[0].correct, results[1].correct
    only = int((first & ~second).sum()), int((second & ~first).sum())
    assert (rows[0]["first only"], rows[0]["second only"]) == only
    assert rows[0]["p (McNemar)"] == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert rows[0]["difference"] == pytest.approx(first.mean() - second.mean())
    assert rows[0]["low"] < rows[0]["difference"] < rows[0]["high"]
    # Drawing anchors or triplets gives other intervals, of about the same width here.
    monkeypatch.setattr(agreement, "MOST_QUERIES", 3)
    drawn = dict(zip(table.columns, pairs_table(results).rows[0]))
    assert drawn["low"] != rows[0]["low"] and drawn["difference"] == rows[0]["difference"]


@pytest.mark.parametrize("judges", ["listeners", LABELS])
def test_files_hold_what_was_scored_and_the_paper_only_beside_listeners(triplets, systems, tmp_path, judges):
    triplets = dataclasses.replace(triplets, judges=judges)
    systems = [dataclasses.replace(systems[0], name="multi384"), *systems[1:]]
    named = [in_words_of(triplets, system) for system in systems]
    facts = {system.name: system_facts(system) for system in named}
    results = score_systems(triplets, named)
    write_comparison(tmp_path, results, named, baseline="two", facts=facts, notes=["a note"])
    stems = {"table1", "pairs", "table2_multi384", "kiviat_multi384"}
    assert {path.stem for path in tmp_path.iterdir()} == stems
    table = json.loads((tmp_path / "table1.json").read_text())
    assert [row["score"] for row in table["rows"]] == [result.score for result in results]
    assert (table["rows"][0]["parameters"], table["rows"][0]["training s"]) == (7, 1.5)
    assert (LABEL_NOTE in table["notes"]) == (judges == LABELS) and "a note" in table["notes"]
    with open(tmp_path / "table2_multi384.csv", newline="") as file:
        published = [row["paper, N = 426"] for row in csv.DictReader(file)]
    assert len(published) == 63 and any(published) == (judges != LABELS)
    assert bool(table["rows"][0]["paper, N = 426"]) == (judges != LABELS)
    assert any("Million Song" in note for note in table["notes"]) == (judges != LABELS)


def test_a_name_cannot_leave_the_folder(triplets, systems, tmp_path):
    named = [in_words_of(triplets, dataclasses.replace(systems[0], name="../../up"))]
    write_comparison(tmp_path / "out", score_systems(triplets, named), named, baseline="../../up", facts={})
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "table2_.._.._up.md").exists()


def test_facts_of_a_file_that_tells_nothing():
    system = Embeddings("x", ("a", "b"), np.ones((2, 5), np.float32))
    assert system_facts(system) == SystemFacts(size=5)
