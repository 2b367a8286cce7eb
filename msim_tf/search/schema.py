"""What ``library.db`` holds. The vectors lie beside it, see ``vectors``; ``database`` says how it is kept whole.

Texts that filters compare are stored in one case, as ``tracks`` spells them; ``metadata`` keeps them as they are
written. A file's name that is not UTF-8 is stored as its bytes.
"""

from __future__ import annotations

from msim_tf.database import Schema

DATABASE = "library.db"

SCHEMA = Schema(
    what="a library (msim index makes one)",
    remake="make it anew with msim index",
    application_id=int.from_bytes(b"msil", "big"),
    statements="""
    -- What there is one of, as JSON: source, vectors (number of the file, rows in it), engine, catalog.
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

    CREATE TABLE tracks (
        id INTEGER PRIMARY KEY,
        identifier NOT NULL UNIQUE,
        row INTEGER NOT NULL UNIQUE,            -- of its vector
        missing INTEGER NOT NULL DEFAULT 0,     -- 1 while its file is gone; then no query finds it
        metadata TEXT NOT NULL,                 -- JSON
        artist TEXT,
        tempo REAL,                             -- beats per minute
        key INTEGER,                            -- as theory.parse_key numbers keys
        year INTEGER,
        text TEXT NOT NULL                      -- what the search box looks at
    );
    CREATE INDEX missing_tracks ON tracks (identifier) WHERE missing;
    -- All that filters look at, but for tags: a scan of it reads a tenth of the table.
    CREATE INDEX facts ON tracks (id, row, tempo, key, year, artist);
    -- Rows that no query may find: replaced, removed or missing.
    CREATE TABLE hidden (row INTEGER PRIMARY KEY);

    CREATE TABLE tags (
        tag TEXT NOT NULL,
        track INTEGER NOT NULL REFERENCES tracks ON DELETE CASCADE,
        PRIMARY KEY (tag, track)
    ) WITHOUT ROWID;
    CREATE INDEX tags_by_track ON tags (track);

    -- Every three characters of a text, so that any part of a word is found.
    CREATE VIRTUAL TABLE words USING fts5(
        text, content='tracks', content_rowid='id', tokenize='trigram case_sensitive 1', detail=none
    );
    CREATE TRIGGER words_added AFTER INSERT ON tracks BEGIN
        INSERT INTO words (rowid, text) VALUES (new.id, new.text);
    END;
    CREATE TRIGGER words_removed AFTER DELETE ON tracks BEGIN
        INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
    END;
    CREATE TRIGGER words_changed AFTER UPDATE OF text ON tracks WHEN new.text IS NOT old.text BEGIN
        INSERT INTO words (words, rowid, text) VALUES ('delete', old.id, old.text);
        INSERT INTO words (rowid, text) VALUES (new.id, new.text);
    END;

    -- What each file of the music folder was when it was last read.
    CREATE TABLE files (
        identifier PRIMARY KEY,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,              -- nanoseconds since 1970
        sha256 TEXT NOT NULL DEFAULT '',
        failure TEXT,                           -- why it cannot be used; NULL if it can
        notes TEXT NOT NULL DEFAULT '[]'        -- JSON: what was wrong with it and did not matter
    ) WITHOUT ROWID;
    """,
)


def stored_name(identifier: str) -> str | bytes:
    """An identifier as the database holds it: text, or the bytes of a file name that is not UTF-8."""
    try:
        identifier.encode()
    except UnicodeEncodeError:
        pass
    else:
        return identifier
    try:
        return identifier.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half characters of another kind, which no name of a file has
        return identifier.encode("utf-8", "surrogatepass")


def read_name(stored: str | bytes) -> str:
    """The inverse of ``stored_name``."""
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogateescape")


def plain_text(text: str) -> str:
    """Text that SQLite can hold: half characters, which stand for bytes that are not UTF-8, become question marks."""
    return text.encode("utf-8", "replace").decode()
