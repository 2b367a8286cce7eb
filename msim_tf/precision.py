"""In how many bits a model computes: "float32", or "bfloat16" where the processor has instructions for it.

bfloat16 keeps 8 of the 24 bits of a number's fraction. TensorFlow's rewriter puts convolutions and matrix products into
it and leaves what adds up many numbers, inputs and outputs in float32; nothing in an exported model changes. A
processor without such instructions would emulate them, slower than float32: there models stay in float32.
Needs no TensorFlow.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from msim_tf.errors import InputError, PrecisionWarning

PRECISIONS = ("float32", "bfloat16")
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}
_CPUINFO = Path("/proc/cpuinfo")


def validate_precision(name: str, where: str) -> str:
    """``name``, if it is one of ``PRECISIONS``.

    Args:
        name: of a precision.
        where: who names it, for the message.

    Raises:
        InputError: if it is something else.
    """
    if name not in PRECISIONS:
        raise InputError(f"{where}: {name!r}: expected {' or '.join(PRECISIONS)}")
    return name


def has_bfloat16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor has instructions for bfloat16; False where the system does not say (other than Linux)."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(_INSTRUCTIONS & set(line.split()) for line in lines if line.startswith("flags"))


def usable_precision(name: str) -> str:
    """``name``, or float32, with a ``PrecisionWarning``, if this processor would only emulate it.

    Raises:
        InputError: if there is no such precision.
    """
    if validate_precision(name, "precision") == "float32" or has_bfloat16():
        return name
    warnings.warn(
        "this processor has no instructions for bfloat16, so the model computes in float32",
        PrecisionWarning,
        stacklevel=3,
    )
    return "float32"
