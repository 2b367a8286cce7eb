"""Other sites' pages, as browsers send their requests, and what Prometheus reads, by its own parser."""

import httpx
import pytest
from library_server import error, shared_library
from prometheus_client.parser import text_string_to_metric_families
from tiny_model import tiny_model_path

from msim_tf.errors import InputError
from msim_tf.library.api import Access, library_site
from msim_tf.serving.server import ServerOptions, running_server

SITE = "https://music.example:8443"
TOKEN = "a token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def http():
    site = library_site(shared_library(), access=Access(TOKEN, (SITE,), metrics=True))
    options = ServerOptions(grpc_port=0, rest_port=0, token=TOKEN)
    with running_server({"tiny": tiny_model_path()}, options, site) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            yield http


def from_page(origin):
    """The headers of a page's own requests."""
    return {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}


def test_a_browser_may_ask_first_and_then_post(http):
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    preflight = http.options("/api/v1/similar", headers={**from_page(SITE), **asking})
    assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == SITE
    assert "POST" in preflight.headers["access-control-allow-methods"]
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed and "content-type" in allowed
    track = http.get("/api/v1/tracks", headers=BEARER).json()["tracks"][0]["id"]
    body = {"query": {"track": track}}
    answer = http.post("/api/v1/similar", json=body, headers={**BEARER, **from_page(SITE)})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == SITE
    assert "access-control-allow-credentials" not in answer.headers


def test_refusals_can_be_read_by_the_site(http):
    answer = http.get("/api/v1/library", headers=from_page(SITE))
    assert answer.status_code == 401 and answer.headers["access-control-allow-origin"] == SITE
    assert "token" in error(answer)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://music.example:8443", f"{SITE}.evil.example", "https://music.example", "null"],
)
def test_any_other_site_is_refused(http, origin):
    answer = http.get("/api/v1/library", headers={**BEARER, **from_page(origin)})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    preflight = http.options("/api/v1/similar", headers={**from_page(origin), "Access-Control-Request-Method": "POST"})
    assert preflight.status_code == 400 and "access-control-allow-origin" not in preflight.headers


def test_without_origins_no_site_is_named():
    site = library_site(shared_library())
    with running_server({"tiny": tiny_model_path()}, ServerOptions(grpc_port=0, rest_port=0), site) as addresses:
        with httpx.Client(base_url=addresses.rest, timeout=60, trust_env=False) as http:
            assert http.get("/api/v1/library", headers=from_page(SITE)).status_code == 403
            assert "access-control-allow-origin" not in http.get("/api/v1/library").headers
            assert http.get("/metrics").status_code == 404  # opt-in


@pytest.mark.parametrize("origin", ["*", "music.example", "https://music.example/", "https://a b", "null", "file://x"])
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(InputError, match="expected scheme and host of a site"):
        Access(origins=(origin,))


def samples(http):
    text = http.get("/metrics", headers=BEARER).text
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_prometheus_reads_requests_by_operation_and_status(http):
    assert http.get("/metrics").status_code == 401
    before = samples(http)
    http.get("/api/v1/artists", headers=BEARER)
    http.get("/api/v1/artists", params={"limit": 0}, headers=BEARER)
    http.get("/api/v1/tracks/nowhere.ogg", headers=BEARER)
    http.get("/api/v1/tracks/somewhere%0Aelse.ogg", headers=BEARER)
    for address in ("/api/v1/wp-login.php", "/api/v2/.env"):
        assert http.get(address, headers=BEARER).status_code == 404
    http.get("/api/v1/library")
    after = samples(http)
    gained = {
        labels[1:]: after[labels] - before.get(labels, 0)
        for labels in after
        if labels[0] == "msim_library_requests_total" and after[labels] != before.get(labels, 0)
    }
    assert gained == {
        ("200", "artists"): 1,
        ("400", "artists"): 1,
        ("404", "track"): 2,
        ("404", "none"): 2,
        ("401", "none"): 1,
    }
    counted = ("msim_library_request_seconds_count", "artists")
    assert after[counted] - before.get(counted, 0) == 2
    assert after["msim_library_tracks",] == 10 and after["process_resident_memory_bytes",] > 10**7
