"""The OpenAPI 3.1 document of a library: what a player's plug-in can be written against.

FastAPI makes it from the routes; what depends on the library (its dimensions and kinds of tags, where it is served) is
filled in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

import msim_tf
from msim_tf.search.tracks import TAG_KEYS

_DESCRIPTION = (
    "Similar tracks by weighted musical dimensions, explained. A distance is the sum over dimensions of weight times "
    "distance in that dimension (0 to 4); small is near. A track's id is its path in the music folder; in an address "
    "it is percent-encoded, its slashes may be or not. The API serves tracks of the library and nothing else."
)


def openapi_document(routes: Sequence[BaseRoute], dimensions: Sequence[str], root_path: str = "") -> dict[str, Any]:
    """The document of a library.

    Args:
        routes: those of the API.
        dimensions: of its embedding, in their order.
        root_path: the prefix below which a proxy serves the library, "" for none.
    """
    document = get_openapi(
        title="msim library",
        version=msim_tf.__version__,
        description=_DESCRIPTION,
        routes=routes,
        servers=[{"url": f"{root_path}/api/v1"}],
    )
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["summary"] = operation.pop("description")  # a sentence; FastAPI's own is the operation's name
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        if "properties" in schema:
            schema["additionalProperties"] = False  # said of requests already; answers are as strict
    # What depends on the library, or on the taxonomy's kinds of tags.
    schemas["Dimension"]["enum"] = list(dimensions)
    for name in TAG_KEYS:
        schemas["Track"]["properties"][name] = {"type": "array", "items": {"type": "string"}}
        schemas["Point"]["properties"][name] = {"type": "string"}
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "query": {"type": "apiKey", "in": "query", "name": "token", "description": "For GET only."},
    }
    # All are alternatives: a server on loopback without a token asks for none.
    document["security"] = [{}, {"bearer": []}, {"query": []}]
    return document
