"""A seventh dimension, declared by its name alone, goes from labels to a slider; names that no dimension can have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msim_tf.dimensions import DIMENSIONS, Dimension
from msim_tf.errors import InputError


def run_with(dimensions, *arguments):
    environment = {**os.environ, "MSIM_DIMENSIONS": dimensions, "CUDA_VISIBLE_DEVICES": "-1"}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_seventh_dimension_from_its_labels_to_its_slider(clips_folder, tmp_path):
    done = run_with("danceability", Path(__file__).with_name("seventh_dimension.py"), clips_folder, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ("mood", "one is named twice"),
        ("swing,swing", "one is named twice"),
        ("track", "dimension 'track': expected small letters and digits, and no name that has another use"),
        ("dance-ability", "dimension 'dance-ability': expected small letters"),
    ],
)
def test_a_bad_name_is_one_line(dimensions, message):
    done = run_with(dimensions, "-m", "msim_tf", "train", "--help")
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_choices_of_the_command_line_follow():
    done = run_with(" swing , ", "-m", "msim_tf", "train", "--help")
    assert done.returncode == 0 and "tempo,key,swing" in "".join(done.stdout.split())


def test_a_declaration_is_checked():
    assert [dimension.averaged_input for dimension in DIMENSIONS] == [None, None, None, None, "onset", "cens"]
    with pytest.raises(InputError, match="of kind 'class': expected one of tag, tempo, key"):
        Dimension("swing", "class")
    with pytest.raises(InputError, match="from 'mel': expected 'onset', 'cens' or None"):
        Dimension("swing", "tag", averaged_input="mel")
