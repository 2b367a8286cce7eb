"""Heavy fixtures that every process of a test run shares: each is made once, by the process that needs it first.

The process that pytest starts with makes the folder of the run and removes it; its workers inherit the folder's name.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

_RUN = "MSIM_TEST_RUN"


def start_run() -> tempfile.TemporaryDirectory | None:
    """Makes the folder of the run; None in a worker, which has it already."""
    if os.environ.get(_RUN):
        return None
    folder = tempfile.TemporaryDirectory(prefix="msim-tests-")
    os.environ[_RUN] = folder.name
    return folder


def end_run(folder: tempfile.TemporaryDirectory) -> None:
    """Removes the folder of the run."""
    del os.environ[_RUN]
    folder.cleanup()


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The path ``name`` in the folder of the run, made by the first process that asks for it.

    ``make`` writes to its final path, since libraries record where they are. Whoever comes meanwhile waits; what a
    failed attempt leaves is removed. Tests only read what is shared.
    """
    run = Path(os.environ[_RUN])
    path, done = run / name, run / f"{name}.done"
    with FileLock(run / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(path, ignore_errors=True)
            make(path)
            done.touch()
    return path
