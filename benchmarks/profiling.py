"""Where an event's time goes, on both brokers: python benchmarks/profiling.py [--events 200000] [--sensors 50]

A worker goes through topics that were filled beforehand, labels included, under a sampling profiler (py-spy, from
outside the process, all its threads). Writes a flame graph of each broker as SVG, the samples as text beside it, and a
table of the shares by stage. Samples before the first step of a shard are not counted. Needs what tests/kafka needs.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the real Kafka of the tests

from benchmarks.pipeline import START_NS, fill
from stream_ad.brokers import open_producer
from stream_ad.brokers.worker_api import InputTopic
from stream_ad.codec.encoders import encode_label
from stream_ad.settings import Settings
from tests.support.kafka_server import KafkaServer

RATE = 200  # samples a second
WAITS = re.compile(r"(Selector\.select|Condition\.wait|wait_for_change) [^;]*$")  # at the leaf: no work is done
STAGES = (
    # the first whose pattern fits any frame of the stack, written as: Class.function (path/file.py:line)
    ("fetch", r"Broker\.poll |kafka_python/fetcher|kafka/consumer/"),
    ("produce", r"Database\.append |kafka_python/(producer|record_batch)|kafka/(producer|record)/"),
    ("network", r"kafka/(net|protocol)/"),  # the client's own thread, for both of them
    ("commit", r"end_transaction|send_offsets|Broker\.commit |ShardWriter"),
    ("snapshot", r"Shard\.snapshot |snapshot_format"),
    ("decode", r"ShardTask\._decode "),
    ("encode", r"ShardTask\._encode "),
    (
        "learn",
        (
            r"detector/(learner|model/(online_autoencoder|replay_buffer|losses|guided_step|training_batch|transplant)"
            r"|feedback/(label_head|label_trust|ridge_logistic))"
        ),
    ),
    ("scale", r"detector/features/(scaler|temporal|origin|glitches)"),
    (
        "score",
        (
            r"detector/(scoring/(anomaly_score|threshold|tail_quantile)|features/(linear_residuals|stuck_sensor)"
            r"|model/(torch_autoencoder|numba_autoencoder|numba_forward|model_stack))"
        ),
    ),
    (
        "join",
        (
            r"shard/(label_store|early_labels|sensor_admission|sensor_registry|resting_sensors|event_hash|merge|step)\.py"
            r"|detector/feedback/event_buffer|Shard\.step "
        ),
    ),
)


def profile(tree: dict[str, Any], folder: Path, out: Path) -> Counter[str]:
    """Run a worker until it is idle, once for the picture and once for the samples; return samples by stage."""
    config = folder / "stream-ad.yaml"
    spy = str(Path(sysconfig.get_path("scripts"), "py-spy"))
    for number, (form, path) in enumerate((("flamegraph", out.with_suffix(".svg")), ("raw", out.with_suffix(".txt")))):
        config.write_text(yaml.safe_dump(tree | {"application_id": f"profile-{number}"}))
        code = (
            "from stream_ad.cli.app import main; import sys; "
            f"sys.argv = ['stream-ad', 'run', '--until-idle', '2', '--config', {str(config)!r}]; main()"
        )
        command = [spy, "record", "--rate", str(RATE), "--format", form, "--output", str(path), "--full-filenames"]
        done = subprocess.run([*command, "--", sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if not path.exists():
            raise RuntimeError(f"py-spy wrote nothing:\n{done.stderr[-2000:]}")
    return by_stage(out.with_suffix(".txt").read_text())


def by_stage(samples: str) -> Counter[str]:
    """Return the counts of py-spy's raw lines ("frame;frame;frame count", the root first) by stage of the work."""
    counts: Counter[str] = Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        if re.search(r"_Loop\.run |kafka/net/", stack) and not WAITS.search(stack):
            counts[stage_of(stack.split(";")[::-1])] += int(count)
    return counts


def stage_of(frames: list[str]) -> str:
    """Return the stage of a stack, whose leaf comes first."""
    for name, pattern in STAGES:
        if any(re.search(pattern, frame) for frame in frames):
            return name
    return "other"


def label(tree: dict[str, Any], events: int, sensors: int) -> None:
    """Send a label on every tenth stretch of 20 readings of a sensor; every fifth label is a leak."""
    with closing(open_producer(Settings.model_validate(tree))) as producer:
        for first in range(0, events // sensors, 200):
            start_ns = START_NS + first * sensors * 1_000_000
            for sensor in range(sensors):
                name = "leak" if (first // 200 + sensor) % 5 == 0 else "normal"
                end_ns = start_ns + 20 * sensors * 1_000_000
                interval = {"start_ns": start_ns, "end_ns": end_ns, "record_time_ms": end_ns // 1_000_000 + 60_000}
                producer.send(InputTopic.LABELS, [encode_label(f"sensor-{sensor:04}", name, **interval)])


def main() -> None:
    """Profile both brokers, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--sensors", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("profile"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    shares: dict[str, Counter[str]] = {}
    with KafkaServer() as kafka, tempfile.TemporaryDirectory() as folder:
        brokers = {
            "kafka": {"kind": "kafka", "bootstrap_servers": kafka.bootstrap_servers},
            "embedded": {"path": str(Path(folder, "stream.db"))},
        }
        for name, broker in brokers.items():
            tree = {"broker": broker, "topics": {"partitions": 1}, "http": {"enabled": False}}
            fill(tree, chosen.events, chosen.sensors)
            label(tree, chosen.events, chosen.sensors)
            shares[name] = profile(tree, Path(folder), chosen.out / name)
    table = Table("share of the samples", *shares)
    for stage in (*(name for name, _ in STAGES), "other"):
        table.add_row(stage, *(f"{100 * counts[stage] / max(1, counts.total()):.1f} %" for counts in shares.values()))
    Console(width=80).print(table)
    print(f"Flame graphs: {', '.join(str(chosen.out / f'{name}.svg') for name in shares)}")


if __name__ == "__main__":
    main()
