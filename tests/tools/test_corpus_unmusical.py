"""What is no music: noise of many kinds, speech of the catalogue, labels and parts."""

import csv

import numpy as np
import pytest
import soundfile

from msim_tf.errors import InputError
from msim_tf.labels.tables import read_labels_csv
from tools.corpus import unmusical
from tools.corpus.ledger import SR, sha256
from tools.corpus.recordings import Library, Recording


@pytest.mark.parametrize("kind", sorted(unmusical.NOISES))
def test_noise_is_finite_within_full_scale_and_the_same_each_time(kind):
    y = unmusical.noise(kind, 3)
    assert len(y) == unmusical.SECONDS * SR and np.isfinite(y).all() and 0.05 < np.abs(y).max() <= 1
    np.testing.assert_array_equal(y, unmusical.noise(kind, 3))
    assert np.abs(y - unmusical.noise(kind, 4)).max() > 0.01


@pytest.mark.parametrize("exponent", [0, 1, 2])
def test_the_power_of_coloured_noise_falls_as_told(exponent):
    y = unmusical.coloured(np.random.default_rng(0), exponent)
    power, frequencies = np.abs(np.fft.rfft(y)) ** 2, np.fft.rfftfreq(len(y), 1 / SR)
    bands = [power[(frequencies >= low) & (frequencies < 2 * low)].mean() for low in (100, 1600)]
    # Four octaves lie between the two bands.
    assert np.log2(bands[0] / bands[1]) == pytest.approx(4 * exponent, abs=0.4)


def recording(file, folder, seconds):
    soundfile.write(folder / file, np.random.default_rng(len(file)).normal(0, 0.1, seconds * SR), SR)
    return Recording(
        file=file,
        part="train",
        excerpts=0,
        cut="first",
        group=file,
        title=file,
        artist="Somebody",
        repository="a/b",
        commit="0" * 40,
        path=file,
        licence="CC0 1.0",
        licence_evidence="README",
        kind="speech, single voice",
        sha256=sha256(folder / file),
    )


def test_speech_is_cut_labelled_and_held_out_by_speaker(tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    speakers = [recording(f"s__{number}.wav", mirror, 12) for number in range(4)]
    (mirror / "s__1.wav").write_bytes(b"")
    monkeypatch.setattr(unmusical, "load_catalogue", lambda: speakers)
    monkeypatch.setattr(unmusical, "_EACH", 1)
    root = tmp_path / "corpus"
    missing = unmusical.build(root, Library(tmp_path / "cache", mirror))
    assert len(missing) == 1 and "s__1.wav" in missing[0]
    train, test = (read_labels_csv(root / f"unmusical-labels-{part}.csv") for part in ("train", "test"))
    spoken = [name for name, values in train.values.items() if values["instrument"] == ("speech",)]
    assert sorted(spoken) == [f"unmusical/speech/s__{n}-{start:04d}.flac" for n in (0, 2) for start in (0, 5)]
    assert {values["instrument"] for values in test.values.values()} == {("speech",), ("noise",)}
    assert not set(train.groups.values()) & set(test.groups.values())
    with open(root / "unmusical-manifest.csv", newline="") as file:
        assert {row["licence"] for row in csv.DictReader(file)} == {"CC0 1.0"}
    first = (root / "train" / spoken[0]).stat().st_mtime_ns
    unmusical.build(root, Library(tmp_path / "cache", mirror))
    assert (root / "train" / spoken[0]).stat().st_mtime_ns == first


def test_a_mirror_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        unmusical.library(tmp_path, tmp_path / "nothing")
