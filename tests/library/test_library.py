"""A library as Python code uses it: the same answers as the engine room gives, with names that paste back."""

import shutil

import numpy as np
import pytest
from synthetic import SMALL
from tiny_model import tiny_model_path

import msim_tf
from msim_tf.errors import InputError
from msim_tf.library.playlists import read_playlist
from msim_tf.library.update_options import UpdateOptions
from msim_tf.search.query import examples_query, search, track_query


@pytest.fixture(scope="module")
def folder(clips_folder, tmp_path_factory):
    """A copy of the clips, so that the library's folder is this test's own."""
    return shutil.copytree(clips_folder, tmp_path_factory.mktemp("front") / "music")


@pytest.fixture(scope="module")
def library(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("library") / "library"
    return msim_tf.index(folder, path, model=tiny_model_path(), options=UpdateOptions(pad=True))


def test_index_says_what_it_did_and_open_finds_it(library):
    assert library.summary.new == len(library) == len(list(library))
    again = msim_tf.open_library(library.catalog.path)
    assert again.summary is None
    assert again.tracks == library.tracks
    assert repr(again).startswith(f"<Library 'music': {len(library)} tracks, genre, mood")


def test_hits_are_those_of_the_search(library):
    track = library.tracks[0]
    expected = search(library.index, track_query(library.index, track), weights={"mood": 1, "era": -0.5}, k=5)
    hits = library.similar(track, mood=1, era=-0.5, k=5)
    assert [(hit.track, hit.distance) for hit in hits] == [(match.identifier, match.distance) for match in expected]
    for hit in hits:
        assert hit.path == library.catalog.music / hit.track
        assert hit.path.is_file()
        assert sum(hit.shares.values()) == pytest.approx(hit.distance)
        assert "mood" in hit.why
    assert repr(hits).splitlines()[0].endswith(hits[0].track)
    assert [hit.track for hit in hits[1:3]] == [hits[1].track, hits[2].track]


def test_a_track_is_named_by_identifier_file_or_vector(library, folder):
    track = library.tracks[1]
    expected = [hit.track for hit in library.similar(track)]
    assert [hit.track for hit in library.similar(folder / track)] == expected
    vector = library.index.vectors([track])[0]
    hits = library.similar(vector)
    assert hits[0].track == track
    assert hits[0].distance == pytest.approx(0, abs=1e-3)


def test_a_file_from_elsewhere_is_embedded_by_the_librarys_model(library, folder, tmp_path):
    copy = shutil.copy(folder / library.tracks[3], tmp_path / "elsewhere.wav")
    nearest = library.similar(str(copy))[0]
    assert nearest.track == library.tracks[3]
    assert nearest.distance == pytest.approx(0, abs=1e-3)


def test_names_that_no_file_can_have_are_no_tracks(library, tmp_path):
    (tmp_path / "list.m3u").write_text("file:///a%00b\n")
    (tmp_path / "loop").symlink_to("loop")
    (nul,) = read_playlist(tmp_path / "list.m3u")
    for name in (nul, "a\0b", tmp_path / "loop"):
        with pytest.raises(InputError, match="has no track"):
            library.identify(name)


def test_several_tracks_mixes_and_paths(library):
    first, second, third = library.tracks[:3]
    expected = search(library.index, examples_query(library.index, [first, second]), k=3)
    assert [hit.track for hit in library.similar([first, second], k=3)] == [match.identifier for match in expected]
    mixed = library.mix({"genre": first, "tempo": second}, k=3)
    assert set(mixed[0].shares) >= {"genre", "tempo"}
    assert sum(mixed[0].shares.values()) == pytest.approx(mixed[0].distance)
    path = library.path(first, third, length=5)
    assert [path[0].track, path[-1].track] == [first, third]
    assert len({hit.track for hit in path}) == 5


def test_wrong_questions_are_one_line(library, tmp_path):
    with pytest.raises(InputError, match="has no track 'nothing'"):
        library.similar("nothing")
    with pytest.raises(InputError, match="loudness"):
        library.similar(library.tracks[0], loudness=1)
    with pytest.raises(InputError, match="has no track"):
        library.path(library.tracks[0], "nothing")
    with pytest.raises(InputError, match=r"library.db not found"):
        msim_tf.open_library(tmp_path)
    with pytest.raises(InputError, match="at least one"):
        library.similar([])


def test_hits_become_a_table(library):
    pandas = pytest.importorskip("pandas")
    hits = library.similar(library.tracks[0], k=4)
    table = hits.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["track"]) == [hit.track for hit in hits]
    shares = table[[column for column in table if column.startswith("share_")]]
    np.testing.assert_allclose(shares.sum(axis=1), table["distance"])


def test_the_model_of_the_library_hears_its_own_features(library):
    with msim_tf.load(library.catalog.model) as model:
        assert model.metadata.features == SMALL
        assert model.dimensions == library.dimensions
