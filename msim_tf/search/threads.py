"""The threads that share what one query has to read."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache


@cache
def cores() -> ThreadPoolExecutor:
    """One thread per core, which wait for queries; a forked process makes its own.

    Work that is given to them must not wait for them itself.
    """
    os.register_at_fork(after_in_child=cores.cache_clear)  # threads do not come along
    return ThreadPoolExecutor(os.cpu_count())
