"""What mirdata reads for us: single annotation files by its own loaders (extra ``datasets``; BSD 3-clause).

Its ``Dataset`` objects need an index that each data set's page serves; the loaders of single files need nothing but
the file, so these are used.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from msim_tf.datasets.collection import Collection
from msim_tf.errors import InputError


def mirdata_value(collection: Collection, module: str, loader: str, path: Path) -> Any:
    """What ``mirdata.datasets.MODULE.LOADER`` reads from ``path``; None after noting that the file is unreadable.

    Raises:
        InputError: if mirdata is not installed.
    """
    try:
        read = getattr(importlib.import_module(f"mirdata.datasets.{module}"), loader)
    except ImportError as error:
        raise InputError(f"this data set is read by mirdata: pip install 'msim-tf[datasets]' ({error})") from error
    try:
        return read(str(path))
    # Whatever a loader raises on a cut or foreign file, that file is what is wrong.
    except Exception as error:
        collection.leave_out(f"unreadable {path.suffix} file ({type(error).__name__})", path.name)
        return None
