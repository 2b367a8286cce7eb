"""The Million Song reader: tags by the taxonomy and threshold, three releases of splits, broken and hostile files."""

import os
import pickle
import sqlite3

import dataset_trees as trees
import pytest

from msim_tf.datasets.collection import ReadOptions
from msim_tf.datasets.reading import read_dataset, tracks_below
from msim_tf.errors import InputError

IDS = trees.TRACK_IDS


def read(root, *, by_artist=True, **options):
    return read_dataset("msd", root, tracks_below(root), options=ReadOptions(**options), by_artist=by_artist)


def by_number(values):
    """Track number -> value; the track under 7digital's number is the seventh."""
    numbers = {**{f"{track_id}.mp3": number for number, track_id in enumerate(IDS)}, "8000006.clip.mp3": 6}
    return {numbers[track.rpartition("/")[2]]: value for track, value in values.items()}


def test_tags_above_the_threshold_in_the_taxonomys_dimensions(tmp_path):
    actual = read(trees.msd(tmp_path))
    assert by_number(actual.labels.values) == {
        0: {"genre": ("Hip-Hop",), "era": ("80s",)},
        1: {"mood": ("Mellow",)},
        2: {"genre": ("rock",), "instrument": ("female vocalists",)},
        4: {"genre": ("metal",)},
    }
    assert by_number(actual.labels.groups) == {0: "AR0", 1: "AR0", 2: "AR1", 4: "AR3", 6: "AR5", 7: "AR6"}
    assert actual.left_out["two files of that name"] == (IDS[3],)
    assert IDS[5] in actual.left_out["no audio"]


def test_a_lower_threshold_and_the_year(tmp_path):
    actual = by_number(read(trees.msd(tmp_path), threshold=49, era_from_year=True).labels.values)
    assert actual[1] == {"genre": ("rock",), "mood": ("Mellow",), "era": ("90s",)}
    assert actual[0]["era"] == ("80s",)  # the tag wins; the year is unknown anyway
    assert actual[4]["era"] == ("1920s",) and actual[6]["era"] == ("60s",) and actual[7] == {"era": ("70s",)}
    assert "genre" not in actual[6]  # 49 is not above 49


def test_choi_split_by_artist(tmp_path):
    actual = read(trees.msd(tmp_path))
    assert actual.split.source == "Choi's split of the Million Song Dataset"
    tracks = {part: sorted(by_number(dict.fromkeys(names))) for part, names in actual.split.parts.items()}
    assert tracks == {"train": [2], "validation": [4], "test": [1, 6]}
    assert [by_number({track: 0}) for track in actual.left_out["artist of a later part, left out of train"]] == [{0: 0}]
    assert "no audio" in actual.faults  # track 5 is on the list
    published = read(tmp_path, by_artist=False).split.parts["train"]
    assert sorted(by_number(dict.fromkeys(published))) == [0, 2]


@pytest.mark.parametrize("protocol", [0, 2])
def test_lees_pickled_lists_win_and_their_tail_is_validation(tmp_path, protocol):
    root = trees.msd(tmp_path)
    fillers = [f"TRZZZZZ128F{number:07d}" for number in range(201_678)]
    trees.lee_lists(root, [IDS[2], *fillers, IDS[0], IDS[4]], [IDS[1]], protocol=protocol)
    actual = read(root, by_artist=False).split
    assert actual.source.startswith("Lee's")
    tracks = {part: sorted(by_number(dict.fromkeys(names))) for part, names in actual.parts.items()}
    assert tracks == {"train": [0, 2], "validation": [4], "test": [1]}


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    root = trees.msd(tmp_path)

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    trees.lee_lists(root, [IDS[0]], [IDS[1]])
    (root / "filtered_list_train.cP").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(
        InputError, match="filtered_list_train.cP: not a pickled list of track ids .it names posix.mkdir"
    ):
        read(root)
    assert not (tmp_path / "owned").exists()
    (root / "filtered_list_train.cP").write_bytes(pickle.dumps([IDS[0]])[:9])
    with pytest.raises(InputError, match="not a pickled list of track ids"):
        read(root)


def test_one_json_file_per_track(tmp_path):
    actual = read(trees.msd_json(tmp_path))
    assert by_number(actual.labels.values) == {0: {"genre": ("Hip-Hop",), "era": ("80s",)}, 1: {"mood": ("Mellow",)}}
    assert by_number(actual.labels.groups) == {0: "Artist 0", 1: "Artist 1"}
    assert actual.left_out["unreadable JSON"] == (IDS[2],)
    tracks = {part: sorted(by_number(dict.fromkeys(names))) for part, names in actual.split.parts.items()}
    assert tracks == {"train": [0, 2], "validation": [], "test": [1]}
    assert any("no track_metadata.db" in note for note in actual.notes)


def test_a_locked_database_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("msim_tf.datasets.tables._BUSY_SECONDS", 0.1)
    root = trees.msd(tmp_path)
    writer = sqlite3.connect(root / "lastfm_tags.db", isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match="lastfm_tags.db: database is locked; another program has it open"):
        read(root)
    writer.execute("ROLLBACK")
    assert read(root).labels.values


@pytest.mark.parametrize("part", [0.001, 0.5, 0.9])
def test_a_truncated_database_is_one_line(tmp_path, part):
    root = trees.msd(tmp_path)
    many = {number: {f"tag {number} {i}": 100 for i in range(2000)} | own for number, own in trees.LASTFM.items()}
    (root / "lastfm_tags.db").unlink()
    path = trees.lastfm_database(root / "lastfm_tags.db", many)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(InputError, match="lastfm_tags.db: .*(truncated|half a download)") as error:
        read(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["lastfm_tags.db", "track_metadata.db"])
def test_a_lost_end_is_noticed_before_sqlite_reads_there(tmp_path, name):
    path = trees.msd(tmp_path) / name
    whole = path.read_bytes()
    for length, text in ((0, "empty"), (60, "truncated or no SQLite"), (len(whole) - 1, "truncated, [0-9]+ of [0-9]+")):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"{name}: {text}"):
            read(tmp_path)
    path.write_bytes(whole)
    assert read(tmp_path).labels.values


def test_a_database_that_another_program_writes_ahead_of_is_whole(tmp_path):
    root = trees.msd(tmp_path)
    writer = sqlite3.connect(root / "lastfm_tags.db")
    writer.execute("PRAGMA journal_mode=WAL")
    writer.executemany("INSERT INTO tags VALUES (?)", ((f"new tag {number}" * 50,) for number in range(200)))
    writer.commit()
    assert by_number(read(root).labels.values)[1] == {"mood": ("Mellow",)}
    writer.close()


def test_text_where_numbers_belong_is_unknown_and_latin_1_is_read(tmp_path):
    root = trees.msd(tmp_path)
    latin = "CAST(X'4A656E73204EF8727265' AS TEXT)"
    with sqlite3.connect(root / "track_metadata.db") as database:
        database.execute(f"UPDATE songs SET year = 'soon', track_7digitalid = NULL, artist_id = {latin}")
    with sqlite3.connect(root / "lastfm_tags.db") as database:
        database.execute("UPDATE tid_tag SET val = 'much' WHERE tid = 1")
    labels = read(root, by_artist=False, era_from_year=True).labels
    assert set(labels.groups.values()) == {"Jens N\xf8rre"}
    values = by_number(labels.values)
    assert 0 not in values and values[1] == {"mood": ("Mellow",)}


def test_another_database_is_one_line(tmp_path):
    root = trees.msd(tmp_path)
    (root / "lastfm_tags.db").unlink()
    sqlite3.connect(root / "lastfm_tags.db").execute("CREATE TABLE tids (tid TEXT)").connection.close()
    with pytest.raises(InputError, match="no tags.tag in it; another database"):
        read(root)
