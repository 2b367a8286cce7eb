"""``msim check``: verifies what msim wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from msim_tf.cli.options import import_tensorflow, printable
from msim_tf.errors import InputError
from msim_tf.export.documents import record_documents
from msim_tf.export.metadata import METADATA_FILE, check_export, version_directories
from msim_tf.files import load_json


@click.command()
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--record",
    is_flag=True,
    help="First take the files beside the versions of exported models, such as tables of their evaluation, as they are "
    "now; later checks compare them.",
)
@click.pass_context
def check(ctx: click.Context, paths: tuple[Path, ...], record: bool) -> None:
    """Verify every byte of PATH that counts.

    PATH is a library, a feature store, a run, an exported model (saved_models/NAME with all versions, or one version),
    embeddings or a teacher's passages (.npz), or a profile of weights or a split (.json).

    Each fault is a line that names the file and says what to do. The exit status is 1 if there is one.
    """
    for path in paths if record else ():
        if not (path.is_dir() and version_directories(path)):
            raise InputError(f"{path}: --record is for exported models, directories like saved_models/NAME")
        click.echo(f"{path}: recorded {', '.join(map(printable, record_documents(path))) or 'nothing'}")
    # Every path is checked, whatever is wrong with those before it.
    faulty = False
    for path in paths:
        faults = _faults(path)
        for fault in faults:
            click.echo(f"msim: {printable(fault)}", err=True)
        if not faults:
            click.echo(f"{path}: whole")
        faulty = faulty or bool(faults)
    if faulty:
        ctx.exit(1)


def _faults(path: Path) -> list[str]:
    """One line per fault of whatever is at ``path``; the kinds are told apart by their names.

    Raises:
        InputError: if it is nothing that msim writes.
    """
    from msim_tf.data.store_database import is_store
    from msim_tf.search.schema import DATABASE

    # Directories, each by the file that every one of its kind has.
    if (path / DATABASE).exists():
        from msim_tf.library.check import check_library

        return check_library(path)
    if is_store(path):
        import_tensorflow()
        from msim_tf.data.store import check_store

        return check_store(path)
    if (path / "run.json").exists():
        import_tensorflow()
        from msim_tf.model.run import check_run

        return check_run(path)
    if (path / METADATA_FILE).exists() or (path.is_dir() and version_directories(path)):
        return check_export(path)
    if path.suffix == ".npz":
        return _check_file(path, _load_arrays)
    if path.suffix == ".json" and path.is_file():
        return _check_file(path, _load_json)
    raise InputError(
        f"{path}: expected a library, a feature store, a run, an exported model, embeddings or passages (.npz), a "
        "profile or a split (.json)"
    )


def _check_file(path: Path, load: Callable[[Path], object]) -> list[str]:
    """The fault of a single file, whose reader verifies it."""
    try:
        load(path)
    except InputError as error:
        return [str(error)]
    return []


def _load_arrays(path: Path) -> None:
    from msim_tf.embeddings import load_embeddings
    from msim_tf.labels.passages import is_passages, load_passages

    if is_passages(path):
        load_passages(path)
    else:
        load_embeddings(path)


def _load_json(path: Path) -> None:
    from msim_tf.labels import splits
    from msim_tf.search.weights import load_profile

    value = load_json(path, "a profile of weights or a split")
    if isinstance(value, dict) and value.get("format") == splits.FORMAT:
        splits.load_split(path)
    else:
        load_profile(path)
