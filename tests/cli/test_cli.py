"""The command line: instant help, one line per wrong input, and results that are those of the library."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from commands import msim, msim_process
from tiny_model import tiny_model_path

from msim_tf.cli import _COMMANDS, _TASKS, cli, main
from msim_tf.data.store import FeatureStore
from msim_tf.data.store_database import StoreDatabase
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import load_embeddings, save_embeddings
from msim_tf.labels.passages import Passages, save_passages
from msim_tf.library.catalog import Catalog, save_library
from msim_tf.search.index import Index

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 24)


@pytest.fixture
def embeddings(tmp_path, rng):
    identifiers = [f"artist/{i:02d}.ogg" for i in range(20)]
    path = tmp_path / "library.npz"
    save_embeddings(path, identifiers=identifiers, embeddings=rng.normal(size=(20, 24)), layout=LAYOUT, meta={})
    library = tmp_path / "library"
    save_library(Index.build(load_embeddings(path)), Catalog(library, "toy", None))
    return library


@pytest.mark.parametrize("command", [(), *[(name,) for name in _COMMANDS]])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom msim_tf.cli import cli\n"
        f"try: cli({[*command, '--help']!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'tensorflow', 'keras', 'librosa', 'madmom', 'scipy', 'matplotlib', 'grpc'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout


def test_serve_says_at_once_that_it_starts(tmp_path):
    status, output, errors = msim("serve", tmp_path)
    assert status == 2 and output == f"starting with {tmp_path.name}, which takes some seconds\n"
    assert "has no version directory" in errors


def test_help_goes_by_task_and_listening_comes_first():
    text = CliRunner().invoke(cli, ["--help"]).output
    heads = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert heads == ["Options:", *(f"{task}:" for task in _TASKS)] and heads[1] == "Listen:"
    commands = [name for task in _TASKS.values() for name in task]
    assert len(set(commands)) == len(commands) and set(commands) == set(_COMMANDS)


def test_every_command_says_what_it_does():
    text = CliRunner().invoke(cli, ["--help"]).output
    for name in _COMMANDS:
        assert f"  {name} " in text
        help_text = CliRunner().invoke(cli, [name, "--help"]).output
        assert len(help_text.splitlines()) > 6


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["extract", "nowhere", "store"], "nowhere"),
        (["extract", "{empty}", "{new}"], "no audio|no sound"),
        (["extract", "{empty}", "{new}", "--features", "best"], "no feature preset 'best'"),
        (["label", "{empty}", "labels.csv"], "expected the database of a feature store"),
        (["annotate", "{empty}", "{empty}"], "expected the database of a feature store"),
        (["train", "{empty}", "{new}"], "expected the database of a feature store"),
        (["train", "{store}", "{new}"], "no track has a label in genre.*msim label"),
        (["train", "{store}", "{new}", "--preset", "huge"], "no training preset 'huge'"),
        (["train", "{store}", "{new}", "--dimensions", "genre,colour"], "unknown colour"),
        (["train", "{store}", "{new}", "--learning-rate", "-1"], "learning_rate is -1"),
        (["train", "{store}", "{new}", "--learning-rate", "nan"], "learning_rate is nan, expected > 0"),
        (["train", "{store}", "{new}", "--batch-size", "0"], "batch_size is 0, expected > 0"),
        (["train", "{store}", "{new}", "--steps-per-epoch", "-3"], "steps_per_epoch is -3, expected >= 0"),
        (["train", "{store}", "{new}", "--validation", "1"], "validation is 1.0"),
        (["train", "{store}", "{new}", "--seed", "-1"], "seed is -1, expected >= 0"),
        (["train", "{store}", "{new}", "--seed", "4294967296"], "below 2"),
        (["train", "{store}", "{new}", "--width", "inf"], "width is inf"),
        (["train", "{store}", "{new}", "--key-relation", "major"], "key_relation 'major': expected 'parallel' or"),
        (["export", "{empty}", "{store}", "{new}"], "expected a training run"),
        (["serve", "{empty}"], "version"),
        (["predict", "{clip}", "--model", "m"], "no server given"),
        (["predict", "{clip}", "--model", "m", "--grpc", "127.0.0.1:9", "--timeout", "0.3"], "not ready"),
        (["embed", "{clips}", "--model", "{empty}", "--out", "x.npz"], "no exported model here"),
        (["embed", "{clips}", "--model", "{empty}", "--out", "x.txt"], "ends in .npz"),
        (["query", "nowhere.npz", "a"], "nowhere.npz"),
        (["query", "{embeddings}", "artist/0"], "did you mean artist/00.ogg"),
        (["query", "{embeddings}", "artist/00.ogg", "-w", "mood"], "expected DIMENSION=NUMBER"),
        (["query", "{embeddings}", "artist/00.ogg", "-w", "taste=1"], "not in this embedding"),
        (["query", "{embeddings}", "{clip}"], "name the model with --model"),
        (["query", "{embeddings}", "artist/00.ogg", "--year", "9" * 400], "--year 9+...: too large a number"),
        (["list", "{embeddings}", "--year", "9" * 40], "expected numbers as of a calendar"),
        (["query", "{embeddings}", "{empty}/loop"], "too many levels|symbolic link"),
        (["info", "{embeddings}", "{empty}/loop"], "has no track"),
        (["index", "{empty}/loop", "{new}"], "not a folder"),
        (["extract", "{clips}", "{new}", "--run", "{clip}"], "--run, line 1: not a job that msim extract --plan"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, tmp_path, store, clips_folder, embeddings):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "loop").symlink_to("loop")
    names = {
        "empty": tmp_path / "empty",
        "new": tmp_path / "new",
        "store": store.path,
        "clips": clips_folder,
        "clip": clips_folder / store.identifiers[0],
        "embeddings": embeddings,
    }
    status, output, errors = msim(*(text.format(**names) for text in arguments))
    assert status == 2, errors
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.strip() and "?track" not in line]
    assert len(lines) == 1 and lines[0].startswith("msim: "), errors
    import re

    assert re.search(message, lines[0], re.IGNORECASE), lines[0]
    assert not (tmp_path / "new" / "store.db").exists() and not (tmp_path / "new" / "run.json").exists()


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "x", "--max-seconds"],
        ["index", "x", "--watch", "--poll-seconds"],
        ["describe", "x", "--max-seconds"],
        ["query", "x", "--diversity"],
        ["serve", "--poll-seconds"],
        ["predict", "x", "--model", "m", "--seconds"],
        ["predict", "x", "--model", "m", "--timeout"],
    ],
)
def test_options_that_are_no_finite_number_are_refused(arguments, number):
    """NaN passes every comparison with a limit, so that it would reach timers and decoders."""
    status, _, errors = msim(*arguments, number)
    assert status == 2
    assert f"Invalid value for '{arguments[-1]}'" in errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["extract", "nowhere", "store"], "nowhere"),  # after TensorFlow was imported, and all that it logs
        (["query", "nowhere.npz", "a"], "nowhere.npz"),
    ],
)
def test_a_process_says_nothing_else(arguments, message):
    status, output, errors = msim_process(*arguments)
    assert status == 2 and not output
    (line,) = [line for line in errors.splitlines() if line.strip() and "?track" not in line]
    assert line.startswith("msim: ") and message in line


def test_extract_reports_what_was_left_out(tmp_path, music):
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "good.ogg").write_bytes((music / "zaz__mus4.ogg").read_bytes())
    (folder / "bad.ogg").write_bytes(b"nothing")
    status, output, errors = msim("extract", folder, tmp_path / "store")
    assert status == 1
    assert "1 clips" in output and "left out: bad.ogg" in errors
    with StoreDatabase(tmp_path / "store") as database:
        assert database.execute("SELECT status FROM clips ORDER BY identifier") == [("failed",), ("ok",)]
    again = msim("extract", folder, tmp_path / "store")
    assert again[:2] == (status, output)


def test_labels_are_added_and_covered(tmp_path, store):
    import shutil

    shutil.copytree(store.path, tmp_path / "store")
    table = tmp_path / "labels.csv"
    table.write_text(f"track,dimension,value\n{store.identifiers[0]},mood,sad\n{store.identifiers[1]},tempo,120\n")
    status, output, _ = msim("label", tmp_path / "store", table)
    assert status == 0
    assert [line.split()[:3] for line in output.splitlines()[1:]] == [
        [name, str({"mood": 1, "tempo": 1}.get(name, 0)), "known"] for name in DIMENSION_NAMES
    ]
    assert FeatureStore(tmp_path / "store").labels.values[store.identifiers[0]] == {"mood": ("sad",)}
    table.write_text("track,dimension,value\nother.wav,mood,sad\n")
    status, _, errors = msim("label", tmp_path / "store", table)
    assert status == 2 and "other.wav" in errors


def test_what_a_teacher_says_last_counts(tmp_path, store, rng):
    import shutil

    shutil.copytree(store.path, tmp_path / "store")
    heard, counts = store.identifiers[:-1], np.full(len(store) - 1, 2)
    starts = np.tile(np.array([0, 3], np.float32), len(heard))
    vectors = rng.normal(size=(2 * len(heard), 5)).astype(np.float16)
    passages = Passages(
        (*heard, "elsewhere.ogg"),
        np.append(counts, 2),
        np.append(starts, [0, 3]),
        np.concatenate([vectors, vectors[:2]]),
        3.0,
        (2, 3),
    )
    save_passages(tmp_path / "passages.npz", passages)
    save_embeddings(tmp_path / "vectors.npz", identifiers=heard, embeddings=rng.normal(size=(len(heard), 4)))
    status, output, _ = msim("label", tmp_path / "store", tmp_path / "passages.npz")
    assert status == 0 and f"what a teacher says of passages of {len(heard)} tracks" in output
    kept = FeatureStore(tmp_path / "store").passages
    assert kept.identifiers == tuple(heard) and kept.seconds == 3.0
    np.testing.assert_array_equal(kept.vectors, vectors)
    assert msim("label", tmp_path / "store", tmp_path / "vectors.npz")[0] == 0
    assert FeatureStore(tmp_path / "store").passages.vectors.shape == (len(heard), 4)


def test_query_ranks_and_explains(embeddings):
    result = CliRunner().invoke(
        cli, ["query", str(embeddings), "artist/03.ogg", "-w", "mood=1", "-w", "key=2", "--json", "-k", "4"]
    )
    hits = json.loads(result.output)["overall"]
    assert len(hits) == 4 and "artist/03.ogg" not in [hit["identifier"] for hit in hits]
    distances = [hit["distance"] for hit in hits]
    assert distances == sorted(distances)
    for hit in hits:
        assert sum(hit["shares"].values()) == pytest.approx(hit["distance"])
        assert {name for name, share in hit["shares"].items() if share} == {"mood", "key"}
    text = CliRunner().invoke(cli, ["query", str(embeddings), "artist/03.ogg", "--each", "-k", "2"]).output
    assert [line for line in text.splitlines() if not line.startswith(" ")] == ["overall", *DIMENSION_NAMES]


def test_names_in_errors_are_printable(tmp_path):
    status, _, errors = msim("list", tmp_path / "a\x1b[31mb\nc")
    assert status == 2
    assert "a\\x1b[31mb\\nc" in errors and errors.count("\n") == 1


def test_choices_about_one_query_say_nothing_about_others(tmp_path, embeddings):
    (tmp_path / "choices.csv").write_text("anchor,positive,negative\nartist/00.ogg,artist/01.ogg,artist/02.ogg\n")
    status, output, _ = msim("learn", tmp_path / "choices.csv", tmp_path / "profile.json", "--library", embeddings)
    assert status == 0
    assert "whether the weights help on others is unknown" in output and "nan" not in output


def test_other_exceptions_keep_their_traceback(monkeypatch, embeddings):
    def fail(*_, **__):
        raise RuntimeError("a bug")

    monkeypatch.setattr("msim_tf.cli.library_query.Library", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["query", str(embeddings), "x"])


def test_embed_takes_the_configured_model(tmp_path, clips_folder, monkeypatch):
    model, plans = tiny_model_path(), {}
    monkeypatch.setenv("MSIM_MODEL", str(model))
    for name, options in {"configured": (), "named": ("--model", model)}.items():
        command = ("embed", clips_folder, "--out", tmp_path / "own.npz", "--plan", tmp_path / name, *options)
        assert msim(*command)[0] == 0
        plans[name] = (tmp_path / name).read_text()
    assert plans["configured"] == plans["named"] != ""


def test_embeddings_of_another_model_are_refused(tmp_path, clips_folder, store, embeddings):
    base = tiny_model_path()
    status, _, errors = msim("query", embeddings, clips_folder / store.identifiers[0], "--model", base)
    assert status == 2 and "embed the library again" in errors
    status, output, _ = msim("embed", clips_folder, "--model", base, "--out", tmp_path / "own.npz")
    assert status == 0 and "12 tracks, 24 coordinates" in output
    assert msim("import", tmp_path / "own.npz", tmp_path / "own")[0] == 0
    status, output, _ = msim("query", tmp_path / "own", clips_folder / store.identifiers[0], "--model", base, "-k", 1)
    # The same file is in the library, under its identifier, at distance 0.
    assert status == 0 and store.identifiers[0] in output and " 0.000 " in output
    with np.load(tmp_path / "own.npz") as arrays:
        assert set(arrays) >= {"identifiers", "embeddings", "dimensions", "widths"}
        assert arrays["embeddings"].dtype == np.float32
