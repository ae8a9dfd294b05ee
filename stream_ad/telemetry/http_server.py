"""A small HTTP server for machines: /metrics, /livez, /readyz, /version, /top.

It answers GET and HEAD on these paths and nothing else. Threads, seconds and bytes are bounded, so that a slow,
oversized or stubborn client costs the worker nothing.
"""

from __future__ import annotations

import io
import json
import platform
import socket
import socketserver
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from stream_ad import __version__
from stream_ad.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from stream_ad.settings import HttpSettings
    from stream_ad.telemetry.health import Health
    from stream_ad.telemetry.metrics import Metrics

MAX_CONNECTIONS = 16
REQUEST_SECONDS = 5.0  # for a client to send its request, and again to receive the answer
REQUEST_BYTES = 16 * 1024
TOP_SENSORS = 20

Answer = tuple[HTTPStatus, str, bytes]  # status, content type, body


class HttpServer:
    """Serves from its own threads until it is closed.

    Args:
        settings: Where to listen.
        metrics: What /metrics and /top show.
        health: What /livez and /readyz say.

    Raises:
        SettingsError: It cannot listen on the address.
    """

    def __init__(self, settings: HttpSettings, metrics: Metrics, health: Health) -> None:
        handler = type("Handler", (_Handler,), {"routes": _routes(metrics, health)})
        server = type(
            "Server", (_Server,), {"address_family": socket.AF_INET6 if ":" in settings.host else socket.AF_INET}
        )
        try:
            self._server: _Server = server((settings.host, settings.port), handler)
        except OSError as error:
            raise SettingsError(
                f"Cannot listen on http.host={settings.host}, http.port={settings.port}: {error.strerror or error}.",
                hint="Choose another http.port (0 takes a free one), or set http.enabled=false.",
            ) from error
        self._server.refused = lambda: metrics.bound_hit("http_connections")
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="http", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening; answers in progress are left to their threads."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    """ThreadingTCPServer with a bound on its threads (HTTPServer would look up its own name by DNS)."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 2 * MAX_CONNECTIONS

    def __init__(self, *args: Any) -> None:
        self._slots = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.refused: Callable[[], None] = lambda: None
        super().__init__(*args)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.refused()
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, _request: object, _client_address: object) -> None:
        """Ignore a client that disconnected."""


class _Handler(BaseHTTPRequestHandler):
    """One request for each connection (HTTP/1.0 semantics)."""

    routes: ClassVar[dict[str, Callable[[str], Answer]]]
    server_version = "stream-ad"
    sys_version = ""
    timeout = REQUEST_SECONDS

    def setup(self) -> None:
        super().setup()
        # Read the whole head under one deadline: a socket timeout alone would restart with every byte.
        self._refusal, head = _read_head(self.connection)
        self.rfile = io.BufferedReader(io.BytesIO(head))
        self.connection.settimeout(REQUEST_SECONDS)  # for sendall, which sends the whole answer

    def handle_one_request(self) -> None:
        if self._refusal is None:
            super().handle_one_request()
            return
        self.requestline, self.request_version, self.command = "", "HTTP/1.0", "GET"
        self._answer((self._refusal, "text/plain; charset=utf-8", f"{self._refusal.phrase}\n".encode()))

    def do_GET(self) -> None:
        route = self.routes.get(urlsplit(self.path).path)
        if route is None:
            paths = " ".join(self.routes)
            self._answer((HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", f"not found; try {paths}\n".encode()))
            return
        self._answer(route(self.headers.get("Accept", "")))

    do_HEAD = do_GET  # noqa: N815 -- the name is the base class's

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a refusal of the base class; unknown methods become 405."""
        del message, explain
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._answer((status, "text/plain; charset=utf-8", f"{status.phrase}\n".encode()))

    def _answer(self, answer: Answer) -> None:
        status, content_type, body = answer
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Log nothing: probes arrive every few seconds."""


def _read_head(connection: socket.socket) -> tuple[HTTPStatus | None, bytes]:
    """Read the request's head; return the status to refuse it with, or None, and the head."""
    deadline = time.monotonic() + REQUEST_SECONDS
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        left = deadline - time.monotonic()
        if left <= 0:
            return HTTPStatus.REQUEST_TIMEOUT, b""
        if len(head) >= REQUEST_BYTES:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b""
        connection.settimeout(left)
        try:
            received = connection.recv(REQUEST_BYTES - len(head))
        except TimeoutError:
            return HTTPStatus.REQUEST_TIMEOUT, b""
        if not received:
            break
        head += received
    return None, head


def _routes(metrics: Metrics, health: Health) -> dict[str, Callable[[str], Answer]]:
    def probe(ask: Callable[[], tuple[bool, str]]) -> Callable[[str], Answer]:
        def answer(_accept: str) -> Answer:
            good, reason = ask()
            status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
            return status, "text/plain; charset=utf-8", f"{reason}\n".encode()

        return answer

    def exposition(accept: str) -> Answer:
        metrics.ready.set(health.ready()[0])
        body, content_type = metrics.exposition(accept)
        return HTTPStatus.OK, content_type, body

    def version(_accept: str) -> Answer:
        return _json({"name": "stream-ad", "version": __version__, "python": platform.python_version()})

    def top(_accept: str) -> Answer:
        return _json(metrics.top.view(TOP_SENSORS))

    return {
        "/metrics": exposition,
        "/livez": probe(health.live),
        "/readyz": probe(health.ready),
        "/version": version,
        "/top": top,
    }


def _json(value: object) -> Answer:
    return HTTPStatus.OK, "application/json", json.dumps(value).encode() + b"\n"
