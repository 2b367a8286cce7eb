"""Runs the notebooks of the documentation in this process and keeps what they print.

``python -m tools.notebooks`` runs all of ``docs/notebooks`` and writes their text output into them. They hold no other,
so that a change of one can be read in review. ``docs_hooks`` makes pages of them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def load(path: Path) -> dict[str, Any]:
    """A notebook as JSON; its cells have their source as a list of lines."""
    return json.loads(path.read_text(encoding="utf-8"))


def run(notebook: dict[str, Any]) -> list[str]:
    """Runs the code cells in order, as Jupyter does when it opens a notebook in its folder.

    Returns:
        What each code cell prints, and the value of its last expression.

    Raises:
        Exception: whatever a cell raises.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        return [_run_cell("".join(cell["source"]), names) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    finally:
        os.chdir(before)


def _run_cell(source: str, names: dict[str, Any]) -> str:
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "<cell>", "exec"), names)
        value = eval(compile(last, "<cell>", "eval"), names) if last else None
        if value is not None:
            print(repr(value))
    return printed.getvalue()


def with_outputs(notebook: dict[str, Any], outputs: list[str]) -> dict[str, Any]:
    """The notebook with what its code cells printed."""
    remaining = iter(outputs)
    cells = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            text = next(remaining).splitlines(keepends=True)
            shown = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
            cell = {**cell, "execution_count": None, "outputs": shown}
        cells.append(cell)
    return {**notebook, "cells": cells}


def main() -> None:
    """Runs every notebook, or those that are named, and writes what they print."""
    for path in [Path(name).resolve() for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        notebook = load(path)
        text = json.dumps(with_outputs(notebook, run(notebook)), indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
