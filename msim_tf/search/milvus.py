"""A library in Milvus, for catalogues that outgrow one machine: pushed from an ``Index``, searched by the same queries.

With subspaces of length 1, sum of w_s * |q_s - x_s|^2 = const - 2 * <w * q, x>: the query is weighted before it is
sent, and one vector field with the inner product serves every weighting, negative ones too. Filters run in Milvus, on
scalar fields. What comes back is ranked exactly, from the vectors themselves, so ties, shares and distances are those
of the index that was pushed.

The address is that of a server, or a file name (milvus-lite: the same calls in this process, a scan of everything; for
tests and trials). ``pymilvus`` is imported only here, and only when it is used. ``milvus_fields`` says how a track is
held.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msim_tf.embeddings import shortlist
from msim_tf.errors import InputError
from msim_tf.files import parse_json, validate_format
from msim_tf.search.diversity import Diversity
from msim_tf.search.filters import Filters
from msim_tf.search.index import Index
from msim_tf.search.milvus_fields import SCALARS, filter_expression, track_entity, track_id
from msim_tf.search.query import Match, Query, chosen_matches, query_weights, ranked_matches
from msim_tf.search.source import Source

FORMAT = "msim-milvus"
FORMAT_VERSION = 1
VECTOR_INDEXES = ("FLAT", "HNSW", "DISKANN")

_PROPERTY = "msim"
_MOST_ROWS = 16384  # that Milvus returns for one search
_SPARE = 32  # rows asked for beyond those wanted, among which ties are settled
_MARGIN = 1e-5  # rounding of float32 sums
_APPROXIMATE = 1000  # fewest rows that a graph is asked for: it was built for equal weights
_BUILD = {"FLAT": {}, "HNSW": {"M": 32, "efConstruction": 360}, "DISKANN": {}}
_EFFORT = {"HNSW": "ef", "DISKANN": "search_list"}


def import_milvus() -> Any:
    """The ``pymilvus`` module.

    Raises:
        InputError: if it is not installed.
    """
    try:
        import pymilvus
    except ImportError:
        raise InputError(
            "Milvus needs pymilvus: pip install 'msim-tf[milvus]', or search the library itself, which works at any "
            "size"
        ) from None
    # It logs what it raises, and what it does without on milvus-lite.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus


@dataclass(frozen=True)
class Pushed:
    """What a push did.

    Attributes:
        added: tracks that are new in the collection.
        updated: those whose vector or metadata had changed.
        removed: those that have left the library.
        unchanged: the others.
    """

    added: int = 0
    updated: int = 0
    removed: int = 0
    unchanged: int = 0


class MilvusCollection:
    """Tracks in one collection; ``query.track_query`` and its like ask of it what they ask of an ``Index``."""

    def __init__(self, client: Any, name: str, uri: str, source: Source, kind: str) -> None:
        self.source = source
        self._client = client
        self._collection = name
        self._kind = kind
        self.name = f"collection {name} at {uri}"

    @classmethod
    def open(cls, uri: str, name: str, *, token: str = "") -> MilvusCollection:
        """Opens a collection that ``push`` made.

        Args:
            uri: of the server, e.g. "http://milvus:19530", or a file name that ends in ".db".
            name: of the collection.
            token: "user:password" or a key, where the server wants one.

        Raises:
            InputError: if pymilvus is not installed, the server does not answer, or the collection is missing or
                something else.
        """
        client = _connected(uri, token)
        try:
            with _milvus_errors(uri):
                if not client.has_collection(name):
                    raise InputError(f"{uri} has no collection {name!r}; make it with msim milvus push")
                description = client.describe_collection(name)
                source = _source(description, f"collection {name} at {uri}")
                # Which index the vectors have decides how many rows a search must ask for.
                indexes = client.list_indexes(name, field_name="vector")
                kind = str(client.describe_index(name, indexes[0])["index_type"]) if indexes else "FLAT"
                client.load_collection(name)
        except InputError:
            client.close()
            raise
        return cls(client, name, uri, source, kind)

    @classmethod
    def create(
        cls, uri: str, name: str, source: Source, *, token: str = "", vector_index: str = "FLAT"
    ) -> MilvusCollection:
        """Makes an empty collection, or opens it where there is one of the same source.

        Args:
            uri: see ``open``.
            name: see ``open``.
            source: of the vectors that it is to hold.
            token: see ``open``.
            vector_index: "FLAT", which is exact and all that milvus-lite needs, "HNSW" in memory or "DISKANN" on disk.

        Raises:
            InputError: as ``open``, or for vectors of another source, naming both.
        """
        if vector_index not in VECTOR_INDEXES:
            raise InputError(f"vector index {vector_index!r}: expected one of {', '.join(VECTOR_INDEXES)}")
        client = _connected(uri, token)
        try:
            with _milvus_errors(uri):
                if not client.has_collection(name):
                    _create(client, name, source, vector_index)
        finally:
            client.close()
        collection = cls.open(uri, name, token=token)
        try:
            collection.source.validate(source, collection.name, "the library")
        except InputError:
            collection.close()
            raise
        return collection

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()

    def __enter__(self) -> MilvusCollection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        with _milvus_errors(self.name):
            return int(self._client.query(self._collection, filter="", output_fields=["count(*)"])[0]["count(*)"])

    def __contains__(self, identifier: str) -> bool:
        return bool(self._rows([identifier], ["id"]))

    def _rows(self, identifiers: Sequence[str], fields: list[str]) -> dict[str, dict[str, Any]]:
        """What the collection has of these: id -> fields."""
        ids = [track_id(identifier) for identifier in identifiers]
        with _milvus_errors(self.name):
            records = self._client.get(self._collection, ids=ids, output_fields=[*fields, "id"]) if ids else []
        return {row["id"]: row for row in records}

    def _field(self, identifiers: Iterable[str], field: str) -> list[Any]:
        identifiers = list(identifiers)
        records = self._rows(identifiers, [field])
        missing = [identifier for identifier in identifiers if track_id(identifier) not in records]
        if missing:
            raise InputError(f"{self.name} has no track {shortlist(missing)}")
        return [records[track_id(identifier)][field] for identifier in identifiers]

    def vectors(self, identifiers: Iterable[str]) -> np.ndarray:
        """Unit vectors of tracks: [n, size] float32.

        Raises:
            InputError: if there is no such track.
        """
        values = np.array(self._field(identifiers, "vector"), np.float32)
        return values.reshape(-1, self.source.layout.size)

    def metadata(self, identifier: str) -> dict[str, Any]:
        """What is known of a track."""
        return self._field([identifier], "metadata")[0]

    def search(
        self,
        query: Query,
        *,
        weights: Mapping[str, float] | None = None,
        k: int = 10,
        filters: Filters | None = None,
        diversity: Diversity | None = None,
    ) -> list[Match]:
        """The ``k`` nearest tracks; see ``query.search``, which gives the same on the index that was pushed.

        Raises:
            InputError: for k < 1, bad weights, or what Milvus refuses.
        """
        if k < 1:
            raise InputError(f"k is {k}, expected at least 1")
        vector = query_weights(self, query, weights)
        expression = filter_expression(filters, query.exclude)

        def near(count: int) -> list[Match]:
            return self._near(query, vector, expression, count)

        return chosen_matches(self, near, vector, k=k, diversity=diversity)

    def _near(self, query: Query, weights: np.ndarray, expression: str, count: int) -> list[Match]:
        # [size] weighted query; a graph was built for equal weights, so it is asked for many more rows than are wanted.
        weighted = query.vector * np.repeat(weights, self.source.layout.widths).astype(np.float32)
        depth = min(_MOST_ROWS, max(count + _SPARE, 0 if self._kind == "FLAT" else max(_APPROXIMATE, 10 * count)))
        while True:
            effort = {_EFFORT[self._kind]: depth} if self._kind in _EFFORT else {}
            with _milvus_errors(self.name):
                hits = self._client.search(
                    self._collection,
                    data=[weighted.tolist()],
                    anns_field="vector",
                    filter=expression,
                    limit=depth,
                    output_fields=["identifier", "vector", "metadata"],
                    search_params={"metric_type": "IP", "params": effort},
                )[0]
            last = len(hits) < depth or depth == _MOST_ROWS
            # As long as the last row could be as near as the last one wanted, there may be more that tie with it.
            if last or hits[count - 1]["distance"] - hits[-1]["distance"] > _MARGIN:
                break
            depth = min(_MOST_ROWS, 2 * depth)

        # [hits, size] float32, from which the exact ranking is computed here.
        rows = [hit["entity"] for hit in hits]
        vectors = np.array([row["vector"] for row in rows], np.float32).reshape(-1, self.source.layout.size)

        def describe(places: list[int]) -> dict[int, tuple[str, dict[str, Any]]]:
            return {place: (rows[place]["identifier"], rows[place]["metadata"]) for place in places}

        return ranked_matches(query, weights, vectors, describe, self.source, count)

    def stamps(self) -> dict[str, str]:
        """What changes with a track's vector or metadata: id -> stamp, of all tracks."""
        stamps: dict[str, str] = {}
        with _milvus_errors(self.name):
            rows = self._client.query_iterator(self._collection, batch_size=1000, output_fields=["id", "stamp"])
            while batch := rows.next():
                stamps |= {row["id"]: row["stamp"] for row in batch}
            rows.close()
        return stamps

    def upsert(self, entities: list[dict[str, Any]]) -> None:
        """Adds tracks, or replaces those of the same identifier."""
        with _milvus_errors(self.name):
            self._client.upsert(self._collection, entities)

    def delete(self, ids: list[str]) -> None:
        """Removes tracks by ``milvus_fields.track_id``."""
        with _milvus_errors(self.name):
            self._client.delete(self._collection, ids=ids)


def push(
    index: Index,
    collection: MilvusCollection,
    *,
    batch: int = 1000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Pushed:
    """Makes ``collection`` hold what ``index`` holds; what it holds already is not sent.

    After an interruption the next push goes on.

    Args:
        index: the library.
        collection: of the same source, see ``MilvusCollection.create``.
        batch: tracks sent at once; a server takes some 64 MB.
        progress: told how many of how many tracks were looked at.

    Raises:
        InputError: if the collection is of another source, or Milvus refuses something.
    """
    collection.source.validate(index.source, collection.name, index.name)
    remaining = collection.stamps()
    done = Pushed()
    metadata = dict(index.all_metadata())
    names = list(metadata)
    for start in range(0, len(names), batch):
        # A stamp says whether a track is there as it is here; what is not met in the library is what must go.
        some = names[start : start + batch]
        entities = [track_entity(name, vector, metadata[name]) for name, vector in zip(some, index.vectors(some))]
        stamps = [remaining.pop(entity["id"], None) for entity in entities]
        changed = [entity for entity, stamp in zip(entities, stamps) if stamp != entity["stamp"]]
        if changed:
            collection.upsert(changed)
        added = stamps.count(None)
        done = replace(
            done,
            added=done.added + added,
            updated=done.updated + len(changed) - added,
            unchanged=done.unchanged + len(entities) - len(changed),
        )
        progress(start + len(entities), len(names))
    gone = list(remaining)
    for start in range(0, len(gone), batch):
        collection.delete(gone[start : start + batch])
    return replace(done, removed=len(gone))


def _connected(uri: str, token: str) -> Any:
    milvus = import_milvus()
    with _milvus_errors(uri):
        return milvus.MilvusClient(uri, token=token)


@contextmanager
def _milvus_errors(where: str) -> Iterator[None]:
    """What Milvus refuses, as one line."""
    milvus = import_milvus()
    try:
        yield
    except milvus.MilvusException as error:
        raise InputError(f"{where}: Milvus says: {' '.join(str(error.message).split())}") from error


def _create(client: Any, name: str, source: Source, vector_index: str) -> None:
    milvus = import_milvus()
    description = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **source.to_json()})
    # milvus-lite keeps properties and no description; both are set, in case a server should do the opposite.
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
    schema.add_field("id", milvus.DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("vector", milvus.DataType.FLOAT_VECTOR, dim=source.layout.size)
    for field, (kind, options) in SCALARS.items():
        element = {"element_type": milvus.DataType.VARCHAR} if kind == "ARRAY" else {}
        schema.add_field(field, getattr(milvus.DataType, kind), **options, **element)
    # Reads see every write before them ("Strong"), so a push that goes on knows what the last one sent.
    indexes = client.prepare_index_params()
    indexes.add_index("vector", index_type=vector_index, metric_type="IP", params=_BUILD[vector_index])
    client.create_collection(
        name, schema=schema, index_params=indexes, properties={_PROPERTY: description}, consistency_level="Strong"
    )


def _source(description: Mapping[str, Any], where: str) -> Source:
    """The source that a collection's properties or description tell of."""
    text = description.get("properties", {}).get(_PROPERTY) or description.get("description") or ""
    try:
        header = parse_json(text)
    except ValueError:
        header = None
    validate_format(header, where, name=FORMAT, version=FORMAT_VERSION)
    return Source.from_json(header)
