"""A TCP proxy that disturbs the connections through it: resets, delays, half-closes or blocks them."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

_CHUNK = 256 * 1024


class _Link:
    """One client's connection and its counterpart to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.deaf = False  # the client hears no more, but is still heard


class Proxy:
    """Listens on ``port`` of the loopback address until ``close``; runs on a thread of its own.

    Args:
        target: Port to forward to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._delay_s = 0.0
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Reset every connection; new ones are accepted."""
        self._do(self._each(lambda link: (link.client.transport.abort(), link.server.transport.abort())))

    def half_close(self) -> None:
        """Close every connection towards the client only: requests arrive, their answers are lost."""
        self._do(self._each(_deafen))

    def delay(self, seconds: float) -> None:
        """Delay each block of data by some seconds from now on; 0 ends that."""
        self._delay_s = seconds

    def block(self) -> None:
        """Forward nothing in either direction until ``unblock``; connections stay open."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def unblock(self) -> None:
        self._loop.call_soon_threadsafe(self._passing.set)

    def close(self) -> None:
        self._server.close()
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _each(self, harm) -> None:
        for link in list(self._links):
            with suppress(OSError, RuntimeError):
                harm(link)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(writer, server)
        self._links.add(link)
        try:
            await asyncio.gather(self._pump(reader, server, link), self._pump(answers, writer, link))
        finally:
            self._links.discard(link)
            writer.transport.abort()
            server.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, link: _Link) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                await self._passing.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                if sink is link.server or not link.deaf:
                    sink.write(data)
                    await sink.drain()
        if not sink.is_closing():
            with suppress(OSError):
                sink.write_eof()


def _deafen(link: _Link) -> None:
    link.deaf = True
    link.client.write_eof()
