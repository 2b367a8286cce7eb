"""A server with a library of real music, some of it under names that need care."""

import functools
import json
import shutil
import socket
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from tiny_model import tiny_model_path

from msim_tf.export.embedder import Embedder
from msim_tf.library.build import update_library
from msim_tf.library.catalog import load_catalog
from msim_tf.library.update_options import UpdateOptions

MUSIC = Path(__file__).parents[1] / "data" / "music"
HOSTILE = {
    "wesnoth__northerners.ogg": "a #1?&<b>%41%2F+ü.ogg",
    "zaz__mus1.ogg": 'line\nbreak/dots../"quoted".ogg',
    "zaz__mus2.ogg": "Zaz/two.ogg",
}


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory(prefix="msim-test-")  # removed when the process ends


@functools.cache
def shared_library():
    """The directory of an indexed library of ten excerpts, with metadata in the place of tags; its music lies beside
    it. Tests that change anything put it back."""
    root = Path(_folder().name)
    folder = root / "Music"
    chosen = [*sorted(path.name for path in MUSIC.glob("*.ogg"))[:7], *HOSTILE]
    for name in chosen:
        target = folder / HOSTILE.get(name, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(MUSIC / name, target)
    update_library(folder, root / "library", Embedder(tiny_model_path()), UpdateOptions(name="Test music"))
    index = load_catalog(root / "library").open_index()
    changes = {
        name: {
            **index.metadata(name),
            "artist": ("Anna", "<script>alert(1)</script>", "Cleo")[place % 3],
            "album": f"Album {place % 2}",
            "title": f"Song {place} Grün",
            "tempo": 110.0 + place,
            "key": ("A minor", "C major")[place % 2],
            "genre": ["rock"] if place % 2 else ["jazz", "rock"],
        }
        for place, name in enumerate(sorted(index.identifiers))
        if place != 9
    }
    index.update_metadata(changes)
    index.save()
    return root / "library"


class Raw:
    """Requests exactly as they are written, for what no client would send."""

    def __init__(self, url):
        self._address = urlsplit(url).hostname, urlsplit(url).port

    def open(self, text):
        """A connection on which ``text`` has been sent."""
        connection = socket.create_connection(self._address, timeout=30)
        connection.sendall(text if isinstance(text, bytes) else text.encode("latin-1"))
        return connection

    def read(self, connection):
        """Status, headers as text, and body of the answer."""
        data = b""
        with connection:
            while block := connection.recv(65536):
                data += block
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode("latin-1"), body

    def get(self, target, **headers):
        told = {"Host": "127.0.0.1", "Connection": "close", **headers}
        lines = [f"GET {target} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in told.items())]
        return self.read(self.open("\r\n".join([*lines, "", ""])))


def error(answer):
    """The text of an error answer, whose form is checked."""
    value = json.loads(answer.content)
    assert set(value) == {"error"} and answer.headers["content-type"] == "application/json"
    return value["error"]
