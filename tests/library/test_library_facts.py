"""``msim status``, ``info`` and ``list``, against what the library was made of and what lies on the disk."""

import json
from datetime import datetime, timezone

import numpy as np
import pytest
from click.testing import CliRunner

from msim_tf.audio.scan import FileState
from msim_tf.cli import cli
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.library.catalog import Catalog, load_catalog, save_library, writing
from msim_tf.library.file_table import FileRecord, FileTable
from msim_tf.library.playlists import read_playlist
from msim_tf.search.index import Index
from msim_tf.search.query import search, track_query

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 24)
TRACKS = {
    "Ann/slow.ogg": {
        "artist": "Ann",
        "title": "Slow",
        "album": "One",
        "year": 1971,
        "tempo": 60.4,
        "key": "A minor",
        "mood": ["calm", "sad"],
        "seconds": 185.4,
    },
    "Ann/quick.ogg": {"artist": "Ann", "title": "Quick", "tempo": 170.0, "seconds": 60.0},
    "Ben/dark\x1b[1m.ogg": {"artist": "Ben", "tempo": 72.0},
    "untagged.ogg": {},
    "gone.ogg": {"artist": "Cleo"},
}
PRESENT = sorted(set(TRACKS) - {"gone.ogg"})


def run(*arguments):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Five tracks of a model, one of which is missing; two files that cannot be used, one that is damaged."""
    path = tmp_path_factory.mktemp("facts") / "library"
    vectors = np.random.default_rng(7).normal(size=(len(TRACKS), 24)).astype(np.float32)
    meta = {"model": "open6", "version": "3", "digest": "d"}
    index = Index.build(Embeddings("x", tuple(TRACKS), vectors, LAYOUT, meta), TRACKS)
    save_library(index, Catalog(path, "Our music", path.parent / "Music", "/models/open6"))
    with writing(path):
        index = load_catalog(path).open_index()
        index.begin()
        index.set_missing(["gone.ogg"], True)
        bad = FileRecord(FileState(9, 1), failure="not audio")
        damaged = FileRecord(FileState(9, 1), notes=("damaged: 93 % of 185 s decodes",))
        FileTable(index.table.database).put({"bad1.mp3": bad, "bad2.mp3": bad, "Ann/slow.ogg": damaged})
        index.save()
    return path


def test_status_counts_what_is_there(library):
    facts = json.loads(run("status", library, "--json"))
    assert (facts["tracks"], facts["missing"], facts["failures"]) == (4, 1, 2)
    assert facts["model"] == "open6, version 3" and facts["model_path"] == "/models/open6"
    assert facts["name"] == "Our music" and facts["music"] == str(library.parent / "Music")
    assert facts["bytes"] == sum(file.stat().st_size for file in library.iterdir())
    written = datetime.fromtimestamp((library / "library.db").stat().st_mtime, timezone.utc)
    assert datetime.fromisoformat(facts["updated"]) == written
    assert json.loads(run("status", library, "--json")) == facts  # to look is not to write
    lines = [line.split() for line in run("status", library).splitlines()]
    assert ["tracks", "4"] in lines and any(line[:2] == ["missing", "1,"] for line in lines)


def test_status_of_what_is_no_library_is_one_line(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError):
            run("status", path)


def test_the_default_library_needs_no_name(library, monkeypatch):
    monkeypatch.setenv("MSIM_LIBRARY", str(library))
    assert run("status") == run("status", library)
    assert run("info", "untagged.ogg") == run("info", library, "untagged.ogg")
    assert run("list") == run("list", library)


def test_info_tells_all_that_is_known_and_the_neighbours(library):
    index = load_catalog(library).open_index()
    wanted = search(index, track_query(index, "Ann/slow.ogg"), k=2)
    facts = json.loads(run("info", library, "Ann/slow.ogg", "-k", 2, "--json"))
    assert facts["metadata"] == index.metadata("Ann/slow.ogg") and facts["notes"] == ["damaged: 93 % of 185 s decodes"]
    assert [hit["identifier"] for hit in facts["neighbours"]] == [match.identifier for match in wanted]
    text = run("info", library, "Ann/slow.ogg", "-k", 2)
    for line in ("length        3:05", "tempo         60 bpm", "key           A minor", "mood          calm, sad"):
        assert f"  {line}\n" in text
    assert "note          damaged: 93 %" in text and text.count("\n") == 12 + 2
    assert "nearest" not in run("info", library, "Ann/slow.ogg", "-k", 0)
    by_file = run("info", library, library.parent / "Music" / "Ann" / "slow.ogg", "-k", 2)
    assert by_file == text
    assert "\x1b" not in run("info", library, "Ben/dark\x1b[1m.ogg")
    with pytest.raises(InputError, match="has no track 'slow.ogg'; did you mean"):
        run("info", library, "slow.ogg")
    for arguments in ([], [library], [library, "untagged.ogg", "Ann/slow.ogg"]):
        with pytest.raises(InputError, match=r"expected \[LIBRARY\] TRACK, one track"):
            run("info", *arguments)


def test_list_in_the_order_of_paths_and_by_filters(library):
    names = [track["identifier"] for track in json.loads(run("list", library, "--json"))]
    assert names == PRESENT
    slow = json.loads(run("list", library, "--bpm", "50-80", "--json"))
    assert [track["identifier"] for track in slow] == ["Ann/slow.ogg", "Ben/dark\x1b[1m.ogg"]
    assert slow[0]["metadata"] == load_catalog(library).open_index().metadata("Ann/slow.ogg")
    assert run("list", library, "--artist", "ANN").splitlines() == [
        "Ann/quick.ogg  (Ann - Quick)",
        "Ann/slow.ogg  (Ann - Slow)",
    ]
    assert run("list", library, "--bpm", "10-20") == ""
    rows = [line.split("\t") for line in run("list", library, "--format", "tsv").splitlines()]
    assert rows[0] == ["artist", "title", "track"] and len(rows) == 5 and rows[1] == ["Ann", "Quick", "Ann/quick.ogg"]


def test_list_as_a_playlist_reads_back(library, tmp_path):
    (tmp_path / "all.m3u8").write_bytes(run("list", library, "--format", "m3u").encode("utf-8", "surrogateescape"))
    assert read_playlist(tmp_path / "all.m3u8") == [library.parent / "Music" / name for name in PRESENT]
    relative = run("list", library, "--format", "paths", "--relative-to", library.parent / "Music")
    assert relative.splitlines() == PRESENT
