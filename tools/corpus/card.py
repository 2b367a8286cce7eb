"""The tables of a model card in Markdown, from the figures that ``tools.corpus.judge`` wrote.

    python -m tools.corpus.card --judged judged.json --model open6

Three tables: the model's own subspaces beside other systems, with what we aim at; the same with tracks of the anchor's
package admitted; and what each subspace knows of each kind of label.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msim_tf.dimensions import DIMENSION_NAMES, TAG_DIMENSION_NAMES
from msim_tf.errors import InputError
from msim_tf.files import load_json
from tools.corpus.command import run
from tools.corpus.judge import RELATIVE, own_subspace

SYSTEMS = {
    "paper": "the paper's recipe",
    "ridge": "ridge to the teacher",
    "mfcc": "MFCC statistics",
    "musicnn": "MSD_musicnn 200",
    "musicnn-tags": "its 50 tags",
}
AIMS = {
    "genre": 0.95,
    "mood": 0.965,
    "instrument": 0.91,
    "era": 0.88,
    "tempo": 0.96,
    "key": 0.91,
    "tempo (stretched)": 0.85,
    "key (shifted)": 0.80,
}

_NOT_MEASURED: Mapping[str, Any] = {"accuracy": None, "low": None, "high": None, "anchors": 0}

Judged = Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]  # system -> kind -> subspace -> cell


def figure(share: float | None) -> str:
    """A share as the tables write it: .918, 1.0; a dash for what was not measured."""
    if share is None or math.isnan(share):
        return "-"
    return "1.0" if share >= 0.9995 else f"{share:.3f}"[1:]


def own_cell(kinds: Mapping[str, Mapping[str, Mapping[str, Any]]], kind: str) -> Mapping[str, Any]:
    """What a system's subspace of a kind's dimension gets right of it; all of the
    embedding where it has no subspaces.
    """
    row = kinds.get(kind, {})
    return row.get(own_subspace(kind, row), _NOT_MEASURED)


def _title(kind: str) -> str:
    """The kind as a card names it: "tempo (stretched)" is "tempo, stretched"."""
    return kind.replace(" (exact)", " of renders").replace(" (", ", ").rstrip(")")


def _judge(kind: str) -> str:
    teacher = kind.split(" ")[0] in TAG_DIMENSION_NAMES and not kind.endswith("(exact)")
    return "teacher" if teacher else "exact"


def comparison(judged: Judged, model: str, kinds: list[str]) -> Iterator[str]:
    """A row per kind: the model's own subspace with its interval, the other systems, and the aim."""
    others = [name for name in SYSTEMS if name in judged]
    header = ["kind", "judged by", f"{model}, own subspace", *(SYSTEMS[name] for name in others), "we aimed at"]
    yield from _head(header)
    for kind in kinds:
        cell = own_cell(judged[model], kind)
        unit = "triplets" if kind in RELATIVE else "anchors"
        figures = [figure(own_cell(judged[name], kind)["accuracy"]) for name in others]
        yield _row(
            _title(kind),
            f"{_judge(kind)}, {cell['anchors']} {unit}",
            f"**{figure(cell['accuracy'])}** ({figure(cell['low'])}-{figure(cell['high'])})",
            *figures,
            _aim(kind, cell["accuracy"]),
        )


def _aim(kind: str, accuracy: float | None) -> str:
    aim = AIMS.get(kind.replace(" (same package)", ""))
    if aim is None:
        return ""
    return f"{aim:.3f}".rstrip("0")[1:] + ("" if accuracy is not None and accuracy >= aim else ", missed")


def matrix(judged: Judged, model: str) -> Iterator[str]:
    """Kinds down, subspaces across, the own one in bold."""
    yield from _head(["", *DIMENSION_NAMES])
    for kind in DIMENSION_NAMES:
        row = judged[model].get(kind, {})
        figures = [figure(row.get(name, _NOT_MEASURED)["accuracy"]) for name in DIMENSION_NAMES]
        yield _row(kind, *(f"**{text}**" if name == kind else text for name, text in zip(DIMENSION_NAMES, figures)))


def _head(columns: list[str]) -> Iterator[str]:
    yield _row(*columns)
    yield "|" + "---|" * len(columns)


def _row(*columns: str) -> str:
    return f"| {' | '.join(columns)} |"


def tables(judged: Judged, model: str) -> list[list[str]]:
    """The lines of each table.

    Raises:
        InputError: if the model was not judged.
    """
    if model not in judged:
        raise InputError(f"no figures of {model!r}, only of {', '.join(judged)}")
    kinds = [kind for kind in judged[model] if not kind.endswith("(same package)")]
    exact = [kind for kind in kinds if kind.endswith("(exact)")]
    looser = [f"{name} (same package)" for name in TAG_DIMENSION_NAMES if f"{name} (same package)" in judged[model]]
    first = [*(kind for kind in kinds if kind not in exact), *exact]
    return [
        list(comparison(judged, model, first)),
        list(comparison(judged, model, looser)),
        list(matrix(judged, model)),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--judged", type=Path, required=True, help="what tools.corpus.judge wrote with --json")
    parser.add_argument("--model", default="open6", help="which of the systems is the model (default open6)")
    arguments = parser.parse_args()
    judged = load_json(arguments.judged, "figures of tools.corpus.judge")
    print("\n\n".join("\n".join(lines) for lines in tables(judged, arguments.model)))
    return 0


if __name__ == "__main__":
    run(main)
