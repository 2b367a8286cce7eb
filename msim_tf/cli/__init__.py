"""The command line: parse, call, print; nothing else.

Commands live in modules by stage and are imported only when they run, and each imports what it needs
inside itself, so that help is instant. A wrong input is one line on standard error and exit status 2; a
batch that had to leave files out exits with status 1.
"""

from __future__ import annotations

import importlib
import keyword
import os
import sys
from typing import Any

import click

import msim_tf
from msim_tf.errors import InputError
from msim_tf.extras import missing_extra

# Command -> (module, one line for the overview), in the order in which a user needs them.
_COMMANDS = {
    "extract": ("corpus", "Extract features from a folder of audio into a store."),
    "annotate": ("corpus", "Estimate tempo and key with madmom."),
    "label": ("corpus", "Add labels from a CSV table or JAMS files."),
    "dataset": ("datasets", "Labels and splits of public data sets, from their own files."),
    "train": ("model", "Train a model on a store."),
    "export": ("model", "Export a trained model for TensorFlow Serving."),
    "serve": ("serving", "Serve exported models over gRPC and REST."),
    "predict": ("serving", "Ask a running server about an audio file."),
    "embed": ("search", "Embed a folder of audio or a store."),
    "index": ("library", "Make a searchable library of a folder of music, or update it."),
    "import": ("library", "Make a searchable library of embeddings."),
    "query": ("library_query", "Find the tracks nearest to a track."),
    "path": ("library", "A playlist from one track to another."),
    "learn": ("library", "Learn weights from your own choices."),
    "milvus": ("milvus", "Keep a library in Milvus, and search it there."),
    "check": ("check", "Verify libraries and other files of msim."),
    "evaluate": ("evaluate", "Score embeddings, with intervals and tests."),
}


class _Commands(click.Group):
    """Knows its commands by name, and imports one only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        function = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        return getattr(importlib.import_module(f"msim_tf.cli.{_COMMANDS[cmd_name][0]}"), function)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(msim_tf.__version__, prog_name="msim")
def cli() -> None:
    """Multi-dimensional music similarity: genre, mood, instrument, era, tempo and key in one embedding.

    A folder of music becomes a model in five steps: extract, annotate or label, train, export, serve. Every step can be
    interrupted and continues when the same command is given again.
    """


def main(arguments: list[str] | None = None) -> Any:
    """Entry point of the ``msim`` program."""
    # TensorFlow logs its start-up from C++; a user of a command has no use for it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
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
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        click.echo(f"msim: {missing}", err=True)
    except InputError as error:
        click.echo(f"msim: {error}", err=True)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"msim: {where}{error.strerror or error}", err=True)
    sys.exit(2)
