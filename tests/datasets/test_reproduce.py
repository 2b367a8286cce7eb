"""docs/reproduce.md keeps its word: its figures are the paper's, and its commands run on trees in the real layout."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import dataset_trees as trees
import pytest
import soundfile

from msim_tf.evaluate.tables import PAPER_TABLE1, PAPER_TABLE2
from msim_tf.labels.splits import load_split

PAGE = (Path(__file__).parents[2] / "docs" / "reproduce.md").read_text(encoding="utf-8")
GENRES, MOODS, INSTRUMENTS, ERAS = ("rock", "jazz"), ("sad", "happy"), ("guitar", "female vocalists"), ("80s", "90s")
CLIPS, PARTS = 60, ("train",) * 36 + ("validation",) * 9 + ("test",) * 15


def script(marker):
    """The block of shell commands that holds ``marker``."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (block,) = (block for block in blocks if marker in block)
    return block


def run(text, folder, **variables):
    """The commands as a user gives them, with ``msim`` on the path."""
    shim = folder / "bin" / "msim"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m msim_tf "$@"\n')
    shim.chmod(0o755)
    path = f"{shim.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(["bash", "-ec", text], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def track_id(number):
    return f"TR{chr(65 + number % 26)}{chr(65 + number // 26)}AAA128F42{number:05d}"


def sixty_clips(root, music):
    """Two pieces of thirty excerpts each under Million Song's ids, with tags, artists, Choi's lists and triplets."""
    # One excerpt is silent, and extraction rightly leaves it out.
    excerpts = sorted(set(music.glob("*.ogg")) - {music / "colobot__music010.ogg"})[: CLIPS // 2]
    tags = {}
    for number in range(CLIPS):
        y, sr = soundfile.read(excerpts[number // 2], frames=12 * 44100, start=(number % 2) * 8 * 44100, always_2d=True)
        path = root / "msd" / "audio" / track_id(number)[2] / track_id(number)[3] / "A" / f"{track_id(number)}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, y[:, 0], sr, format="MP3")
        # Choices that differ inside each part and between neighbours.
        own = [values[number // step % 2] for values, step in ((GENRES, 2), (MOODS, 3), (INSTRUMENTS, 4), (ERAS, 5))]
        tags[number] = dict.fromkeys(own, 100)
    ids = [track_id(number) for number in range(CLIPS)]
    trees.lastfm_database(root / "msd" / "lastfm_tags.db", tags, ids)
    trees.track_metadata(
        root / "msd" / "track_metadata.db", ids=ids, artists=[f"AR{number // 3}" for number in range(CLIPS)]
    )
    for part, name in {"train": "train", "validation": "valid", "test": "test"}.items():
        lines = [track for track, own in zip(ids, PARTS) if own == part]
        trees.write(root / "msd" / f"{name}_x_msd_id.txt", "\n".join(lines) + "\n")
    test = [track for track, own in zip(ids, PARTS) if own == "test"]
    with open(root / "dim-sim-raw.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("triplet_id", "anchor_id", "song1_id", "song2_id", "song1_vote", "song2_vote"))
        for number in range(30):
            anchor, one, two = (test[(number * step + shift) % 15] for step, shift in ((1, 0), (1, 4), (1, 9)))
            writer.writerow((number, anchor, one, two, *((9, 1), (1, 9), (6, 4))[number % 3]))
    return root / "msd", root / "dim-sim-raw.csv", test


def test_the_papers_figures_are_those_of_the_tables():
    for score in (*PAPER_TABLE1.values(), *PAPER_TABLE2.values()):
        assert f"| {score:.4f} |".replace("0.", ".") in PAGE


@pytest.mark.slow
def test_table_1_table_2_and_figure_2_from_sixty_clips_in_million_songs_layout(tmp_path, music):
    msd, dim_sim, test = sixty_clips(tmp_path, music)
    out = tmp_path / "out"
    budget = "--width 0.03 --epochs 1 --steps-per-epoch 2 --batch-size 16"
    variables = {"MSD": msd, "DIMSIM": dim_sim, "OUT": out, "BUDGET": budget}
    printed = run(script("msim evaluate table1"), tmp_path, **variables)
    assert "msd: 60 of 60 tracks labelled: genre 60, mood 60, instrument 60, era 60" in printed
    assert [len(load_split(out / "split.json").parts[part]) for part in ("train", "validation", "test")] == [36, 9, 15]
    rows = {row["system"]: row for row in json.loads((out / "table1" / "table1.json").read_text())["rows"]}
    assert set(PAPER_TABLE1) - {"openl3"} <= set(rows)
    assert {row["N"] for row in rows.values()} == {20}  # ten of thirty triplets have six votes against four
    for name in ("baseline", "multi4", "single258", "single384", "multi384"):
        heard = json.loads((out / "table1" / "runs" / name / "run.json").read_text())["identifiers"]
        assert not {track for part in ("train", "validation") for track in heard[part] if Path(track).stem in test}
    table2 = json.loads((out / "table1" / "table2_multi384.json").read_text())["rows"]
    assert len(table2) == 63 and (out / "table1" / "kiviat_multi384.svg").read_text().startswith("<?xml")
    (tmp_path / "bin" / "msim").unlink()
    (tmp_path / "bin").rmdir()
    printed = run(script("msim evaluate triplets"), tmp_path, **variables)
    assert "N = 20" in printed and "over 15 clips" in printed and "human ceiling: " in printed


@pytest.mark.slow
@pytest.mark.skipif(
    "MSIM_RECIPES" not in os.environ, reason="full width takes minutes on two cores; MSIM_RECIPES=1 runs it"
)
def test_the_first_hundred_steps_of_the_jamendo_recipe(tmp_path, small_params, music):
    """Full width, its objective and augmentation; features and batches are small enough for two cores.

    It computes in 32 bits: a processor without instructions for bfloat16 takes many times longer in 16.
    """
    from msim_tf.data.store import FeatureStore
    from msim_tf.data.store_database import write_labels
    from msim_tf.data.writer import extract_folder
    from msim_tf.labels.tables import Labels
    from msim_tf.model import training
    from msim_tf.model.params import TRAIN_PRESETS

    extract_folder(music, tmp_path / "store", small_params)
    store = FeatureStore(tmp_path / "store")
    values = {
        track: {
            "genre": (GENRES[number % 2],),
            "mood": (MOODS[number // 2 % 2],),
            "instrument": (INSTRUMENTS[number // 3 % 2],),
            "era": (ERAS[number // 4 % 2],),
            "tempo": (("90", "133")[number // 5 % 2],),
            "key": (("C major", "D minor")[number // 6 % 2],),
        }
        for number, track in enumerate(store.identifiers)
    }
    write_labels(store.path, Labels(values, {track: track.split("__")[0] for track in store.identifiers}))
    recipe = TRAIN_PRESETS["jamendo"]
    assert recipe.network.width == 1.0 and recipe.mixed_precision and recipe.objective == "contrastive"
    # A hundred steps, not the thousand of warm-up that 26,000 steps begin with.
    overrides = {
        "epochs": 5,
        "steps_per_epoch": 20,
        "validation_steps": 1,
        "batch_size": 16,
        "warmup_steps": 20,
        "head_epochs": 0,
        "describe_steps": 0,
        "mixed_precision": False,
    }
    params = dataclasses.replace(recipe, **overrides)
    run = training.train(FeatureStore(store.path), tmp_path / "run", params)
    with open(run.path / "history.csv", newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 5 and all(0 < loss < 1e3 for loss in losses)
    assert losses[-1] < 0.95 * losses[0]
