"""``stream-ad doctor``: check everything that a worker will need, change nothing, say how to fix what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

from stream_ad import __version__
from stream_ad.brokers import open_admin, open_reader, open_snapshots
from stream_ad.diagnostics.snapshot_inspect import view
from stream_ad.errors import BrokerError, DeviceError, StateError, StreamADError
from stream_ad.records.schemas import FORMAT_HEADER, OLD_FORMAT
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
_FILTER = "filter is_anomaly, or alarm >= 1, in the place of score >= 1"
_EARLIEST = 1_700_000_000  # seconds since the epoch; a clock before November 2023 was never set


def diagnose(config: Path | None, overrides: Sequence[str]) -> Iterator[Finding]:
    """Yield all findings, each as soon as it is known."""
    resolved, problems = examine_settings(config, overrides)
    for text in problems:
        yield problem("settings", text, "Correct it; `stream-ad config schema` shows every setting.")
    yield from _versions()
    yield from _clock()
    if resolved is None:
        yield warning("broker", "not checked, nor are the device and the state.", "Correct the settings first.")
        return
    settings = resolved.settings
    yield from _settings(resolved)
    yield from _device(settings)
    yield from _http(settings)
    yield from _broker(settings)


def _settings(resolved: Resolved) -> Iterator[Finding]:
    settings, origins = resolved.settings, resolved.origins
    security = settings.broker.security
    yield ok("settings", f"valid, {_given(len(origins))}.")
    servers = settings.broker.bootstrap_servers.split(",")
    remote = any(not server.strip().startswith(_LOOPBACK) for server in servers)
    if settings.broker.kind == "kafka" and remote and security.protocol in ("PLAINTEXT", "SASL_PLAINTEXT"):
        what = "the password and all records travel" if security.password else "all records travel"
        yield warning(
            "settings", f"{what} unencrypted to {settings.broker.bootstrap_servers}.",
            "Set broker.security.protocol to SASL_SSL or SSL unless you trust the whole network.",
        )  # fmt: skip
    if origins.get("broker.security.password", "").startswith("--set"):
        yield warning(
            "settings", "the password is on the command line, where every user of this machine can read it.",
            "Put it into a file, and the path of the file into STREAM_AD_BROKER__SECURITY__PASSWORD_FILE.",
        )  # fmt: skip
    if settings.http.enabled and not settings.http.host.startswith(_LOOPBACK):
        yield warning(
            "settings", f"metrics and probes can be reached from other machines (http.host {settings.http.host}).",
            "They need no password: let a firewall or a network policy admit the monitoring only.",
        )  # fmt: skip
    if settings.scores.format == OLD_FORMAT:
        yield warning(
            "settings", f"scores.format is {OLD_FORMAT}: scores of 1 or above are anomalies, as in the releases 0.1. "
            "The next version no longer publishes them.",
            f"Let every consumer {_FILTER}; then remove the setting.",
        )  # fmt: skip


def _given(count: int) -> str:
    if count == 0:
        return "all defaults"
    return f"{count} not {'a default' if count == 1 else 'defaults'}; `stream-ad config show` says where each was set"


def _versions() -> Iterator[Finding]:
    listed = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    yield ok("versions", f"stream-ad {__version__}, Python {platform.python_version()}, {listed}.")


def _clock() -> Iterator[Finding]:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < _EARLIEST:
        yield problem("clock", f"this machine's clock says {shown}.", "Set the clock, and keep it with NTP.")
    else:
        yield ok("clock", f"this machine's clock says {shown}.")


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
                "http", f"cannot listen on {http.host}:{http.port}: {error.strerror}.",
                "If a worker is already running there, all is well; otherwise choose another http.port.",
            )  # fmt: skip
        else:
            yield ok("http", f"{http.host}:{http.port} is free.")


def _broker(settings: Settings) -> Iterator[Finding]:
    try:
        with closing(open_admin(settings)) as admin:
            findings = list(admin.examine())
            well = not any(finding.level is Level.PROBLEM for finding in findings)
            usable = well and all(topic.exists for topic in admin.plan())
    except StreamADError as error:
        yield problem("connection", error.what, error.hint)
        return
    yield from findings
    if usable:
        yield from _state(settings)
        yield from _consumers(settings)


def _state(settings: Settings) -> Iterator[Finding]:
    """Check that each shard can resume from what is stored."""
    try:
        snapshots = open_snapshots(settings)
    except BrokerError as error:
        yield problem("state", error.what, error.hint)
        return
    with closing(snapshots):
        shards = range(settings.topics.partitions)
        findings = [finding for shard in shards for finding in _shard(snapshots, settings, shard)]
        yield from findings
        begun = sum(snapshots.positions(shard) is not None for shard in shards)
    if not findings:
        stored = f"{begun} of {len(shards)} shards have state, and can resume" if begun else "nothing is stored yet"
        yield ok("state", f"{stored}.")


def _consumers(settings: Settings) -> Iterator[Finding]:
    """Check whether those who read scores of 1 or above as anomalies would find none from the next start on."""
    topic = settings.topics.scores
    try:
        with closing(open_reader(settings)) as reader:
            reader.seek_to_newest(topic, 1)
            records = reader.read_records(topic, limit=1)
    except BrokerError as error:
        yield warning("scores", f"not checked: {error.what}", error.hint)
        return
    if not records:
        yield ok("scores", f"nothing is published in {topic} yet.")
        return
    newest = max(records, key=lambda record: record.time_ms)
    form = dict(newest.headers).get(FORMAT_HEADER, OLD_FORMAT.encode()).decode(errors="replace")
    if form == OLD_FORMAT != settings.scores.format:
        yield warning(
            "scores", f"the newest in {topic} are of form {OLD_FORMAT}, where 1 or above is an anomaly. A worker will "
            f"publish form {settings.scores.format}, all below 1: a consumer that filters score >= 1 goes silent.",
            f"Let every consumer {_FILTER}; until they do, set scores.format to {OLD_FORMAT}.",
        )  # fmt: skip
    else:
        yield ok("scores", f"the newest in {topic} are of form {form}.")


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
            "Run the version of the program that wrote it, or start with a new model: "
            f"`stream-ad snapshots reset {shard}`.",
        )  # fmt: skip
    elif newest is not None and newest.problem:
        yield warning(
            "state", f"snapshot {newest.number} of shard {shard}, its newest: {newest.problem}.",
            "A worker will recover without it and log how. `stream-ad snapshots list` shows the others, "
            f"`stream-ad snapshots restore {shard} NUMBER` goes back to one.",
        )  # fmt: skip
    if kept and positions is None:
        yield problem(
            "state", f"shard {shard} has snapshots, but its offsets are missing.",
            f"`stream-ad snapshots restore {shard} NUMBER --at newest`, or `--at oldest`.",
        )  # fmt: skip
    for topic in ("events", "labels") if positions is not None else ():
        at, first, end = (int(getattr(offsets, topic)) for offsets in (positions, oldest, ends))
        if not first <= at <= end:
            continues = settings.broker.on_lost_records == "continue"
            yield (warning if continues else problem)(
                "state", f"shard {shard} had reached offset {at} of its {topic}, which now hold {first} to {end}.",
                "A worker will continue with the oldest records kept and count what is missing." if continues else
                "Set broker.on_lost_records=continue, or start again: "
                f"`stream-ad snapshots reset {shard} --at oldest`.",
            )  # fmt: skip
