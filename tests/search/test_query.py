"""Queries against brute-force loops in plain Python."""

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.search.diversity import Diversity
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.path import track_path
from msim_tf.search.query import examples_query, mixed_query, search, track_query, vector_query

WEIGHTS = [None, {"tempo": 1.0}, {"genre": 3, "mood": 1, "key": 0}, {"mood": 1, "tempo": 1, "era": -0.8}, {"key": -1}]


def brute_force(index, vector, weights, *, exclude=()):
    """(distance, identifier) of every track, ascending, by loops over dimensions and coordinates."""
    slices = index.source.layout.slices
    weights = weights or dict.fromkeys(slices, 1.0)
    total = sum(abs(weight) for weight in weights.values())
    distances = []
    for name, stored in zip(index.identifiers, index.vectors(index.identifiers).astype(float)):
        distance = 0.0
        for dimension, part in slices.items():
            weight = weights.get(dimension, 0) / total
            distance += weight * sum((a - b) ** 2 for a, b in zip(vector[part], stored[part]))
        if name not in exclude:
            distances.append((distance, name))
    return sorted(distances)


def assert_same(matches, expected):
    assert [match.identifier for match in matches] == [name for _, name in expected]
    for match, (distance, _) in zip(matches, expected):
        assert match.distance == pytest.approx(distance, abs=1e-6)
        assert sum(match.shares.values()) == pytest.approx(match.distance, abs=1e-12)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_search_by_track_is_that_of_a_loop(index, weights):
    matches = search(index, track_query(index, "t0017.ogg"), weights=weights, k=20)
    vector = index.vectors(["t0017.ogg"])[0]
    assert_same(matches, brute_force(index, vector, weights, exclude={"t0017.ogg"})[:20])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_search_by_vector_is_that_of_a_loop(rng, index, weights):
    vector = rng.normal(size=48)
    query = vector_query(index, 5 * vector)
    assert_same(search(index, query, weights=weights, k=7), brute_force(index, query.vector, weights)[:7])
    for part in index.source.layout.slices.values():
        np.testing.assert_allclose(query.vector[part], vector[part] / np.linalg.norm(vector[part]), atol=1e-6)


def test_distances_of_single_dimensions_are_unweighted(index):
    match = search(index, track_query(index, "t0001.ogg"), weights={"mood": 2, "era": 1, "key": -1}, k=1)[0]
    assert set(match.distances) == set(DIMENSION_NAMES)
    for name, weight in {"mood": 0.5, "era": 0.25, "key": -0.25, "genre": 0.0}.items():
        assert match.shares[name] == pytest.approx(weight * match.distances[name])


def test_several_examples_are_their_mean_direction(index):
    names = ["t0003.ogg", "t0004.ogg", "t0005.ogg"]
    vectors = index.vectors(names).astype(float)
    mean = np.zeros(48)
    for part in index.source.layout.slices.values():
        middle = (vectors[0, part] + vectors[1, part] + vectors[2, part]) / 3
        mean[part] = middle / math.sqrt(sum(middle**2))
    matches = search(index, examples_query(index, names), k=10)
    assert_same(matches, brute_force(index, mean, None, exclude=set(names))[:10])
    also = search(index, examples_query(index, ["t0003.ogg", *vectors[1:]]), k=12)
    assert {"t0004.ogg", "t0005.ogg"} <= {match.identifier for match in also}


def test_one_example_is_the_track(index):
    one = search(index, examples_query(index, ["t0009.ogg"]))
    assert [match.identifier for match in one] == [m.identifier for m in search(index, track_query(index, "t0009.ogg"))]


def test_mix_and_match(index):
    a, b = "t0010.ogg", "t0020.ogg"
    query = mixed_query(index, {"genre": a, "tempo": b})
    vectors, slices = index.vectors([a, b]), index.source.layout.slices
    vector = np.zeros(48)
    vector[slices["genre"]], vector[slices["tempo"]] = vectors[0, slices["genre"]], vectors[1, slices["tempo"]]
    matches = search(index, query, k=15)
    assert_same(matches, brute_force(index, vector, {"genre": 1, "tempo": 1}, exclude={a, b})[:15])
    assert set(matches[0].distances) == {"genre", "tempo"} and query.references == {"genre": a, "tempo": b}
    weighted = search(index, query, weights={"genre": 1, "tempo": -0.2}, k=15)
    assert_same(weighted, brute_force(index, vector, {"genre": 1, "tempo": -0.2}, exclude={a, b})[:15])
    with pytest.raises(InputError, match="weights of mood: the query has only genre, tempo"):
        search(index, query, weights={"mood": 1})


def test_threads_may_search_a_fresh_index_together(index, embeddings, tmp_path):
    index.save(tmp_path / "library")
    names, filters = index.identifiers[:40], Filters(tags=("rock",))
    expected = [[m.identifier for m in search(index, track_query(index, name), filters=filters)] for name in names]
    opened = Index.open(tmp_path / "library")
    with ThreadPoolExecutor(8) as pool:
        actual = pool.map(lambda name: search(opened, track_query(opened, name), filters=filters), names)
        assert [[match.identifier for match in matches] for matches in actual] == expected


def test_removed_tracks_are_not_found_and_new_ones_are(index, embeddings):
    nearest = search(index, track_query(index, "t0017.ogg"), k=2)
    index.remove([nearest[0].identifier])
    assert search(index, track_query(index, "t0017.ogg"), k=1)[0].identifier == nearest[1].identifier
    twin = replace(embeddings, identifiers=("twin",), embeddings=embeddings.embeddings[17:18])
    index.add(twin)
    actual = search(index, track_query(index, "t0017.ogg"), k=1)[0]
    assert actual.identifier == "twin" and actual.distance == 0


def test_ties_follow_the_identifier_whatever_happened_before(rng, embeddings, tmp_path):
    names = [f"{name:03d}" for name in rng.permutation(120)]
    same = np.repeat(rng.normal(size=(1, 48)), 120, 0).astype(np.float32)
    index = Index.build(replace(embeddings, identifiers=tuple(names), embeddings=same))
    expected = [name for name in sorted(names) if name != "050"][:30]
    query = track_query(index, "050")
    assert [match.identifier for match in search(index, query, k=30)] == expected
    index.update(replace(embeddings, identifiers=("003", "001"), embeddings=same[:2]))
    index.save(tmp_path / "library")
    for held in (index, Index.open(tmp_path / "library")):
        assert [match.identifier for match in search(held, query, k=30)] == expected


def test_fewer_tracks_than_asked_and_none(index, embeddings):
    assert len(search(index, track_query(index, "t0000.ogg"), k=1000)) == 299
    query = track_query(index, "t0000.ogg")
    index.remove(embeddings.identifiers)
    assert search(index, query) == []
    assert search(index, query, filters=Filters(tags=("rock",)), diversity=Diversity(per_artist=1)) == []


def passes(held, *, low=None, high=None, octaves=False, keys=(), tags=(), artists=(), years=None):
    """Filters by hand, octaves by trying them."""
    if low is not None:
        tempos = [held.get("tempo", math.nan) * 2.0**k for k in (range(-6, 7) if octaves else (0,))]
        if not any(low <= tempo <= high for tempo in tempos):
            return False
    if keys and held.get("key") not in keys:
        return False
    every = {tag.lower() for name in ("genre", "mood", "instrument", "era", "tags") for tag in held.get(name, [])}
    if not {tag.lower() for tag in tags} <= every:
        return False
    if artists and held.get("artist", "").lower() not in [artist.lower() for artist in artists]:
        return False
    return years is None or ("year" in held and years[0] <= held["year"] <= years[1])


@pytest.mark.parametrize(
    "filters, hand",
    [
        (Filters(bpm=(100, 120)), {"low": 100, "high": 120}),
        (Filters(bpm=(100, 120), octaves=True), {"low": 100, "high": 120, "octaves": True}),
        (Filters(bpm=(60, 60), octaves=True), {"low": 60, "high": 60, "octaves": True}),
        (Filters(keys=("Bb major", "A minor")), {"keys": ("Bb major", "A# major", "A minor")}),
        (Filters(tags=("ROCK", "jazz", "calm")), {"tags": ("rock", "jazz", "calm")}),
        (Filters(artists=("artist 3", "Artist 5")), {"artists": ("Artist 3", "Artist 5")}),
        (Filters(years=(1970, 1979), tags=("acoustic",)), {"years": (1970, 1979), "tags": ("acoustic",)}),
    ],
)
def test_filters_are_those_of_a_loop(index, filters, hand):
    query = track_query(index, "t0040.ogg")
    everything = search(index, query, k=300)
    expected = [match.identifier for match in everything if passes(match.metadata, **hand)]
    assert 0 < len(expected) < 240
    assert [match.identifier for match in search(index, query, filters=filters, k=300)] == expected


def test_octaves_of_a_tempo_are_off_by_default(index):
    index.update_metadata({"t0000.ogg": {"tempo": 60}, "t0001.ogg": {"tempo": 120}})
    query = track_query(index, "t0002.ogg")

    def names(filters):
        return {match.identifier for match in search(index, query, filters=filters, k=300)}

    assert not {"t0000.ogg"} & names(Filters(bpm=(118, 122)))
    assert {"t0000.ogg", "t0001.ogg"} <= names(Filters(bpm=(118, 122), octaves=True))


def test_filters_keep_to_named_tracks(index):
    query = track_query(index, "t0040.ogg")
    some = frozenset({"t0001.ogg", "t0041.ogg", "t0040.ogg", "nowhere.ogg"})
    everything = [match.identifier for match in search(index, query, k=300)]
    expected = [name for name in everything if name in some]
    assert sorted(expected) == ["t0001.ogg", "t0041.ogg"]
    assert [match.identifier for match in search(index, query, filters=Filters(tracks=some))] == expected
    assert search(index, query, filters=Filters(tracks=frozenset())) == []


def test_filters_see_changes_of_the_index(index):
    query = track_query(index, "t0002.ogg")
    index.update_metadata({"t0000.ogg": {"tags": ["rare"]}})
    assert [match.identifier for match in search(index, query, filters=Filters(tags=("Rare",)))] == ["t0000.ogg"]
    index.update_metadata({"t0000.ogg": {"tags": ["common"]}})
    assert search(index, query, filters=Filters(tags=("rare",))) == []


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Filters(bpm=(120, 100)), "lower limit first"),
        (lambda: Filters(bpm=(0, 100)), "above 0"),
        (lambda: Filters(years=(2000, 1990)), "lower limit first"),
        (lambda: Filters(keys=("H minor",)), "key 'H minor'"),
        (lambda: Filters(tags="rock"), "expected a sequence"),
        (lambda: Diversity(per_artist=0), "per_artist is 0"),
        (lambda: Diversity(relevance=0), "relevance is 0"),
    ],
)
def test_bad_conditions_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_limits_per_artist_and_album_are_those_of_a_loop(index):
    query = track_query(index, "t0040.ogg")
    chosen, artists, albums = [], {}, {}
    for match in search(index, query, k=300):
        artist, album = match.metadata.get("artist"), (match.metadata.get("artist"), match.metadata.get("album"))
        if artist and (artists.get(artist, 0) >= 3 or albums.get(album, 0) >= 1):
            continue
        artists[artist] = artists.get(artist, 0) + 1
        albums[album] = albums.get(album, 0) + 1
        chosen.append(match.identifier)
    actual = search(index, query, diversity=Diversity(per_artist=3, per_album=1), k=300)
    assert [match.identifier for match in actual] == chosen
    ten = search(index, query, diversity=Diversity(per_artist=3, per_album=1), k=10)
    assert [match.identifier for match in ten] == chosen[:10]


def test_limits_look_beyond_the_first_candidates(rng, embeddings):
    """One artist has the 200 nearest tracks; the hits of others lie behind them."""
    index = Index.build(embeddings)
    ranked = [match.identifier for match in search(index, track_query(index, "t0000.ogg"), k=299)]
    index.update_metadata({name: {"artist": "A" if place < 200 else f"{place}"} for place, name in enumerate(ranked)})
    actual = search(index, track_query(index, "t0000.ogg"), diversity=Diversity(per_artist=2), k=5)
    assert [match.identifier for match in actual] == [*ranked[:2], *ranked[200:203]]


def test_marginal_relevance_is_that_of_a_loop(index):
    query, relevance = track_query(index, "t0040.ogg"), 0.6
    pool = [(match.identifier, match.distance) for match in search(index, query, k=100)]
    vectors = dict(zip(index.identifiers, index.vectors(index.identifiers).astype(float)))

    def apart(a, b):
        return float(np.square(vectors[a] - vectors[b]).sum()) / 6

    chosen = [pool[0][0]]
    while len(chosen) < 8:
        costs = [
            (relevance * distance - (1 - relevance) * min(apart(name, other) for other in chosen), name)
            for name, distance in pool
            if name not in chosen
        ]
        chosen.append(min(costs)[1])
    actual = search(index, query, diversity=Diversity(relevance=relevance), k=8)
    assert [match.identifier for match in actual] == chosen
    plain = [name for name, _ in pool[:8]]
    assert chosen != plain

    def closest(names):
        return min(apart(a, b) for place, a in enumerate(names) for b in names[:place])

    assert closest(chosen) > closest(plain)


def test_full_relevance_is_the_plain_ranking(index):
    query = track_query(index, "t0040.ogg")
    plain = [match.identifier for match in search(index, query)]
    limited = search(index, query, diversity=Diversity(relevance=1.0, per_artist=1000))
    assert [match.identifier for match in limited] == plain


@pytest.fixture
def circle(rng, embeddings):
    """Tracks every 5 degrees of a half circle in all subspaces, in random order, among unrelated ones."""
    names, vectors = [], []
    for degrees in rng.permutation(np.arange(0, 180, 5)):
        names.append(f"{degrees:03d}")
        vectors.append(np.tile([math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), *[0] * 6], 6))
    noise = rng.normal(size=(50, 48))
    noise[:, [0, 1, 8, 9, 16, 17, 24, 25, 32, 33, 40, 41]] = 0
    names += [f"noise{i}" for i in range(50)]
    metadata = {name: {"artist": "even" if int(name) % 10 == 0 else "odd"} for name in names[:36]}
    return Index.build(replace(embeddings, identifiers=tuple(names), embeddings=np.array([*vectors, *noise])), metadata)


def test_a_path_turns_at_constant_speed_and_repeats_nothing(circle):
    path = track_path(circle, "000", "120", length=13, diversity=Diversity())
    assert [match.identifier for match in path] == [f"{degrees:03d}" for degrees in range(0, 121, 10)]
    # A chord of 10 degrees: 4 sin(5 degrees)^2 in every dimension.
    chord = 4 * math.sin(math.radians(5)) ** 2
    assert path[0].distance == 0
    for match in path[1:]:
        assert match.distance == pytest.approx(chord, abs=2e-4)
        assert sum(match.shares.values()) == pytest.approx(match.distance)


def test_a_path_longer_than_the_way_still_repeats_nothing(circle):
    path = [match.identifier for match in track_path(circle, "000", "030", length=20)]
    assert path[0] == "000" and path[-1] == "030" and len(set(path)) == 20


def test_a_path_obeys_filters_and_limits(circle):
    odd = Filters(artists=("odd",))
    path = track_path(circle, "000", "120", length=13, filters=odd, diversity=Diversity())
    assert all(int(match.identifier) % 10 == 5 for match in path[1:-1])
    limited = track_path(circle, "000", "120", length=8, diversity=Diversity(per_artist=3))
    artists = [match.metadata.get("artist") for match in limited]
    assert artists.count("even") == 3 and artists.count("odd") == 3 and artists.count(None) == 2
    with pytest.raises(InputError, match="only 20 tracks are left"):
        track_path(circle, "000", "120", length=25, filters=Filters(artists=("odd",)))


def test_a_path_has_two_tracks_of_an_artist_while_others_are_left(circle):
    def artists(**options):
        return [match.metadata.get("artist") for match in track_path(circle, "000", "120", **options)]

    counts = Counter(artists(length=8))
    assert counts == {"even": 2, "odd": 2, None: 4}  # both ends are even
    # Among the odd alone the third to last are taken all the same, in the places nearest to the way.
    path = track_path(circle, "000", "120", length=13, filters=Filters(artists=("odd",)))
    assert Counter(match.metadata["artist"] for match in path) == {"even": 2, "odd": 11}
    assert all(int(match.identifier) % 10 == 5 for match in path[1:-1])
    assert Counter(artists(length=13, diversity=Diversity()))["even"] == 13


def test_bad_paths_are_refused(circle):
    with pytest.raises(InputError, match="expected two tracks"):
        track_path(circle, "000", "000")
    with pytest.raises(InputError, match="none below 0"):
        track_path(circle, "000", "010", weights={"mood": -1})
    with pytest.raises(InputError, match="no track 'nowhere'"):
        track_path(circle, "000", "nowhere")
    assert [match.identifier for match in track_path(circle, "000", "175", length=2)] == ["000", "175"]


def test_bad_queries_are_refused(index):
    query = track_query(index, "t0000.ogg")
    for call, message in (
        (lambda: search(index, query, k=0), "k is 0"),
        (lambda: search(index, query, weights={"tempi": 1}), "tempi"),
        (lambda: search(index, query, weights={"tempo": math.inf}), "finite"),
        (lambda: track_query(index, "x"), "no track 'x'"),
        (lambda: vector_query(index, np.zeros(5)), r"shape \(5,\): expected 48"),
        (lambda: vector_query(index, np.full(48, np.nan)), "finite"),
        (lambda: examples_query(index, []), "at least one"),
        (lambda: examples_query(index, "t0000.ogg"), "in a list"),
        (lambda: mixed_query(index, {}), "at least one dimension"),
        (lambda: mixed_query(index, {"tune": "t0000.ogg"}), "tune"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_later_changes_of_the_callers_array_do_not_reach_the_index(rng, embeddings):
    vectors = embeddings.embeddings.copy()
    index = Index.build(Embeddings("x", embeddings.identifiers, vectors, embeddings.layout, embeddings.meta))
    before = index.vectors(["t0003.ogg"])
    vectors[:] = rng.normal(size=vectors.shape)
    np.testing.assert_array_equal(index.vectors(["t0003.ogg"]), before)
