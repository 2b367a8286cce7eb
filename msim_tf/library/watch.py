"""Changes below a folder of music, told when they have come to rest (watchfiles, extra ``watch``)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from msim_tf.audio.scan import is_hidden
from msim_tf.errors import InputError
from msim_tf.extras import require


def settled_changes(
    music: Path,
    library: Path,
    *,
    quiet_seconds: float = 3.0,
    poll_seconds: float | None = None,
    stop: threading.Event | None = None,
) -> Iterator[None]:
    """Yields once at the start, and then whenever something has changed and nothing more does.

    The start is watched already: what changes while the caller works is yielded after it.

    Args:
        music: the folder; links in it are followed at the start, as they are by the operating system.
        library: a directory that may lie below it, whose changes do not count.
        quiet_seconds: without a change, until changes count as settled: a file that is being copied is not read. With
            ``poll_seconds`` at least twice that and a second.
        poll_seconds: look for changes so often instead of being told by the operating system, which does not hear of
            changes that other machines make on a network mount; None to be told.
        stop: ends the watch when it is set.

    Raises:
        InputError: if watchfiles is not installed or the folder is not there.
    """
    require("watchfiles")
    import watchfiles

    if not music.is_dir():
        raise InputError(f"{music}: no such folder to watch")
    music, library = Path(os.path.realpath(music)), Path(os.path.realpath(library))
    if poll_seconds is not None:
        # Two looks have to find the same, and they see times of files in whole seconds.
        quiet_seconds = max(quiet_seconds, 2 * poll_seconds + 1)

    def counts(_: watchfiles.Change, path: str) -> bool:
        changed = Path(path)
        inside = changed.relative_to(music).parts if changed.is_relative_to(music) else (changed.name,)
        return not changed.is_relative_to(library) and not any(map(is_hidden, inside))

    rounds = watchfiles.watch(
        music,
        watch_filter=counts,
        # Without changes for so long, an empty round is yielded.
        rust_timeout=round(1000 * quiet_seconds),
        yield_on_timeout=True,
        force_polling=poll_seconds is not None,
        poll_delay_ms=round(1000 * (poll_seconds or 1)),
        stop_event=stop,
        ignore_permission_denied=True,
    )
    # A round without changes after some with them: the folder has come to rest.
    waiting = True
    for changes in rounds:
        if changes:
            waiting = True
        elif waiting:
            waiting = False
            yield
