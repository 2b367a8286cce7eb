"""The notebooks of the documentation run, and show what they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import notebooks

NOTEBOOKS = sorted(notebooks.FOLDER.glob("*.ipynb"))


def printed(notebook):
    """Stored text of each code cell."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return ["".join(line for output in cell["outputs"] for line in output["text"]) for cell in cells]


def form(text):
    """A text without its numbers, and without the spaces that their width decides."""
    return re.sub(r"\s+", " ", re.sub(r"\s*-?\d[\d.,e+-]*", " #", text))


RUN = """
import json, pathlib, sys
from tools import notebooks
print(json.dumps(notebooks.run(notebooks.load(pathlib.Path(sys.argv[1])))))
"""


def outputs_of(path, folder):
    """What each code cell prints, run in a process of its own, as a reader's is."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path)],
        cwd=Path(notebooks.__file__).parents[1],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_what_is_shown(path, tmp_path):
    outputs = outputs_of(path, tmp_path)
    stored = printed(notebooks.load(path))
    # Numbers and hits may differ from one processor to another; which cells print, and in what form, may not.
    assert [bool(text) for text in outputs] == [bool(text) for text in stored]
    for own, shown in zip(outputs, stored):
        assert len(own.splitlines()) == len(shown.splitlines()), own
        if ".ogg" not in own:
            assert form(own) == form(shown)


def test_there_are_four_and_their_outputs_are_text():
    assert [path.stem for path in NOTEBOOKS] == ["own_model", "serve", "steer", "train"]
    for path in NOTEBOOKS:
        outputs = [output for cell in notebooks.load(path)["cells"] for output in cell.get("outputs", [])]
        assert outputs and {output["output_type"] for output in outputs} == {"stream"}, path
        assert path.stat().st_size < 20_000, path


def test_a_cell_that_fails_is_not_passed_over():
    cell = {"cell_type": "code", "source": ["x = 1\n", "print(x)\n", "x + 1"]}
    assert notebooks.run({"cells": [cell]}) == ["1\n2\n"]
    with pytest.raises(ZeroDivisionError):
        notebooks.run({"cells": [cell, {"cell_type": "code", "source": ["1 / 0"]}]})
