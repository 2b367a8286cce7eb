"""The plug-in under the genuine beets: a music folder that beets imported, an msim library of it, and ``beet``."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mutagen
import numpy as np
import pytest
from shared import made_once
from tiny_model import tiny_model_path

import msim_tf
from msim_tf.library.playlists import read_playlist
from msim_tf.theory import key_name, parse_key

pytest.importorskip("beets", reason="beets is not installed: pip install 'msim-tf[beets]'")
ROOT = Path(__file__).parents[2]
SONGS = 8
CONFIG = """
directory: {folder}/Music
library: {folder}/beets.db
plugins: msim info
import: {{copy: yes, write: {write}, resume: no}}
ui: {{color: no}}
msim: {{library: {folder}/msim, per_artist: 0}}
"""


def settings(folder, write=False):
    """Writes beets' configuration and returns the environment that names it."""
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, write="yes" if write else "no"))
    return {"PYTHONPATH": str(ROOT), "BEETSDIR": str(folder), "MSIM_MODEL": str(tiny_model_path())}


def beet(folder, *arguments):
    """``beet ARGUMENTS`` in a process of its own."""
    environment = {**os.environ, **settings(folder)}
    command = [sys.executable, "-m", "beets", *map(str, arguments)]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def update(own_collection, monkeypatch):
    """``beet msimupdate ARGUMENTS`` in this process, which has TensorFlow already: what it prints."""
    import beets
    from beets import ui

    def run(*arguments, write=False):
        for name, value in settings(own_collection, write).items():
            monkeypatch.setenv(name, value)
        beets.config.clear()
        beets.config.read()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            ui._raw_main(["msimupdate", *map(str, arguments)])
        return printed.getvalue().splitlines()

    return run


def lines(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def collection(music):
    """Eight excerpts that beets imported, and msim indexed by ``beet msimupdate``; tests only read it."""

    def make(folder):
        (folder / "incoming").mkdir(parents=True)
        for path in sorted(music.glob("*.ogg"))[4 : 4 + SONGS]:
            song = folder / "incoming" / path.name
            shutil.copyfile(path, song)
            tags = mutagen.File(song)
            tags.update(artist=path.name.split("__")[0], title=path.stem.split("__")[1], album="Excerpts")
            tags.save()
        lines(beet(folder, "import", "-qA", folder / "incoming"))
        (update,) = lines(beet(folder, "msimupdate"))
        assert f"{SONGS} tracks; {SONGS} new" in update and update.endswith("0 failed")

    return made_once("beets", make)


@pytest.fixture
def own_collection(collection, tmp_path):
    """A copy that a test may change. Libraries record where their music is, so the copy is indexed anew."""
    for name in ("Music", "beets.db"):
        source = collection / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    msim_tf.index(tmp_path / "Music", tmp_path / "msim", model=tiny_model_path())
    return tmp_path


def set_metadata(folder, **fields):
    """Gives the first track of the msim library tempo, key or words, and returns its identifier."""
    index = msim_tf.open_library(folder / "msim").index
    track = min(index.identifiers)
    index.begin()
    index.update_metadata({track: {**index.metadata(track), **fields}})
    index.save()
    index.close()
    return track


def test_the_plugin_starts_without_tensorflow():
    code = "import sys, beetsplug.msim; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode == 0


def test_every_key_keeps_its_meaning_in_beets_spelling():
    from beets.dbcore import types

    from beetsplug.msim import beets_key

    spelt = [beets_key(key_name(key)) for key in range(24)]
    assert [parse_key(text) for text in spelt] == list(range(24))
    assert spelt[10] == "A#" and spelt[12 + 1] == "C#m"
    # Stored and read back, it stays what it is.
    assert [types.MusicalKey().normalize(text) for text in spelt] == spelt


def test_hits_are_ranked_by_the_weighted_distance(collection):
    library = msim_tf.open_library(collection / "msim")
    assert len(library) == SONGS
    seed, layout = min(library.tracks), library.index.source.layout
    vectors = library.index.vectors(library.tracks)
    squares = np.square(vectors - library.index.vectors([seed])).astype(np.float64)
    part = {name: squares[:, layout.slices[name]].sum(1) for name in ("mood", "tempo")}
    distances = dict(zip(library.tracks, (3 * part["mood"] + part["tempo"]) / 4))
    del distances[seed]
    expected = sorted(distances, key=distances.__getitem__)[:5]

    query = f"path:{collection}/Music/{seed}"
    shown = "$path|$msim_distance|$msim_distance_mood"
    listed = lines(beet(collection, "msim", query, "-w", "mood=3,tempo=1", "-n", 5, "--all-versions", "-f", shown))
    rows = [line.split("|") for line in listed]
    assert [row[0] for row in rows] == [f"{collection}/Music/{track}" for track in expected]
    assert [float(row[1]) for row in rows] == pytest.approx([distances[track] for track in expected], abs=6e-4)
    mood = dict(zip(library.tracks, 0.75 * part["mood"]))
    assert [float(row[2]) for row in rows] == pytest.approx([mood[track] for track in expected], abs=6e-4)
    # They depend on the query, so nothing is stored.
    stored = "\n".join(lines(beet(collection, "info", "-l", query)))
    assert "artist: " in stored and "msim_distance" not in stored


def test_the_playlist_holds_the_hits_in_their_order(collection):
    library = msim_tf.open_library(collection / "msim")
    query = f"path:{collection}/Music/{min(library.tracks)}"
    listed = lines(beet(collection, "msim", query, "--profile", "feel", "-p"))
    file = collection / "near.m3u8"
    assert lines(beet(collection, "msim", query, "--profile", "feel", "--playlist", file)) == [
        f"{file}: {len(listed)} songs"
    ]
    assert [str(path) for path in read_playlist(file)] == listed
    assert file.read_text(encoding="utf-8").startswith(f"#EXTM3U\n#PLAYLIST:Similar to {query}\n#EXTINF:30,")

    relative = collection / "near.xspf"
    lines(beet(collection, "msim", query, "--profile", "feel", "--playlist", relative, "--relative-to", collection))
    assert [str(path) for path in read_playlist(relative)] == listed
    assert str(collection) not in relative.read_text(encoding="utf-8").split("<trackList>")[1]


def test_within_and_the_limit_per_artist_hold(collection):
    artists = dict(line.split("|") for line in lines(beet(collection, "list", "-f", "$path|$artist")))
    most = max(set(artists.values()), key=list(artists.values()).count)
    seed = next(path for path, artist in artists.items() if artist != most)
    assert list(artists.values()).count(most) > 1
    options = ("--within", f"artist:{most}", "--all-versions", "-p")
    within = lines(beet(collection, "msim", f"path:{seed}", *options))
    assert sorted(within) == sorted(path for path, artist in artists.items() if artist == most)
    assert lines(beet(collection, "msim", f"path:{seed}", *options, "--per-artist", 1)) == within[:1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["msim"], "give the songs to be near to"),
        (["msim", "artist:nobody"], "no song matches the query"),
        (["msim", "title:a", "-w", "mood"], "weight 'mood': expected DIMENSION=NUMBER"),
        (["msim", "title:a", "-w", "colour=1"], "dimension 'colour' is not in this embedding"),
        (["msim", "title:a", "-w", "mood=1", "--profile", "feel"], "give one of them"),
        (["msim", "title:a", "--profile", "nothing"], "nothing"),
        (["msim", "title:a", "-n", "0"], "expected at least 1"),
        (["msimupdate", "title:a"], "go with --write-fields"),
    ],
)
def test_errors_are_one_line(collection, arguments, message):
    done = beet(collection, *arguments)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_fields_are_written_where_something_is_known(own_collection, update):
    folder = own_collection
    track = set_metadata(folder, tempo=127.6, key="Bb minor", mood=["calm", "dark"])
    summary, written = update("--write-fields", write=True)
    assert summary.endswith(f"{SONGS} unchanged, 0 failed")
    assert written == "wrote bpm of 1, initial_key of 1, msim_mood of 1 songs"
    shown = "$path|$bpm|$initial_key|$msim_mood"
    (known,) = lines(beet(folder, "list", "-f", shown, "bpm:1.."))
    assert known == f"{folder}/Music/{track}|128|A#m|calm; dark"
    assert lines(beet(folder, "list", "-f", shown, "msim_mood:calm")) == [known]
    # Beets' own tags are in the file, msim's words are not; nobody else's song was touched.
    info = "\n".join(lines(beet(folder, "info", f"path:{folder}/Music/{track}")))
    assert "bpm: 128" in info and "initial_key: A#m" in info and "msim_" not in info
    others = lines(beet(folder, "list", "-f", "$bpm|$initial_key", "^bpm:1.."))
    assert len(others) == SONGS - 1 and {each.split("|")[0] for each in others} == {"0"}


def test_what_is_there_is_kept_and_what_is_no_longer_true_goes(own_collection, update):
    folder = own_collection
    track = set_metadata(folder, tempo=127.6, mood=["calm"])
    query = f"path:{folder}/Music/{track}"
    lines(beet(folder, "modify", "-yW", query, "bpm=90"))
    assert update(query, "--write-fields")[-1] == "wrote msim_mood of 1 songs"
    assert lines(beet(folder, "list", "-f", "$bpm", query)) == ["90"]
    update(query, "--write-fields", "--overwrite")
    assert lines(beet(folder, "list", "-f", "$bpm", query)) == ["128"]
    set_metadata(folder, mood=[])
    assert update(query, "--write-fields")[-1] == "no field to write"
    assert lines(beet(folder, "list", "msim_mood:calm")) == []


def test_an_update_tells_of_files_it_cannot_use_and_songs_it_lacks(own_collection, update, caplog):
    from beets.ui import UserError

    folder = own_collection
    (folder / "Music" / "broken.ogg").write_bytes(b"no sound")
    with pytest.raises(UserError, match="1 files could not be used; the others are up to date"):
        update()
    assert [record.getMessage() for record in caplog.records if "broken.ogg" in record.getMessage()]
    shutil.rmtree(folder / "msim")
    done = beet(folder, "msim", "title:a")
    assert done.returncode == 1 and "msim" in done.stderr and "Traceback" not in done.stderr
