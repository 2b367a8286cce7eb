"""Hostile requests, from the API's own description and from noise: none ends in a 500, every error is one line.

Hypothesis is seeded by the tests themselves, so that a failure here is a failure everywhere.
"""

import asyncio
import json
from urllib.parse import quote

import httpx
import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from web.web_library import build_library

from msim_tf.library.api import library_site
from msim_tf.serving.versions import Models

BOUNDED = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TRACK = "hedgewars__art.ogg"


@pytest.fixture(scope="module")
def site(music, tmp_path_factory):
    """A library whose model is not served: enough for everything but uploads."""
    library = build_library(music, tmp_path_factory.mktemp("music"), tmp_path_factory.mktemp("library"))
    return library_site(library.path)(Models({}))


class Http:
    """Requests to an application in this process; an exception that it does not answer is raised here."""

    def __init__(self, app):
        self._app = app

    def send(self, scope, body=b""):
        """The answer to a request whose scope no client could make."""
        messages = []

        async def send(message):
            messages.append(message)

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        whole = {"type": "http", "http_version": "1.1", "scheme": "http", "query_string": b"", "root_path": "", **scope}
        asyncio.run(self._app(whole, receive, send))
        content = b"".join(message.get("body", b"") for message in messages)
        return httpx.Response(messages[0]["status"], headers=messages[0]["headers"], content=content)

    def get(self, target):
        url = httpx.URL(f"http://127.0.0.1{target}")
        raw = url.raw_path.split(b"?")[0]
        scope = {"method": "GET", "path": url.path, "raw_path": raw, "query_string": url.query}
        return self.send({**scope, "headers": [(b"host", b"127.0.0.1")]})

    def post(self, path, content):
        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        return self.send({"method": "POST", "path": path, "raw_path": path.encode(), "headers": headers}, content)


@pytest.fixture(scope="module")
def http(site):
    return Http(site)


@pytest.fixture(scope="module")
def document(http):
    return http.get("/api/v1/openapi.json").json()


def check(answer, schema=None):
    """The answer is no fault of the server; an error is one line, and anything else is what ``schema`` says."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        error = answer.json()
        assert set(error) == {"error"}
        assert error["error"].strip() == error["error"] != ""
        assert "\n" not in error["error"]
        assert "Traceback" not in error["error"]
        assert len(error["error"]) < 2000
    elif schema is not None:
        jsonschema.Draft202012Validator(schema).validate(answer.json())


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, -1e308, 1e-320, float("nan"), float("inf")]),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from([TRACK, "", "\0", "../../etc/passwd", "\ud800", "a\nb", "<b>", "genre"]),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


def values(schema, components):
    """Values that a schema of the document allows, and now and then junk in the place of any of them."""
    return st.one_of(*[allowed(schema, components)] * 9, JUNK)


def allowed(schema, components):
    if "$ref" in schema:
        name = schema["$ref"].split("/")[-1]
        return st.deferred(lambda: values(components[name], components))
    for choices in ("oneOf", "anyOf"):
        if choices in schema:
            return st.one_of(*(values(choice, components) for choice in schema[choices]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        required = set(schema.get("required", ()))
        fields = {name: values(field, components) for name, field in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: value for name, value in fields.items() if name in required},
            optional={name: value for name, value in fields.items() if name not in required},
        )
    if kind == "object":
        names = values(schema.get("propertyNames", {"type": "string"}), components).filter(
            lambda name: isinstance(name, str)
        )
        return st.dictionaries(names, values(schema["additionalProperties"], components), min_size=1, max_size=6)
    if kind == "array":
        return st.lists(values(schema["items"], components), min_size=schema.get("minItems", 0), max_size=4)
    return {
        "string": st.sampled_from([TRACK, "colobot__hv2.ogg", "A minor", "metal"]) | st.text(max_size=20),
        "integer": st.integers(schema.get("minimum"), schema.get("maximum")),
        "number": st.sampled_from([0, 1, -1, 0.5, 120, 1995]) | st.floats(-1e6, 1e6),
        "boolean": st.booleans(),
        "null": st.none(),
    }[kind]


def schema_of(operation, document):
    content = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return {**content, "components": document["components"]}


OTHER = "colobot__hv2.ogg"
SOUND_BODIES = {
    "/similar": {"query": {"track": TRACK}},
    "/explain": {"query": {"track": TRACK}, "track": OTHER},
    "/path": {"start": TRACK, "end": OTHER, "length": 4},
    "/profile": {"choices": [{"query": TRACK, "better": OTHER, "worse": "zaz__mus1.ogg"}]},
}


@pytest.mark.parametrize("path", SOUND_BODIES)
def test_bodies_like_the_described_ones(http, document, path):
    operation = document["paths"][path]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    schema = schema_of(operation, document)
    statuses = set()

    @BOUNDED
    @example(SOUND_BODIES[path])
    @given(values(body, document["components"]["schemas"]))
    def ask(value):
        content = json.dumps(value).encode()
        answer = http.post(f"/api/v1{path}", content=content)
        check(answer, schema)
        statuses.add(answer.status_code)

    ask()
    # What the document allows is mostly answered, or it would not be what is tested.
    assert {200, 400, 404} <= statuses


@pytest.mark.parametrize("path", ["/tracks", "/artists", "/map"])
def test_queries_in_addresses(http, document, path):
    operation = document["paths"][path]["get"]
    schema = schema_of(operation, document)
    names = [parameter["name"] for parameter in operation["parameters"]]

    @BOUNDED
    @given(st.dictionaries(st.sampled_from(names) | st.text(max_size=5), st.integers().map(str) | st.text(max_size=30)))
    def ask(query):
        pairs = (f"{quote(name, errors='replace')}={quote(value, errors='replace')}" for name, value in query.items())
        check(http.get(f"/api/v1{path}?{'&'.join(pairs)}"), schema)

    ask()


@BOUNDED
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "X" * 50]),
    prefix=st.sampled_from([b"/api/v1/tracks/", b"/api/v1/audio/", b"/api/v1/", b"/api/", b"/"]),
    tail=st.binary(max_size=40),
    query=st.binary(max_size=40),
    headers=st.dictionaries(
        st.sampled_from([b"range", b"if-range", b"origin", b"content-type", b"content-length", b"authorization"]),
        st.binary(max_size=40)
        | st.sampled_from([b"http://[", b"bytes=0-", b"bytes=-" + b"9" * 50, b"application/json"]),
    ),
)
def test_any_bytes_in_addresses_and_headers(http, method, prefix, tail, query, headers):
    raw = prefix + tail.replace(b"?", b"")
    answer = http.send(
        {
            "method": method,
            "path": raw.decode("utf-8", "replace"),
            "raw_path": raw,
            "query_string": query,
            "headers": [(b"host", b"127.0.0.1"), *headers.items()],
        }
    )
    assert answer.status_code < 500
    if raw.startswith(b"/api/"):
        check(answer)


def test_a_web_socket_is_refused(site):
    messages = []

    async def send(message):
        messages.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    asyncio.run(site({"type": "websocket", "path": "/api/v1/library", "headers": []}, receive, send))
    assert [message["type"] for message in messages] == ["websocket.close"]


@pytest.mark.parametrize("depth", [65, 1000, 100_000])
def test_deep_bodies_are_refused(http, depth):
    content = b'{"query": ' + b"[" * depth + b"]" * depth + b"}"
    answer = http.post("/api/v1/similar", content=content)
    assert answer.status_code == 400
    check(answer)


@pytest.mark.parametrize("digits", [309, 400, 4_000, 5_000])
def test_long_integers_are_refused(http, digits):
    content = b'{"query": {"track": "a"}, "weights": {"genre": ' + b"9" * digits + b"}}"
    answer = http.post("/api/v1/similar", content=content)
    assert answer.status_code == 400
    check(answer)


@pytest.mark.parametrize("name", ["\ud800", "\udc41", "\udfff.ogg", "a\udbff\0", "\udcff"])
def test_halves_of_characters_are_no_track(http, name):
    bodies = {
        "similar": {"query": {"track": name}},
        "explain": {"query": {"track": name}, "track": name},
        "path": {"from": name, "to": name, "count": 5},
    }
    for path, body in bodies.items():
        answer = http.post(f"/api/v1/{path}", json.dumps(body).encode())
        assert 400 <= answer.status_code < 500 and set(answer.json()) == {"error"}, answer.text


def test_lists_longer_than_a_statement_of_sql_are_answered(http):
    def similar(**filters):
        body = {"query": {"track": TRACK}, "filters": filters}
        return http.post("/api/v1/similar", json.dumps(body).encode())

    every = similar(keys=["A minor", "8A", "C major"])
    assert similar(keys=["A minor", "8A", "C major"] * 20_000).json() == every.json()
    artists = [artist["artist"] for artist in http.get("/api/v1/artists").json()["artists"]]
    expected = similar(artists=artists)
    assert expected.json()["hits"]
    others = [f"nobody {number}" for number in range(60_000)]
    assert similar(artists=[*others, *artists]).json() == expected.json()
    assert similar(artists=others).json()["hits"] == []
    tags = similar(tags=[f"tag {number}" for number in range(60_000)])
    assert tags.status_code == 400 and "at most 100" in tags.json()["error"]


def test_a_search_for_thousands_of_words_is_answered(http):
    once = http.get("/api/v1/tracks?search=art").json()
    assert once["tracks"] and http.get("/api/v1/tracks?search=" + "art%20" * 9000).json() == once
    words = "%20".join(f"w{number}" for number in range(5000))
    answer = http.get(f"/api/v1/tracks?search={words}")
    assert answer.status_code == 400 and "at most 200" in answer.json()["error"]
    for character in "*[?a":
        answer = http.get("/api/v1/tracks?search=" + character * 20_000)
        assert answer.status_code == 400 and "at most 10000" in answer.json()["error"]
        assert http.get("/api/v1/tracks?search=" + character * 10_000).json()["tracks"] == []
    assert http.get(f"/api/v1/artists?search={words}").json()["total"] == 0
    assert http.get("/api/v1/tracks?search=" + "%20".join(f"w{number}" for number in range(200))).status_code == 200
