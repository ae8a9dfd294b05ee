"""Where nobody answers as Kafka does: what is found at each address, told soon and not only once patience is over."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAYS_AFTER_S = 3.0
"""Silence after which what was tried is told."""
LOOK_S = 1.2
"""How long each address is looked at, all at once."""

_LOG = logging.getLogger("stream_ad.kafka")  # of the standard library: a command without a log has it on standard error


@contextmanager
def told_early(servers: str, reason: Callable[[], BaseException | None]) -> Iterator[None]:
    """Say what was tried where what is done inside takes longer than ``SAYS_AFTER_S``.

    Args:
        servers: As in ``broker.bootstrap_servers``.
        reason: Why the client could not connect so far, where it knows.
    """
    over = threading.Event()

    def watch() -> None:
        if not over.wait(SAYS_AFTER_S):
            what = looked_at(servers, reason())
            if not over.is_set():
                _LOG.warning(
                    "No Kafka broker has answered yet at %s (%s); it is tried again and again. Check "
                    "broker.bootstrap_servers.",
                    servers,
                    what,
                )

    threading.Thread(target=watch, name="first contact", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def looked_at(servers: str, reason: BaseException | None = None) -> str:
    """What is found at each address, in words, within a good second; and why the client could not connect.

    >>> looked_at("127.0.0.1:1")
    '127.0.0.1:1: connection refused'
    """
    addresses = [server.strip() for server in servers.split(",")]
    found = dict.fromkeys(addresses, "no answer")
    deadline = time.monotonic() + LOOK_S
    looks = [threading.Thread(target=_look, args=(address, found), daemon=True) for address in addresses]
    for look in looks:
        look.start()
    for look in looks:
        look.join(max(0.0, deadline - time.monotonic()))
    told = "; ".join(f"{address}: {what}" for address, what in list(found.items()))
    return f"{told}; last error: {str(reason) or type(reason).__name__}" if reason is not None else told


def _look(address: str, found: dict[str, str]) -> None:
    host, _, port = address.rpartition(":")
    host, found[address] = host.strip("[]"), "its name is still being looked up"
    try:
        infos = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        found[address] = f"its name does not resolve ({error.strerror or error})"
        return
    found[address] = "nothing takes a connection"
    for family, kind, protocol, _, place in infos:
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(LOOK_S)
            try:
                probe.connect(place)
            except ConnectionRefusedError:
                found[address] = "connection refused"
            except OSError as error:
                found[address] = str(error.strerror or error).lower()
            else:
                found[address] = "it takes connections, but does not answer as Kafka does"
                return
