"""Who may use the server, and what a client may send it: hosts, origins, keys, bodies, headers and time."""
import json
import socket

import httpx
import pytest

from llama2_host.integer import GoldenBackend
from llama2_host.image.model import Model
from llama2_host.server.http11 import Http11
from tests.server.running import Running
from tests.waiting import PATIENCE_S

KEYS = ("first-key", "second-key")


@pytest.fixture(scope="module")
def guarded(image):
    """A server with keys, a name, an origin and small limits."""
    with Running(lambda: GoldenBackend(Model.load(image)), keys=KEYS, names=("board.example",),
                 origins=("https://ok.example",),
                 max_body_bytes=2000) as running:
        yield running


def raw(server, *parts):
    """What comes for these bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE_S) as line:
        for part in parts:
            line.sendall(part)
        data = b""
        while more := line.recv(4096):
            data += more
    return data


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example",
                                  "[::1", "a:b:c"])
def test_a_stranger_s_name_is_refused(server, host):
    response = server.client.get("/health", headers={"Host": host})
    assert response.status_code == 403 and response.json()["error"]["code"] == "unknown_host"


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:80", "192.0.2.7:8080"])
def test_addresses_and_localhost_are_known(server, host):
    assert server.client.get("/health", headers={"Host": host}).status_code == 200


def test_a_name_can_be_allowed(guarded):
    assert guarded.client.get("/health", headers={"Host": "board.example:8080"}).status_code == 200


def test_pages_of_others_are_refused(server):
    body = {"prompt": "x", "max_tokens": 1}
    refused = server.client.post("/v1/completions", json=body, headers={"Origin": "https://evil.example"})
    assert refused.status_code == 403 and refused.json()["error"]["code"] == "unknown_origin"
    assert server.client.post("/v1/completions", json=body, headers={"Origin": "null"}).status_code == 403
    assert server.client.post("/v1/completions", json=body, headers={"Origin": server.url}).status_code == 200
    assert "access-control-allow-origin" not in server.client.get("/health").headers


def test_an_origin_can_be_allowed(guarded):
    origin = {"Origin": "https://ok.example"}
    asked = guarded.client.options("/v1/completions", headers=origin |
                                   {"Access-Control-Request-Method": "POST",
                                    "Access-Control-Request-Headers": "authorization,content-type"})
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == "https://ok.example"
    assert guarded.client.get("/health", headers=origin).headers["access-control-allow-origin"] == "https://ok.example"


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic first-key"},
                                    {"Authorization": "first-key"}, {"Authorization": "Bearer"}])
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/props", "/boards", "/nowhere", "/health/"])
def test_a_key_is_needed(guarded, path, header):
    response = guarded.client.get(path, headers=header)
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
    assert not any(key in response.text for key in KEYS)


def test_each_key_opens(guarded):
    for key in KEYS:
        assert guarded.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert guarded.client.get("/health").status_code == 200 and guarded.client.get("/").status_code == 200


def test_a_long_body_is_413(guarded):
    auth = {"Authorization": "Bearer first-key"}
    for content in (b"x" * 2001, iter([b"x" * 1500, b"x" * 1500])):
        response = guarded.client.post("/v1/completions", content=content, headers=auth)
        assert response.status_code == 413 and response.json()["error"]["code"] == "body_too_large"


def test_a_slow_body_is_408(image):
    head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
    with Running(lambda: GoldenBackend(Model.load(image)), body_timeout_s=0.1) as server:
        data = raw(server, head)
    assert b" 408 " in data and json.loads(data.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "body_too_slow"


def test_headers_that_do_not_come_end_the_connection(guarded, monkeypatch):
    monkeypatch.setattr(Http11, "header_timeout_s", 0.2)
    assert raw(guarded, b"GET /health HTTP/1.1\r\nX-Slow: ") == b""
    assert raw(guarded) == b""


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"GET /health HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
                                  b"\x16\x03\x01\x02\x00\r\n\r\n"])
def test_what_is_no_http_is_400(server, data):
    answer = raw(server, data)
    assert (answer.startswith(b"HTTP/1.1 400") and json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] ==
            "bad_http")


def test_too_many_connections_are_503(guarded, monkeypatch):
    monkeypatch.setattr(Http11, "max_connections", 0)
    answer = raw(guarded, b"")
    assert answer.startswith(b"HTTP/1.1 503") and b"Retry-After" in answer.replace(b"retry-after", b"Retry-After")


@pytest.mark.parametrize("path", ["/page/../app.py", "/page/%2e%2e/app.py", "/page/..%2f..%2fcli.py",
                                  "/page//etc/passwd"])
def test_the_page_s_folder_is_all_there_is(server, path):
    with httpx.Client(base_url=server.url) as client:
        response = client.send(client.build_request("GET", httpx.URL(server.url).copy_with(raw_path=path.encode())))
    assert response.status_code == 404 and "error" in response.json()


def test_every_answer_has_the_browser_s_policy(server):
    for path in ("/", "/health", "/nowhere", "/page/app.js"):
        headers = server.client.get(path).headers
        assert ("default-src 'none'" in headers["content-security-policy"]
                and headers["x-content-type-options"] == "nosniff")
