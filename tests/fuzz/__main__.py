"""The command of the fuzz stage: targets one after the other, each in a process of its own, and a summary."""

import argparse
import contextlib
import importlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

OUT = Path("build/fuzz")
TARGETS = ("audio", "stored", "requests")
_GRACE = 600.0  # seconds over its share that a target may take: imports, what it prepares, the last case


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 if every target passed, 1 if one failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="default: a new one")
    parser.add_argument("--seconds", type=float, default=120.0, help="for all targets together (default %(default)g)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="default: all")
    parser.add_argument("--case", type=int, help="run this case of --target alone")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case is not None and len(options.target or ()) != 1:
        parser.error("--case needs one --target")
    if options.inside:
        return _inside(options)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"fuzz: seed {seed}", flush=True)
    names = options.target or TARGETS
    shares = {name: _target(name).share for name in names}
    passed = [
        _run(name, seed, options.seconds * shares[name] / sum(shares.values()), options.case, OUT / name)
        for name in names
    ]
    return 0 if all(passed) else 1


def _target(name: str):
    return importlib.import_module(f"fuzz.{name}").TARGET


def _inside(options: argparse.Namespace) -> int:
    import shared

    from fuzz.cases import run_target

    (name,) = options.target
    folder = shared.start_run()
    counts = run_target(
        name, _target(name), seed=options.seed, seconds=options.seconds, only=options.case, out=OUT / name
    )
    if folder is not None:
        shared.end_run(folder)
    (OUT / name / "counts.json").write_text(json.dumps(counts))
    return 0


def _run(name: str, seed: int, seconds: float, case: int | None, out: Path) -> bool:
    """Runs one target in a new process; whether it passed."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "fuzz",
        "--inside",
        "--target",
        name,
        "--seed",
        str(seed),
        "--seconds",
        str(seconds),
    ]
    if case is not None:
        command += ["--case", str(case)]
    begun = time.monotonic()
    with open(out / "log.txt", "w") as log:
        # A session of its own, so that what the target started ends with it, however it ends.
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=_environment(), start_new_session=True
        )
        try:
            status: object = process.wait(seconds + _GRACE)
        except subprocess.TimeoutExpired:
            status = "not finished in time"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    spent = time.monotonic() - begun
    if status == 0:
        counts = json.loads((out / "counts.json").read_text())
        print(
            f"  {name}: passed in {spent:.0f} s; " + ", ".join(f"{n} {what}" for what, n in counts.items()), flush=True
        )
        shutil.rmtree(out)
        return True
    state = out / "state.json"
    failed = json.loads(state.read_text())["case"] if state.exists() else None
    print((out / "log.txt").read_text(errors="replace")[-6000:])
    print(f"  {name}: FAILED (status {status}) after {spent:.0f} s, case {failed}; what it used: {out}")
    if failed is not None:
        print(f'  again: make fuzz ARGS="--seed {seed} --target {name} --case {failed}"', flush=True)
    return False


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


if __name__ == "__main__":
    sys.exit(main())
