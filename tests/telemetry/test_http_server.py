"""Promises of the HTTP server: it answers its few paths and nothing else, whatever clients do."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time

import pytest

from stream_ad import __version__
from stream_ad.errors import SettingsError
from stream_ad.settings import HttpSettings, Settings
from stream_ad.telemetry import http_server as module
from stream_ad.telemetry.health import LIVE, Health
from stream_ad.telemetry.http_server import HttpServer
from stream_ad.telemetry.metrics import Metrics


@pytest.fixture
def parts():
    health = Health(silence_s=3600, standby_s=3600)
    metrics = Metrics(Settings())
    server = HttpServer(HttpSettings(port=0), metrics, health)
    yield server, metrics, health
    server.close()


def ask(server, path, method="GET", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_probes_carry_their_reason(parts):
    """/readyz answers 503 with a line that says why until the worker is ready, then 200."""
    server, _, health = parts
    assert ask(server, "/livez")[::2] == (200, b"ok\n")
    assert ask(server, "/readyz")[::2] == (503, b"connecting to the broker\n")
    assert b"stream_ad_ready 0.0" in ask(server, "/metrics")[2]
    health.shards({0: LIVE})
    assert ask(server, "/readyz?verbose=1")[::2] == (200, b"ok\n")
    assert b"stream_ad_ready 1.0" in ask(server, "/metrics")[2]
    health.drain()
    assert ask(server, "/readyz")[::2] == (503, b"draining\n")


def test_metrics_speak_both_dialects(parts):
    """/metrics answers in the text format by default, and in OpenMetrics where the client asks for it."""
    server, *_ = parts
    assert ask(server, "/metrics")[1]["Content-Type"].startswith("text/plain; version=0.0.4")
    status, headers, body = ask(server, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_version_and_top_are_json(parts):
    """/version names the program, /top lists sensors."""
    server, *_ = parts
    assert json.loads(ask(server, "/version")[2])["version"] == __version__
    assert json.loads(ask(server, "/top")[2]) == []


def test_only_this_machine_can_ask_by_default(parts):
    """By default the server listens on the loopback address, and on no other."""
    server, *_ = parts
    assert server._server.server_address[0] == HttpSettings().host == "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address others would see
        except OSError:
            return  # a machine without a network has no other address
        own_address = probe.getsockname()[0]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((own_address, server.port), timeout=20)


def test_a_silent_client_is_cut_off(parts, monkeypatch):
    """A client that sends nothing, or does not read a long answer, holds its thread for seconds only."""
    server, *_ = parts
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.3)
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(module.MAX_CONNECTIONS)]
    for number, client in enumerate(clients):
        if number % 2:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    for client in clients[::2]:
        assert b"408" in client.recv(100)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if ask(server, "/livez")[0] == 200:
                break
        except OSError:
            time.sleep(0.05)
    else:
        pytest.fail("no thread became free")
    for client in clients:
        client.close()


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/livez%00", "/debug"])
def test_other_paths_do_not_exist(parts, path):
    """Any other path is answered with 404 and the paths that exist."""
    status, _, body = ask(parts[0], path)
    assert status == 404
    assert b"/metrics /livez /readyz /version /top" in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
def test_other_methods_are_refused(parts, method):
    """Any other method is answered with 405 and the allowed methods."""
    status, headers, _ = ask(parts[0], "/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_and_no_body(parts):
    """HEAD answers like GET, without the body."""
    status, headers, body = ask(parts[0], "/livez", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "3", b"")


def test_a_slow_client_is_cut_off_and_others_are_served_meanwhile(parts, monkeypatch):
    """A client that sends byte by byte is cut off at the deadline of the head, and others are answered meanwhile."""
    server, *_ = parts
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(b"GET /metrics HT")
        stop = threading.Event()

        def drip():
            while not stop.wait(0.05):
                try:
                    slow.sendall(b"T")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert ask(server, "/livez")[0] == 200
            assert b"408" in slow.recv(100)
        finally:
            stop.set()
            thread.join()


def test_an_oversized_head_is_cut_off(parts):
    """Endless headers are refused after a few kilobytes, and the server keeps answering."""
    server, *_ = parts
    big = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    with big, pytest.raises(OSError):  # noqa: PT011 -- reset or broken pipe, as the kernel likes
        big.sendall(b"X-Filler: " + b"x" * 50_000_000)
    assert ask(server, "/livez")[0] == 200


def test_connections_are_bounded_and_the_bound_is_counted(parts):
    """Idle connections beyond the bound are closed at once, and a metric says so."""
    server, metrics, _ = parts
    idle = [socket.create_connection(("127.0.0.1", server.port), timeout=20) for _ in range(module.MAX_CONNECTIONS)]
    extra = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    try:
        assert extra.recv(1) == b""
        assert b'bound_hits_total{bound="http_connections"} 1.0' in metrics.exposition()[0]
    finally:
        for connection in (*idle, extra):
            connection.close()


def test_garbage_does_no_harm(parts):
    """Bytes that are not HTTP get a refusal or a closed connection."""
    server, *_ = parts
    for garbage in (
        b"\x00\xff\r\n\r\n",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G" * 8_000 + b"\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            assert b"200" not in connection.recv(64)
    assert ask(server, "/livez")[0] == 200


def test_a_taken_port_is_a_clear_error(parts):
    """A port in use is an error that names host, port and what to do."""
    server, metrics, health = parts
    with pytest.raises(SettingsError, match=rf"http\.port={server.port}: Address already in use.*http\.enabled=false"):
        HttpServer(HttpSettings(port=server.port), metrics, health)
