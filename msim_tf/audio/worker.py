"""The decoder process that ``sandbox`` starts: takes requests over a socket, decodes, and sends blocks of samples back.

    python -m msim_tf.audio.worker SOCKET PARENT MEMORY

The process limits itself, because whatever it opens may be hostile: address space, processor time and time
without a block, no files written, no core dumps. The kernel enforces the limits, so they hold inside a decoder
that never returns. It ends when its parent does.

A request is a JSON object that asks for a file's sound or its tags. The answer is a message per block (float32), an
empty message, and a JSON object with ``notes`` and ``metadata``, or ``error``.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

# Decoding at less than five times real time, after a start of as long as the limit says, is
# a decoder that hangs in small steps.
_PACE = 5.0


def main() -> None:
    """Serves requests until the parent closes the socket or ends."""
    descriptor, parent, memory = (int(value) for value in sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    limited = _limit_memory(memory)
    connection = Connection(descriptor)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    from msim_tf.audio import decode  # noqa: F401  (loads the libraries before anything is said to be ready)

    connection.send_bytes(json.dumps({"memory_limited": limited}).encode())
    # What decoders print (mpg123's notes, FFmpeg's) would break into the parent's progress bar.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    with suppress(EOFError, ConnectionError):
        while True:
            _answer(connection, json.loads(connection.recv_bytes()), memory)


def _answer(connection: Connection, request: dict[str, Any], memory: int) -> None:
    """Decodes one file, or reads its tags."""
    from msim_tf.audio import decode, ffmpeg
    from msim_tf.errors import InputError

    path = Path(request["path"])
    notes: list[str] = []
    metadata: dict[str, str] = {}
    error = ""
    too_long = exhausted = False
    seconds = 0.0
    clock = _Clock(request["seconds"])
    try:
        clock.start(seconds)
        if request["metadata"]:
            metadata = ffmpeg.metadata(path)
        else:
            # The clock runs while a block is decoded, not while the parent takes it.
            for block in decode.read_blocks(path, sr=request["sr"], max_seconds=request["max_seconds"], notes=notes):
                clock.stop()
                connection.send_bytes(block.data)
                seconds += len(block) / request["sr"]
                clock.start(seconds)
    except InputError as reason:
        too_long, exhausted = isinstance(reason, decode.TooLong), isinstance(reason.__cause__, MemoryError)
        error = str(reason).removeprefix(f"{path}: ")
    except MemoryError:
        exhausted = True
    finally:
        clock.stop()

    # The answer ends with an empty message and what is to be said of the file.
    if exhausted:
        error = f"needs more than {memory / 2**30:g} GB of memory to decode"
    connection.send_bytes(b"")
    ending = {"notes": notes, "metadata": metadata, "error": error, "too_long": too_long, "leaving": exhausted}
    connection.send_bytes(json.dumps(ending).encode())
    if exhausted:
        raise EOFError  # hand the memory back: the parent starts another process


class _Clock:
    """Lets the kernel end this process when the decoder takes too long: by SIGALRM for a single
    block, by SIGXCPU for the whole file.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begun = time.process_time()

    def start(self, decoded: float) -> None:
        """Begins to wait for the next block, after ``decoded`` seconds of sound."""
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        processor = int(self._begun + self._seconds + decoded / _PACE) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (processor, hard))
        signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def stop(self) -> None:
        """A block is there, or the file ended. Waiting for the parent to take it does not count."""
        signal.setitimer(signal.ITIMER_REAL, 0)


def _limit_memory(memory: int) -> bool:
    """Limits address space, files and core dumps; False where the system does not limit address space (macOS)."""
    for what, value in ((resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(what, (value, value))
    try:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        value = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (value, value))
    except (AttributeError, OSError, ValueError):
        return False
    return sys.platform != "darwin"


def _end_with(parent: int) -> None:
    """Ends this process when its parent is gone, also in the middle of a file."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main()
