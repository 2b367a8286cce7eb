"""README and documentation keep their word: their Python runs, and their commands exist
with those arguments and options.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from msim_tf.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Programs of docs/scaling.md take hours, and are no quick blocks.
FILES = [file for file in sorted((ROOT / "docs").rglob("*.md")) if file.name != "scaling.md"]
PAGES = [README, *(file.read_text(encoding="utf-8") for file in FILES)]


def blocks(language):
    """The blocks of a language in all pages; the same text in two of them counts once."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(block for page in PAGES for block in pattern.findall(page)))


def commands():
    """The msim commands of all pages; a backslash at the end of a line continues it, as in a shell."""
    whole = (block.replace("\\\n", " ") for block in blocks("console"))
    lines = (line for block in whole for line in block.splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith("msim ")))


def test_there_is_something_to_test():
    assert len(blocks("python")) >= 3
    assert len(commands()) >= 10


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", commands())
def test_commands_parse(line):
    command, arguments = cli, shlex.split(line)[1:]
    context = click.Context(cli)
    while isinstance(command, click.Group):
        command = command.get_command(context, arguments.pop(0))
        assert command is not None, line
    command.make_context("msim", arguments)  # raises for an unknown option or a missing argument


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for block in blocks("console"):
        for line in block.splitlines():
            if line.startswith("make "):
                assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE)


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_paths_in_code_quotes_exist(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = set(
        re.findall(r"`((?:msim_tf|tests|tools|docs|serving|saved_models)/[\w./-]*|[\w-]+\.(?:md|toml|cfg))`", text)
    )
    missing = sorted(path for path in paths if not (ROOT / path).exists())
    assert not missing and (paths or name == "SECURITY.md")
