"""msim index, query, path and learn on a library: what they print is what the library functions say."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from msim_tf.cli import cli
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import Embeddings, load_embeddings, save_embeddings
from msim_tf.errors import InputError
from msim_tf.library.catalog import Catalog, load_catalog, save_library
from msim_tf.search.diversity import Diversity
from msim_tf.search.index import Index
from msim_tf.search.path import track_path
from msim_tf.search.query import Query, mixed_query, track_query
from msim_tf.search.query import search as plain_search
from msim_tf.search.ranking import normalised
from msim_tf.search.weights import choice_differences, learn_profile, load_profile

ARTISTS = ("Anna", "Ben", "Cleo")


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


@pytest.fixture(scope="module")
def library(tmp_path_factory, music, tiny_model):
    """Twelve real excerpts, with metadata as tags and annotations would give them."""
    root = tmp_path_factory.mktemp("commands")
    (root / "Music").mkdir()
    for path in sorted(music.glob("*.ogg"))[:12]:
        shutil.copyfile(path, root / "Music" / path.name)
    (root / "Music" / "broken\x1b[31m.ogg").write_bytes(b"OggS")
    output = run("index", root / "Music", root / "library", "--model", tiny_model, status=1)
    assert "12 tracks; 12 new, 0 changed, 0 moved, 0 removed, 0 unchanged, 1 failed" in output
    assert " s per track" in output and "\x1b" not in output
    (root / "Music" / "broken\x1b[31m.ogg").unlink()
    index = load_catalog(root / "library").open_index()
    changes = {
        name: {
            **index.metadata(name),
            "artist": ARTISTS[place % 3],
            "title": f"Song {place}",
            "tempo": 110.0 + place,
            "key": ("A minor", "C major")[place % 2],
            "year": 1970 + place,
            "mood": ["calm"] if place % 2 else ["happy"],
        }
        for place, name in enumerate(sorted(index.identifiers))
    }
    index.update_metadata(changes)
    index.save()
    return root / "library"


@pytest.fixture(scope="module")
def index(library):
    return load_catalog(library).open_index()


@pytest.fixture(scope="module")
def names(index):
    return sorted(index.identifiers)


def search(index, query, **options):
    """The search that ``msim query`` does: versions of a song are one hit."""
    return plain_search(index, query, diversity=Diversity(versions=True), **options)


def hits(output):
    return [(hit["identifier"], hit["distance"]) for hit in json.loads(output)["overall"]]


def expected(matches):
    return [(match.identifier, pytest.approx(match.distance)) for match in matches]


def test_a_second_run_needs_no_model_option_and_does_nothing(library):
    output = run("index", library.parent / "Music", library)
    assert "0 new, 0 changed, 0 moved, 0 removed, 12 unchanged, 0 failed" in output


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(library, tmp_path):
    before = (library / "library.db").read_bytes()
    moved = library.parent / "Music" / "new name.ogg"
    first = sorted((library.parent / "Music").iterdir())[0]
    first.rename(moved)
    try:
        output = run("index", library.parent / "Music", library, "--dry-run")
        assert output.splitlines() == [
            "would be new: 0",
            "would be changed: 0",
            "would be moved: 1",
            "would be returned: 0",
            "would be missing: 0",
            "unchanged: 11",
        ]
        assert (library / "library.db").read_bytes() == before
        run("index", library.parent / "Music", tmp_path / "new", "--dry-run")
        assert not (tmp_path / "new").exists()
    finally:
        moved.rename(first)


def test_query_by_track_weights_and_explanation(library, index, names):
    arguments = ["query", library, names[0], "--weights", "genre=1,mood=0,era=-0.5", "-k", 3]
    wanted = search(index, track_query(index, names[0]), weights={"genre": 1, "mood": 0, "era": -0.5}, k=3)
    assert hits(run(*arguments, "--json")) == expected(wanted)
    answer = json.loads(run(*arguments, "--json"))["overall"][0]
    assert sum(answer["shares"].values()) == pytest.approx(answer["distance"])
    assert "file" not in answer["metadata"] and answer["metadata"]["title"].startswith("Song")
    lines = run(*arguments, "--explain").splitlines()
    assert lines[0] == "overall" and wanted[0].identifier in lines[1]
    # In words, if there is anything to say, and then in numbers.
    reasons = [line.strip() for line in lines[2:4]]
    assert reasons[reasons[0] == answer["summary"]] == answer["explanation"]
    assert "genre" in answer["explanation"] and " = " in answer["explanation"]


def test_query_by_files_inside_and_outside_the_library(library, index, names, tmp_path):
    inside = library.parent / "Music" / names[2]
    wanted = search(index, track_query(index, names[2]), k=2)
    assert hits(run("query", library, inside, "-k", 2, "--json")) == expected(wanted)
    outside = shutil.copyfile(inside, tmp_path / "outside.ogg")
    actual = hits(run("query", library, outside, "-k", 1, "--json"))
    # The library's own copy is at distance 0, but for the rounding of float16.
    assert actual[0][0] == names[2] and actual[0][1] < 1e-4
    several = hits(run("query", library, outside, names[5], names[6], "-k", 4, "--json"))
    assert not {names[5], names[6]} & {name for name, _ in several}


def test_query_by_a_mix(library, index, names):
    wanted = search(index, mixed_query(index, {"genre": names[0], "tempo": names[1]}), k=3)
    output = run("query", library, "--mix", f"genre={names[0]}", "--mix", f"tempo={names[1]}", "-k", 3, "--json")
    assert hits(output) == expected(wanted)
    for arguments in (["--mix", "genre"], ["--mix", "taste=x"], [], [names[0], "--mix", f"genre={names[1]}"]):
        with pytest.raises(InputError):
            run("query", library, *arguments)


@pytest.mark.parametrize(
    "arguments, passes",
    [
        (["--bpm", "112-115"], lambda metadata: 112 <= metadata["tempo"] <= 115),
        (["--bpm", "56-57.5", "--octaves"], lambda metadata: 112 <= metadata["tempo"] <= 115),
        (["--key", "A minor"], lambda metadata: metadata["key"] == "A minor"),
        (["--tag", "CALM"], lambda metadata: metadata["mood"] == ["calm"]),
        (["--artist", "anna", "--artist", "Ben"], lambda metadata: metadata["artist"] in ("Anna", "Ben")),
        (["--year", "1975-1979"], lambda metadata: 1975 <= metadata["year"] <= 1979),
    ],
)
def test_filters(library, index, names, arguments, passes):
    passing = {
        name for name, _ in hits(run("query", library, names[0], "-k", 50, "--json", "--all-versions", *arguments))
    }
    assert passing == {name for name in names[1:] if passes(index.metadata(name))} and passing


def test_versions_are_one_hit_unless_asked_for_apart(library, index, names):
    query = track_query(index, names[0])
    wanted = search(index, query, k=12)
    printed = json.loads(run("query", library, names[0], "-k", 12, "--json"))["overall"]
    assert [(hit["identifier"], tuple(hit["versions"])) for hit in printed] == [
        (match.identifier, match.versions) for match in wanted
    ]
    lines = run("query", library, names[0], "-k", 12).splitlines()[1:]
    for line, match in zip(lines, wanted, strict=True):
        assert line.endswith(f"  ({len(match.versions) + 1} versions)") == bool(match.versions)
    apart = hits(run("query", library, names[0], "-k", 12, "--json", "--all-versions"))
    assert apart == expected(plain_search(index, query, k=12)) and len(apart) == 11


def test_limits_per_artist_and_diversity(library, index, names):
    actual = hits(run("query", library, names[0], "--per-artist", 1, "--json"))
    artists = [index.metadata(name)["artist"] for name, _ in actual]
    assert sorted(artists) == sorted(ARTISTS)
    plain = hits(run("query", library, names[0], "--json"))
    diverse = hits(run("query", library, names[0], "--diversity", "0.7", "--json"))
    assert diverse[0] == plain[0] and diverse != plain


def test_an_empty_answer_says_why(library, names):
    result = CliRunner().invoke(cli, ["query", str(library), names[0], "--bpm", "400-500"])
    assert result.exit_code == 0
    assert "msim: nothing found: no track of this library has a tempo from 400 to 500 bpm" in result.output


def test_wrong_options_say_what_is_wrong(library, names, tmp_path):
    for arguments, message in (
        (["--bpm", "fast"], "--bpm 'fast': expected LOWEST-HIGHEST"),
        (["--bpm", "130-120"], "lower limit first"),
        (["--key", "H minor"], "expected a tonic and a mode"),
        (["--profile", tmp_path / "none.json"], "not found; expected a profile"),
    ):
        with pytest.raises(InputError, match=message):
            run("query", library, names[0], *arguments)
    with pytest.raises(InputError, match="did you mean"):
        run("query", library, names[0][:5])


def test_path_on_the_command_line(library, index, names):
    wanted = track_path(index, names[0], names[-1], length=5, weights={"tempo": 1.0})
    output = run("path", library, names[0], names[-1], "--length", 5, "-w", "tempo=1", "--json")
    assert [step["identifier"] for step in json.loads(output)] == [step.identifier for step in wanted]
    lines = run("path", library, names[0], names[-1], "--length", 5, "-w", "tempo=1").splitlines()
    assert len(lines) == 5 and names[0] in lines[0] and names[-1] in lines[-1]


def test_path_without_tracks_says_what_it_takes():
    with pytest.raises(InputError, match="0 tracks are given; a path leads FROM one TO another"):
        run("path")


def test_learn_from_a_plain_table_and_from_dim_sim(library, index, names, tmp_path, rng):
    """A listener who hears only tempo; the weights are those of the function that learns them."""
    part = index.source.layout.slices["tempo"]
    vectors = index.vectors(names)[:, part]
    distance = np.square(vectors[:, None] - vectors[None]).sum(2)
    triplets = []
    while len(triplets) < 60:
        a, b, c = rng.choice(len(names), 3, replace=False)
        triplets.append((a, b, c) if distance[a, b] < distance[a, c] else (a, c, b))
    plain = tmp_path / "choices.csv"
    rows = [",".join(names[i] for i in triplet) for triplet in triplets]
    plain.write_text("\n".join(["anchor,positive,negative", *rows, "unknown.ogg,a,b"]))
    output = run("learn", plain, tmp_path / "mine.json", "--library", library)
    assert "60 choices, 1 left out" in output
    weights = load_profile(tmp_path / "mine.json").weights
    sides = (index.vectors([names[triplet[side]] for triplet in triplets]) for side in range(3))
    layout = index.source.layout
    assert weights == pytest.approx(learn_profile("", choice_differences(*sides, layout), layout).weights)
    assert "choices it has not seen" in output
    dim_sim = tmp_path / "dim-sim.csv"
    header = "triplet_id,anchor_id,song1_id,song2_id,song1_vote,song2_vote"
    rows = [f"{i},{names[a]},{names[c]},{names[b]},1,4" for i, (a, b, c) in enumerate(triplets)]
    dim_sim.write_text("\n".join([header, *rows]))
    run("learn", dim_sim, tmp_path / "other.json", "--library", library)
    assert load_profile(tmp_path / "other.json").weights == pytest.approx(weights)
    by_profile = run("query", library, names[0], "--profile", tmp_path / "mine.json", "--json")
    assert hits(by_profile) == expected(search(index, track_query(index, names[0]), weights=weights))
    with pytest.raises(InputError, match="no choice is among tracks"):
        plain.write_text("anchor,positive,negative\nx,y,z\n")
        run("learn", plain, tmp_path / "mine.json", "--library", library)


def test_embeddings_are_imported_as_a_library(tmp_path, rng, library, monkeypatch):
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 24)
    vectors = rng.normal(size=(20, 24)).astype(np.float32)
    names = [f"track {number}" for number in range(20)]
    save_embeddings(tmp_path / "x.npz", identifiers=names, embeddings=vectors, layout=layout)
    with pytest.raises(InputError, match=r"x.npz: embeddings, not a library; .*msim import .*x.npz LIBRARY"):
        run("query", tmp_path / "x.npz", "track 0")
    with monkeypatch.context() as patch, pytest.raises(InputError, match="x.npz: embeddings, not a library"):
        patch.setenv("MSIM_LIBRARY", str(library))  # nor are they a track of the library that is used by default
        run("query", tmp_path / "x.npz", "track 0")
    assert run("import", tmp_path / "x.npz", tmp_path / "library") == f"{tmp_path / 'library'}: 20 tracks\n"
    expected_hits = search(Index.build(load_embeddings(tmp_path / "x.npz")), track_query_of(vectors[3], layout), k=4)
    actual = hits(run("query", tmp_path / "library", "track 3", "-k", 3, "--json"))
    assert [name for name, _ in actual] == [match.identifier for match in expected_hits[1:]]
    assert "track 1" in run("path", tmp_path / "library", "track 0", "track 1", "--length", 4)
    with pytest.raises(InputError, match="is a library already"):
        run("import", tmp_path / "x.npz", tmp_path / "library")
    with pytest.raises(InputError, match="imported vectors"):
        run("index", tmp_path, tmp_path / "library", "--dry-run")
    (tmp_path / "sound.ogg").touch()
    with pytest.raises(InputError, match="which model made its vectors; name the model with --model"):
        run("query", tmp_path / "library", tmp_path / "sound.ogg")


def track_query_of(vector, layout):
    return Query(normalised(vector, layout), layout.names)


def test_a_query_by_what_is_no_sound_file_says_what_it_is(library, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp3")  # opening it would wait for ever
    (tmp_path / "link.ogg").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"pipe\.mp3: not a regular file"):
        run("query", library, tmp_path / "pipe.mp3")
    with pytest.raises(InputError, match=r"link\.ogg: cannot be read \(No such file or directory\)"):
        run("query", library, tmp_path / "link.ogg")


def test_failures_are_listed_whole_and_as_json(library, tmp_path):
    folder = tmp_path / "Music"
    folder.mkdir()
    shutil.copyfile(next((library.parent / "Music").iterdir()), folder / "good.ogg")
    damaged = (folder / "good.ogg").read_bytes()
    (folder / "half.ogg").write_bytes(damaged[: len(damaged) * 3 // 4])
    for number in range(14):
        (folder / f"bad\u200b{number:02d}.mp3").write_text("not audio")
    model = load_catalog(library).model
    printed = run("index", folder, tmp_path / "library", "--model", model, status=1)
    assert "2 tracks; 2 new, 0 changed, 0 moved, 0 removed, 0 unchanged, 14 failed" in printed
    for arguments in ((tmp_path / "library",), (folder, tmp_path / "library")):
        lines = run("index", *arguments, "--failures").splitlines()
        assert len(lines) == 15 and lines[0].startswith("bad\u200b00.mp3: ")
        assert lines[14].startswith("half.ogg: used, though damaged: its last page is missing, ")
    listed = json.loads(run("index", tmp_path / "library", "--failures", "--json"))
    used = listed.pop("half.ogg")
    assert used["reason"] == "" and used["notes"][0].startswith("damaged: ")
    assert set(listed) == {f"bad\u200b{number:02d}.mp3" for number in range(14)}
    assert all(record["reason"] and record["size"] == 9 for record in listed.values())


@pytest.mark.parametrize(
    "name", ["zero\u200bwidth.ogg", "new\nline\x1b[1m.ogg", "back\\slash \\u200b.ogg", "\u202eleft.ogg"]
)
def test_a_printed_name_pastes_back(tmp_path, rng, name):
    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 24)
    vectors = rng.normal(size=(2, 24)).astype(np.float32)
    index = Index.build(Embeddings("x", ("a", name), vectors, layout))
    save_library(index, Catalog(tmp_path / "library", "x", None))
    printed = run("query", tmp_path / "library", "a").splitlines()[1].split("  ")[-1]
    assert hits(run("query", tmp_path / "library", printed, "--json"))[0][0] == "a"
    assert hits(run("query", tmp_path / "library", name, "--json"))[0][0] == "a"


def test_a_query_by_track_does_not_import_tensorflow(library, names):
    program = (
        "import sys; from msim_tf.cli import cli; cli(sys.argv[1:], standalone_mode=False); "
        "print('tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", program, "query", str(library), names[0]]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "False"
