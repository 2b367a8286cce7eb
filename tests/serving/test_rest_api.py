"""The REST API over HTTP: routing, statuses, JSON structure and limits, by the table measured on the real server."""

import gzip
import json

import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2


@pytest.fixture(scope="module")
def http(toy_server):
    with httpx.Client(base_url=toy_server.rest, timeout=60, trust_env=False) as http:
        yield http


def post(http, body, path="/v1/models/m:predict", **options):
    return http.post(path, content=body if isinstance(body, bytes) else json.dumps(body), **options)


def test_rows_and_columns(http, toy_weights):
    x = [[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]]
    expected = (np.array(x, np.float32) @ toy_weights).tolist()
    answer = post(http, {"instances": x})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {"predictions": expected}
    assert post(http, {"inputs": x}).json() == {"outputs": expected}
    assert post(http, {"inputs": {"x": x}, "signature_name": "serving_default"}).json() == {"outputs": expected}


@pytest.mark.parametrize("path", ["/versions/2", "/labels/stable", "/versions/0002"])
def test_versions_and_labels(http, path):
    answer = post(http, {"signature_name": "same", "inputs": 7}, f"/v1/models/m{path}:predict")
    assert answer.json() == {"outputs": 7.0}


def test_names_are_unescaped_and_the_path_is_not_case_sensitive(http):
    body = {"signature_name": "same", "inputs": 7}
    assert post(http, body, "/V1/MODELS/%6d:predict").status_code == 200


def test_several_inputs_of_several_types(http):
    row = {"a": [1, 2], "n": 3, "s": "ä", "b": True}
    predictions = post(http, {"signature_name": "mixed", "instances": [row, row]}).json()["predictions"]
    expected = {"product": [3.0, 6.0], "n": 4, "s": "ä", "s_bytes": {"b64": "w6Q="}, "not_b": False}
    assert predictions == [expected, expected]


def test_content_type_is_ignored_and_gzip_is_read(http):
    body = json.dumps({"signature_name": "same", "inputs": [1]}).encode()
    headers = {"content-type": "text/plain", "content-encoding": "gzip"}
    assert post(http, gzip.compress(body), headers=headers).json() == {"outputs": [1.0]}
    # The real server reads what it cannot unzip as an empty body, and knows the encoding by its small letters only.
    for broken in (body, gzip.compress(body)[:-9], gzip.compress(body) + b"x", b"", b"\x1f\x8b"):
        answer = post(http, broken, headers=headers)
        assert (answer.status_code, answer.json()) == (400, {"error": "JSON Parse error: The document is empty"})
    answer = post(http, gzip.compress(body), headers={"content-encoding": "GZIP"})
    assert (answer.status_code, answer.json()) == (400, {"error": "JSON Parse error: Invalid value. at offset: 0"})
    assert post(http, body, headers={"content-encoding": "GZIP"}).json() == {"outputs": [1.0]}


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/v1/models/none:predict", {"inputs": 1}, 404, "Servable not found for request: Latest(none)"),
        ("/v1/models/m/versions/9:predict", {"inputs": 1}, 404, "Servable not found for request: Specific(m, 9)"),
        ("/v1/models/m/labels/none:predict", {"inputs": 1}, 400, "Unrecognized servable version label: none"),
        ("/v1/models/none:predict", b"{", 400, "JSON Parse error: Missing a name for object member. at offset: 1"),
        ("/v1/models/m:predict", {"signature_name": "nope"}, 400,
         'Serving signature name: "nope" not found in signature def'),
        ("/v1/models/m:predict", b"", 400, "JSON Parse error: The document is empty"),
        ("/v1/models/m:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("/v1/models/m:predict", {"signature_name": "__saved_model_init_op", "inputs": 1}, 400,
         "Failed to get input map for signature: __saved_model_init_op"),
        ("/v1/models/m:predict", {"instances": [[1, 2, 3], [1]]}, 400,
         "Failed to process element: 1 of 'instances' list. "
         "Error: INVALID_ARGUMENT: Expecting tensor size: 3 but got: 1"),
        ("/v1/models/m:predict", {"signature_name": "total", "instances": [1, 2]}, 400,
         "Tensor name: sum has no shape information "),
        ("/v1/models/m:predict", {"signature_name": "uneven", "instances": [1, 2]}, 400,
         "Tensor name: first has inconsistent batch size: 1 expecting: 2"),
        ("/v1/models/m:predict/", {"inputs": 1}, 400, "Malformed request: POST /v1/models/m:predict/"),
        ("/v1/models/m:predict?a=b", {"inputs": 1}, 400, "Malformed request: POST /v1/models/m:predict?a=b"),
        ("/V1/MODELS/m:PREDICT", {"inputs": 1}, 400, "Malformed request: POST /V1/MODELS/m:PREDICT"),
        ("/v1/models/m", {"inputs": 1}, 400, "Malformed request: POST /v1/models/m"),
    ],
)  # fmt: skip
def test_errors_of_predict(http, path, body, status, error):
    answer = post(http, body, path)
    assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/", 400, "Malformed request: GET /v1/models/"),
        ("GET", "/v1/models/m:predict", 400, "Malformed request: GET /v1/models/m:predict"),
        ("DELETE", "/v1/models/m", 400, "Malformed request: DELETE /v1/models/m"),
        ("PATCH", "/v1/models/m", 400, "Malformed request: PATCH /v1/models/m"),
        ("GET", "/v1/models/none", 404, "Could not find any versions of model none"),
        ("GET", "/v1/models/m/versions/9", 404, "Could not find version 9 of model m"),
        ("GET", "/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
    ],
)
def test_errors_of_other_requests(http, method, path, status, error):
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (rb'{"inputs": ["\ud800"]}', "JSON Parse error: The surrogate pair in string is invalid. at offset: 13"),
        (
            rb'{"inputs": {"a": [[1, 1]], "n": [1], "s": ["\ud800"], "b": [true]}, "signature_name": "mixed"}',
            "JSON Parse error: The surrogate pair in string is invalid. at offset: 44",
        ),
    ],
)
def test_half_a_surrogate_pair_is_answered(http, body, error):
    answer = post(http, body)
    assert (answer.status_code, answer.json()) == (400, {"error": error})


@pytest.mark.parametrize("method", ["TRACE", "FOO", "CONNECTED"])
def test_unknown_methods_are_not_implemented(http, method):
    answer = http.request(method, "/v1/models/m")
    assert (answer.status_code, answer.headers["content-type"]) == (501, "text/html; charset=utf-8")
    assert "<TITLE>501 Not Implemented</TITLE>" in answer.text


def test_a_preflight_is_refused_without_a_word(http):
    answer = http.options("/v1/models/m", headers={"origin": "http://example.org"})
    assert (answer.status_code, answer.content) == (400, b"")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ({"examples": 1}, "Expecting 'examples' value to be an list/array"),
        ({"examples": []}, "'examples' value is an empty array"),
        ({"examples": [1]}, "Example must be JSON object but got JSON Number"),
    ],
)
def test_classify_reads_the_body_before_it_looks_for_the_model(http, body, error):
    for path in ("m:classify", "none:classify", "m/versions/9:regress"):
        answer = post(http, body, f"/v1/models/{path}")
        assert answer.status_code == 400 and answer.json()["error"].endswith(error)
    assert post(http, {"examples": [{}]}, "/v1/models/none:classify").status_code == 404


def test_classify_finds_no_inputs(http):
    for verb, kind in (("classify", "classification"), ("regress", "regression")):
        answer = post(http, {"examples": [{}]}, f"/v1/models/m:{verb}")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(f"No {kind} inputs found in SignatureDef: ")


@pytest.mark.parametrize("version", [str(2**63), "9" * 19, "9" * 5000])
def test_a_version_beyond_64_bits_has_an_empty_answer(http, version):
    answer = http.get(f"/v1/models/m/versions/{version}")
    assert (answer.status_code, answer.content) == (400, b"")


def test_leading_zeros_of_a_version_mean_nothing(http):
    assert http.get("/v1/models/m/versions/" + "0" * 5000 + "2").status_code == 200


def test_other_paths_are_no_json(http):
    answer = http.get("/")
    assert answer.status_code == 404 and answer.text.startswith("<HTML>")


def test_a_failing_operation_gives_its_code(http):
    answer = post(http, {"signature_name": "wav", "instances": [{"b64": "YQ=="}]})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(
        "contents must be scalar, got shape [1]\n\t [[{{function_node __inference_"
    )


def test_a_run_over_the_servers_timeout_is_given_up(http):
    assert post(http, {"signature_name": "endless", "inputs": 0}).status_code == 504


@pytest.mark.parametrize("path", ["", "/versions/2", "/labels/none"])
def test_status(http, path):
    expected = {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert http.get(f"/v1/models/m{path}").json() == {"model_version_status": [expected]}


def test_metadata_is_what_protobuf_makes_of_the_signatures(http, toy_version):
    value = http.get("/v1/models/m/metadata").json()
    assert value["model_spec"] == {"name": "m", "signature_name": "", "version": "2"}
    ours = value["metadata"]["signature_def"]
    x = ours["signature_def"]["serving_default"]["inputs"]["x"]
    dims = [{"size": "-1", "name": ""}, {"size": "3", "name": ""}]
    assert x == {
        "dtype": "DT_FLOAT",
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": "serving_default_x:0",
    }

    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((toy_version / "saved_model.pb").read_bytes())
    genuine = saved.meta_graphs[0].signature_def
    assert set(ours["signature_def"]) == set(genuine)
    assert "__saved_model_init_op" in genuine
    read = json_format.ParseDict(ours, get_model_metadata_pb2.SignatureDefMap())
    for name, signature in genuine.items():
        assert read.signature_def[name] == signature, name


def test_bodies_over_the_limit_are_refused(http):
    large = b" " * 4_000_001
    error = {"error": "The request body is larger than 4000000 bytes"}
    for options in ({"content": large}, {"content": iter([large[:2_000_000], large[2_000_000:]])}):
        answer = http.post("/v1/models/m:predict", **options)
        assert (answer.status_code, answer.json()) == (413, error)
    answer = post(http, gzip.compress(large), headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (413, error)
    assert http.get("/v1/models/m").status_code == 200
