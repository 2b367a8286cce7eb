"""The OpenAPI document is valid, complete, and what the server answers is what it says."""

import httpx
import jsonschema
import pytest
from library_server import shared_library
from openapi_spec_validator import validate
from tiny_model import tiny_model_path

from msim_tf.dimensions import DIMENSION_NAMES
from msim_tf.library import api
from msim_tf.library.api import library_site
from msim_tf.library.api_openapi import openapi_document
from msim_tf.library.api_routes import router
from msim_tf.search.tracks import TAG_KEYS, TEXT_KEYS
from msim_tf.serving.server import ServerOptions, running_server

ERROR = {"$ref": "#/components/schemas/Error"}
DOCUMENT = openapi_document(router.routes, DIMENSION_NAMES)


def test_the_document_is_valid_openapi():
    assert DOCUMENT["openapi"].startswith("3.1")
    validate(DOCUMENT)


ROUTES = {
    ("get", "/library"),
    ("get", "/tracks"),
    ("get", "/tracks/{id}"),
    ("get", "/artists"),
    ("get", "/map"),
    ("get", "/audio/{id}"),
    ("get", "/playlist.m3u8"),
    ("get", "/path.m3u8"),
    ("get", "/openapi.json"),
    ("post", "/similar"),
    ("post", "/path"),
    ("post", "/explain"),
    ("post", "/profile"),
    ("post", "/upload"),
}


def test_every_route_is_described_and_nothing_else():
    paths = DOCUMENT["paths"].items()
    operations = {(method, path): operation for path, methods in paths for method, operation in methods.items()}
    assert set(operations) == ROUTES
    assert len({operation["operationId"] for operation in operations.values()}) == len(ROUTES)
    for operation in operations.values():
        assert operation["summary"].endswith(".")
        assert operation["responses"]["default"]["content"]["application/json"]["schema"] == ERROR


def test_objects_of_requests_and_answers_have_no_other_fields():
    schemas = DOCUMENT["components"]["schemas"]
    objects = {name: schema for name, schema in schemas.items() if "properties" in schema}
    assert len(objects) > 25
    assert [name for name, schema in objects.items() if schema["additionalProperties"] is not False] == []
    assert schemas["Dimension"]["enum"] == list(DIMENSION_NAMES)
    assert set(schemas["Track"]["properties"]) == {
        "id",
        "audio",
        *TEXT_KEYS,
        *TAG_KEYS,
        "year",
        "tempo",
        "key",
        "seconds",
        "described",
    }


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A folder in the place of the web page's, which may not be there yet."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    (folder / "app.js").write_text("// script")
    return folder


@pytest.fixture(scope="module")
def http(page):
    options, site = ServerOptions(grpc_port=0, rest_port=0), library_site(shared_library())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "_WEB", page)
        with running_server({"tiny": tiny_model_path()}, options, site) as addresses:
            with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
                yield http


A, B, C = "colobot__hv2.ogg", "Zaz/two.ogg", "colobot__music002.ogg"
REQUESTS = {
    "library": ("get", "/library", None),
    "tracks": ("get", "/tracks", None),
    "track": ("get", "/tracks/{id}", None),
    "artists": ("get", "/artists", None),
    "map": ("get", "/map", None),
    "similar": ("post", "/similar", {"query": {"track": A}, "weights": {"genre": 1}, "k": 3}),
    "mix": ("post", "/similar", {"query": {"mix": {"genre": {"track": A}, "key": {"tracks": [A, B]}}}}),
    "examples": ("post", "/similar", {"query": {"examples": [{"track": A}, {"track": B}]}, "k": 3}),
    "limits": (
        "post",
        "/similar",
        {"query": {"tracks": [A]}, "filters": {"bpm": [1, 300], "years": None}, "diversity": {"per_artist": 2}},
    ),
    "explain": ("post", "/explain", {"query": {"track": A}, "track": B}),
    "path": ("post", "/path", {"from": A, "to": B, "length": 4}),
    "profile": ("post", "/profile", {"choices": [{"query": A, "better": B, "worse": C}]}),
    "error": ("post", "/similar", {"query": {"track": "none"}}),
}


def schema_of(content):
    """A schema that can be validated alone: its references lead into the document."""
    return {**content["application/json"]["schema"], "components": DOCUMENT["components"]}


@pytest.mark.parametrize("name", REQUESTS)
def test_answers_are_what_the_document_says(http, name):
    method, path, body = REQUESTS[name]
    operation = DOCUMENT["paths"][path][method]
    if body is not None:
        jsonschema.Draft202012Validator(schema_of(operation["requestBody"]["content"])).validate(body)
    answer = http.request(method, "/api/v1" + path.replace("{id}", A), json=body)
    if name == "error":
        assert answer.status_code == 404
        response = operation["responses"]["default"]
    else:
        assert answer.status_code == 200, answer.text
        response = operation["responses"]["200"]
    jsonschema.Draft202012Validator(schema_of(response["content"])).validate(answer.json())


def test_wrong_requests_are_wrong_by_the_document_too():
    validator = jsonschema.Draft202012Validator(
        schema_of(DOCUMENT["paths"]["/similar"]["post"]["requestBody"]["content"])
    )
    for body in ({}, {"query": {}}, {"query": {"track": A, "upload": "x"}}, {"query": {"track": A}, "k": 0}):
        assert not validator.is_valid(body)


def test_the_document_is_served(http):
    assert http.get("/api/v1/openapi.json").json() == DOCUMENT


def test_the_page_is_served_under_a_strict_policy(http):
    for path in ("/", "/index.html"):
        answer = http.get(path)
        assert answer.status_code == 200 and "<title>page" in answer.text
        assert answer.headers["content-security-policy"].startswith("default-src 'self'; media-src 'self' blob:;")
    assert http.get("/app.js").text == "// script"
    assert "javascript" in http.get("/app.js").headers["content-type"]
    assert http.get("/nothing").status_code == 404
    assert http.get("/%2e%2e/%2e%2e/etc/passwd").status_code == 404
    assert http.post("/").status_code == 405
    assert http.get("/v1/models/tiny").status_code == 200
