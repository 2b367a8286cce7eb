"""Start-up, as whole processes: ``import msim_tf``, ``msim --help``, the first answer of ``msim query``, the first
embedding of a model, and a server that is ready; each beside its floor.

The bars are for an idle machine; a query by track needs no model, so TensorFlow has no part in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tools.bench import frame
from tools.bench.clips import sound_files
from tools.bench.serving import untrained_model

_ROOT = Path(__file__).parents[2]


def run(options: frame.Options) -> list[frame.Figure]:
    """The section."""
    from msim_tf.cli.options import import_tensorflow

    import_tensorflow()
    scratch = Path(options.scratch)
    base = Path(options.model) if options.model else untrained_model(scratch / "bench")
    # The exact engine, because calibrating another takes minutes.
    tracks = 10_000 if options.quick else 100_000
    embeddings, library = _embeddings(scratch / "library.npz", tracks), scratch / "library"
    msim = [sys.executable, "-m", "msim_tf"]
    _run([*msim, "import", str(embeddings), str(library), "--search-engine", "exact"])
    song = sound_files(options.music, 1)[0]
    rounds = 3 if options.quick else 9
    seconds = frame.measure(
        {
            "python": lambda: _run([sys.executable, "-c", "pass"]),
            "numpy": lambda: _run([sys.executable, "-c", "import numpy"]),
            "import": lambda: _run([sys.executable, "-c", "import msim_tf"]),
            "help": lambda: _run([*msim, "--help"]),
            "query": lambda: _run([*msim, "query", str(library), "track 7"]),
        },
        rounds,
    )
    # The export has just been written and verified, so its files are warm already.
    embed = "import sys, msim_tf; msim_tf.load(sys.argv[1]).embed(sys.argv[2])"
    seconds |= frame.measure(
        {
            "tensorflow": lambda: _run([sys.executable, "-c", "import tensorflow"]),
            "embed": lambda: _run([sys.executable, "-c", embed, str(base), str(song)]),
            "server": lambda: _until_ready([*msim, "serve", str(base), "--grpc-port", "0", "--rest-port", "0"]),
        },
        1 if options.quick else 5,
        warmup=0,
    )
    # What the import adds to Python's own start, round by round.
    added = [one - floor for one, floor in zip(seconds["import"], seconds["python"])]
    query = {"unit": "s", "bar": 1.5, "at_most": True, "note": f"of {tracks:,} tracks"}
    return [
        frame.spread("python -c pass", seconds["python"], unit="s", note="the floor of every command"),
        frame.spread("import msim_tf", added, unit="s", bar=0.1, at_most=True, note="beyond that floor"),
        frame.spread("msim --help", seconds["help"], unit="s", bar=0.3, at_most=True),
        frame.ratio("msim --help / python", seconds["help"], seconds["python"]),
        frame.spread("msim query, first answer", seconds["query"], **query),
        frame.ratio("msim query / import numpy", seconds["query"], seconds["numpy"]),
        frame.spread("load() and a first embedding", seconds["embed"], unit="s", note="a track of the music"),
        frame.ratio("load() and embedding / import tensorflow", seconds["embed"], seconds["tensorflow"]),
        frame.spread("msim serve, ready", seconds["server"], unit="s", note="loaded and warmed up"),
        frame.ratio("msim serve / import tensorflow", seconds["server"], seconds["tensorflow"]),
    ]


def _embeddings(path: Path, tracks: int) -> Path:
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
