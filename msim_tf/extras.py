"""What may be missing: optional packages, with the extra that brings each, and modules that Windows lacks."""

from __future__ import annotations

import importlib.util

from msim_tf.errors import InputError

EXTRAS = {
    "apache_beam": "beam",
    "beets": "beets",
    "faiss": "faiss",
    "fsspec": "cloud",
    "jams": "train",
    "jinja2": "evaluate",
    "madmom": "annotate",
    "matplotlib": "evaluate",
    "mir_eval": "evaluate",
    "mirdata": "datasets",
    "prometheus_client": "metrics",
    "pymilvus": "milvus",
    "pyspark": "spark",
    "tensorboard": "train",
    "watchfiles": "watch",
}
"""Package, as it is imported -> extra of msim-tf."""


# Modules of Python that Windows lacks: locks, limits of processes.
_POSIX = {"fcntl", "resource"}


def missing_extra(error: ModuleNotFoundError) -> InputError | None:
    """What to tell the user of a package that is not there; None if no extra and no system brings it, which is a
    bug.
    """
    package = (error.name or "").partition(".")[0]
    if package in _POSIX:
        return InputError(
            f"this needs Linux or macOS: this system has no {package} (locks of files, limits of decoder processes); "
            "on Windows use WSL"
        )
    if package not in EXTRAS:
        return None
    return InputError(f"this needs {package}, which is not installed: pip install 'msim-tf[{EXTRAS[package]}]'")


def require(package: str) -> None:
    """Asks for an optional package before work begins, without importing it.

    Raises:
        InputError: if it is not installed.
    """
    if importlib.util.find_spec(package) is None:
        error = missing_extra(ModuleNotFoundError(name=package))
        assert error is not None, package
        raise error
