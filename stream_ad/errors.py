"""All errors meant for the person who runs the program.

::

    StreamADError                    exit code
    ├── SettingsError                3   a setting is unknown, missing or contradicts another
    ├── BrokerError                  4   the broker cannot be reached or refuses
    │   ├── UnreachableError         4   no broker answers; a starting worker retries by itself
    │   ├── TopicError               4   a topic is missing or has the wrong shape
    │   ├── FencedError              -   another worker owns the shard now; the worker rejoins by itself
    │   ├── ShardBusyError           4   a worker owns this shard
    │   └── LostRecordsError         4   records were deleted before they were read
    ├── InputFileError               5   a file given on the command line cannot be used
    ├── StateError                   6   saved state is damaged or does not fit
    │   ├── DamagedStateError        6   it is cut off, altered or nonsense; an older snapshot may work
    │   └── UnfitStateError          6   it was made with settings for models of another shape
    ├── DeviceError                  7   the device asked for is not available, or computes wrongly
    └── ScarceMemoryError            9   there is too little memory

Each says what happened, where, and what to do about it. Codes 0 (done), 1 (unexpected failure),
2 (wrong usage of the command line) and 8 (a check of `doctor` failed) belong to the command line itself.
"""

from __future__ import annotations


class StreamADError(Exception):
    """Base of all errors with a message for the operator.

    Args:
        what: What happened, where, in one sentence.
        hint: What to do about it, in one sentence.
    """

    exit_code = 1

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class SettingsError(StreamADError):
    """A setting is unknown, missing or contradicts another."""

    exit_code = 3


class BrokerError(StreamADError):
    """The broker cannot be reached or refuses."""

    exit_code = 4


class UnreachableError(BrokerError):
    """No broker answers at the address in the settings."""


class TopicError(BrokerError):
    """A topic is missing or has the wrong shape."""


class FencedError(BrokerError):
    """The commit was refused because another worker has taken over the shard; nothing was written."""


class ShardBusyError(BrokerError):
    """A worker owns the shard, so it cannot be changed by hand."""


class LostRecordsError(BrokerError):
    """Records were deleted before they were read.

    Args:
        what: See `StreamADError`.
        shard: Number of the shard that lost them.
        hint: See `StreamADError`.
    """

    def __init__(self, what: str, *, shard: int, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.shard = shard


class InputFileError(StreamADError):
    """A file given on the command line cannot be used."""

    exit_code = 5


class StateError(StreamADError):
    """Saved state is damaged or does not fit."""

    exit_code = 6


class DamagedStateError(StateError):
    """Saved state is cut off, altered or nonsense; an older snapshot may work."""


class UnfitStateError(StateError):
    """Saved state was made with settings for models of another shape."""


class DeviceError(StreamADError):
    """The device asked for is not available, or computes wrongly."""

    exit_code = 7


class ScarceMemoryError(StreamADError):
    """There is too little memory."""

    exit_code = 9
