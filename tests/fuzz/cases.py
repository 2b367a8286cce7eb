"""What a target of the fuzz stage is, and the loop that runs one."""

import faulthandler
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random


@dataclass(frozen=True)
class Case:
    """One case of a target.

    Attributes:
        number: its place in the target's sequence.
        random: seeded by the seed of the run, the target and the number.
        folder: an empty folder; it stays if the case fails.
    """

    number: int
    random: Random
    folder: Path


@dataclass(frozen=True)
class Target:
    """Something to feed wrong input.

    Attributes:
        prepare: makes what all cases share in a folder and puts what has to be closed on a stack; returns the
            function that runs a case. That function returns counts of what it did, and raises AssertionError (or
            anything else) when the code under test did wrong.
        share: of the time of the run.
        longest: seconds that one case may take before it counts as hanging.
    """

    prepare: Callable[[Path, ExitStack], Callable[[Case], Counter]]
    share: float
    longest: float


def run_target(name: str, target: Target, *, seed: int, seconds: float, only: int | None, out: Path) -> Counter:
    """Runs cases until ``seconds`` are over, at least one; or the case ``only``.

    The number of the case under way stands in ``out/state.json``, for the process that waits for this one.

    Returns:
        The counts of all cases, and "cases".
    """
    shared = out / "shared"
    shared.mkdir(parents=True)
    counts: Counter = Counter()
    with ExitStack() as stack:
        run = target.prepare(shared, stack)
        end = time.monotonic() + seconds
        number = only or 0
        while True:
            folder = out / f"case-{number}"
            folder.mkdir()
            (out / "state.json").write_text(json.dumps({"case": number}))
            # A case that hangs ends the process with the stack of every thread.
            faulthandler.dump_traceback_later(target.longest, exit=True)
            try:
                counts.update(run(Case(number, Random(f"{seed}/{name}/{number}"), folder)))
            finally:
                faulthandler.cancel_dump_traceback_later()
            shutil.rmtree(folder)
            counts["cases"] += 1
            number += 1
            if only is not None or time.monotonic() >= end:
                return counts
