"""Whether the worker is alive and ready, as ``/livez`` and ``/readyz`` report it.

The worker writes, the HTTP threads read; every value is replaced as a whole, so no lock is needed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIVE = "live"


class Health:
    """Health of one worker.

    Args:
        silence_s: Seconds without a tick after which the loop counts as stuck; longer than any single call of the
            broker may block.
        standby_s: Seconds without a shard after which a worker counts as a ready standby: other workers own all shards.
        clock: Monotonic seconds.
    """

    def __init__(self, *, silence_s: float, standby_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._silence_s = silence_s
        self._standby_s = standby_s
        self._clock = clock
        self._ticked = clock()
        self._shardless_since: float | None = self._ticked
        self._shards: Mapping[int, str] = {}
        self._unreachable = ""
        self._joined = False
        self._draining = False

    def tick(self) -> None:
        """Note that the loop has completed a pass."""
        self._ticked = self._clock()

    def shards(self, states: Mapping[int, str]) -> None:
        """Set the state of each assigned shard: ``live``, or a few words on what it waits for. Call it after a poll."""
        self._joined = True
        if states:
            self._shardless_since = None
        elif self._shardless_since is None:
            self._shardless_since = self._clock()
        self._shards = dict(states)

    def broker(self, problem: str) -> None:
        """Set what is wrong with the broker; empty when it answers."""
        self._unreachable = problem

    def drain(self) -> None:
        """Note that the worker is shutting down: it is never ready again."""
        self._draining = True

    def live(self) -> tuple[bool, str]:
        """Return whether the loop makes progress, and a one-line reason."""
        silent = self._clock() - self._ticked
        if silent > self._silence_s:
            return False, f"the loop has made no progress for {silent:.0f} s"
        return True, "ok"

    def ready(self) -> tuple[bool, str]:
        """Return whether every shard of this worker is being scored, and a one-line reason."""
        if self._draining:
            return False, "draining"
        if self._unreachable:
            return False, f"broker: {self._unreachable}"
        if not self._joined:
            return False, "connecting to the broker"
        shards, shardless = self._shards, self._shardless_since
        waiting = [(shard, state) for shard, state in sorted(shards.items()) if state != LIVE]
        if waiting:
            shard, state = waiting[0]
            return False, f"{len(waiting)} of {len(shards)} shards not live; shard {shard}: {state}"
        if not shards and (shardless is None or self._clock() - shardless < self._standby_s):
            return False, "no shard assigned yet"
        return True, "ok" if shards else "ok: standby, every shard is owned by another worker"
