"""A worker of the demo in a process of its own: ``python -m stream_ad.demo.child SETTINGS``.

It works until its standard input ends, so it never outlives the demo, however that ends. Once it is ready it
prints the importance of its classes on standard output, every half second.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import TYPE_CHECKING

from stream_ad.settings import Settings
from stream_ad.telemetry.logging import configure_logging
from stream_ad.util.signals import StopFlag
from stream_ad.worker.process_setup import prepare_process
from stream_ad.worker.worker import Worker

if TYPE_CHECKING:
    from stream_ad.telemetry.metrics import Metrics

_REPORT_S = 0.5


def _importance(metrics: Metrics) -> dict[str, float]:
    families = (family for family in metrics.registry.collect() if family.name == "stream_ad_class_importance")
    return {sample.labels["class"]: sample.value for family in families for sample in family.samples}


def main() -> None:
    """Run the worker with the settings of the command line until standard input ends."""
    settings = Settings.model_validate_json(sys.argv[1])
    configure_logging(settings)
    prepare_process()
    stop = StopFlag()

    def watch() -> None:
        sys.stdin.read()
        stop.set()

    worker = Worker(settings, stop=stop)

    def report() -> None:
        while not stop.wait(_REPORT_S):
            if worker.health.ready()[0]:
                print(json.dumps(_importance(worker.metrics)), flush=True)  # noqa: T201 -- what the demo reads

    for job in (watch, report):
        threading.Thread(target=job, daemon=True).start()
    worker.run()


if __name__ == "__main__":
    main()
