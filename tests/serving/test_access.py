"""Who may ask the server: tokens, and pages of other sites. By REST and by gRPC, against running servers."""

import dataclasses

import grpc
import httpx
import numpy as np
import pytest
from starlette.datastructures import Headers
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc
from toy_model import ANY_PORTS, publish

from msim_tf.errors import InputError
from msim_tf.export.status import ServingError
from msim_tf.serving.client import GrpcClient
from msim_tf.serving.guard import HttpError, check_request, has_token
from msim_tf.serving.rest_client import RestClient
from msim_tf.serving.server import running_server

TOKEN = "s3cret-token"
BODY = {"signature_name": "same", "inputs": 7}


@pytest.fixture(scope="module")
def guarded(toy_version, tmp_path_factory):
    base = tmp_path_factory.mktemp("guarded")
    publish(toy_version, base, "2")
    options = dataclasses.replace(ANY_PORTS, token=TOKEN, root_path="/msim")
    with running_server({"m": base}, options) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def http(toy_server):
    with httpx.Client(base_url=toy_server.rest, timeout=60, trust_env=False) as http:
        yield http


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://[", "http://127.0.0.1:1", "x", ""])
def test_pages_of_other_sites_cannot_post(http, origin):
    for path in ("m:predict", "m:classify", "none:predict"):
        answer = http.post(f"/v1/models/{path}", json=BODY, headers={"origin": origin})
        assert answer.status_code == 403 and "other sites" in answer.json()["error"]
    assert http.post("/v1/models/m:predict", json=BODY, headers={"sec-fetch-site": "cross-site"}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[bad", "evil.example:8501"])
def test_a_name_that_was_rebound_to_this_machine_cannot_post(http, host):
    answer = http.post("/v1/models/m:predict", json=BODY, headers={"host": host})
    assert answer.status_code == 403 and "not this machine" in answer.json()["error"]


def test_this_machine_may(http, toy_server):
    for headers in ({}, {"origin": toy_server.rest}, {"sec-fetch-site": "same-origin"}, {"host": "localhost:1"}):
        assert http.post("/v1/models/m:predict", json=BODY, headers=headers).status_code == 200
    # A status shows itself to nobody but who asked for it.
    assert http.get("/v1/models/m", headers={"origin": "http://evil.example"}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "music.example"}, True),  # no browser
        ({"host": "10.0.0.7:8501", "origin": "http://10.0.0.7:8501"}, True),
        ({"host": "localhost", "origin": "http://localhost"}, True),
        ({"host": "evil.example", "origin": "http://evil.example"}, False),  # rebound
        ({"host": "10.0.0.7:8501", "origin": "http://evil.example"}, False),
    ],
)
def test_a_server_without_a_token_that_others_reach(headers, allowed):
    if allowed:
        check_request("POST", Headers(headers), "", "", loopback=False)
        return
    with pytest.raises(HttpError) as caught:
        check_request("POST", Headers(headers), "", "", loopback=False)
    assert caught.value.status == 403


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "x", "ü"])
def test_a_wrong_token_opens_nothing(guarded, token):
    headers = {b"authorization": f"Bearer {token}".encode()} if token else {}
    with httpx.Client(base_url=guarded.rest, headers=headers, trust_env=False) as http:
        for method, path in (
            ("GET", "/v1/models/m"),
            ("GET", "/v1/models/m/metadata"),
            ("GET", "/v1/models/none"),
            ("HEAD", "/v1/models/m"),
            ("POST", "/v1/models/m:predict"),
            ("POST", "/v1/nonsense"),
            ("DELETE", "/v1/models/m"),
        ):
            answer = http.request(method, path)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert (http.get("/healthz").status_code, http.get("/healthz").text) == (200, "ok\n")


def test_the_token_opens_rest(guarded):
    with RestClient(guarded.rest, token=TOKEN) as client:
        client.wait_until_ready("m", 60)
        assert client.predict("m", {"x": np.float32(7)}, signature="same")["y"] == 7
    with httpx.Client(base_url=guarded.rest, trust_env=False) as http:
        assert http.get("/v1/models/m", params={"token": TOKEN}).status_code == 200
        assert http.post("/v1/models/m:predict", params={"token": TOKEN}, json=BODY).status_code == 401
        bearer = {"authorization": f"bearer {TOKEN}"}
        assert http.post("/v1/models/m:predict", headers=bearer, json=BODY).status_code == 200
        assert http.post("/v1/models/m:predict", headers={**bearer, "host": "music.example"}, json=BODY).is_success
        foreign = {**bearer, "origin": "http://evil.example"}
        assert http.post("/v1/models/m:predict", headers=foreign, json=BODY).status_code == 403


def test_paths_below_a_proxys_path_are_the_same(guarded):
    with RestClient(f"{guarded.rest}/msim", token=TOKEN) as client:
        assert client.predict("m", {"x": np.float32(7)}, signature="same")["y"] == 7
    assert httpx.get(f"{guarded.rest}/msim/healthz", trust_env=False).text == "ok\n"
    assert httpx.get(f"{guarded.rest}/msimx/healthz", trust_env=False).status_code == 404


def test_grpc_asks_for_the_token(guarded):
    for token in ("", TOKEN[:-1]):
        with GrpcClient(guarded.grpc, token=token) as client:
            for call in (
                lambda: client.status("m"),  # noqa: B023
                lambda: client.metadata("m"),  # noqa: B023
                lambda: client.predict("m", {"x": np.float32(7)}, signature="same"),  # noqa: B023
                lambda: client.predict("none", {}),  # noqa: B023
            ):
                with pytest.raises(ServingError, match="UNAUTHENTICATED: A token is required"):
                    call()
    with GrpcClient(guarded.grpc, token=TOKEN) as client:
        client.wait_until_ready("m", 60)
        assert client.predict("m", {"x": np.float32(7)}, signature="same")["y"] == 7
    with pytest.raises(InputError, match="ASCII only"):
        GrpcClient(guarded.grpc, token="ü")


def test_grpc_refuses_other_kinds_of_authorization(guarded):
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "m"
    with grpc.insecure_channel(guarded.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        for value in (TOKEN, f"Basic {TOKEN}", "Bearer"):
            with pytest.raises(grpc.RpcError) as caught:
                stub.GetModelStatus(request, metadata=[("authorization", value)], timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_tokens_are_compared_whole():
    assert has_token("Bearer a b", "a b") and has_token("BEARER  x ", "x")
    assert not has_token("Bearer ", "x") and not has_token("x", "x") and not has_token("", "x")
