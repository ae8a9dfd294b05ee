"""Early diagnosis of a connection that no Kafka broker answers: what each address does, logged after a few seconds."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WARN_AFTER_S = 3.0
"""Seconds without an answer after which the diagnosis is logged."""
PROBE_S = 1.2
"""Seconds for which all addresses are probed, concurrently."""

_LOG = logging.getLogger(
    "stream_ad.kafka"
)  # of the standard library: without a configured log it goes to standard error


@contextmanager
def warn_when_slow(servers: str, reason: Callable[[], BaseException | None]) -> Iterator[None]:
    """Log a diagnosis where the body of the ``with`` statement takes longer than ``WARN_AFTER_S``.

    Args:
        servers: As in ``broker.bootstrap_servers``.
        reason: Returns why the client could not connect so far, or None.
    """
    over = threading.Event()

    def watch() -> None:
        if not over.wait(WARN_AFTER_S):
            description = describe_addresses(servers, reason())
            if not over.is_set():
                _LOG.warning(
                    "No Kafka broker has answered yet at %s (%s); retrying. Check broker.bootstrap_servers.",
                    servers,
                    description,
                )

    threading.Thread(target=watch, name="first contact", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def describe_addresses(servers: str, reason: BaseException | None = None) -> str:
    """Return what each address does, in words, within about a second, and why the client could not connect.

    >>> looked_at("127.0.0.1:1")
    '127.0.0.1:1: connection refused'
    """
    addresses = [server.strip() for server in servers.split(",")]
    results = dict.fromkeys(addresses, "no answer")
    deadline = time.monotonic() + PROBE_S
    probes = [threading.Thread(target=_probe, args=(address, results), daemon=True) for address in addresses]
    for thread in probes:
        thread.start()
    for thread in probes:
        thread.join(max(0.0, deadline - time.monotonic()))
    description = "; ".join(f"{address}: {result}" for address, result in list(results.items()))
    return f"{description}; last error: {str(reason) or type(reason).__name__}" if reason is not None else description


def _probe(address: str, results: dict[str, str]) -> None:
    host, _, port = address.rpartition(":")
    host, results[address] = host.strip("[]"), "its name is still being looked up"
    try:
        infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        results[address] = f"its name does not resolve ({error.strerror or error})"
        return
    results[address] = "nothing accepts a connection"
    for family, kind, protocol, _, target in infos:
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(PROBE_S)
            try:
                probe.connect(target)
            except ConnectionRefusedError:
                results[address] = "connection refused"
            except OSError as error:
                results[address] = str(error.strerror or error).lower()
            else:
                results[address] = "it accepts connections, but does not answer as Kafka does"
                return
