"""Why a track was found: what each dimension adds to its distance, and what the metadata of both tracks say about it.

The shares sum to the distance, and so do the rounded ones of the readable line. Evidence is what tags, annotations or a
model's own description say of both tracks; a dimension of which one of them says nothing has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from msim_tf.dimensions import dimension
from msim_tf.search.index import Index
from msim_tf.search.query import Match, Query
from msim_tf.search.tracks import artist_of
from msim_tf.theory import TEMPO_MARGIN, parallel_key, parse_key, relative_key, similar_tempo

_OCTAVES = {1: "double time", -1: "half time", 2: "four times as fast", -2: "a quarter as fast"}
_DIGITS = 3
_TAGS_SHOWN = 3
# Squared distances of unit subspaces, 0 to 4, up to which two tracks count as alike in a dimension, and from which as
# different. Tracks drawn at random are 1.6 apart on average, the nearest of a library .2 to .5.
_ALIKE, _DIFFERENT = 0.6, 1.4
_SPOKEN = ("mood", "instrument", "genre")  # what is said of a track, in this order


@dataclass(frozen=True)
class Explanation:
    """Why one track was found.

    Attributes:
        identifier: the track.
        distance: its distance to the query.
        shares: what each dimension adds; they sum to ``distance``.
        evidence: dimension -> what the metadata of both tracks say, where both do and the dimension counts.
        notes: what is no dimension's business, e.g. "same artist".
        summary: in words what both share, in what they differ, and what the found track is: "same tempo and mood,
            another key; calm, piano; 92 bpm, A minor"; "" if there is nothing to say.
    """

    identifier: str
    distance: float
    shares: dict[str, float]
    evidence: dict[str, str]
    notes: tuple[str, ...] = ()
    summary: str = ""

    def to_json(self) -> dict[str, Any]:
        """The explanation as a JSON object."""
        return {**asdict(self), "notes": list(self.notes), "line": self.line()}

    def line(self) -> str:
        """One readable line, e.g. "0.215 = genre 0.120 (both: rock) + tempo 0.095 (121 vs 120 bpm); same artist"."""
        # Terms that add nothing and say nothing are left out; the others sum to the total as they are printed.
        shares = {name: share for name, share in self.shares.items() if share or name in self.evidence}
        total, rounded = rounded_shares(list(shares.values()))
        terms: list[str] = []
        for name, share in zip(shares, rounded):
            evidence = self.evidence.get(name)
            # A sign stands between two terms; the first has one only if it is negative.
            sign = ("- " if share < 0 else "+ ") if terms else ("-" if share < 0 else "")
            terms.append(f"{sign}{name} {abs(share):.{_DIGITS}f}" + (f" ({evidence})" if evidence else ""))
        return "; ".join([f"{total:.{_DIGITS}f} = {' '.join(terms) or '0'}", *self.notes])


def explain(index: Index, query: Query, match: Match) -> Explanation:
    """Why ``match`` was found for ``query``.

    Dimensions in which the query is not one track of the index (a vector, a mean of examples) have shares but no
    evidence.
    """
    references = {name: index.metadata(track) for name, track in query.references.items() if track in index}
    return explanation(match, references)


def explanation(match: Match, references: Mapping[str, Mapping[str, Any]]) -> Explanation:
    """As ``explain``, with the metadata of the query's side given for each dimension.

    Args:
        match: the track.
        references: dimension -> metadata to compare with.
    """
    shares = {name: share for name, share in match.shares.items() if name in match.distances}
    # What adds nothing although the tracks differ in it has weight 0.
    counting = [name for name, share in shares.items() if share or not match.distances[name]]
    evidence = {name: compared(name, references[name], match.metadata) for name in counting if name in references}
    # "Same artist" holds only if every track that the query was made of is by the artist of this one.
    artist = artist_of(match.metadata)
    same_artist = artist != "" and bool(references)
    same_artist = same_artist and all(artist_of(reference) == artist for reference in references.values())
    return Explanation(
        identifier=match.identifier,
        distance=match.distance,
        shares=shares,
        evidence={name: text for name, text in evidence.items() if text},
        notes=("same artist",) if same_artist else (),
        summary=_summary(match, references),
    )


def _summary(match: Match, references: Mapping[str, Mapping[str, Any]]) -> str:
    """What both tracks share, in what they differ, and what the one that was found is; see ``Explanation.summary``."""
    # Labels of both tracks decide; where they are silent, the distance does. A track is not compared with itself.
    alike, different = [], []
    compares = not (references and all(reference is match.metadata for reference in references.values()))
    for name, distance in match.distances.items() if compares else ():
        # Whether both have one tempo, octaves folded, or one key; None where that is unknown, and in other dimensions.
        same: bool | None = None
        kind = dimension(name).kind
        reference, metadata = references.get(name, {}), match.metadata
        if kind == "key" and "key" in reference and "key" in metadata:
            same = parse_key(reference["key"]) == parse_key(metadata["key"])
        elif kind == "tempo" and "tempo" in reference and "tempo" in metadata:
            same = bool(similar_tempo(np.float64(reference["tempo"]), np.float64(metadata["tempo"])))
        if same or (same is None and distance <= _ALIKE):
            alike.append(name)
        elif same is False or distance >= _DIFFERENT:
            different.append(name)

    # Three parts, each left out where there is nothing to say: the comparison, first tags, tempo and key.
    comparison = [f"same {_listed(alike)}"] if alike else []
    comparison += [f"another {_listed(different)}"] if different and alike else []
    words = [tag for name in _SPOKEN for tag in match.metadata.get(name, [])[:1]]
    numbers = [f"{match.metadata['tempo']:.0f} bpm"] if "tempo" in match.metadata else []
    numbers += [match.metadata["key"]] if "key" in match.metadata else []
    return "; ".join(part for part in (", ".join(comparison), ", ".join(words), ", ".join(numbers)) if part)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def compared(name: str, query: Mapping[str, Any], hit: Mapping[str, Any]) -> str:
    """What the metadata of two tracks say about one dimension, "" if one of them says nothing."""
    # Tempi, and the nearest octave if they agree once the query's is shifted by it; shifted up, its margin is wider.
    kind = dimension(name).kind
    if kind == "tempo":
        if "tempo" not in query or "tempo" not in hit:
            return ""
        text = f"{hit['tempo']:.0f} vs {query['tempo']:.0f} bpm"
        octave = round(math.log2(hit["tempo"] / query["tempo"]))
        if octave in _OCTAVES:
            difference = abs(hit["tempo"] - query["tempo"] * 2**octave)
            text += f", {_OCTAVES[octave]}" if difference <= TEMPO_MARGIN * max(1.0, 2.0**octave) else ""
        return text

    # Keys, and how they are related.
    if kind == "key":
        if "key" not in query or "key" not in hit:
            return ""
        own, other = parse_key(query["key"]), parse_key(hit["key"])
        if own == other:
            return f"both: {hit['key']}"
        if other == parallel_key(own):
            return f"{hit['key']}, parallel key of {query['key']}"
        if other == relative_key(own):
            return f"{hit['key']}, relative key of {query['key']}"
        return f"{hit['key']} vs {query['key']}"

    # Tags that both have, else the first of each; the era also by the years.
    if query.get(name) and hit.get(name):
        tags = {tag.casefold() for tag in query[name]}
        both = [tag for tag in hit[name] if tag.casefold() in tags]
        if both:
            return f"both: {', '.join(both[:_TAGS_SHOWN])}"
        return f"{', '.join(hit[name][:_TAGS_SHOWN])} vs {', '.join(query[name][:_TAGS_SHOWN])}"
    if name == "era" and "year" in query and "year" in hit:
        return f"{hit['year']} vs {query['year']}" if query["year"] != hit["year"] else f"both: {hit['year']}"
    return ""


def rounded_shares(shares: list[float]) -> tuple[float, list[float]]:
    """A sum and its terms, rounded so that the rounded terms sum to the rounded sum (largest remainders).

    Returns:
        The sum and the terms, in whole thousandths.
    """
    # All terms are rounded down; what is then missing from the sum goes, a thousandth each, to the largest remainders.
    scale = 10**_DIGITS
    floors = [math.floor(share * scale) for share in shares]
    total = round(sum(shares) * scale)
    by_remainder = sorted(range(len(shares)), key=lambda place: floors[place] - shares[place] * scale)
    for place in by_remainder[: total - sum(floors)]:
        floors[place] += 1
    return total / scale, [floor / scale for floor in floors]
