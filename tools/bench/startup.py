"""Start-up, as whole processes: ``msim --help``, the first answer of ``msim query``, and a server
that is ready; each beside its floor.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tools.bench import frame
from tools.bench.serving import untrained_model

_ROOT = Path(__file__).parents[2]


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    base = Path(options.model) if options.model else untrained_model(Path(options.scratch) / "bench")
    library = _library(Path(options.scratch) / "library.npz", 10_000)
    msim = [sys.executable, "-m", "msim_tf"]
    rounds = 3 if options.quick else 9
    seconds = frame.measure(
        {
            "python": lambda: _run([sys.executable, "-c", "pass"]),
            "numpy": lambda: _run([sys.executable, "-c", "import numpy"]),
            "help": lambda: _run([*msim, "--help"]),
            "query": lambda: _run([*msim, "query", str(library), "track 7"]),
        },
        rounds,
    )
    # The export has just been written and verified, so its files are warm already.
    seconds |= frame.measure(
        {
            "tensorflow": lambda: _run([sys.executable, "-c", "import tensorflow"]),
            "server": lambda: _until_ready([*msim, "serve", str(base), "--grpc-port", "0", "--rest-port", "0"]),
        },
        1 if options.quick else 5,
        warmup=0,
    )
    return [
        frame.spread("python -c pass", seconds["python"], unit="s", note="the floor of every command"),
        frame.spread("msim --help", seconds["help"], unit="s"),
        frame.ratio("msim --help / python", seconds["help"], seconds["python"]),
        frame.spread("msim query, first answer", seconds["query"], unit="s", note="of 10,000 tracks"),
        frame.ratio("msim query / import numpy", seconds["query"], seconds["numpy"]),
        frame.spread("msim serve, ready", seconds["server"], unit="s", note="loaded and warmed up"),
        frame.ratio("msim serve / import tensorflow", seconds["server"], seconds["tensorflow"]),
    ]


def _library(path: Path, tracks: int) -> Path:
    import numpy as np

    from msim_tf.dimensions import DIMENSION_NAMES, EmbeddingLayout
    from msim_tf.embeddings import save_embeddings

    layout = EmbeddingLayout.equal(DIMENSION_NAMES, 384)
    vectors = np.random.default_rng(0).normal(size=(tracks, layout.size)).astype(np.float32)
    save_embeddings(path, identifiers=[f"track {i}" for i in range(tracks)], embeddings=vectors, layout=layout)
    return path


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, cwd=_ROOT)


def _until_ready(command: list[str]) -> None:
    """Starts a server, waits for its first line, and kills it: only the way up is measured."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=_ROOT, env=environment, text=True
    ) as process:
        lines = iter(process.stdout or ())
        line = next((line for line in lines if not line.startswith("starting")), "")
        process.send_signal(signal.SIGKILL)
    if not line.startswith("serving"):
        raise RuntimeError(f"{' '.join(command)} did not start")
