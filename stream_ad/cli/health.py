"""Ask a running worker for its health."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from stream_ad.errors import SettingsError, StreamADError

if TYPE_CHECKING:
    from stream_ad.settings import HttpSettings

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (compared with, not bound to)


def ask(http: HttpSettings, path: str, *, timeout_s: float) -> str:
    """Return the answer of the worker on this machine when it is healthy.

    Raises:
        SettingsError: The settings do not say where it listens.
        StreamADError: No worker answers, or it is not healthy.
    """
    if not http.enabled or http.port == 0:
        setting = "http.port is 0 (any free port)" if http.enabled else "http.enabled is false"
        raise SettingsError(
            f"{setting}: there is no address to ask.", hint="Give the worker and `health` the same http.port."
        )
    host = _ANY_ADDRESS.get(http.host, http.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{http.port}{path}"
    # A proxy named in the environment is for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return str(answer.read().decode("utf-8", "replace")).rstrip()
    except urllib.error.HTTPError as error:
        reply = error.read().decode("utf-8", "replace").strip()
        raise StreamADError(
            f"The worker is not healthy: {url} answers {error.code}: {reply}", hint="Its log says why."
        ) from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise StreamADError(
            f"No worker answers at {url}: {reason}.",
            hint="Is `stream-ad run` running, with the same http.host and http.port?",
        ) from error
