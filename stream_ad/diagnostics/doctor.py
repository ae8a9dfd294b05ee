"""``stream-ad doctor``: looks at all that a worker will need, changes nothing, says how to mend what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

from stream_ad import __version__
from stream_ad.brokers import open_admin, open_snapshots
from stream_ad.diagnostics.snapshot_inspect import view
from stream_ad.errors import BrokerError, DeviceError, StateError, StreamADError
from stream_ad.settings.loader import examine as examine_settings
from stream_ad.shard.devices import choose_device, passed_over
from stream_ad.util.findings import Level, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stream_ad.brokers.tools_api import Snapshots
    from stream_ad.settings import Settings
    from stream_ad.settings.loader import Resolved
    from stream_ad.util.findings import Finding

_LIBRARIES = ("torch", "numpy", "river", "kafka-python", "safetensors")
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")
_EARLIEST = 1_700_000_000  # a clock before this was never set


def diagnose(config: Path | None, overrides: Sequence[str]) -> Iterator[Finding]:
    """All findings, as they are found."""
    resolved, problems = examine_settings(config, overrides)
    for text in problems:
        yield problem("settings", text, "Correct it; `stream-ad config schema` shows every setting.")
    yield from _versions()
    yield from _clock()
    if resolved is None:
        yield warning("broker", "not looked at, nor the device and the state.", "Correct the settings first.")
        return
    settings = resolved.settings
    yield from _settings(resolved)
    yield from _device(settings)
    yield from _http(settings)
    yield from _broker(settings)


def _settings(resolved: Resolved) -> Iterator[Finding]:
    settings, origins = resolved.settings, resolved.origins
    security = settings.broker.security
    yield ok("settings", f"valid; `stream-ad config show` says where the {len(origins)} that are given come from.")
    servers = settings.broker.bootstrap_servers.split(",")
    remote = any(not server.strip().startswith(_LOOPBACK) for server in servers)
    if settings.broker.kind == "kafka" and remote and security.protocol in ("PLAINTEXT", "SASL_PLAINTEXT"):
        what = "the password and all records travel" if security.password else "all records travel"
        yield warning(
            "settings", f"{what} unencrypted to {settings.broker.bootstrap_servers}.",
            "Set broker.security.protocol to SASL_SSL or SSL where the network is not yours alone.",
        )  # fmt: skip
    origin = origins.get("broker.security.password", "")
    if origin.startswith("--set"):
        yield warning(
            "settings", "the password stands on the command line, where every user of this machine can read it.",
            "Put it into a file and name that in STREAM_AD_BROKER__SECURITY__PASSWORD_FILE.",
        )  # fmt: skip
    if settings.http.enabled and not settings.http.host.startswith(_LOOPBACK):
        yield warning(
            "settings", f"metrics and probes can be reached from other machines (http.host {settings.http.host}).",
            "Nothing there asks for a password: let a firewall or a network policy admit the monitoring only.",
        )  # fmt: skip


def _versions() -> Iterator[Finding]:
    found = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    yield ok("versions", f"stream-ad {__version__}, Python {platform.python_version()}, {listed}.")


def _clock() -> Iterator[Finding]:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _EARLIEST:
        yield problem("clock", f"this machine believes it is {shown}.", "Set the clock, and keep it with NTP.")
    else:
        yield ok("clock", f"this machine says {shown}.")


def _device(settings: Settings) -> Iterator[Finding]:
    try:
        device = choose_device(settings.detector.device)
    except DeviceError as error:
        yield problem("device", error.what, error.hint)
        return
    if fault := passed_over(settings.detector.device):
        yield warning(
            "device", f"{fault}.", "Check nvidia-smi, the driver and the build of torch; a worker uses the CPU."
        )
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield ok("device", f"{device} (detector.device is {settings.detector.device}), {processors} processors.")


def _http(settings: Settings) -> Iterator[Finding]:
    http = settings.http
    if not http.enabled or http.port == 0:
        return
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError as error:
            yield warning(
                "http", f"{http.host}:{http.port} cannot be listened on: {error.strerror}.",
                "If that is a worker which runs already, all is well; else choose another http.port.",
            )  # fmt: skip
        else:
            yield ok("http", f"{http.host}:{http.port} is free.")


def _broker(settings: Settings) -> Iterator[Finding]:
    try:
        with closing(open_admin(settings)) as admin:
            found = list(admin.examine())
            well = not any(one.level is Level.PROBLEM for one in found)
            usable = well and all(topic.exists for topic in admin.plan())
    except StreamADError as error:
        yield problem("connection", error.what, error.hint)
        return
    yield from found
    if usable:
        yield from _state(settings)


def _state(settings: Settings) -> Iterator[Finding]:
    """Whether each shard can go on from what is stored."""
    try:
        snapshots = open_snapshots(settings)
    except BrokerError as error:
        yield problem("state", error.what, error.hint)
        return
    with closing(snapshots):
        shards = range(settings.topics.partitions)
        found = [one for shard in shards for one in _shard(snapshots, settings, shard)]
        yield from found
        begun = sum(snapshots.positions(shard) is not None for shard in shards)
    if not found:
        told = (
            f"{begun} of {len(shards)} shards have been worked on, and can go on" if begun else "nothing is stored yet"
        )
        yield ok("state", f"{told}.")


def _shard(snapshots: Snapshots, settings: Settings, shard: int) -> Iterator[Finding]:
    try:
        kept = snapshots.kept(shard)
        positions, (oldest, ends) = snapshots.positions(shard), snapshots.bounds(shard)
        newest = view(snapshots, shard, kept[0], settings.detector_options, newest=True) if kept else None
    except (BrokerError, StateError) as error:
        yield problem("state", error.what, error.hint)
        return
    if newest is not None and newest.foreign:
        yield problem(
            "state", f"snapshot {newest.number} of shard {shard}, its newest: {newest.problem}.",
            "Run the version of the program that wrote it, or begin with a new model: "
            f"`stream-ad snapshots reset {shard}`.",
        )  # fmt: skip
    elif newest is not None and newest.problem:
        yield warning(
            "state", f"snapshot {newest.number} of shard {shard}, its newest: {newest.problem}.",
            "A worker will go on without it and say how. `stream-ad snapshots list` shows the others, "
            f"`stream-ad snapshots restore {shard} NUMBER` goes back to one.",
        )  # fmt: skip
    if kept and positions is None:
        yield problem(
            "state", f"shard {shard} has state, but nobody knows how far it had come.",
            f"`stream-ad snapshots restore {shard} NUMBER --at newest`, or `--at oldest`.",
        )  # fmt: skip
    for side in ("events", "labels") if positions is not None else ():
        at, first, end = (int(getattr(one, side)) for one in (positions, oldest, ends))
        if not first <= at <= end:
            goes_on = settings.broker.on_lost_records == "continue"
            yield (warning if goes_on else problem)(
                "state", f"shard {shard} had come to offset {at} of its {side}, which hold {first} to {end} now.",
                "A worker will go on with the oldest kept and count what is missing." if goes_on else
                "Set broker.on_lost_records=continue, or begin anew: "
                f"`stream-ad snapshots reset {shard} --at oldest`.",
            )  # fmt: skip
