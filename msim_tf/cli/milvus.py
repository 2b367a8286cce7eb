"""``msim milvus push`` and ``msim milvus query``: a library in Milvus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from msim_tf.cli.options import LocalPath, filter_options, profile_option, progress_bar

_PATH = LocalPath(path_type=Path)


@click.group()
def milvus() -> None:
    """Keep a library in Milvus, for catalogues that outgrow one machine.

    The server's token is read from MSIM_MILVUS_TOKEN.
    """


_TOKEN = click.option("--token", envvar="MSIM_MILVUS_TOKEN", default="", help="Better in MSIM_MILVUS_TOKEN.")
_URI = click.option("--uri", required=True, help="Of the server, http://HOST:19530; or a file, NAME.db (milvus-lite).")
_COLLECTION = click.option("--collection", required=True, help="Its name.")


@milvus.command(context_settings={"show_default": True})
@click.argument("library", type=_PATH)
@_URI
@_COLLECTION
@_TOKEN
@click.option(
    "--vector-index",
    type=click.Choice(["FLAT", "HNSW", "DISKANN"]),
    default="FLAT",
    help="Of a new collection: exact; approximate in memory; approximate on disk. A file has FLAT.",
)
@click.option("--batch", type=click.IntRange(min=1), default=1000, help="Tracks sent at once.")
def push(library: Path, uri: str, collection: str, token: str, vector_index: str, batch: int) -> None:
    """Make a collection hold what LIBRARY of msim index holds: new, changed and removed tracks.

    Interrupted, it goes on.
    """
    from msim_tf.library.catalog import load_catalog
    from msim_tf.search.milvus import MilvusCollection
    from msim_tf.search.milvus import push as push_index

    # Made at the first push; later ones send only what differs from what the collection holds.
    index = load_catalog(library).open_index()
    with MilvusCollection.create(uri, collection, index.source, token=token, vector_index=vector_index) as made:
        with progress_bar("push") as progress:
            done = push_index(index, made, batch=batch, progress=progress)
    click.echo(
        f"{collection}: {len(index)} tracks; {done.added} added, {done.updated} updated, {done.removed} removed, "
        f"{done.unchanged} unchanged"
    )


@milvus.command(context_settings={"show_default": True})
@click.argument("track")
@_URI
@_COLLECTION
@_TOKEN
@click.option("-w", "--weight", "--weights", "weights", multiple=True, help="As for msim query.")
@profile_option
@click.option("-k", "count", type=click.IntRange(min=1), default=10, help="How many tracks.")
@filter_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def query(
    track: str,
    uri: str,
    collection: str,
    token: str,
    weights: tuple[str, ...],
    profile: str | None,
    count: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """Rank the tracks of a collection by their distance to TRACK, the identifier of one of them."""
    from msim_tf.cli.library_query import chosen_filters, chosen_weights, match_json, match_line
    from msim_tf.search.milvus import MilvusCollection
    from msim_tf.search.query import track_query

    allowed = chosen_filters(**filters)
    with MilvusCollection.open(uri, collection, token=token) as opened:
        matches = opened.search(
            track_query(opened, track), weights=chosen_weights(weights, profile), k=count, filters=allowed
        )
    if as_json:
        click.echo(json.dumps([match_json(match) for match in matches], indent=1))
        return
    for place, match in enumerate(matches, 1):
        click.echo(match_line(place, match))
