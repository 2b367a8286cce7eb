"""Decodes somebody's sound file in a process of its own, so that neither its bugs, its memory nor its time are the server's.

    python -m msim_tf.audio.sandbox IN OUT SR SECONDS CPU_SECONDS

writes OUT, a mono float WAV at SR Hz. Exit status 2 with one line on standard error says what is wrong with IN, 3 that it is longer than
SECONDS. The process limits its own memory, time and output.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import msim_tf
from msim_tf.errors import InputError

_MEMORY = 2 * 2**30  # of address space: the libraries alone map some 600 MB
_TOO_LONG = 3


def decode_apart(source: Path, destination: Path, *, sr: int, seconds: float, timeout: float) -> None:
    """Runs this module in a new process and waits for it.

    Args:
        source: the file to decode.
        destination: the WAV to write.
        sr: its rate in Hz.
        seconds: the longest that is accepted.
        timeout: seconds that it may take.

    Raises:
        OverflowError: if it is longer than ``seconds``.
        TimeoutError: if it takes longer than ``timeout``.
        InputError: if it cannot be decoded; the text does not name the file.
    """
    numbers = [str(sr), str(seconds), str(int(timeout) + 1)]
    command = [sys.executable, "-m", __name__, str(source), str(destination), *numbers]
    # The package may be imported from a folder that the new process would not look in.
    environment = {**os.environ, "PYTHONPATH": str(Path(msim_tf.__file__).parents[1]), "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"decoding took longer than {timeout:g} s") from None
    if done.returncode == _TOO_LONG:
        raise OverflowError(f"the audio is longer than {seconds:g} s")
    if done.returncode:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = told[-1].removeprefix(f"{source}: ") if done.returncode == 2 and told else "it cannot be decoded"
        raise InputError(reason)


def _decode(source: str, destination: str, sr: int, seconds: float) -> int:
    from scipy.io import wavfile

    from msim_tf.audio import decode

    try:
        if decode.duration(source) > seconds:
            return _TOO_LONG
        # What a header promises is not what it holds, so it is also counted; one sample more tells "longer" from "just as long".
        y = decode.load_clip(source, sr=sr, seconds=seconds + 1 / sr)
    except InputError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 2
    if len(y) > seconds * sr:
        return _TOO_LONG
    wavfile.write(destination, sr, y)
    return 0


def _limit(sr: int, seconds: float, cpu_seconds: int) -> None:
    written = int(4 * sr * (seconds + 1)) + 2**16
    limits = {
        resource.RLIMIT_AS: _MEMORY,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: written,
        resource.RLIMIT_CORE: 0,
    }
    for what, value in limits.items():
        _, hard = resource.getrlimit(what)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (value, value))


if __name__ == "__main__":
    _source, _destination, _sr, _seconds, _cpu = sys.argv[1:]
    _limit(int(_sr), float(_seconds), int(_cpu))
    sys.exit(_decode(_source, _destination, int(_sr), float(_seconds)))
