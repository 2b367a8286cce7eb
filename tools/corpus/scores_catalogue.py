"""Which of music21's bundled scores may be used, who composed them, and on which side of the split they are.

A score is taken when its own file states a free licence. Most state none; those come only when asked for
(music21 calls its corpus "out of copyright in the United States or licensed for use", some of it not
commercially). What reserves its rights never comes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_RESERVED = re.compile(r"all rights reserved|rights to all .{0,40}reserved|non-?commercial|[- ]NC\b", re.I | re.S)
_LICENCES = (
    ("CC0", r"\bCC0\b"),
    ("CC BY-SA", r"CC[- ]?(BY-SA|SA-BY)"),
    ("CC BY", r"CC[- ]BY\b"),
    ("GPL-2+", r"GNU\s+General\s+Public\s+License.{0,200}version\s+2.{0,100}later"),
    ("public domain", r"(released|assigned) to (the )?public domain|<rights>Public Domain</rights>"),
)


@dataclass(frozen=True)
class Collection:
    """Scores of one composer or book.

    Attributes:
        folder: below music21's corpus.
        composer: or book.
        era: or empty where it is not the composer's to say, as with folk tunes.
        genre: "classical" or "folk".
        part: "train" or "test".
        modal: whether a major or minor key would be said of it wrongly.
    """

    folder: str
    composer: str
    era: str
    genre: str = "classical"
    part: str = "train"
    modal: bool = False


COLLECTIONS = (
    Collection("ciconia", "Johannes Ciconia", "Medieval", modal=True),
    Collection("trecento", "Trecento", "Medieval", modal=True),
    Collection("luca", "Luca", "Medieval", part="test", modal=True),
    Collection("josquin", "Josquin des Prez", "Renaissance", modal=True),
    Collection("monteverdi", "Claudio Monteverdi", "Renaissance", modal=True),
    Collection("lusitano", "Vicente Lusitano", "Renaissance", part="test", modal=True),
    Collection("corelli", "Arcangelo Corelli", "Baroque"),
    Collection("bach", "Johann Sebastian Bach", "Baroque"),
    Collection("handel", "George Frideric Handel", "Baroque", part="test"),
    Collection("mozart", "Wolfgang Amadeus Mozart", "Classical"),
    Collection("haydn", "Joseph Haydn", "Classical"),
    Collection("beethoven", "Ludwig van Beethoven", "Classical", part="test"),
    Collection("schumann_clara", "Clara Schumann", "Romantic"),
    Collection("schumann_robert", "Robert Schumann", "Romantic"),
    Collection("verdi", "Giuseppe Verdi", "Romantic"),
    Collection("beach", "Amy Beach", "Romantic"),
    Collection("weber", "Carl Maria von Weber", "Romantic", part="test"),
    Collection("chopin", "Frederic Chopin", "Romantic", part="test"),
    Collection("joplin", "Scott Joplin", "20th century"),
    Collection("johnson_j_r", "J. Rosamond Johnson", "20th century"),
    Collection("schoenberg", "Arnold Schoenberg", "20th century", modal=True),
    Collection("webern", "Anton Webern", "20th century", part="test", modal=True),
    Collection("liliuokalani", "Liliuokalani", "", genre="folk"),
    Collection("leadSheet", "Stephen Foster", "", genre="folk"),
    Collection("oneills1850", "O'Neill's Music of Ireland", "", genre="folk"),
    Collection("ryansMammoth", "Ryan's Mammoth Collection", "", genre="folk"),
    Collection("airdsAirs", "Aird's Airs", "", genre="folk", part="test"),
)


@dataclass(frozen=True)
class Source:
    """A file of scores: where it is, and the licence it states (empty where it states none)."""

    collection: Collection
    path: Path
    licence: str


def stated_licence(path: Path) -> str | None:
    """The free licence that a score's own file states; empty where it states none,
    ``None`` where it reserves its rights.
    """
    text = _text(path)
    if _RESERVED.search(text):
        return None
    licences = [name for name, pattern in _LICENCES if re.search(pattern, text, re.S)]
    return licences[0] if licences else ""


def _text(path: Path) -> str:
    if path.suffix != ".mxl":
        return path.read_text(encoding="utf-8", errors="replace")
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("xml") and not name.startswith("META-INF")]
        return "".join(archive.read(name).decode("utf-8", "replace") for name in names)


def sources(corpus: Path, *, unstated: bool = False) -> Iterator[Source]:
    """The usable files of music21's corpus in a fixed order, those without a stated licence only if ``unstated``."""
    for collection in COLLECTIONS:
        paths = [
            p
            for p in (corpus / collection.folder).rglob("*")
            if p.suffix in (".mxl", ".xml", ".musicxml", ".krn", ".abc")
        ]
        for path in sorted(paths):
            licence = stated_licence(path)
            if licence or (unstated and licence is not None):
                yield Source(collection, path, licence or "unstated (music21: out of copyright or licensed for use)")
