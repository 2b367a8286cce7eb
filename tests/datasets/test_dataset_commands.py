"""``msim dataset``: what is printed, what is written, exit status, one line for each wrong input."""

import csv

import dataset_trees as trees
import pytest
from click.testing import CliRunner

from msim_tf.cli import cli, main
from msim_tf.data.store import FeatureStore
from msim_tf.data.writer import extract_folder
from msim_tf.datasets.catalogue import datasets
from msim_tf.labels.splits import load_split
from msim_tf.labels.tables import read_labels_csv


def run(*arguments):
    return CliRunner().invoke(cli, ["dataset", *map(str, arguments)])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as end:
        main(["dataset", *map(str, arguments)])
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1, text
    return text


def test_the_list_says_of_each_what_it_gives_and_who_may_use_it():
    text = run("list").output
    for name, facts in datasets().items():
        own = text[text.index(f"{name}: {facts.title}") :]
        for value in (
            *facts.gives.values(),
            facts.licence,
            facts.may_train,
            facts.may_ship,
            facts.where,
            facts.release,
        ):
            assert value in own
    assert run("list", "fma").output.count("may train") == 1


def test_labels_split_and_what_was_left_out_are_written(tmp_path):
    root = trees.fma(tmp_path / "fma")
    done = run(
        "labels", "fma", root, "--audio", root / "fma_small", "--out", tmp_path / "fma.csv",
        "--split", tmp_path / "s.json",
        "--left-out", tmp_path / "left.csv", "--as-published",
    )  # fmt: skip
    assert done.exit_code == 1, done.output  # a track of the small collection has no audio
    assert "fma: 2 of 3 tracks labelled: genre 2, era 2; artists of 3" in done.output
    assert "split (FMA's training, validation and test): train 1, validation 1, test 1" in done.output
    assert "left out 1: no audio: 000026" in done.output
    labels = read_labels_csv(tmp_path / "fma.csv")
    assert labels.values["000/000002.mp3"] == {"genre": ("Hip-Hop",), "era": ("00s",)}
    assert load_split(tmp_path / "s.json").parts["test"] == ("000/000005.mp3",)
    with open(tmp_path / "left.csv", newline="") as file:
        assert list(csv.reader(file)) == [["item", "reason"], ["000026", "no audio"]]
    trees.put_audio(root / "fma_small" / "000" / "000026.mp3")
    assert run("labels", "fma", root, "--out", tmp_path / "all.csv").exit_code == 0


def test_a_store_is_labelled_in_its_own_words(tmp_path, small_params):
    root = trees.jamendo(tmp_path / "jamendo")
    extract_folder(root / "audio", tmp_path / "store", small_params)
    done = run("labels", "jamendo", root, "--store", tmp_path / "store", "--split", tmp_path / "split.json")
    assert done.exit_code == 1 and "left out 1: no audio: track_0001378" in done.output
    labels = FeatureStore(tmp_path / "store").labels
    assert labels.values["76/1376.mp3"]["genre"] == ("alternative rock",)
    assert labels.groups["77/1377.low.mp3"] == "artist_000014"
    assert load_split(tmp_path / "split.json").parts["validation"] == ("76/1376.mp3",)


def test_wrong_input_is_one_line(tmp_path, capsys):
    root = trees.fma(tmp_path / "data")
    assert "looks like FMA small, not MTG-Jamendo" in refused(
        capsys, "labels", "jamendo", root, "--out", tmp_path / "x.csv"
    )
    assert "give --out, --store or --split" in refused(capsys, "labels", "fma", root)
    assert "no data set 'fmaa'" in refused(capsys, "labels", "fmaa", root, "--out", tmp_path / "x.csv")
    both = ("--store", tmp_path, "--audio", root, "--out", tmp_path / "x.csv")
    assert "give one of them" in refused(capsys, "labels", "fma", root, *both)
    silent = trees.jamendo(tmp_path / "silent")
    for path in silent.rglob("*.mp3"):
        path.unlink()
    text = refused(capsys, "labels", "jamendo", silent, "--out", tmp_path / "x.csv")
    assert "holds no audio" in text and text.endswith("if it lies elsewhere: --audio FOLDER\n")
    folders = trees.ballroom(tmp_path / "ballroom")
    text = refused(capsys, "labels", "ballroom", folders, "--split", tmp_path / "x.json")
    assert "no published split of Ballroom lies there" in text and not (tmp_path / "x.json").exists()


def test_training_with_a_published_split_never_hears_its_test_part(labelled_store, tmp_path, monkeypatch):
    """Stopped where batches are made, which the network has no other source of data than."""
    from msim_tf.cli.model import train
    from msim_tf.labels.splits import make_split, save_split
    from msim_tf.model import training

    tracks = list(labelled_store.identifiers)
    split = make_split("s", {"train": tracks[:6], "validation": tracks[6:9], "test": tracks[9:]})
    save_split(tmp_path / "split.json", split)
    asked = []

    def recorded(store, clips, *rest):
        asked.append([store.identifiers[clip] for clip in clips])
        if len(asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "StorePart", recorded)
    arguments = [labelled_store.path, tmp_path / "run", "--split", tmp_path / "split.json", "--network", "single384"]
    CliRunner().invoke(train, list(map(str, arguments)))
    assert asked == [tracks[:6], tracks[6:9]]
    assert training.load_run(tmp_path / "run").identifiers == {name: list(part) for name, part in split.parts.items()}
