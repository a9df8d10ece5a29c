"""Who may ask, for how long, from which pages."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from recommender.app import create_app
from recommender.errors import Unprotected
from recommender.settings import RecommenderSettings

KEY = "0123456789abcdef-key"

Serve = Callable[..., Any]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "127.evil.example", ""])
def test_other_addresses_want_a_key(host: str) -> None:
    with pytest.raises(Unprotected, match="TIERWISE_API_KEY"):
        create_app(RecommenderSettings(host=host))
    RecommenderSettings(host=host, api_key=KEY).require_protection()  # type: ignore[arg-type]
    RecommenderSettings(host=host, without_key=True).require_protection()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert RecommenderSettings(host=host).loopback
    RecommenderSettings(host=host).require_protection()


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080", "[::1]"])
def test_without_a_key_this_machines_names_are_answered(serve: Serve, name: str) -> None:
    assert serve().get("/subjects", headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:8080", "localhost.evil.example", "192.0.2.1", "[::2]", ""]
)
def test_a_page_that_rebinds_its_name_to_this_machine_is_refused(serve: Serve, name: str) -> None:
    for path in ("/subjects", "/", "/healthz"):
        refused = serve().get(path, headers={"host": name})
        assert refused.status_code == 421 and refused.headers["content-type"] == "application/problem+json"
    assert ascii(name) in refused.json()["detail"] and "localhost, 127.0.0.1, ::1" in refused.json()["detail"]


def test_with_a_key_or_open_to_everybody_any_name_is_answered(serve: Serve) -> None:
    named = {"host": "models.example.org"}
    assert serve(api_key=KEY).get("/subjects", headers={**named, "x-api-key": KEY}).status_code == 200
    assert serve(host="0.0.0.0", without_key=True).get("/subjects", headers=named).status_code == 200


@pytest.mark.parametrize("field", ["server", "client"])
@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7", "fe80::7%eth0"])
def test_what_reaches_it_from_elsewhere_without_a_key_is_refused(serve: Serve, field: str, address: str) -> None:
    """As with uvicorn, the factory and --host 0.0.0.0, which the application does not see."""
    client = serve()
    inner = client._transport.app

    async def reached(scope: Any, receive: Any, send: Any) -> None:
        await inner({**scope, field: (address, 8080)}, receive, send)

    client._transport.app = reached
    refused = client.get("/subjects")
    assert refused.status_code == 403 and "TIERWISE_API_KEY" in refused.json()["detail"]
    assert address in refused.json()["detail"]


def test_without_the_key_nothing_of_the_evidence_is_told(serve: Serve) -> None:
    client = serve(api_key=KEY)
    for path in ("/subjects", "/strategies", "/metrics", "/evidence/x", "/nowhere", "/subjects/", "/page/../subjects"):
        assert client.get(path).status_code == 401, path
    assert client.get("/page/%2e%2e/subjects").status_code == 404
    for wrong in ({"x-api-key": "wrong"}, {"x-api-key": ""}, {"authorization": f"Basic {KEY}"}, {"authorization": KEY}):
        assert client.get("/subjects", headers=wrong).status_code == 401, wrong
    refused = client.post("/recommend", json={"subject": "net"})
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["content-type"] == "application/problem+json" and "X-API-Key" in refused.json()["detail"]


def test_with_the_key_it_answers(serve: Serve) -> None:
    client = serve(api_key=KEY)
    for headers in ({"x-api-key": KEY}, {"authorization": f"bearer {KEY}"}):
        assert client.get("/subjects", headers=headers).status_code == 200


def test_probes_and_the_page_need_no_key(serve: Serve) -> None:
    client = serve(api_key=KEY)
    for path in ("/", "/page/app.js", "/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200, path


@pytest.mark.parametrize(
    "key",
    [
        " " * 16,
        "\n" * 16,
        f"{KEY}\n",
        f" {KEY}",
        f"{KEY}\t",
        "two words of a key",
        "ключ" * 4,
        "\x00" * 16,
        "\x85" * 16,
    ],
)
def test_a_key_that_no_header_carries_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(ValidationError, match="allowed: at least 16 visible ASCII characters") as refused:
        RecommenderSettings(api_key=key)  # type: ignore[arg-type]
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    "origin", ["dash.example.org", "https://dash.example.org/", "https://a b", "null", "", "ftp://a"]
)
def test_an_origin_that_no_browser_sends_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValidationError, match="is not an origin; allowed: scheme, host"):
        RecommenderSettings(cors_origins=(origin,))


@pytest.mark.parametrize("name", ["max_request_s", "max_head_s", "max_body_s", "max_idle_s", "max_write_s"])
@pytest.mark.parametrize("value", [0, 1e-300, 1e300, float("inf"), float("nan"), -1])
def test_a_limit_under_which_nobody_is_served_is_refused_at_the_start(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        RecommenderSettings(**{name: value})  # type: ignore[arg-type]


def test_no_cache_stores_an_answer_and_pages_are_checked(serve: Serve) -> None:
    client = serve(api_key=KEY)
    key = {"x-api-key": KEY}
    paths = ("/subjects", "/strategies", "/metrics", "/healthz", "/openapi.json", "/nowhere", "/evidence/x")
    answers = [client.get(path, headers=key) for path in paths]
    answers.append(client.post("/recommend", json={"subject": "net"}, headers=key))
    answers.append(client.post("/recommend", json={"subject": "net"}))
    answers.append(client.post("/recommend", json={"subject": 1}, headers=key))
    assert [answer.headers["cache-control"] for answer in answers] == ["no-store"] * len(answers)
    for path in ("/", "/page/app.js", "/docs"):
        assert client.get(path).headers["cache-control"] == "private, no-cache"


def test_key_is_in_no_representation() -> None:
    settings = RecommenderSettings(api_key=KEY)  # type: ignore[arg-type]
    assert KEY not in repr(settings) and KEY not in settings.model_dump_json()


def test_no_page_of_another_origin_may_read_unless_configured(serve: Serve) -> None:
    origin = {"origin": "https://dash.example.org"}
    assert "access-control-allow-origin" not in serve().get("/subjects", headers=origin).headers
    allowed = serve(cors_origins=("https://dash.example.org",), api_key=KEY)
    headers = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    preflight = allowed.request("OPTIONS", "/recommend", headers=headers)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://dash.example.org"
    other = allowed.get("/healthz", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_client_that_dawdles_is_told_and_let_go(serve: Serve) -> None:
    client = serve(max_request_s=0.1)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"subject":'
        await asyncio.sleep(5)
        yield b'"net"}'

    response = client.post("/recommend", content=slowly(), headers={"content-type": "application/json"})
    assert response.status_code == 503 and response.json()["type"].endswith("too-slow")
    assert "0.1 s" in response.json()["detail"]


def test_body_limit_is_a_setting(serve: Serve) -> None:
    client = serve(max_body_bytes=1024)
    assert client.post("/recommend", content=b" " * 1025).status_code == 413


def test_pages_load_nothing_from_elsewhere(serve: Serve) -> None:
    client = serve()
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy and "frame-ancestors 'none'" in policy
    assert client.get("/subjects").headers["x-content-type-options"] == "nosniff"


def test_the_database_is_never_written(serve: Serve, path: Path, filled: Any) -> None:
    filled.database.close()
    before = path.read_bytes()
    client = serve()
    strategy = client.get("/strategies/net:identity:edge").json()
    client.get(f"/evidence/{strategy['latency_evidence_id']}")
    client.post("/recommend", json={"subject": "net"})
    client.get("/metrics")
    assert path.read_bytes() == before
