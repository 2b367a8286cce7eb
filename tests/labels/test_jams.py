"""JAMS files made by the genuine library, read by ours."""

import jams
import pytest

from msim_tf.errors import InputError
from msim_tf.labels.encoding import Labels, read_labels_jams


def save(path, annotations, artist=""):
    """``annotations``: (namespace, [(time, duration, value, confidence), ...])."""
    file = jams.JAMS()
    file.file_metadata.duration = 30.0
    file.file_metadata.artist = artist
    for namespace, observations in annotations:
        annotation = jams.Annotation(namespace=namespace)
        for time, duration, value, confidence in observations:
            annotation.append(time=time, duration=duration, value=value, confidence=confidence)
        file.annotations.append(annotation)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save(str(path))
    return path


def test_every_namespace_is_read(tmp_path):
    path = save(
        tmp_path / "song.jams",
        [
            ("tempo", [(0, 30, 60.0, 0.2), (0, 30, 120.5, 0.8)]),
            ("key_mode", [(0, 5, "C:major", None), (5, 25, "A:minor", None)]),
            ("tag_open", [(0, 30, "Happy", 1), (0, 30, "my dog", 1), (0, 30, "80s", 1)]),
            ("tag_gtzan", [(0, 30, "reggae", 1)]),
            ("tag_fma_genre", [(0, 30, "Hip-Hop", 1)]),
            ("tag_medleydb_instruments", [(0, 30, "violin", 1)]),
            ("beat", [(0, 0, 1, None)]),
        ],
        artist=" Bob ",
    )
    expected = {
        "genre": ("Hip-Hop", "reggae"),
        "mood": ("happy",),
        "instrument": ("violin",),
        "era": ("80s",),
        "tempo": ("120.5",),
        "key": ("A minor",),
    }
    assert read_labels_jams(path, ["song.mp3", "other.mp3"]) == Labels({"song.mp3": expected}, {"song.mp3": "Bob"})
    assert read_labels_jams(path).identifiers == ("song",)


@pytest.mark.parametrize(("namespace", "value"), [("key_mode", "N"), ("key_mode", "D:dorian"), ("tempo", 0.0)])
def test_what_says_nothing_is_unknown(tmp_path, namespace, value):
    path = save(tmp_path / "a.jams", [(namespace, [(0, 30, value, 1)])])
    assert read_labels_jams(path, ["a.ogg"]) == Labels()


def test_a_folder_is_matched_by_path_and_then_by_stem(tmp_path):
    for name in ("x/one", "y/one", "two"):
        save(tmp_path / f"{name}.jams", [("tempo", [(0, 30, 100.0, 1)])])
    tracks = ["x/one.ogg", "y/one.flac", "deep/two.v1.ogg", "deep/two.ogg"]
    assert read_labels_jams(tmp_path, tracks).identifiers == ("deep/two.ogg", "x/one.ogg", "y/one.flac")
    with pytest.raises(InputError, match=r"two\.jams: 2 tracks \(a/two\.ogg, b/two\.ogg\) named 'two'"):
        read_labels_jams(tmp_path / "two.jams", ["a/two.ogg", "b/two.ogg"])
    with pytest.raises(InputError, match=r"two\.jams: no track named 'two'"):
        read_labels_jams(tmp_path / "two.jams", ["a/three.ogg"])


@pytest.mark.parametrize(
    "text", ["", "not json", "[]", "[" * 100_000, '{"annotations": 3}', '{"file_metadata": [], "annotations": []}']
)
def test_what_is_no_jams_is_an_error(tmp_path, text):
    (tmp_path / "a.jams").write_text(text)
    with pytest.raises(InputError, match=r"a\.jams: not a JAMS file"):
        read_labels_jams(tmp_path / "a.jams", ["a.ogg"])


def test_half_a_character_is_refused(tmp_path):
    """JSON can spell it, and no database keeps it."""
    text = '{"file_metadata": {"artist": "a\\ud800", "duration": 1, "jams_version": "0.3.4"}, "annotations": []}'
    (tmp_path / "a.jams").write_text(text)
    with pytest.raises(InputError, match=r"a\.jams: a\.ogg: artist 'a.ud800' is not valid Unicode"):
        read_labels_jams(tmp_path / "a.jams", ["a.ogg"])


def test_missing_files_are_an_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no \.jams file"):
        read_labels_jams(tmp_path)
    with pytest.raises(InputError, match=r"none\.jams: cannot be read \(No such file"):
        read_labels_jams(tmp_path / "none.jams")
