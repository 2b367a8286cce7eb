"""Hooks of the documentation site (``mkdocs.yml``): pages that are files of the
repository, with links that hold in the site.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_SOURCES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "model_card.md": "saved_models/open6/MODEL_CARD.md",
}
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fills the pages that are files elsewhere in the repository.

    Links to pages of the site become relative to it; links to other files lose their address and keep their text.
    """
    source = _SOURCES.get(page.file.src_uri)
    if source is None:
        return markdown
    file = ROOT / source

    def linked(match: re.Match[str]) -> str:
        target = (file.parent / match[2].split("#")[0]).resolve()
        is_page = target.is_relative_to(ROOT / "docs")
        return f"[{match[1]}]({target.relative_to(ROOT / 'docs').as_posix()})" if is_page else match[1]

    return _LINK.sub(linked, file.read_text(encoding="utf-8"))
