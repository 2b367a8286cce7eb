"""How the corpus's programs end: a caller's mistake is one line and status 2, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from msim_tf.errors import InputError


def reported(build: Callable[[], Iterable[str]]) -> int:
    """Runs ``build``, and prints what it says has failed; 1 if anything did or the disk is full, else 0."""
    try:
        failures = list(build())
    except OSError as error:  # no space left, or no such place
        print(f"{error}; what is finished is kept, run again to go on", file=sys.stderr)
        return 1
    for line in failures:
        print(line, file=sys.stderr)
    return 1 if failures else 0


def run(main: Callable[[], int]) -> NoReturn:
    """Runs ``main`` and exits with the status that it returns."""
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
