"""What both brokers hold about recovery."""

from __future__ import annotations

from stream_ad.errors import StateError


def refuse_without_snapshot(shard: int, damaged: int) -> None:
    """Refuse to go on without a snapshot where the journal does not reach back to the shard's beginning.

    A broker drops marks only once it keeps two snapshots, so that with one at most the journal is
    complete and the shard can be replayed from its beginning.

    Raises:
        StateError: Several snapshots are kept and none is whole.
    """
    if damaged > 1:
        raise StateError(
            f"None of the {damaged} snapshots of shard {shard} is whole.",
            hint="Use another application_id to start afresh from the oldest records kept.",
        )
