"""Label tables: what is written is read back, and every fault is named with its file and line."""

import json

import pytest

from msim_tf.errors import InputError
from msim_tf.labels.encoding import Labels, read_labels_csv, validate_tracks, write_labels_csv
from msim_tf.labels.tables import divided_groups

TABLE = """track,dimension,value
a.ogg,artist,"Guns, ""N"" Roses"
a.ogg,genre,Hard-Rock
a.ogg,genre,my own
a.ogg,tag,1980s
a.ogg,tempo,120.50
a.ogg,key,Am
d/é.ogg,Mood,SAD
d/é.ogg,era,
"""
EXPECTED = Labels(
    {
        "a.ogg": {"genre": ("hard rock", "my own"), "era": ("80s",), "tempo": ("120.5",), "key": ("A minor",)},
        "d/é.ogg": {"mood": ("sad",)},
    },
    {"a.ogg": 'Guns, "N" Roses'},
)


def read(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return read_labels_csv(path)


def test_a_table_is_read(tmp_path):
    assert read(tmp_path, TABLE) == EXPECTED
    assert EXPECTED.identifiers == ("a.ogg", "d/é.ogg")


def test_tables_of_other_programs_are_read(tmp_path):
    assert read(tmp_path, TABLE, "utf-8-sig") == EXPECTED
    assert read(tmp_path, TABLE.replace("\n", "\r\n") + "\r\n,,\r\n") == EXPECTED
    columns = "note,Value , TRACK,dimension\nx,rock,a.ogg,genre\n"
    assert read(tmp_path, columns) == Labels({"a.ogg": {"genre": ("rock",)}})


def test_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "labels.csv"
    write_labels_csv(path, EXPECTED)
    assert read_labels_csv(path) == EXPECTED
    write_labels_csv(path, Labels())
    assert read_labels_csv(path) == Labels()
    assert [file.name for file in path.parent.iterdir()] == ["labels.csv"]


def test_json_round_trip():
    assert Labels.from_json(json.loads(json.dumps(EXPECTED.to_json()))) == EXPECTED


def test_merge_prefers_the_other_per_track_and_dimension():
    other = Labels({"a.ogg": {"tempo": ("90",)}, "b.ogg": {"key": ("C major",)}}, {"b.ogg": "B"})
    merged = EXPECTED.merge(other)
    assert merged.values["a.ogg"] == {**EXPECTED.values["a.ogg"], "tempo": ("90",)}
    assert merged.values["d/é.ogg"] == {"mood": ("sad",)} and merged.values["b.ogg"] == {"key": ("C major",)}
    assert merged.groups == {**EXPECTED.groups, "b.ogg": "B"}
    assert EXPECTED.values["a.ogg"]["tempo"] == ("120.5",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,colour,red", "dimension 'colour', expected one of genre, mood, instrument, era, tempo, key, tag, artist"),
        ("a,tempo,fast", "tempo 'fast': expected beats per minute as a number > 0"),
        ("a,tempo,0", "tempo '0'"),
        ("a,tempo,-3", "tempo '-3'"),
        ("a,tempo,nan", "tempo 'nan'"),
        ("a,tempo,inf", "tempo 'inf'"),
        ("a,key,H dur", "key 'H dur'"),
        ("a,tag,shoegaze", "tag 'shoegaze' is not in the taxonomy; .* rock, pop, alternative"),
        ("a,genre", "2 cells, expected 3"),
        (",genre,rock", "the track or the dimension is empty"),
        ("a,,rock", "the track or the dimension is empty"),
        ('a,genre,"rock', "not valid CSV"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, message):
    with pytest.raises(InputError, match=rf"labels\.csv, line 3: {message}"):
        read(tmp_path, f"track,dimension,value\nb,genre,rock\n{row}\n")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,tempo,120\na,tempo,121", "a has two values of tempo, 120 and 121"),
        ("a,key,Am\na,key,C", "a has two values of key, A minor and C major"),
    ],
)
def test_a_contradiction_is_named_and_a_repetition_is_not(tmp_path, rows, message):
    with pytest.raises(InputError, match=rf"line 3: {message}"):
        read(tmp_path, f"track,dimension,value\n{rows}\n")
    first = rows.split("\n")[0]
    read(tmp_path, f"track,dimension,value\n{first}\n{first}\n")


@pytest.mark.parametrize("text", ["", "a,b,c\n", "track;dimension;value\n", "track,dimension,value,value\n"])
def test_a_wrong_header_is_named(tmp_path, text):
    with pytest.raises(InputError, match=r"labels\.csv, line 1: the header is .* expected track,dimension,value"):
        read(tmp_path, text)


def test_an_unreadable_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: cannot be read \(No such file"):
        read_labels_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_labels_csv(tmp_path)
    with pytest.raises(InputError, match=r"labels\.csv, line 2: not UTF-8"):
        read(tmp_path, "track,dimension,value\né,genre,rock\n", "latin-1")
    with pytest.raises(InputError, match=r"labels\.csv, line 1: not UTF-8"):
        read(tmp_path, TABLE, "utf-16")


@pytest.mark.parametrize("character", ["\0", "\x1f", "\x1b", "\x7f"])
@pytest.mark.parametrize("row", ["a{},genre,rock", "a,artist,X{}Y", "a,genre{},rock"])
def test_control_characters_are_named(tmp_path, row, character):
    with pytest.raises(InputError, match=r"labels\.csv, line 3: (a control character|not valid CSV)"):
        read(tmp_path, f"track,dimension,value\nb,genre,rock\n{row.format(character)}\n")


def test_labels_of_unknown_tracks_are_named():
    where = {"table": "my.csv", "tracks_of": "/m/store"}
    validate_tracks(EXPECTED, ["a.ogg", "d/é.ogg", "more.ogg"], **where)
    with pytest.raises(InputError, match=r"^my\.csv: labels for 1 track \(d/é\.ogg\) that is not in /m/store; a track"):
        validate_tracks(EXPECTED, ["a.ogg"], **where)
    many = Labels({}, {f"{number}.ogg": "X" for number in range(7)})
    expected = r"^my\.csv: labels for 7 tracks \(0\.ogg, 1\.ogg, 2\.ogg, \.\.\.\) that are not in /m/store;"
    with pytest.raises(InputError, match=expected):
        validate_tracks(many, ["a.ogg"], **where)


def test_the_table_of_the_real_excerpts(music):
    labels = read_labels_csv(music / "labels.csv")
    tracks = sorted(path.name for path in music.glob("*.ogg"))
    validate_tracks(labels, tracks, table="labels.csv", tracks_of=music)
    assert labels.groups == {track: track.split("__")[0] for track in tracks}
    for dimension in ("genre", "mood", "instrument"):
        sources = {}
        for track, known in labels.values.items():
            for value in known.get(dimension, ()):
                sources.setdefault(value, set()).add(labels.groups[track])
        # Triplets across sources need two values that two sources hold.
        assert sum(len(held) >= 2 for held in sources.values()) >= 2, dimension
        labelled = sum(dimension in known for known in labels.values.values())
        assert labelled < len(tracks), f"{dimension} should have honest gaps"
    assert not any({"era", "tempo", "key"} & set(known) for known in labels.values.values())


def test_a_track_of_several_artists_belongs_to_all_of_them(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("track,dimension,value\na,artist,Y\na,artist,X\nb,artist,X\na,artist,Y\n")
    labels = read_labels_csv(path)
    assert divided_groups(labels.groups["a"]) == ("X", "Y") and labels.groups["b"] == "X"
    write_labels_csv(tmp_path / "again.csv", labels)
    assert read_labels_csv(tmp_path / "again.csv") == labels == Labels.from_json(labels.to_json())
