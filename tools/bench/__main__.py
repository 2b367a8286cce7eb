"""``python -m tools.bench [--quick] [--json FILE] [SECTION...]``: each section in a process of
its own, so that none warms the next.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tools.bench import frame

SECTIONS = ("extraction", "pipeline", "model", "serving", "startup", "search", "scaling")
EXTRA = ("peers", "precision")  # only by name: they need packages of other projects, or a store
_MUSIC = Path(__file__).parents[2] / "tests" / "data" / "music"


def main() -> int:
    """Parses, runs, prints."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description="Figures with their bars, side by side.")
    parser.add_argument(
        "sections", nargs="*", metavar="SECTION", help=f"default: {' '.join(SECTIONS)}; by name only: {' '.join(EXTRA)}"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: some five minutes")
    parser.add_argument("--json", metavar="FILE", help="also write the report as JSON")
    parser.add_argument("--music", default=str(_MUSIC), help="folder of sound files (default: those of the tests)")
    parser.add_argument(
        "--model", default="", help="exported model to serve (default: a small untrained one; peers: msim's own)"
    )
    parser.add_argument(
        "--embeddings",
        default="",
        metavar="FILE",
        help="npz of msim embed: search in vectors like these (default: synthetic)",
    )
    parser.add_argument(
        "--tf-serving", default="", metavar="HOST:PORT", help="gRPC API of a real one that serves --model"
    )
    parser.add_argument(
        "--store",
        default="",
        metavar="DIR",
        help="labelled store to read batches from (default: a small one of --music)",
    )
    parser.add_argument(
        "--peers-python",
        default="",
        metavar="PYTHON",
        help="peers: interpreter with bliss-audio and essentia (default: this one)",
    )
    parser.add_argument(
        "--musicnn",
        default=os.environ.get("MUSICNN_WHEEL", ""),
        metavar="DIR",
        help="peers: folder musicnn of the unpacked wheel (default: $MUSICNN_WHEEL)",
    )
    given = parser.parse_args()
    unknown = sorted(set(given.sections) - {*SECTIONS, *EXTRA})
    if unknown:
        parser.error(f"unknown section {unknown[0]}; expected some of {' '.join(SECTIONS + EXTRA)}")
    if given.tf_serving and not given.model:
        parser.error("--tf-serving needs --model, the export that it serves, so that both serve the same")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    report = frame.Report(given.quick, frame.environment())
    print(frame.table(report), flush=True)
    failed = 0
    for name in given.sections or SECTIONS:
        with tempfile.TemporaryDirectory(prefix="msim-bench-") as scratch:
            options = frame.Options(
                given.quick,
                given.music,
                scratch,
                serving=given.tf_serving,
                model=given.model,
                embeddings=given.embeddings,
                store=given.store,
                peers_python=given.peers_python,
                musicnn=given.musicnn,
            )
            try:
                with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                    section = process.submit(frame.run_section, name, options).result()
            except Exception as error:  # the other sections still have something to say
                print(f"\n{name}: failed: {error!r}", file=sys.stderr, flush=True)
                failed += 1
                continue
        report = frame.Report(report.quick, report.environment, (*report.sections, section))
        print("\n" + frame.section_table(section), flush=True)
        if given.json:  # now already: the longest sections come last
            frame.save_report(given.json, report)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
