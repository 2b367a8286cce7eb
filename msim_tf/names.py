"""Names that people wrote: compared by what they mean, printed so that they can be pasted back.

Two spellings of one artist ("Beyoncé" composed and decomposed, "A feat. B", "A; B") are one artist when a limit counts
them or a filter looks for them. What is stored and shown stays as it was written.
"""

from __future__ import annotations

import re
import unicodedata

# "feat." and its kin, with or without a bracket in front, up to the end.
_FEATURING = re.compile(r"\s*[(\[{]?\s*\b(?:feat|ft|featuring)\b\.?\s.*", re.DOTALL)
# Between artists: a semicolon; a slash with spaces, or between two words of three letters or more ("AC/DC" is one
# name).
_SEPARATOR = re.compile(r"\s*;\s*|\s+/\s+|(?<=\w{3})/(?=\w{3})")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Characters that show nothing and turn nothing round: zero-width spaces and joiners, byte order mark, soft hyphen.
_INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")


def comparable(name: str) -> str:
    """A name in the form in which two spellings of it are equal: composed (NFC), in one case, without what nobody
    sees.
    """
    visible = "".join(character for character in unicodedata.normalize("NFC", name) if character not in _INVISIBLE)
    # Folding the case may leave marks apart again, so compose last.
    return unicodedata.normalize("NFC", " ".join(visible.casefold().split()))


def comparable_artist(name: str) -> str:
    """The first artist of a credit, comparable: "A feat. B", "A; B" and "A / B" are all A's."""
    whole = comparable(name)
    first = _FEATURING.sub("", _SEPARATOR.split(whole)[0])
    return first or whole


def storable(name: str) -> str:
    """A file's name with its bytes that are not UTF-8 spelt out, since neither a database nor JSON keeps them."""
    return name.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """``text`` without what a terminal would obey: control characters, turned writing, bytes that are not UTF-8 are
    spelt out.

    Zero-width characters stay, so that a printed name can be copied and names the same file.
    """
    return "".join(
        character if character.isprintable() or character in _INVISIBLE else ascii(character)[1:-1]
        for character in text
    )


def xml_characters(text: str) -> str:
    """``text`` without the characters that no XML document can hold (XML 1.0, section 2.2), as tags of old files do."""
    return _NOT_IN_XML.sub("", text)


def unprintable(text: str) -> str:
    """The inverse of ``printable``: a name that was copied from the screen, with its control characters and raw bytes.

    A name that really holds a backslash and such letters is itself first; callers try the text as it is before this.
    """
    return re.sub(
        r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([ntr]))",
        lambda match: (
            {"n": "\n", "t": "\t", "r": "\r"}[match[4]]
            if match[4]
            else chr(min(int(match[1] or match[2] or match[3], 16), 0x10FFFF))
        ),
        text,
    )
