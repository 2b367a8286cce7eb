"""The command line: parse, call, print; nothing else.

Commands live in modules by stage and are imported only when they run, and each imports what it needs
inside itself, so that help is instant. A wrong input is one line on standard error and exit status 2; a
batch that had to leave files out exits with status 1.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

import msim_tf
from msim_tf.errors import AudioWarning, InputError, PrecisionWarning
from msim_tf.extras import missing_extra
from msim_tf.names import printable

# Task -> command -> (module, one line for the overview), in the order in which a user needs them.
_TASKS = {
    "Listen": {
        "index": ("library_index", "Make a searchable library of a folder of music, or update it."),
        "describe": ("describe", "Say what music sounds like: words, tempo and key."),
        "query": ("library_query", "Find the tracks nearest to a track."),
        "path": ("library", "A playlist from one track to another."),
        "serve": ("serving", "A library's page in the browser; exported models over gRPC and REST."),
        "learn": ("library", "Learn weights from your own choices."),
    },
    "Look into a library": {
        "status": ("library_facts", "What a library has: tracks, failures, model, size."),
        "info": ("library_facts", "What a library knows of a track, and its neighbours."),
        "list": ("library_facts", "The tracks of a library, for people, programs or players."),
        "check": ("check", "Verify libraries and other files of msim."),
    },
    "Train a model": {
        "extract": ("corpus", "Extract features from a folder of audio into a store."),
        "annotate": ("corpus", "Estimate tempo and key with madmom."),
        "label": ("corpus", "Add labels from a CSV table or JAMS files."),
        "dataset": ("datasets", "Labels and splits of public data sets, from their own files."),
        "train": ("model", "Train a model on a store."),
        "export": ("model", "Export a trained model for TensorFlow Serving."),
    },
    "Work with vectors": {
        "embed": ("search", "Embed a folder of audio or a store."),
        "import": ("library", "Make a searchable library of embeddings."),
        "predict": ("serving", "Ask a running server about an audio file."),
        "milvus": ("milvus", "Keep a library in Milvus, and search it there."),
        "evaluate": ("evaluate", "Score embeddings, with intervals and tests."),
    },
}
_COMMANDS = {name: place for commands in _TASKS.values() for name, place in commands.items()}
# Commands that are called as something of Python's own; their functions end in an underscore.
_RESERVED = {"import", "list"}


class _Commands(click.Group):
    """Knows its commands by name, and imports one only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # Only this command's module is imported, so the help of one costs nothing of the others.
        function = f"{cmd_name}_" if cmd_name in _RESERVED else cmd_name
        return getattr(importlib.import_module(f"msim_tf.cli.{_COMMANDS[cmd_name][0]}"), function)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for task, commands in _TASKS.items():
            with formatter.section(task):
                # As wide as the longest name of all, so that the columns of the tasks line up.
                width = max(map(len, _COMMANDS)) + 2
                formatter.write_dl([(name.ljust(width - 2), text) for name, (_, text) in commands.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(msim_tf.__version__, prog_name="msim")
def cli() -> None:
    """Multi-dimensional music similarity: genre, mood, instrument, era, tempo and key in one embedding.

    \b
        msim index ~/Music
        msim query "Artist/Song.mp3" -w mood=1,tempo=1
        msim serve

    A folder of music becomes a model of your own in five steps: extract, annotate or label, train, export, serve. Every
    step can be interrupted and continues when the same command is given again.
    """


def _print_own_warnings() -> None:
    """What is wrong with a file that is used, and what a processor cannot, is a line for people, each time; other
    warnings stay as they are.
    """
    import warnings

    shown = warnings.showwarning

    def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, (AudioWarning, PrecisionWarning)):
            click.echo(f"  note: {printable(str(message))}", err=True)
        else:
            shown(message, category, *where, **more)

    warnings.simplefilter("always", AudioWarning)
    warnings.showwarning = show


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of the ``msim`` program."""
    # TensorFlow logs its start-up from C++; a user of a command has no use for it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _print_own_warnings()
    try:
        return cli.main(args=arguments, prog_name="msim", standalone_mode=True)
    except SystemExit as end:
        if arguments is None and sys.argv[1:2] == ["serve"] and end.code in (0, None):
            # Everything is closed. Python would go on for seconds to take TensorFlow
            # apart, while a service manager waits.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        raise
    # What a user can mend is one line, without a traceback.
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        click.echo(f"msim: {missing}", err=True)
    except InputError as error:
        click.echo(f"msim: {printable(str(error))}", err=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"msim: {printable(f'{where}{error.strerror or error}')}", err=True)
    sys.exit(2)
