"""Hooks of the documentation site (``mkdocs.yml``): pages that are files of the repository, with links that hold in the
site, and pages made of notebooks.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
_SOURCES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "model_card.md": "saved_models/open6/MODEL_CARD.md",
}
_NOTEBOOK_LINK = re.compile(r"(\]\((?:\.\./)?notebooks/\w+)\.ipynb\)")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds a page ``notebooks/NAME.md`` for every notebook; the notebook itself stays beside it, to be downloaded."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.name)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """A notebook as a page: its text, its code, and what that printed.

    Args:
        notebook: as JSON; its outputs are text.
        name: of its file.
    """
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = "".join(line for output in cell["outputs"] for line in output["text"]).rstrip()
        if printed:
            parts.append(f"```text\n{printed}\n```")
    # The link stands below the title, with which the first cell begins.
    title, _, introduction = parts[0].partition("\n")
    link = f"[Download the notebook]({name}){{: download }} and run it in `docs/notebooks` of the repository."
    return "\n\n".join([title, introduction.strip(), link, *parts[1:]]) + "\n"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills the pages that are files elsewhere in the repository, and leads links to notebooks to their pages.

    Links of those files to pages of the site become relative to it; links to other files lose their address and keep
    their text.
    """
    source = _SOURCES.get(page.file.src_uri)
    if source is None:
        return _NOTEBOOK_LINK.sub(r"\1.md)", markdown)
    file = ROOT / source

    def linked(match: re.Match[str]) -> str:
        target = (file.parent / match[2].split("#")[0]).resolve()
        is_page = target.is_relative_to(ROOT / "docs")
        return f"[{match[1]}]({target.relative_to(ROOT / 'docs').as_posix()})" if is_page else match[1]

    return _LINK.sub(linked, file.read_text(encoding="utf-8"))
