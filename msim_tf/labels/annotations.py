"""Tempo and key of tracks as another program estimated them: the table in which databases keep them, and as labels.

A row belongs to one state of its file (size and modification time) and one length of audio; when either changes, the
track is annotated again. A file that could not be annotated has a row too, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from msim_tf.database import Database, Schema
from msim_tf.labels.tables import Labels, canonical_label

# One of the tables of a feature store's database, and of a library's.
ANNOTATIONS_TABLE = """
    CREATE TABLE annotations (
        track TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        seconds REAL NOT NULL,
        tempo REAL,                  -- NULL where there is no periodicity
        tempo_confidence REAL,
        key TEXT,
        key_confidence REAL,
        error TEXT                   -- why there is no annotation; then the four above are NULL
    ) STRICT, WITHOUT ROWID;
"""

# For annotations without a store or a library.
ANNOTATIONS = Schema(
    what="annotations of tempo and key",
    remake="remove it and annotate again",
    application_id=0x6D73416E,  # "msAn"
    statements=ANNOTATIONS_TABLE,
)


@dataclass(frozen=True)
class Annotation:
    """Tempo and key of a track.

    Attributes:
        tempo: beats per minute in 40..250, or ``None`` where there is no periodicity.
        tempo_confidence: strength of this tempo among all candidates, in [0, 1]; relative, so not a probability of a
            beat.
        key: e.g. "A minor".
        key_confidence: probability of this key among 24, in [0, 1].
    """

    tempo: float | None
    tempo_confidence: float
    key: str
    key_confidence: float


@dataclass(frozen=True)
class AnnotationRecord:
    """What came of annotating a file.

    Attributes:
        track: its identifier.
        size: bytes of the file.
        modified: its modification time in ns.
        seconds: how much of its middle was looked at, at most.
        outcome: the annotation, or why there is none.
    """

    track: str
    size: int
    modified: int
    seconds: float
    outcome: Annotation | str


def load_records(database: Database) -> dict[str, AnnotationRecord]:
    """Every row of the table, by track."""
    rows = database.execute(
        "SELECT track, size, modified, seconds, error, tempo, tempo_confidence, key, key_confidence FROM annotations"
    )
    records = {}
    for track, size, modified, seconds, error, *estimates in rows:
        outcome = Annotation(*estimates) if error is None else error
        records[track] = AnnotationRecord(track, size, modified, seconds, outcome)
    return records


def save_records(database: Database, records: Iterable[AnnotationRecord]) -> None:
    """Adds rows to the table, in the place of older ones of the same tracks, in one transaction."""
    rows: list[tuple] = []
    for record in records:
        state = (record.track, record.size, record.modified, record.seconds)
        # Either the estimates or the reason why there are none; the other columns are NULL.
        if isinstance(record.outcome, str):
            rows.append((*state, None, None, None, None, record.outcome))
        else:
            estimates = record.outcome
            values = (estimates.tempo, estimates.tempo_confidence, estimates.key, estimates.key_confidence)
            rows.append((*state, *values, None))
    database.executemany("INSERT OR REPLACE INTO annotations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)


def annotation_labels(
    annotations: Mapping[str, Annotation], *, tempo_confidence: float = 0.1, key_confidence: float = 0.25
) -> Labels:
    """Annotations as labels; what is below its confidence is left unknown.

    Args:
        annotations: by identifier.
        tempo_confidence: in [0, 1]. The default is a rule of thumb: a synthetic drone had 0.06, noise 0.03, clicks 0.25
            and more, the excerpts that ship here 0.10 to 0.44; it was not validated against annotated music.
        key_confidence: in [0, 1]. A rule of thumb too: chance is 0.04, and clicks, which have no key, reached 0.24.
    """
    values: dict[str, dict[str, tuple[str, ...]]] = {}
    for identifier, annotation in sorted(annotations.items()):
        labels: dict[str, tuple[str, ...]] = {}
        if annotation.tempo is not None and annotation.tempo_confidence >= tempo_confidence:
            labels["tempo"] = (canonical_label("tempo", str(annotation.tempo)),)
        if annotation.key_confidence >= key_confidence:
            labels["key"] = (annotation.key,)
        if labels:
            values[identifier] = labels
    return Labels(values)
