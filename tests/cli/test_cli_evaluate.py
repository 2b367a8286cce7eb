"""``msim evaluate``: what is printed and written, and one line per wrong input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from msim_tf.cli import cli
from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
from msim_tf.embeddings import load_embeddings, save_embeddings
from msim_tf.errors import InputError

LAYOUT = EmbeddingLayout.equal(DIMENSION_NAMES, 12)
COMMANDS = ("triplets", "embed", "table1", "baselines", "report")
# Synthetic, in the columns of Dim-Sim's raw files: 0 lies at 0, 1 at 1, 2 at 3, 3 at 7 on a line.
DIM_SIM = """triplet_id,anchor_id,song1_id,song2_id,anchor_start_seconds,song1_start_seconds,song2_start_seconds,\
clip_lengths_seconds,song1_vote,song2_vote
q0,T0,T1,T2,0,0,0,1.0,9,1
q1,T0,T1,T2,1,0,0,1.0,0,10
q2,T1,T3,T2,0,0,0,1.0,1,19
q3,T1,T3,T2,0,0,0,1.0,6,4
q4,T1,T0,T3,0,0,0,1.0,5,5
q5,T2,lost,T3,0,0,0,1.0,10,0
"""


def invoke(*arguments):
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture
def dim_sim(tmp_path):
    path = tmp_path / "dim-sim.csv"
    path.write_text(DIM_SIM)
    return path


@pytest.fixture
def line(tmp_path):
    """Four tracks on a line, the position in every coordinate."""
    path = tmp_path / "line.npz"
    positions = np.repeat([[0.0], [1.0], [3.0], [7.0]], 12, axis=1)
    save_embeddings(path, identifiers=[f"T{i}.mp3" for i in range(4)], embeddings=positions, layout=LAYOUT)
    return path


@pytest.fixture
def worse(tmp_path):
    """Another system, without subspaces: 0 and 1 swapped with 3."""
    path = tmp_path / "worse.npz"
    save_embeddings(path, identifiers=["T0", "T1", "T2", "T3"], embeddings=np.array([[0.0], [7.0], [3.0], [1.0]]))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_instant_and_says_what_it_does(name):
    code = (
        "import sys\nfrom msim_tf.cli import cli\n"
        f"try: cli(['evaluate', {name!r}, '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'tensorflow', 'keras', 'librosa', 'madmom', 'scipy', 'matplotlib', 'grpc'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f" evaluate {name} " in done.stdout
    assert name in invoke("--help").output


def test_triplets_are_scored_by_hand_and_compared(dim_sim, line, worse, tmp_path):
    done = invoke("triplets", dim_sim, line, f"other={worse}", "--out", tmp_path / "out")
    # q0 right, q1 wrong, q2 right on the line; the other has |0-7| > |0-3|: q0 wrong,
    # q1 right; |7-3| < |7-1|: q2 right.
    assert "line: triplet score 0.6667" in done.output and "other: triplet score 0.6667" in done.output
    assert "N = 3, euclidean, dim-sim.csv, agreement >= 90%" in done.output
    assert "dropped 1: tied votes" in done.output and "dropped 1: agreement below 90%" in done.output
    assert "dropped 1: audio or vector missing" in done.output and "1 without a vector: lost" in done.output
    assert "line against other: +0.0000" in done.output and "alone right on 1 and 1 triplets" in done.output
    with open(tmp_path / "out" / "table1.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["system"], row["correct"], row["N"]) for row in rows] == [("line", "2", "3"), ("other", "2", "3")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("kiviat_line.png", "kiviat_line.svg"),
        *(f"{stem}.{suffix}" for stem in ("table1", "pairs", "table2_line") for suffix in ("md", "csv", "json")),
    }


def test_agreement_metric_and_weights_change_the_score(dim_sim, line, tmp_path):
    assert "N = 4" in invoke("triplets", dim_sim, line, "--agreement", "0.6").output
    vectors = np.repeat([[0.0], [1.0], [3.0], [7.0]], 12, axis=1)
    vectors[:, LAYOUT.slices["mood"]] = [[0], [3], [1], [7]]
    path = tmp_path / "mood.npz"
    save_embeddings(path, identifiers=[f"T{i}" for i in range(4)], embeddings=vectors, layout=LAYOUT)
    # In mood alone track 2 is nearer to 0 than track 1: q0 wrong, q1 right, q2 (|3-7| > |3-1|) right.
    done = invoke("triplets", dim_sim, path, "-w", "mood=1")
    assert "mood: triplet score 0.6667" in done.output
    # All points lie on a ray: every cosine distance is 0, a tie, wrong.
    assert "triplet score 0.0000" in invoke("triplets", dim_sim, line, "-w", "key=2", "--metric", "cosine").output


def test_exact_clips_need_vectors_of_clips(dim_sim, line, tmp_path):
    path = tmp_path / "clips.npz"
    names = ["T0@0", "T0@1", "T1@0", "T2@0", "T3@0"]
    save_embeddings(path, identifiers=names, embeddings=np.array([[0.0], [4.0], [1.0], [3.0], [7.0]]))
    done = invoke("triplets", dim_sim, path, "--clips")
    assert "triplet score 1.0000" in done.output and "exact clips" in done.output
    with pytest.raises(InputError, match=r"line: no vector for any of the .* \(it needs T0@0, T0@1"):
        invoke("triplets", dim_sim, line, "--clips")


def test_triplets_are_embedded_and_what_has_no_audio_is_listed(dim_sim, tmp_path, monkeypatch, clips_folder):
    import msim_tf.export.embedder as embedding

    class Fake:
        def __init__(self, model):
            self.metadata = type("M", (), {})()
            self.metadata.name, self.metadata.directory = "fake", tmp_path / "1"
            from synthetic import SMALL

            self.metadata.features, self.metadata.layout = SMALL, LAYOUT

        def extract(self, path):
            return type("F", (), {"frames": 200, "path": path, "mel": np.ones((64, 200), np.float32)})()

        def embed_segments(self, features, starts):
            return np.full(12, int(features.path.stem[1:]) + starts[0] / 1000, np.float32)

    monkeypatch.setattr(embedding, "Embedder", Fake)
    (tmp_path / "music").mkdir()
    for number in range(4):
        (tmp_path / "music" / f"T{number}.mp3").write_bytes(b"x")
    done = invoke("embed", dim_sim, tmp_path / "music", "--model", "any", "--out", tmp_path / "e.npz")
    assert done.exit_code == 1 and "e.npz: 4 tracks, 12 coordinates" in done.output
    assert "left out 1: no audio: lost" in done.output
    actual = load_embeddings(tmp_path / "e.npz")
    assert actual.identifiers == ("T0", "T1", "T2", "T3") and actual.meta["model"] == "fake"
    np.testing.assert_array_equal(actual.embeddings[:, 0], [0, 1, 2, 3])
    assert "triplet score" in invoke("triplets", dim_sim, tmp_path / "e.npz").output
    done = invoke("embed", dim_sim, tmp_path / "music", "--model", "any", "--out", tmp_path / "c.npz", "--clips")
    actual = load_embeddings(tmp_path / "c.npz")
    # One second at 62.5 frames a second; SMALL's segment is 1.024 s.
    np.testing.assert_allclose(actual.embeddings[actual.identifiers.index("T0@1"), 0], 0.062, atol=1e-6)


def test_baselines_of_a_store_are_files_anyone_reads(labelled_store, tmp_path):
    done = invoke("baselines", labelled_store.path, "--out", tmp_path, "--size", "16")
    assert "mfcc.npz: 12 tracks, 80 coordinates" in done.output
    for name, size in (("mfcc", 80), ("random_projection", 16)):
        actual = load_embeddings(tmp_path / f"{name}.npz")
        assert list(actual.identifiers) == labelled_store.identifiers and actual.embeddings.shape == (12, size)
        assert actual.layout is None and actual.meta["digest"] == labelled_store.params.digest
    mfcc = load_embeddings(tmp_path / "mfcc.npz").embeddings
    np.testing.assert_allclose(mfcc.mean(axis=0), 0, atol=1e-5)


@pytest.fixture
def vectors(labelled_store, tmp_path, rng):
    path = tmp_path / "vectors.npz"
    save_embeddings(
        path, identifiers=labelled_store.identifiers, embeddings=rng.normal(size=(12, 12)), layout=LAYOUT, meta={}
    )
    return path


def test_report_prints_its_page_and_headline_numbers(labelled_store, vectors, clips_folder, tmp_path):
    from msim_tf.checksums import save_checked_json
    from msim_tf.model.params import TrainParams
    from msim_tf.model.run import FORMAT, FORMAT_VERSION

    split = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "digest": labelled_store.params.digest,
        "identifiers": {"train": labelled_store.identifiers[8:], "validation": labelled_store.identifiers[:8]},
    }
    save_checked_json(tmp_path / "run" / "run.json", {**split, "params": TrainParams().to_json()})
    for given in (tmp_path / "run" / "run.json", tmp_path / "run"):
        done = invoke(
            *("report", vectors, "--store", labelled_store.path, "--audio", clips_folder, "--split", given),
            *("--out", tmp_path / "out", "-k", 3, "--per-label", 9),
        )
        assert done.output.splitlines()[0] == str(tmp_path / "out" / "report.html")
    actual = json.loads((tmp_path / "out" / "report.json").read_text())
    assert actual["facts"]["Tracks"] == "8 of features, held out"
    assert f"vectors: triplet score {actual['systems'][0]['score']:.4f}" in done.output
    cells = {(cell["subspace"], cell["kind"]): cell for cell in actual["disentanglement"]["cells"]}
    assert f"  genre      {cells['genre', 'genre']['accuracy']:.3f} on its own label" in done.output


def test_table1_calls_the_study_with_the_same_budget_for_all(labelled_store, tmp_path, monkeypatch, vectors):
    import msim_tf.cli.evaluate_studies as module
    import msim_tf.evaluate.studies.table1 as study
    from msim_tf.evaluate.tables import Table

    seen = {}

    def fake(store, out, options, **more):
        seen.update(store=store.path, out=out, options=options, **more)
        more["progress"]("train baseline", 1, 2)
        more["progress"]("embed baseline", 1, 2)
        return Table("Table 1", ("system",), (("baseline",),))

    networks = {name: module.NETWORK_PRESETS[name] for name in ("baseline", "single384")}
    monkeypatch.setattr(module, "NETWORK_PRESETS", networks)
    monkeypatch.setattr(study, "run_table1", fake)
    done = invoke(
        *("table1", labelled_store.path, "--out", tmp_path / "t1", "--epochs", 2, "--width", 0.05, "--seed", 4),
        *("--external", f"theirs={vectors}", "--per-label", 7),
    )
    assert "| baseline |" in done.output and "t1/table1.md" in done.output
    assert list(seen["options"].networks) == ["baseline", "single384"] and seen["triplets"] is None
    for params in seen["options"].networks.values():
        assert (params.epochs, params.seed, params.network.width, params.batch_size) == (2, 4, 0.05, 48)
        assert not params.network.time_averaged_heads
    assert (seen["options"].baseline, seen["options"].per_kind) == ("baseline", 7)
    assert [system.name for system in seen["externals"]] == ["theirs"]
    invoke("table1", labelled_store.path, "--out", tmp_path / "t1", "--network", "single384")
    assert seen["options"].baseline == "single384"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["triplets", "nowhere.csv", "{line}"], "nowhere.csv not found; expected a file of triplets"),
        (["triplets", "{table}", "{line}"], "columns a, b; expected those of Dim-Sim"),
        (["triplets", "{dim_sim}", "nowhere.npz"], "nowhere.npz not found"),
        (["triplets", "{dim_sim}", "{table}"], "not an npz of plain arrays"),
        (["triplets", "{dim_sim}", "{line}", "{line}"], "each under its own name"),
        (["triplets", "{dim_sim}", "{line}", "--agreement", "0.3"], r"expected a share in \[0.5, 1\]"),
        (["triplets", "{dim_sim}", "{line}", "-w", "taste=1"], "'taste' is not in this embedding"),
        (["triplets", "{dim_sim}", "{line}", "-w", "mood=1", "--out", "{new}"], "leaves nothing to weigh"),
        (["triplets", "{dim_sim}", "{worse}", "-w", "mood=1"], "worse has no subspaces to weigh"),
        (["triplets", "{dim_sim}", "{line}", "--baseline", "best"], "--baseline best: expected one of line"),
        (["triplets", "{dim_sim}", "{vectors}"], "vectors: no vector for any"),
        (["embed", "{dim_sim}", "{clips}", "--model", "nowhere", "--out", "e.npz"], "no exported model here"),
        (["embed", "{dim_sim}", "{clips}", "--model", "nowhere", "--out", "e.txt"], "ends in .npz"),
        (["table1", "{new}", "--out", "{new}"], "expected the database of a feature store"),
        (["table1", "{store}", "--out", "{new}", "--network", "huge"], "no network preset 'huge'"),
        (["table1", "{store}", "--out", "{new}", "--preset", "huge"], "no training preset 'huge'"),
        (["table1", "{store}", "--out", "{new}", "--epochs", "0"], "epochs is 0"),
        (["table1", "{store}", "--out", "{new}", "--external", "x=nowhere.npz"], "nowhere.npz not found"),
        (["table1", "{store}", "--out", "{new}", "--baseline", "best", "--validation", "0.5"], "baseline 'best'"),
        (["table1", "{store}", "--out", "{new}", "--triplets", "{dim_sim}"], "has none of the tracks of dim-sim.csv"),
        (["baselines", "{new}", "--out", "{new}"], "expected the database of a feature store"),
        (["report", "{line}", "--store", "{store}", "--out", "{new}"], "line: has vectors of 0 of the 12 tracks"),
        (
            ["report", "{vectors}", "--store", "{store}", "--out", "{new}", "--split", "{new}"],
            "expected a training run",
        ),
        (["report", "{vectors}", "--store", "{store}", "--out", "{new}", "--audio", "{new}"], "cannot be read"),
        (["report", "{vectors}", "--store", "{store}", "--out", "{new}", "--baseline", "best"], "baseline 'best'"),
        (["report", "{vectors}", "--store", "{store}", "--out", "{new}", "--key-relation", "x"], "key relation 'x'"),
    ],
)
def test_wrong_input_is_one_line(
    arguments, message, tmp_path, dim_sim, line, worse, vectors, labelled_store, clips_folder
):
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    names = {
        "dim_sim": dim_sim,
        "line": line,
        "worse": worse,
        "vectors": vectors,
        "table": tmp_path / "table.csv",
        "new": tmp_path / "new",
        "store": labelled_store.path,
        "clips": clips_folder,
    }
    with pytest.raises(InputError, match=message) as error:
        invoke(*(argument.format(**names) for argument in arguments))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_the_program_itself_prints_one_line(dim_sim):
    command = [sys.executable, "-m", "msim_tf", "evaluate", "triplets", str(dim_sim), "nowhere.npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == ["msim: nowhere.npz not found; expected an npz with identifiers and embeddings"]
