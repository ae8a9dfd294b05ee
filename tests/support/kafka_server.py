"""A real Apache Kafka of one node, for tests, benchmarks and soak runs.

The jars come from Maven Central (``tests/kafka/pom.xml``) and are kept in ``.cache/kafka``. Needs
Java 17 or newer and Maven.

    with KafkaServer() as kafka:
        ... kafka.bootstrap_servers ...
"""

from __future__ import annotations

import atexit
import base64
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tests.support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
POM = ROOT / "tests" / "kafka" / "pom.xml"
CACHE = ROOT / ".cache" / "kafka"

START_TIMEOUT_S = 60.0
_PORTS = range(20_000, 32_000)

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "3",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "broker.session.timeout.ms": "1000",  # after a kill the controller waits so long before the broker may return
    "broker.heartbeat.interval.ms": "300",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "log.retention.check.interval.ms": "1000",
    "log.initial.task.delay.ms": "1000",
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_LOG4J = """\
Configuration:
  status: warn
  Appenders:
    File:
      name: file
      fileName: "{log}"
      PatternLayout:
        pattern: "%d{{HH:mm:ss.SSS}} %p %c{{1}} %m%n"
  Loggers:
    Root:
      level: warn
      AppenderRef:
        - ref: file
"""


# where the system can, the server dies with the thread that started it, however that ends
_DIE_TOGETHER = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


class ToolMissingError(RuntimeError):
    """Java or Maven is not installed."""


def require_tools() -> None:
    for tool, what in (("java", "a Java runtime, 17 or newer"), ("mvn", "Apache Maven")):
        if shutil.which(tool) is None:
            raise ToolMissingError(f"`{tool}` is missing; a real Kafka needs {what}.")


def jars() -> Path:
    """Return the folder of Kafka's jars, fetched unless those of this very pom.xml are there."""
    libs = CACHE / "libs"
    stamp = libs / POM.name
    CACHE.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        lock = stack.enter_context((CACHE / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side: one fetches, the others wait
        if stamp.exists() and stamp.read_bytes() == POM.read_bytes():
            return libs
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=CACHE))
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(POM),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={folder}/libs",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"Maven could not fetch Kafka:\n{done.stdout}{done.stderr}")
        shutil.copy(POM, Path(folder, "libs"))
        shutil.rmtree(libs, ignore_errors=True)
        Path(folder, "libs").rename(libs)
    return libs


def free_ports(count: int) -> list[int]:
    """Return distinct free ports below those that the system gives to outgoing connections."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())  # held until all are chosen: none is chosen twice
            with suppress(OSError):  # in use
                probe.bind(("127.0.0.1", secrets.choice(_PORTS)))
                ports.append(int(probe.getsockname()[1]))
    return ports


class KafkaServer:
    """One broker with its own folder and ports, which stay the same over ``restart``.

    Args:
        settings: Server properties that replace or extend the default ones.
        listeners: More listeners, by name: ``{"SECURE": "SASL_SSL"}``; see ``address``.
        environment: More environment variables of the Java process.
        joins: Server whose cluster this one joins, as a broker without a controller.
        users: Passwords of SCRAM-SHA-512 logins, by name.

    The listener PROXIED is behind ``proxy``, which can disturb its connections.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        joins: KafkaServer | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        require_tools()
        self._libs = jars()
        self.folder = Path(tempfile.mkdtemp(prefix="kafka-"))
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", "PROXIED": "PLAINTEXT", **(listeners or {})}
        self._ports = dict(zip(protocols, free_ports(len(protocols)), strict=True))
        self.proxy = Proxy(self._ports["PROXIED"])
        urls = {name: f"{name}://127.0.0.1:{port}" for name, port in self._ports.items()}
        properties = {
            **_SETTINGS,
            "listeners": ",".join(url for name, url in urls.items() if not (joins and name == "CONTROLLER")),
            "advertised.listeners": ",".join(
                f"{name}://{self.address(name)}" for name in protocols if name != "CONTROLLER"
            ),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "controller.quorum.voters": f"1@127.0.0.1:{self._ports['CONTROLLER']}",
            "log.dirs": str(self.folder / "data"),
            **(joins._invitation() if joins else {}),
            **(settings or {}),
        }
        self._properties = self.folder / "server.properties"
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        self._log4j = self.folder / "log4j2.yaml"
        self._log = self.folder / "server.log"
        self._log4j.write_text(_LOG4J.format(log=self._log))
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        made_up = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self._cluster: str = joins._cluster if joins else made_up
        done = subprocess.run(
            self._java(
                "kafka.tools.StorageTool",
                "format",
                f"--cluster-id={self._cluster}",
                "-c",
                str(self._properties),
                *(f"--add-scram=SCRAM-SHA-512=[name={name},password={word}]" for name, word in (users or {}).items()),
            ),
            capture_output=True,
            text=True,
            env=self._environment,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"Kafka's storage could not be made:\n{done.stdout}{done.stderr}")
        atexit.register(self.close)

    def _invitation(self) -> dict[str, str]:
        """Return the properties of a second broker."""
        voters = f"1@127.0.0.1:{self._ports['CONTROLLER']}"
        return {"process.roles": "broker", "node.id": "2", "controller.quorum.voters": voters}

    def _java(self, *arguments: str) -> list[str]:
        heap = ["-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]  # small and quick to start
        return ["java", *heap, f"-Dlog4j2.configurationFile={self._log4j}", "-cp", f"{self._libs}/*", *arguments]

    @property
    def bootstrap_servers(self) -> str:
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        return f"127.0.0.1:{self.proxy.port if listener == 'PROXIED' else self._ports[listener]}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Start the broker and return once it answers."""
        self._silent_to = self._log.stat().st_size if self._log.exists() else 0
        with (self.folder / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                _DIE_TOGETHER + self._java("kafka.Kafka", str(self._properties)),
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                logs = (self.folder / "output.log").read_text()[-3000:] + self.said()[-3000:]
                self.kill()
                raise RuntimeError(f"Kafka did not start:\n{logs}")
            time.sleep(0.1)

    def said(self) -> str:
        """Return its log since the last start."""
        return self._log.read_bytes()[self._silent_to :].decode(errors="replace") if self._log.exists() else ""

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._ports["PLAINTEXT"]), timeout=1).close()
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap_servers, bootstrap_timeout_ms=2000)
        except (OSError, KafkaError):
            return False
        try:
            admin.list_topics()
        except KafkaError:
            return False
        finally:
            admin.close()
        return True

    def stop(self) -> None:
        """Stop the broker in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> None:
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        self.start()

    def pause(self) -> None:
        """Suspend the broker, while connections stay open; return once it is suspended."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)  # a paused process would not hear the other one
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def close(self) -> None:
        """Stop the broker and remove its data."""
        atexit.unregister(self.close)
        self.kill()
        self.proxy.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
