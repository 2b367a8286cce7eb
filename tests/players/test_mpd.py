"""The recipes of the guide for MPD, run as they stand there with the genuine mpd and mpc."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.library.catalog import Catalog, save_library
from msim_tf.library.library import Library
from msim_tf.search.index import Index

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "guides" / "players.md"
# Names that a shell, a playlist or a line could take for something else.
SONGS = (
    "Calm/Sea.ogg",
    "Loud/Storm.ogg",
    'A & B/Don\'t "stop" $HOME.ogg',
    "Émile/#1 été.ogg",
    "Calm/two  spaces .ogg",
)
CONFIG = """
music_directory "{home}/Music"
playlist_directory "{home}/.config/mpd/playlists"
db_file "{home}/mpd.db"
state_file "{home}/mpd.state"
bind_to_address "{home}/mpd.socket"
audio_output {{
    type "null"
    name "nothing is heard"
}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("mpd") and shutil.which("mpc")), reason="mpd and mpc are not installed"),
]


def recipes():
    """The blocks of commands of the section, in order."""
    section = re.search(r"^## MPD\n(.*?)^## ", GUIDE.read_text(encoding="utf-8"), re.S | re.M)[1]
    return re.findall(r"```console\n(.*?)```", section, re.S)


@pytest.fixture
def home(tmp_path, music):
    """A home with music, the library of it, and ``msim`` on the path."""
    source = sorted(music.glob("*.ogg"))[4]
    for song in SONGS:
        (tmp_path / "Music" / song).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tmp_path / "Music" / song)
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 48)
    vectors = np.random.default_rng(5).normal(size=(len(SONGS), 48)).astype(np.float32)
    index = Index.build(Embeddings("music", SONGS, vectors, layout))
    save_library(index, Catalog(tmp_path / "library", "Music", (tmp_path / "Music").resolve()))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "msim").write_text(f'#!/bin/sh\nexec {sys.executable} -m msim_tf "$@"\n')
    (tmp_path / "bin" / "msim").chmod(0o755)
    (tmp_path / ".config/mpd/playlists").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def shell(home):
    """Runs commands in a shell of that home while its mpd runs; an error in a pipe is one of the whole."""
    (home / "mpd.conf").write_text(CONFIG.format(home=home))
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MSIM_LIBRARY": str(home / "library"),
        "MPD_HOST": str(home / "mpd.socket"),
        "LC_ALL": "C.UTF-8",
    }
    with open(home / "mpd.log", "wb") as log:
        server = subprocess.Popen(
            ["mpd", "--no-daemon", "--stderr", home / "mpd.conf"], env=environment, stdout=log, stderr=log
        )

    def run(commands):
        script = ["bash", "-e", "-o", "pipefail", "-c", commands]
        done = subprocess.run(script, env=environment, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, f"{commands}\n{done.stderr}\n{(home / 'mpd.log').read_text()}"
        return done.stdout.splitlines()

    try:
        end = time.monotonic() + 60
        while not (home / "mpd.socket").exists():
            assert server.poll() is None and time.monotonic() < end, (home / "mpd.log").read_text()
            time.sleep(0.05)
        run("mpc --wait update")
        yield run
    finally:
        server.terminate()
        server.wait(30)


def test_the_recipes_fill_the_queue(home, shell):
    library = Library(home / "library")
    similar, path, playlist = recipes()
    queue = "mpc playlist -f %file%"
    shell('mpc add "Calm/Sea.ogg" "Loud/Storm.ogg"; mpc play 2')
    near = [hit.track for hit in library.similar("Loud/Storm.ogg", k=20)]
    assert sorted(near) == sorted(set(SONGS) - {"Loud/Storm.ogg"})
    shell(similar)
    assert shell(queue) == ["Loud/Storm.ogg", *near]

    shell(path.replace("--length 12", f"--length {len(SONGS)}"))
    way = [hit.track for hit in library.path("Calm/Sea.ogg", "Loud/Storm.ogg", length=len(SONGS))]
    assert shell(queue) == way
    assert shell("mpc current -f %file%") == ["Calm/Sea.ogg"]

    shell("mpc clear")
    shell(playlist)
    assert shell(queue) == [hit.track for hit in library.similar("Calm/Sea.ogg", k=20)]
