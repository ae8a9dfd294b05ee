"""The long form of the fault tests: python -m tests.faults.soak [--broker both] [--events 1000000] [--seed 1] …

A reference run that nothing disturbs and a run whose workers are killed and whose Kafka is harmed, over the
same records; then every score, incident and dead letter of both is compared, and the models at the end.
Prints a table of what was done and what differs, and writes it into docs/explanation/recovery.md with --write.
Needs what tests/kafka needs: Java 17 and Maven.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import sqlite3
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from rich.console import Console
from rich.table import Table

from benchmarks.page import write
from tests.support.fault_points import PRODUCERS
from tests.support.fault_schedule import Harm
from tests.support.kafka_server import KafkaServer
from tests.support.soak_environment import Site, sorted_by_shard

if TYPE_CHECKING:
    from collections import Counter

ROLES = ("scores", "incidents", "dead_letters", "state")
MACHINES, PARTITIONS = 40, 4
# Small steps and frequent snapshots: as many places to be killed at as there can be. Kafka's commits take longer.
WORKER = {"poll_records": 2_000, "snapshot_interval_seconds": 5.0}
KAFKA, SQLITE = "Kafka", "SQLite"


class _Id(msgspec.Struct, frozen=True):
    sensor_id: str
    event_id: str


class Progress:
    """About how many scores are published: positions, without reading anything."""

    def __init__(self, settings, server):
        self._topic, self._server, self._path = settings.topics.scores, server, settings.broker.path
        self._partitions = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
        self._consumer = KafkaConsumer(bootstrap_servers=server.bootstrap_servers) if server else None
        self._due = self._known = 0
        self.state_bytes = 0
        self._state = settings.topics.state

    def __call__(self):
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 0.3
            with suppress(KafkaError, sqlite3.OperationalError):
                self._known = self._look()
        return self._known

    def _look(self):
        if self._server is None:
            with closing(sqlite3.connect(self._path)) as database:
                sql = "SELECT sum(next_offset) FROM logs WHERE topic = ?"
                return database.execute(sql, (self._topic,)).fetchone()[0]
        logs = self._server.folder.glob(f"data/{self._state}-*/*.log")
        with suppress(FileNotFoundError):  # compaction takes them away meanwhile
            self.state_bytes = max(self.state_bytes, sum(log.stat().st_size for log in logs))
        return sum(self._consumer.end_offsets(self._partitions, timeout_ms=1_000).values())


def sites(folder, server, events, client):
    """Two applications over the same input: what nobody disturbs, and what is to show no difference."""
    made = []
    for name in ("reference", "disturbed"):
        broker = {"path": str(folder / "stream.db")}
        if server is not None:
            broker = {"kind": "kafka", "client": client, "bootstrap_servers": server.bootstrap_servers}
        (folder / name).mkdir()
        outputs = {role: f"{name}-{role}" for role in ROLES}
        site = Site(
            folder / name,
            broker,
            topics={"partitions": PARTITIONS, **outputs},
            machines=MACHINES,
            steps=events // MACHINES,
            fill=not made,
            more={"application_id": name},
            step_records=500 if server else 100,
            **WORKER,
        )
        made.append(site)
    return made


def compare(reference, disturbed):
    """Scores that are missing, doubled and differing, and whether all that was published is the same, in one order."""
    expected, got = (sorted_by_shard(site.scores()) for site in (reference, disturbed))
    counts = {"scores": len(got), "missing": 0, "doubled": 0, "differing": 0}
    if expected != got:
        decode = msgspec.json.Decoder(_Id).decode
        wanted, found = ({decode(value): value for _, value in values} for values in (expected, got))
        counts["missing"] = len(wanted.keys() - found.keys())
        counts["doubled"] = len(got) - len(found)
        differing = [key for key, value in found.items() if wanted.get(key) != value]
        counts["differing"] = len(differing)
        for key in differing[:1]:  # each sensor's are in their order
            print(f"the first that differs: {key}, {found[key]!r} instead of {wanted.get(key)!r}", flush=True)
    same = expected == got
    del expected, got
    for role in ROLES[1:3]:
        values = [sorted_by_shard(site.read(getattr(site.settings.topics, role))) for site in (reference, disturbed)]
        same &= values[0] == values[1]
    return counts, same


def digest(states):
    """Of the models and everything else that all shards know, and how far they have come."""
    return hashlib.sha256(repr([(at, hashlib.sha256(data).hexdigest()) for at, data in states]).encode()).hexdigest()


def live_bytes(settings, server):
    """Records and bytes of the state topic that compaction must keep, and those that the topic holds now."""
    consumer = KafkaConsumer(bootstrap_servers=server.bootstrap_servers, isolation_level="read_committed")
    alive, held = {}, 0
    for number in range(PARTITIONS):
        partition = TopicPartition(settings.topics.state, number)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        while consumer.position(partition) < end:
            for record in consumer.poll(timeout_ms=200).get(partition, []):
                size = len(record.key) + len(record.value or b"")
                held += 1
                alive.pop(record.key + b"%d" % number, None)
                if record.value is not None:
                    alive[record.key + b"%d" % number] = size
    consumer.close()
    return len(alive), sum(alive.values()), held


def soak(kind, options):
    """One whole run; returns the rows of its table."""
    random_ = random.Random(options.seed)
    kills = options.kills or (100 if kind == KAFKA else 200)
    faults = options.broker_faults if kind == KAFKA else 0
    server = None
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        try:
            if kind == KAFKA:
                server = KafkaServer()
                server.start()
            reference, disturbed = sites(folder, server, options.events, options.kafka_client)
            began = time.monotonic()
            member = reference.member(until_idle_s=2.0)
            while member.poll() is None:
                time.sleep(0.2)
            assert member.poll() == 0, member.said()
            reference.run()
            undisturbed_s = time.monotonic() - began
            print(f"{kind}: reference run done in {undisturbed_s:.0f} s", flush=True)
            total = sum(1 for _ in reference.scores())
            if server is not None:
                # workers go through the proxy, whoever looks at the results does not
                disturbed.tree["broker"]["bootstrap_servers"] = server.address("PROXIED")
            progress = Progress(disturbed.settings, server)
            harm = Harm(
                disturbed,
                random_,
                total=total,
                progress=progress,
                kills=kills,
                server=server,
                broker_faults=faults,
                say=lambda line: print(f"{kind}: {line}", flush=True),
            )
            began = time.monotonic()
            harm.run()
            disturbed.run()
            disturbed_s = time.monotonic() - began
            counts, same = compare(reference, disturbed)
            states = [site.states() for site in (reference, disturbed)]
            other = [str(shard) for shard, (one, two) in enumerate(zip(*states, strict=True)) if one != two]
            rows = {
                **({"client": options.kafka_client} if server else {}),
                "seed": options.seed,
                "events": f"{reference.sent[0]:,}",
                "labels": f"{reference.sent[1]:,}",
                **{what: f"{count:,}" for what, count in counts.items()},
                "everything published equal": "yes" if same else "NO",
                "final state equal": f"yes, {digest(states[0])[:16]}" if not other else f"NO: shard {', '.join(other)}",
                "kills (SIGKILL)": told(harm.killed),
                **({"broker faults": told(harm.harmed), "besides": told(harm.others)} if server else {}),
                "undisturbed / disturbed": f"{undisturbed_s:,.0f} s / {disturbed_s:,.0f} s",
            }
            if server is not None:
                records, size, held = live_bytes(disturbed.settings, server)
                rows["state topic"] = (
                    f"{records:,} live records of {size / 2**20:.1f} MiB; {held:,} records are there; "
                    f"never more than {progress.state_bytes / 2**20:.0f} MiB on disk"
                )
            ok = same and not other and sum(harm.killed.values()) >= kills
            return rows, ok and sum(harm.harmed.values()) == faults
        finally:
            if server is not None:
                server.close()


def told(counter: Counter[str]) -> str:
    return f"{sum(counter.values())}: " + ", ".join(f"{count} {what}" for what, count in sorted(counter.items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=["kafka", "sqlite", "both"], default="both")
    parser.add_argument("--kafka-client", choices=sorted(PRODUCERS), default="kafka-python")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, help="100 on Kafka and 200 on SQLite unless given")
    parser.add_argument("--broker-faults", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into docs/explanation/recovery.md")
    options = parser.parse_args()
    kinds = [kind for kind in (KAFKA, SQLITE) if options.broker in ("both", kind.lower())]
    results = {kind: soak(kind, options) for kind in kinds}
    names = list(dict.fromkeys(name for rows, _ in results.values() for name in rows))
    table = Table("", *results)
    for name in names:
        table.add_row(name, *(str(rows.get(name, "")) for rows, _ in results.values()))
    out = io.StringIO()
    Console(width=110, file=out).print(table)
    print(out.getvalue())
    if options.write:
        write(out.getvalue(), "soak" if options.kafka_client == "kafka-python" else f"soak {options.kafka_client}")
    return 0 if all(ok for _, ok in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
