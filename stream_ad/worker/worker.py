"""The worker: assignment, polling, one step for each shard in turn, and a clean shutdown.

``ShardSupervisor`` takes care of a single shard. Shards do not wait for one another: while one is loaded again, is
replayed, or waits for its broker, the others continue.
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
from stream_ad.records.schemas import OLD_FORMAT
from stream_ad.shard.devices import choose_device, passed_over
from stream_ad.telemetry.collectors import ShardView
from stream_ad.telemetry.compile_progress import LogLines, progress_report
from stream_ad.telemetry.health import Health
from stream_ad.telemetry.http_server import HttpServer
from stream_ad.telemetry.incident_log import IncidentLog
from stream_ad.telemetry.logging import configure_logging
from stream_ad.telemetry.metrics import Metrics
from stream_ad.telemetry.run_summary import RunSummary
from stream_ad.telemetry.throughput_log import ThroughputLog
from stream_ad.util.signals import stop_on_signals
from stream_ad.worker.process_setup import compile_loops, prepare_process
from stream_ad.worker.shard_supervisor import ShardSupervisor
from stream_ad.worker.shard_task import WorkerContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream_ad.brokers.worker_api import Broker, InputTopic
    from stream_ad.settings import Settings

POLL_SECONDS = 0.5  # longest wait for records: how late a worker can notice that it is stopped
PASS_SECONDS = 1.0  # of work between two polls, so that many shards do not delay a rebalance of the group
LAG_SECONDS = 1.0  # between two requests for the lag
STUCK_SECONDS = 30.0  # without a sign of life, beyond the time that a broker may block; then the worker is unhealthy

_log = structlog.get_logger("stream_ad.worker.worker")


class Stop(Protocol):
    """What ends a worker, such as a ``threading.Event``."""

    def is_set(self) -> bool:
        """Return whether the worker is to end."""

    def wait(self, timeout: float) -> bool:
        """Wait until the worker is to end, for at most ``timeout`` seconds; return whether it is to end."""


class Worker:
    """Scores events and learns from labels until it is stopped.

    Args:
        settings: All settings.
        broker: Used instead of the one that the settings name; closed at the end.
        clock: Monotonic seconds; paces snapshots, retries and reports, but has no influence on the results. A manual
            clock needs a ``stop`` whose ``wait`` advances it.
        stop: Ends the run when set. Without it the worker owns the process: it sets up logging, threads and memory
            (``process_setup.prepare_process``) and ends on SIGTERM and SIGINT. With it, call ``prepare_process``
            yourself for scores that are bit for bit those of `stream-ad run`.
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
        self.http_port: int | None = None
        """The port of the HTTP server, once it listens."""

    def run(self, until_idle_s: float | None = None) -> None:
        """Work until stopped, or until no record has come for ``until_idle_s`` seconds; then drain.

        1. Set up the process, start the HTTP server, choose the device, compile the kernels.
        2. Open the broker. Wait until it can be reached, unless ``until_idle_s`` limits the run.
        3. Poll, and advance every shard in turn, until stopped or idle.
        4. Drain: save every shard that has changed, and log a summary.

        Args:
            until_idle_s: Seconds without a record after which to end; None for no limit.

        Raises:
            DeviceError: The device of the settings is missing, or does not give the same results as the CPU.
            BrokerError: The broker could not be reached, or refused a shard, for longer than
                ``broker.give_up_seconds``.
            LostRecordsError: Records are gone, and ``broker.on_lost_records`` is stop.
            SettingsError: The HTTP address cannot be used.
            ScarceMemoryError: There was too little memory for a shard for longer than that.
            StateError: Stored state cannot be used.
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
            if settings.scores.format == OLD_FORMAT:
                _log.warning(
                    f"scores.format={OLD_FORMAT} is deprecated: the next version publishes no scores of 1 and above; "
                    "let consumers filter is_anomaly, or alarm >= 1"
                )
            choose_device(settings.detector.device)  # a missing device is an error now, not with the first shard
            if self._given_stop is None:
                prepare_process(progress_report(_log.info))
            else:  # the process belongs to others: leave its settings alone
                compile_loops(LogLines(_log.info))
            broker = self._given_broker
            if broker is None and (until_idle_s is not None or await_broker(settings, stop.wait, self._report_problem)):
                broker = open_broker(settings)
            if broker is not None:
                stack.enter_context(closing(broker))
                loop = _Loop(settings, broker, self.metrics, self.health, self._clock, stop)
                loop.run(until_idle_s)
                self.health.drain()
                loop.drain()
        _log.info("stopped")

    def _report_problem(self, problem: str) -> None:
        """Report why the broker cannot be reached yet; the worker itself is well and waits."""
        self.health.tick()
        self.health.broker(problem)


class _Loop:
    """The work of a worker between the start of its broker and its end."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        metrics: Metrics,
        health: Health,
        clock: Callable[[], float],
        stop: Stop,
    ) -> None:
        self._throughput = ThroughputLog(clock)
        self._incident_log = IncidentLog(clock, on_drop=lambda lines: metrics.bound_hit("log_lines", lines))
        self._context = WorkerContext(
            settings=settings,
            options=settings.detector_options,
            broker=broker,
            codec=Codec(settings),
            metrics=metrics,
            throughput=self._throughput,
            summary=RunSummary(settings, clock),
            incident_log=self._incident_log,
            clock=clock,
        )
        self._health = health
        self._stop = stop
        self._supervisors: dict[int, ShardSupervisor] = {}  # by shard, in the order of their turns
        self._paused: set[tuple[int, InputTopic]] = set()
        self._lag: dict[int, dict[InputTopic, int]] = {}
        self._lag_due = 0.0
        self._joined = False  # whether the broker has assigned shards
        self._awaited: dict[int, str] = {}  # by shard that another process has locked: the process

    def run(self, until_idle_s: float | None) -> None:
        """Work until stopped or idle; see ``Worker.run``."""
        clock = self._context.clock
        busy, last_work = False, clock()
        while not self._stop.is_set():
            self._health.tick()  # with or without a shard
            busy = busy or any(supervisor.shard.writing_snapshot for supervisor in self._supervisors.values())
            drained = self._poll(timeout_s=0.0 if busy else POLL_SECONDS)
            self._follow_assignment()
            busy = self._advance()
            self._report()
            waiting = self._awaited or not all(supervisor.shard.live for supervisor in self._supervisors.values())
            if busy or not drained or not self._joined or waiting:
                last_work = clock()
            elif until_idle_s is not None and clock() - last_work >= until_idle_s:
                return

    def drain(self) -> None:
        """Save every shard that has changed, for as long as ``worker.drain_timeout_seconds`` allows; then sum up."""
        clock, timeout_s = self._context.clock, self._context.settings.worker.drain_timeout_seconds
        began = clock()
        for number, supervisor in sorted(self._supervisors.items()):
            if clock() - began > timeout_s:
                _log.warning("no time left for snapshots; the next start replays instead", first_shard=number)
                break
            supervisor.save()
        self._show()
        self._throughput.log(force=True)
        self._incident_log.tell_left_out(force=True)
        open_incidents = sum(supervisor.shard.open_incidents() for supervisor in self._supervisors.values())
        self._context.summary.log(incidents_open=open_incidents)

    def _poll(self, *, timeout_s: float) -> bool:
        """Poll the broker, and return whether all inputs are drained: no record came, and none is left for now."""
        context = self._context
        paused = {(n, topic) for n, supervisor in self._supervisors.items() for topic in supervisor.shard.paused()}
        newly_full = {(n, topic) for n, topic in paused - self._paused if self._supervisors[n].shard.live}
        context.metrics.bound_hit("inbox", len(newly_full))
        self._paused = paused
        began = time.perf_counter()
        try:
            fetched = context.broker.poll(
                timeout_s=timeout_s, max_records=context.settings.worker.poll_records, paused=paused
            )
        except LostRecordsError as error:
            self._supervisors[error.shard].reload(error)
            return False
        inputs = [fetched_input for topics in fetched.values() for fetched_input in topics.values()]
        came = any(len(fetched_input.records) for fetched_input in inputs)
        if not fetched and timeout_s:  # no input is positioned yet, so the broker did not wait
            self._stop.wait(min(timeout_s, 0.05))
        context.metrics.stage_took("poll" if came else "idle", time.perf_counter() - began)
        for number, topics in fetched.items():
            if number in self._supervisors:
                self._supervisors[number].shard.receive(topics)
        return not came and all(fetched_input.drained for fetched_input in inputs)

    def _follow_assignment(self) -> None:
        """Discard the shards that the broker has taken away, and start to load those that it has assigned."""
        self._follow_locks()
        owned = self._context.broker.assigned()
        lost, gained = self._supervisors.keys() - owned, owned - self._supervisors.keys()
        for number in lost:
            del self._supervisors[number]
        for number in sorted(gained):
            self._supervisors[number] = ShardSupervisor(number, self._context)
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
        """Process the records of the last poll step by step, and return whether there may be more to do at once.

        Commits are under way while the next steps, of the same shard and of others, are computed. All of them complete
        before the next poll, so that a rebalance never meets an incomplete commit.
        """
        busy, over = False, self._context.clock() + PASS_SECONDS
        while self._round(over):
            busy = True
            if self._stop.is_set() or self._context.clock() > over:
                break
            if not any(supervisor.shard.live for supervisor in self._supervisors.values()):
                break  # replays can wait for a poll
        for supervisor in self._supervisors.values():
            supervisor.wait_for_commit()
            self._health.tick()
        return busy

    def _round(self, over: float) -> bool:
        """Advance each shard once, those that have waited longest first; return whether there may be more to do.

        Args:
            over: Time of the clock at which to stop.
        """
        busy = False
        for number in list(self._supervisors):
            self._health.tick()
            if self._stop.is_set():
                break
            if self._context.clock() > over:
                return True
            supervisor = self._supervisors[number] = self._supervisors.pop(number)  # to the end of the queue
            busy |= supervisor.advance()
        return busy

    def _report(self) -> None:
        conditions = {number: supervisor.shard.condition() for number, supervisor in self._supervisors.items()}
        self._health.shards(self._awaited | conditions)
        if (now := self._context.clock()) >= self._lag_due:
            self._lag_due = now + LAG_SECONDS
            try:
                self._lag = self._context.broker.lag()
                self._health.broker("")
            except BrokerError as error:
                self._health.broker(error.what)
                _log.warning("the broker does not return the end offsets, so the lag is unknown", error=str(error))
            self._show()
        self._incident_log.tell_left_out()
        if self._throughput.due():
            self._show()
            lag = sum(sum(topics.values()) for topics in self._lag.values())
            self._throughput.log(shards=len(self._supervisors), lag=lag)

    def _show(self) -> None:
        views = {number: ShardView() for number in self._awaited}
        views |= {
            number: supervisor.shard.view(self._lag.get(number, {})) for number, supervisor in self._supervisors.items()
        }
        self._context.metrics.show(views)
