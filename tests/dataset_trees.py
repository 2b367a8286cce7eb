"""Small trees in each data set's exact layout, with every odd case of the real files, and real excerpts as audio."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import sqlite3
from pathlib import Path

EXCERPT = Path(__file__).parent / "data" / "music" / "hedgewars__art.ogg"
TRACK_IDS = tuple(f"TRAAAA{letter}128F42{number:05d}" for number, letter in enumerate("ABCDEFGH"))
LASTFM = {  # track number -> tags with Last.FM's weights
    0: {"Hip-Hop": 100, "hip hop": 60, "80s": 51, "seen live": 100},
    1: {"rock": 50, "Mellow": 100},
    2: {"female vocalists": 75, "rock": 100},
    3: {"jazz": 100},
    4: {"caf\xe9": 100, "metal": 90},
    5: {"blues": 100},
    6: {"pop": 49},
}


def put_audio(path: Path) -> Path:
    """A real excerpt under another name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(EXCERPT, path)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def msd_path(root: Path, track_id: str) -> Path:
    return root / "audio" / track_id[2] / track_id[3] / track_id[4] / f"{track_id}.mp3"


def lastfm_database(path: Path, tags=LASTFM, ids=TRACK_IDS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE tids (tid TEXT); CREATE TABLE tags (tag TEXT);"
        "CREATE TABLE tid_tag (tid INT, tag INT, val FLOAT);"
        "CREATE INDEX idx_tids_tid ON tids (tid); CREATE INDEX idx_tid_tag_tag ON tid_tag ('tag');"
    )
    database.executemany("INSERT INTO tids VALUES (?)", ((track_id,) for track_id in ids))
    names = list(dict.fromkeys(tag for own in tags.values() for tag in own))
    # A tag in Latin-1 is stored as bytes that are no UTF-8.
    database.executemany("INSERT INTO tags VALUES (CAST(? AS TEXT))", ((name.encode("latin-1"),) for name in names))
    rows = ((track + 1, names.index(tag) + 1, weight) for track, own in tags.items() for tag, weight in own.items())
    database.executemany("INSERT INTO tid_tag VALUES (?, ?, ?)", rows)
    database.commit()
    database.close()
    return path


def track_metadata(
    path: Path, *, ids=TRACK_IDS, artists=("AR0", "AR0", "AR1", "AR2", "AR3", "AR4", "AR5", "AR6")
) -> Path:
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE songs (track_id text PRIMARY KEY, title text, song_id text, release text, artist_id text, "
        "artist_mbid text, "
        "artist_name text, duration real, artist_familiarity real, artist_hotttnesss real, year int, "
        "track_7digitalid int, "
        "shs_perf int, shs_work int)"
    )
    for number, track_id in enumerate(ids):
        year = (0, 1994, 2003, 2011, 1926, 1985, 1967, 1971)[number % 8]
        row = (track_id, "T", "S", "R", artists[number], "", f"Artist {artists[number]}", 200.0, 0.5, 0.5, year)
        database.execute(f"INSERT INTO songs VALUES ({','.join('?' * 14)})", (*row, 8000000 + number, -1, 0))
    database.commit()
    database.close()
    return path


def msd(root: Path) -> Path:
    """SQLite files; the fourth track has two files, the sixth has none, the seventh is named by 7digital."""
    for number in (0, 1, 2, 3, 4, 7):
        put_audio(msd_path(root, TRACK_IDS[number]))
    put_audio(root / "audio" / "again" / f"{TRACK_IDS[3]}.mp3")
    put_audio(root / "audio" / "8" / "0" / "8000006.clip.mp3")
    lastfm_database(root / "lastfm_tags.db")
    track_metadata(root / "track_metadata.db")
    lists = {"train": (0, 2, 5), "valid": (4,), "test": (1, 6)}
    for part, numbers in lists.items():
        write(root / f"{part}_x_msd_id.txt", "".join(f"{TRACK_IDS[number]}\r\n" for number in numbers))
    return root


def msd_json(root: Path) -> Path:
    """The release of one JSON file per track; one file is cut, weights are text."""
    for number in (0, 1, 2):
        put_audio(msd_path(root, TRACK_IDS[number]))
        folder = root / ("lastfm_test" if number == 1 else "lastfm_train") / "A" / "A" / "A"
        value = {
            "artist": f"Artist {number}",
            "timestamp": "2011-08-02 20:13:25.674526",
            "similars": [[TRACK_IDS[3], 0.98]],
            "tags": [[tag, str(weight)] for tag, weight in LASTFM[number].items()],
            "track_id": TRACK_IDS[number],
            "title": "T",
        }
        text = json.dumps(value)
        write(folder / f"{TRACK_IDS[number]}.json", text[: len(text) // 2] if number == 2 else text)
    return root


def lee_lists(root: Path, training: list[str], test: list[str], *, protocol: int = 2) -> None:
    for part, ids in (("train", training), ("test", test)):
        (root / f"filtered_list_{part}.cP").write_bytes(pickle.dumps(ids, protocol=protocol))


def magnatagatune(root: Path) -> Path:
    """Tabs, quotes, CRLF; clips without a path, without audio, empty, answered by a 404 page, listed twice."""
    header = [
        "clip_id",
        "no voice",
        "woman singing",
        "female vocal",
        "rock",
        "fast",
        "not rock",
        "no vocals",
        "mp3_path",
    ]
    clips = {
        "2": ("1", "0", "0", "1", "1", "0", "0", "0/a-1-1.mp3"),
        "6": ("0", "1", "1", "0", "0", "1", "0", "c/b-2-30.mp3"),
        "10": ("0", "0", "0", "0", "1", "0", "1", "f/c-3-59.mp3"),
        "11": ("0", "0", "0", "1", "0", "0", "0", "1/missing.mp3"),
        "12": ("0", "0", "0", "1", "0", "0", "0", "2/empty.mp3"),
        "13": ("0", "0", "0", "1", "0", "0", "0", "3/gone.mp3"),
        "14": ("0", "0", "0", "1", "0", "0", "0", ""),
        "15": ("0", "0", "0", "1", "0", "0", "0", "4/d-1-1.mp3"),
    }
    rows = [header, *([clip, *cells] for clip, cells in clips.items()), ["2", *clips["2"]]]
    write(root / "annotations_final.csv", "".join("\t".join(f'"{cell}"' for cell in row) + "\r\n" for row in rows))
    info = [
        [
            "clip_id",
            "track_number",
            "title",
            "artist",
            "album",
            "url",
            "segmentStart",
            "segmentEnd",
            "original_url",
            "mp3_path",
        ]
    ]
    artists = {"2": "Bj\xf6rn", "6": "B", "10": "C", "15": "C"}
    info += [
        [clip, "1", "T", artists.get(clip, "X"), "A", "u", "0", "29", "o", cells[-1]] for clip, cells in clips.items()
    ]
    write(root / "clip_info_final.csv", "".join("\t".join(row) + "\n" for row in info), "latin-1")
    for clip in ("2", "6", "10", "15"):
        put_audio(root / "mp3" / clips[clip][-1])
    write(root / "mp3" / "2" / "empty.mp3", "")
    write(root / "mp3" / "3" / "gone.mp3", "\n<!DOCTYPE html><title>404 Not Found</title>")
    return root


JAMENDO = (
    ("track_0000214", "artist_000014", "album_000031", "14/214.mp3", "124.6", "genre---punkrock", "genre---80s"),
    ("track_0001376", "artist_000015", "album_000032", "76/1376.mp3", "60.0", "genre---alternativerock",
     "instrument---piano", "mood/theme---happy", "mood/theme---film"),
    ("track_0001377", "artist_000014", "album_000031", "77/1377.mp3", "61.0", "mood/theme---melancholic"),
    ("track_0001378", "artist_000016", "album_000033", "78/1378.mp3", "62.0", "genre---rock"),
)  # fmt: skip


def jamendo(root: Path) -> Path:
    """Rows of any length, a link written as a file, low-quality audio, a track without audio."""
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
    lines = {row[0]: "\t".join(row) + "\n" for row in JAMENDO}
    write(root / "data" / "raw_30s_cleantags_50artists.tsv", header + "".join(lines.values()))
    write(root / "data" / "autotagging.tsv", "raw_30s_cleantags_50artists.tsv")
    parts = {"train": (0, 3), "validation": (1,), "test": (2,)}
    for part, numbers in parts.items():
        text = header + "".join(lines[JAMENDO[number][0]] for number in numbers)
        write(root / "data" / "splits" / "split-0" / f"autotagging-{part}.tsv", text)
    for row in JAMENDO[:2]:
        put_audio(root / "audio" / row[3])
    put_audio(root / "audio" / "77" / "1377.low.mp3")
    return root


def fma(root: Path) -> Path:
    """Three header rows, a biography of several lines, a track of a larger collection, one without audio."""
    columns = (
        ("album", "date_released"), ("album", "information"), ("artist", "id"), ("artist", "name"), ("set", "split"),
        ("set", "subset"),
        ("track", "genre_top"), ("track", "genres"), ("track", "genres_all"), ("track", "title"),
    )  # fmt: skip
    biography = 'line one\nline "two", with <p>html</p>' + "x" * 200_000
    rows = {
        2: ("2009-01-05 00:00:00", biography, "1", "AWOL", "training", "small", "Hip-Hop", "[21]", "[21]", "Food"),
        5: ("1987-01-05 00:00:00", "", "1", "AWOL", "test", "small", "Rock", "[66, 98]", "[66, 98, 25, 12]", "Odd"),
        10: ("", "", "6", "Kurt Vile", "validation", "small", "", "[]", "[]", "Freeway"),
        20: ("2001-01-01 00:00:00", "", "7", "Nicky", "training", "large", "", "[76]", "[76]", "Other"),
        26: ("2001-01-01 00:00:00", "", "8", "Gone", "training", "small", "Pop", "[10]", "[10]", "Missing"),
    }
    path = root / "fma_metadata" / "tracks.csv"
    path.parent.mkdir(parents=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", *(group for group, _ in columns)])
        writer.writerow(["", *(name for _, name in columns)])
        writer.writerow(["track_id", *("" for _ in columns)])
        writer.writerows([track, *cells] for track, cells in rows.items())
    write(
        root / "fma_metadata" / "genres.csv",
        "genre_id,#tracks,parent,title,top_level\n"
        "21,1,0,Hip-Hop,21\n12,1,0,Rock,12\n25,1,12,Punk,12\n98,1,25,Hardcore,12\n"
        "66,1,12,Indie-Rock,12\n10,1,0,Pop,10\n76,1,10,Experimental Pop,10\n",
    )
    for track in (2, 5, 10):
        put_audio(root / "fma_small" / "000" / f"{track:06d}.mp3")
    return root


def gtzan(root: Path) -> Path:
    """A repetition, a damaged excerpt, an old .au file, tempo, the fault-filtered lists."""
    for stem in ("blues.00000", "blues.00001", "jazz.00033", "jazz.00051", "reggae.00086", "hiphop.00000"):
        put_audio(root / "genres" / stem.partition(".")[0] / f"{stem}.{'au' if stem == 'blues.00001' else 'wav'}")
    tempo = root / "gtzan_tempo_beat-main" / "tempo"
    write(tempo / "gtzan_blues_00000.bpm", "8.553000000000000114e+01\n")
    write(tempo / "gtzan_jazz_00033.bpm", "fast\n")
    write(root / "train_filtered.txt", "blues/blues.00000.wav\nhiphop/hiphop.00000.wav\n")
    write(root / "valid_filtered.txt", "blues/blues.00001.wav\n")
    write(root / "test_filtered.txt", "jazz/jazz.00033.wav\n")
    return root


def ismir04(root: Path) -> Path:
    """Classes in tracklist.csv; the development part names no artist; a listed file is missing."""
    lists = {
        "training": [
            ("classical", "Byron", "A", "T", "1", "classical/byron/01-t.mp3"),
            ("jazz_blues", "Etherine", "A", "T", "2", "jazz_blues/e/02-t.mp3"),
        ],
        "development": [("world", "", "", "", "", "world/000001.mp3"), ("world", "", "", "", "", "world/000002.mp3")],
        "evaluation": [("rock_pop", "Byron", "A", "T", "3", "rock_pop/03.mp3", "77")],
    }  # fmt: skip
    for part, rows in lists.items():
        text = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
        write(root / "metadata" / part / "tracklist.csv", text)
        for row in rows[:1] if part == "development" else rows:
            put_audio(root / "audio" / part / row[5])
    return root


def ballroom(root: Path) -> Path:
    """Replicas, kinds of rumba, a tempo that is none."""
    put_audio(root / "BallroomData" / "Waltz" / "Albums-Secret_Garden-01.wav")
    put_audio(root / "BallroomData" / "Waltz" / "Media-104705.wav")
    put_audio(root / "BallroomData" / "Rumba-International" / "Albums-Latin_Jam-08.wav")
    truth = root / "BallroomAnnotations" / "ballroomGroundTruth"
    write(truth / "Albums-Secret_Garden-01.bpm", "87\n")
    write(truth / "Albums-Latin_Jam-08.bpm", "\n")
    return root


def giantsteps_key(root: Path) -> Path:
    keys = {"10089": "D major", "1234749": "Bb major", "3833050": "C minor", "61415": "E ?"}
    for number, key in keys.items():
        write(root / "annotations" / "key" / f"{number}.LOFI.key", key)
        write(root / "annotations" / "genre" / f"{number}.LOFI.genre", "reggae dub")
        if number != "3833050":
            put_audio(root / "audio" / f"{number}.LOFI.mp3")
    # The project's own format lies beside and is another one.
    write(
        root / "annotations" / "giantsteps" / "10089.LOFI.key",
        "#@format: key\ttimestamp(float)\tkey(string)\nkey 0 C major\n",
    )
    return root


def giantsteps_plus(root: Path) -> Path:
    stem = "10089 Jason Sparks - Close My Eyes feat. J. Little (Original Mix)"
    put_audio(root / "audio" / f"{stem}.mp3")
    write(root / "keys_gs+" / f"{stem}.txt", "D major\tclear")
    value = {
        "artists": [{"name": "Jason Sparks"}, {"name": "J. Little"}],
        "genres": [{"name": "House"}],
        "sub_genres": [],
        "bpm": 124,
    }
    write(root / "new_annotations" / "10089.json", json.dumps(value))
    return root


def giantsteps_tempo(root: Path) -> Path:
    tempi = {"28952": [(137.0, 0.4), (138.0, 0.6)], "1118326": [(170.0, 1.0)], "3041381": []}
    for number, votes in tempi.items():
        data = [{"time": 0.0, "duration": 120.0, "value": bpm, "confidence": share} for bpm, share in votes]
        jams = {"annotations": [{"namespace": "tempo", "data": data, "sandbox": {}}], "file_metadata": {}}
        write(root / "annotations_v2" / "jams" / f"{number}.LOFI.jams", json.dumps(jams))
        write(root / "annotations" / "tempo" / f"{number}.LOFI.bpm", "99")
        write(root / "annotations" / "genre" / f"{number}.LOFI.genre", "Drum & Bass")
        put_audio(root / "audio" / f"{number}.LOFI.mp3")
    write(root / "annotations_v2" / "jams" / "5377710.LOFI.jams", '{"annotations": [{"data": [')
    put_audio(root / "audio" / "5377710.LOFI.mp3")
    return root


def beatport(root: Path) -> Path:
    tracks = {
        "100066 Lindstrom - Monsteer (Original Mix)": "D minor",
        "100067 A - B (Mix)": "D minor | F major",
        "100068 C - D (Mix)": "X",
    }
    for stem, key in tracks.items():
        put_audio(root / "audio" / f"{stem}.mp3")
        write(root / "keys" / f"{stem}.txt", key)
        value = {
            "artists": [{"name": stem.split()[1]}],
            "genres": [{"name": "Electronica / Downtempo"}],
            "sub_genres": [],
            "bpm": 115,
        }
        write(root / "meta" / f"{stem}.json", json.dumps(value) if key != "X" else '{"artists": [')
    return root


def dim_sim(root: Path) -> Path:
    return write(root / "raw-dim-sim.csv", "triplet_id,anchor_id,song1_id,song2_id,song1_vote,song2_vote\n").parent


TREES = {
    "msd": msd,
    "magnatagatune": magnatagatune,
    "jamendo": jamendo,
    "fma": fma,
    "gtzan": gtzan,
    "ismir04": ismir04,
    "ballroom": ballroom,
    "giantsteps-key": giantsteps_key,
    "giantsteps-tempo": giantsteps_tempo,
    "beatport": beatport,
    "dim-sim": dim_sim,
}
