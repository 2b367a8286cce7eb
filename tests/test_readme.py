"""README and documentation keep their word: their Python runs, and their commands, options, links, files, extras and
modules exist.
"""

import configparser
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import msim_tf
from msim_tf.cli import cli

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
NAMED = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "serving/README.md")]
CARDS = [ROOT / "saved_models" / "README.md", ROOT / "saved_models" / "open6" / "MODEL_CARD.md"]
PAGES = {path: path.read_text(encoding="utf-8") for path in (*NAMED, *CARDS, *DOCS)}
# The Python of docs/scaling.md starts processes; tests/tools/test_bench.py runs it.
RUN_HERE = [text for path, text in PAGES.items() if path in (ROOT / "README.md", *DOCS) and path.name != "scaling.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A link, or a heading's anchor, on the same page; other sites are not asked.
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)")
# Options in prose that are other programs'.
FOREIGN = {"--grpc_max_threads", "--logdir", "--mixed_precision", "--monitoring_config_file", "--platform"}
FOREIGN |= {"--sshloginfile"}
# Paths in prose that a user makes.
NOT_OURS = {"config.toml", "saved_models/mine", "saved_models/NAME/1", "saved_models/open6/6"}


def blocks(language):
    """The blocks of a language that are run here; the same text in two of them counts once."""
    code = [block for text in RUN_HERE for own, block in FENCE.findall(text) if own == language]
    return list(dict.fromkeys(code))


def shell_lines(text):
    """Lines of a page's shell blocks; a backslash at the end of a line continues it, as in a shell."""
    for language, block in FENCE.findall(text):
        if language in ("", "console", "sh"):
            yield from block.replace("\\\n", " ").splitlines()


def commands():
    """The msim commands of all pages as words, without redirections and the variables of a page's budget."""
    lines = []
    for text in PAGES.values():
        for line in shell_lines(text):
            # A pipe may end in msim; "#" begins a comment.
            for part in line.split(" | "):
                words = shlex.split(part.strip(), comments=True)
                if words[:1] == ["msim"]:
                    lines.append(tuple(word for word in words if word != "$BUDGET"))
    return [(words[: words.index(">")] if ">" in words else words) for words in dict.fromkeys(lines)]


def all_commands(command=cli) -> Iterator[click.Command]:
    """Every command of msim."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from all_commands(command.get_command(context, name))
    else:
        yield command


def prose(text):
    """A page without its blocks."""
    return FENCE.sub("", text)


def test_there_is_something_to_test():
    assert len(blocks("python")) >= 3
    assert len(commands()) >= 60


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_parse(words):
    command, arguments = cli, list(words[1:])
    context = click.Context(cli)
    while isinstance(command, click.Group):
        command = command.get_command(context, arguments.pop(0))
        assert command is not None, words
    if "--help" not in arguments:
        command.make_context("msim", arguments)  # raises for an unknown option or a missing argument


def test_options_in_prose_exist():
    # Those of msim, and those that scripts of tools/ and the plug-in declare.
    sources = [*(ROOT / "tools").rglob("*.py"), ROOT / "beetsplug" / "msim.py"]
    options = set().union(*(re.findall(r'"(--[\w-]+)"', path.read_text(encoding="utf-8")) for path in sources))
    for command in all_commands():
        for parameter in command.params:
            options |= {*parameter.opts, *parameter.secondary_opts}
    for path, text in PAGES.items():
        quoted = " ".join(re.findall(r"`([^`]+)`", prose(text)))
        missing = set(re.findall(r"(?<![\w-])--[a-z][\w-]*\w", quoted)) - options - FOREIGN
        assert not missing, (path, missing)


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for text in PAGES.values():
        for line in shell_lines(text):
            if line.startswith("make "):
                assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE), line


def anchors(text):
    """Addresses of a page's headings."""
    headings = re.findall(r"^#+ (.*)", prose(text), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_and_pictures_lead_somewhere(path):
    for target, anchor in LINK.findall(prose(path.read_text(encoding="utf-8"))):
        file = path.parent / target if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target + anchor


def test_paths_in_code_quotes_exist():
    pattern = r"`((?:msim_tf|tests|tools|docs|serving|saved_models)/[\w./-]*|[\w-]+\.(?:toml|cfg))`"
    for path, text in PAGES.items():
        missing = {name for name in re.findall(pattern, text) if not (ROOT / name).exists()}
        assert missing <= NOT_OURS, (path, missing)


def test_modules_in_code_quotes_exist():
    names = {name for text in PAGES.values() for name in re.findall(r"`(msim_tf(?:\.\w+)+)[`(]", text)}
    assert len(names) > 4
    for name in sorted(names):
        # A module, or what one defines; importing it might need an extra.
        path = ROOT / name.replace(".", "/")
        if not path.is_dir() and not path.with_suffix(".py").exists():
            parent = path.parent / "__init__.py" if path.parent.is_dir() else path.parent.with_suffix(".py")
            source = parent.read_text(encoding="utf-8")
            assert re.search(rf'^(class |def |    "){path.name}\b', source, re.MULTILINE), name


def test_extras_to_install_exist():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = {
        extra
        for text in PAGES.values()
        for extras in re.findall(r"pip install ['\"].*?\[([\w,]+)\]", text)
        for extra in extras.split(",")
    }
    assert {"all", "train", "spark"} <= named <= set(setup["options.extras_require"])


def test_the_reference_has_every_public_name():
    shown = re.findall(r"^::: msim_tf\.(\w+)$", PAGES[ROOT / "docs" / "reference" / "python.md"], re.MULTILINE)
    assert set(msim_tf.__all__) <= set(shown)
