"""The loop: assignment, polling, one step for each shard in turn, and a clean end.

What becomes of a single shard is the business of ``ShardSupervisor``; shards do not wait for one another:
while one is loaded again, replayed, or waits for its broker, the others go on.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Protocol

import structlog

from stream_ad.brokers import await_broker, open_broker
from stream_ad.brokers.worker_api import Awaiting
from stream_ad.codec import Codec
from stream_ad.errors import BrokerError, LostRecordsError
from stream_ad.shard.devices import choose_device, passed_over
from stream_ad.telemetry.collectors import ShardView
from stream_ad.telemetry.compile_progress import LogLines, progress_report
from stream_ad.telemetry.health import Health
from stream_ad.telemetry.http_server import HttpServer
from stream_ad.telemetry.logging import configure_logging
from stream_ad.telemetry.metrics import Metrics
from stream_ad.telemetry.throughput_log import ThroughputLog
from stream_ad.util.signals import stop_on_signals
from stream_ad.worker.process_setup import compile_loops, prepare_process
from stream_ad.worker.shard_supervisor import ShardSupervisor
from stream_ad.worker.shard_task import WorkerContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.brokers.worker_api import Broker, InputTopic
    from stream_ad.settings import Settings

POLL_SECONDS = 0.5
PASS_SECONDS = 1.0  # of work between two polls, so that many shards do not keep the group waiting
LAG_SECONDS = 1.0
STUCK_SECONDS = 30.0  # beyond what the broker may block

_log = structlog.get_logger("stream_ad.worker.worker")


class Stop(Protocol):
    """What ends a worker: a ``threading.Event`` will do."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float) -> bool: ...


class Worker:
    """Scores events and learns from labels until it is stopped.

    Args:
        settings: All of them.
        broker: In the place of the one that the settings name; closed at the end.
        clock: Monotonic seconds; paces snapshots, retries and reports, and nothing of the results. One that
            is turned by hand needs a ``stop`` whose ``wait`` turns it.
        stop: Ends the run when set. Without it the worker takes the process for its own: it sets up
            logging, threads and memory (``process.prepare_process``) and ends on SIGTERM and SIGINT. Whoever gives
            it and wants scores that are the same to the last bit as those of `stream-ad run` prepares the process.
    """

    def __init__(
        self,
        settings: Settings,
        broker: Broker | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        stop: Stop | None = None,
    ) -> None:
        self._settings = settings
        self._given_broker = broker
        self._clock = clock
        self._given_stop = stop
        self.metrics = Metrics(settings)
        self.health = Health(
            silence_s=settings.broker.give_up_seconds + STUCK_SECONDS,
            standby_s=settings.broker.session_timeout_seconds,
            clock=clock,
        )
        self.http_port: int | None = None  # once it listens

    def run(self, until_idle_s: float | None = None) -> None:
        """Work until stopped, or until nothing came for ``until_idle_s`` seconds; then drain.

        A broker that is not there yet is waited for, unless ``until_idle_s`` says that the run is to end by itself.

        Raises:
            DeviceError: The device asked for is not there, or does not compute what the processor does.
            BrokerError: The broker stayed away, or refused a shard, for longer than ``broker.give_up_seconds``.
            LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
            SettingsError: The HTTP address cannot be used.
            ScarceMemoryError: There was too little memory for a shard, for as long.
            StateError: Saved state cannot be used.
        """
        settings = self._settings
        with ExitStack() as stack:
            stop = self._given_stop
            if stop is None:
                stop = stack.enter_context(stop_on_signals(settings.worker.drain_timeout_seconds))
                limit = configure_logging(settings)
                limit.on_drop = lambda: self.metrics.bound_hit("log_lines")
            if settings.http.enabled:
                server = stack.enter_context(closing(HttpServer(settings.http, self.metrics, self.health)))
                self.http_port = server.port
                _log.info("listening", host=settings.http.host, port=server.port)
            if fault := passed_over(settings.detector.device):
                _log.warning(fault)
            choose_device(settings.detector.device)  # now, and not with the first shard
            if self._given_stop is None:
                prepare_process(progress_report(_log.info))
            else:  # others work in this process: it stays as it is
                compile_loops(LogLines(_log.info))
            broker = self._given_broker
            if broker is None and (until_idle_s is not None or await_broker(settings, stop.wait, self._tell)):
                broker = open_broker(settings)
            if broker is not None:
                stack.enter_context(closing(broker))
                loop = _Loop(settings, broker, self.metrics, self.health, self._clock, stop)
                loop.run(until_idle_s)
                self.health.drain()
                loop.drain()
        _log.info("stopped")

    def _tell(self, problem: str) -> None:
        """What is in the way of the first contact with the broker; the worker is well and waits."""
        self.health.tick()
        self.health.broker(problem)


class _Loop:
    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        metrics: Metrics,
        health: Health,
        clock: Callable[[], float],
        stop: Stop,
    ) -> None:
        self._line = ThroughputLog(clock)
        self._context = WorkerContext(
            settings, settings.detector_options, broker, Codec(settings), metrics, self._line, clock
        )
        self._health = health
        self._stop = stop
        self._shards: dict[int, ShardSupervisor] = {}
        self._held: set[tuple[int, InputTopic]] = set()
        self._lag: dict[int, dict[InputTopic, int]] = {}
        self._lag_due = 0.0
        self._joined = False
        self._awaited: dict[int, str] = {}  # shards that another process has for a while, and who

    def run(self, until_idle_s: float | None) -> None:
        clock = self._context.clock
        busy, last_work = False, clock()
        while not self._stop.is_set():
            self._health.tick()  # with or without a shard
            busy = busy or any(shard.saving for shard in self._shards.values())
            drained = self._poll(timeout_s=0.0 if busy else POLL_SECONDS)
            self._follow_assignment()
            busy = self._advance()
            self._report()
            waiting = self._awaited or not all(shard.live for shard in self._shards.values())
            if busy or not drained or not self._joined or waiting:
                last_work = clock()
            elif until_idle_s is not None and clock() - last_work >= until_idle_s:
                return

    def drain(self) -> None:
        """Save every shard that moved, for as long as ``worker.drain_timeout_seconds`` allows."""
        clock, deadline = self._context.clock, self._context.settings.worker.drain_timeout_seconds
        began = clock()
        for number, shard in sorted(self._shards.items()):
            if clock() - began > deadline:
                _log.warning("no time left for snapshots; the next start replays instead", first_shard=number)
                break
            shard.save()
        self._show()
        self._line.log(force=True)

    def _poll(self, *, timeout_s: float) -> bool:
        """Whether nothing came, because there is nothing more to come for now."""
        around = self._context
        paused = {(number, side) for number, shard in self._shards.items() for side in shard.paused()}
        full = {(number, side) for number, side in paused - self._held if self._shards[number].live}
        around.metrics.bound_hit("inbox", len(full))
        self._held = paused
        began = time.perf_counter()
        try:
            fetched = around.broker.poll(
                timeout_s=timeout_s, max_records=around.settings.worker.poll_records, paused=paused
            )
        except LostRecordsError as error:
            self._shards[error.shard].forget(error)
            return False
        found = [one for sides in fetched.values() for one in sides.values()]
        came = any(len(one.records) for one in found)
        if not fetched and timeout_s:  # nothing is positioned yet, so the broker had nothing to wait for
            self._stop.wait(min(timeout_s, 0.05))
        around.metrics.stage_took("poll" if came else "idle", time.perf_counter() - began)
        for number, sides in fetched.items():
            if number in self._shards:
                self._shards[number].receive(sides)
        return not came and all(one.drained for one in found)

    def _follow_assignment(self) -> None:
        self._follow_locks()
        owned = self._context.broker.assigned()
        lost, gained = self._shards.keys() - owned, owned - self._shards.keys()
        for number in lost:
            del self._shards[number]
        for number in sorted(gained):
            self._shards[number] = ShardSupervisor(number, self._context)
        if lost or gained:
            if self._joined:
                self._context.metrics.rebalanced()
            self._joined = True
            _log.info("shards assigned", owned=sorted(owned), gained=sorted(gained), lost=sorted(lost))

    def _follow_locks(self) -> None:
        broker, before = self._context.broker, self._awaited.keys()
        self._awaited = dict(broker.awaited()) if isinstance(broker, Awaiting) else {}
        if self._awaited.keys() - before:
            _log.warning("shards are locked; each is taken once it is free", shards=self._awaited)

    def _advance(self) -> bool:
        """What the last poll brought, step by step; whether there may be more at once.

        A commit is on its way while the next steps, of its shard and of others, are computed. All are through
        before the next poll: a rebalance shall not find one half done.
        """
        busy, over = False, self._context.clock() + PASS_SECONDS
        while self._round(over):
            busy = True
            if self._stop.is_set() or self._context.clock() > over:
                break
            if not any(shard.live for shard in self._shards.values()):
                break  # replays can wait for a poll
        for shard in self._shards.values():
            shard.settle()
            self._health.tick()
        return busy

    def _round(self, over: float) -> bool:
        """One piece of work for each shard, those that waited longest first; whether there may be more at once."""
        busy = False
        for number in list(self._shards):
            self._health.tick()
            if self._stop.is_set():
                break
            if self._context.clock() > over:
                return True
            shard = self._shards[number] = self._shards.pop(number)  # to the end of the queue
            busy |= shard.advance()
        return busy

    def _report(self) -> None:
        self._health.shards(self._awaited | {number: shard.condition() for number, shard in self._shards.items()})
        if (now := self._context.clock()) >= self._lag_due:
            self._lag_due = now + LAG_SECONDS
            try:
                self._lag = self._context.broker.lag()
                self._health.broker("")
            except BrokerError as error:
                self._health.broker(error.what)
                _log.warning("the broker does not say how far it is", error=str(error))
            self._show()
        if self._line.due():
            self._show()
            self._line.log(shards=len(self._shards), lag=sum(sum(sides.values()) for sides in self._lag.values()))

    def _show(self) -> None:
        views = {number: ShardView() for number in self._awaited}
        views |= {number: shard.view(self._lag.get(number, {})) for number, shard in self._shards.items()}
        self._context.metrics.show(views)
