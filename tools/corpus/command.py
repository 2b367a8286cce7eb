"""How the corpus's programs end: a caller's mistake is one line and status 2, never a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from msim_tf.errors import InputError


def run(main: Callable[[], int]) -> NoReturn:
    """Runs ``main`` and exits with the status that it returns."""
    try:
        sys.exit(main())
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
