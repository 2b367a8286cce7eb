"""The npz of embeddings: written, read back, and refused when it is not one."""

from __future__ import annotations

import numpy as np
import pytest

from msim_tf.dimensions import EmbeddingLayout
from msim_tf.embeddings import Embeddings, load_embeddings, save_embeddings
from msim_tf.errors import InputError

LAYOUT = EmbeddingLayout(("genre", "tempo"), (3, 2))


def _vectors(n: int = 4, size: int = 5) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((n, size)).astype(np.float32)


def test_what_is_saved_is_loaded(tmp_path):
    path, vectors = tmp_path / "deep" / "ours.npz", _vectors()
    names = ("a", "bé", "c/d", "e@1.5")
    save_embeddings(path, identifiers=names, embeddings=vectors, layout=LAYOUT, meta={"model": "m", "epoch": 3})
    loaded = load_embeddings(path)
    assert loaded.identifiers == names
    assert loaded.layout == LAYOUT
    assert loaded.meta == {"model": "m", "epoch": 3}
    assert loaded.name == "ours"
    assert loaded.embeddings.dtype == np.float32
    np.testing.assert_array_equal(loaded.embeddings, vectors)
    assert [entry.name for entry in path.parent.iterdir()] == ["ours.npz"]


def test_rows_follow_the_identifiers_asked_for():
    system = Embeddings("s", ("a", "b", "c"), _vectors(3), LAYOUT)
    assert system.rows(["c", "a", "c"]).tolist() == [2, 0, 2]
    assert "b" in system
    with pytest.raises(InputError, match="s: no vector for x, y"):
        system.rows(["a", "x", "y", "x"])


@pytest.mark.parametrize("identifiers", [np.array([7, 8]), np.array([b"7", b"8"]), np.array(["7", "8"])])
def test_a_foreign_file_needs_two_arrays(tmp_path, identifiers):
    path = tmp_path / "openl3.npz"
    np.savez(path, identifiers=identifiers, vectors=np.array([[1.0, 2.0], [3.0, 4.0]]))
    loaded = load_embeddings(path, name="OpenL3")
    assert (loaded.name, loaded.identifiers, loaded.layout) == ("OpenL3", ("7", "8"), None)
    assert loaded.parts == (slice(0, 2),)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"identifiers": ["a"]}, "'embeddings' is missing|'vectors' is missing"),
        ({"embeddings": np.ones((1, 2))}, "'identifiers' is missing"),
        ({"identifiers": ["a", "a"], "embeddings": np.ones((2, 2))}, "more than once: a"),
        ({"identifiers": ["a"], "embeddings": np.ones((2, 2))}, "1 identifiers for 2 vectors"),
        ({"identifiers": ["a", "b"], "embeddings": np.array([[1.0, 2], [np.nan, 1]])}, "NaN or infinity .* of b;"),
        ({"identifiers": ["a"], "embeddings": np.ones(3)}, r"shape \(3,\)"),
        ({"identifiers": ["a"], "embeddings": np.array([["x"]])}, "expected real numbers"),
        ({"identifiers": ["a"], "embeddings": np.ones((1, 2)), "dimensions": ["genre"]}, "belong together"),
        (
            {"identifiers": ["a"], "embeddings": np.ones((1, 2)), "dimensions": ["genre"], "widths": [3]},
            r"2 coordinates, the layout \[3\] describes 3",
        ),
        (
            {"identifiers": ["a"], "embeddings": np.ones((1, 2)), "dimensions": ["loudness"], "widths": [2]},
            "loudness.*expected some of genre",
        ),
        (
            {"identifiers": ["a"], "embeddings": np.ones((1, 2)), "dimensions": ["genre"], "widths": ["two"]},
            "invalid literal",
        ),
        (
            {"identifiers": ["a"], "embeddings": np.ones((1, 2)), "dimensions": ["genre"], "widths": [np.inf]},
            "infinity",
        ),
        ({"identifiers": ["a"], "embeddings": np.ones((1, 2)), "meta": "{"}, "meta is not JSON"),
        ({"identifiers": ["a"], "embeddings": np.ones((1, 2)), "meta": "[" * 100_000}, "meta is not JSON"),
        ({"identifiers": ["a"], "embeddings": np.ones((1, 2)), "meta": "[1]"}, "expected a JSON object"),
    ],
)
def test_faulty_files_are_refused_by_name(tmp_path, arrays, message):
    path = tmp_path / "faulty.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"faulty.npz.*({message})"):
        load_embeddings(path)


def test_pickles_are_refused(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, identifiers=np.array(["a"], object), embeddings=np.ones((1, 2)))
    with pytest.raises(InputError, match="pickled objects are refused"):
        load_embeddings(path)


@pytest.mark.parametrize("content", [b"", b"not an npz", b"PK\x03\x04cut short"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not an npz"):
        load_embeddings(path)


def test_a_bare_array_and_a_missing_file_are_refused(tmp_path):
    np.save(tmp_path / "bare.npy", np.ones((2, 2)))
    with pytest.raises(InputError, match="not an npz"):
        load_embeddings(tmp_path / "bare.npy")
    with pytest.raises(InputError, match="nowhere.npz not found"):
        load_embeddings(tmp_path / "nowhere.npz")


def test_nothing_faulty_is_written(tmp_path):
    path = tmp_path / "faulty.npz"
    with pytest.raises(InputError, match="NaN"):
        save_embeddings(path, identifiers=["a"], embeddings=np.array([[np.inf]]))
    with pytest.raises(InputError, match="NUL"):
        save_embeddings(path, identifiers=["a\0"], embeddings=np.ones((1, 1)))
    assert list(tmp_path.iterdir()) == []


def test_no_array_hides_behind_a_wrong_length(tmp_path):
    """Lengths in a zip's list of entries lie at 28 to 33 behind its signature."""
    path = tmp_path / "a.npz"
    save_embeddings(path, identifiers=["a"], embeddings=np.ones((1, 3), np.float32))
    whole = path.read_bytes()
    entries = [place for place in range(len(whole)) if whole[place : place + 4] == b"PK\1\2"]
    assert len(entries) == 4
    for place in entries[:-1]:  # behind the last there is nothing to hide
        for offset in range(place + 28, place + 34):
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 16]) + whole[offset + 1 :])
            with pytest.raises(InputError, match="not an npz of plain arrays"):
                load_embeddings(path)
