"""Engines against a sort of all distances; the FAISS engine where faiss is installed."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from msim_tf.checksums import file_checksum
from msim_tf.database import Database
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.search.calibration import WEIGHT_KINDS, Calibration, calibrate, sample_weights, true_neighbours
from msim_tf.search.engines import ExactEngine, smallest
from msim_tf.search.faiss_engine import FaissEngine
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.query import search, track_query
from msim_tf.search.ranking import dimension_distances, normalised
from msim_tf.search.schema import SCHEMA
from msim_tf.search.track_table import TrackTable
from msim_tf.search.vectors import Rows

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 48)
ODD = EmbeddingLayout(DIMENSION_NAMES, (5, 8, 7, 6, 9, 11))
META = {"model": "toy", "version": "3", "digest": "d"}


def library(rng, count, layout, *, prefix="t"):
    vectors = rng.normal(size=(count, layout.size)).astype(np.float32)
    return Embeddings("toy", tuple(f"{prefix}{row:05d}" for row in range(count)), vectors, layout, META)


def some_rows(rng, layout, sizes):
    parts = [normalised(rng.normal(size=(size, layout.size)), layout).astype(np.float16) for size in sizes]
    return Rows(layout.size, None, tuple(parts))


def sorted_rows(rows, query, weights, layout):
    """All rows by exact distance."""
    stored = normalised(rows.take(np.arange(len(rows))), layout)
    return np.argsort(dimension_distances(query, stored, layout) @ weights, kind="stable")


def test_rows_run_through_all_parts(rng):
    rows = some_rows(rng, LAYOUT, [5, 1, 9])
    every = np.concatenate(rows.fresh)
    wanted = rng.integers(0, 15, 40)
    np.testing.assert_array_equal(rows.take(wanted), every[wanted])
    np.testing.assert_array_equal(rows.take(wanted, slice(8, 16)), every[wanted, 8:16])
    for first in (0, 3, 5, 6, 14):
        blocks = list(rows.blocks(first))
        assert blocks[0][0] == first
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), every[first:])


def test_smallest_takes_all_that_tie_with_the_last():
    distances = np.array([3, 1, 2, 2, np.inf, 2, 0], np.float32)
    assert smallest(distances, 3).tolist() == [1, 2, 3, 5, 6]
    assert smallest(distances, 1).tolist() == [6]
    rounded = np.array([1, 1 + 2**-23, 1 - 2**-24, 1 + 2**-22, 1.1], np.float32)
    assert smallest(rounded, 1).tolist() == [0, 1, 2, 3]
    assert smallest(distances, 3, margin=1).tolist() == [0, 1, 2, 3, 5, 6]
    assert smallest(distances, 6).tolist() == smallest(distances, 99).tolist() == [0, 1, 2, 3, 5, 6]


@pytest.mark.parametrize("layout", [LAYOUT, ODD])
@pytest.mark.parametrize("memory", [2**30, 0, 4 * 700 * 48], ids=["in memory", "from the map", "in part"])
@pytest.mark.parametrize("kind", WEIGHT_KINDS)
def test_the_exact_engine_finds_what_a_sort_finds(rng, layout, memory, kind):
    rows = some_rows(rng, layout, [700, 300, 20])
    engine = ExactEngine(layout, memory=memory)
    allowed = rng.random(1020) < 0.7
    for weights in sample_weights(kind, 6, 6, rng):
        query = normalised(rng.normal(size=layout.size), layout)
        order = sorted_rows(rows, query, weights, layout)
        assert (
            set(order[:12]) <= set(engine.top(rows, query, weights, 12))
            and len(engine.top(rows, query, weights, 12)) < 15
        )
        actual = engine.top(rows, query, weights, 12, allowed=allowed)
        assert set(order[allowed[order]][:12]) <= set(actual) and allowed[actual].all()


def test_sampled_weights_are_what_their_kind_says(rng):
    for kind in WEIGHT_KINDS:
        weights = sample_weights(kind, 600, 6, rng)
        np.testing.assert_allclose(np.abs(weights).sum(1), 1)
        assert (weights >= 0).all() == (kind != "signed")
    # The largest of six flat Dirichlet weights has mean (1 + 1/2 + ... + 1/6) / 6.
    largest = sample_weights("dirichlet", 20000, 6, rng).max(1).mean()
    assert largest == pytest.approx(2.45 / 6, abs=0.005)
    assert sample_weights("one-dimension", 12, 6, rng).sum(0).tolist() == [2] * 6


def test_true_neighbours_are_those_of_a_sort(rng):
    rows = some_rows(rng, LAYOUT, [9000, 100])  # more than one block
    own = np.array([3, 8999, 9050])
    queries = normalised(rows.take(own), LAYOUT)
    weights = {kind: sample_weights(kind, 3, 6, rng) for kind in WEIGHT_KINDS}
    actual = true_neighbours(rows, LAYOUT, queries, weights, own, 10)
    for kind in WEIGHT_KINDS:
        for place in range(3):
            order = sorted_rows(rows, queries[place], weights[kind][place], LAYOUT)
            assert set(actual[kind][place]) == set(order[order != own[place]][:10])


def test_depth_is_interpolated_between_the_kinds():
    calibration = Calibration({"uniform": 100, "dirichlet": 400, "one-dimension": 1600, "signed": 900}, {}, 10, 9, 9)
    assert calibration.depth(np.full(6, 1 / 6), 10) == 100
    assert calibration.depth(np.eye(6)[2], 10) == pytest.approx(1600, abs=1)
    assert calibration.depth(np.eye(6)[2], 30) == pytest.approx(4800, abs=3)
    assert calibration.depth(np.eye(6)[2], 3) == pytest.approx(1600, abs=1)
    middle = (2.45 / 6 + 1) / 2
    half = np.array([middle, 1 - middle, 0, 0, 0, 0])
    assert calibration.depth(half, 10) == pytest.approx(math.sqrt(400 * 1600), abs=1)
    assert calibration.depth(np.array([1, -1, 1, -1, 1, -1]) / 6, 10) == 900


def test_the_depth_of_a_dimension_alone_is_its_own():
    calibration = Calibration(
        {"uniform": 1, "dirichlet": 2, "one-dimension": 900, "signed": 9, "alone": 70}, {}, 10, 9, 9
    )
    assert calibration.depth(np.eye(6)[0], 10) == pytest.approx(900, abs=1)
    assert [calibration.depth(np.eye(6)[0], count, alone=True) for count in (1, 10, 25)] == [70, 70, 175]


def test_calibration_measures_a_known_error(rng):
    """An approximate order that is the exact one with its first 90 and next 410 places exchanged needs a
    depth of 420, and gets half as much again.
    """
    rows = some_rows(rng, LAYOUT, [2000])
    stored = normalised(rows.take(np.arange(2000)), LAYOUT)

    def order(query, depth):
        ranked = np.argsort(-(stored @ query))
        return np.concatenate([ranked[90:500], ranked[:90], ranked[500:]])[:depth]

    calibration = calibrate(rows, LAYOUT, order)
    # The track itself comes 411th, its ten neighbours up to 421st. Under random signs it need not come first itself.
    assert all(630 <= calibration.depths[kind] <= 633 for kind in WEIGHT_KINDS)
    assert all(calibration.recall[kind] == 1 for kind in WEIGHT_KINDS)
    alone = calibrate(rows, LAYOUT, order, alone=lambda query, depth: np.argsort(-(stored @ query))[:depth])
    assert alone.depths == {**calibration.depths, "alone": 64} and alone.recall["alone"] == 1
    shallow = calibrate(rows, LAYOUT, order, deepest=415)
    assert all(0 < shallow.recall[kind] < 0.99 for kind in WEIGHT_KINDS)


def test_without_faiss_one_line_says_so_and_exact_works(rng, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "faiss", None)
    embeddings = library(rng, 1200, LAYOUT)
    with pytest.raises(InputError, match=r"^the faiss engine needs faiss: pip install 'msim-tf\[faiss\]'.*any size$"):
        Index.build(embeddings, engine="faiss")
    assert Index.build(embeddings, engine="exact").engine.name == "exact"


def names_of(index, rows):
    """Identifiers of rows, in their order."""
    described = index.described([int(row) for row in rows])
    return [described[int(row)][0] for row in rows]


def faiss_index(rng, count=4000, layout=LAYOUT):
    pytest.importorskip("faiss")
    return Index.build(library(rng, count, layout), engine="faiss")


@pytest.mark.parametrize("layout", [LAYOUT, ODD], ids=["even widths", "odd widths"])
def test_faiss_recall_on_other_tracks_than_calibrated(rng, layout):
    index = faiss_index(rng, layout=layout)
    assert index.engine.name == "faiss"
    exact = ExactEngine(layout)
    for kind in WEIGHT_KINDS:
        assert index.engine.calibration.recall[kind] >= 0.99
        hits = 0
        for weights in sample_weights(kind, 48, 6, rng):
            query = normalised(rng.normal(size=layout.size), layout)
            order = sorted_rows(index.rows, query, weights, layout)[:10]
            assert set(order) <= set(exact.top(index.rows, query, weights, 10))
            hits += len(set(order) & set(index.engine.top(index.rows, query, weights, 10)))
        assert hits >= 0.98 * 480


def test_codes_of_few_coordinates_where_many_would_have_to_look_deep(rng):
    faiss = pytest.importorskip("faiss")
    # Vectors without structure need two coordinates per code; where two of eight directions
    # hold the variance, four can share one.
    plain = faiss_index(rng).engine._codes
    vectors = rng.normal(size=(4000, 48)) * np.tile([1, 1, *[0.02] * 6], 6)
    embeddings = Embeddings("toy", tuple(map(str, range(4000))), vectors.astype(np.float32), LAYOUT, META)
    flat = Index.build(embeddings, engine="faiss").engine._codes
    sizes = [faiss.downcast_index(codes.whole.parts[0].index).code_size for codes in (plain, flat)]
    assert sizes == [12, 6]  # half a byte for each code


def test_a_dimension_alone_is_scored_from_its_own_codes(rng):
    index = faiss_index(rng, 12000)
    assert index.engine.calibration.depths["alone"] < index.engine.calibration.depths["one-dimension"]
    assert index.engine.calibration.recall["alone"] >= 0.99
    share = 0
    index.engine._codes = replace(index.engine._codes, whole=_Silent(len(index.rows)))
    for weights in sample_weights("one-dimension", 60, 6, rng):
        query = normalised(rng.normal(size=48), LAYOUT)
        order = sorted_rows(index.rows, query, weights, LAYOUT)[:10]
        share += len(set(order) & set(index.engine.top(index.rows, query, weights, 10)))
    assert share >= 0.98 * 600


class _Silent:
    """Codes of whole vectors that must not be asked."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return self.rows


def test_faiss_saved_and_opened_finds_the_same(rng, tmp_path):
    index = faiss_index(rng)
    queries = [track_query(index, name) for name in index.identifiers[:20]]
    before = [[(m.identifier, m.distance) for m in search(index, query)] for query in queries]
    index.save(tmp_path / "library")
    opened = Index.open(tmp_path / "library")
    assert opened.engine.name == "faiss" and opened.engine.calibration == index.engine.calibration
    assert [[(m.identifier, m.distance) for m in search(opened, query)] for query in queries] == before
    assert opened.note == ""


def test_faiss_index_grows_and_shrinks_without_training(rng, tmp_path):
    index = faiss_index(rng)
    index.save(tmp_path / "library")
    codes = next((tmp_path / "library").glob("codes-*"))
    index.add(library(rng, 50, LAYOUT, prefix="new"))
    index.save()
    assert codes.exists()  # one in eighty rows lacks a code on disk: encoded when opened
    index = Index.open(tmp_path / "library")
    near = index.vectors(["new00007"])[0]
    assert names_of(index, index.engine.top(index.rows, near, np.full(6, 1 / 6), 1))[0] == "new00007"
    index.remove(index.identifiers[:2100])
    index.save()
    opened = Index.open(tmp_path / "library")
    assert len(opened.rows) == 1950 and len(list((tmp_path / "library").glob("codes-*"))) == 1
    for held in (index, opened):
        actual = search(held, track_query(held, "new00007"), k=5)
        exact = ExactEngine(LAYOUT).top(held.rows, near, np.full(6, 1 / 6), 6)
        assert len({m.identifier for m in actual} & set(names_of(held, exact)) - {"new00007"}) >= 4


def test_faiss_obeys_filters_rare_and_frequent(rng):
    index = faiss_index(rng, 12000)
    names = index.identifiers
    index.update_metadata(
        {name: {"tags": ["frequent"] + ["rare"] * (row < 40)} for row, name in enumerate(names[:9000])}
    )
    for tag, count in (("rare", 40), ("frequent", 9000)):
        query = track_query(index, names[-1])
        actual = search(index, query, filters=Filters(tags=(tag,)), k=10)
        described = index.described(range(len(index.rows)))
        allowed = np.array([tag in described[row][1].get("tags", ()) for row in range(len(index.rows))])
        assert allowed.sum() == count
        order = sorted_rows(index.rows, query.vector, np.full(6, 1 / 6), LAYOUT)
        expected = names_of(index, [row for row in order if allowed[row]][:10])
        assert len(set(expected) & {match.identifier for match in actual}) >= 9
        assert all(tag in match.metadata["tags"] for match in actual) and len(actual) == 10


def test_faiss_refuses_what_it_cannot_use(rng, tmp_path):
    index = faiss_index(rng, 1500)
    with pytest.raises(InputError, match="at least 1000 tracks, there are 30"):
        Index.build(library(rng, 30, LAYOUT), engine="faiss")
    index.save(tmp_path / "library")
    codes = next((tmp_path / "library").glob("codes-*"))
    data = codes.read_bytes()
    codes.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"codes-000001.npz: not readable as codes .*build the engine again"):
        Index.open(tmp_path / "library")
    codes.unlink()
    with pytest.raises(InputError, match="codes-000001.npz"):
        Index.open(tmp_path / "library")
    other = FaissEngine.build(Index.build(library(rng, 1100, LAYOUT)).rows, LAYOUT)
    other.save_codes(codes, Index.build(library(rng, 1100, LAYOUT)).rows)
    change_engine_setting(tmp_path / "library", checksum=file_checksum(codes))
    with pytest.raises(InputError, match="codes of 1100 rows"):
        Index.open(tmp_path / "library")


def change_engine_setting(path, **changes):
    """Rewrites what the database says of the engine; None takes a value away."""
    with Database(path / "library.db", SCHEMA, writable=True) as database:
        table = TrackTable(database)
        setting = {**table.setting("engine"), **changes}
        table.set_setting("engine", {name: value for name, value in setting.items() if value is not None})


def test_codes_of_another_release_are_left_alone_until_the_engine_is_built_again(rng, tmp_path):
    faiss_index(rng, 1500).save(tmp_path / "library")
    change_engine_setting(tmp_path / "library", codes_version=None)  # as the first release wrote it
    opened = Index.open(tmp_path / "library")
    assert opened.engine.name == "exact" and "codes of another release" in opened.note
    assert len(search(opened, track_query(opened, "t00000"))) == 10
    opened.build_engine("faiss")
    opened.save()
    assert Index.open(tmp_path / "library").engine.name == "faiss"
    assert len(list((tmp_path / "library").glob("codes-*"))) == 1


def test_faiss_index_opens_without_faiss(rng, tmp_path, monkeypatch):
    index = faiss_index(rng, 1500)
    index.save(tmp_path / "library")
    monkeypatch.setitem(sys.modules, "faiss", None)
    opened = Index.open(tmp_path / "library")
    assert opened.engine.name == "exact" and "not installed" in opened.note
    assert len(search(opened, track_query(opened, "t00000"))) == 10
