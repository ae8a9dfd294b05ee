"""Promises of the probes: what they answer, and when."""

from __future__ import annotations

from stream_ad.telemetry.health import LIVE, Health


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def make():
    clock = Clock()
    return Health(silence_s=30, standby_s=10, clock=clock), clock


def test_a_stuck_loop_is_not_alive():
    """Liveness fails once the loop was silent for longer than any call may block, and recovers with it."""
    health, clock = make()
    clock.now = 29
    assert health.live() == (True, "ok")
    clock.now = 31
    assert health.live() == (False, "the loop has made no progress for 31 s")
    health.tick()
    assert health.live()[0]


def test_ready_means_that_every_shard_is_scored():
    """A worker is ready when it is joined, all its shards are live and the broker answers."""
    health, _ = make()
    assert health.ready() == (False, "connecting to the broker")
    health.shards({})
    assert health.ready() == (False, "no shard assigned yet")
    health.shards({0: LIVE, 3: "replaying"})
    assert health.ready() == (False, "1 of 2 shards not live; shard 3: replaying")
    health.shards({0: LIVE, 3: LIVE})
    assert health.ready() == (True, "ok")
    health.broker("connection refused")
    assert health.ready() == (False, "broker: connection refused")
    health.broker("")
    health.drain()
    assert health.ready() == (False, "draining")


def test_a_standby_is_ready_after_a_while():
    """More workers than shards: the spare worker is ready, but only after the group had time to give it a shard."""
    health, clock = make()
    health.shards({})
    clock.now = 9
    assert not health.ready()[0]
    clock.now = 11
    assert health.ready() == (True, "ok: standby, every shard is owned by another worker")
    health.shards({1: LIVE})
    health.shards({})
    assert not health.ready()[0]
