"""What a search box understands beside names: "calm piano under 100 bpm" as filters, and the words that are left.

Words are tags of the library, as it spells them or as synonyms of the taxonomy; phrases of several words go first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from msim_tf.errors import InputError
from msim_tf.labels.taxonomy import resolve
from msim_tf.search.filters import OPEN_BPM, Filters
from msim_tf.theory import TEMPO_MARGIN, key_name, parse_key

_MOST_PHRASE = 4  # words in a tag
_NUMBER = r"([0-9]{1,3}(?:\.[0-9]{1,2})?)"
_TEMPI = (
    (re.compile(rf"(?:\b(?:between|from)\s+)?{_NUMBER}\s*(?:-|–|to|and)\s*{_NUMBER}\s*bpm\b", re.I), "between"),
    (re.compile(rf"(?:\b(?:under|below|up to|at most|slower than)\s+|<=?\s*){_NUMBER}\s*bpm\b", re.I), "under"),
    (re.compile(rf"(?:\b(?:over|above|from|at least|faster than)\s+|>=?\s*){_NUMBER}\s*bpm\b", re.I), "over"),
    (re.compile(rf"(?:\b(?:about|around|at)\s+|~\s*)?\b{_NUMBER}\s*bpm\b", re.I), "about"),
)
_KEY = re.compile(r"(?<!\w)(?:in\s+)?([A-G](?:#|♯|b|♭| sharp| flat)?[ -](?:major|minor))\b", re.I)
_JOINING = frozenset(("and", "with", "in", "&"))  # say nothing between words that are understood
# What people type for moods that listeners of Last.FM tag otherwise: the commonest of these in the library.
_EVERYDAY = dict.fromkeys(("calm", "peaceful", "quiet", "relaxed", "relaxing"), ("mellow", "chillout"))


@dataclass(frozen=True)
class Wording:
    """What a text asks for.

    Attributes:
        filters: tempo, keys and tags that it names.
        rest: the words that are none of these, which titles and names may have.
    """

    filters: Filters
    rest: str


def wording(text: str, tags: Mapping[str, int]) -> Wording:
    """What a text of a search box asks for.

    Args:
        text: e.g. "calm piano under 100 bpm".
        tags: those of the library, as they are spelt, and how many tracks have each.
    """
    bpm, text = _tempo(text)
    keys, text = _keys(text)
    spelt: dict[str, str] = {}  # in small letters -> as it is spelt, the commonest first
    for tag in sorted(tags, key=tags.__getitem__, reverse=True):
        spelt.setdefault(tag.casefold(), tag)
    # Phrases that are tags become filters; the other words may be of titles and names.
    chosen: list[str] = []
    rest: list[str] = []
    for phrase in _phrases(text.split(), spelt):
        (chosen if phrase in spelt else rest).append(spelt.get(phrase, phrase))
    filters = Filters(bpm=bpm, keys=keys, tags=tuple(dict.fromkeys(chosen)))
    if filters != Filters():
        rest = [word for word in rest if word.casefold() not in _JOINING]
    return Wording(filters, " ".join(rest))


def _tempo(text: str) -> tuple[tuple[float, float] | None, str]:
    """The first range of tempi in a text, and the text without it."""
    for pattern, kind in _TEMPI:
        match = pattern.search(text)
        if match is None:
            continue
        numbers = sorted(float(number) for number in match.groups())
        low, high = {
            "between": (numbers[0], numbers[-1]),
            "under": (OPEN_BPM[0], numbers[0]),
            "over": (numbers[0], OPEN_BPM[1]),
            "about": (numbers[0] - TEMPO_MARGIN, numbers[0] + TEMPO_MARGIN),
        }[kind]
        # Nothing is as slow as 0 bpm: that is no tempo, and neither is what a later pattern would read there.
        return ((max(low, OPEN_BPM[0]), high), _without(text, match)) if numbers[0] >= OPEN_BPM[0] else (None, text)
    return None, text


def _keys(text: str) -> tuple[tuple[str, ...], str]:
    """The first key in a text, and the text without it."""
    match = _KEY.search(text)
    if match is None:
        return (), text
    try:
        key = key_name(parse_key(match[1].replace("-", " ").replace("♯", "#").replace("♭", "b")))
    except InputError:
        return (), text
    return (key,), _without(text, match)


def _without(text: str, match: re.Match[str]) -> str:
    return f"{text[: match.start()]} {text[match.end() :]}"


def _phrases(words: list[str], spelt: Mapping[str, str]) -> Iterator[str]:
    """The longest tags that follow each other in a text, in small letters; other words one by one, as they are."""
    words = [stripped for word in words if (stripped := word.strip(",;"))]
    place = 0
    while place < len(words):
        # The longest phrase from here that is a tag, else one word as it is.
        for length in range(min(_MOST_PHRASE, len(words) - place), 0, -1):
            tag = _tag(" ".join(words[place : place + length]), spelt)
            if tag:
                break
        yield tag or words[place]
        place += length


def _tag(phrase: str, spelt: Mapping[str, str]) -> str:
    """The tag of the library that a phrase names, in small letters; "" if none."""
    phrase = phrase.casefold()
    resolved = resolve(phrase)
    for candidate in (phrase, resolved[1].casefold() if resolved else ""):
        if candidate in spelt:
            return candidate
    return next((tag for tag in spelt if tag in _EVERYDAY.get(phrase, ())), "")
