"""Flipped and cut bytes in every file of a library: told in one line by the query or the check, or without effect."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from msim_tf.cli import cli
from msim_tf.database import Database
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings
from msim_tf.errors import InputError
from msim_tf.library.catalog import Catalog, load_catalog, save_library
from msim_tf.library.check import check_library
from msim_tf.library.file_table import FileRecord, FileTable
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.query import search, track_query
from msim_tf.search.schema import SCHEMA

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 48)
TRACKS = 1200


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Tracks with metadata, some removed and some missing; with FAISS where it is installed."""
    rng, path = np.random.default_rng(5), tmp_path_factory.mktemp("check") / "library"
    vectors = rng.normal(size=(TRACKS, 48)).astype(np.float32)
    names = tuple(f"Artist {row % 40}/{row}.ogg" for row in range(TRACKS))
    metadata = {
        name: {
            "artist": name.split("/")[0],
            "title": f"Title {row}",
            "tempo": 60.0 + row % 90,
            "genre": [f"g{row % 5}"],
        }
        for row, name in enumerate(names)
    }
    try:
        index = Index.build(Embeddings("toy", names, vectors, LAYOUT), metadata, engine="faiss")
    except InputError:
        index = Index.build(Embeddings("toy", names, vectors, LAYOUT), metadata)
    save_library(index, Catalog(path, "toy", None))
    index.remove(names[:50])
    index.set_missing(names[50:80], True)
    index.begin()
    FileTable(index.table.database).put({"bad.mp3": FileRecord(failure="not audio")})
    index.save()
    index.close()
    return path


def answers(path):
    """What users see of a library."""
    index = load_catalog(path).open_index()
    try:
        seen = [len(index), index.table.containing("title 11"), sorted(FileTable(index.table.database).records())]
        for track in ("Artist 3/123.ogg", "Artist 39/1199.ogg"):
            for filters in (None, Filters(tags=("g3",)), Filters(bpm=(100, 110)), Filters(artists=("artist 7",))):
                matches = search(index, track_query(index, track), filters=filters, k=5)
                seen.append([(match.identifier, match.distance, json.dumps(match.metadata)) for match in matches])
        return seen
    finally:
        index.close()


def test_a_whole_library_has_no_faults(library):
    assert check_library(library) == []
    result = CliRunner().invoke(cli, ["check", str(library)])
    assert (result.exit_code, result.output) == (0, f"{library}: whole\n")


def test_no_flipped_or_missing_byte_changes_an_answer_in_silence(library, tmp_path):
    rng, expected = np.random.default_rng(0), answers(library)
    shutil.copytree(library, tmp_path / "copy")
    copy, refused, unused, cases = tmp_path / "copy", 0, 0, 0
    files = [file for file in library.iterdir() if file.name != ".lock"]
    assert {file.suffix for file in files} >= {".db", ".f16", ".crc"}
    for file in files:
        data = file.read_bytes()
        for number in range(40):
            damaged = bytearray(data)
            if number < 32:
                damaged[int(rng.integers(min(200, len(data)) if number < 8 else len(data)))] ^= 1 << int(
                    rng.integers(8)
                )
            else:
                del damaged[int(rng.integers(len(data))) :]
            (copy / file.name).write_bytes(damaged)
            cases += 1
            faults = check_library(copy)
            assert all("\n" not in fault and str(copy) in fault for fault in faults)
            try:
                assert answers(copy) == expected, (file.name, number)
                unused += 1
                # Only free pages of the database are nobody's.
                assert faults or file.suffix == ".db", (file.name, number)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error)
        (copy / file.name).write_bytes(data)
    assert refused + unused == cases >= 120 and refused > 0.8 * cases
    assert check_library(copy) == []


@pytest.mark.parametrize(
    "sql, message",
    [
        ("DELETE FROM hidden", "do not add up"),
        ("DELETE FROM tracks WHERE row = 100", "do not add up"),
        ("UPDATE tracks SET row = 5000 WHERE row = 100", "without a vector"),
        ("UPDATE tracks SET metadata = '{' WHERE row = 100", "unreadable JSON"),
    ],
)
def test_tables_that_contradict_each_other_are_told(library, tmp_path, sql, message):
    shutil.copytree(library, tmp_path / "copy")
    with Database(tmp_path / "copy" / "library.db", SCHEMA, writable=True) as database:
        database.execute(sql)
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "copy")])
    assert result.exit_code == 1 and message in result.output and "msim index" in result.output


def test_the_command_checks_embeddings_and_profiles(tmp_path, rng):
    from msim_tf.embeddings import save_embeddings
    from msim_tf.search.weights import Profile, save_profile

    names = [f"track {number}" for number in range(50)]
    save_embeddings(tmp_path / "x.npz", identifiers=names, embeddings=rng.normal(size=(50, 48)), layout=LAYOUT)
    save_profile(tmp_path / "me.json", Profile("me", {"genre": 0.25, "tempo": 0.75}, choices=3))
    paths = [str(tmp_path / "x.npz"), str(tmp_path / "me.json")]
    assert CliRunner().invoke(cli, ["check", *paths]).exit_code == 0
    for path in paths:
        with open(path, "r+b") as file:
            data = bytearray(file.read())
            data[len(data) // 2] ^= 4
            file.seek(0)
            file.write(data)
    result = CliRunner().invoke(cli, ["check", *paths])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 2 and "Traceback" not in result.output
    result = CliRunner().invoke(cli, ["check", str(tmp_path)])
    assert isinstance(result.exception, InputError) and "expected a library" in str(result.exception)


def test_a_profile_without_checksum_is_read_as_before(tmp_path):
    from msim_tf.search.weights import Profile, load_profile, save_profile

    profile = Profile("me", {"genre": 0.25, "tempo": 0.75}, choices=3)
    save_profile(tmp_path / "me.json", profile)
    assert load_profile(tmp_path / "me.json").weights == profile.weights
    value = json.loads((tmp_path / "me.json").read_text())
    value["weights"]["genre"] = 0.5
    (tmp_path / "me.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="me.json: damaged.*take 'checksum' and 'checked' away"):
        load_profile(tmp_path / "me.json")
    del value["checksum"], value["checked"]
    (tmp_path / "me.json").write_text(json.dumps(value))
    loaded = load_profile(tmp_path / "me.json")
    assert (loaded.name, loaded.weights, loaded.choices) == ("me", {"genre": 0.5, "tempo": 0.75}, 3)
